"""Where each fact of the version table was read: a path in Kubernetes' repository, or an enhancement."""

from __future__ import annotations

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
_KUBELET_TYPES = "staging/src/k8s.io/kubelet/config/v1beta1/types.go"
_PROXY_TYPES = "staging/src/k8s.io/kube-proxy/config/v1alpha1/types.go"
_SKEW = "the version skew policy"

SOURCES = {
    "kubeadm_api_versions": f"{_APP}/apis/kubeadm/scheme/scheme.go; KEP-970",
    "kubeadm_feature_gates": _GATES,
    "kubeadm_features": _GATES,
    "authorization_mode_stored": _MANIFESTS,
    "cluster_status_kept": f"{_APP}/phases/uploadconfig/uploadconfig.go; KEP-970",
    "kubelet_api_version": _KUBELET_TYPES,
    "kubelet_fields": _KUBELET_TYPES,
    "kubelet_unset": _KUBELET_TYPES,
    "kube_proxy_api_version": _PROXY_TYPES,
    "kube_proxy_fields": _PROXY_TYPES,
    "kube_proxy_unset": _PROXY_TYPES,
    "kube_proxy_modes": "pkg/proxy/apis/config/validation/validation.go; KEP-3866",
    "detect_local_modes": "pkg/proxy/apis/config/types.go; KEP-2450",
    "csr_api_version": "pkg/apis/certificates; KEP-1513",
    "discovery_api_version": "pkg/apis/discovery; KEP-752",
    "policy_api_version": "pkg/apis/policy; KEP-85",
    "image_repository": f"{_APP}/apis/kubeadm/v1beta3/defaults.go; KEP-3000",
    "etcd_tag": _CONSTANTS,
    "pause_tag": _CONSTANTS,
    "coredns_folder": f"{_APP}/images/images.go",
    "coredns_tag": _CONSTANTS,
    "coredns_image_first": f"{_APP}/images/images.go",
    "control_plane_labels": f"{_CONSTANTS}; KEP-2067",
    "control_plane_taints": f"{_CONSTANTS}; KEP-2067",
    "control_plane_taints_tolerated": f"{_DNS}; KEP-2067",
    "kubelet_config_map": f"{_CONSTANTS}; KEP-2915",
    "kubelet_config_role": f"{_CONSTANTS}; KEP-2915",
    "container_runtime_flag": f"{_KUBELET_FLAGS}; KEP-2221",
    "cri_socket_is_url": f"{_APP}/util/config/initconfiguration.go",
    "pause_image_flag": _KUBELET_FLAGS,
    "cgroup_driver": f"{_APP}/componentconfigs/kubelet.go",
    "super_admin": f"{_APP}/phases/kubeconfig/kubeconfig.go",
    "kubelet_client_bound": f"{_APP}/phases/bootstraptoken/node/tlsbootstrap.go",
    "token_secrets": "pkg/features/kube_features.go; KEP-2799",
    "kubelet_minors_behind": f"{_SKEW}; KEP-3935",
    "kubeadm_kubelet_minors_behind": f"{_CONSTANTS}; KEP-3935",
    "needed_programs": _CHECKS,
    "useful_programs": _CHECKS,
    "bridge_filter_checked": _CHECKS,
    "cgroup_v1": "pkg/kubelet/kubelet.go; KEP-4569, KEP-5573",
    "api_server_insecure_port_flag": _MANIFESTS,
    "insecure_port_flags": _MANIFESTS,
    "dual_stack_flags": f"{_MANIFESTS}; KEP-563",
    "authorization_config": f"{_MANIFESTS}; KEP-3221",
    "extra_args_last": f"{_APP}/util/arguments.go",
    "static_pod_seccomp": f"{_STATIC_POD}",
    "static_pod_priority": _STATIC_POD,
    "probe_port": _STATIC_POD,
    "ca_dirs": _VOLUMES,
    "scheduler_probes": f"{_MANIFESTS}",
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
