"""A host's backup: whole or not there at all, private, and never made twice under one name."""

from __future__ import annotations

import os
import tarfile
from pathlib import Path

import pytest
from tests.unit.phases.rooted_host import AS_ROOT, RootedHost, big, rooted, rooted_node, snapshot_of

from kubewright.errors import CommandError, ExitCode, HostError
from kubewright.events import Events
from kubewright.model import backup as model
from kubewright.model.backup import BackedUp
from kubewright.phases import backup
from kubewright.phases.backup import Backup, BackupWhole, backed_up, copy_snapshot, room
from kubewright.phases.containers import running_container
from kubewright.phases.node import Node

ID = "20261122-001500"
FOLDER = f"/var/lib/kubewright/backups/{ID}"
DATA = "/var/lib/etcd"
MANIFEST = """
spec:
  containers:
  - name: etcd
    image: registry.example.com/etcd:3.4.13-0
    command: [etcd, --data-dir=/var/lib/etcd, "--listen-client-urls=http://127.0.0.1:2379"]
"""
# Lists one container that runs and one that has ended; `tasks exec` is done by etcdctl of the same folder.
CTR = r"""
shift 2
case "$1 $2" in
"tasks ls") printf 'TASK PID STATUS\nold 7 STOPPED\nlive 9 RUNNING\n' ;;
"containers ls") printf 'old\nlive\n' ;;
"task exec") shift 4; [ "$1" = live ] || exit 9; shift; exec "$@" ;;
esac
"""
ETCDCTL = r"""
case "$*" in
*"snapshot save"*) for path; do :; done; cp "$ROOT/next.db" "$path" && chmod 600 "$path" ;;
*"snapshot status"*) echo '{"revision":7,"totalKey":5}' ;;
esac
"""

pytestmark = pytest.mark.skipif(not AS_ROOT, reason="files are given owners: root only")


def plane(root: Path, *, taken: bytes = b"") -> Node:
    node = rooted_node(root)
    host = rooted(node)
    host.put("/etc/kubernetes/pki/ca.key", "secret", 0o600)
    host.put("/etc/kubernetes/manifests/etcd.yaml", MANIFEST, 0o600)
    host.put("/var/lib/kubelet/config.yaml")
    key = host.put("/var/lib/kubelet/pki/client-1.pem", mode=0o600)
    os.utime(key, (1_500_000_000, 1_500_000_000))
    os.chown(key, 12, 34)
    host.at("/var/lib/kubelet/pki/current.pem").symlink_to("/var/lib/kubelet/pki/client-1.pem")
    host.put(f"{DATA}/member/snap/db", bytes(5000))
    host.put("/next.db", taken or snapshot_of(bytes(5000)))
    host.program("ctr", CTR)
    host.program("etcdctl", ETCDCTL)
    return node


def archive(host: RootedHost) -> dict[str, tarfile.TarInfo]:
    with tarfile.open(host.at(f"{FOLDER}/files.tar")) as tar:
        return {member.name: member for member in tar.getmembers()}


async def test_all_files_are_kept_as_they_are(tmp_path: Path) -> None:
    node = plane(tmp_path)
    host = rooted(node)
    [change] = await Backup(node, ID).run(Events())
    assert change.target == f"{FOLDER}/files.tar"
    found = archive(host)
    key = found["var/lib/kubelet/pki/client-1.pem"]
    assert (key.mode, key.uid, key.gid, key.mtime) == (0o600, 12, 34, 1_500_000_000)
    assert found["var/lib/kubelet/pki/current.pem"].linkname == "/var/lib/kubelet/pki/client-1.pem"
    assert "etc/kubernetes/manifests/etcd.yaml" in found
    assert host.at(f"{FOLDER}/absent").read_text().splitlines() == [
        "/var/lib/kubelet/kubeadm-flags.env", "/var/lib/kubelet/instance-config.yaml",
        "/etc/systemd/system/kubelet.service", "/etc/systemd/system/kubelet.service.d",
    ]  # fmt: skip
    modes = {path: host.at(path).stat().st_mode & 0o777 for path in (FOLDER, model.BACKUPS)}
    assert set(modes.values()) == {0o700}
    assert host.at("/var/lib/kubewright").stat().st_mode & 0o777 == 0o755
    assert {path.stat().st_mode & 0o777 for path in host.at(FOLDER).iterdir()} == {0o600}
    assert await Backup(node, ID).run(Events()) == []


