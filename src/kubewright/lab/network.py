"""The network of a lab: a bridge in a namespace of its own, one link to this computer and one to each machine.

The bridge is not in this computer's own network namespace, so that its packet filter, its bridge settings and
whatever else runs here (a container engine that drops forwarded packets, say) have no part in what machines send
each other, and nothing but one link with its address and route is added here. The bridge's namespace is also the
machines' gateway: it has no way out and answers so at once, where a lost packet would cost the sender a timeout.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Sequence
from ipaddress import IPv4Network
from pathlib import Path

from kubewright.errors import CommandError
from kubewright.lab.plan import LabPlan, MachinePlan
from kubewright.lab.proc import read, run

METADATA_SERVICE = "169.254.169.254"
"""Where clouds answer questions about a machine; the kubelet asks at its start (lab-facts: 11 s if lost)."""

_GATEWAY_SETTINGS = (
    "net/ipv4/ip_forward=1",  # to answer "unreachable" for every address that is not in the lab
    "net/ipv4/icmp_ratelimit=0",
    "net/bridge/bridge-nf-call-iptables=0",
    "net/bridge/bridge-nf-call-ip6tables=0",
    "net/bridge/bridge-nf-call-arptables=0",
)
MACHINE_SETTINGS = (
    # A new namespace takes over this computer's settings (ip-sysctl: devconf_inherit_init_net). A machine begins
    # as Debian comes: preparing a host for Kubernetes is the work of `apply`.
    "net/ipv4/ip_forward=0",
    "net/ipv4/conf/all/forwarding=0",
    "net/ipv4/conf/default/forwarding=0",
    "net/bridge/bridge-nf-call-iptables=0",
    "net/bridge/bridge-nf-call-ip6tables=0",
    "net/bridge/bridge-nf-call-arptables=0",
)
_SET = (
    'for setting in "$@"; do f=/proc/sys/${setting%%=*}; [ ! -e "$f" ] || echo "${setting#*=}" > "$f"; done'
)


class LabNetwork:
    """The network of one lab; `namespace` is the file that keeps the bridge's namespace alive."""

    def __init__(self, plan: LabPlan, namespace: Path) -> None:
        self.plan = plan
        self.namespace = namespace

    async def ensure(self) -> bool:
        """Make what is missing of the bridge and of the link to this computer; whether anything was."""
        changed = False
        if not is_mounted(self.namespace):
            self.namespace.parent.mkdir(parents=True, exist_ok=True)
            self.namespace.touch(mode=0o600)
            await run(["unshare", f"--net={self.namespace}", "true"])
            changed = True
        if "br0" not in await self._inner_links():
            await self._inside(gateway_commands(self.plan), _GATEWAY_SETTINGS)
            changed = True
        if self.plan.link not in await self._inner_links():
            with contextlib.suppress(CommandError):
                await run(["ip", "link", "delete", self.plan.link])
            await self._link_computer()
            changed = True
        elif not await self._computer_is_linked():
            await run(["ip", "-batch", "-"], stdin=computer_commands(self.plan).encode())
            changed = True
        return changed

    async def _link_computer(self) -> None:
        """A veth pair whose two ends bear the same name, one here and one as a port of the bridge."""
        await self._inside(
            f"link add {self.plan.link} type veth peer name {self.plan.link} netns {os.getpid()}\n"
            f"link set {self.plan.link} master br0 up\n"
        )
        await run(["ip", "-batch", "-"], stdin=computer_commands(self.plan).encode())

    async def _computer_is_linked(self) -> bool:
        code, out, _ = await run(["ip", "-j", "address", "show", "dev", self.plan.link], check=False)
        return code == 0 and f'"{self.plan.computer_address}"' in out

    async def attached(self) -> set[str]:
        """The ports of the bridge that are there; none where the bridge is not."""
        return await self._inner_links() if is_mounted(self.namespace) else set()

    async def detach(self, machine: MachinePlan) -> None:
        """Remove a machine's link, if it is there."""
        if machine.port in await self.attached():
            with contextlib.suppress(CommandError):
                await self._inside(f"link delete {machine.port}\n")

    async def cut(self, machine: MachinePlan, *, off: bool) -> None:
        """Let the bridge drop whatever comes from or goes to a machine, or pass it on again.

        The machine's own link stays up: it sees no carrier go, as behind a switch that has failed. Raises
        `CommandError` where the machine has no link.
        """
        await run(["nsenter", f"--net={self.namespace}", "bridge", "link", "set", "dev", machine.port,
                   "state", "disabled" if off else "forwarding"])  # fmt: skip

    async def cut_off(self) -> set[str]:
        """The ports that `cut` has turned off."""
        if not is_mounted(self.namespace):
            return set()
        _, out, _ = await run(["nsenter", f"--net={self.namespace}", "bridge", "-j", "link", "show"])
        return {row["ifname"] for row in json.loads(out or "[]") if row.get("state") == "disabled"}

    async def _inner_links(self) -> set[str]:
        _, out, _ = await run(["nsenter", f"--net={self.namespace}", "ip", "-j", "link"])
        return {row["ifname"] for row in json.loads(out or "[]")}

    async def _inside(self, commands: str, settings: Sequence[str] = ()) -> None:
        enter = ["nsenter", f"--net={self.namespace}"]
        if settings:
            await run([*enter, "sh", "-c", _SET, "sh", *settings])
        await run([*enter, "ip", "-batch", "-"], stdin=commands.encode())


