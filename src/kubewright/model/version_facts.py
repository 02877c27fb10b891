"""What changes from one version of Kubernetes to the next: the facts' names; `model.versions` has their values."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from kubewright.model.component_fields import Shape
from kubewright.model.version import Version


@dataclass(frozen=True, slots=True)
class ProbePaths:
    """The paths at which a static Pod's probes ask; there is no readiness probe where `ready` is empty."""

    live: str
    startup: str
    ready: str = ""


@dataclass(frozen=True, slots=True)
class VersionFacts:
    """What holds for one version of Kubernetes, as that version's kubeadm has it.

    `docs/versions.md` names the source of each fact.
    """

    version: Version
    """The exact version that was asked for."""

    # -- kinds and their fields -------------------------------------------------------------------------------

    kubeadm_api_versions: tuple[str, ...]
    """kubeadm's API versions that this version's kubeadm reads; the first is the one in `kubeadm-config`."""
    kubeadm_feature_gates: Mapping[str, bool]
    """The gates that may be set in ClusterConfiguration, and their defaults."""
    kubeadm_features: frozenset[str]
    """What was a gate once and is now always on."""
    authorization_mode_stored: bool
    """Whether `kubeadm-config` repeats the authorization mode among the API server's arguments (until 1.29)."""
    cluster_status_kept: bool
    """Whether `kubeadm-config` has the key ClusterStatus (until 1.21)."""
    kubelet_api_version: str
    kubelet_fields: Shape
    """Every field of KubeletConfiguration, to find the misspelt ones."""
    kubelet_unset: Mapping[str, Any]
    """What kubeadm writes of KubeletConfiguration's fields that nobody set, because Go cannot leave them out."""
    kube_proxy_api_version: str
    kube_proxy_fields: Shape
    kube_proxy_unset: Mapping[str, Any]
    kube_proxy_mode: str
    """The mode that is written where nobody says one; empty for kube-proxy's own default (until 1.36)."""
    kube_proxy_modes: tuple[str, ...]
    detect_local_modes: tuple[str, ...]
    """How kube-proxy may be told which traffic is a pod's: its `detectLocalMode`."""
    csr_api_version: str
    discovery_api_version: str
    """Of EndpointSlice."""
    policy_api_version: str
    """Of PodDisruptionBudget."""

    # -- images -----------------------------------------------------------------------------------------------

    image_repository: str
    etcd_tag: str
    pause_tag: str
    coredns_folder: bool
    """Whether CoreDNS' image is one folder deeper in the default repository: `coredns/coredns` (from 1.21 on)."""
    coredns_tag: str
    coredns_image_first: bool
    """Whether kubeadm lists CoreDNS' image before those of pause and etcd (from 1.29 on)."""

    # -- nodes ------------------------------------------------------------------------------------------------

    control_plane_labels: tuple[str, ...]
    """Labels of a control plane's Node, each with an empty value."""
    control_plane_taints: tuple[str, ...]
    """The keys of the NoSchedule taints that keep user pods off control planes; 1.24 has two of them."""
    control_plane_taints_tolerated: tuple[str, ...]
    """The keys that add-ons on control planes tolerate: also those of the versions next to this one."""
    kubelet_config_map: str
    """The ConfigMap of kube-system that holds the kubelets' configuration (`kubelet-config` from 1.24 on)."""
    kubelet_config_role: str
    """The Role and RoleBinding that let joining nodes read it."""
    container_runtime_flag: bool
    """Whether the kubelet is given `--container-runtime=remote` (until 1.25)."""
    cri_socket_is_url: bool
    """Whether kubeadm writes `unix://` before the CRI socket in flags and annotation (from 1.24 on)."""
    pause_image_flag: Literal["custom", "always", "never"]
    """When the kubelet is given `--pod-infra-container-image`: where the image is not the version's own (our
    choice, until 1.20; kubeadm names none to a remote runtime), always (until 1.34), never (1.35 removed it)."""
    cgroup_driver: str
    """A new cluster's cgroup driver where nobody says one; empty for the kubelet's own default (until 1.20)."""
    resolv_conf_shared: bool
    """Whether the kubelets' ConfigMap names the first control plane's resolv.conf (until 1.30)."""
    super_admin: bool
    """Whether only `super-admin.conf` is in system:masters, `admin.conf` in a group of kubeadm's (from 1.29).

    The same holds for the API server as a client of kubelets, as long as a group gives that its rights; its and
    the probes' etcd clients lost the group.
    """
    kubelet_client_bound: bool
    """Whether the API server, as a client of kubelets, is in no group and a binding of its own names its user."""
    token_secrets: bool
    """Whether each ServiceAccount gets a Secret with a token that never expires (until 1.23)."""
    kubelet_minors_behind: int
    """How many minor versions a kubelet may be behind the API server; it may never be ahead (P06)."""
    kubeadm_kubelet_minors_behind: int
    """How many minor versions a kubelet may be behind kubeadm, which is stricter: 1 until 1.28, then 3."""
    needed_programs: tuple[str, ...]
    """The programs without which preflight refuses a host (`FileExisting-NAME`)."""
    useful_programs: tuple[str, ...]
    """Those that it only misses."""
    bridge_filter_checked: bool
    """Whether preflight asks that bridged packets pass iptables; from 1.30 on that is the pod network's affair."""
    cgroup_v1: Literal["supported", "maintained", "refused"]
    """What the kubelet says to cgroup v1: in maintenance from 1.31 on, refused unless asked for from 1.35 on."""

    # -- static Pods ------------------------------------------------------------------------------------------

    api_server_insecure_port_flag: bool
    """Whether kube-apiserver is told to close its insecure port: `--insecure-port=0` (until 1.21)."""
    insecure_port_flags: bool
    """Whether controller manager and scheduler are told the same: `--port=0` (until 1.22)."""
    dual_stack_flags: bool
    """Whether the gate IPv6DualStack of ClusterConfiguration is handed to the servers (until 1.22)."""
    authorization_config: bool
    """Whether `--authorization-config` takes the place of the default `--authorization-mode` (from 1.30)."""
    extra_args_last: bool
    """Whether the user's arguments come last and in their order, or are sorted among kubeadm's."""
    static_pod_seccomp: bool
    """Whether static Pods have the seccomp profile RuntimeDefault (from 1.22)."""
    static_pod_priority: int | None
    """The number that their priority class stands for, where it is written beside it."""
    probe_port: str
    """The name of the container port that the probes use; empty where they name a number (until 1.33)."""
    flex_volumes: bool
    """Whether kube-controller-manager has the directory of the flex volumes' plugins (until 1.35)."""
    ca_dirs: tuple[str, ...]
    """Where links in /etc/ssl/certs may lead: each of these that the host has is mounted beside it."""
    scheduler_probes: ProbePaths
    etcd_probes: ProbePaths
    etcd_flags: Mapping[str, str]
    """Arguments of etcd that not every version gives it; see `etcd_arguments`."""
    etcd_older_flags: Mapping[str, str]
    """The same for an etcd before 3.6, which a user may have chosen."""
    etcd_ephemeral_storage: bool
    """Whether etcd's Pod requests ephemeral storage."""

    # -- add-ons ----------------------------------------------------------------------------------------------

    dns_service_name: str
    """The label `kubernetes.io/name` of cluster DNS's Service."""
    dns_reads_nodes: bool
    dns_reads_endpoint_slices: bool
    dns_anti_affinity: bool
    """Whether kubeadm's own CoreDNS replicas prefer nodes of their own (from 1.25)."""
    dns_drops: str
    """The word for all capabilities: `all`, and `ALL` from 1.29 on."""
    dns_named_probe_ports: bool
    dns_caches_cluster: bool
    """Whether CoreDNS caches answers about the cluster's own names (until 1.31)."""
    kube_proxy_tolerates_critical: bool
    """Whether kube-proxy names the toleration CriticalAddonsOnly beside the one of everything (until 1.21)."""

    def feature(self, name: str, chosen: Mapping[str, bool] | None = None) -> bool:
        """Whether what a gate of kubeadm guards is on, for a ClusterConfiguration that sets `chosen`."""
        if name in self.kubeadm_features:
            return True
        return (chosen or {}).get(name, self.kubeadm_feature_gates.get(name, False))

    def kubelet_local_mode(self, chosen: Mapping[str, bool] | None = None) -> bool:
        """Whether a control plane's kubelet uses the API server of its own node (by default from 1.33 on)."""
        return self.feature("ControlPlaneKubeletLocalMode", chosen)

    def instance_config(self, chosen: Mapping[str, bool] | None = None) -> bool:
        """Whether the CRI socket is in `instance-config.yaml` on each node (by default from 1.34 on).

        Then it is neither among the kubelet's flags nor an annotation of the Node.
        """
        return self.feature("NodeLocalCRISocket", chosen)

    def cri_endpoint(self, socket: str) -> str:
        """A CRI socket's path as this version's flags and the node's annotation spell it."""
        path = socket.removeprefix("unix://")
        return f"unix://{path}" if self.cri_socket_is_url else path

    def kubelet_flags(self, cri_socket: str, chosen: Mapping[str, bool] | None = None) -> dict[str, str]:
        """The flags of `/var/lib/kubelet/kubeadm-flags.env` for a runtime that is no Docker."""
        flags = {"container-runtime": "remote"} if self.container_runtime_flag else {}
        if not self.instance_config(chosen):
            flags["container-runtime-endpoint"] = self.cri_endpoint(cri_socket)
        return flags

    def etcd_arguments(self, image_tag: str) -> Mapping[str, str]:
        """What this version gives an etcd of that image beside what every version does.

        As in kubeadm, a tag that is no version is taken for the older kind.
        """
        numbers = re.match(r"v?(\d+)\.(\d+)\.", image_tag)
        newer = numbers is not None and (int(numbers[1]), int(numbers[2])) >= (3, 6)
        return self.etcd_flags if newer else self.etcd_older_flags

    def supports_kubelet(self, kubelet: Version) -> bool:
        """Whether a kubelet of that version may serve an API server of this one (Kubernetes' skew policy)."""
        behind = self.version.minor - kubelet.minor
        return kubelet.major == self.version.major and 0 <= behind <= self.kubelet_minors_behind
