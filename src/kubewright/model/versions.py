"""The one table from a Kubernetes version to the facts that change with it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import total_ordering
from types import MappingProxyType
from typing import TYPE_CHECKING

from kubewright.errors import ConfigError, ExitCode
from kubewright.model.component_fields import KUBE_PROXY_V1ALPHA1_1_20, KUBELET_V1BETA1_1_20, Shape

if TYPE_CHECKING:
    from kubewright.model.config.kubeadm import ClusterConfiguration

_SEMANTIC = re.compile(
    r"v?(0|[1-9][0-9]{0,5})\.(0|[1-9][0-9]{0,5})\.(0|[1-9][0-9]{0,5})"
    r"(?:-([0-9A-Za-z-]+(?:\.[0-9A-Za-z-]+)*))?(?:\+([0-9A-Za-z-]+(?:\.[0-9A-Za-z-]+)*))?",
    re.ASCII,
)


@total_ordering
@dataclass(frozen=True, slots=True, eq=False)
class Version:
    """A version of Kubernetes; compares by semver.org's precedence, in which build metadata has no part.

    >>> Version.parse("1.20.2") < Version.parse("v1.21.0-rc.1") < Version.parse("v1.21.0")
    True
    """

    major: int
    minor: int
    patch: int
    prerelease: tuple[str, ...] = ()
    build: str = ""

    @classmethod
    def parse(cls, text: str, *, field: str = "kubernetesVersion") -> Version:
        """Parse `v1.20.2`, with or without its v. Raises `ConfigError`, which names `field`."""
        match = _SEMANTIC.fullmatch(text)
        if match is None:
            raise ConfigError(
                f"{field}: {text!r} is not a version",
                hint="write all three numbers, such as v1.20.2; labels such as stable or latest are not resolved",
            )
        major, minor, patch, prerelease, build = match.groups()
        return cls(
            int(major),
            int(minor),
            int(patch),
            tuple(prerelease.split(".")) if prerelease else (),
            build or "",
        )

    @property
    def series(self) -> str:
        """The minor version: `1.20`."""
        return f"{self.major}.{self.minor}"

    @property
    def image_tag(self) -> str:
        """The version as an image's tag, in which a plus sign cannot stand."""
        return str(self).replace("+", "_")

    def __str__(self) -> str:
        text = f"v{self.major}.{self.minor}.{self.patch}"
        text += "-" + ".".join(self.prerelease) if self.prerelease else ""
        return text + (f"+{self.build}" if self.build else "")

    @property
    def _precedence(self) -> tuple[int, int, int, bool, tuple[tuple[bool, int, str], ...]]:
        words = tuple(
            (not word.isdecimal(), int(word) if word.isdecimal() else 0, word) for word in self.prerelease
        )
        return self.major, self.minor, self.patch, not self.prerelease, words

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Version) and self._precedence == other._precedence

    def __lt__(self, other: Version) -> bool:
        return self._precedence < other._precedence

    def __hash__(self) -> int:
        return hash(self._precedence)


@dataclass(frozen=True, slots=True)
class VersionFacts:
    """What holds for one minor version of Kubernetes, as that version's kubeadm has it."""

    version: Version
    """The exact version that was asked for; everything below holds for its whole minor version."""

    kubeadm_api_versions: tuple[str, ...]
    """kubeadm's API versions that are read here; the first is the one written to `kubeadm-config`."""
    kubelet_api_version: str
    kube_proxy_api_version: str
    kubeadm_feature_gates: frozenset[str]
    kubelet_fields: Shape
    """Every field of KubeletConfiguration, to find the misspelt ones."""
    kube_proxy_fields: Shape

    image_repository: str
    etcd_tag: str
    pause_tag: str
    coredns_image: str
    """The image's name below the repository (`coredns/coredns` from 1.21 on)."""
    coredns_tag: str

    control_plane_labels: tuple[str, ...]
    """Labels of a control plane's Node, each with an empty value."""
    control_plane_taint: str
    """The key of the NoSchedule taint that keeps user pods off control planes."""
    control_plane_taints_tolerated: tuple[str, ...]
    """The keys that add-ons on control planes tolerate: also those of the versions next to this one."""

    kubelet_config_map: str
    """The ConfigMap of kube-system that holds the kubelets' configuration (`kubelet-config` from 1.24 on)."""
    kubelet_config_role: str
    """The Role and RoleBinding that let joining nodes read it."""
    cluster_status_kept: bool
    """Whether `kubeadm-config` has the key ClusterStatus (until 1.21)."""

    csr_api_version: str
    discovery_api_version: str
    """Of EndpointSlice."""
    policy_api_version: str
    """Of PodDisruptionBudget."""

    container_runtime_flag: bool
    """Whether the kubelet needs `--container-runtime=remote` (until 1.26)."""
    cri_socket_is_url: bool
    """Whether kubeadm writes `unix://` before the CRI socket in flags and annotation (from 1.24 on)."""
    insecure_port_flags: bool
    """Whether the servers are told to close their insecure ports: `--insecure-port=0`, `--port=0` (until 1.23)."""
    token_secrets: bool
    """Whether each ServiceAccount gets a Secret with a token that never expires (until 1.23)."""

    kubelet_minors_behind: int
    """How many minor versions a kubelet may be behind the API server; it may never be ahead (P06)."""

    def cri_endpoint(self, socket: str) -> str:
        """A CRI socket's path as this version's flags and the node's annotation spell it."""
        path = socket.removeprefix("unix://")
        return f"unix://{path}" if self.cri_socket_is_url else path

    def kubelet_flags(self, cri_socket: str) -> dict[str, str]:
        """The flags of `/var/lib/kubelet/kubeadm-flags.env` for a runtime that is no Docker."""
        flags = {"container-runtime": "remote"} if self.container_runtime_flag else {}
        return flags | {"container-runtime-endpoint": self.cri_endpoint(cri_socket)}

    def supports_kubelet(self, kubelet: Version) -> bool:
        """Whether a kubelet of that version may serve an API server of this one (Kubernetes' skew policy)."""
        behind = self.version.minor - kubelet.minor
        return kubelet.major == self.version.major and 0 <= behind <= self.kubelet_minors_behind


