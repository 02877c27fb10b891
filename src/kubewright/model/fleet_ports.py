"""The ports of a cluster: who listens where, who connects to whom, and what is wrong where that fails (P44)."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

from kubewright.model.arguments import ETCD_CLIENT_PORT, ETCD_PEER_PORT
from kubewright.model.config.cluster import ClusterSpec, HostSpec, Role
from kubewright.model.config.endpoint import endpoint_hosts, endpoint_port
from kubewright.model.node import API_PORT
from kubewright.model.node_preflight import CONTROLLER_MANAGER_PORT, KUBELET_PORT, SCHEDULER_PORT
from kubewright.model.packet_filter import closing_rules
from kubewright.model.port_probe import Answer, Reach
from kubewright.model.preflight import Finding, Fix

NODE_PORTS = (30000, 32767)
"""The first and the last of Services' NodePorts, which stand for all."""
_RANGE = f"{NODE_PORTS[0]}-{NODE_PORTS[1]}"


@dataclass(frozen=True, slots=True, order=True)
class Way:
    """A connection that the cluster needs: a host connects to a port of another."""

    user: str
    target: str
    port: int


def own_ports(spec: ClusterSpec, host: HostSpec) -> list[int]:
    """The TCP ports that the cluster's programs listen on, on a host."""
    ports: list[int] = []
    if host.is_control_plane:
        ports += [API_PORT, SCHEDULER_PORT, CONTROLLER_MANAGER_PORT]
    if host.is_node:
        ports.append(KUBELET_PORT)
    if has_etcd(spec, host):
        ports += [ETCD_CLIENT_PORT, ETCD_PEER_PORT]
    if host in endpoint_hosts(spec):
        ports.append(endpoint_port(spec))
    return list(dict.fromkeys(ports))


def has_etcd(spec: ClusterSpec, host: HostSpec) -> bool:
    """Whether a member of etcd runs on a host; of an etcd of the user's own nobody's does (P02)."""
    if Role.ETCD in host.roles:
        return True
    return host.is_control_plane and spec.etcd is None and not spec.etcd_hosts


def ways(spec: ClusterSpec) -> Iterator[Way]:
    """All connections between hosts of the cluster; as many as control planes times hosts.

    Nodes connect to the API, control planes to every kubelet; etcd's clients and members to its members. Of the
    NodePorts, by which all nodes are reached, the control planes try two. The built-in pod network has no port of
    its own: it routes.
    """
    planes, members = spec.control_planes, [host for host in spec.hosts if has_etcd(spec, host)]
    found: list[Way] = []

    def between(users: Collection[HostSpec], targets: Collection[HostSpec], *ports: int) -> None:
        found.extend(
            Way(user.name, target.name, port)
            for user in users
            for target in targets
            for port in ports
            if user is not target
        )

    between(planes, planes, API_PORT)
    between(planes, members, ETCD_CLIENT_PORT)
    between(members, members, ETCD_CLIENT_PORT, ETCD_PEER_PORT)
    between(planes, spec.nodes, KUBELET_PORT, *NODE_PORTS)
    proxies = endpoint_hosts(spec)
    if spec.endpoint is None:
        between(spec.nodes, planes[:1], API_PORT)
    elif spec.endpoint.type != "external":
        between(proxies, planes, API_PORT)
    if spec.endpoint is not None and spec.endpoint.type not in ("external", "local"):
        between(spec.nodes, proxies, endpoint_port(spec))
    yield from dict.fromkeys(found)


def closed(
    probed: Collection[Way], answers: Mapping[Way, Answer], listened: Mapping[str, Collection[int]]
) -> dict[Way, Answer]:
    """Those of the ways that something is in the way of.

    Where we have listened, `listened` by host, a connection that is refused has been refused by a firewall;
    elsewhere perhaps only because nobody listens. No answer means a firewall anywhere.
    """
    return {
        way: answer
        for way in probed
        if (answer := answers.get(way)) is not None
        and (
            answer.reach in (Reach.SILENT, Reach.FAILED)
            or (answer.reach is Reach.REFUSED and way.port in listened.get(way.target, ()))
        )
    }


@dataclass(frozen=True, slots=True)
class Filter:
    """What is known of a host's own packet filter."""

    firewall: str = ""
    """`ufw` or `firewalld`, where it is active."""
    rules: str = ""
    """What `packet_filter.RULES` printed."""


