"""The values of the facts: a row for each minor version, the one before it with what changed.

`docs/versions.md` names where each change was read. `model.versions` is the way to them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any

from kubewright.model import component_changes as changes
from kubewright.model import component_fields as fields
from kubewright.model.version import Version
from kubewright.model.version_facts import ProbePaths, VersionFacts

_MASTER = "node-role.kubernetes.io/master"
_CONTROL_PLANE = "node-role.kubernetes.io/control-plane"
_NO_LOAD_BALANCER = "node.kubernetes.io/exclude-from-external-load-balancers"

_CA_DIRS = ("/usr/share/ca-certificates", "/usr/local/share/ca-certificates", "/etc/ca-certificates")

_V1BETA2, _V1BETA3, _V1BETA4 = (f"kubeadm.k8s.io/v1beta{number}" for number in (2, 3, 4))

_DUAL_STACK, _ECDSA, _ROOTLESS = "IPv6DualStack", "PublicKeysECDSA", "RootlessControlPlane"
_UNVERSIONED, _LEARNER = "UnversionedKubeletConfigMap", "EtcdLearnerMode"
_ADDONS_FIRST, _WAIT_ALL = "UpgradeAddonsBeforeControlPlane", "WaitForAllControlPlaneComponents"
_LOCAL_MODE, _LOCAL_SOCKET = "ControlPlaneKubeletLocalMode", "NodeLocalCRISocket"

_CORRUPT_CHECK = MappingProxyType({"experimental-initial-corrupt-check": "true"})
_PROGRESS = MappingProxyType({**_CORRUPT_CHECK, "experimental-watch-progress-notify-interval": "5s"})
_GRADUATED = MappingProxyType(
    {"feature-gates": "InitialCorruptCheck=true", "watch-progress-notify-interval": "5s"}
)


def _gates(**defaults: bool) -> Mapping[str, bool]:
    return MappingProxyType(dict(sorted(defaults.items())))


def _components(series: str, before: VersionFacts) -> VersionFacts:
    """The fields of the components' configurations, as they changed with one minor version."""
    return replace(
        before,
        kubelet_fields=changes.changed(before.kubelet_fields, changes.KUBELET_FIELDS, series),
        kubelet_unset=changes.changed(before.kubelet_unset, changes.KUBELET_UNSET, series),
        kube_proxy_fields=changes.changed(before.kube_proxy_fields, changes.KUBE_PROXY_FIELDS, series),
        kube_proxy_unset=changes.changed(before.kube_proxy_unset, changes.KUBE_PROXY_UNSET, series),
    )


