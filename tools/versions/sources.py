"""Where each fact of the version table comes from, and how each change was checked."""

from __future__ import annotations

from collections.abc import Mapping

_APP = "cmd/kubeadm/app"
_CONSTANTS = f"{_APP}/constants/constants.go"
_MANIFESTS = f"{_APP}/phases/controlplane/manifests.go"
_VOLUMES = f"{_APP}/phases/controlplane/volumes.go"
_STATIC_POD = f"{_APP}/util/staticpod/utils.go"
_ETCD = f"{_APP}/phases/etcd/local.go"
_KUBELET_FLAGS = f"{_APP}/phases/kubelet/flags.go"
_DNS = f"{_APP}/phases/addons/dns/manifests.go"
_PROXY = f"{_APP}/phases/addons/proxy/manifests.go"
_CHECKS = f"{_APP}/preflight/checks.go"
_GATES = f"{_APP}/features/features.go"
_IMAGES = f"{_APP}/images/images.go"
_KUBELET_TYPES = "staging/src/k8s.io/kubelet/config/v1beta1/types.go"
_PROXY_TYPES = "staging/src/k8s.io/kube-proxy/config/v1alpha1/types.go"
_SKEW = "the version skew policy"

SOURCES: Mapping[str, str] = {
    "kubeadm_api_versions": f"{_APP}/apis/kubeadm/scheme/scheme.go",
    "kubeadm_feature_gates": _GATES,
    "kubeadm_features": _GATES,
    "authorization_mode_stored": _MANIFESTS,
    "cluster_status_kept": f"{_APP}/phases/uploadconfig/uploadconfig.go",
    "kubelet_api_version": _KUBELET_TYPES,
    "kubelet_fields": _KUBELET_TYPES,
    "kubelet_unset": _KUBELET_TYPES,
    "kube_proxy_api_version": _PROXY_TYPES,
    "kube_proxy_fields": _PROXY_TYPES,
    "kube_proxy_unset": _PROXY_TYPES,
    "kube_proxy_mode": f"{_APP}/componentconfigs/kubeproxy.go",
    "kube_proxy_modes": _PROXY_TYPES,
    "detect_local_modes": _PROXY_TYPES,
    "csr_api_version": "pkg/apis/certificates",
    "discovery_api_version": "pkg/apis/discovery",
    "policy_api_version": "pkg/apis/policy",
    "image_repository": f"{_APP}/apis/kubeadm/v1beta3/defaults.go",
    "etcd_tag": _CONSTANTS,
    "pause_tag": _CONSTANTS,
    "coredns_folder": _IMAGES,
    "coredns_tag": _CONSTANTS,
    "coredns_image_first": _IMAGES,
    "control_plane_labels": f"{_APP}/phases/markcontrolplane/markcontrolplane.go",
    "control_plane_taints": _CONSTANTS,
    "control_plane_taints_tolerated": _DNS,
    "kubelet_config_map": _CONSTANTS,
    "kubelet_config_role": _CONSTANTS,
    "container_runtime_flag": _KUBELET_FLAGS,
    "cri_socket_is_url": _CONSTANTS,
    "pause_image_flag": _KUBELET_FLAGS,
    "cgroup_driver": f"{_APP}/componentconfigs/kubelet.go",
    "resolv_conf_shared": f"{_APP}/componentconfigs/kubelet.go",
    "super_admin": f"{_APP}/phases/certs/certlist.go",
    "kubelet_client_bound": f"{_APP}/phases/bootstraptoken/node/tlsbootstrap.go",
    "token_secrets": "pkg/features/kube_features.go",
    "kubelet_minors_behind": _SKEW,
    "kubeadm_kubelet_minors_behind": _CONSTANTS,
    "needed_programs": _CHECKS,
    "useful_programs": _CHECKS,
    "bridge_filter_checked": _CHECKS,
    "cgroup_v1": _KUBELET_TYPES,
    "api_server_insecure_port_flag": _MANIFESTS,
    "insecure_port_flags": _MANIFESTS,
    "dual_stack_flags": _MANIFESTS,
    "authorization_config": _MANIFESTS,
    "extra_args_last": f"{_APP}/util/arguments.go",
    "static_pod_seccomp": _STATIC_POD,
    "static_pod_priority": _STATIC_POD,
    "probe_port": _STATIC_POD,
    "flex_volumes": _VOLUMES,
    "ca_dirs": _VOLUMES,
    "scheduler_probes": _MANIFESTS,
    "etcd_probes": _ETCD,
    "etcd_flags": _ETCD,
    "etcd_older_flags": _ETCD,
    "etcd_ephemeral_storage": _ETCD,
    "dns_service_name": _DNS,
    "dns_reads_nodes": _DNS,
    "dns_reads_endpoint_slices": _DNS,
    "dns_anti_affinity": _DNS,
    "dns_drops": _DNS,
    "dns_named_probe_ports": _DNS,
    "dns_caches_cluster": _DNS,
    "kube_proxy_tolerates_critical": _PROXY,
}
"""Where a fact lives: a path in Kubernetes' repository, where that has one."""

