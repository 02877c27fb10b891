"""`cluster.yaml`: a whole cluster in one file, with kubeadm's own configuration kinds passed through."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field

from kubewright.model.config import syntax
from kubewright.model.config.endpoint import Endpoint
from kubewright.model.config.etcd import EtcdSpec
from kubewright.model.config.strict import Strict

API_VERSION = "kubewright.dev/v1alpha1"

Port = Annotated[int, Field(ge=1, le=65535, strict=True)]


class Role(StrEnum):
    """What a host is in the cluster."""

    CONTROL_PLANE = "control-plane"
    WORKER = "worker"
    LOAD_BALANCER = "load-balancer"
    ETCD = "etcd"


class SshSpec(Strict):
    """How a host is reached. A field that a host does not set is taken from the cluster's `ssh`."""

    user: Annotated[str, AfterValidator(syntax.user_name)] | None = Field(
        default=None,
        description="The user to log in as; default: your own name, as with ssh.",
        examples=["root", "debian"],
    )
    port: Port | None = Field(default=None, description="sshd's port; default: 22.", examples=[22])
    key_files: list[Annotated[str, AfterValidator(syntax.path)]] | None = Field(
        default=None,
        description="Private keys. A path is relative to the directory of this file; `~` is your home directory. "
        "Without any, the agent and the usual files under `~/.ssh` are tried.",
        examples=[["~/.ssh/id_ed25519"]],
    )
    known_hosts: Annotated[str, AfterValidator(syntax.path)] | None = Field(
        default=None,
        description="The file with the hosts' keys; default: `~/.ssh/known_hosts`.",
        examples=["known_hosts"],
    )
    jump: Annotated[str, AfterValidator(syntax.jump)] | None = Field(
        default=None,
        description="`[user@]host[:port]` of a host through which this one is reached.",
        examples=["admin@bastion.example.com:2222"],
    )

    def over(self, base: SshSpec) -> SshSpec:
        """These settings, with those that are not set taken from `base`."""
        return base.model_copy(update=self.model_dump(exclude_none=True))


class Taint(Strict):
    """A taint of a node, in Kubernetes' own form."""

    key: Annotated[str, AfterValidator(syntax.qualified_name)] = Field(
        description="`[prefix/]name`.", examples=["dedicated"]
    )
    value: Annotated[str, AfterValidator(syntax.label_value)] = Field(
        default="", description="What a toleration is compared with.", examples=["database"]
    )
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] = Field(
        description="What happens to pods that do not tolerate the taint."
    )


class HostSpec(Strict):
    """One host of the cluster."""

    name: Annotated[str, AfterValidator(syntax.node_name)] = Field(
        description="The node's name; the host's own hostname may be another.", examples=["cp1"]
    )
    address: Annotated[str, AfterValidator(syntax.host_address)] = Field(
        description="An IP address or DNS name for SSH; `local` is this computer, without SSH.",
        examples=["192.168.7.11", "w1.example.com", "local"],
    )
    roles: list[Role] = Field(
        default_factory=lambda: [Role.WORKER],
        min_length=1,
        description="`control-plane`, `worker`, or both: a control plane that takes user pods, too. "
        "`load-balancer` runs the endpoint's proxy and `etcd` a member of an etcd cluster of its own; a host with "
        "these roles alone becomes no Node.",
        examples=[["control-plane"]],
    )
    node_ip: Annotated[str, AfterValidator(syntax.ipv4_address)] | None = Field(
        default=None,
        alias="nodeIP",
        description="The address that the node uses; default: the source address of its default route.",
        examples=["192.168.7.11"],
    )
    ssh: SshSpec = Field(
        default=SshSpec(), description="What differs from the cluster's `ssh` for this host."
    )
    labels: dict[
        Annotated[str, AfterValidator(syntax.qualified_name)],
        Annotated[str, AfterValidator(syntax.label_value)],
    ] = Field(default={}, description="Labels of the node.", examples=[{"disk": "ssd"}])
    taints: list[Taint] | None = Field(
        default=None,
        description="Taints of the node; default: kubeadm's on control planes that are no workers.",
    )

    @property
    def is_control_plane(self) -> bool:
        """Whether it runs the control plane."""
        return Role.CONTROL_PLANE in self.roles

    @property
    def is_node(self) -> bool:
        """Whether it becomes a Node, which a host that is only a load balancer or has only etcd does not."""
        return self.is_control_plane or Role.WORKER in self.roles

    def taints_or_default(self, control_plane_taints: Sequence[str]) -> list[Taint]:
        """The node's taints, or those with the version's keys (`VersionFacts.control_plane_taints`)."""
        if self.taints is not None:
            return list(self.taints)
        if self.is_control_plane and Role.WORKER not in self.roles:
            return [Taint(key=key, effect="NoSchedule") for key in control_plane_taints]
        return []


