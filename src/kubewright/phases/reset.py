"""Taking a host out of its cluster: its kubelet, Pods and files, and nothing that was not the cluster's (P07)."""

from __future__ import annotations

import asyncio
import posixpath
from collections.abc import Sequence
from typing import ClassVar

from kubewright.clients.cri import CriClient, Sandbox, open_cri
from kubewright.errors import HostError
from kubewright.events import Activity
from kubewright.model import reset as model
from kubewright.model.kept import Kept
from kubewright.model.kubeconfig import KUBERNETES_DIR
from kubewright.phases.node import Node
from kubewright.phases.others import containers_of_others
from kubewright.phases.phase import Action, Change, Phase
from kubewright.phases.reset_cgroups import pod_cgroups, remove_cgroups

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
# Prints what is in $1, and in $2 the links to below $3.
_LOOK_FILES = r"""
for path in "$1"/*; do [ ! -e "$path" ] || echo "$path"; done
for path in "$2"/*; do
  [ ! -L "$path" ] || case $(readlink -- "$path") in "$3"/*) echo "$path";; esac
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
        lazy_unmount: bool = False, force_unmount: bool = False, files: Sequence[str] = (),
    ) -> None:  # fmt: skip
        """`etcd_data` is emptied, too, unless it is empty itself; `tmp_dir` says whether kubeadm's backups go, and
        `files` of ours are removed, too, and their directories if nothing else is in these."""
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
        self._own = tuple(files)
        self._files = (*model.CONFIG_FILES, *files)
        self._log_links: list[str] = []
        self._cgroups: list[str] = []
        self.kept: list[Kept] = []
        """What stays, found by `look`."""
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
        self.kept, self.warnings = [], []
        self._pods = await self._sandboxes()
        self.kept += await containers_of_others(host, self._socket)
        all_mounts, mounts = await self._all_mounts(), await self._mounts()
        for real in self._filled.values():
            self.kept += model.others_mounts(real, all_mounts, mounts)
        await self._look_at_files()
        self._cgroups = await pod_cgroups(host)
        files = await host.stat_files(self._files, digest=False)
        changes = [Change(Action.RUN, "stop kubelet.service", self.host_name)] if self._kubelet else []
        changes += [Change(Action.DELETE, f"Pod {pod}", self.host_name) for pod in self._pods]
        changes += [Change(Action.RUN, f"unmount {path}", self.host_name) for path in mounts]
        if self._cgroups:
            groups = f"control groups of Pods, such as {self._cgroups[0]}"
            changes.append(Change(Action.DELETE, groups, self.host_name))
        changes += [
            Change(
                Action.DELETE, f"what is in {path}" + (f" ({real})" if real != path else ""), self.host_name
            )
            for path, real in self._filled.items()
        ]
        if self._log_links:
            links = f"links to Pods' logs in {model.LOG_LINKS_DIR}"
            changes.append(Change(Action.DELETE, links, self.host_name))
        changes += [Change(Action.DELETE, path, self.host_name) for path in self._files if path in files]
        return changes

    async def _look_at_files(self) -> None:
        places = (KUBERNETES_DIR, model.LOG_LINKS_DIR, model.LOGS_DIR)
        said = await self._node.host.shell(_LOOK_FILES, *places, check=False)
        found = said.stdout.decode(errors="replace").splitlines()
        self._log_links = [path for path in found if path.startswith(f"{model.LOG_LINKS_DIR}/")]
        entries = [path for path in found if path.startswith(f"{KUBERNETES_DIR}/")]
        self.kept += model.others_in_kubernetes(entries, self._directories)

    async def _sandboxes(self) -> list[Sandbox]:
        """The kubelet's Pods; others', which somebody has made over CRI, are kept."""
        try:
            async with open_cri(self._node.host, self._socket) as cri:
                found = await cri.sandboxes()
                self.kept += [
                    Kept(f"Pod {pod}", "it has no label of the kubelet's, so that somebody else has made it")
                    for pod in found
                    if not pod.by_kubelet
                ]
                return [pod for pod in found if pod.by_kubelet]
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
        if self._cgroups:
            self.warnings += await remove_cgroups(host)
        activity.progress("remove files")
        if self._log_links:
            await host.run(["rm", "-f", "--", *self._log_links])
        await self._empty()
        await host.run(["rm", "-f", "--", *self._files])
        if self._own:
            folders = dict.fromkeys(posixpath.dirname(path) for path in self._own)
            await host.run(["rmdir", "--ignore-fail-on-non-empty", "--", *folders], check=False)

    async def _remove_pods(self, activity: Activity) -> None:
        if not self._pods:
            return
        try:
            async with open_cri(self._node.host, self._socket) as cri:
                # The kubelet may have started others since the look, and nothing is left out by asking again.
                pods = [pod for pod in await cri.sandboxes() if pod.by_kubelet]
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
        for item in work:
            done = await self._node.host.run(empty_command(item), check=False, timeout=300)
            self.warnings += [f"not removed: {line}" for line in done.err.splitlines()]


def empty_command(item: model.Emptying) -> list[str]:
    """The command that empties a directory; what cannot be removed is said on standard error."""
    keep = [word for kept in item.kept for word in ("!", "-path", _literal(kept))]
    find = ["find", item.directory, "-mindepth", "1", "-maxdepth", "1", *keep]
    return [*find, "-exec", "rm", "-rf", "--one-file-system", "--", "{}", "+"]


def _literal(path: str) -> str:
    """A path for find's -path, in which these four would be patterns."""
    return "".join(f"\\{letter}" if letter in "*?[\\" else letter for letter in path)
