"""The endpoint of a cluster: which hosts serve it, and bringing them to what the control planes are now."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from kubewright.model.config.cluster import ClusterSpec, HostSpec
from kubewright.model.config.endpoint import (
    LOCAL_HOST,
    endpoint_address,
    endpoint_hosts,
    endpoint_port,
)
from kubewright.model.keepalived import VirtualIp
from kubewright.model.loadbalancer import Backend
from kubewright.model.node import API_PORT, host_port, is_address, split_endpoint
from kubewright.phases.endpoint import EndpointIsOurs
from kubewright.phases.loadbalancer import LoadBalancer, ProxiesGone
from kubewright.phases.node import Node
from kubewright.phases.phase import Change, Phase
from kubewright.phases.virtual_ip import VirtualAddress, VirtualIpHeld
from kubewright.workflows.fleet import on_all

ROUTER = 51
"""VRRP's number of the virtual IP where cluster.yaml says none."""
_ELECTED = 4.0
"""Seconds after which a host that hears of no other has taken the virtual IP (it does so after 2 s)."""


class Endpoint:
    """The endpoint that cluster.yaml describes, on the hosts of one run."""

    def __init__(
        self, spec: ClusterSpec, nodes: Sequence[Node], do: Callable[[Phase], Awaitable[Sequence[Change]]]
    ) -> None:
        """`nodes` are the hosts that can be reached; `do` runs a phase, or only looks."""
        self._spec = spec
        self._nodes = list(nodes)
        self._do = do
        there = {node.name: node.ip for node in nodes}
        self._ips = {host.name: there.get(host.name) or _configured_ip(host) for host in spec.hosts}
        names = {host.name for host in endpoint_hosts(spec)}
        self.hosts = [node for node in nodes if node.name in names]
        """Who runs a proxy, of those that can be reached."""
        self.address = endpoint_address(
            spec, {host.name: self._ips[host.name] or host.address for host in spec.hosts}
        )
        """`host:port`, kubeadm's controlPlaneEndpoint; empty where there is no endpoint."""
        self._busy = {node.name: asyncio.Lock() for node in self.hosts}
        self._unasked = {host.name for host in spec.hosts} - set(there)
        self._virtual_since = 0.0

    @property
    def names(self) -> list[str]:
        """The names and addresses of the load balancers' own hosts, which certificates must have, too (P26).

        A proxy beside an API server is reached by a name that its certificate has anyway.
        """
        own = split_endpoint(self.address)[0] if self.address else ""
        found = []
        for host in self._spec.load_balancers:
            lost = host.name in self._unasked  # its address may be one for SSH alone
            address = host.node_ip if lost else self._ips[host.name] or host.address
            found += [host.name, address] if address else [host.name]
        return [name for name in found if name != own]

    def admin_url(self, first: Node) -> str:
        """The URL for a kubeconfig that is used elsewhere than on the nodes."""
        local = self._spec.endpoint is not None and self._spec.endpoint.type == "local"
        if local or not self.address:
            return f"https://{host_port(first.ip, API_PORT)}"
        return f"https://{self.address}"

    async def ensure(self, backends: Sequence[Backend], ca: bytes) -> None:
        """Put these API servers behind all proxies, at once. `ca` is the cluster's CA as PEM.

        Control planes of cluster.yaml whose hosts could not be reached stay where they are. One host's failure
        does not stop the others. Raises `KubewrightError`, or a group of them.
        """
        await on_all({node.name: self._proxy(node, backends, ca) for node in self.hosts})
        await self._held()

    async def ensure_on(self, node: Node, backends: Sequence[Backend], ca: bytes) -> None:
        """The same on one host, which must be one of `hosts`."""
        await self._proxy(node, backends, ca)
        await self._held()

    async def settled(self) -> None:
        """See that one host alone has the virtual IP, when an election is over: each does that hears no other."""
        await self._held(after=self._virtual_since + _ELECTED)

    async def forget(self, node: Node) -> None:
        """Take the proxy away from a host that runs none any more. Where there is nothing, nothing is said."""
        phase = ProxiesGone(node)
        if await phase.look():
            await self._do(phase)

    async def check(self, through: Node, ca: bytes | None, *, must_answer: bool) -> None:
        """Find out whether an address of the user's own leads to this cluster; other types are not asked.

        `through` is the host that connects; `ca` is None where the cluster is yet to be made. What answers with
        another cluster's certificate is refused. `must_answer` waits until there is an answer.
        """
        endpoint = self._spec.endpoint
        if endpoint is not None and endpoint.type == "external":
            await self._do(EndpointIsOurs(through, self.address, ca, must_answer=must_answer))

    async def _proxy(self, node: Node, backends: Sequence[Backend], ca: bytes) -> None:
        async with self._busy[node.name]:  # whoever comes last knows best
            await self._proxy_alone(node, backends, ca)

    async def _proxy_alone(self, node: Node, backends: Sequence[Backend], ca: bytes) -> None:
        endpoint = self._spec.endpoint
        assert endpoint is not None
        assert endpoint.program is not None
        address = LOCAL_HOST if endpoint.type == "local" else "0.0.0.0"  # noqa: S104 - the API is for everybody
        port = endpoint_port(self._spec)
        planes = {host.name for host in self._spec.control_planes}
        await self._do(
            LoadBalancer(
                node, endpoint.program, backends, ca, address=address, port=port, keep=planes & self._unasked,
                virtual=endpoint.type == "keepalived",
            )
        )  # fmt: skip
        if endpoint.type == "keepalived":
            virtual = VirtualIp(self._virtual_ip, endpoint.virtual_router_id or ROUTER, endpoint.program)
            others = [host.name for host in endpoint_hosts(self._spec) if host.name != node.name]
            if await self._do(
                VirtualAddress(
                    node, virtual, {name: self._ips[name] for name in others if self._ips[name]},
                    interface=endpoint.interface, keep=set(others) & self._unasked,
                )
            ):  # fmt: skip
                self._virtual_since = asyncio.get_running_loop().time()

    @property
    def _virtual_ip(self) -> str:
        return split_endpoint(self.address)[0]

    async def _held(self, *, after: float = 0.0) -> None:
        if self._spec.endpoint is not None and self._spec.endpoint.type == "keepalived" and self.hosts:
            await self._do(VirtualIpHeld(self.hosts, self._virtual_ip, after=after))


def _configured_ip(host: HostSpec) -> str:
    """The address of a host that cannot be asked, as far as the file says it."""
    return host.node_ip or (host.address if is_address(host.address) else "")
