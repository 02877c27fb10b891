"""A host gets back what it had, exactly and once, wherever a run before was killed."""

from __future__ import annotations

import os
import tarfile
from pathlib import Path

import pytest
from tests.unit.phases.rooted_host import AS_ROOT, RootedHost, rooted, rooted_node, snapshot_of

from kubewright.errors import CommandError, HostError
from kubewright.events import Events
from kubewright.model.arguments import EtcdMember
from kubewright.model.conversion import RECORD
from kubewright.phases.backup import Backup
from kubewright.phases.node import Node
from kubewright.phases.phase import Action
from kubewright.phases.restore import (
    EtcdRestored,
    FilesKept,
    FilesRestored,
    RestoreBegun,
    RestoreOver,
)

ID = "20261122-001500"
FOLDER = f"/var/lib/kubewright/backups/{ID}"
DATA = "/var/lib/etcd"
IMAGE = "registry.example.com/etcd:3.4.13-0"
MANIFESTS = "/etc/kubernetes/manifests"
MANIFEST = f"""
spec:
  containers:
  - name: etcd
    image: {IMAGE}
    command: [etcd, --name=cp1, "--initial-advertise-peer-urls=https://192.0.2.1:2380"]
"""
MEMBERS = [EtcdMember("cp1", "https://192.0.2.1:2380"), EtcdMember("cp2", "https://192.0.2.2:2380")]

# Runs a program of the image below the root, with what it may see of it: two mounts, and no more.
CTR = r"""
echo "$*" >>"$ROOT/ctr.log"
shift 2
case "$1 $2" in
"images ls") echo registry.example.com/etcd:3.4.13-0; echo other:1 ;;
"tasks ls") echo "TASK PID STATUS"; [ ! -e "$ROOT/etcd-runs" ] || echo "live 9 RUNNING" ;;
"containers ls") echo live ;;
"run --rm")
  [ "$3 $5" = "--mount --mount" ] || exit 9
  case $4 in type=bind,src=*,options=rbind:ro) ;; *) exit 9 ;; esac
  case $6 in type=bind,src=*,options=rbind:rw) ;; *) exit 9 ;; esac
  shift 6; [ "$1" = registry.example.com/etcd:3.4.13-0 ] || exit 9
  shift 2; exec "$@" ;;
esac
"""
# The restored data says by what it was made.
ETCDCTL = r"""
case "$*" in
*--help*) echo "  --initial-cluster-token"; exit ;;
esac
for word; do case $word in --data-dir=*) new=$ROOT${word#--data-dir=} ;; esac; done
[ ! -e "$new" ] || { echo "data-dir exists" >&2; exit 1; }
mkdir -p "$new/member/snap" "$new/member/wal"
echo "$*" >"$new/member/snap/db"
"""

pytestmark = pytest.mark.skipif(not AS_ROOT, reason="files are given owners: root only")


async def backed(root: Path) -> Node:
    """A host with a backup, on which nothing has changed since."""
    node = rooted_node(root)
    host = rooted(node)
    host.put("/etc/kubernetes/pki/ca.key", "secret", 0o600)
    host.put("/etc/kubernetes/admin.conf", "server: old", 0o600)
    host.put(f"{MANIFESTS}/etcd.yaml", MANIFEST, 0o600)
    host.put("/var/lib/kubelet/config.yaml", "old")
    key = host.put("/var/lib/kubelet/pki/client 1.pem", mode=0o600)
    os.utime(key, (1_500_000_000, 1_500_000_000))
    os.chown(key, 12, 34)
    host.at("/var/lib/kubelet/pki/current.pem").symlink_to("client 1.pem")
    host.put("/var/lib/kubelet/pods/1/data", "the user's")
    host.put("/etc/systemd/system/other.service")
    host.put(f"{DATA}/member/snap/db", "later data")
    host.put(f"{DATA}/member/wal/1")
    host.program("ctr", CTR)
    host.program("etcdctl", ETCDCTL)
    await Backup(node, ID).run(Events())
    host.put(f"{FOLDER}/etcd.db", snapshot_of(b"data"), 0o600)
    return node


def convert(host: RootedHost) -> None:
    """All that a conversion could have done to a host, and more."""
    host.put("/etc/kubernetes/admin.conf", "server: new", 0o644)
    host.put("/etc/kubernetes/extra/file")
    host.put(f"{MANIFESTS}/etcd.yaml", "new")
    host.put(f"{MANIFESTS}/other.yaml", "new")
    host.put("/var/lib/kubelet/instance-config.yaml")
    host.put("/etc/systemd/system/kubelet.service.d/20-new.conf")
    (host.at("/var/lib/kubelet/pki/current.pem")).unlink()
    host.put("/var/lib/kubelet/pki/client-2.pem")
    host.at("/var/lib/kubelet/pki/current.pem").symlink_to("client-2.pem")
    os.chown(host.at("/var/lib/kubelet/pki/client 1.pem"), 0, 0)
    host.at("/var/lib/kubelet/config.yaml").unlink()
    (host.at("/etc/kubernetes/pki/ca.key")).unlink()
    host.put("/etc/kubernetes/pki/ca.key/now/a/folder")