_1_20 = VersionFacts(
    version=Version(1, 20, 0),
    kubeadm_api_versions=(_V1BETA2,),
    kubeadm_feature_gates=_gates(**{_DUAL_STACK: False, _ECDSA: False}),
    kubeadm_features=frozenset(),
    authorization_mode_stored=True,
    cluster_status_kept=True,
    kubelet_api_version="kubelet.config.k8s.io/v1beta1",
    kubelet_fields=fields.KUBELET_V1BETA1_1_20,
    kubelet_unset=fields.KUBELET_UNSET_1_20,
    kube_proxy_api_version="kubeproxy.config.k8s.io/v1alpha1",
    kube_proxy_fields=fields.KUBE_PROXY_V1ALPHA1_1_20,
    kube_proxy_unset=fields.KUBE_PROXY_UNSET_1_20,
    kube_proxy_mode="",
    kube_proxy_modes=("iptables", "ipvs", "userspace"),
    detect_local_modes=("ClusterCIDR", "NodeCIDR"),
    csr_api_version="certificates.k8s.io/v1",
    discovery_api_version="discovery.k8s.io/v1beta1",
    policy_api_version="policy/v1beta1",
    image_repository="k8s.gcr.io",
    etcd_tag="3.4.13-0",
    pause_tag="3.2",
    coredns_folder=False,
    coredns_tag="1.7.0",
    coredns_image_first=False,
    control_plane_labels=(_MASTER, _CONTROL_PLANE),
    control_plane_taints=(_MASTER,),
    control_plane_taints_tolerated=(_MASTER, _CONTROL_PLANE),
    kubelet_config_map="kubelet-config-1.20",
    kubelet_config_role="kubeadm:kubelet-config-1.20",
    container_runtime_flag=True,
    cri_socket_is_url=False,
    pause_image_flag="custom",
    cgroup_driver="",
    resolv_conf_shared=True,
    super_admin=False,
    kubelet_client_bound=False,
    token_secrets=True,
    kubelet_minors_behind=2,
    kubeadm_kubelet_minors_behind=1,
    needed_programs=("conntrack", "ip", "iptables", "mount", "nsenter"),
    useful_programs=("ebtables", "ethtool", "socat", "tc", "touch"),
    bridge_filter_checked=True,
    cgroup_v1="supported",
    api_server_insecure_port_flag=True,
    insecure_port_flags=True,
    dual_stack_flags=True,
    authorization_config=False,
    extra_args_last=False,
    static_pod_seccomp=False,
    static_pod_priority=None,
    probe_port="",
    flex_volumes=True,
    ca_dirs=("/etc/pki", *_CA_DIRS),
    scheduler_probes=ProbePaths(live="/healthz", startup="/healthz"),
    etcd_probes=ProbePaths(live="/health", startup="/health"),
    etcd_flags=MappingProxyType({}),
    etcd_older_flags=MappingProxyType({}),
    etcd_ephemeral_storage=True,
    dns_service_name="KubeDNS",
    dns_reads_nodes=True,
    dns_reads_endpoint_slices=False,
    dns_anti_affinity=False,
    dns_drops="all",
    dns_named_probe_ports=False,
    dns_caches_cluster=True,
    kube_proxy_tolerates_critical=True,
)
_1_21 = replace(
    _components("1.21", _1_20),
    kubeadm_feature_gates=_gates(**{_DUAL_STACK: True, _ECDSA: False}),
    discovery_api_version="discovery.k8s.io/v1",
    policy_api_version="policy/v1",
    pause_tag="3.4.1",
    coredns_folder=True,
    coredns_tag="v1.8.0",
    control_plane_labels=(_MASTER, _CONTROL_PLANE, _NO_LOAD_BALANCER),
    kubelet_config_map="kubelet-config-1.21",
    kubelet_config_role="kubeadm:kubelet-config-1.21",
    cgroup_driver="systemd",
    pause_image_flag="always",
    dns_service_name="CoreDNS",
)
_1_22 = replace(
    _components("1.22", _1_21),
    kubeadm_api_versions=(_V1BETA3, _V1BETA2),
    kubeadm_feature_gates=_gates(**{_DUAL_STACK: True, _ECDSA: False, _ROOTLESS: False}),
    cluster_status_kept=False,
    etcd_tag="3.5.0-0",
    pause_tag="3.5",
    coredns_tag="v1.8.4",
    kubelet_config_map="kubelet-config-1.22",
    kubelet_config_role="kubeadm:kubelet-config-1.22",
    api_server_insecure_port_flag=False,
    static_pod_seccomp=True,
    etcd_ephemeral_storage=False,
    dns_reads_endpoint_slices=True,
    kube_proxy_tolerates_critical=False,
)
_1_23 = replace(
    _components("1.23", _1_22),
    kubeadm_feature_gates=_gates(**{_DUAL_STACK: True, _ECDSA: False, _ROOTLESS: False, _UNVERSIONED: False}),
    kubeadm_features=frozenset({_DUAL_STACK}),
    etcd_tag="3.5.1-0",
    pause_tag="3.6",
    coredns_tag="v1.8.6",
    kubelet_config_map="kubelet-config-1.23",
    kubelet_config_role="kubeadm:kubelet-config-1.23",
    insecure_port_flags=False,
    dual_stack_flags=False,
)
_1_24 = replace(
    _components("1.24", _1_23),
    detect_local_modes=("ClusterCIDR", "NodeCIDR", "BridgeInterface", "InterfaceNamePrefix"),
    kubeadm_feature_gates=_gates(**{_ECDSA: False, _ROOTLESS: False, _UNVERSIONED: True}),
    etcd_tag="3.5.3-0",
    pause_tag="3.7",
    control_plane_labels=(_CONTROL_PLANE, _NO_LOAD_BALANCER),
    control_plane_taints=(_MASTER, _CONTROL_PLANE),
    kubelet_config_map="kubelet-config",
    kubelet_config_role="kubeadm:kubelet-config",
    cri_socket_is_url=True,
    token_secrets=False,
    etcd_flags=_CORRUPT_CHECK,
    etcd_older_flags=_CORRUPT_CHECK,
)
_1_25 = replace(
    _components("1.25", _1_24),
    kubeadm_features=frozenset({_DUAL_STACK, _UNVERSIONED}),
    image_repository="registry.k8s.io",
    etcd_tag="3.5.4-0",
    pause_tag="3.8",
    coredns_tag="v1.9.3",
    control_plane_taints=(_CONTROL_PLANE,),
    etcd_probes=ProbePaths(
        live="/health?exclude=NOSPACE&serializable=true", startup="/health?serializable=false"
    ),
    etcd_flags=_PROGRESS,
    etcd_older_flags=_PROGRESS,
    dns_anti_affinity=True,
)
_1_26 = replace(
    _components("1.26", _1_25),
    kube_proxy_modes=("iptables", "ipvs"),
    kubeadm_feature_gates=_gates(**{_ECDSA: False, _ROOTLESS: False}),
    etcd_tag="3.5.6-0",
    pause_tag="3.9",
    control_plane_taints_tolerated=(_CONTROL_PLANE,),
    container_runtime_flag=False,
)
_1_27 = replace(
    _components("1.27", _1_26),
    kubeadm_api_versions=(_V1BETA3,),
    kubeadm_feature_gates=_gates(**{_ECDSA: False, _ROOTLESS: False, _LEARNER: False}),
    etcd_tag="3.5.7-0",
    coredns_tag="v1.10.1",
    static_pod_priority=2000001000,
)
_1_28 = replace(
    _components("1.28", _1_27),
    kubeadm_feature_gates=_gates(**{_ECDSA: False, _ROOTLESS: False, _LEARNER: False, _ADDONS_FIRST: False}),
    etcd_tag="3.5.9-0",
    kubelet_minors_behind=3,
    dns_reads_nodes=False,
)
_1_29 = replace(
    _components("1.29", _1_28),
    kube_proxy_modes=("iptables", "ipvs", "nftables"),
    kubeadm_feature_gates=_gates(**{_ECDSA: False, _ROOTLESS: False, _LEARNER: True, _ADDONS_FIRST: False}),
    etcd_tag="3.5.10-0",
    coredns_tag="v1.11.1",
    coredns_image_first=True,
    super_admin=True,
    kubeadm_kubelet_minors_behind=3,
    dns_drops="ALL",
)
_1_30 = replace(
    _components("1.30", _1_29),
    kubeadm_feature_gates=_gates(
        **{_ECDSA: False, _ROOTLESS: False, _LEARNER: True, _ADDONS_FIRST: False, _WAIT_ALL: False}
    ),
    authorization_mode_stored=False,
    etcd_tag="3.5.12-0",
    bridge_filter_checked=False,
    authorization_config=True,
)
_1_31 = replace(
    _components("1.31", _1_30),
    kubeadm_api_versions=(_V1BETA4, _V1BETA3),
    kubeadm_feature_gates=_gates(
        **{_ECDSA: False, _ROOTLESS: False, _LEARNER: True, _WAIT_ALL: False, _LOCAL_MODE: False}
    ),
    etcd_tag="3.5.15-0",
    pause_tag="3.10",
    cgroup_v1="maintained",
    ca_dirs=("/etc/pki/ca-trust", "/etc/pki/tls/certs", *_CA_DIRS),
    resolv_conf_shared=False,
    etcd_probes=ProbePaths(live="/livez", startup="/readyz", ready="/readyz"),
)
_1_32 = replace(
    _components("1.32", _1_31),
    kubeadm_feature_gates=_gates(
        **{_ECDSA: False, _ROOTLESS: False, _WAIT_ALL: False, _LOCAL_MODE: False, _LOCAL_SOCKET: False},
        **{_LEARNER: True},
    ),
    kubeadm_features=frozenset({_DUAL_STACK, _UNVERSIONED, _LEARNER}),
    etcd_tag="3.5.16-0",
    coredns_tag="v1.11.3",
    needed_programs=("ip", "iptables", "mount", "nsenter"),
    useful_programs=("ethtool", "tc", "touch"),
    scheduler_probes=ProbePaths(live="/livez", startup="/livez", ready="/readyz"),
    dns_caches_cluster=False,
)
_1_33 = replace(
    _components("1.33", _1_32),
    kubeadm_feature_gates=_gates(
        **{_ECDSA: False, _ROOTLESS: False, _WAIT_ALL: True, _LOCAL_MODE: True, _LOCAL_SOCKET: False}
    ),
    etcd_tag="3.5.21-0",
    coredns_tag="v1.12.0",
    needed_programs=("losetup", "mount", "cp"),
    useful_programs=(),
)
_1_34 = replace(
    _components("1.34", _1_33),
    kubeadm_feature_gates=_gates(
        **{_ECDSA: False, _ROOTLESS: False, _WAIT_ALL: True, _LOCAL_MODE: True, _LOCAL_SOCKET: True}
    ),
    kubeadm_features=frozenset({_DUAL_STACK, _UNVERSIONED, _LEARNER, _WAIT_ALL}),
    etcd_tag="3.6.4-0",
    pause_tag="3.10.1",
    coredns_tag="v1.12.1",
    probe_port="probe-port",
    etcd_flags=_GRADUATED,
    dns_named_probe_ports=True,
)
_1_35 = replace(
    _components("1.35", _1_34),
    kubeadm_feature_gates=_gates(**{_ECDSA: False, _LOCAL_MODE: True, _LOCAL_SOCKET: True}),
    kubeadm_features=frozenset({_DUAL_STACK, _UNVERSIONED, _LEARNER, _WAIT_ALL, _LOCAL_MODE}),
    etcd_tag="3.6.6-0",
    coredns_tag="v1.13.1",
    pause_image_flag="never",
    cgroup_v1="refused",
)
_1_36 = replace(
    _components("1.36", _1_35),
    flex_volumes=False,
    kubeadm_feature_gates=_gates(**{_ECDSA: False, _LOCAL_SOCKET: True}),
    kubeadm_features=frozenset({_DUAL_STACK, _UNVERSIONED, _LEARNER, _WAIT_ALL, _LOCAL_MODE, _LOCAL_SOCKET}),
    etcd_tag="3.6.8-0",
    pause_tag="3.10.2",
    coredns_tag="v1.14.2",
    extra_args_last=True,
    etcd_older_flags=_GRADUATED,
)
_1_37 = replace(
    _components("1.37", _1_36),
    kube_proxy_mode="iptables",
    kubeadm_api_versions=(_V1BETA4,),
    kubeadm_feature_gates=_gates(),
    etcd_tag="3.7.0-0",
    coredns_tag="v1.14.6",
    kubelet_client_bound=True,
)

