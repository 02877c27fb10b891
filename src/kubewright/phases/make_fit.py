"""Making a host fit, where the user has asked for it: swap off, SELinux permissive, ports open in its firewall."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from typing import ClassVar

from kubewright.errors import ExitCode, HostError
from kubewright.events import Activity
from kubewright.hosts import FileWrite
from kubewright.model.fleet_ports import Opening
from kubewright.model.make_fit import (
    FSTAB,
    SELINUX_CONFIG,
    firewalld_rules,
    permissive,
    swap_units,
    ufw_rules,
    without_swap,
)
from kubewright.phases.files import diff_lines
from kubewright.phases.node import Node
from kubewright.phases.phase import Action, Change, Phase

_SWAPS = """
if [ "$(grep -c . /proc/swaps)" -lt 2 ]; then echo off; else echo on; fi
echo
systemctl show --property=Id,SourcePath,FragmentPath,LoadState '*.swap' 2>/dev/null
true
"""
# A unit file of the user's own below /etc cannot be masked.
_SWAPOFF = """
swapoff -a || exit
for unit; do systemctl mask -q "$unit" 2>/dev/null || systemctl disable -q "$unit" || exit; done
systemctl daemon-reload
"""
# Its zone is that of the link with the node's address. Nothing is reloaded: that would drop others' rules.
_FIREWALLD = """
address=$1; shift
link=$(ip -o -4 addr show | while read -r _ name _ own _; do [ "${own%/*}" != "$address" ] || echo "$name"; done)
zone=$(firewall-cmd --get-zone-of-interface="$link" 2>/dev/null) || zone=$(firewall-cmd --get-default-zone) || exit
for rule; do
  firewall-cmd -q --zone="$zone" --add-rich-rule="$rule" || exit
  firewall-cmd -q --permanent --zone="$zone" --add-rich-rule="$rule" || exit
done
"""


class _HostPhase(Phase):
    """A phase on one host, which may write one file."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self.host_name = node.name
        self._file: FileWrite | None = None

    async def _edited(self, path: str, old: bytes | None, new: str) -> list[Change]:
        """A file with another content, its mode and owner kept."""
        self._file = None
        if old is None or old.decode(errors="surrogateescape") == new:
            return []
        stat = (await self._node.host.stat_files([path], digest=False))[path]
        content = new.encode(errors="surrogateescape")
        self._file = FileWrite(path, content, stat.mode, stat.owner, stat.group)
        return [Change(Action.UPDATE, path, self.host_name, diff_lines(path, old, content))]

    async def _do(self, script: str, *arguments: str, what: str) -> None:
        done = await self._node.host.shell(script, *arguments, check=False)
        if not done.ok:
            raise HostError(
                f"{self.host_name}: {what} failed", host=self.host_name, evidence=done.err.splitlines()[-5:],
                hint="do it on the host by hand, and look again", exit_code=ExitCode.HOST_NOT_FIT,
            )  # fmt: skip


class SwapOff(_HostPhase):
    """Swap off, now and after a restart (P16)."""

    name: ClassVar[str] = "swap"
    title: ClassVar[str] = "turn swap off"

    async def look(self) -> list[Change]:
        """Whether it is on, and what would turn it on again."""
        host = self._node.host
        on, _, units = (await host.shell(_SWAPS)).stdout.decode(errors="replace").partition("\n\n")
        fstab = await host.read_file(FSTAB)
        text = (fstab or b"").decode(errors="surrogateescape")
        changes = await self._edited(FSTAB, fstab, without_swap(text))
        self._units = swap_units(units)
        changes += [Change(Action.RUN, f"systemctl mask {unit}", self.host_name) for unit in self._units]
        return [
            *changes,
            *([Change(Action.RUN, "swapoff -a", self.host_name)] if on == "on" or changes else []),
        ]

    async def act(self, changes: Sequence[Change], activity: Activity) -> None:
        """fstab first: what is off then stays off, also where the rest is not reached."""
        if self._file is not None:
            await self._node.host.write_files([self._file])
        await self._do(_SWAPOFF, *self._units, what="turning swap off")


class SelinuxPermissive(_HostPhase):
    """SELinux permissive, now and after a restart (P50)."""

    name: ClassVar[str] = "selinux"
    title: ClassVar[str] = "set SELinux permissive"

    async def look(self) -> list[Change]:
        """Whether it enforces, and will."""
        host = self._node.host
        found = await host.read_files(["/sys/fs/selinux/enforce", SELINUX_CONFIG])
        config = found.get(SELINUX_CONFIG)
        changes = await self._edited(
            SELINUX_CONFIG, config, permissive((config or b"").decode(errors="surrogateescape"))
        )
        if found.get("/sys/fs/selinux/enforce", b"").strip() == b"1":
            changes.append(Change(Action.RUN, "setenforce 0", self.host_name))
        return changes

    async def act(self, changes: Sequence[Change], activity: Activity) -> None:
        """Write the configuration, and set the mode."""
        if self._file is not None:
            await self._node.host.write_files([self._file])
        if any(change.action is Action.RUN for change in changes):
            await self._do("setenforce 0", what="setenforce 0")


class FirewallOpen(_HostPhase):
    """The ports that other hosts of the cluster need, open to them alone in ufw or firewalld (P44)."""

    name: ClassVar[str] = "firewall"
    title: ClassVar[str] = "open the cluster's ports to its hosts"

    def __init__(self, node: Node, firewall: str, openings: Sequence[Opening]) -> None:
        """`firewall` is `ufw` or `firewalld`, which is active there."""
        super().__init__(node)
        self._firewall = firewall
        self._openings = openings

    async def look(self) -> list[Change]:
        """The rules. Both firewalls take one that is there already without a word."""
        if self._firewall == "ufw":
            texts = [shlex.join(rule) for rule in ufw_rules(self._openings)]
        else:
            texts = [f"firewall-cmd --add-rich-rule='{rule}'" for rule in firewalld_rules(self._openings)]
        return [Change(Action.RUN, text, self.host_name) for text in texts]

    async def act(self, changes: Sequence[Change], activity: Activity) -> None:
        """Add them, now and for good."""
        if self._firewall == "ufw":
            script = "\n".join(f"{change.target} >/dev/null || exit" for change in changes)
            await self._do(script, what="opening ports in ufw")
        else:
            rules = firewalld_rules(self._openings)
            await self._do(_FIREWALLD, self._node.ip, *rules, what="opening ports in firewalld")