def kept(host: RootedHost) -> dict[str, object]:
    return {
        path: entry for path, entry in host.tree().items() if path.startswith(("/etc/", "/var/lib/kubelet"))
    }


async def test_all_files_are_as_they_were(tmp_path: Path) -> None:
    node = await backed(tmp_path)
    host = rooted(node)
    before = kept(host)
    assert await FilesRestored(node, ID, manifests=True).run(Events()) == []
    convert(host)
    changed = kept(host)
    changes = await FilesRestored(node, ID, manifests=True).look()
    assert kept(host) == changed
    deleted = {change.target for change in changes if change.action is Action.DELETE}
    assert {"/etc/systemd/system/kubelet.service.d", f"{MANIFESTS}/other.yaml"} <= deleted
    updated = {change.target for change in changes if change.action is Action.UPDATE}
    assert "/var/lib/kubelet/config.yaml" in updated
    assert "/var/lib/kubelet/pki/current.pem" in updated
    await FilesRestored(node, ID, manifests=True).run(Events())
    assert kept(host) == before
    assert await FilesRestored(node, ID, manifests=True).run(Events()) == []


async def test_static_pods_come_only_when_told(tmp_path: Path) -> None:
    node = await backed(tmp_path)
    host = rooted(node)
    before = kept(host)
    convert(host)
    host.at(f"{MANIFESTS}/etcd.yaml").unlink()  # they have been stopped
    await FilesRestored(node, ID).run(Events())
    assert [path.name for path in host.at(MANIFESTS).iterdir()] == ["other.yaml"]
    assert host.at("/etc/kubernetes/admin.conf").read_text() == "server: old"
    assert await FilesRestored(node, ID).run(Events()) == []
    await FilesRestored(node, ID, manifests=True).run(Events())
    assert kept(host) == before


async def test_what_a_killed_run_has_left_is_finished(tmp_path: Path) -> None:
    node = await backed(tmp_path)
    host = rooted(node)
    before = kept(host)
    convert(host)
    real = "/bin/tar"
    host.program("tar", f'case "$*" in *-xpf*) exit 137 ;; esac; exec {real} "$@"')
    with pytest.raises(CommandError):
        await FilesRestored(node, ID, manifests=True).run(Events())
    (host.bin / "tar").unlink()
    await FilesRestored(node, ID, manifests=True).run(Events())
    assert kept(host) == before


async def test_what_there_was_before_a_restore_is_kept(tmp_path: Path) -> None:
    node = await backed(tmp_path)
    host = rooted(node)
    convert(host)
    assert len(await FilesKept(node, ID).run(Events())) == 1
    kept_now = host.at(f"{FOLDER}/before-restore.tar")
    assert kept_now.stat().st_mode & 0o777 == 0o600
    with tarfile.open(kept_now) as tar:
        names = tar.getnames()
    assert {"etc/kubernetes/manifests/other.yaml", "var/lib/kubelet/pki/client-2.pem"} <= {*names}
    await FilesRestored(node, ID, manifests=True).run(Events())
    assert await FilesKept(node, ID).run(Events()) == []


async def test_what_a_backup_does_not_know_is_left(tmp_path: Path) -> None:
    """Made by a release that kept less: the list of what was not there says so."""
    node = await backed(tmp_path)
    host = rooted(node)
    host.put(f"{FOLDER}/absent", "")
    host.put("/var/lib/kubelet/instance-config.yaml")
    assert await FilesRestored(node, ID, manifests=True).run(Events()) == []


# -- etcd -----------------------------------------------------------------------------------------------------


def etcd(
    node: Node, token: str = "t1", members: list[EtcdMember] = MEMBERS, image: str = IMAGE
) -> EtcdRestored:
    return EtcdRestored(node, ID, members, DATA, image, token)


def made_by(host: RootedHost) -> str:
    return host.at(f"{DATA}/member/snap/db").read_text()


async def test_etcd_is_what_the_snapshot_was(tmp_path: Path) -> None:
    node = await backed(tmp_path)
    host = rooted(node)
    os.chown(host.at(DATA), 12, 34)
    [change] = await etcd(node).run(Events())
    assert change.target == f"{DATA}/member"
    command = made_by(host)
    assert f"snapshot restore {host.root}{FOLDER}/etcd.db --name=cp1" in command
    assert "--initial-cluster=cp1=https://192.0.2.1:2380,cp2=https://192.0.2.2:2380" in command
    assert "--initial-cluster-token=t1" in command
    assert "--bump-revision" not in command
    assert sorted(path.name for path in host.at(DATA).iterdir()) == ["member", f"member.before-restore-{ID}"]
    assert host.at(f"{DATA}/member.before-restore-{ID}/snap/db").read_text() == "later data"
    assert {path.stat().st_uid for path in host.at(f"{DATA}/member").rglob("*")} == {12}
    host.put(f"{DATA}/member/snap/db", "new data")
    assert await etcd(node).run(Events()) == []
    assert made_by(host) == "new data"


