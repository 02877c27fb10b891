"""The mark of a Node that a cluster.yaml made: where its host is reached, also when the file names it no more."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from kubewright.errors import ConfigError
from kubewright.model.node import host_port, split_endpoint

if TYPE_CHECKING:
    from kubewright.model.config.cluster import ClusterSpec, HostSpec

HOST_ANNOTATION = "kubewright.dev/host"
LOCAL = "local"


@dataclass(frozen=True, slots=True)
class Origin:
    """`[user@]address[:port]`, as the annotation has it. What is empty or 0 is the cluster's `ssh`."""

    address: str
    user: str = ""
    port: int = 0

    @classmethod
    def of(cls, spec: ClusterSpec, host: HostSpec) -> Origin:
        """Where a host of a cluster.yaml is reached."""
        if host.address == LOCAL:
            return cls(LOCAL)
        ssh = spec.ssh_of(host)
        return cls(host.address, ssh.user or "", ssh.port or 0)

    @classmethod
    def parse(cls, text: str) -> Origin | None:
        """What an annotation says; None where it says nothing that could be reached."""
        user, _, where = text.rpartition("@")
        try:
            address, port = split_endpoint(where)
        except ConfigError:
            return None
        return cls(address, user, 0 if where in (address, f"[{address}]") else port)

    def __str__(self) -> str:
        where = host_port(self.address, self.port) if self.port else self.address
        return f"{self.user}@{where}" if self.user else where


def origin(node: Mapping[str, Any]) -> Origin | None:
    """Where a Node's host is reached; None for a Node that is not ours."""
    text = (node.get("metadata", {}).get("annotations") or {}).get(HOST_ANNOTATION)
    return Origin.parse(str(text)) if text else None


def strays(nodes: Iterable[Mapping[str, Any]], names: Collection[str]) -> tuple[list[str], list[str]]:
    """The Nodes that a cluster.yaml does not name (`names`): those that it named once, and those of others."""
    ours: list[str] = []
    foreign: list[str] = []
    for node in nodes:
        name = str(node["metadata"]["name"])
        if name not in names:
            (ours if origin(node) is not None else foreign).append(name)
    return ours, foreign
