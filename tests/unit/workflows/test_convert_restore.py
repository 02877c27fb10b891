"""A conversion is taken back: who has the backup, in what order, and wherever an earlier run was killed."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.unit.phases.rooted_host import AS_ROOT, RootedHost, rooted, rooted_node, snapshot_of

from kubewright.clients.cri import RuntimeContainer, Sandbox
from kubewright.errors import ConfigError, HostError, KubewrightError
from kubewright.events import Event, Events, Kind
from kubewright.model.backup import BackedUp
from kubewright.model.config.cluster import ClusterSpec
from kubewright.model.conversion import RECORD
from kubewright.model.objects import to_yaml
from kubewright.phases import restore_run, stop_plane
from kubewright.phases.backup import Backup, BackupWhole
from kubewright.phases.node import Node
from kubewright.phases.phase import Action, Change, Phase
from kubewright.workflows import convert_restore
from kubewright.workflows.convert_restore import Restore, RestoreResult, restore

ID = "20261122-001500"
FOLDER = f"/var/lib/kubewright/backups/{ID}"
MANIFESTS = "/etc/kubernetes/manifests"
ADMIN = "/etc/kubernetes/admin.conf"
IMAGE = "registry.example.com/etcd:3.4.13-0"
PODS = ("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler")

SYSTEMCTL = r"""
case $1 in
is-active) cat "$ROOT/kubelet"; [ "$(cat "$ROOT/kubelet")" = active ] ;;
stop) echo inactive >"$ROOT/kubelet" ;;
start) echo active >"$ROOT/kubelet" ;;
esac
"""
CTR = rf"""
shift 2
case "$1 $2" in
"images ls") echo {IMAGE} ;;
"tasks ls") echo "TASK PID STATUS" ;;
"tasks kill") echo "$5" >>"$ROOT/killed" ;;
"run --rm") shift 8; exec "$@" ;;
esac
"""
ETCDCTL = r"""
case "$*" in
*--help*) echo "  --initial-cluster-token"; exit ;;
esac
for word; do case $word in --data-dir=*) new=$ROOT${word#--data-dir=} ;; esac; done
mkdir -p "$new/member/snap" "$new/member/wal"
echo "$*" >"$new/member/snap/db"
"""

pytestmark = pytest.mark.skipif(not AS_ROOT, reason="files are given owners: root only")


class Runtime:
    """A host's containers: static Pods as the kubelet last saw their manifests, and kube-proxy, ended or not."""

    def __init__(self, host: RootedHost) -> None:
        self.host = host
        self.names: set[str] = set()

    def seen(self) -> set[str]:
        if self.host.at("/kubelet").read_text().strip() == "active":
            self.names = {path.stem for path in self.host.at(MANIFESTS).glob("*.yaml")}
        return self.names

    @property
    def proxy(self) -> str:
        killed = self.host.at("/killed")
        return f"proxy-{len(set(killed.read_text().split())) if killed.exists() else 0}"

    async def sandboxes(self) -> list[Sandbox]:
        names = [*self.seen(), "kube-proxy"]
        return [Sandbox(f"pod-{name}", name, "kube-system", "", 0, True) for name in names]

    async def containers(self) -> list[RuntimeContainer]:
        ids = {name: name for name in self.seen()} | {"kube-proxy": self.proxy}
        return [RuntimeContainer(ident, f"pod-{name}", name, 0, True, "") for name, ident in ids.items()]

    async def remove_sandbox(self, identity: str) -> None:
        self.names.discard(identity.removeprefix("pod-"))


class Cluster:
    """Hosts of a cluster, of which cp1 and w1 have a backup, and cp2 came with the conversion."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch, *, server: str) -> None:
        self.server = server
        self.nodes = [
            rooted_node(root, "cp1", "192.0.2.1"), rooted_node(root, "cp2", "192.0.2.2"),
            rooted_node(root, "w1", "192.0.2.9", worker=True), rooted_node(root, "idle", "192.0.2.8", worker=True),
        ]  # fmt: skip
        self.runtimes = {node.name: Runtime(rooted(node)) for node in self.nodes}
        self.done: list[str] = []
        self.reports = 0
        self.seen: list[Event] = []
        for node in self.nodes:
            host = rooted(node)
            host.put("/kubelet", "active")
            host.program("systemctl", SYSTEMCTL)
            host.program("ctr", CTR)
            host.program("etcdctl", ETCDCTL)
        cluster = self

        @asynccontextmanager
        async def cri(host: RootedHost, _socket: str) -> AsyncIterator[Runtime]:
            yield cluster.runtimes[host.name]

        @asynccontextmanager
        async def fleet(*_: object, **options: object) -> AsyncIterator[list[Node]]:
            assert options["moves"]
            yield cluster.nodes

        @asynccontextmanager
        async def api(host: RootedHost, server: Any) -> AsyncIterator[Cluster]:
            cluster.done.append(f"api {host.name} {server.url}")
            yield cluster

        async def cleanup(run: Any) -> None:
            host = rooted(run.node)
            if not run.dry:
                cluster.done.append(f"reset {host.name}, data {run._etcd_data}")
                host.put("/kubelet", "inactive")
                for path in ("/etc/kubernetes/pki/ca.crt", *(f"{MANIFESTS}/{pod}.yaml" for pod in PODS)):
                    host.at(path).unlink()
            run.changes.append(Change(Action.DELETE, "all", host.name))

        class Proxies(Phase):
            name = "proxies"
            title = "proxies"

            def __init__(self, node: Node) -> None:
                self.node = node

            async def look(self) -> list[Change]:
                return [Change(Action.DELETE, "proxy", self.node.name)] if self.node.name == "cp2" else []

            async def act(self, changes: object, activity: object) -> None:
                cluster.done.append(f"no proxy on {self.node.name}")

        for module in (stop_plane, restore_run):
            monkeypatch.setattr(module, "open_cri", cri)
        monkeypatch.setattr(convert_restore, "open_fleet", fleet)
        monkeypatch.setattr(convert_restore, "api_over", api)
        monkeypatch.setattr(convert_restore, "ProxiesGone", Proxies)
        # A real reset names paths in its scripts, and would reset the computer that tests run on.
        monkeypatch.setattr(convert_restore._Leaving, "cleanup_node", cleanup)

    # -- the API ----------------------------------------------------------------------------------------------

    async def request(self, *_: object, **__: object) -> None:
        assert self.runtimes["cp1"].seen() >= set(PODS)

    async def get(self, _version: str, _kind: str, _name: str, _namespace: str) -> dict[str, Any]:
        self.reports += 1
        return {"spec": {"renewTime": str(self.reports)}}

    # -- hosts ------------------------------------------------------------------------------------------------

    def host(self, name: str) -> RootedHost:
        return next(rooted(node) for node in self.nodes if node.name == name)

    def node(self, name: str) -> Node:
        return next(node for node in self.nodes if node.name == name)

    def member(self, name: str, ip: str) -> None:
        host = self.host(name)
        for pod in PODS:
            flags = (
                [f"--name={name}", f"--initial-advertise-peer-urls=https://{ip}:2380"]
                if pod == "etcd"
                else []
            )
            volume = {"name": "etcd-data", "hostPath": {"path": "/var/lib/etcd"}}
            spec = {
                "containers": [{"name": pod, "image": IMAGE, "command": [pod, *flags]}],
                "volumes": [volume],
            }
            host.put(f"{MANIFESTS}/{pod}.yaml", to_yaml({"spec": spec}), 0o600)
        host.put("/var/lib/etcd/member/snap/db", "later")
        self.admin(name, self.server)

    def admin(self, name: str, server: str) -> None:
        entry = {"name": "x", "cluster": {"server": server, "insecure-skip-tls-verify": True}}
        config = {
            "kind": "Config", "clusters": [entry], "users": [{"name": "x", "user": {"token": "t"}}],
            "contexts": [{"name": "x", "context": {"cluster": "x", "user": "x"}}], "current-context": "x",
        }  # fmt: skip
        self.host(name).put(ADMIN, yaml.safe_dump(config), 0o600)

    async def backed(self, *planes: str) -> Cluster:
        """Make the backup on control planes and w1, then convert."""
        hosts = []
        for node in self.nodes:
            host = rooted(node)
            if node.name in planes:
                self.member(node.name, node.ip)
            if node.name in (*planes, "w1"):
                host.put("/etc/kubernetes/pki/ca.crt", "this cluster's")
                host.put("/etc/kubernetes/kubelet.conf", "old")
                await Backup(node, ID).run(Events())
                hosts.append(BackedUp(node.name, node.ip, node.name in planes, node.name in planes))
        for name in planes:
            await BackupWhole(self.node(name), ID, hosts).run(Events())
        self.host("cp1").put(f"{FOLDER}/etcd.db", snapshot_of(b"data"), 0o600)
        for name in {"cp2"} - set(planes):
            self.member(name, self.node(name).ip)
            self.host(name).put("/etc/kubernetes/pki/ca.crt", "this cluster's\n")
        for name in ("cp1", "cp2"):
            self.admin(name, "https://api.example.com:6443")
            self.host(name).put(RECORD, "{}")
        for name in (*planes, "w1"):
            self.host(name).put("/etc/kubernetes/kubelet.conf", "new")
        for runtime in self.runtimes.values():
            runtime.seen()
        return self

    async def restore(self, *, dry: bool = False, backup_id: str = ID) -> RestoreResult:
        spec = ClusterSpec.model_validate(
            {
                "hosts": [
                    {"name": node.name, "address": node.ip, "roles": [str(role) for role in node.spec.roles]}
                    for node in self.nodes
                ],
                "endpoint": {"type": "external", "address": "api.example.com"},
            }
        )
        return await restore(spec, backup_id, Events(self.seen.append), dry=dry)

    def trees(self) -> dict[str, Any]:
        return {node.name: rooted(node).tree() for node in self.nodes}


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cluster:
    return Cluster(tmp_path, monkeypatch, server="https://192.0.2.1:6443")


async def test_a_cluster_is_what_it_was(cluster: Cluster) -> None:
    await cluster.backed("cp1")
    result = await cluster.restore()
    assert (result.restored, result.reset) == (["cp1", "w1"], ["cp2"])
    assert result.server == "https://192.0.2.1:6443"
    assert cluster.done == [
        "reset cp2, data /var/lib/etcd", "no proxy on cp2", "api cp1 https://192.0.2.1:6443",
    ]  # fmt: skip
    cp1 = cluster.host("cp1")
    command = cp1.at("/var/lib/etcd/member/snap/db").read_text()
    assert "--initial-cluster=cp1=https://192.0.2.1:2380" in command
    assert cp1.at(f"/var/lib/etcd/member.before-restore-{ID}/snap/db").read_text() == "later"
    assert "192.0.2.1" in cp1.at(ADMIN).read_text()
    assert {path.stem for path in cp1.at(MANIFESTS).iterdir()} == set(PODS)
    for name in ("cp1", "w1"):
        assert cluster.host(name).at("/etc/kubernetes/kubelet.conf").read_text() == "old"
        assert cluster.host(name).at("/kubelet").read_text() == "active\n"
        assert cluster.runtimes[name].proxy == "proxy-1", "it watches anew"
    assert cluster.runtimes["cp1"].seen() == set(PODS)
    assert not any(cluster.host(name).at(RECORD).exists() for name in ("cp1", "cp2"))
    assert cluster.runtimes["cp2"].seen() == set(), "a reset may have left Pods"
    assert cluster.host("idle").at("/kubelet").read_text() == "active", "it is none of this cluster's"
    assert not cp1.at(f"{FOLDER}/restore-token").exists()


async def test_a_dry_run_says_all_of_it_and_changes_nothing(cluster: Cluster) -> None:
    await cluster.backed("cp1")
    before = cluster.trees()
    result = await cluster.restore(dry=True)
    assert cluster.trees() == before
    assert cluster.done == []
    told = {(change.host, change.target) for change in result.changes}
    assert {
        ("cp1", "stop kubelet.service"), ("cp1", "/var/lib/etcd/member"), ("cp1", ADMIN), ("cp2", "all"),
        ("cp2", "proxy"), ("w1", "/etc/kubernetes/kubelet.conf"), ("cp1", RECORD),
    } <= told  # fmt: skip


async def test_all_control_planes_are_made_of_one_snapshot(cluster: Cluster) -> None:
    await cluster.backed("cp1", "cp2")
    result = await cluster.restore()
    assert (result.restored, result.reset) == (["cp1", "cp2", "w1"], [])
    commands = [
        cluster.host(name).at("/var/lib/etcd/member/snap/db").read_text().split() for name in ("cp1", "cp2")
    ]
    shared = [
        {word for word in command if word.startswith(("--initial-cluster=", "--initial-cluster-token="))}
        for command in commands
    ]
    assert shared[0] == shared[1]
    assert "--initial-cluster=cp1=https://192.0.2.1:2380,cp2=https://192.0.2.2:2380" in shared[0]
    assert "--name=cp2" in commands[1]
    snapshot = cluster.host("cp2").at(f"{FOLDER}/etcd.db")
    assert snapshot.read_bytes() == snapshot_of(b"data")
    assert snapshot.stat().st_mode & 0o777 == 0o600


async def test_a_killed_restore_is_finished_and_restores_no_member_twice(cluster: Cluster) -> None:
    await cluster.backed("cp1", "cp2")
    cluster.host("cp2").program("etcdctl", "exit 1")
    with pytest.raises(HostError) as caught:
        await cluster.restore()
    assert "the same command goes on" in caught.value.hint
    cp1 = cluster.host("cp1")
    first = cp1.at("/var/lib/etcd/member/snap/db").read_text()
    cluster.host("cp2").program("etcdctl", ETCDCTL)
    await cluster.restore()
    assert cp1.at("/var/lib/etcd/member/snap/db").read_text() == first
    token = next(word for word in first.split() if word.startswith("--initial-cluster-token="))
    assert token in cluster.host("cp2").at("/var/lib/etcd/member/snap/db").read_text()
    await cluster.restore()
    assert token not in cp1.at("/var/lib/etcd/member/snap/db").read_text(), "that one was over"


async def test_proxies_stay_where_the_backup_has_an_endpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster = await Cluster(tmp_path, monkeypatch, server="https://old.example.com:6443").backed("cp1")
    result = await cluster.restore()
    assert result.server == "https://old.example.com:6443"
    assert not any("proxy" in one for one in cluster.done)
    assert any("https://old.example.com:6443" in one.message for one in cluster.seen if one.kind is Kind.NOTE)


async def test_another_clusters_host_is_not_reset(cluster: Cluster) -> None:
    await cluster.backed("cp1")
    cluster.host("cp2").put("/etc/kubernetes/pki/ca.crt", "another's")
    assert (await cluster.restore()).reset == []


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        ("unknown", "no host of cluster.yaml has backup 20200101-000000"),
        ("unfinished", f"no host of cluster.yaml has backup {ID} whole"),
        ("gone", "cp1 is a control plane of it, and is not in cluster.yaml"),
        ("lost", f"w1 has no {FOLDER}/files.tar any more"),
        ("no snapshot", "no control plane has etcd's snapshot"),
    ],
)
async def test_what_is_not_whole_is_refused(cluster: Cluster, harm: str, message: str) -> None:
    await cluster.backed("cp1", "cp2")
    if harm == "unfinished":
        for name in ("cp1", "cp2"):
            cluster.host(name).at(f"{FOLDER}/cluster.json").unlink()
    elif harm == "gone":
        cluster.nodes = cluster.nodes[1:]
    elif harm == "lost":
        cluster.host("w1").at(f"{FOLDER}/files.tar").unlink()
    elif harm == "no snapshot":
        cluster.host("cp1").at(f"{FOLDER}/etcd.db").unlink()
    before = cluster.trees()
    with pytest.raises(KubewrightError, match=message) as caught:
        await cluster.restore(backup_id="20200101-000000" if harm == "unknown" else ID)
    assert cluster.trees() == before
    if harm == "unknown":
        assert f"cp1: {ID}" in caught.value.evidence


async def test_a_worker_that_left_since_is_only_told_of(cluster: Cluster) -> None:
    await cluster.backed("cp1")
    cluster.nodes = [node for node in cluster.nodes if node.name != "w1"]
    assert (await cluster.restore()).restored == ["cp1"]
    assert any("w1" in one.message for one in cluster.seen if one.kind is Kind.WARNING)


async def test_a_path_is_no_backup(cluster: Cluster) -> None:
    with pytest.raises(ConfigError):
        await cluster.restore(backup_id="../../../etc")
    with pytest.raises(ConfigError):
        Restore(ClusterSpec.model_construct(hosts=[]), [], "..", Events(), dry=True)