def _facts_1_20(version: Version) -> VersionFacts:
    return VersionFacts(
        version=version,
        kubeadm_api_versions=("kubeadm.k8s.io/v1beta2",),
        kubelet_api_version="kubelet.config.k8s.io/v1beta1",
        kube_proxy_api_version="kubeproxy.config.k8s.io/v1alpha1",
        kubeadm_feature_gates=frozenset({"IPv6DualStack", "PublicKeysECDSA"}),
        kubelet_fields=KUBELET_V1BETA1_1_20,
        kube_proxy_fields=KUBE_PROXY_V1ALPHA1_1_20,
        image_repository="k8s.gcr.io",
        etcd_tag="3.4.13-0",
        pause_tag="3.2",
        coredns_image="coredns",
        coredns_tag="1.7.0",
        control_plane_labels=("node-role.kubernetes.io/master", "node-role.kubernetes.io/control-plane"),
        control_plane_taint="node-role.kubernetes.io/master",
        control_plane_taints_tolerated=(
            "node-role.kubernetes.io/master",
            "node-role.kubernetes.io/control-plane",
        ),
        kubelet_config_map="kubelet-config-1.20",
        kubelet_config_role="kubeadm:kubelet-config-1.20",
        cluster_status_kept=True,
        csr_api_version="certificates.k8s.io/v1",
        discovery_api_version="discovery.k8s.io/v1beta1",
        policy_api_version="policy/v1beta1",
        container_runtime_flag=True,
        cri_socket_is_url=False,
        insecure_port_flags=True,
        token_secrets=True,
        kubelet_minors_behind=2,
    )


_ROWS = MappingProxyType({"1.20": _facts_1_20})

SUPPORTED_SERIES: tuple[str, ...] = tuple(_ROWS)
"""The minor versions that have a row, oldest first."""


def facts_for(version: str | Version, *, field: str = "kubernetesVersion") -> VersionFacts:
    """The facts of a version. Raises `ConfigError`: VERSION_UNAVAILABLE where its minor version has no row."""
    parsed = version if isinstance(version, Version) else Version.parse(version, field=field)
    row = _ROWS.get(parsed.series)
    if row is None:
        raise ConfigError(
            f"{field}: Kubernetes {parsed} is not supported",
            hint=f"supported: {', '.join(f'v{series}.x' for series in SUPPORTED_SERIES)}",
            exit_code=ExitCode.VERSION_UNAVAILABLE,
        )
    return row(parsed)


def image_references(cc: ClusterConfiguration, facts: VersionFacts) -> dict[str, str]:
    """Component name to full image reference, in the order of kubeadm's `config images list`.

    The names are kube-apiserver, kube-controller-manager, kube-scheduler, kube-proxy, pause, etcd, coredns.
    """
    version = Version.parse(cc.kubernetes_version)
    images = {
        name: f"{cc.image_repository}/{name}:{version.image_tag}"
        for name in ("kube-apiserver", "kube-controller-manager", "kube-scheduler", "kube-proxy")
    }
    images["pause"] = f"{cc.image_repository}/pause:{facts.pause_tag}"
    etcd = cc.etcd.local
    if etcd is not None:
        repository = etcd.image_repository or cc.image_repository
        images["etcd"] = f"{repository}/etcd:{etcd.image_tag or facts.etcd_tag}"
    repository = cc.dns.image_repository or cc.image_repository
    images["coredns"] = f"{repository}/{facts.coredns_image}:{cc.dns.image_tag or facts.coredns_tag}"
    return images