async def test_a_second_restore_keeps_what_the_first_one_kept(tmp_path: Path) -> None:
    node = await backed(tmp_path)
    host = rooted(node)
    await etcd(node).run(Events())
    await etcd(node, "t2").run(Events())
    assert "--initial-cluster-token=t2" in made_by(host)
    asides = {path.name for path in host.at(DATA).iterdir()} - {"member"}
    assert asides == {f"member.before-restore-{ID}", f"member.before-restore-{ID}-2"}


@pytest.mark.parametrize("command", ["chown", "mv", "rmdir", "sync"])
@pytest.mark.parametrize("nth", [1, 2, 3, 4])
async def test_a_killed_restore_goes_on_where_it_was(tmp_path: Path, command: str, nth: int) -> None:
    """Killed before the nth of these commands, whichever it is."""
    node = await backed(tmp_path)
    host = rooted(node)
    script = (
        f'echo >>"$ROOT/count"; if [ "$(wc -l <"$ROOT/count")" -ge {nth} ]; then kill -9 $PPID; exit 1; fi\n'
        f'exec /bin/{command} "$@"'
    )
    host.program(command, script)
    try:
        await etcd(node).run(Events())
    except CommandError:
        (host.bin / command).unlink()
        await etcd(node).run(Events())
    assert "--initial-cluster-token=t1" in made_by(host)
    assert host.at(f"{DATA}/member.before-restore-{ID}/snap/db").read_text() == "later data"
    assert sum("before-restore" in path.name for path in host.at(DATA).iterdir()) == 1
    runs = [row for row in host.at("/ctr.log").read_text().splitlines() if "--name=cp1" in row]
    assert len(runs) == (2 if nth == 1 and command != "rmdir" else 1), "whole data is not made again"
    assert await etcd(node).run(Events()) == []


async def test_half_made_data_is_made_anew(tmp_path: Path) -> None:
    node = await backed(tmp_path)
    host = rooted(node)
    host.program("etcdctl", ETCDCTL.replace('echo "$*" >', "exit 1; "))
    with pytest.raises(CommandError):
        await etcd(node).run(Events())
    assert made_by(host) == "later data"
    host.program("etcdctl", ETCDCTL)
    await etcd(node).run(Events())
    assert "--initial-cluster-token=t1" in made_by(host)


async def test_newer_programs_let_no_revision_come_twice(tmp_path: Path) -> None:
    node = await backed(tmp_path)
    host = rooted(node)
    host.program(
        "etcdutl", ETCDCTL.replace("--initial-cluster-token", "--initial-cluster-token --bump-revision")
    )
    host.program("etcdctl", "exit 3")
    await etcd(node).run(Events())
    assert "--bump-revision=1000000000 --mark-compacted" in made_by(host)


async def test_data_that_is_in_use_is_not_touched(tmp_path: Path) -> None:
    node = await backed(tmp_path)
    host = rooted(node)
    host.put("/etcd-runs")
    with pytest.raises(HostError, match="etcd still runs"):
        await etcd(node).run(Events())
    assert made_by(host) == "later data"


async def test_what_cannot_be_restored_is_refused(tmp_path: Path) -> None:
    node = await backed(tmp_path)
    with pytest.raises(HostError, match="is no member of the restored one"):
        await etcd(node, members=MEMBERS[1:]).run(Events())
    with pytest.raises(HostError, match="no image gone:1") as caught:
        await etcd(node, image="gone:1").run(Events())
    assert "ctr -n k8s.io images pull gone:1" in caught.value.hint
    rooted(node).program("etcdctl", "exit 1")
    with pytest.raises(HostError, match="no program"):
        await etcd(node).run(Events())
    assert made_by(rooted(node)) == "later data"


async def test_a_restore_has_a_name_until_it_is_over(tmp_path: Path) -> None:
    node = await backed(tmp_path)
    host = rooted(node)
    assert len(await RestoreBegun(node, ID, "t1").run(Events())) == 1
    assert await RestoreBegun(node, ID, "t1").run(Events()) == []
    host.put(RECORD, "{}")
    assert [change.target for change in await RestoreOver(node, ID).run(Events())] == [
        RECORD, f"{FOLDER}/restore-token",
    ]  # fmt: skip
    assert await RestoreOver(node, ID).run(Events()) == []
