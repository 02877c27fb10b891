"""A backup of one host: its files, on one control plane etcd's snapshot, and the list of all that have it."""

from __future__ import annotations

import posixpath
import secrets
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

from kubewright.errors import ExitCode, HostError
from kubewright.events import Activity
from kubewright.hosts import FileWrite, Host
from kubewright.model import backup as model
from kubewright.model.backup import BackedUp
from kubewright.model.manifests import ETCD, manifest_path
from kubewright.model.objects import Object, read_mapping
from kubewright.model.reset import container_flags
from kubewright.phases.containers import running_container
from kubewright.phases.node import Node
from kubewright.phases.phase import Action, Change, Phase

_PIECE = 8 * 2**20
_TIMEOUT = 600.0

# Bytes of the kept paths, of etcd's database ($2, empty for none), and free where the backup and etcd's data are.
_ROOM = r"""
root=$1; db=$2; data=$3; place=$4; shift 4
for path; do
  [ ! -e "$path" ] || du -sk -- "$path"
done | { sum=0; while read -r size _; do sum=$((sum + size)); done; echo $((sum * 1024)); }
if [ -n "$db" ] && [ -f "$db" ]; then stat -c %s -- "$db"; else echo 0; fi
while [ ! -d "$place" ]; do
  [ "$place" != "$root" ] || break
  place=${place%/*}
  [ -n "$place" ] || place=/
done
{ df -Pk -- "$place"; [ -z "$data" ] || [ ! -d "$data" ] || df -Pk -- "$data"; } |
  awk '$4 ~ /^[0-9]+$/ { if (least == "" || $4 + 0 < least) least = $4 + 0 } END { printf "%.0f\n", least * 1024 }'
"""

# A kept folder that is a link would be kept as a link.
_LINKS = 'for path; do if [ -L "$path" ] && [ -d "$path" ]; then echo "$path"; fi; done'

_FOLDER = r"""
umask 022
[ -d "${1%/*/*}" ] || mkdir -p -- "${1%/*/*}"
umask 077
mkdir -p -- "$1" && chmod 0700 "${1%/*}" "$1"
"""

# The archive is renamed when it is whole, and after the list that belongs to it. tar fails where a file changes
# while it is read: the kubelet may renew a certificate at that moment.
_PACK = r"""
umask 077
root=$1; folder=$2; shift 2
LC_ALL=C; export LC_ALL
rm -f -- "$folder"/*.part
: >"$folder/absent.part"
n=$#
while [ "$n" -gt 0 ]; do
  path=$1; shift; n=$((n - 1))
  if [ -e "$path" ] || [ -L "$path" ]; then
    set -- "$@" "${path#"$root"}"
  else
    printf '/%s\n' "${path#"$root"}" >>"$folder/absent.part"
  fi
done
[ $# -gt 0 ] || { echo 'none of the files of a node is there' >&2; exit 1; }
tries=0
until tar -C "$root" --numeric-owner -cf "$folder/files.tar.part" -- "$@"; do
  tries=$((tries + 1))
  [ "$tries" -lt 3 ] || exit 1
done
tar -tf "$folder/files.tar.part" >/dev/null || exit 1
sync "$folder/absent.part" "$folder/files.tar.part" 2>/dev/null
mv -f -- "$folder/absent.part" "$folder/absent" && mv -f -- "$folder/files.tar.part" "$folder/files.tar"
"""

# A snapshot ends with the SHA-256 of what is before it (etcd's API reference, SnapshotResponse), which a restore
# wants.
_MOVE = r"""
umask 077
taken=$1; folder=$2
size=$(stat -c %s -- "$taken") || exit 1
[ "$size" -gt 32 ] || { echo "it has only $size bytes" >&2; exit 1; }
told=$(tail -c 32 -- "$taken" | od -An -v -tx1 | tr -d ' \n')
found=$(head -c "$((size - 32))" -- "$taken" | sha256sum)
[ "$told" = "${found%% *}" ] || { echo 'its checksum is wrong' >&2; exit 1; }
chmod 0600 "$taken" && chown 0:0 "$taken" && mv -f -- "$taken" "$folder/etcd.db.part" || exit 1
sync "$folder/etcd.db.part" 2>/dev/null
mv -f -- "$folder/etcd.db.part" "$folder/etcd.db"
"""

_CLEAR = 'rm -f -- "$1"/.kubewright-*.db "$1"/.kubewright-*.db.part'


