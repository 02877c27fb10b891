"""The kubelet of a host: its unit, configuration and flags, and that it runs with them."""

from __future__ import annotations

import posixpath
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from typing import ClassVar

from kubewright.errors import ExitCode, HostError
from kubewright.events import Activity
from kubewright.hosts import FileWrite
from kubewright.model.kubelet import CONFIG_PATH
from kubewright.model.manifests import MANIFESTS_DIR
from kubewright.phases.files import differing, file_changes, newer_than_unit, private_folders
from kubewright.phases.install import PROGRAM_DIRECTORY
from kubewright.phases.node import Node
from kubewright.phases.phase import Action, Change, Phase
from kubewright.phases.waiting import unit_evidence

_UNIT = "kubelet.service"
Turn = Callable[[], AbstractAsyncContextManager[None]]
"""What is entered around the restart of a kubelet that runs."""


class Kubelet(Phase):
    """Files of the kubelet, and the unit running with what they say now.

    `program_changed` says that a restart is due in any case: the program itself was replaced, for example. Without
    `enable` it is left to whoever installed the unit whether it starts with the host. A kubelet that runs takes
    its `turn` for a restart; one that does not takes none.
    """

    name: ClassVar[str] = "kubelet-start"
    title: ClassVar[str] = "configure and start the kubelet"

    def __init__(
        self,
        node: Node,
        files: Sequence[FileWrite],
        *,
        program_changed: bool = False,
        enable: bool = True,
        turn: Turn = nullcontext,
    ) -> None:
        self._node = node
        self.host_name = node.name
        self._files = files
        self._program_changed = program_changed
        self._enable = enable
        self._turn = turn
        self._runs = False
        self._wanted: list[FileWrite] = []

    async def look(self) -> list[Change]:
        """Which files differ, and whether the kubelet must be started or restarted."""
        host = self._node.host
        self._wanted = await differing(host, self._files)
        changes = await file_changes(host, self._wanted)
        state = await host.shell(
            'echo "$(systemctl is-active "$1") $(systemctl is-enabled "$1" 2>/dev/null)"', _UNIT
        )
        active, _, enabled = state.text.partition(" ")
        self._runs = active == "active"
        if active != "active" or (self._enable and enabled != "enabled"):
            changes.append(Change(Action.RUN, f"start {_UNIT}", self.host_name))
        elif changes or self._program_changed or await self._older_than_files():
            changes.append(Change(Action.RUN, f"restart {_UNIT}", self.host_name))
        return changes

    async def _older_than_files(self) -> bool:
        """Whether a run was killed before it restarted the kubelet."""
        paths = [f"{PROGRAM_DIRECTORY}/kubelet", *(file.path for file in self._files)]
        return bool(await newer_than_unit(self._node.host, _UNIT, paths))

    async def act(self, changes: Sequence[Change], activity: Activity) -> None:
        """Write the files and (re)start the kubelet; the pods on the node go on running."""
        if not self._runs:
            await self._start()
            return
        activity.progress("wait for its turn")
        async with self._turn():
            activity.progress("restart it")
            await self._start()

    async def _start(self) -> None:
        host = self._node.host
        # A kubelet that does not find the folder of its static Pods when it starts looks again after 1 s, then
        # 2 s, up to 20 s; one that finds it is told of each new file by the kernel.
        await private_folders(host, posixpath.dirname(CONFIG_PATH), MANIFESTS_DIR)
        await host.write_files(self._wanted)
        # Enabling a unit reads its files anew, too.
        reread = 'systemctl enable -q "$1"' if self._enable else "systemctl daemon-reload"
        result = await host.shell(
            f'{reread} && systemctl restart "$1"', _UNIT,
            timeout=60, check=False,
        )  # fmt: skip
        if not result.ok:
            raise HostError(
                f"{self.host_name}: the kubelet does not start",
                host=self.host_name, evidence=[result.err, *await unit_evidence(host, "kubelet")],
                hint="journalctl -u kubelet tells more", exit_code=ExitCode.HOST_NOT_FIT,
            )  # fmt: skip
