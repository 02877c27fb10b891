"""Which virtual servers (IPVS) and address sets kube-proxy has made in its mode `ipvs`, told from others'."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address

KUBE_IPVS = "kube-ipvs0"
"""The dummy link that has the addresses of Services."""

_SETS = (
    "LOOP-BACK", "CLUSTER-IP", "EXTERNAL-IP", "EXTERNAL-IP-LOCAL", "LOAD-BALANCER", "LOAD-BALANCER-FW",
    "LOAD-BALANCER-LOCAL", "LOAD-BALANCER-SOURCE-IP", "LOAD-BALANCER-SOURCE-CIDR", "NODE-PORT-TCP",
    "NODE-PORT-LOCAL-TCP", "NODE-PORT-UDP", "NODE-PORT-LOCAL-UDP", "NODE-PORT-SCTP-HASH",
    "NODE-PORT-LOCAL-SCTP-HASH", "HEALTH-CHECK-NODE-PORT", "IPVS-IPS",
)  # fmt: skip
_LONGEST = 31
"""The kernel's limit of a set's name; kube-proxy cuts its own there."""
_SET_NAMES = frozenset(f"KUBE-{six}{name}"[:_LONGEST] for six in ("", "6-") for name in _SETS)
_NODE_PORTS = re.compile(r"KUBE-(?:6-)?NODE-PORT-(TCP|UDP)")
_NODE_PORTS_SCTP = re.compile(r"KUBE-(?:6-)?NODE-PORT-SCTP-HASH")


@dataclass(frozen=True, slots=True)
class VirtualServer:
    """One row of /proc/net/ip_vs."""

    protocol: str
    """TCP, UDP or SCTP; others, such as FWM, have no address."""
    address: IPv4Address | IPv6Address | None
    port: int

    def __str__(self) -> str:
        if self.address is None:
            return f"{self.protocol} {self.port}"
        shown = f"[{self.address}]" if self.address.version == 6 else str(self.address)
        return f"{self.protocol} {shown}:{self.port}"

    @property
    def option(self) -> str:
        """Its words for `ipvsadm`, as `-t 10.96.0.1:443`."""
        letter = {"TCP": "-t", "UDP": "-u", "SCTP": "--sctp-service"}[self.protocol]
        return f"{letter} {str(self).partition(' ')[2]}"


def virtual_servers(table: str) -> list[VirtualServer]:
    """The virtual servers in the text of /proc/net/ip_vs, whose numbers are hexadecimal."""
    found = []
    for line in table.splitlines():
        words = line.split()
        if len(words) < 2 or line.startswith((" ", "IP Virtual", "Prot")):
            continue
        if words[0] not in ("TCP", "UDP", "SCTP"):
            found.append(VirtualServer(words[0], None, int(words[1], 16)))
            continue
        where, _, port = words[1].rpartition(":")
        address = ip_address(where.strip("[]")) if where.startswith("[") else IPv4Address(int(where, 16))
        found.append(VirtualServer(words[0], address, int(port, 16)))
    return found


def kube_proxys(
    servers: Iterable[VirtualServer], on_link: Collection[str], sets: Mapping[str, Collection[str]]
) -> tuple[list[VirtualServer], list[VirtualServer]]:
    """Kubernetes' virtual servers, and those of others.

    Its own are on an address of kube-ipvs0, or on a NodePort, which is in a set of its: `sets` has their members.
    """
    addresses = {ip_address(one) for one in on_link}
    ports = _node_ports(sets)
    ours: list[VirtualServer] = []
    others: list[VirtualServer] = []
    for server in servers:
        is_ours = server.address is not None and (
            server.address in addresses or (server.protocol, server.port) in ports
        )
        (ours if is_ours else others).append(server)
    return ours, others


def _node_ports(sets: Mapping[str, Collection[str]]) -> set[tuple[str, int]]:
    found = set()
    for name, members in sets.items():
        if match := _NODE_PORTS.fullmatch(name):
            found |= {(match[1], int(member)) for member in members if member.isdecimal()}
        elif _NODE_PORTS_SCTP.fullmatch(name):
            ports = (member.rpartition(":")[2] for member in members)
            found |= {("SCTP", int(port)) for port in ports if port.isdecimal()}
    return found


def is_kube_set(name: str) -> bool:
    """Whether kube-proxy makes a set of this name."""
    return name in _SET_NAMES


def parse_sets(saved: str) -> dict[str, list[str]]:
    """All sets of `ipset save` with their members."""
    found: dict[str, list[str]] = {}
    for line in saved.splitlines():
        words = line.split()
        if len(words) >= 2 and words[0] == "create":
            found[words[1]] = []
        elif len(words) >= 3 and words[0] == "add":
            found.setdefault(words[1], []).append(words[2])
    return found