def reach_findings(
    answered: Collection[Way],
    shut: Mapping[Way, Answer],
    filters: Mapping[str, Filter],
    addresses: Mapping[str, str],
) -> Iterator[Finding]:
    """One finding for a host of whose ports none is reached, else one for each pair of hosts.

    `answered` are all ways of which something is known; `filters` and `addresses` are by host.
    """
    to, by = Counter(way.target for way in answered), Counter(way.user for way in answered)
    closed_to, closed_by = Counter(way.target for way in shut), Counter(way.user for way in shut)
    cut_off = {host for host, count in closed_to.items() if 1 < count == to[host]}
    isolated = {host for host in cut_off if host in by and closed_by[host] == by[host]}
    pairs: dict[tuple[str, str], dict[Way, Answer]] = defaultdict(dict)
    for way in sorted(shut):
        if way.target in cut_off:
            pairs[way.target, ""][way] = shut[way]
        elif way.user not in isolated:  # that is said with its own ports
            pairs[way.target, way.user][way] = shut[way]
    for (target, user), found in pairs.items():
        users = user or _listed(list(dict.fromkeys(way.user for way in found)))
        message = f"{user} cannot reach it on TCP {port_list(found)} (P44)"
        if not user:
            message = f"none of its ports can be reached from {users} (P44): TCP {port_list(found)}"
        if target in isolated:
            others = _listed(list(dict.fromkeys(way.target for way in sorted(shut) if way.user == target)))
            message += f"; and it reaches none of those of {others}"
        yield _finding(message, users, found, filters.get(target, Filter()), addresses)


def _finding(
    message: str, users: str, shut: Mapping[Way, Answer], own: Filter, addresses: Mapping[str, str]
) -> Finding:
    """A finding on the one target of these ways."""
    target, about = next(iter(shut)).target, frozenset(way.user for way in shut)
    ports = f"open TCP {port_list(shut)} of {target} for {users}"
    evidence = [f"seen: {', '.join(dict.fromkeys(map(str, shut.values())))}"]
    if own.firewall:
        evidence.append(f"{own.firewall} is active on {target}")
    sources = [addresses[user] for user in about if user in addresses]
    rules = closing_rules(own.rules, {way.port for way in shut}, sources, addresses.get(target, ""))
    evidence += [f"its packet filter: {rule}" for rule in rules]
    return Finding(
        target, message,
        f"{ports} in {own.firewall}, which `kubewright preflight --fix` does" if own.firewall else
        f"{ports}, in its own packet filter (iptables -S, nft list ruleset) or in a firewall between",
        check="NodePorts" if all(way.port in NODE_PORTS for way in shut) else "PortReach",
        evidence=tuple(evidence), fix=Fix.FIREWALL if own.firewall else None, about=about, firewall=own.firewall,
    )  # fmt: skip


def _listed(names: Sequence[str], most: int = 6) -> str:
    """Names, of very many only the first."""
    if len(names) <= most:
        return ", ".join(names)
    return f"{', '.join(names[: most - 1])} and {len(names) - most + 1} others"


def port_list(found: Collection[Way]) -> str:
    """The ports of ways, those of Services as their range."""
    ports = sorted({way.port for way in found})
    plain = [str(port) for port in ports if port not in NODE_PORTS]
    both = [_RANGE] if {*NODE_PORTS} <= {*ports} else [str(port) for port in ports if port in NODE_PORTS]
    return ", ".join([*plain, *both])


@dataclass(frozen=True, slots=True)
class Opening:
    """Ports of a host that another host of the cluster must reach."""

    user: str
    source: str
    """The user's address."""
    ports: tuple[str, ...]
    """Ports, and the range of NodePorts as `30000-32767`."""


def openings(spec: ClusterSpec, target: str, addresses: Mapping[str, str]) -> list[Opening]:
    """What a host's firewall must let through: for each other host of the cluster the ports that it uses there,
    and between nodes the NodePorts."""
    nodes = {host.name for host in spec.nodes}
    ports: dict[str, set[int]] = {
        name: set() for name in addresses if name != target and name in nodes and target in nodes
    }
    for way in ways(spec):
        if way.target == target and way.user in addresses and way.port not in NODE_PORTS:
            ports.setdefault(way.user, set()).add(way.port)
    return [
        Opening(
            user,
            addresses[user],
            (*map(str, sorted(found)), *([_RANGE] if user in nodes and target in nodes else [])),
        )
        for user, found in ports.items()
    ]