async def room(node: Node, data_dir: str = "") -> tuple[int, int]:
    """The bytes that a backup of a host needs, and those that are free for it. With `data_dir`, etcd's, there must
    be room for a snapshot and for what a restore makes of it, on the fuller one of the two file systems."""
    db = f"{data_dir}/member/snap/db" if data_dir else ""
    done = await node.host.shell(_ROOM, "/", db, data_dir, model.BACKUPS, *model.KEPT)
    files, size, free = (int(row) for row in done.text.split())
    return model.room_needed(files, size), free


async def backed_up(host: Host, backup_id: str, paths: Sequence[str]) -> dict[str, bytes]:
    """The content of those files of a host's backup that are in it; nothing where the host has none."""
    archive = f"{model.directory(backup_id)}/{model.FILES}"
    found = {}
    for path in paths:
        done = await host.shell(
            '[ -f "$1" ] || exit 1; tar -xOf "$1" -- "$2" 2>/dev/null', archive, path.lstrip("/"), check=False
        )
        if done.ok:
            found[path] = done.stdout
    return found


class Backup(Phase):
    """One host's part of a backup. What is there under this name already is not made again."""

    name: ClassVar[str] = "backup"
    title: ClassVar[str] = "keep a copy of the node's files"

    def __init__(self, node: Node, backup_id: str, *, data_dir: str = "", snapshot: bool = False) -> None:
        """`data_dir` is etcd's, empty on a host without it. With `snapshot`, one of etcd is taken here.

        Raises `ConfigError` for an id that is none.
        """
        self._node = node
        self.host_name = node.name
        self._folder = model.directory(backup_id)
        self._data_dir = data_dir
        self._snapshot = snapshot
        self._token = backup_id
        if snapshot:
            self.title = "keep a copy of the node's files, and etcd's snapshot"  # type: ignore[misc]

    async def look(self) -> list[Change]:
        """What of it is missing. Raises `HostError` where there is no room for it, or where a kept folder is a
        link to another place."""
        wanted = [model.FILES, *([model.SNAPSHOT] if self._snapshot else [])]
        paths = [f"{self._folder}/{name}" for name in wanted]
        found = await self._node.host.stat_files(paths, digest=False)
        missing = [path for path in paths if path not in found]
        if missing:
            await self._refuse_links()
            await self._refuse_full()
        return [Change(Action.CREATE, path, self.host_name) for path in missing]

    async def _refuse_links(self) -> None:
        links = (await self._node.host.shell(_LINKS, *model.KEPT)).text.splitlines()
        if links:
            raise HostError(
                f"{self.host_name}: {', '.join(links)} is a link, and what it leads to would not be kept",
                host=self.host_name, exit_code=ExitCode.HOST_NOT_FIT,
                hint="make it a folder with these files, or mount them there",
            )  # fmt: skip

    async def _refuse_full(self) -> None:
        needed, free = await room(self._node, self._data_dir)
        if free < needed:
            raise self._full(f"{needed} bytes are needed, {free} are free")

    def _full(self, why: str, evidence: Sequence[str] = ()) -> HostError:
        places = " and ".join(filter(None, (model.BACKUPS, self._data_dir)))
        return HostError(
            f"{self.host_name}: there is no room for a backup in {self._folder}: {why}",
            host=self.host_name, evidence=evidence, exit_code=ExitCode.HOST_DISK_FULL,
            hint=f"free some space in {places}, then run the same command again; backups in {model.BACKUPS} that "
            "nobody needs any more can be removed",
        )  # fmt: skip

    async def act(self, changes: Sequence[Change], activity: Activity) -> None:
        """Make what is missing, each part whole or not at all."""
        await self._node.host.shell(_FOLDER, self._folder)
        targets = {posixpath.basename(change.target) for change in changes}
        if model.FILES in targets:
            activity.progress("copy the node's files")
            await self._do(_PACK, "/", self._folder, *model.KEPT)
        if model.SNAPSHOT in targets:
            await self._take(activity)

    async def _do(self, script: str, *args: str) -> str:
        try:
            return (await self._node.host.shell(script, *args, timeout=_TIMEOUT)).text
        except HostError as error:
            if error.exit_code is ExitCode.HOST_DISK_FULL:
                raise self._full("it became full", error.evidence) from error
            raise

    async def _take(self, activity: Activity) -> None:
        host = self._node.host
        pod = read_mapping(await host.read_file(manifest_path(ETCD)) or b"") or {}
        container = await running_container(host, ETCD)
        if not self._data_dir or not container:
            raise HostError(
                f"{self.host_name}: no etcd runs here of which a snapshot could be taken",
                host=self.host_name, exit_code=ExitCode.HOST_NOT_FIT,
                hint="`kubewright status` tells how the control planes are",
            )  # fmt: skip
        # In the container etcd's data may be at another path.
        inside = container_flags(pod).get("data-dir") or self._data_dir
        name = f".kubewright-{self._token}.db"
        await host.shell(_CLEAR, self._data_dir)
        try:
            activity.progress("take etcd's snapshot")
            await self._etcd(container, "etcdctl", model.snapshot_arguments(pod, f"{inside}/{name}"))
            activity.progress("verify etcd's snapshot")
            await self._verify_taken(container, f"{inside}/{name}")
            await self._do(_MOVE, f"{self._data_dir}/{name}", self._folder)
        finally:
            await host.shell(_CLEAR, self._data_dir, check=False)

    async def _etcd(self, container: str, program: str, arguments: Sequence[str]) -> str:
        execution = f"kubewright-{secrets.token_hex(4)}"
        script = 'id=$1; shift; exec ctr -n k8s.io task exec --exec-id "$id" "$@"'
        return await self._do(script, execution, container, program, *arguments)

    async def _verify_taken(self, container: str, path: str) -> None:
        """etcd 3.6 has this in another program, which those before 3.5 do not have."""
        arguments = model.status_arguments(path)
        try:
            said = await self._etcd(container, "etcdutl", arguments)
        except HostError:
            said = await self._etcd(container, "etcdctl", arguments)
        if not model.good_snapshot(said):
            raise HostError(
                f"{self.host_name}: etcd's snapshot is not good, and was not kept", host=self.host_name,
                evidence=said.splitlines()[-3:], exit_code=ExitCode.FAILURE,
                hint="is etcd healthy? `kubewright status` tells; then run the same command again",
            )  # fmt: skip


