"""What Kubewright's own pod network left on a host that leaves its cluster. Those of others are not touched."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from typing import ClassVar

from kubewright.events import Activity
from kubewright.model.own_network import OWN_CHAINS, OWN_CNI_FILE, OWN_COMMENT, OWN_ROUTES
from kubewright.phases.node import Node
from kubewright.phases.phase import Action, Change, Phase

_IPTABLES = "iptables -w 5"


class OwnNetworkGone(Phase):
    """Its CNI configuration, routes and chains are gone (P41). All of them bear our mark, and nobody else's do."""

    name: ClassVar[str] = "cleanup-node"
    title: ClassVar[str] = "remove what the pod network left"

    def __init__(self, node: Node) -> None:
        self._node = node
        self.host_name = node.name
        self._chains: list[tuple[str, str, str]] = []

    async def look(self) -> list[Change]:
        """What of them is there."""
        lines = (await self._node.host.shell(_look_script(), check=False)).text.splitlines()
        self._chains = [chain for chain in OWN_CHAINS if f"chain {chain[2]}" in lines]
        changes = [Change(Action.DELETE, OWN_CNI_FILE, self.host_name)] if "file" in lines else []
        changes += [
            Change(Action.DELETE, f"route {line.removeprefix('route ').strip()}", self.host_name)
            for line in lines
            if line.startswith("route ")
        ]
        changes += [
            Change(Action.DELETE, f"chain {name} in table {table}", self.host_name)
            for table, _, name in self._chains
        ]
        return changes

    async def act(self, changes: Sequence[Change], activity: Activity) -> None:
        """Remove them; rules of others are never named."""
        await self._node.host.shell(_removal_script(self._chains), check=False)


def _look_script() -> str:
    lines = [
        f"[ ! -e {OWN_CNI_FILE} ] || echo file",
        f"ip route show proto {OWN_ROUTES} 2>/dev/null | sed 's/^/route /'",
        *(
            f"! {_IPTABLES} -t {table} -S {name} >/dev/null 2>&1 || echo 'chain {name}'"
            for table, _, name in OWN_CHAINS
        ),
    ]
    return "\n".join(lines)


def _removal_script(chains: Sequence[tuple[str, str, str]]) -> str:
    lines = [f"rm -f {OWN_CNI_FILE}", f"ip route flush proto {OWN_ROUTES} 2>/dev/null"]
    for table, parent, name in chains:
        jump = f"{parent} -m comment --comment {shlex.quote(OWN_COMMENT)} -j {name}"
        lines += [
            f"while {_IPTABLES} -t {table} -D {jump} 2>/dev/null; do :; done",
            f"{_IPTABLES} -t {table} -F {name} && {_IPTABLES} -t {table} -X {name}",
        ]
    return "\n".join([*lines, "true"])
