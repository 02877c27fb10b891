"""A host gets back what its backup has: its files, and on control planes etcd's data out of the snapshot."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from kubewright.errors import ExitCode, HostError
from kubewright.events import Activity
from kubewright.hosts import FileWrite
from kubewright.model import backup as model
from kubewright.model.arguments import EtcdMember
from kubewright.model.conversion import RECORD
from kubewright.model.manifests import ETCD
from kubewright.model.reset import container_flags
from kubewright.phases.backup import etcd_pod
from kubewright.phases.containers import running_container
from kubewright.phases.node import Node
from kubewright.phases.phase import Action, Change, Phase

TOKEN = "restore-token"  # noqa: S105 - a file's name
"""In the backup's folder as long as a restore is under way: its name, which is the new etcd cluster's, too."""
RESTORED = "etcd-restored"
"""In the backup's folder when etcd's data is in place: the name of the restore that made it."""
_TIMEOUT = 600.0

# What differs, by name: what the archive has otherwise, and what it does not have and must go. What a newer
# release keeps and this backup does not know is left alone. $3 says whether static Pods' manifests are looked at.
_COMPARE = r"""
root=$1; folder=$2; manifests=$3; shift 3
LC_ALL=C; export LC_ALL
cd "$root" || exit 1
names=$(tar --quoting-style=literal -tf "$folder/files.tar") || exit 1
compared() {
  tar --numeric-owner -df "$folder/files.tar" 2>&1 |
    sed -n 's/^tar: \(.*\): Warning: Cannot .*/\1/p; t; s/^tar: .*//; t; s/: [^:]*$//p' | sed 's:/$::' | sort -u
}
extra() {
  {
    printf '%s\n//\n' "$names"
    for path; do
      path=${path#"$root"}
      [ -e "$path" ] || [ -L "$path" ] || continue
      if grep -qxF -- "/$path" "$folder/absent" || printf '%s\n' "$names" | grep -qxF -e "$path" -e "$path/"; then
        find "$path" -printf '%y/%p\n'
      fi
    done
  } | awk '
    $0 == "//" { host = 1; next }
    !host { folder = sub("/$", ""); have[$0] = folder ? "d" : "f"; next }
    { type = substr($0, 1, 1); name = substr($0, 3) }
    !(name in have) || (type == "d" && have[name] != "d") { print name }
  '
}
asked() { if [ "$manifests" = yes ]; then cat; else grep -v '^etc/kubernetes/manifests/' || true; fi; }
"""
_LOOK = (
    _COMPARE
    + r"""
compared | asked | sed 's/^/U /'
extra "$@" | asked | sed 's/^/D /'
"""
)
_KEEP = r"""
root=$1; folder=$2; shift 2
umask 077
for path; do
  shift
  [ -e "$path" ] || [ -L "$path" ] || continue
  set -- "$@" "${path#"$root"}"
done
[ $# -gt 0 ] || exit 0
tar -C "$root" --numeric-owner -cf "$folder/before-restore.tar.part" -- "$@" &&
  mv -f -- "$folder/before-restore.tar.part" "$folder/before-restore.tar"
"""
# Manifests come last: they start the Pods.
_UNPACK = (
    _COMPARE
    + r"""
umask 077
extra "$@" | asked | while IFS= read -r name; do rm -rf -- "$name" || exit 1; done || exit 1
tar --numeric-owner --anchored --exclude='etc/kubernetes/manifests/?*' -xpf "$folder/files.tar" || exit 1
if [ "$manifests" = yes ] && printf '%s\n' "$names" | grep -q '^etc/kubernetes/manifests/.'; then
  tar --numeric-owner --anchored --wildcards -xpf "$folder/files.tar" 'etc/kubernetes/manifests/?*' || exit 1
fi
sync
"""
)

# A container of an earlier run that was killed would be in the way by its name.
_RUN = r"""
image=$1; id=$2; folder=$3; data=$4; shift 4
gone() {
  ctr -n k8s.io tasks rm -f "$id"; ctr -n k8s.io containers rm "$id"; ctr -n k8s.io snapshots rm "$id"
} >/dev/null 2>&1
gone
trap gone EXIT
trap 'exit 143' HUP INT TERM PIPE
ctr -n k8s.io run --rm --mount "type=bind,src=$folder,dst=$folder,options=rbind:ro" \
  --mount "type=bind,src=$data,dst=$data,options=rbind:rw" "$image" "$id" "$@"
"""
_IMAGE = r"""
have=$(ctr -n k8s.io images ls -q) || exit 1
for name; do
  if printf '%s\n' "$have" | grep -qxF -- "$name"; then echo "$name"; exit; fi
done
"""
_CLEAR = 'umask 077; mkdir -p -- "$1" && rm -rf -- "$2"'
# Made data gets its last name but one only when it is whole, and that stays until the marker is there: whichever
# of these steps was the last one, the next run goes on after it.
_PLACE = r"""
data=$1; new=$2; whole=$3; aside=$4; marker=$5; token=$6
umask 077
if [ ! -d "$whole" ]; then
  [ -f "$new/member/snap/db" ] && [ -d "$new/member/wal" ] || { echo "$new is not whole" >&2; exit 1; }
  chown -R "$(stat -c %u:%g -- "$data")" "$new" && sync && mv -- "$new" "$whole" || exit 1
fi
if [ -d "$whole/member" ]; then
  if [ -e "$data/member" ]; then
    n=1; place=$aside
    while [ -e "$place" ]; do n=$((n + 1)); place=$aside-$n; done
    mv -- "$data/member" "$place" || exit 1
  fi
  mv -- "$whole/member" "$data/member" || exit 1
fi
sync
printf '%s\n' "$token" >"$marker.part" && mv -f -- "$marker.part" "$marker" && rmdir -- "$whole"
"""


class FilesKept(Phase):
    """What is in the places of a backup's files before the first of its restores is kept beside them."""

    name: ClassVar[str] = "keep-files"
    title: ClassVar[str] = "keep the node's files as they are now"

    def __init__(self, node: Node, backup_id: str) -> None:
        self._node = node
        self.host_name = node.name
        self._folder = model.directory(backup_id)
        self._path = f"{self._folder}/before-restore.tar"

    async def look(self) -> list[Change]:
        """Whether they are kept. What is there stays: a killed restore may have left half of each file since."""
        found = await self._node.host.stat_files([self._path], digest=False)
        return [] if found else [Change(Action.CREATE, self._path, self.host_name)]

    async def act(self, changes: Sequence[Change], activity: Activity) -> None:
        """Keep them."""
        await self._node.host.shell(_KEEP, "/", self._folder, *model.KEPT, timeout=_TIMEOUT)


class FilesRestored(Phase):
    """The files of a host are those of its backup, and no others are beside them.

    Manifests of static Pods are left alone without `manifests`. The kubelet must not run.
    """

    name: ClassVar[str] = "restore-files"
    title: ClassVar[str] = "put the node's files back"

    def __init__(self, node: Node, backup_id: str, *, manifests: bool = False) -> None:
        self._node = node
        self.host_name = node.name
        self._folder = model.directory(backup_id)
        self._manifests = manifests
        if manifests:
            self.title = "put the node's files and static Pods back"  # type: ignore[misc]

    def _arguments(self) -> list[str]:
        return ["/", self._folder, "yes" if self._manifests else "no", *model.KEPT]

    async def look(self) -> list[Change]:
        """Which files differ, and which were not there."""
        done = await self._node.host.shell(_LOOK, *self._arguments(), timeout=_TIMEOUT)
        rows = [row.partition(" ") for row in done.stdout.decode(errors="replace").splitlines()]
        actions = {"U": Action.UPDATE, "D": Action.DELETE}
        return [Change(actions[kind], f"/{name}", self.host_name) for kind, _, name in rows]

    async def act(self, changes: Sequence[Change], activity: Activity) -> None:
        """Remove what was not there, then unpack the rest."""
        await self._node.host.shell(_UNPACK, *self._arguments(), timeout=_TIMEOUT)

    async def verify(self, activity: Activity) -> None:
        """Compare again. Raises `HostError` with what still differs."""
        if left := await self.look():
            raise HostError(
                f"{self.host_name}: files were not put back as they are in {self._folder}/{model.FILES}",
                host=self.host_name, evidence=[change.target for change in left[:10]],
                exit_code=ExitCode.FAILURE, hint="does a kubelet or a person write there? run the same again",
            )  # fmt: skip


class RestoreBegun(Phase):
    """A restore has a name, which it keeps until it is over, however often it is killed."""

    name: ClassVar[str] = "restore-begun"
    title: ClassVar[str] = "note that a restore is under way"

    def __init__(self, node: Node, backup_id: str, token: str) -> None:
        self._node = node
        self.host_name = node.name
        self._file = FileWrite(f"{model.directory(backup_id)}/{TOKEN}", f"{token}\n".encode(), mode=0o600)

    async def look(self) -> list[Change]:
        """Whether it is noted."""
        found = await self._node.host.read_file(self._file.path)
        return [] if found == self._file.data else [Change(Action.CREATE, self._file.path, self.host_name)]

    async def act(self, changes: Sequence[Change], activity: Activity) -> None:
        """Note it."""
        await self._node.host.write_files([self._file])


class RestoreOver(Phase):
    """No conversion is under way, and no restore: the next one begins anew."""

    name: ClassVar[str] = "restore-over"
    title: ClassVar[str] = "note that the restore is over"

    def __init__(self, node: Node, backup_id: str) -> None:
        self._node = node
        self.host_name = node.name
        self._paths = [RECORD, f"{model.directory(backup_id)}/{TOKEN}"]

    async def look(self) -> list[Change]:
        """Which notes are there."""
        found = await self._node.host.stat_files(self._paths, digest=False)
        return [Change(Action.DELETE, path, self.host_name) for path in self._paths if path in found]

    async def act(self, changes: Sequence[Change], activity: Activity) -> None:
        """Remove them, the restore's own last."""
        await self._node.host.shell('for path; do rm -f -- "$path" || exit 1; done', *self._paths)


class EtcdRestored(Phase):
    """A member's data is what etcd makes of the snapshot; what was there is moved aside and stays.

    It is done once in each restore: its token says in the backup's folder that it is. No etcd may run on the host.
    """

    name: ClassVar[str] = "restore-etcd"
    title: ClassVar[str] = "restore etcd's data"

    def __init__(
        self, node: Node, backup_id: str, members: Sequence[EtcdMember], data_dir: str, image: str, token: str
    ) -> None:
        """`members` are all of the backup, and `token` is the same on each of them; `image` is etcd's, as the
        manifest in the backup names it."""
        self._node = node
        self.host_name = node.name
        self._id = backup_id
        self._members = members
        self._data_dir = data_dir
        self._image = image
        self._token = token
        self._folder = model.directory(backup_id)
        self._new = f"{data_dir}/.kubewright-restoring"
        self._whole = f"{data_dir}/.kubewright-restored-{token}"
        self.bumped = False
        """Whether this run has made data that goes on after the revisions which clients have seen."""

    async def look(self) -> list[Change]:
        """Whether this restore has brought it back already."""
        done = await self._node.host.read_file(f"{self._folder}/{RESTORED}") or b""
        if done.decode(errors="replace").strip() == self._token:
            return []
        return [Change(Action.UPDATE, f"{self._data_dir}/member", self.host_name)]

    async def act(self, changes: Sequence[Change], activity: Activity) -> None:
        """Make the new data beside the old one, then exchange them."""
        host = self._node.host
        if await running_container(host, ETCD):
            raise self._refused(
                "etcd still runs, and its data is not touched", "stop the kubelet and etcd's Pod"
            )
        if not await host.stat_files([self._whole], digest=False):
            own = await self._own_member()
            image = await self._found_image()
            await host.shell(_CLEAR, self._data_dir, self._new)
            program, bump = await self._program(image)
            activity.progress("make etcd's data of the snapshot")
            arguments = model.restore_arguments(
                own, self._members, snapshot=f"{self._folder}/{model.SNAPSHOT}", data_dir=self._new,
                token=self._token, bump=bump,
            )  # fmt: skip
            await self._run(image, program, *arguments)
            self.bumped = bump
        activity.progress("put it in place")
        await host.shell(
            _PLACE, self._data_dir, self._new, self._whole, f"{self._data_dir}/member.before-restore-{self._id}",
            f"{self._folder}/{RESTORED}", self._token, timeout=_TIMEOUT,
        )  # fmt: skip

    async def _own_member(self) -> EtcdMember:
        pod = await etcd_pod(self._node.host, self._id) or {}
        own = model.member_in(pod)
        if own not in self._members:
            raise self._refused(
                f"the backup's etcd {own.name} ({own.peer_url}) is no member of the restored one"
            )
        if container_flags(pod).get("wal-dir"):
            raise self._refused(
                "etcd has a --wal-dir of its own, which is not restored",
                "restore it by hand, as etcd's documentation tells (Disaster recovery)",
            )
        return own

    async def _found_image(self) -> str:
        names = model.image_names(self._image)
        found = (await self._node.host.shell(_IMAGE, *names)).text
        if not found:
            raise self._refused(
                f"containerd has no image {self._image}, which the snapshot is restored with",
                f"ctr -n k8s.io images pull {self._image}",
            )
        return found

    async def _program(self, image: str) -> tuple[str, bool]:
        """Which program restores snapshots (since etcd 3.6 only etcdutl, which 3.4 does not have), and whether it
        can go on after the revisions that clients have seen."""
        for program in ("etcdutl", "etcdctl"):
            said = await self._run(image, program, "snapshot", "restore", "--help", check=False)
            if "--initial-cluster-token" in said:
                return program, "--bump-revision" in said
        raise self._refused(f"no program in {self._image} restores snapshots")

    async def _run(self, image: str, *command: str, check: bool = True) -> str:
        """Run a program of an image that sees nothing of the host but the backup and etcd's data."""
        done = await self._node.host.shell(
            _RUN, image, f"kubewright-{self._token}", self._folder, self._data_dir, *command, timeout=_TIMEOUT,
            check=check,
        )  # fmt: skip
        return f"{done.text}\n{done.err}"

    def _refused(self, why: str, hint: str = "") -> HostError:
        return HostError(
            f"{self.host_name}: {why}", host=self.host_name, hint=hint, exit_code=ExitCode.HOST_NOT_FIT
        )