class SourceSpec(Strict):
    """Where components come from."""

    type: Literal["debian", "system"] = Field(
        default="debian",
        description="`debian` builds Kubernetes out of Debian's source package; `system` takes what is installed "
        "on this computer.",
    )


class NetworkSpec(Strict):
    """The cluster's networks."""

    plugin: Literal["builtin", "none"] = Field(
        default="builtin",
        description="The pod network: `builtin` routes between the nodes, `none` leaves it to you.",
    )
    pod_subnet: Annotated[str, AfterValidator(syntax.or_empty(syntax.subnet))] = Field(
        default="10.244.0.0/16",
        description="The pods' addresses; each node gets a /24 of it. `''` with the plugin `none`: that network "
        "gives pods their addresses itself, and Kubernetes is not told of them.",
    )
    service_subnet: Annotated[str, AfterValidator(syntax.subnet)] = Field(
        default="10.96.0.0/12", description="The Services' addresses; the tenth is cluster DNS."
    )
    dns_domain: Annotated[str, AfterValidator(syntax.dns_domain)] = Field(
        default="cluster.local", description="The domain of the cluster's own names."
    )


class DnsSpec(Strict):
    """Cluster DNS."""

    provider: Literal["auto", "coredns", "builtin"] = Field(
        default="auto",
        description="`auto`: CoreDNS where the source has its image, else the built-in server.",
    )
    replicas: Annotated[int, Field(ge=1, le=100, strict=True)] = Field(
        default=2, description="How many servers, spread over the nodes."
    )


class ClusterSpec(Strict):
    """A whole cluster: its hosts, version, networks, and kubeadm's configuration kinds."""

    api_version: Literal["kubewright.dev/v1alpha1"] = Field(
        default="kubewright.dev/v1alpha1", description="The version of this format."
    )
    kind: Literal["Cluster"] = Field(default="Cluster", description="Always `Cluster`.")
    name: Annotated[str, AfterValidator(syntax.cluster_name)] = Field(
        default="kubernetes", description="The cluster's name, also that of its kubeconfig context."
    )
    kubernetes_version: Annotated[str, AfterValidator(syntax.kubernetes_version)] = Field(
        default="v1.20.2", description="The version of Kubernetes, with all three numbers."
    )
    endpoint: Endpoint | None = Field(
        default=None,
        description="The address that clients use for the API, and who serves it; `host[:port]` is short for "
        "`{type: external, address: host[:port]}`. Several control planes need one; default: the control plane's "
        "address and 6443.",
        examples=["api.example.com:6443"],
    )
    etcd: EtcdSpec | None = Field(
        default=None,
        description="An etcd cluster of your own; default: one on the hosts with the role `etcd`, and where there "
        "are none, on the control planes.",
    )
    source: SourceSpec = Field(default=SourceSpec(), description="Where components come from.")
    network: NetworkSpec = Field(default=NetworkSpec(), description="The cluster's networks.")
    dns: DnsSpec = Field(default=DnsSpec(), description="Cluster DNS.")
    ssh: SshSpec = Field(default=SshSpec(), description="How all hosts are reached.")
    hosts: list[HostSpec] = Field(min_length=1, description="The hosts; at least one is a control plane.")
    cluster_configuration: dict[str, Any] = Field(
        default={},
        description="kubeadm's ClusterConfiguration. A field that also stands above must not contradict it.",
    )
    kubelet_configuration: dict[str, Any] = Field(
        default={}, description="Fields of KubeletConfiguration, over kubeadm's defaults."
    )
    kube_proxy_configuration: dict[str, Any] = Field(
        default={}, description="Fields of KubeProxyConfiguration, over kubeadm's defaults."
    )

    @property
    def control_planes(self) -> list[HostSpec]:
        """The hosts that run the control plane, in the file's order."""
        return [host for host in self.hosts if host.is_control_plane]

    @property
    def workers(self) -> list[HostSpec]:
        """The Nodes that run no control plane, in the file's order."""
        return [host for host in self.nodes if not host.is_control_plane]

    @property
    def nodes(self) -> list[HostSpec]:
        """The hosts that become Nodes, in the file's order."""
        return [host for host in self.hosts if host.is_node]

    @property
    def load_balancers(self) -> list[HostSpec]:
        """The hosts with the role `load-balancer`, in the file's order."""
        return [host for host in self.hosts if Role.LOAD_BALANCER in host.roles]

    @property
    def etcd_hosts(self) -> list[HostSpec]:
        """The hosts with the role `etcd`, in the file's order."""
        return [host for host in self.hosts if Role.ETCD in host.roles]

    def ssh_of(self, host: HostSpec) -> SshSpec:
        """How `host` is reached: its own settings over the cluster's."""
        return host.ssh.over(self.ssh)
