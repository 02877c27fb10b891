"""`cluster.yaml`: a whole cluster in one file, with kubeadm's own configuration kinds passed through."""

from __future__ import annotations

from enum import StrEnum
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

API_VERSION = "kubewright.dev/v1alpha1"


class Strict(BaseModel):
    """camelCase in the file, snake_case here; a field that is not known is an error."""

    model_config = ConfigDict(
        extra="forbid", alias_generator=to_camel, validate_by_name=True, validate_by_alias=True, frozen=True
    )


class Role(StrEnum):
    """What a host is in the cluster."""

    CONTROL_PLANE = "control-plane"
    WORKER = "worker"


class SshSpec(Strict):
    """How a host is reached. A field that a host does not set is taken from the cluster's `ssh`."""

    user: str | None = None
    port: int | None = Field(default=None, ge=1, le=65535)
    key_files: list[str] | None = None
    """Private keys; without any, the agent and the usual files under `~/.ssh` are tried."""
    known_hosts: str | None = None
    """Default: `~/.ssh/known_hosts`."""
    jump: str | None = None
    """`[user@]host[:port]` of a jump host."""


class Taint(Strict):
    """A taint of a node, in Kubernetes' own form."""

    key: str
    value: str = ""
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"]


class HostSpec(Strict):
    """One host. `address: local` is this computer, without SSH."""

    name: str
    """The node's name; the host's hostname must be the same."""
    address: str
    roles: list[Role] = Field(default_factory=lambda: [Role.WORKER], min_length=1)
    node_ip: str | None = Field(default=None, alias="nodeIP")
    """The address that the node uses; default: the source address of its default route (P08)."""
    ssh: SshSpec = SshSpec()
    labels: dict[str, str] = {}
    taints: list[Taint] | None = None
    """Default: kubeadm's taint on control planes, none on workers."""


class SourceSpec(Strict):
    """Where components come from."""

    type: Literal["debian", "system"] = "debian"


class NetworkSpec(Strict):
    """The cluster's networks; each a CIDR."""

    plugin: Literal["builtin", "none"] = "builtin"
    pod_subnet: str = "10.244.0.0/16"
    service_subnet: str = "10.96.0.0/12"
    dns_domain: str = "cluster.local"


class DnsSpec(Strict):
    """Cluster DNS."""

    provider: Literal["auto", "coredns", "builtin"] = "auto"
    """`auto`: CoreDNS where the source has its image, else the built-in server."""
    replicas: int = Field(default=2, ge=1)


class ClusterSpec(Strict):
    """A whole cluster: its hosts, version, networks, and kubeadm's configuration kinds."""

    api_version: Literal["kubewright.dev/v1alpha1"] = API_VERSION
    kind: Literal["Cluster"] = "Cluster"
    name: str = "kubernetes"
    kubernetes_version: str = "v1.20.2"
    endpoint: str | None = None
    """`host[:port]` that clients use for the API; default: the control plane's address and 6443."""
    source: SourceSpec = SourceSpec()
    network: NetworkSpec = NetworkSpec()
    dns: DnsSpec = DnsSpec()
    ssh: SshSpec = SshSpec()
    hosts: list[HostSpec] = Field(min_length=1)
    cluster_configuration: dict[str, Any] = {}
    """kubeadm's ClusterConfiguration; what the fields above say is not said here again."""
    kubelet_configuration: dict[str, Any] = {}
    kube_proxy_configuration: dict[str, Any] = {}