async def test_files_of_a_backup_can_be_read(tmp_path: Path) -> None:
    node = plane(tmp_path)
    wanted = ["/etc/kubernetes/pki/ca.key", "/etc/kubernetes/admin.conf"]
    assert await backed_up(node.host, ID, wanted) == {}
    await Backup(node, ID).run(Events())
    assert await backed_up(node.host, ID, wanted) == {"/etc/kubernetes/pki/ca.key": b"secret"}
    pod = await backup.etcd_pod(node.host, ID)
    assert model.etcd_image(pod or {}) == "registry.example.com/etcd:3.4.13-0"


async def test_a_backup_that_broke_off_is_none_and_is_made_anew(tmp_path: Path) -> None:
    node = plane(tmp_path)
    host = rooted(node)
    host.program("tar", 'for word; do case $word in *.part) printf half >"$word" ;; esac; done; exit 2')
    with pytest.raises(CommandError):
        await Backup(node, ID).run(Events())
    assert not host.at(f"{FOLDER}/files.tar").exists()
    (host.bin / "tar").unlink()
    assert len(await Backup(node, ID).run(Events())) == 1
    assert "etc/kubernetes/pki/ca.key" in archive(host)
    assert not list(host.at(FOLDER).glob("*.part"))


async def test_a_snapshot_is_verified_and_moved(tmp_path: Path) -> None:
    node = plane(tmp_path)
    host = rooted(node)
    changes = await Backup(node, ID, data_dir=DATA, snapshot=True).run(Events())
    assert [change.target for change in changes] == [f"{FOLDER}/files.tar", f"{FOLDER}/etcd.db"]
    taken = host.at(f"{FOLDER}/etcd.db")
    assert taken.read_bytes() == snapshot_of(bytes(5000))
    assert taken.stat().st_mode & 0o777 == 0o600
    assert [path.name for path in host.at(DATA).iterdir()] == ["member"]
    assert await Backup(node, ID, data_dir=DATA, snapshot=True).run(Events()) == []


@pytest.mark.parametrize("program", ["etcdctl", "etcdutl"])
async def test_whichever_program_knows_snapshots_is_asked(tmp_path: Path, program: str) -> None:
    node = plane(tmp_path)
    host = rooted(node)
    host.program(
        "etcdctl", ETCDCTL if program == "etcdctl" else ETCDCTL.replace("snapshot status", "no more")
    )
    if program == "etcdutl":
        host.program("etcdutl", ETCDCTL)
    assert len(await Backup(node, ID, data_dir=DATA, snapshot=True).run(Events())) == 2


@pytest.mark.parametrize("harm", ["empty", "cut", "dies"])
async def test_a_bad_snapshot_is_not_kept(tmp_path: Path, harm: str) -> None:
    node = plane(tmp_path, taken=snapshot_of(bytes(5000))[:-1] if harm == "cut" else b"")
    host = rooted(node)
    if harm == "empty":
        host.program("etcdctl", ETCDCTL.replace('"totalKey":5', '"totalKey":0'))
    if harm == "dies":
        script = 'for path; do :; done; printf half >"$path.part"; echo "context canceled" >&2; exit 5'
        host.program("etcdctl", script)
    with pytest.raises(HostError):
        await Backup(node, ID, data_dir=DATA, snapshot=True).run(Events())
    assert not list(host.at(FOLDER).glob("etcd.db*"))
    assert [path.name for path in host.at(DATA).iterdir()] == ["member"]
    host.put("/next.db", snapshot_of(b"good" * 100))
    host.program("etcdctl", ETCDCTL)
    [change] = await Backup(node, ID, data_dir=DATA, snapshot=True).run(Events())
    assert change.target == f"{FOLDER}/etcd.db"


