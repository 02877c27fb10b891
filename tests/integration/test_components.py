"""Components for real: built or out of the cache, then imported and run in a containerd of our own."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from kubewright.components.agent_image import NAME, agent_reference
from kubewright.components.apt import Apt
from kubewright.components.cache import Cache
from kubewright.components.debian_images import local_arch
from kubewright.components.open import open_source
from kubewright.components.source import Artifact, Form, Want
from kubewright.events import Event, Events
from kubewright.model.config.cluster import SourceSpec

pytestmark = pytest.mark.integration

VERSION = "v1.20.2"
ARCH = local_arch()
NAMESPACE = "kubewright-test"
PROGRAMS = [Want(name, VERSION, ARCH, Form.BINARY) for name in ("kubelet", "kubeadm", "kubectl")]
IMAGES = [
    *(
        Want(name, VERSION, ARCH, Form.IMAGE, f"k8s.gcr.io/{name}:{VERSION}")
        for name in ("kube-apiserver", "kube-controller-manager", "kube-scheduler", "kube-proxy")
    ),
    Want("etcd", "3.4.13-0", ARCH, Form.IMAGE, "k8s.gcr.io/etcd:3.4.13-0"),
    Want("pause", "3.2", ARCH, Form.IMAGE, "k8s.gcr.io/pause:3.2"),
    Want(NAME, "v0", ARCH, Form.IMAGE, agent_reference()),
]
MODULES = "aiohttp, dns.resolver, prometheus_client, pyroute2, ssl, kubewright.clients.kube"

# An image, what to run in it, and what it must print.
RUNS = [
    *(
        (f"k8s.gcr.io/{name}:{VERSION}", [name, "--version"], f"Kubernetes {VERSION}")
        for name in ("kube-apiserver", "kube-controller-manager", "kube-scheduler", "kube-proxy")
    ),
    ("k8s.gcr.io/etcd:3.4.13-0", ["etcd", "--version"], "etcd Version: 3.4."),
    ("k8s.gcr.io/etcd:3.4.13-0", ["etcdctl", "version"], "etcdctl version: 3.4."),
    *(
        (f"k8s.gcr.io/kube-proxy:{VERSION}", [program, "--version"], program.partition("-")[0])
        for program in ("iptables", "iptables-save", "ip6tables-restore", "conntrack", "ipset")
    ),
    (agent_reference(), ["python3", "-c", f"import {MODULES}; print('imported')"], "imported"),
    (agent_reference(), ["iptables-restore", "--version"], "iptables-restore"),
]


@pytest.fixture(scope="session")
async def artifacts() -> list[Artifact]:
    return await open_source(SourceSpec()).fetch([*PROGRAMS, *IMAGES], Events())


@dataclass
class Containerd:
    """A containerd that shares nothing with one that may run on this computer, not even /run: what it and its
    programs keep there has no flag to keep it elsewhere."""

    environment: dict[str, str]
    socket: str
    pid: int

    def ctr(self, *arguments: str) -> str:
        done = subprocess.run(
            ["nsenter", "-t", str(self.pid), "-m", "ctr", "-a", self.socket, "-n", NAMESPACE, *arguments],
            env=self.environment, capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip
        assert done.returncode == 0, f"ctr {' '.join(arguments)}: {done.stderr}"
        return done.stdout


@contextmanager
def running(home: Path, environment: dict[str, str]) -> Iterator[Containerd]:
    configuration = home / "config.toml"
    configuration.write_text(
        f'version = 2\nroot = "{home}/root"\nstate = "{home}/state"\n'
        'disabled_plugins = ["io.containerd.grpc.v1.cri"]\n'
        f'[grpc]\naddress = "{home}/sock"\n[ttrpc]\naddress = "{home}/sock.ttrpc"\n'
    )
    with (home / "log").open("w") as log:
        process = subprocess.Popen(
            ["unshare", "-m", "sh", "-c", f"mount -t tmpfs run /run && exec containerd --config {configuration}"],
            env=environment, stdout=log, stderr=log,
        )  # fmt: skip
    try:
        deadline = time.monotonic() + 30
        while not (home / "sock").exists() and time.monotonic() < deadline:
            assert process.poll() is None, (home / "log").read_text()
            time.sleep(0.05)
        yield Containerd(environment, f"{home}/sock", process.pid)
    finally:
        process.terminate()
        process.wait(timeout=30)
        for cgroup in Path("/sys/fs/cgroup").glob(f"**/{NAMESPACE}"):
            with suppress(OSError):
                cgroup.rmdir()


@pytest.fixture(scope="session")
async def containerd(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Containerd]:
    """Debian's containerd and runc, unpacked for these tests by the code that makes images."""
    home = tmp_path_factory.mktemp("containerd")
    apt, root, packages = Apt(Cache()), home / "debian", ["containerd", "runc"]
    await apt.make_root(packages, await apt.resolve(packages, enough=lambda _: False), root)
    environment = {
        **os.environ,
        "PATH": f"{root}/usr/bin:{root}/usr/sbin:/usr/sbin:/usr/bin:/sbin:/bin",
        "LD_LIBRARY_PATH": f"{root}/usr/lib/x86_64-linux-gnu",
    }
    with running(home, environment) as daemon:
        yield daemon
    shutil.rmtree(home)


