"""What `doctor --fix` does on a host: addresses, bridges, the kubelet's unit, and what `preflight --fix` does."""

from __future__ import annotations

from collections.abc import Sequence

from kubewright.clients.cri import open_cri
from kubewright.errors import HostError
from kubewright.events import Activity
from kubewright.hosts import Completed, Host
from kubewright.hosts.open import LOCAL
from kubewright.hosts.units import unit_lines
from kubewright.model.config.cluster import HostSpec, Role
from kubewright.model.doctor.finding import Fix
from kubewright.model.doctor.host import ACCOUNTING, KERNEL, SWAP_OFF
from kubewright.model.doctor.kubelet import START_KUBELET
from kubewright.model.doctor.network import REMOVE_BRIDGE
from kubewright.model.doctor.reserved import FREE_ADDRESSES, RESERVED, dead_reservations, parse_reserved
from kubewright.phases.make_fit import SwapOff
from kubewright.phases.node import Node
from kubewright.phases.phase import Action, Change, Phase
from kubewright.phases.prepare import Kernel

ACCOUNTING_PATH = "/etc/systemd/system/kubelet.service.d/20-kubewright-accounting.conf"
ACCOUNTING_DROP_IN = b"[Service]\nCPUAccounting=true\nMemoryAccounting=true\n"

# $1 is the network's name, then an address and its sandbox's id, in turn. A file that says something else by now
# belongs to a Pod that has come meanwhile.
_FREE = r"""
cd "/var/lib/cni/networks/$1" || exit 1
shift
while [ $# -gt 1 ]; do
  if [ -f "$1" ] && [ "$(head -n 1 "$1" | tr -d '\r')" = "$2" ]; then rm -f -- "$1" || exit 1; fi
  shift 2
done
"""
_AT_ONCE = 200


class FreeAddresses(Phase):
    """Remove the reservations of sandboxes that the runtime does not have (P37)."""

    name = FREE_ADDRESSES
    title = "Free the addresses that no Pod has"

    def __init__(self, host: Host, network: str, socket: str) -> None:
        self.host_name = host.name
        self._host = host
        self._network = network
        self._socket = socket
        self._owners: dict[str, str] = {}

    async def look(self) -> Sequence[Change]:
        """The runtime is asked first: what is reserved afterwards for a Pod that has just come is young."""
        async with open_cri(self._host, self._socket) as cri:
            sandboxes = {one.id for one in await cri.sandboxes()}
        done = await self._host.shell(RESERVED, self._network, check=False)
        reserved = parse_reserved(done.stdout.decode(errors="replace"), self._network)
        gone = dead_reservations(reserved, sandboxes, self._network)
        self._owners = {one.address: one.container for one in gone}
        return [Change(Action.DELETE, one.path, self.host_name) for one in gone]

    async def act(self, changes: Sequence[Change], activity: Activity) -> None:
        """Remove them, each only if it still names the same sandbox."""
        pairs = [word for address, owner in self._owners.items() for word in (address, owner)]
        for start in range(0, len(pairs), _AT_ONCE):
            await self._host.shell(_FREE, self._network, *pairs[start : start + _AT_ONCE])


class CgroupAccounting(Phase):
    """Turn on CPU and memory accounting of the kubelet's unit (P49)."""

    name = ACCOUNTING
    title = "Account for the kubelet's CPU and memory"

    def __init__(self, host: Host) -> None:
        self.host_name = host.name
        self._host = host

    async def look(self) -> Sequence[Change]:
        """Whether the drop-in is there."""
        if await self._host.read_file(ACCOUNTING_PATH) == ACCOUNTING_DROP_IN:
            return []
        return [
            Change(Action.CREATE, ACCOUNTING_PATH, self.host_name),
            Change(Action.RUN, "systemctl restart kubelet", self.host_name),
        ]

    async def act(self, changes: Sequence[Change], activity: Activity) -> None:
        """Write it, and start the kubelet anew with it."""
        await self._host.write_file(ACCOUNTING_PATH, ACCOUNTING_DROP_IN)
        await self._host.run(["systemctl", "daemon-reload"])
        await self._host.run(["systemctl", "restart", "kubelet"])

    async def verify(self, activity: Activity) -> None:
        """The kubelet must run. Raises `HostError` with its unit's lines."""
        if not (await self._host.run(["systemctl", "is-active", "--quiet", "kubelet"], check=False)).ok:
            raise HostError(
                f"the kubelet on {self.host_name} does not run with the drop-in", host=self.host_name,
                evidence=await unit_lines(self._host, "kubelet", 5),
                hint=f"rm {ACCOUNTING_PATH} && systemctl daemon-reload && systemctl restart kubelet",
            )  # fmt: skip


