"""What the pod network wants of a node: its CNI configuration, its routes, and how they differ from what is."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from ipaddress import AddressValueError, IPv4Address, IPv4Network, NetmaskValueError
from typing import Any, Protocol

CNI_NAME = "kubewright"
"""The CNI network's name; host-local keeps its reservations in a directory of this name."""
CNI_FILE = "10-kubewright.conflist"
CNI_SUFFIXES = (".conf", ".conflist", ".json")
"""What libcni reads; of all such files in its directory, a runtime takes the first by name."""
ROUTE_PROTOCOL = 107
"""rtm_protocol of our routes. Those above RTPROT_STATIC (4) are for the programs that set them, rtnetlink(7);
this one is in none of iproute2's lists. Only routes that carry it are ever changed or removed."""
DEFAULT_MTU = 1500


@dataclass(frozen=True, slots=True)
class NodeInfo:
    """What the pod network needs of a Kubernetes Node."""

    name: str
    pod_cidr: IPv4Network | None = None
    address: IPv4Address | None = None
    ready: bool = False
    deleting: bool = False


@dataclass(frozen=True, slots=True, order=True)
class Route:
    """A route of the main table. `gateway` None makes it unreachable: packets are refused at once."""

    destination: IPv4Network
    gateway: IPv4Address | None = None
    link: int = 0
    """Index of the link that `gateway` is on; 0 for an unreachable route."""

    def __str__(self) -> str:
        return f"{self.destination} via {self.gateway}" if self.gateway else f"unreachable {self.destination}"


@dataclass(frozen=True, slots=True)
class FoundRoute:
    """A route that is in the main table with metric 0: ours, or somebody else's where `protocol` is another."""

    route: Route
    protocol: int

    @property
    def ours(self) -> bool:
        """Whether this program set it."""
        return self.protocol == ROUTE_PROTOCOL


@dataclass(frozen=True, slots=True)
class Reach:
    """How the kernel would reach another node's address."""

    link: int = 0
    gateway: IPv4Address | None = None
    """A router on the way; None where the address is on one of our own links."""
    local: bool = False
    error: str = ""


@dataclass(frozen=True, slots=True)
class RoutePlan:
    """The routes that a node is to have, and for which nodes there can be none, with the reason."""

    routes: tuple[Route, ...]
    problems: Mapping[str, str]


class Backend(Protocol):
    """How packets for another node's pods travel. Pure: what it needs to know of the kernel is in `reach`."""

    def wanted_routes(
        self, nodes: Collection[NodeInfo], own: NodeInfo, reach: Mapping[IPv4Address, Reach]
    ) -> RoutePlan:
        """All routes that `own` is to have."""
        ...


class DirectRoutes:
    """Routes straight to the other node's address: no encapsulation, so all nodes must share a link.

    The node's own range is unreachable where no pod's own /32 says otherwise: a connection to a pod that is
    gone fails at once instead of following the default route out of the cluster, and perhaps back.
    """

    def wanted_routes(
        self, nodes: Collection[NodeInfo], own: NodeInfo, reach: Mapping[IPv4Address, Reach]
    ) -> RoutePlan:
        """See `Backend`."""
        routes = [Route(own.pod_cidr)] if own.pod_cidr else []
        problems: dict[str, str] = {}
        for node in sorted(nodes, key=lambda node: node.name):
            if node.name == own.name or node.pod_cidr is None or node.deleting:
                continue
            if node.address is None:
                problems[node.name] = "the Node has no InternalIP"
            elif taken := next((r for r in routes if r.destination.overlaps(node.pod_cidr)), None):
                problems[node.name] = f"podCIDR {node.pod_cidr} overlaps {taken.destination}"
            elif trouble := _trouble(
                node.address, way := reach.get(node.address, Reach(error="not looked up"))
            ):
                problems[node.name] = trouble
            else:
                routes.append(Route(node.pod_cidr, node.address, way.link))
        return RoutePlan(tuple(routes), problems)


def _trouble(address: IPv4Address, way: Reach) -> str:
    if way.error:
        return f"{address}: {way.error}"
    if way.local:
        return f"{address} is an address of this node too"
    if way.gateway:
        return f"{address} is behind the router {way.gateway}: direct routes need nodes on one link"
    return ""


