"""The one way from a Kubernetes version to the facts that change with it."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from kubewright.errors import ConfigError, ExitCode
from kubewright.model.version import Version
from kubewright.model.version_facts import ProbePaths, VersionFacts
from kubewright.model.version_rows import PATCHES, ROWS

if TYPE_CHECKING:
    from kubewright.model.config.kubeadm import ClusterConfiguration

__all__ = [
    "NEWEST_SERIES",
    "OLDEST_SERIES",
    "SUPPORTED_SERIES",
    "ProbePaths",
    "Version",
    "VersionFacts",
    "facts_for",
    "image_references",
]

SUPPORTED_SERIES: tuple[str, ...] = tuple(ROWS)
"""The minor versions that have a row, oldest first."""
OLDEST_SERIES, NEWEST_SERIES = SUPPORTED_SERIES[0], SUPPORTED_SERIES[-1]


def facts_for(version: str | Version, *, field: str = "kubernetesVersion") -> VersionFacts:
    """The facts of a version. Raises `ConfigError`: VERSION_UNAVAILABLE where its minor version has no row."""
    parsed = version if isinstance(version, Version) else Version.parse(version, field=field)
    row = ROWS.get(parsed.series)
    if row is None:
        raise ConfigError(
            f"{field}: Kubernetes {parsed} is not supported",
            hint=f"supported: v{OLDEST_SERIES}.x to v{NEWEST_SERIES}.x",
            exit_code=ExitCode.VERSION_UNAVAILABLE,
        )
    later: dict[str, Any] = {"version": parsed}
    for patch, changed in sorted(PATCHES.get(parsed.series, {}).items()):
        if patch <= parsed.patch:
            later |= changed
    return replace(row, **later)


def image_references(cc: ClusterConfiguration, facts: VersionFacts) -> dict[str, str]:
    """Component name to full image reference, in the order of that version's `kubeadm config images list`.

    The names are kube-apiserver, kube-controller-manager, kube-scheduler, kube-proxy, pause, etcd, coredns; from
    1.29 on coredns comes before the last two. Without etcd where it is external.
    """
    version = Version.parse(cc.kubernetes_version)
    images = {
        name: f"{cc.image_repository}/{name}:{version.image_tag}"
        for name in ("kube-apiserver", "kube-controller-manager", "kube-scheduler", "kube-proxy")
    }
    repository = cc.dns.image_repository or cc.image_repository
    folder = "coredns/" if facts.coredns_folder and repository == facts.image_repository else ""
    dns = {"coredns": f"{repository}/{folder}coredns:{cc.dns.image_tag or facts.coredns_tag}"}
    others = {"pause": f"{cc.image_repository}/pause:{facts.pause_tag}"}
    etcd = cc.etcd.local
    if etcd is not None:
        repository = etcd.image_repository or cc.image_repository
        others["etcd"] = f"{repository}/etcd:{etcd.image_tag or facts.etcd_tag}"
    return images | (dns | others if facts.coredns_image_first else others | dns)