FILE, BETWEEN, IMAGES, TYPES = "source", "source of 1.20 and 1.22", "images", "types"
NOT_CHECKED = "**not checked against a source**"

_BY_IMAGES = {"etcd_tag", "pause_tag", "coredns_tag"}

_CHECKED: Mapping[str, Mapping[str, str]] = {
    "1.21": {
        "kubeadm_feature_gates": FILE, "discovery_api_version": "KEP-752", "policy_api_version": "KEP-85",
        "coredns_folder": FILE, "control_plane_labels": FILE, "kubelet_config_map": FILE,
        "kubelet_config_role": FILE, "cgroup_driver": f"{FILE}, #99471", "pause_image_flag": "#99476",
        "dns_service_name": BETWEEN,
    },
    "1.22": {
        "kubeadm_api_versions": f"{FILE}, #101129", "kubeadm_feature_gates": FILE,
        "cluster_status_kept": f"{FILE}, #101915, KEP-2506", "kubelet_config_map": FILE,
        "kubelet_config_role": FILE, "api_server_insecure_port_flag": f"{FILE}, #102121",
        "static_pod_seccomp": FILE, "etcd_ephemeral_storage": f"{FILE}, #102673",
        "dns_reads_endpoint_slices": "#102466", "kube_proxy_tolerates_critical": f"{FILE}, #101966",
    },
    "1.23": {
        "kubeadm_feature_gates": FILE, "kubeadm_features": FILE, "kubelet_config_map": FILE,
        "kubelet_config_role": FILE, "insecure_port_flags": "#104157, #105034",
        "dual_stack_flags": "#104770",
    },
    "1.24": {
        "kubeadm_feature_gates": FILE, "detect_local_modes": TYPES,
        "control_plane_labels": "#107533, KEP-2067", "control_plane_taints": "#107533, KEP-2067",
        "kubelet_config_map": f"{FILE}, #108027, KEP-2915", "kubelet_config_role": f"{FILE}, #108027, KEP-2915",
        "cri_socket_is_url": FILE, "token_secrets": "KEP-2799", "etcd_flags": f"{FILE}, #109074",
        "etcd_older_flags": f"{FILE}, #109074",
    },
    "1.25": {
        "kubeadm_features": "#110327", "image_repository": f"{FILE}, #109938",
        "control_plane_taints": "#110095, KEP-2067", "etcd_probes": f"{FILE}, #110744",
        "etcd_flags": f"{FILE}, #111383", "etcd_older_flags": f"{FILE}, #111383", "dns_anti_affinity": "#110593",
    },
    "1.26": {
        "kubeadm_feature_gates": FILE, "kube_proxy_modes": TYPES, "control_plane_taints_tolerated": "#112008",
        "container_runtime_flag": "#112000",
    },
    "1.27": {
        "kubeadm_api_versions": FILE, "kubeadm_feature_gates": FILE, "static_pod_priority": f"{FILE}, #114338",
    },
    "1.28": {
        "kubeadm_feature_gates": FILE, "kubelet_minors_behind": "KEP-3935", "dns_reads_nodes": "#117521",
    },
    "1.29": {
        "kubeadm_feature_gates": FILE, "kube_proxy_modes": f"{TYPES}, KEP-3866", "coredns_image_first": FILE,
        "dns_drops": "#121384", "super_admin": f"{FILE}, #121305, KEP-4214", "kubeadm_kubelet_minors_behind": FILE,
    },
    "1.30": {
        "kubeadm_feature_gates": f"{FILE}, #123341", "authorization_mode_stored": "#123555",
        "bridge_filter_checked": FILE, "authorization_config": "#123654",
    },
    "1.31": {
        "kubeadm_api_versions": f"{FILE}, #125029", "kubeadm_feature_gates": FILE,
        "cgroup_v1": f"{TYPES}, KEP-4569", "ca_dirs": "#124361",
        "resolv_conf_shared": "#124038", "etcd_probes": f"{FILE}, #124465",
    },
    "1.32": {
        "kubeadm_feature_gates": FILE, "kubeadm_features": FILE, "needed_programs": f"{FILE}, #126953",
        "useful_programs": f"{FILE}, #127151", "scheduler_probes": "#126945", "dns_caches_cluster": "#128359",
    },
    "1.33": {
        "kubeadm_feature_gates": "#129956, #129620", "needed_programs": "#129131, #129450, #130045",
        "useful_programs": "#129131, #129317",
    },
    "1.34": {
        "kubeadm_feature_gates": "#131981", "kubeadm_features": "#132594", "probe_port": "#132776",
        "etcd_flags": "#132838", "dns_named_probe_ports": f"{FILE}, #131587",
    },
    "1.35": {
        "kubeadm_feature_gates": "#134178, #134781", "kubeadm_features": "#134106", "pause_image_flag": "#133778",
        "cgroup_v1": f"{TYPES}, KEP-5573",
    },
    "1.36": {
        "flex_volumes": "#136423", "kubeadm_feature_gates": "#135773",
        "kubeadm_features": "#135742", "extra_args_last": "#135400",
        "etcd_older_flags": "#135701",
    },
    "1.37": {
        "kube_proxy_mode": "#139777",
        "kubeadm_api_versions": "#136016", "kubeadm_feature_gates": "#136016, #138645",
        "kubelet_client_bound": "#138957",
    },
    # -- patch releases -------------------------------------------------------------------------------------------
    "1.20.8": {"etcd_ephemeral_storage": "#102704"},
    "1.21.2": {"etcd_ephemeral_storage": f"{FILE}, #102705"},
    "1.22.9": {"etcd_flags": "#109076", "etcd_older_flags": "#109076"},
    "1.23.6": {"etcd_flags": f"{FILE}, #109075", "etcd_older_flags": f"{FILE}, #109075"},
    "1.23.15": {"image_repository": f"{FILE}, #113393"},
    "1.24.9": {"image_repository": f"{FILE}, #113395"},
    "1.25.12": {"static_pod_priority": "#119118"},
    "1.26.7": {"static_pod_priority": f"{FILE}, #119117"},
    "1.28.15": {"useful_programs": "#127416"},
    "1.29.10": {"useful_programs": "#127415"},
    "1.30.6": {"useful_programs": f"{FILE}, #127414"},
    "1.31.2": {"useful_programs": f"{FILE}, #127413"},
    "1.32.12": {"extra_args_last": "#135850"},
    "1.33.8": {"extra_args_last": "#135851"},
    "1.34.4": {"extra_args_last": "#135852"},
    "1.35.1": {"extra_args_last": "#135853"},
    "1.33.12": {"kubelet_client_bound": "#138964"},
    "1.34.8": {"kubelet_client_bound": "#138960"},
    "1.35.5": {"kubelet_client_bound": "#138959"},
    "1.36.1": {"kubelet_client_bound": "#138958"},
}  # fmt: skip


def checked(version: str, fact: str) -> str:
    """How the change of a fact with that minor or patch release was checked."""
    return IMAGES if fact in _BY_IMAGES else _CHECKED.get(version, {}).get(fact, NOT_CHECKED)


def entries() -> set[tuple[str, str]]:
    """Every version and fact for which it is said how that was checked."""
    return {(version, fact) for version, facts in _CHECKED.items() for fact in facts}
