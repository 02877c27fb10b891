"""What a node and its cluster must be after `init`, out of its settings: files, static Pods and objects."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property
from typing import Any

from kubewright.hosts import FileWrite
from kubewright.model import addons, kubeconfig, kubelet, manifests, pki, rbac, stored, tokens
from kubewright.model.config.components import kube_proxy_document, kubelet_document
from kubewright.model.config.duration import parse_duration
from kubewright.model.config.kubeadm import cluster_status, to_stored
from kubewright.model.kubeconfig import KubeconfigSpec
from kubewright.model.node import ControlPlaneNode, endpoint_url
from kubewright.model.objects import Object, to_yaml
from kubewright.model.patches import patched
from kubewright.model.pki import CertSpec
from kubewright.model.versions import image_references
from kubewright.phases.node import Node
from kubewright.workflows.init_settings import InitSettings

RESOLV_CONF = "/etc/resolv.conf"


@dataclass(frozen=True)
class InitDesired:
    """Everything that follows from the settings and the host's facts. It is what kubeadm writes, and no more."""

    settings: InitSettings
    node: Node

    @cached_property
    def control_plane(self) -> ControlPlaneNode:
        """The node as the model knows it."""
        endpoint = self.settings.init.local_api_endpoint
        return ControlPlaneNode(self.node.name, endpoint.advertise_address, endpoint.bind_port)

    @property
    def endpoint(self) -> str:
        """The URL that all clients use (P30)."""
        return endpoint_url(self.settings.cluster.control_plane_endpoint, self.control_plane)

    @cached_property
    def images(self) -> dict[str, str]:
        """Component name to image reference."""
        return image_references(self.settings.cluster, self.settings.facts)

    @cached_property
    def certificates(self) -> dict[str, CertSpec]:
        """Authorities and leaves by kubeadm's names; those of etcd only where etcd is ours."""
        cluster = self.settings.cluster
        specs = [*pki.cluster_cas(cluster), *pki.control_plane_certs(cluster, self.control_plane)]
        return {spec.name: spec for spec in specs}

    @cached_property
    def kubeconfigs(self) -> dict[str, KubeconfigSpec]:
        """Kubeconfigs by their files' names."""
        specs = kubeconfig.control_plane_kubeconfigs(self.settings.cluster, self.control_plane)
        return {spec.file: spec for spec in specs}

    @property
    def etcd_data(self) -> str:
        """The directory of the local etcd; empty where etcd is elsewhere."""
        local = self.settings.cluster.etcd.local
        return local.data_dir if local is not None else ""

    # -- files ----------------------------------------------------------------------------------------------------

    def kubelet_config(self, *, shared: bool = False) -> dict[str, Any]:
        """The KubeletConfiguration of this host, or the `shared` one that goes into the cluster."""
        own = not shared or self.settings.facts.resolv_conf_shared
        found = self.node.facts.resolv_conf if own else RESOLV_CONF
        return kubelet_document(
            self.settings.kubelet,
            self.settings.cluster,
            resolv_conf="" if found == RESOLV_CONF else found,
            cgroup_driver=self.settings.cgroup_driver,
        )

    def kubelet_files(self) -> list[FileWrite]:
        """The kubelet's configuration and flags; its unit is whoever's who installed it."""
        settings, facts = self.settings, self.settings.facts
        registration, gates = settings.init.node_registration, settings.cluster.feature_gates
        instance = facts.instance_config(gates)
        own = kubelet.instance_config(facts, registration.cri_socket) if instance else {}
        document = patched("kubeletconfiguration", self.kubelet_config() | own, settings.patches)
        flags = kubelet.kubelet_flags(
            facts,
            node_name=self.node.name,
            hostname=self.node.facts.hostname,
            cri_socket=registration.cri_socket,
            pause_image="" if facts.pause_image_flag == "custom" else self.images["pause"],
            feature_gates=gates,
        )
        files = [
            FileWrite(kubelet.CONFIG_PATH, to_yaml(document)),
            FileWrite(
                kubelet.FLAGS_PATH,
                kubelet.flags_file(flags, registration.kubelet_extra_args, extra_last=facts.extra_args_last),
            ),
        ]
        return [FileWrite(kubelet.INSTANCE_CONFIG_PATH, to_yaml(own)), *files] if instance else files

    def static_pod(self, name: str, *, ca_dirs: Sequence[str], external_ca: bool) -> Object | None:
        """A static Pod with the patches of its name; None for etcd where that is elsewhere."""
        pods = manifests.static_pods(
            self.settings.cluster, self.control_plane, self.settings.facts, ca_dirs=ca_dirs,
            external_ca=external_ca, proxy_env=self.settings.proxy_env,
        )  # fmt: skip
        return patched(name, pods[name], self.settings.patches) if name in pods else None

    # -- objects --------------------------------------------------------------------------------------------------

    def kubeadm_config(self, endpoints: Mapping[str, tuple[str, int]]) -> list[Object]:
        """The ConfigMap `kubeadm-config`; `endpoints` are those of the cluster's other control planes."""
        node = self.control_plane
        own = {node.name: (node.advertise_address, node.bind_port)}
        kept = self.settings.facts.cluster_status_kept
        return stored.kubeadm_config(
            to_stored(self.settings.cluster), cluster_status({**endpoints, **own}) if kept else None
        )

    def kubelet_config_map(self) -> list[Object]:
        """The ConfigMap with the kubelets' configuration."""
        by_user = bool(self.settings.kubelet)
        return stored.kubelet_config(self.kubelet_config(shared=True), self.settings.facts, by_user=by_user)

    @property
    def cri_socket_annotation(self) -> str:
        """What the Node's annotation says; empty where a file of the node says it."""
        facts = self.settings.facts
        if facts.instance_config(self.settings.cluster.feature_gates):
            return ""
        return facts.cri_endpoint(self.settings.init.node_registration.cri_socket)

    def taints(self) -> list[dict[str, str]]:
        """The Node's taints: the user's, or a control plane's."""
        said = self.settings.init.node_registration.taints
        if said is None:
            return [{"key": key, "effect": "NoSchedule"} for key in self.settings.facts.control_plane_taints]
        return [{"key": taint.key, "value": taint.value, "effect": taint.effect} for taint in said]

    def labels(self) -> dict[str, str]:
        """The labels of a control plane."""
        return dict.fromkeys(self.settings.facts.control_plane_labels, "")

    def tokens(self) -> list[tokens.BootstrapToken]:
        """The bootstrap tokens; their time begins now."""
        found = []
        for spec in self.settings.init.bootstrap_tokens:
            assert spec.token is not None
            identity, hidden = tokens.parse_token(spec.token)
            expires = spec.expires
            if expires is None and (lifetime := parse_duration(spec.ttl or "0s")):
                expires = datetime.now(UTC) + timedelta(microseconds=lifetime // 1000)
            found.append(
                tokens.BootstrapToken(
                    identity, hidden, expires, spec.description, tuple(spec.usages), tuple(spec.groups)
                )
            )
        return found

    def joining(self, ca: bytes) -> list[Object]:
        """What lets nodes join: tokens, their permissions, and `cluster-info`."""
        return [
            *(tokens.token_secret(token) for token in self.tokens()),
            *rbac.node_bootstrap(self.settings.facts),
            *stored.cluster_info(self.endpoint, ca),
        ]

    def coredns(self, *, replicas: int, corefile: str = "") -> list[Object]:
        """Cluster DNS as kubeadm deploys it; `corefile` is the one that the cluster has and keeps."""
        networking, facts = self.settings.cluster.networking, self.settings.facts
        objects = addons.coredns(
            self.images["coredns"], networking.dns_domain, networking.service_subnet, facts, replicas=replicas
        )
        for obj in objects:
            if obj["kind"] == "Deployment":
                if not facts.dns_anti_affinity:
                    obj["spec"]["template"]["spec"].pop("affinity", None)
                obj |= patched("corednsdeployment", obj, self.settings.patches)
            elif obj["kind"] == "ConfigMap" and corefile:
                obj["data"]["Corefile"] = corefile
        return objects

    def kube_proxy(self) -> list[Object]:
        """kube-proxy as kubeadm deploys it."""
        settings = self.settings
        return addons.kube_proxy(
            kube_proxy_document(settings.kube_proxy, settings.cluster), self.endpoint,
            self.images["kube-proxy"], settings.facts, by_user=bool(settings.kube_proxy),
            proxy_env=settings.proxy_env,
        )  # fmt: skip