class StartKubelet(Phase):
    """Start a kubelet that was stopped, and have it started with the host (P53)."""

    name = START_KUBELET
    title = "Start the kubelet"

    def __init__(self, host: Host) -> None:
        self.host_name = host.name
        self._host = host

    async def look(self) -> Sequence[Change]:
        """Whether it runs and is enabled. One that somebody has masked is left: they have meant it."""
        state = (await self._is("is-enabled")).text.strip()
        runs = (await self._is("is-active")).text.strip() in ("active", "activating")
        if state == "masked":
            return []
        return [
            *(
                [Change(Action.RUN, "systemctl enable kubelet", self.host_name)]
                if state == "disabled"
                else []
            ),
            *([] if runs else [Change(Action.RUN, "systemctl start kubelet", self.host_name)]),
        ]

    async def act(self, changes: Sequence[Change], activity: Activity) -> None:
        """Do it."""
        for change in changes:
            await self._host.run(change.target.split())

    async def verify(self, activity: Activity) -> None:
        """It must run. Raises `HostError` with its unit's lines."""
        if not (await self._is("is-active")).ok:
            raise HostError(
                f"the kubelet on {self.host_name} does not run after its start", host=self.host_name,
                evidence=await unit_lines(self._host, "kubelet", 5), hint="journalctl -u kubelet -n 50",
            )  # fmt: skip

    async def _is(self, question: str) -> Completed:
        return await self._host.run(["systemctl", question, "kubelet"], check=False)


class RemoveBridge(Phase):
    """Remove a bridge of an older pod network (P38)."""

    name = REMOVE_BRIDGE
    title = "Remove the old bridge"

    def __init__(self, host: Host, bridge: str) -> None:
        self.host_name = host.name
        self._host = host
        self._bridge = bridge

    async def look(self) -> Sequence[Change]:
        """Whether there is such a bridge; a link of another type is not touched."""
        shown = await self._host.run(
            ["ip", "-o", "link", "show", "type", "bridge", "dev", self._bridge], check=False
        )
        return [Change(Action.DELETE, f"link {self._bridge}", self.host_name)] if shown.text.strip() else []

    async def act(self, changes: Sequence[Change], activity: Activity) -> None:
        """Take it down and away."""
        await self._host.run(["ip", "link", "set", "dev", self._bridge, "down"])
        await self._host.run(["ip", "link", "delete", "dev", self._bridge, "type", "bridge"])


async def _node(host: Host) -> Node:
    """The host as phases of `apply` take it."""
    facts = await host.facts()
    return Node(HostSpec(name=host.name, address=LOCAL, roles=[Role.WORKER]), host, facts, "")


async def phase_of(fix: Fix, host: Host, socket: str) -> Phase:
    """The phase that does what a finding offers; `socket` is the runtime's."""
    if fix.name == FREE_ADDRESSES:
        return FreeAddresses(host, fix.arguments[0], socket)
    if fix.name == ACCOUNTING:
        return CgroupAccounting(host)
    if fix.name == REMOVE_BRIDGE:
        return RemoveBridge(host, fix.arguments[0])
    if fix.name == SWAP_OFF:
        return SwapOff(await _node(host))
    if fix.name == KERNEL:
        return Kernel(await _node(host), keep=True)
    if fix.name == START_KUBELET:
        return StartKubelet(host)
    raise AssertionError(f"there is no fix {fix.name}")
