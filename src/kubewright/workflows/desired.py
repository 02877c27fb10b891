"""What a cluster must be, put together once from its specification: configuration, references, objects."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import yaml

from kubewright.components.source import Artifact, Form, Source, Want
from kubewright.events import Events
from kubewright.hosts import FileWrite
from kubewright.model import addons, addons_builtin, kubelet, moving, rbac, stored
from kubewright.model.config.cluster import ClusterSpec
from kubewright.model.config.components import kube_proxy_configuration, kubelet_configuration
from kubewright.model.config.kubeadm import (
    ClusterConfiguration,
    cluster_status,
    default_cluster_configuration,
    to_stored,
)
from kubewright.model.node import ControlPlaneNode, endpoint_url
from kubewright.model.objects import Object, to_yaml
from kubewright.model.versions import VersionFacts, facts_for, image_references
from kubewright.phases.install import PROGRAM_DIRECTORY
from kubewright.phases.node import Node

KUBELET_PROGRAM = f"{PROGRAM_DIRECTORY}/kubelet"


@dataclass(frozen=True)
class Desired:
    """Everything that follows from a specification and the first control plane."""

    spec: ClusterSpec
    cluster: ClusterConfiguration
    facts: VersionFacts
    images: dict[str, str]
    """Component name to image reference, as kubeadm names them; and `agent`, our own, with `dns` as its alias."""
    builtin_dns: bool

    @classmethod
    async def of(cls, spec: ClusterSpec, source: Source) -> Desired:
        """Put it together. Raises `ConfigError` and `ComponentError`; asks no host."""
        cluster = default_cluster_configuration(spec)
        facts = facts_for(cluster.kubernetes_version)
        await source.require_version(cluster.kubernetes_version)
        images = image_references(cluster, facts)
        from kubewright.components.agent_image import agent_reference, dns_reference

        agent = agent_reference()
        images |= {"agent": agent, "dns": dns_reference(agent, facts.coredns_tag)}
        builtin = spec.dns.provider == "builtin"
        if spec.dns.provider == "auto":
            builtin = not await source.available(
                Want("coredns", facts.coredns_tag, "amd64", Form.IMAGE, images["coredns"])
            )
        return cls(spec, cluster, facts, images, builtin)

    def with_endpoint(self, address: str, names: Sequence[str] = ()) -> Desired:
        """The same with the endpoint's `host:port`, which may be known only when the hosts are; empty for none.

        `names` are further names and addresses of its load balancers, for which certificates must be, too (P26).
        """
        said = self.cluster.api_server.cert_sans
        more = [name for name in dict.fromkeys(names) if name not in said]
        if not more and address in ("", self.cluster.control_plane_endpoint):
            return self
        update: dict[str, Any] = {"control_plane_endpoint": address or self.cluster.control_plane_endpoint}
        if more:
            update["api_server"] = self.cluster.api_server.model_copy(update={"cert_sans": [*said, *more]})
        return replace(self, cluster=self.cluster.model_copy(update=update))

    def with_names(self, names: Sequence[str]) -> Desired:
        """The same with certificates for these names, which come first, in their order."""
        said = self.cluster.api_server.cert_sans
        api = self.cluster.api_server.model_copy(
            update={"cert_sans": [*names, *(name for name in said if name not in names)]}
        )
        return replace(self, cluster=self.cluster.model_copy(update={"api_server": api}))

    def control_plane(self, node: Node) -> ControlPlaneNode:
        """A control plane as the model knows it."""
        return ControlPlaneNode(node.name, node.ip)

    def endpoint(self, first: Node) -> str:
        """The URL that all clients use (P30)."""
        return endpoint_url(self.cluster.control_plane_endpoint or None, self.control_plane(first))

    def programs(self, node: Node) -> list[Want]:
        """The programs that a node gets."""
        names = ["kubelet", "kubectl"] if node.is_control_plane else ["kubelet"]
        version = self.cluster.kubernetes_version
        return [Want(name, version, node.facts.arch, Form.BINARY) for name in names]

    def node_images(self, node: Node) -> tuple[list[Want], list[Want]]:
        """The images that a node gets: those that its start waits for, and the others."""
        first = ["pause"]
        if node.is_control_plane:
            pods = ("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler")
            first += [name for name in pods if name in self.images]
        rest = ["kube-proxy"]
        if self.has_network or self.builtin_dns:
            rest.append("agent")
        if not self.builtin_dns:
            rest.append("coredns")
        return self._image_wants(first, node), self._image_wants(rest, node)

    def _image_wants(self, names: Sequence[str], node: Node) -> list[Want]:
        return [
            Want(
                name, self.images[name].rpartition(":")[2], node.facts.arch, Form.IMAGE, self.images[name],
                aliases=(self.images["dns"],) if name == "agent" and self.builtin_dns else (),
            )
            for name in names
        ]  # fmt: skip

    # -- files ------------------------------------------------------------------------------------------------

    def kubelet_config(self, first: Node) -> dict[str, Any]:
        """The KubeletConfiguration that goes into the cluster, until 1.30 with the first host's resolv.conf."""
        resolv_conf = first.facts.resolv_conf if self.facts.resolv_conf_shared else ""
        return kubelet_configuration(self.spec, self.cluster, resolv_conf=resolv_conf)

    def kubelet_files(self, node: Node, config: str) -> list[FileWrite]:
        """The files of a node's kubelet; `config` is the cluster's KubeletConfiguration as YAML.

        The one field that is a host's own is put in: which resolv.conf has no loopback name server (P18).
        """
        document = yaml.safe_load(config)
        own = (
            {} if "resolvConf" in self.spec.kubelet_configuration else {"resolvConf": node.facts.resolv_conf}
        )
        instance = kubelet.instance_config(self.facts) if self.instance_config else {}
        if any(document.get(name) != value for name, value in (own | instance).items()):
            config = to_yaml(document | own | instance).decode()
        # kubeadm registers a worker with its taints, and patches a control plane's.
        taints = [] if node.is_control_plane else self.taints(node)
        flags = kubelet.kubelet_flags(
            self.facts,
            node_name=node.name,
            hostname=node.facts.hostname,
            node_ip=node.spec.node_ip or "",
            taints=taints,
            pause_image=self.images["pause"],
            feature_gates=self.cluster.feature_gates,
        )
        files = [FileWrite(kubelet.INSTANCE_CONFIG_PATH, to_yaml(instance))] if instance else []
        return [
            FileWrite(kubelet.UNIT_PATH, kubelet.kubelet_unit(KUBELET_PROGRAM)),
            FileWrite(kubelet.DROP_IN_PATH, kubelet.kubelet_drop_in(KUBELET_PROGRAM)),
            FileWrite(kubelet.CONFIG_PATH, config.encode()),
            FileWrite(kubelet.FLAGS_PATH, kubelet.flags_file(flags)),
            *files,
        ]

    @property
    def instance_config(self) -> bool:
        """Whether the CRI socket is in a file of each node, and no annotation of it."""
        return self.facts.instance_config(self.cluster.feature_gates)

    # -- marks ------------------------------------------------------------------------------------------------

    def labels(self, node: Node) -> dict[str, str]:
        """A node's labels: its role's, and those of cluster.yaml."""
        role = dict.fromkeys(self.facts.control_plane_labels, "") if node.is_control_plane else {}
        return role | node.spec.labels

    def taints(self, node: Node) -> list[dict[str, str]]:
        """A node's taints: those of cluster.yaml, or its roles' (P29)."""
        return [taint.model_dump() for taint in node.spec.taints_or_default(self.facts.control_plane_taints)]

    # -- objects ----------------------------------------------------------------------------------------------

    def bootstrap_objects(
        self, first: Node, ca: bytes, known: Mapping[str, Any] | None = None
    ) -> list[Object]:
        """kubeadm's own objects: its configuration, the kubelets', cluster-info, and who may read and join.

        `known` is the ClusterStatus that the cluster has: its control planes stay in it.
        """
        api = self.control_plane(first)
        status = None
        if self.facts.cluster_status_kept:
            status = cluster_status({first.name: (api.advertise_address, api.bind_port)})
            status["apiEndpoints"] = ((known or {}).get("apiEndpoints") or {}) | status["apiEndpoints"]
            status["apiEndpoints"] = dict(sorted(status["apiEndpoints"].items()))
        return [
            *stored.kubeadm_config(to_stored(self.cluster), status),
            *stored.kubelet_config(
                self.kubelet_config(first), self.facts, by_user=bool(self.spec.kubelet_configuration)
            ),
            *stored.cluster_info(self.endpoint(first), ca),
            *rbac.node_bootstrap(self.facts),
            *(rbac.cluster_admins() if self.facts.super_admin else []),
        ]

    def proxy_objects(self, first: Node) -> list[Object]:
        """kube-proxy. Its Pods read their configuration when they start, so that its digest stands in their
        template: another configuration replaces them (P52)."""
        objects = addons.kube_proxy(
            kube_proxy_configuration(self.spec, self.cluster),
            self.endpoint(first),
            self.images["kube-proxy"],
            self.facts,
            by_user=bool(self.spec.kube_proxy_configuration),
        )
        config = next(obj for obj in objects if obj["kind"] == "ConfigMap")
        digest = moving.digest(config["data"])
        for obj in objects:
            if obj["kind"] == "DaemonSet":
                template = obj["spec"]["template"]["metadata"]
                template["annotations"] = (template.get("annotations") or {}) | {
                    moving.CONFIG_ANNOTATION: digest
                }
        return objects

    def dns_objects(self) -> list[Object]:
        """Cluster DNS: CoreDNS, or the built-in server in its place."""
        networking = self.cluster.networking
        render, image = (
            (addons_builtin.builtin_dns, "dns") if self.builtin_dns else (addons.coredns, "coredns")
        )
        return render(
            self.images[image], networking.dns_domain, networking.service_subnet, self.facts,
            replicas=self.spec.dns.replicas,
        )  # fmt: skip

    def network_objects(self, first: Node) -> list[Object]:
        """The pod network; nothing where the user brings another."""
        if not self.has_network:
            return []
        return addons_builtin.network_agent(
            self.images["agent"], self.cluster.networking.pod_subnet, self.endpoint(first)
        )

    @property
    def has_network(self) -> bool:
        """Whether the pod network is ours. Where the user brings another, nodes are not Ready before that."""
        return self.spec.network.plugin == "builtin"

    def leases(self) -> list[str]:
        """Whose Leases show that they are at work: those whose leader election the user has not changed."""
        parts = {
            "kube-controller-manager": self.cluster.controller_manager,
            "kube-scheduler": self.cluster.scheduler,
        }
        return [
            name
            for name, part in parts.items()
            if not any(flag.startswith("leader-elect") for flag in part.extra_args.names)
        ]

    def workloads(self) -> list[tuple[str, str]]:
        """What must run in kube-system before the cluster is whole."""
        if not self.has_network:
            return [("DaemonSet", "kube-proxy")]
        return [("DaemonSet", "kube-proxy"), ("DaemonSet", addons_builtin.NETWORK), ("Deployment", "coredns")]


class Artifacts:
    """The components that a run needs, brought to this computer once and handed out by what was wanted."""

    def __init__(self, source: Source, events: Events) -> None:
        self._source = source
        self._events = events
        self._have: dict[Want, Artifact] = {}
        self._left_out = False

    async def fetch(self, wants: Sequence[Want]) -> None:
        """Bring them here; those that several hosts want only once."""
        missing = [want for want in dict.fromkeys(wants) if want not in self._have]
        for want, artifact in zip(missing, await self._source.fetch(missing, self._events), strict=True):
            self._have[want] = artifact

    async def fetch_ready(self, wants: Sequence[Want]) -> bool:
        """`fetch`, but only where nothing must be built or downloaded for it; else none are handed out."""
        if not await self._source.ready(wants):
            self._left_out = True
            return False
        await self.fetch(wants)
        return True

    def of(self, wants: Sequence[Want]) -> list[Artifact]:
        """Those that were fetched for `wants`, in order."""
        return [] if self._left_out else [self._have[want] for want in wants]
