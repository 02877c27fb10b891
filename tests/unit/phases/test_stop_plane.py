"""The API server and the controllers of a control plane end, whoever has to end them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from tests.unit.phases.memory_host import MemoryHost

from kubewright.clients.cri import CriError, RuntimeContainer, Sandbox
from kubewright.errors import WaitTimeoutError
from kubewright.events import Events
from kubewright.hosts import Completed, FileWrite, HostFacts
from kubewright.model.config.cluster import HostSpec, Role
from kubewright.phases import stop_plane
from kubewright.phases.node import Node
from kubewright.phases.stop_plane import ServersGone

MANIFEST = "/etc/kubernetes/manifests/kube-apiserver.yaml"
FACTS = HostFacts(
    "cp3", "debian", "12", "", "amd64", "", 2, 4 << 30, 0, True, "systemd", 2, 0, "192.0.2.3", (), ()
)  # fmt: skip


class Machine(MemoryHost):
    """A host whose kubelet ends the Pods of manifests that are removed, where it is `active`."""

    def __init__(self, active: bool) -> None:
        super().__init__()
        self.active = active
        self.pods = {"kube-apiserver": "kube-system", "etcd": "kube-system", "kube-scheduler": "users"}
        self.broken = False

    async def run(self, argv: Any, **options: Any) -> Completed:
        if argv[0] == "rm":
            for path in argv[2:]:
                self.files.pop(path, None)
            if self.active:
                self.pods.pop("kube-apiserver", None)
        return Completed(tuple(argv), 0 if self.active else 3)

    # -- its runtime ------------------------------------------------------------------------------------------

    async def containers(self) -> list[RuntimeContainer]:
        if self.broken:
            error = CriError("no container runtime listens on cp3", hint="systemctl enable --now containerd")
            error.evidence = ("containerd: failed",)
            raise error
        return [RuntimeContainer(name, f"pod-{name}", name, 0, True, "") for name in self.pods]

    async def sandboxes(self) -> list[Sandbox]:
        return [
            Sandbox(f"pod-{name}", f"{name}-cp3", space, "", 0, True) for name, space in self.pods.items()
        ]

    async def remove_sandbox(self, identity: str) -> None:
        del self.pods[identity.removeprefix("pod-")]


def phase(monkeypatch: pytest.MonkeyPatch, machine: Machine, *, manifest: bool = True) -> ServersGone:
    @asynccontextmanager
    async def opened(host: Machine, _socket: str) -> AsyncIterator[Machine]:
        yield host

    monkeypatch.setattr(stop_plane, "open_cri", opened)
    monkeypatch.setattr(stop_plane, "_DEADLINE", 0.0)
    if manifest:
        machine.files[MANIFEST] = FileWrite(MANIFEST, b"x")
    spec = HostSpec(name="cp3", address="192.0.2.3", roles=[Role.CONTROL_PLANE])
    return ServersGone(Node(spec, machine, FACTS, "192.0.2.3"), "/run/x.sock")


@pytest.mark.parametrize("active", [True, False])
@pytest.mark.parametrize("manifest", [True, False])
async def test_they_end_and_nothing_else_does(
    monkeypatch: pytest.MonkeyPatch, active: bool, manifest: bool
) -> None:
    """Without a manifest and a kubelet: an earlier run was killed between the two."""
    machine = Machine(active)
    if active and not manifest:
        machine.pods.pop("kube-apiserver")
    stop = phase(monkeypatch, machine, manifest=manifest)
    changes = await stop.run(Events())
    assert bool(changes) is (manifest or not active)
    assert MANIFEST not in machine.files
    assert set(machine.pods) == {"etcd", "kube-scheduler"}
    assert await stop.run(Events()) == []


async def test_what_the_kubelet_ends_is_left_to_it(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine(active=True)
    stop = phase(monkeypatch, machine, manifest=False)
    with pytest.raises(WaitTimeoutError) as caught:
        await stop.run(Events())
    assert "kube-apiserver" in machine.pods
    assert "kubewright node remove cp3 --gone" in caught.value.hint


@pytest.mark.parametrize("active", [True, False])
async def test_a_broken_runtime_is_mended_or_the_host_given_up(
    monkeypatch: pytest.MonkeyPatch, active: bool
) -> None:
    machine = Machine(active)
    machine.broken = True
    stop = phase(monkeypatch, machine)
    assert len(await stop.look()) == 1
    for _ in range(2):  # with its manifest, and without
        with pytest.raises(CriError, match="no container runtime listens on cp3") as caught:
            await stop.run(Events())
        assert "systemctl enable --now containerd" in caught.value.hint
        assert "kubewright node remove cp3 --gone" in caught.value.hint
        assert caught.value.hint.count("--gone") == 1
        assert caught.value.evidence == ("containerd: failed",)
        assert await stop.look() == []