_MINORS = (
    _1_20, _1_21, _1_22, _1_23, _1_24, _1_25, _1_26, _1_27, _1_28,
    _1_29, _1_30, _1_31, _1_32, _1_33, _1_34, _1_35, _1_36, _1_37,
)  # fmt: skip
ROWS = MappingProxyType({f"1.{minor}": row for minor, row in enumerate(_MINORS, start=20)})

_SMALLER_TOOLS = {"useful_programs": ("ethtool", "tc", "touch")}
_BOUND_CLIENT = {"kubelet_client_bound": True}
_WITH_CORRUPT_CHECK = {"etcd_flags": _CORRUPT_CHECK, "etcd_older_flags": _CORRUPT_CHECK}
PATCHES: Mapping[str, Mapping[int, Mapping[str, Any]]] = {
    "1.20": {8: {"etcd_ephemeral_storage": False}},
    "1.21": {2: {"etcd_ephemeral_storage": False}},
    "1.22": {9: _WITH_CORRUPT_CHECK, 17: {"etcd_tag": "3.5.6-0"}},
    "1.23": {
        6: _WITH_CORRUPT_CHECK,
        14: {"etcd_tag": "3.5.5-0"},
        15: {"etcd_tag": "3.5.6-0", "image_repository": "registry.k8s.io"},
    },
    "1.24": {
        8: {"etcd_tag": "3.5.5-0"},
        9: {"etcd_tag": "3.5.6-0", "image_repository": "registry.k8s.io"},
    },
    "1.25": {
        4: {"etcd_tag": "3.5.5-0"},
        5: {"etcd_tag": "3.5.6-0"},
        12: {"static_pod_priority": 2000001000},
        15: {"etcd_tag": "3.5.9-0"},
    },
    "1.26": {
        7: {"static_pod_priority": 2000001000},
        10: {"etcd_tag": "3.5.9-0"},
        13: {"etcd_tag": "3.5.10-0"},
    },
    "1.27": {7: {"etcd_tag": "3.5.9-0"}, 10: {"etcd_tag": "3.5.10-0"}, 12: {"etcd_tag": "3.5.12-0"}},
    "1.28": {
        6: {"etcd_tag": "3.5.10-0"},
        8: {"etcd_tag": "3.5.12-0"},
        14: {"etcd_tag": "3.5.15-0"},
        15: _SMALLER_TOOLS,
    },
    "1.29": {
        3: {"etcd_tag": "3.5.12-0"},
        9: {"etcd_tag": "3.5.15-0"},
        10: _SMALLER_TOOLS,
        11: {"etcd_tag": "3.5.16-0"},
    },
    "1.30": {5: {"etcd_tag": "3.5.15-0", "coredns_tag": "v1.11.3"}, 6: _SMALLER_TOOLS},
    "1.31": {1: {"coredns_tag": "v1.11.3"}, 2: _SMALLER_TOOLS, 14: {"etcd_tag": "3.5.24-0"}},
    "1.32": {10: {"etcd_tag": "3.5.24-0"}, 12: {"extra_args_last": True}},
    "1.33": {6: {"etcd_tag": "3.5.24-0"}, 8: {"extra_args_last": True}, 12: _BOUND_CLIENT},
    "1.34": {2: {"etcd_tag": "3.6.5-0"}, 4: {"extra_args_last": True}, 8: _BOUND_CLIENT},
    "1.35": {1: {"extra_args_last": True}, 5: _BOUND_CLIENT},
    "1.36": {1: _BOUND_CLIENT},
}
"""What changed with a patch release: it holds from that one on."""