async def test_without_an_etcd_there_is_no_snapshot(tmp_path: Path) -> None:
    node = plane(tmp_path)
    rooted(node).program("ctr", CTR.replace("live 9 RUNNING", "live 9 STOPPED"))
    assert await running_container(node.host, "etcd") == ""
    with pytest.raises(HostError, match="no etcd runs here"):
        await Backup(node, ID, data_dir=DATA, snapshot=True).run(Events())


async def test_the_room_is_looked_at_first(tmp_path: Path) -> None:
    node = plane(tmp_path)
    host = rooted(node)
    host.program("du", 'for path; do :; done; echo "100 $path"')
    host.program("df", 'echo "Filesystem 1024-blocks Used Available"; echo "/dev/sda1 9 9 7 9% /"')
    needed, free = await room(node, DATA)
    assert free == 7 * 1024
    assert needed == model.room_needed(3 * 100 * 1024, 5000)
    assert (await room(node))[0] == model.room_needed(3 * 100 * 1024)
    with pytest.raises(HostError) as caught:
        await Backup(node, ID, data_dir=DATA, snapshot=True).look()
    error = caught.value
    assert error.exit_code is ExitCode.HOST_DISK_FULL
    assert FOLDER in error.message
    assert f"{needed} bytes are needed, {free} are free" in error.message
    assert not host.at(FOLDER).exists()


async def test_a_disk_that_becomes_full_is_told(tmp_path: Path) -> None:
    node = plane(tmp_path)
    rooted(node).program("tar", "echo 'tar: x: No space left on device' >&2; exit 2")
    with pytest.raises(HostError, match=FOLDER) as caught:
        await Backup(node, ID).run(Events())
    assert caught.value.exit_code is ExitCode.HOST_DISK_FULL


async def test_a_folder_that_is_a_link_is_refused(tmp_path: Path) -> None:
    node = plane(tmp_path)
    host = rooted(node)
    host.at("/etc/kubernetes").rename(host.at("/elsewhere"))
    host.at("/etc/kubernetes").symlink_to(host.at("/elsewhere"))
    with pytest.raises(HostError, match="/etc/kubernetes is a link"):
        await Backup(node, ID).look()


async def test_a_backup_is_whole_when_all_are_noted(tmp_path: Path) -> None:
    node = plane(tmp_path)
    await Backup(node, ID).run(Events())
    hosts = [BackedUp("cp1", "192.0.2.1", True, True), BackedUp("w1", "192.0.2.9", False)]
    assert len(await BackupWhole(node, ID, hosts).run(Events())) == 1
    path = rooted(node).at(f"{FOLDER}/cluster.json")
    assert path.stat().st_mode & 0o777 == 0o600
    assert await BackupWhole(node, ID, hosts[:1]).run(Events()) == []
    assert model.read_whole(path.read_bytes()) == hosts


async def test_a_snapshot_is_brought_to_others_in_pieces(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backup, "_PIECE", 100_000)
    source, target = plane(tmp_path), rooted_node(tmp_path, "cp2", "192.0.2.2")
    with pytest.raises(HostError, match=r"there is no .*/etcd\.db"):
        await copy_snapshot(source, target, ID)
    content = big()
    rooted(source).put(f"{FOLDER}/etcd.db", content, 0o600)
    await copy_snapshot(source, target, ID)
    copy = rooted(target).at(f"{FOLDER}/etcd.db")
    assert copy.read_bytes() == content
    assert copy.stat().st_mode & 0o777 == 0o600
    assert rooted(target).at(FOLDER).stat().st_mode & 0o777 == 0o700