async def test_programs_are_what_they_are_called(artifacts: list[Artifact]) -> None:
    by_name = {artifact.want.name: artifact for artifact in artifacts}
    said = {
        "kubelet": ["--version"],
        "kubeadm": ["version", "-o", "short"],
        "kubectl": ["version", "--client", "--short"],
    }
    for name, arguments in said.items():
        process = await asyncio.create_subprocess_exec(
            str(by_name[name].path), *arguments, stdout=asyncio.subprocess.PIPE
        )
        output, _ = await process.communicate()
        assert output.decode().split()[-1] == VERSION


async def test_a_warm_fetch_takes_no_time_and_says_nothing(artifacts: list[Artifact]) -> None:
    said: list[Event] = []
    again = await open_source(SourceSpec()).fetch([*PROGRAMS, *IMAGES], Events(said.append))
    assert again == artifacts
    assert said == []


async def test_images_are_imported_under_their_names(
    artifacts: list[Artifact], containerd: Containerd
) -> None:
    images = [artifact for artifact in artifacts if artifact.want.form is Form.IMAGE]
    for artifact in images:
        await asyncio.to_thread(containerd.ctr, "images", "import", str(artifact.path))
    assert set(containerd.ctr("images", "ls", "-q").split()) == {image.want.reference for image in images}
    listed = containerd.ctr("content", "ls")
    assert all(image.image_id in listed for image in images)


@pytest.mark.parametrize(("reference", "argv", "expected"), RUNS, ids=lambda value: str(value)[-30:])
async def test_an_image_runs(
    artifacts: list[Artifact], containerd: Containerd, reference: str, argv: list[str], expected: str
) -> None:
    for artifact in artifacts:
        if artifact.want.reference == reference:
            await asyncio.to_thread(containerd.ctr, "images", "import", str(artifact.path))
    output = ""
    for _ in range(5):  # ctr may lose what a container says that ends at once
        output = output or await asyncio.to_thread(
            containerd.ctr, "run", "--rm", "--privileged", reference, "one", *argv
        )
    assert expected in output


async def test_pause_holds_until_it_is_told_to_end(artifacts: list[Artifact], containerd: Containerd) -> None:
    (pause,) = (artifact for artifact in artifacts if artifact.want.name == "pause")
    await asyncio.to_thread(containerd.ctr, "images", "import", str(pause.path))
    containerd.ctr("run", "--detach", pause.want.reference, "pause")
    try:
        assert "RUNNING" in containerd.ctr("task", "ls")
    finally:
        containerd.ctr("task", "kill", "--signal", "SIGTERM", "pause")
        deadline = time.monotonic() + 10
        while "STOPPED" not in containerd.ctr("task", "ls"):
            assert time.monotonic() < deadline, containerd.ctr("task", "ls")
            await asyncio.sleep(0.05)
        deleted = containerd.ctr("task", "delete", "pause")
        containerd.ctr("containers", "delete", "pause")
    assert deleted == ""  # ctr prints nothing where the exit code is 0
