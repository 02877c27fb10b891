"""What of a single host stands in the way of a conversion: ports, ways, names and room."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping

from kubewright.errors import ExitCode
from kubewright.model.convert_look import HostSeen
from kubewright.model.loadbalancer import port_holder
from kubewright.model.manifests import CONTROLLER_PORT, SCHEDULER_PORT
from kubewright.model.node import API_PORT, is_address, split_endpoint
from kubewright.model.node_look import parse_listening
from kubewright.model.preflight import Finding

LEAST_ROOM = 64 << 20
"""Bytes that a backup is given, however little there is to copy."""
_ETCD_PORTS = (2379, 2380)
_NAME_HINT = "let DNS or /etc/hosts of every node say the same: `getent ahosts NAME` shows it"


def plane_ports(host: str, look: HostSeen, *, etcd: bool, own: bool) -> Iterator[Finding]:
    """P44 for a new control plane, and the way from it to those that there are.

    `etcd` says whether it gets a member, `own` whether what listens on its ports is its own already.
    """
    for line in look.out_of_reach:
        yield Finding(
            host, f"it cannot reach a control plane: {line}",
            "let control planes reach each other on TCP ports 6443, 2379 and 2380",
        )  # fmt: skip
    if own:
        return
    ports = parse_listening(look.listening)
    for port in (API_PORT, *(_ETCD_PORTS if etcd else ()), CONTROLLER_PORT, SCHEDULER_PORT):
        if port in ports:
            yield Finding(
                host,
                f"port {port}, which a control plane needs, is taken by {ports[port] or 'another program'} (P44)",
                f"find the process with `ss -ltnp sport = :{port}` and stop it",
            )


def proxy_port(host: str, look: HostSeen, address: str, port: int) -> Iterator[Finding]:
    """P44 for a proxy of the endpoint, which is to listen on `address`: one of ours may do so already."""
    lines = [line for line in look.listening.splitlines() if _port_of(line) == str(port)]
    holder = port_holder("\n".join(lines), address)
    if holder and not (look.own_proxy and holder.startswith(("haproxy ", "nginx "))):
        yield Finding(
            host, f"port {port}, where the endpoint's proxy is to listen, is taken by {holder} (P44)",
            "stop that program, or give endpoint.address another port",
        )  # fmt: skip


def _port_of(line: str) -> str:
    words = line.split()
    return words[3].rpartition(":")[2] if len(words) > 3 else ""


def resolution(endpoint: str, resolved: Mapping[str, Collection[str]]) -> Iterator[Finding]:
    """On which hosts the endpoint's name leads nowhere, or elsewhere than on most. `resolved` has the addresses by
    host, at which nobody looks where the endpoint (`host:port`, or empty) has an address itself."""
    name = split_endpoint(endpoint)[0] if endpoint else ""
    if not name or is_address(name):
        return
    counted = Counter(frozenset(found) for found in resolved.values() if found)
    usual = max(counted, key=lambda found: counted[found], default=frozenset[str]())
    for host, addresses in resolved.items():
        if not addresses:
            yield Finding(host, f"the endpoint's name {name} does not resolve there", _NAME_HINT)
        elif {*addresses} != usual:
            yield Finding(
                host, f"the endpoint's name {name} leads to {_listed(addresses)} there, and to {_listed(usual)} "
                "elsewhere", _NAME_HINT,
            )  # fmt: skip


def _listed(addresses: Collection[str]) -> str:
    return ", ".join(sorted(addresses))


def room(host: str, look: HostSeen, data: int) -> Iterator[Finding]:
    """Room for the backup, twice what there is to copy; `data` are the bytes of etcd's snapshot."""
    need = max(LEAST_ROOM, 2 * (look.copied + data))
    if look.room is not None and look.room.free < need:
        yield Finding(
            host, f"{look.room.place} has {look.room.free >> 20} MiB free; the backup needs {-(-need >> 20)} MiB",
            "free some space or enlarge the file system", ExitCode.HOST_DISK_FULL,
        )  # fmt: skip
