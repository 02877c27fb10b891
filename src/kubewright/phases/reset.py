"""Taking a host out of its cluster: its kubelet, Pods and files, and nothing that was not the cluster's (P07)."""

from __future__ import annotations

import asyncio
import shlex
from collections.abc import Sequence
from typing import ClassVar

from kubewright.clients.cri import CriClient, Sandbox, open_cri
from kubewright.errors import HostError
from kubewright.events import Activity
from kubewright.model import reset as model
from kubewright.phases.node import Node
from kubewright.phases.phase import Action, Change, Phase

_AT_ONCE = 4

# Prints the kubelet's state, then each of $@ as "path resolved filled?", one a line.
_LOOK = r"""
systemctl is-active kubelet || true
for path; do
  [ -d "$path" ] || continue
  real=$(readlink -f -- "$path")
  if [ -n "$(ls -A -- "$real" | head -n 1)" ]; then echo "$path"; echo "$real"; fi
done
"""
_UNMOUNT = r"""
for path; do umount -- "$path" 2>/dev/null || umount -- "$path" 2>&1 || true; done
"""


class CleanUp(Phase):
    """Stop the kubelet, remove its Pods, unmount its volumes, and empty what kubeadm's files were in."""

    name: ClassVar[str] = "cleanup-node"
    title: ClassVar[str] = "remove the kubelet's pods, mounts and files"

    def __init__(
        self, node: Node, *, certificates_dir: str, cri_socket: str, etcd_data: str = "", tmp_dir: bool = False,
        lazy_unmount: bool = False, force_unmount: bool = False,
    ) -> None:  # fmt: skip
        """`etcd_data` is emptied, too, unless it is empty itself; `tmp_dir` says whether kubeadm's backups go."""
        self._node = node
        self.host_name = node.name
        self._socket = cri_socket
        # What could be needed to run it all again goes last: the manifests say where etcd's data is.
        self._directories = [
            *([etcd_data] if etcd_data else []),
            model.KUBELET_DIR,
            *model.STATE_DIRECTORIES,
            certificates_dir,
            *([model.TMP_DIR] if tmp_dir else []),
            model.MANIFESTS_DIR,
        ]
        self._unmount_options = [*(["-l"] if lazy_unmount else []), *(["-f"] if force_unmount else [])]
        self._pods: list[Sandbox] = []
        self._filled: dict[str, str] = {}
        self._kubelet = False
        self.warnings: list[str] = []
        """What could not be done; the rest was."""

    async def look(self) -> list[Change]:
        """What is there of all that kubeadm's reset would remove."""
        host = self._node.host
        state, *rows = (await host.shell(_LOOK, *self._directories)).stdout.decode().splitlines() or [
            "unknown"
        ]
        self._kubelet = state in ("active", "activating", "reloading")
        self._filled = dict(zip(rows[::2], rows[1::2], strict=True))
        for path, real in self._filled.items():
            model.check_directory(real, path)
        self._pods = await self._sandboxes()
        files = await host.stat_files(model.CONFIG_FILES, digest=False)
        changes = [Change(Action.RUN, "stop kubelet.service", self.host_name)] if self._kubelet else []
        changes += [Change(Action.DELETE, f"Pod {pod}", self.host_name) for pod in self._pods]
        changes += [Change(Action.RUN, f"unmount {path}", self.host_name) for path in await self._mounts()]
        changes += [
            Change(
                Action.DELETE, f"what is in {path}" + (f" ({real})" if real != path else ""), self.host_name
            )
            for path, real in self._filled.items()
        ]
        changes += [
            Change(Action.DELETE, path, self.host_name) for path in model.CONFIG_FILES if path in files
        ]
        return changes

    async def _sandboxes(self) -> list[Sandbox]:
        try:
            async with open_cri(self._node.host, self._socket) as cri:
                return await cri.sandboxes()
        except HostError as error:
            self.warnings.append(f"no Pods are removed: {error.message}")
            return []

    async def _mounts(self) -> list[str]:
        """What the kubelet has mounted and must be unmounted, in order."""
        kubelet_dir = self._filled.get(model.KUBELET_DIR)
        return model.kubelet_mounts(await self._all_mounts(), kubelet_dir) if kubelet_dir else []

    async def _all_mounts(self) -> list[str]:
        return model.mount_points(
            (await self._node.host.run(["cat", "/proc/self/mountinfo"])).stdout.decode()
        )

    async def act(self, changes: Sequence[Change], activity: Activity) -> None:
        """In this order: nothing may start Pods again, or write into what is removed."""
        host = self._node.host
        self.warnings = []
        if self._kubelet:
            activity.progress("stop the kubelet")
            stopped = await host.run(["systemctl", "stop", "kubelet"], check=False, timeout=90)
            if not stopped.ok:
                self.warnings.append(f"the kubelet does not stop: {stopped.err or stopped.text}")
        await self._remove_pods(activity)
        if mounts := await self._mounts():
            activity.progress(f"unmount {len(mounts)} volumes")
            command = _UNMOUNT.replace("umount", " ".join(["umount", *self._unmount_options]))
            said = await host.shell(command, *mounts, check=False, timeout=60)
            self.warnings += [
                f"a mount stays, and what is below it: {line}" for line in said.text.splitlines()
            ]
        activity.progress("remove files")
        await self._empty()
        files = " ".join(shlex.quote(path) for path in model.CONFIG_FILES)
        await host.shell(f"rm -f -- {files}")

    async def _remove_pods(self, activity: Activity) -> None:
        if not self._pods:
            return
        try:
            async with open_cri(self._node.host, self._socket) as cri:
                # The kubelet may have started others since the look, and nothing is left out by asking again.
                pods = await cri.sandboxes()
                room = asyncio.Semaphore(_AT_ONCE)
                async with asyncio.TaskGroup() as group:
                    for pod in pods:
                        group.create_task(self._remove_pod(cri, pod, room, activity))
        except HostError as error:
            self.warnings.append(f"Pods are left: {error.message}")

    async def _remove_pod(
        self, cri: CriClient, pod: Sandbox, room: asyncio.Semaphore, activity: Activity
    ) -> None:
        async with room:
            activity.progress(f"remove Pod {pod}")
            try:
                await cri.remove_sandbox(pod.id)
            except HostError as error:
                self.warnings.append(f"Pod {pod} is left: {error.message}")

    async def _empty(self) -> None:
        """Empty the directories. Mount points that are still there are not entered, whoever made them."""
        mounts = await self._all_mounts()
        work = []
        for path, real in self._filled.items():
            work += model.emptying(real, mounts)
            below = [mount for mount in mounts if mount.startswith(f"{real}/")]
            if below:
                self.warnings.append(f"{path} keeps what is mounted there: {', '.join(below)}")
        done = await self._node.host.shell(empty_script(work), check=False, timeout=300)
        self.warnings += [f"not removed: {line}" for line in done.err.splitlines()]


def empty_script(work: Sequence[model.Emptying]) -> str:
    """The shell script that empties directories; what cannot be removed is said on standard error."""
    lines = []
    for item in work:
        keep = "".join(f"! -path {shlex.quote(_literal(kept))} " for kept in item.kept)
        lines.append(
            f"find {shlex.quote(item.directory)} -mindepth 1 -maxdepth 1 {keep}"
            "-exec rm -rf --one-file-system -- {} +"
        )
    return "\n".join([*lines, "true"])


def _literal(path: str) -> str:
    """A path for find's -path, in which these four would be patterns."""
    return "".join(f"\\{letter}" if letter in "*?[\\" else letter for letter in path)