@dataclass(frozen=True, slots=True)
class RouteChange:
    """What to do so that the main table holds the wanted routes."""

    add: tuple[Route, ...] = ()
    replace: tuple[Route, ...] = ()
    """Take the place of a route of ours with the same destination."""
    remove: tuple[Route, ...] = ()
    conflicts: tuple[FoundRoute, ...] = ()
    """Routes of others where one of ours should be; they are left as they are."""

    def __bool__(self) -> bool:
        return bool(self.add or self.replace or self.remove)


def route_change(wanted: Iterable[Route], found: Iterable[FoundRoute]) -> RouteChange:
    """Compare; the kernel holds one route for a destination and metric, so a foreign one there is a conflict."""
    ours = {f.route.destination: f.route for f in found if f.ours}
    foreign = {f.route.destination: f for f in found if not f.ours}
    add, replace, conflicts, keep = [], [], [], set()
    for route in wanted:
        keep.add(route.destination)
        if route.destination in foreign:
            conflicts.append(foreign[route.destination])
        elif route.destination not in ours:
            add.append(route)
        elif ours[route.destination] != route:
            replace.append(route)
    remove = [route for destination, route in ours.items() if destination not in keep]
    return RouteChange(tuple(add), tuple(replace), tuple(remove), tuple(conflicts))


def node_info(node: Mapping[str, Any]) -> NodeInfo:
    """A Node object, reduced. IPv6 ranges and addresses are passed over: this network is IPv4 so far."""
    metadata, spec, status = node["metadata"], node.get("spec") or {}, node.get("status") or {}
    cidrs = spec.get("podCIDRs") or [spec.get("podCIDR") or ""]
    addresses = [a["address"] for a in status.get("addresses") or [] if a.get("type") == "InternalIP"]
    conditions = {c["type"]: c.get("status") for c in status.get("conditions") or []}
    return NodeInfo(
        metadata["name"],
        next((net for text in cidrs if (net := _network(text))), None),
        next((ip for text in addresses if (ip := _address(text))), None),
        conditions.get("Ready") == "True",
        "deletionTimestamp" in metadata,
    )


def _network(text: str) -> IPv4Network | None:
    try:
        return IPv4Network(text)
    except (AddressValueError, NetmaskValueError, ValueError):
        return None


def _address(text: str) -> IPv4Address | None:
    try:
        return IPv4Address(text)
    except AddressValueError:
        return None


def network_unavailable(node: Mapping[str, Any]) -> bool:
    """Whether somebody (a cloud's controller) marked the Node NetworkUnavailable and waits for our word."""
    conditions = (node.get("status") or {}).get("conditions") or []
    return any(c["type"] == "NetworkUnavailable" and c.get("status") != "False" for c in conditions)


def cni_config(pod_cidr: IPv4Network, mtu: int, *, ipam_dir: str = "") -> bytes:
    """The CNI configuration list: ptp with host-local addresses of `pod_cidr`, then portmap for hostPorts.

    `ipam_dir` is where host-local keeps its reservations; empty for the plugin's own default.
    """
    ipam: dict[str, Any] = {
        "type": "host-local",
        "ranges": [[{"subnet": str(pod_cidr)}]],
        "routes": [{"dst": "0.0.0.0/0"}],
    }
    if ipam_dir:
        ipam["dataDir"] = ipam_dir
    config = {
        # 0.4.0 is what every runtime of a supported Kubernetes speaks, dockershim included.
        "cniVersion": "0.4.0",
        "name": CNI_NAME,
        "plugins": [
            {"type": "ptp", "mtu": mtu, "ipMasq": False, "ipam": ipam},
            {"type": "portmap", "capabilities": {"portMappings": True}, "snat": True},
        ],
    }
    return json.dumps(config, indent=2).encode() + b"\n"


def shadowing(names: Iterable[str]) -> str:
    """The CNI file that a runtime would take before ours, or an empty string."""
    first = min((name for name in names if name.endswith(CNI_SUFFIXES)), default="")
    return first if first and first < CNI_FILE else ""
