"""What a joining node must be, out of its settings and what its cluster says of itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import yaml

from kubewright.errors import ConfigError
from kubewright.hosts import FileWrite
from kubewright.model import kubeconfig, kubelet, manifests, pki, stored
from kubewright.model.arguments import EtcdMember
from kubewright.model.config.documents import read_documents
from kubewright.model.config.kubeadm_types import ClusterConfiguration
from kubewright.model.kubeconfig import KubeconfigSpec
from kubewright.model.node import ControlPlaneNode, endpoint_url
from kubewright.model.objects import SYSTEM, Object, to_yaml
from kubewright.model.patches import patched
from kubewright.model.versions import VersionFacts, facts_for, image_references
from kubewright.phases.node import Node
from kubewright.workflows.join_settings import JoinSettings

_RESOLV_CONF = "/etc/resolv.conf"
_SYSTEMD_RESOLV_CONF = "/run/systemd/resolve/resolv.conf"


def cluster_configuration(config_map: Mapping[str, Any] | None) -> ClusterConfiguration:
    """The ClusterConfiguration inside `kubeadm-config`. Raises `ConfigError`."""
    where = f"ConfigMap {SYSTEM}/{stored.KUBEADM_CONFIG}"
    text = ((config_map or {}).get("data") or {}).get("ClusterConfiguration")
    found = read_documents(str(text), source=where).cluster if text else None
    if found is None:
        raise ConfigError(
            f"{where} is missing, or holds no ClusterConfiguration",
            hint="on a control plane, `kubewright init phase upload-config kubeadm` writes it",
        )
    return found


@dataclass(frozen=True)
class JoinDesired:
    """Everything that follows from the settings, the cluster's configuration and the host's facts."""

    settings: JoinSettings
    node: Node
    cluster: ClusterConfiguration

    @cached_property
    def facts(self) -> VersionFacts:
        """Those of the cluster's version."""
        return facts_for(self.cluster.kubernetes_version)

    @cached_property
    def control_plane(self) -> ControlPlaneNode:
        """The node as the model knows it; only for a control plane."""
        assert self.settings.join.control_plane is not None
        endpoint = self.settings.join.control_plane.local_api_endpoint
        return ControlPlaneNode(self.node.name, endpoint.advertise_address, endpoint.bind_port)

    @property
    def endpoint(self) -> str:
        """The URL that all clients use (P30); only for a control plane."""
        return endpoint_url(self.cluster.control_plane_endpoint, self.control_plane)

    @property
    def stacked_etcd(self) -> bool:
        """Whether each control plane has a member of etcd."""
        return self.cluster.etcd.external is None

    @property
    def etcd_data(self) -> str:
        """The directory of the member's data; empty where etcd is elsewhere."""
        local = self.cluster.etcd.local
        return local.data_dir if local is not None else ""

    @property
    def leaves(self) -> tuple[pki.CertSpec, ...]:
        """The certificates that are this control plane's own."""
        return pki.control_plane_certs(self.cluster, self.control_plane)

    @property
    def kubeconfigs(self) -> list[KubeconfigSpec]:
        """The administrator's and the controllers'; the kubelet gets its own by TLS bootstrap."""
        specs = kubeconfig.control_plane_kubeconfigs(self.cluster, self.control_plane, joining=True)
        return [spec for spec in specs if spec.file != kubeconfig.KUBELET]

    # -- files ----------------------------------------------------------------------------------------------------

    def kubelet_files(self, config: str) -> list[FileWrite]:
        """The kubelet's files; `config` is the cluster's KubeletConfiguration as YAML."""
        facts, gates = self.facts, self.cluster.feature_gates
        registration = self.settings.join.node_registration
        instance = facts.instance_config(gates)
        own = kubelet.instance_config(facts, registration.cri_socket) if instance else {}
        # kubeadm registers a worker with its taints, and patches a control plane's.
        taints = [] if self.settings.is_control_plane else self.taints()
        flags = kubelet.kubelet_flags(
            facts,
            node_name=self.node.name,
            hostname=self.node.facts.hostname,
            cri_socket=registration.cri_socket,
            taints=taints,
            pause_image=""
            if facts.pause_image_flag == "custom"
            else image_references(self.cluster, facts)["pause"],
            feature_gates=gates,
        )
        files = [
            FileWrite(kubelet.CONFIG_PATH, self._kubelet_config(config, own)),
            FileWrite(
                kubelet.FLAGS_PATH,
                kubelet.flags_file(flags, registration.kubelet_extra_args, extra_last=facts.extra_args_last),
            ),
        ]
        return [FileWrite(kubelet.INSTANCE_CONFIG_PATH, to_yaml(own)), *files] if instance else files

    def _kubelet_config(self, config: str, own: Mapping[str, Any]) -> bytes:
        """The cluster's, as it stands there where the host needs nothing else.

        Which file names the name servers is a host's own matter: the first control plane may run systemd-resolved
        and this host not, or the other way round (P18).
        """
        document = yaml.safe_load(config)
        if not isinstance(document, dict):
            raise ConfigError(
                f"ConfigMap {SYSTEM}/{self.facts.kubelet_config_map} holds no KubeletConfiguration"
            )
        said = document.get("resolvConf") or _RESOLV_CONF
        wanted = dict(document)
        if said in (_RESOLV_CONF, _SYSTEMD_RESOLV_CONF) and said != self.node.facts.resolv_conf:
            wanted["resolvConf"] = self.node.facts.resolv_conf
        wanted = patched("kubeletconfiguration", {**wanted, **own}, self.settings.patches)
        return config.encode() if wanted == document else to_yaml(wanted)

    def static_pods(self, *, ca_dirs: Sequence[str], external_ca: bool) -> dict[str, Object]:
        """The three servers of a control plane, with their patches."""
        pods = manifests.static_pods(
            self.cluster, self.control_plane, self.facts, ca_dirs=ca_dirs, external_ca=external_ca,
            proxy_env=self.settings.proxy_env,
        )  # fmt: skip
        return {
            name: patched(name, pod, self.settings.patches)
            for name, pod in pods.items()
            if name != manifests.ETCD
        }

    def etcd_pod(self, members: Sequence[EtcdMember]) -> Object:
        """etcd's static Pod, for a member of `members`."""
        pods = manifests.static_pods(
            self.cluster,
            self.control_plane,
            self.facts,
            etcd_members=members,
            proxy_env=self.settings.proxy_env,
        )
        return patched(manifests.ETCD, pods[manifests.ETCD], self.settings.patches)

    # -- marks ----------------------------------------------------------------------------------------------------

    @property
    def cri_socket_annotation(self) -> str:
        """What the Node's annotation says; empty where a file of the node says it."""
        if self.facts.instance_config(self.cluster.feature_gates):
            return ""
        return self.facts.cri_endpoint(self.settings.join.node_registration.cri_socket)

    @property
    def local_api_server(self) -> bool:
        """Whether the kubelet uses the API server of its own node, which does not run before etcd does."""
        return self.settings.is_control_plane and self.facts.kubelet_local_mode(self.cluster.feature_gates)

    def labels(self) -> dict[str, str]:
        """The labels of a control plane."""
        return dict.fromkeys(self.facts.control_plane_labels, "")

    def taints(self) -> list[dict[str, str]]:
        """The Node's taints: the user's, or a control plane's."""
        said = self.settings.join.node_registration.taints
        if said is None:
            keys = self.facts.control_plane_taints if self.settings.is_control_plane else ()
            return [{"key": key, "effect": "NoSchedule"} for key in keys]
        return [{"key": taint.key, "value": taint.value, "effect": taint.effect} for taint in said]
