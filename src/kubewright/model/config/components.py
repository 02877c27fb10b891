"""The kubelet's and kube-proxy's configuration: kubeadm's defaults under the user's fields."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, TypeAlias

from kubewright.model.component_fields import ListOf, Shape
from kubewright.model.config.cluster import ClusterSpec
from kubewright.model.config.duration import normal_duration
from kubewright.model.config.findings import Finding, raise_if_any, shown, unknown_field
from kubewright.model.config.kubeadm import ClusterConfiguration, check_type, default_cluster_configuration
from kubewright.model.config.yamltext import Path
from kubewright.model.node import nth_address
from kubewright.model.versions import VersionFacts, facts_for

Object: TypeAlias = dict[str, Any]

KUBELET_FIELD = "kubeletConfiguration"
KUBE_PROXY_FIELD = "kubeProxyConfiguration"
"""The fields of cluster.yaml under which the two kinds are passed through."""

KUBE_PROXY_KUBECONFIG = "/var/lib/kube-proxy/kubeconfig.conf"


def kubelet_configuration(
    spec: ClusterSpec,
    cc: ClusterConfiguration | None = None,
    *,
    cgroup_driver: str = "",
    resolv_conf: str = "",
) -> Object:
    """The KubeletConfiguration of the cluster, or of one host with that host's facts.

    Without facts it is what the ConfigMap `kubelet-config-…` holds. `cgroup_driver` is the runtime's (P48),
    `resolv_conf` a file without a loopback name server (P18); both give way to what the user says. Beyond
    kubeadm's output, the rotation of container logs is always set (P03), to the kubelet's own defaults. Raises
    `FindingsError` for mistakes in what is passed through.
    """
    cc = cc or default_cluster_configuration(spec)
    user = spec.kubelet_configuration
    raise_if_any(kubelet_findings(user, facts_for(cc.kubernetes_version)))
    base: Object = {"containerLogMaxFiles": 5, "containerLogMaxSize": "10Mi"}
    if cgroup_driver:
        base["cgroupDriver"] = cgroup_driver
    said = {name: value for name, value in user.items() if value not in (None, "")}
    return kubelet_document(base | said, cc, resolv_conf=resolv_conf)


def kubelet_document(
    user: Mapping[str, Any],
    cc: ClusterConfiguration,
    *,
    resolv_conf: str = "",
    cgroup_driver: str | None = None,
) -> Object:
    """kubeadm's KubeletConfiguration for a cluster, under the user's fields, which have been checked before.

    `resolv_conf` is named in it where it is not empty. `cgroup_driver` is that of a cluster that has kubelets,
    empty for their own default; None for what the version gives a new cluster.
    """
    facts = facts_for(cc.kubernetes_version)
    defaults = _over(
        facts.kubelet_unset,
        {
            "apiVersion": facts.kubelet_api_version,
            "kind": "KubeletConfiguration",
            "authentication": {
                "anonymous": {"enabled": False},
                "webhook": {"enabled": True},
                "x509": {"clientCAFile": f"{cc.certificates_dir}/ca.crt"},
            },
            "authorization": {"mode": "Webhook"},
            "clusterDNS": [nth_address(cc.networking.service_subnet, 10)],
            "clusterDomain": cc.networking.dns_domain,
            "healthzBindAddress": "127.0.0.1",
            "healthzPort": 10248,
            "rotateCertificates": True,
            "staticPodPath": "/etc/kubernetes/manifests",
        },
    )
    driver = facts.cgroup_driver if cgroup_driver is None else cgroup_driver
    if driver:
        defaults["cgroupDriver"] = driver
    if resolv_conf:
        defaults["resolvConf"] = resolv_conf
    return _merged(defaults, user, facts.kubelet_fields)


def kube_proxy_configuration(spec: ClusterSpec, cc: ClusterConfiguration | None = None) -> Object:
    """The KubeProxyConfiguration of the cluster; `clusterCIDR` is set wherever there is a pod subnet (P11).

    Raises `FindingsError` for mistakes in what is passed through.
    """
    cc = cc or default_cluster_configuration(spec)
    user = spec.kube_proxy_configuration
    raise_if_any(kube_proxy_findings(user, facts_for(cc.kubernetes_version)))
    return kube_proxy_document(user, cc, pod_subnet=cc.networking.pod_subnet or spec.network.pod_subnet)


def kube_proxy_document(user: Mapping[str, Any], cc: ClusterConfiguration, *, pod_subnet: str = "") -> Object:
    """kubeadm's KubeProxyConfiguration for a cluster, under the user's fields, which have been checked before."""
    facts = facts_for(cc.kubernetes_version)
    defaults = _over(
        facts.kube_proxy_unset,
        {
            "apiVersion": facts.kube_proxy_api_version,
            "kind": "KubeProxyConfiguration",
            "bindAddress": "0.0.0.0",  # noqa: S104
            "clientConnection": {"kubeconfig": KUBE_PROXY_KUBECONFIG},
            "clusterCIDR": pod_subnet or cc.networking.pod_subnet,
        },
    )
    if facts.kube_proxy_mode:
        defaults["mode"] = facts.kube_proxy_mode
    return _merged(defaults, user, facts.kube_proxy_fields)


def kubelet_findings(
    user: Mapping[str, Any], facts: VersionFacts, prefix: tuple[str] = (KUBELET_FIELD,)
) -> list[Finding]:
    """What is wrong with the KubeletConfiguration that a user writes; it stands below `prefix`."""
    findings = check_type(user, (facts.kubelet_api_version,), "KubeletConfiguration", prefix)
    findings += _check(user, facts.kubelet_fields, prefix)
    if user.get("rotateCertificates") is False:
        findings.append(
            Finding(
                (*prefix, "rotateCertificates"),
                "kubeadm's clusters always rotate the kubelets' client certificates (P23)",
                hint="leave it out",
            )
        )
    findings += _choice(user, "cgroupDriver", ("", "systemd", "cgroupfs"), prefix)
    return findings


def kube_proxy_findings(
    user: Mapping[str, Any], facts: VersionFacts, prefix: tuple[str] = (KUBE_PROXY_FIELD,)
) -> list[Finding]:
    """What is wrong with the KubeProxyConfiguration that a user writes; it stands below `prefix`."""
    findings = check_type(user, (facts.kube_proxy_api_version,), "KubeProxyConfiguration", prefix)
    findings += _check(user, facts.kube_proxy_fields, prefix)
    findings += _choice(user, "mode", ("", *facts.kube_proxy_modes), prefix)
    findings += _choice(user, "detectLocalMode", ("", *facts.detect_local_modes), prefix)
    return findings


def _choice(user: Mapping[str, Any], field: str, choices: tuple[str, ...], prefix: Path) -> list[Finding]:
    value = user.get(field)
    if not isinstance(value, str) or value in choices:
        return []
    words = " or ".join(repr(choice) for choice in choices if choice)
    return [Finding((*prefix, field), f"{shown(value)} is not {words}")]


_WORDS = {
    "text": "text",
    "flag": "true or false",
    "int": "a whole number",
    "number": "a number",
    "duration": "a duration such as 4m0s",
    "duration or int": "a duration such as 5s, or nanoseconds",
    "quantity": "a quantity such as 64Ki",
    "texts": "a list of texts",
    "ints": "a list of whole numbers",
    "text map": "a mapping from text to text",
    "flag map": "a mapping from text to true or false",
    "texts map": "a mapping from text to lists of texts",
    "quantity map": "a mapping from text to quantities",
}


def _check(user: Mapping[str, Any], shape: Shape, path: Path) -> list[Finding]:
    findings = []
    for name, value in user.items():
        if len(path) == 1 and name in ("apiVersion", "kind"):
            continue
        kind = shape.get(name)
        if kind is None:
            findings.append(unknown_field(path, name, shape))
        elif value is None:
            continue
        elif isinstance(kind, ListOf):
            findings += _check_list(value, kind, (*path, name))
        elif not isinstance(kind, str):
            findings += _check_mapping(value, kind, (*path, name))
        elif problem := _problem(value, kind):
            findings.append(Finding((*path, name), problem))
    return findings


def _check_list(value: Any, kind: ListOf, path: Path) -> list[Finding]:
    if not isinstance(value, list):
        return [Finding(path, f"must be a list of mappings, not {shown(value)}")]
    return [
        finding
        for index, item in enumerate(value)
        for finding in _check_mapping(item, kind.shape, (*path, index))
    ]


def _check_mapping(value: Any, shape: Shape, path: Path) -> list[Finding]:
    if isinstance(value, Mapping):
        return _check(value, shape, path)
    return [Finding(path, f"must be a mapping, not {shown(value)}")]


def _problem(value: Any, kind: str) -> str:
    """Why a value is not of its kind; empty where it is."""
    if kind in ("duration", "duration or int") and isinstance(value, str):
        try:
            normal_duration(value)
        except ValueError as error:
            return str(error)
        return ""
    if _is(value, kind):
        return ""
    if kind in ("text", "text map", "texts") and isinstance(value, int | float):
        return f'{shown(value)} must be text: write it in quotes, "{shown(value)}"'
    return f"must be {_WORDS[kind]}, not {shown(value)}"


def _is(value: Any, kind: str) -> bool:
    match kind:
        case "text":
            return isinstance(value, str)
        case "flag":
            return isinstance(value, bool)
        case "int":
            return isinstance(value, int) and not isinstance(value, bool)
        case "number":
            return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
        case "quantity":
            return isinstance(value, str) or _is(value, "number")
        case "texts" | "ints":
            return isinstance(value, list) and all(_is(item, kind.removesuffix("s")) for item in value)
        case "duration or int":
            return _is(value, "int")
        case "duration":
            return False
        case _:
            inner = kind.removesuffix(" map")
            return isinstance(value, Mapping) and all(_is(item, inner) for item in value.values())


def _over(base: Mapping[str, Any], fields: Mapping[str, Any]) -> Object:
    """`fields` over `base`, all the way down."""
    merged = dict(base)
    for name, value in fields.items():
        merged[name] = _over(merged.get(name, {}), value) if isinstance(value, Mapping) else value
    return merged


def _merged(defaults: Mapping[str, Any], user: Mapping[str, Any], shape: Shape) -> Object:
    """The user's fields over the defaults, in alphabetical order, durations as Go prints them.

    A field that is null or an empty text is not set, as in kubeadm.
    """
    merged = dict(defaults)
    for name, value in user.items():
        kind = shape.get(name)
        if value is None or value == "" or kind is None:
            continue
        if isinstance(kind, Mapping):
            merged[name] = _merged(merged.get(name) or {}, value, kind)
        else:
            merged[name] = normal_duration(value) if kind == "duration" else value
    return dict(sorted(merged.items()))
