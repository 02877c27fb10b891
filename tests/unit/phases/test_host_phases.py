"""Phases on a host: static Pods that are replaced, containerd's configuration, the kubeconfig on this computer."""

from __future__ import annotations

import stat
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
from tests.unit.phases.memory_host import MemoryHost
from tests.unit.phases.test_pki_phases import FACTS, SPEC

from kubewright.events import Event, Events
from kubewright.hosts import Completed, FileWrite
from kubewright.model import kubeconfig
from kubewright.model.objects import to_yaml
from kubewright.phases.controlplane import _CONTAINERS, StaticPods
from kubewright.phases.local_kubeconfig import LocalKubeconfig
from kubewright.phases.node import Node
from kubewright.phases.prepare import CONTAINERD_CONFIG, Runtime, without_registry_secrets
from kubewright.secret import Secret

MANIFEST = "/etc/kubernetes/manifests/kube-apiserver.yaml"


class Containerd(MemoryHost):
    """A host where the API server's container `old` runs alone for a few looks, and `new` beside it afterwards."""

    def __init__(self, looks: int = 3) -> None:
        super().__init__()
        self.looks = looks

    async def run(
        self, argv: Sequence[str], *, stdin: bytes | Secret[bytes] | None = None, timeout: float = 60.0,
        check: bool = True, env: Mapping[str, str] | None = None,
    ) -> Completed:  # fmt: skip
        if "mkdir" in " ".join(argv):
            return await super().run(argv)
        self.commands.append(tuple(argv))
        if argv[-1] == "kube-apiserver":
            self.looks -= 1
            made = b"kube-apiserver old\nkube-apiserver older\n"
            tasks = b"TASK PID STATUS\nold 7 RUNNING\nolder 6 STOPPED\nanother 5 RUNNING\n"
            if self.looks <= 0:
                made, tasks = made + b"kube-apiserver new\n", tasks + b"new 8 RUNNING\n"
            return Completed(tuple(argv), 0, made + tasks)
        return Completed(tuple(argv), 0, b"active\n")


def static_pods(host: MemoryHost, image: str) -> StaticPods:
    pod = {"kind": "Pod", "spec": {"containers": [{"image": image}]}}
    return StaticPods(Node(SPEC.hosts[0], host, FACTS, "192.0.2.1"), {"kube-apiserver": pod})


async def test_a_new_static_pod_runs_before_anybody_asks_it() -> None:
    host = Containerd()
    await static_pods(host, "one").run(Events())
    assert host.commands == []  # there was none before
    assert host.private_folders == {"/etc/kubernetes/manifests"}
    events: list[Event] = []
    await static_pods(host, "two").run(Events(events.append))
    assert host.looks == 0
    assert any("still run" in event.message for event in events)


def etcd_pod(*volumes: str) -> dict[str, object]:
    mounts = [{"name": name, "mountPath": f"/{name}"} for name in volumes]
    spec = {
        "containers": [{"name": "etcd", "volumeMounts": mounts}],
        "volumes": [{"name": n} for n in volumes],
    }
    return {"kind": "Pod", "spec": spec}


async def test_a_manifest_that_only_looks_otherwise_stays() -> None:
    """The kubelet would start etcd anew for another order of its volumes, and kubeadm's has none."""
    host = Containerd()
    path = MANIFEST.replace("kube-apiserver", "etcd")
    theirs = b"# theirs\n" + to_yaml({**etcd_pod("certs", "data"), "status": {}})
    host.files[path] = FileWrite(path, theirs, 0o600)
    phase = StaticPods(Node(SPEC.hosts[0], host, FACTS, "192.0.2.1"), {"etcd": etcd_pod("data", "certs")})
    assert await phase.look() == []
    host.files[path] = FileWrite(path, theirs, 0o644)
    changes = await phase.run(Events())
    assert [(change.target, change.diff) for change in changes] == [(path, ())]
    assert (host.files[path].data, host.files[path].mode) == (theirs, 0o600)
    assert host.commands == []  # no container of another Pod is waited for


def test_a_host_without_containerd_is_not_asked_for_its_containers(tmp_path: Path) -> None:
    done = subprocess.run(
        ["/bin/sh", "-c", _CONTAINERS, "sh", "etcd"], env={"PATH": str(tmp_path)}, capture_output=True
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


async def test_containerds_configuration_stays_as_private_as_it_was() -> None:
    host = Containerd()
    text = (
        b'version = 2\n[plugins."io.containerd.grpc.v1.cri".registry.configs.r.auth]\npassword = "hunter2"\n'
    )
    host.files[CONTAINERD_CONFIG] = FileWrite(CONTAINERD_CONFIG, text, 0o600)
    runtime = Runtime(
        Node(SPEC.hosts[0], host, FACTS, "192.0.2.1"), pause_image="pause", cgroup_driver="cgroupfs"
    )
    changes = await runtime.run(Events())
    written = host.files[CONTAINERD_CONFIG]
    assert written.mode == 0o600
    assert b"hunter2" in written.data
    assert "hunter2" not in str(changes)
    assert "password = <secret>" in str(changes)


@pytest.mark.parametrize(
    "line",
    ['+  password = "s3"', "-auth='s3'", '+ r = { auth = { "password" = "s3" } }', ' identitytoken = "s3"',
     '+Authorization = ["Basic s3"]'],
)  # fmt: skip
def test_no_registrys_secret_is_in_a_plan(line: str) -> None:
    assert "s3" not in without_registry_secrets([line])[0]
    assert without_registry_secrets(['+sandbox_image = "pause"']) == ('+sandbox_image = "pause"',)


async def test_the_kubeconfig_may_be_asked_for_with_a_relative_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    admin = {"kind": "Config", "users": []}
    target = tmp_path / "new" / "admin.conf"

    def phase() -> LocalKubeconfig:
        return LocalKubeconfig("c", admin, Path("new/admin.conf"), merge=False)

    assert [change.target for change in await phase().run(Events())] == [str(target)]
    assert kubeconfig.load(target.read_bytes(), "") == admin
    assert stat.S_IMODE(target.stat().st_mode) == 0o600
    assert await phase().run(Events()) == []
    target.chmod(0o644)
    assert len(await phase().run(Events())) == 1
    assert stat.S_IMODE(target.stat().st_mode) == 0o600