async def drop_namespace(namespace: Path) -> None:
    """Unmount and remove the file that keeps a namespace alive. Removing it takes copies of the mount, too."""
    while is_mounted(namespace):
        await run(["umount", "--lazy", str(namespace)])
    namespace.unlink(missing_ok=True)


def is_mounted(path: Path) -> bool:
    """Whether something is mounted at `path` in this mount namespace."""
    return any(line.split()[4] == str(path) for line in read("/proc/self/mountinfo").splitlines())


def link_alias(lab: str) -> str:
    """What marks this computer's link as a lab's."""
    return f"kubewright-lab:{lab}"


def gateway_commands(plan: LabPlan) -> str:
    """For `ip -batch` in the bridge's namespace."""
    return (
        "link set lo up\n"
        "link add br0 type bridge\n"
        f"address add {plan.gateway}/{plan.subnet.prefixlen} dev br0\n"
        "link set br0 up\n"
    )


def computer_commands(plan: LabPlan) -> str:
    """For `ip -batch` on this computer."""
    return (
        f"address replace {plan.computer_address}/{plan.subnet.prefixlen} dev {plan.link}\n"
        f"link set {plan.link} alias {link_alias(plan.name)} up\n"
    )


def attach_script(machine: MachinePlan) -> str:
    """For a shell in the bridge's namespace: a pair of links, its other end in the namespace of process $1.

    A port of the machine's former start may still be there: the kernel dissolves namespaces when it finds time.
    """
    return (
        f"ip link delete {machine.port} 2> /dev/null || true; "
        f'ip link add {machine.port} type veth peer name eth0 address {machine.mac} netns "$1" && '
        f"ip link set {machine.port} master br0 up"
    )


def machine_commands(plan: LabPlan, machine: MachinePlan) -> str:
    """For `ip -batch` in a machine's namespace."""
    return (
        "link set lo up\n"
        f"address add {machine.address}/{plan.subnet.prefixlen} dev eth0\n"
        "link set eth0 up\n"
        f"route add default via {plan.gateway}\n"
        f"route add unreachable {METADATA_SERVICE}\n"
    )


async def networks_in_use() -> list[IPv4Network]:
    """The networks that this computer has addresses in or routes to, by any table."""
    found: list[IPv4Network] = []
    _, out, _ = await run(["ip", "-4", "-j", "route", "show", "table", "all"])
    for row in json.loads(out or "[]"):
        destination = row["dst"]
        if destination != "default":
            found.append(IPv4Network(destination, strict=False))
    return found
