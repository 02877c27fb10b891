"""What of a cluster's configuration a cluster.yaml has to pass through: all that does not follow from the rest."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from kubewright.model.config.cluster import ClusterSpec
from kubewright.model.config.components import kube_proxy_configuration, kubelet_configuration
from kubewright.model.config.kinds import without_empty
from kubewright.model.config.kubeadm import (
    ClusterConfiguration,
    default_cluster_configuration,
    to_stored,
)
from kubewright.model.config.yamltext import Path, render_path
from kubewright.model.objects import Object
from kubewright.model.versions import facts_for

_LOG_ROTATION = ("containerLogMaxFiles", "containerLogMaxSize")
"""What cluster.yaml always says, with the kubelet's own defaults, and kubeadm never (P03)."""
_CGROUP_DRIVER = "cgroupDriver"
_KUBELETS_DRIVER = "cgroupfs"
"""The kubelet's own default."""
_BY_HOST = ("", "/etc/resolv.conf", "/run/systemd/resolve/resolv.conf")
"""Values of `resolvConf` that follow from the host on which kubeadm ran (P18)."""


@dataclass(frozen=True, slots=True)
class Fields:
    """What a component's configuration comes to."""

    fields: Object
    """What to pass through."""
    unsaid: tuple[str, ...]
    """The fields that the cluster lacks, and that are set whatever is passed through."""
    driver_guessed: bool = False
    """Whether the cluster does not say the kubelets' cgroup driver: then the file says their default."""


def cluster_fields(cluster: ClusterConfiguration, spec: ClusterSpec) -> Object:
    """The fields of ClusterConfiguration that `spec`, which passes none through, does not give by itself.

    They are those of the API version in which the cluster keeps it. The API server's authorization mode is left
    out where kubeadm stores its default.
    """
    return _beyond(to_stored(cluster), to_stored(default_cluster_configuration(spec)))


def kubelet_fields(found: Mapping[str, Any], cluster: ClusterConfiguration, spec: ClusterSpec) -> Fields:
    """The same for the KubeletConfiguration `found` in the cluster."""
    usual = kubelet_configuration(spec, cluster)
    guessed = not found.get(_CGROUP_DRIVER) and _CGROUP_DRIVER in usual
    if guessed:
        found = {**found, _CGROUP_DRIVER: _KUBELETS_DRIVER}
    if found.get("resolvConf", "") in _BY_HOST:
        found = {name: value for name, value in found.items() if name != "resolvConf"}
    fields = without_empty(_beyond(found, usual))
    always = kubelet_configuration(spec.model_copy(update={"kubelet_configuration": fields}), cluster)
    unsaid = _unsaid(always, found, facts_for(cluster.kubernetes_version).kubelet_unset)
    return Fields(fields, tuple(name for name in unsaid if name not in _LOG_ROTATION), guessed)


def kube_proxy_fields(found: Mapping[str, Any], cluster: ClusterConfiguration, spec: ClusterSpec) -> Fields:
    """The same for the KubeProxyConfiguration `found` in the cluster."""
    fields = without_empty(_beyond(found, kube_proxy_configuration(spec, cluster)))
    always = kube_proxy_configuration(spec.model_copy(update={"kube_proxy_configuration": fields}), cluster)
    return Fields(
        fields, tuple(_unsaid(always, found, facts_for(cluster.kubernetes_version).kube_proxy_unset))
    )


def _beyond(found: Mapping[str, Any], base: Mapping[str, Any]) -> Object:
    """What `found` says beyond `base` or otherwise, all the way down."""
    more: Object = {}
    for name, value in found.items():
        known = base.get(name)
        if isinstance(value, Mapping) and isinstance(known, Mapping):
            if inner := _beyond(value, known):
                more[name] = inner
        elif name not in base or value != known:
            more[name] = value
    return more


def _unsaid(always: Mapping[str, Any], found: Mapping[str, Any], unset: Mapping[str, Any]) -> Iterator[str]:
    """The places where `always` has a value that `found` does not; but for those that say that nothing is set."""
    return (render_path(path) for path in _leaves(_beyond(_beyond(always, found), unset), ()))


def _leaves(value: Any, path: Path) -> Iterator[Path]:
    if not isinstance(value, Mapping):
        yield path
        return
    for name, inner in value.items():
        yield from _leaves(inner, (*path, name))
