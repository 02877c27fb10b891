"""keepalived on the hosts of an endpoint, and the virtual IP that one of them has."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping, Sequence
from typing import ClassVar

from kubewright.errors import ExitCode, HostError
from kubewright.events import Activity
from kubewright.hosts import FileWrite
from kubewright.model import keepalived
from kubewright.model import loadbalancer as model
from kubewright.model.keepalived import VirtualIp
from kubewright.phases.endpoint_service import SETTLED, UNITS, EndpointService
from kubewright.phases.node import Node
from kubewright.phases.phase import Change, Phase
from kubewright.phases.waiting import unit_evidence, wait_until


class VirtualAddress(EndpointService):
    """keepalived, which gives the endpoint's address to one of several hosts at a time."""

    name: ClassVar[str] = "virtual-ip"
    title: ClassVar[str] = "configure and start keepalived"

    def __init__(
        self, node: Node, virtual: VirtualIp, peers: Mapping[str, str], *, interface: str = "",
        keep: Collection[str] = (),
    ) -> None:  # fmt: skip
        """`peers` are the other hosts' addresses by name; without `interface` it is that of the host's address.

        The addresses of `keep`, hosts that could not be asked in this run, stay as they are: `peers` may have
        those by which they were to be reached, where no advertisement arrives.
        """
        super().__init__(node, "keepalived")
        self._virtual = virtual
        self._peers = dict(peers)
        self._interface = interface
        self._keep = frozenset(keep)

    async def files(self) -> list[FileWrite]:
        """The configuration, the check of the proxy, and the unit."""
        host = self._node.host
        if self._keep:
            before = keepalived.read_peers(await host.read_file(keepalived.KEEPALIVED_CONFIG) or b"")
            self._peers |= {name: before[name] for name in self._keep if name in before}
        config = keepalived.keepalived_config(
            self._virtual, self._interface or await self._own_interface(), self._node.ip, self._peers
        )
        return [
            FileWrite(keepalived.KEEPALIVED_CONFIG, config),
            FileWrite(keepalived.PROXY_CHECK, keepalived.proxy_check(self._virtual.proxy), 0o755),
            FileWrite(f"{UNITS}/{self._unit}", keepalived.keepalived_unit()),
        ]

    async def _own_interface(self) -> str:
        rows = await self._node.host.shell('ip -o -4 addr show to "$1"', self._node.ip, check=False)
        for row in rows.text.splitlines():
            return row.split()[1]
        raise HostError(
            f"{self.host_name}: no interface has its address {self._node.ip}", host=self.host_name,
            hint="set endpoint.interface in cluster.yaml", exit_code=ExitCode.HOST_NOT_FIT,
        )  # fmt: skip

    async def not_yet(self) -> str | None:
        """It runs: which of the hosts has the address is for all of them to agree upon (`VirtualIpHeld`)."""
        return None


class VirtualIpHeld(Phase):
    """Wait until one of the hosts, and no other, has the virtual IP."""

    name: ClassVar[str] = "virtual-ip-held"
    title: ClassVar[str] = "wait for the virtual IP"
    always_verify: ClassVar[bool] = True

    def __init__(self, nodes: Sequence[Node], address: str, *, after: float = 0.0) -> None:
        """Nobody is asked before the event loop's time `after`."""
        self._nodes = list(nodes)
        self._address = address
        self._after = after

    async def look(self) -> list[Change]:
        """There is nothing to change."""
        return []

    async def act(self, changes: Sequence[Change], activity: Activity) -> None:
        """Nothing."""

    async def verify(self, activity: Activity) -> None:
        """Ask all hosts at once. Raises `WaitTimeoutError` with the first one's last lines."""
        await asyncio.sleep(self._after - asyncio.get_running_loop().time())

        async def has_it(node: Node) -> bool:
            rows = await node.host.shell('ip -o addr show to "$1"', self._address, check=False)
            return bool(rows.text)

        async def missing() -> str | None:
            async with asyncio.TaskGroup() as group:
                asked = {node.name: group.create_task(has_it(node)) for node in self._nodes}
            holders = [name for name, task in asked.items() if task.result()]
            if not holders:
                return f"none of {', '.join(asked)} has {self._address}"
            *others, last = holders
            both = "both" if len(others) == 1 else "all"
            return f"{', '.join(others)} and {last} {both} have {self._address}" if others else None

        unit = model.unit_of("keepalived")
        await wait_until(
            missing, f"the virtual IP {self._address}", deadline=SETTLED, progress=activity.progress,
            diagnose=lambda: unit_evidence(self._nodes[0].host, unit),
            hint=f"journalctl -u {unit} on the hosts tells more; a firewall may drop VRRP, IP protocol 112",
        )  # fmt: skip