class BackupWhole(Phase):
    """The list of all hosts that have a backup, on each control plane: with it, and not before, it is one."""

    name: ClassVar[str] = "backup-whole"
    title: ClassVar[str] = "note which hosts have a backup"

    def __init__(self, node: Node, backup_id: str, hosts: Sequence[BackedUp]) -> None:
        self._node = node
        self.host_name = node.name
        self._file = FileWrite(
            f"{model.directory(backup_id)}/{model.WHOLE}", model.whole_file(hosts), mode=0o600
        )

    async def look(self) -> list[Change]:
        """Whether it is missing; one that is there stays: hosts that came later are not in the backup."""
        found = await self._node.host.stat_files([self._file.path], digest=False)
        return [] if found else [Change(Action.CREATE, self._file.path, self.host_name)]

    async def act(self, changes: Sequence[Change], activity: Activity) -> None:
        """Write it."""
        await self._node.host.write_files([self._file])


async def etcd_pod(host: Host, backup_id: str) -> Object | None:
    """The static Pod of etcd that a host's backup has; None where it has none."""
    path = manifest_path(ETCD)
    return read_mapping((await backed_up(host, backup_id, [path])).get(path, b""))


async def copy_snapshot(source: Node, target: Node, backup_id: str) -> None:
    """Bring etcd's snapshot to another control plane, through us: in pieces, and by a file that only we can read.

    Raises `HostError` where it does not arrive whole.
    """
    path = f"{model.directory(backup_id)}/{model.SNAPSHOT}"
    stat = (await source.host.stat_files([path])).get(path)
    if stat is None:
        raise HostError(
            f"{source.name}: there is no {path}", host=source.name, exit_code=ExitCode.FAILURE,
            hint=f"which host has it? ls {model.BACKUPS}",
        )  # fmt: skip
    with tempfile.TemporaryDirectory(prefix="kubewright-") as folder:  # 0700
        local = Path(folder) / model.SNAPSHOT
        local.touch(mode=0o600)
        with local.open("wb") as file:
            for number in range(-(-stat.size // _PIECE)):
                piece = await source.host.shell(
                    'dd if="$1" bs="$2" skip="$3" count=1 iflag=fullblock 2>/dev/null',
                    path, str(_PIECE), str(number), timeout=_TIMEOUT,
                )  # fmt: skip
                file.write(piece.stdout)
        await target.host.shell(_FOLDER, posixpath.dirname(path))
        await target.host.upload(local, path, mode=0o600, sha256=stat.sha256)
