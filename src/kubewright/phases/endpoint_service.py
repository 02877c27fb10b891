"""A program of an endpoint on a host: installed, configured, run as a unit of ours, and reloaded without a cut."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Literal

from kubewright.errors import ExitCode, HostError
from kubewright.events import Activity
from kubewright.hosts import FileWrite
from kubewright.model import loadbalancer as model
from kubewright.phases.files import differing, file_changes
from kubewright.phases.node import Node
from kubewright.phases.phase import Action, Change, Phase
from kubewright.phases.prepare import install
from kubewright.phases.waiting import unit_evidence, wait_until

UNITS = "/etc/systemd/system"
SETTLED = 15.0
"""Seconds in which a program must run with what has been written."""

# Prints which units do not run, or do not start with the host, then each of $@ up to the next "--" that is not
# there, and each after that that is newer than the stamp.
_LOOK = """
stamp=$1; shift
while [ "$1" != -- ]; do
  [ "$(systemctl is-active "$1")" = active ] || echo "stopped $1"
  [ "$(systemctl is-enabled "$1" 2>/dev/null)" = enabled ] || echo "disabled $1"
  shift
done; shift
while [ "$1" != -- ]; do [ -e "$1" ] || echo "missing $1"; shift; done; shift
if [ -e "$stamp" ]; then find "$@" -newer "$stamp" 2>/dev/null | sed 's/^/newer /'; fi
"""

# A package that comes new would start a service of its own, with what its maintainer chose: nginx on port 80.
_MASK = """
for unit; do
  systemctl cat "$unit" >/dev/null 2>&1 || { systemctl mask -q --runtime "$unit" && echo "$unit"; }
done
"""
_UNMASK = 'systemctl unmask -q --runtime "$@"; systemctl disable -q "$@" 2>/dev/null; true'


class EndpointService(Phase):
    """One program of the endpoint on one host, as a systemd unit of ours."""

    def __init__(self, node: Node, program: Literal["haproxy", "nginx", "keepalived"]) -> None:
        self._node = node
        self.host_name = node.name
        self._program = program
        self._unit = model.unit_of(program)
        self._wanted: list[FileWrite] = []

    @abstractmethod
    async def files(self) -> list[FileWrite]:
        """What must stand on the host, units among it."""

    @property
    def _others(self) -> list[str]:
        """Units of ours that this one takes the place of."""
        return []

    async def _old(self) -> list[str]:
        """Those of them that run, or start with the host."""
        if not self._others:
            return []
        script = """
        for unit; do
          if [ -e "$0/$unit" ] && { systemctl is-enabled -q "$unit" || systemctl is-active -q "$unit"; }; then
            echo "$unit"
          fi
        done"""
        seen = await self._node.host.run(["sh", "-c", script, UNITS, *self._others], check=False)
        return seen.text.split()

    async def before_reload(self) -> None:
        """What the running program must hand over to the next one."""

    async def check_free(self) -> None:
        """Raise `HostError` where another program has what this one needs."""

    @property
    def _units(self) -> list[str]:
        """The units to enable, the program's own first."""
        return [self._unit]

    async def look(self) -> list[Change]:
        """What is missing, which files differ, and whether the program must be started or reloaded."""
        host = self._node.host
        files = await self.files()
        self._wanted = await differing(host, files)
        programs = model.PROGRAMS[self._program]
        paths = [file.path for file in files if not file.path.startswith(UNITS)]
        stamp = model.stamp_path(self._program)
        seen = await host.shell(_LOOK, stamp, *self._units, "--", *programs, "--", *paths)
        rows = [row.split(" ", 1) for row in seen.text.splitlines()]
        missing = sorted({programs[path] for word, path in rows if word == "missing"})
        changes = [Change(Action.CREATE, f"package {package}", self.host_name) for package in missing]
        changes += await file_changes(host, self._wanted)
        old = await self._old()
        changes += [Change(Action.RUN, f"stop {unit}", self.host_name) for unit in old]
        if ["stopped", self._unit] in rows and not old:
            await self.check_free()
        idle = {unit for word, unit in rows if word in ("stopped", "disabled")}
        if self._unit not in idle and (changes or any(word == "newer" for word, _ in rows)):
            # A run that was killed before it reloaded has left files that are newer than the last reload.
            changes.append(Change(Action.RUN, f"reload {self._unit}", self.host_name))
        changes += [
            Change(Action.RUN, f"start {unit}", self.host_name) for unit in self._units if unit in idle
        ]
        return changes

    async def act(self, changes: Sequence[Change], activity: Activity) -> None:
        """Install, write, and start or reload. Connections that are open survive a reload."""
        host = self._node.host
        targets = [change.target for change in changes]
        packages = [target.removeprefix("package ") for target in targets if target.startswith("package ")]
        if packages:
            activity.progress(f"apt-get install {' '.join(packages)}")
            await self._install(packages)
        await host.write_files(self._wanted)
        if any(target.startswith("reload ") for target in targets):
            await self.before_reload()
        others = [unit for unit in self._units if unit != self._unit]
        if old := [target.removeprefix("stop ") for target in targets if target.startswith("stop ")]:
            await host.shell('systemctl disable -q --now "$@"', *old)
        result = await host.shell(
            'unit=$1; shift; systemctl daemon-reload && systemctl enable -q "$unit" "$@" && '
            'systemctl reset-failed -q "$unit" "$@"; systemctl reload-or-restart "$unit" && '
            '{ [ $# -eq 0 ] || systemctl restart "$@"; }',
            self._unit, *others, timeout=60, check=False,
        )  # fmt: skip
        if not result.ok:
            raise HostError(
                f"{self.host_name}: {self._program} does not start",
                host=self.host_name, evidence=await unit_evidence(host, self._unit),
                hint=f"journalctl -u {self._unit} tells more", exit_code=ExitCode.HOST_NOT_FIT,
            )  # fmt: skip

    async def _install(self, packages: Sequence[str]) -> None:
        host = self._node.host
        units = [f"{package}.service" for package in packages if package in model.PROGRAMS]
        masked = (await host.shell(_MASK, *units)).text.split()
        try:
            await install(self._node, packages)
        finally:
            if masked:
                await host.shell(_UNMASK, *masked, check=False)

    async def verify(self, activity: Activity) -> None:
        """Wait until it runs with what has been written. Raises `WaitTimeoutError` with what was last seen."""

        async def missing() -> str | None:
            states = await self._node.host.run(["systemctl", "is-active", *self._units], check=False)
            for unit, state in zip(self._units, states.text.split(), strict=False):
                if state != "active":
                    return f"{unit} is {state}"
            return await self.not_yet()

        async def diagnose() -> list[str]:
            return [line for unit in self._units for line in await unit_evidence(self._node.host, unit)]

        await wait_until(
            missing, f"{self.host_name}: {self._program} to run as configured", deadline=SETTLED,
            diagnose=diagnose, progress=activity.progress, hint=f"journalctl -u {self._unit} tells more",
        )  # fmt: skip

    @abstractmethod
    async def not_yet(self) -> str | None:
        """What the running program does not know yet; None where it knows all."""
