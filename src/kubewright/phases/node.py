"""A host together with what is known of it in this run."""

from __future__ import annotations

from dataclasses import dataclass

from kubewright.hosts import Host, HostFacts
from kubewright.model.config.cluster import HostSpec, Role


@dataclass(frozen=True, slots=True)
class Node:
    """One host of the cluster: its specification, connection, facts, and the address that it uses."""

    spec: HostSpec
    host: Host
    facts: HostFacts
    ip: str
    """`nodeIP`, or the source address of the host's default route (P08)."""

    @property
    def name(self) -> str:
        """The Node's name."""
        return self.spec.name

    @property
    def is_control_plane(self) -> bool:
        """Whether this host runs a control plane."""
        return Role.CONTROL_PLANE in self.spec.roles
