"""What `doctor --fix` does on a host, and what it leaves alone."""

from __future__ import annotations

import subprocess
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.unit.phases.memory_host import MemoryHost
from tests.unit.phases.rooted_host import rooted_node

from kubewright.clients.cri import Sandbox
from kubewright.errors import HostError
from kubewright.events import Events
from kubewright.hosts import Completed
from kubewright.model.doctor.finding import Fix
from kubewright.phases import doctor_fixes
from kubewright.phases.doctor_fixes import (
    ACCOUNTING_PATH,
    CgroupAccounting,
    FreeAddresses,
    RemoveBridge,
    StartKubelet,
    phase_of,
)
from kubewright.phases.make_fit import SwapOff
from kubewright.phases.prepare import Kernel


class Cri:
    """A runtime with one sandbox."""

    async def sandboxes(self) -> list[Sandbox]:
        return [Sandbox("live", "web", "default", "u", 0, ready=True)]


@asynccontextmanager
async def open_cri(*_: object, **__: object) -> AsyncIterator[Cri]:
    yield Cri()


class Networks(MemoryHost):
    """A host whose reservations are in a folder of this computer's."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.folder = folder

    async def run(self, argv: Sequence[str], **_: Any) -> Completed:
        words = [word.replace("/var/lib/cni/networks", str(self.folder)) for word in argv]
        done = subprocess.run(words, capture_output=True, check=True, timeout=60)  # noqa: ASYNC221
        return Completed(tuple(argv), done.returncode, done.stdout)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Reservations that are an hour old, and one of now."""
    import os

    monkeypatch.setattr(doctor_fixes, "open_cri", open_cri)
    network = tmp_path / "cbr0"
    network.mkdir()
    for name, text in (
        ("10.1.1.2", "live\r\neth0"),
        ("10.1.1.3", "gone\r\neth0"),
        ("10.1.1.4", ""),
        ("lock", ""),
    ):
        path = network / name
        path.write_text(text)
        os.utime(path, (path.stat().st_mtime - 3600,) * 2)
    (network / "10.1.1.5").write_text("new\r\neth0")
    (network / "last_reserved_ip.0").write_text("10.1.1.5")
    return tmp_path


async def test_the_dead_addresses_alone_are_freed(folder: Path) -> None:
    phase = FreeAddresses(Networks(folder), "cbr0", "/run/x.sock")
    changes = await phase.run(Events())
    assert [change.target for change in changes] == [
        "/var/lib/cni/networks/cbr0/10.1.1.3", "/var/lib/cni/networks/cbr0/10.1.1.4",
    ]  # fmt: skip
    assert {path.name for path in (folder / "cbr0").iterdir()} == {
        "10.1.1.2", "10.1.1.5", "lock", "last_reserved_ip.0",
    }  # fmt: skip
    assert await phase.look() == []


async def test_an_address_that_somebody_has_taken_meanwhile_stays(folder: Path) -> None:
    phase = FreeAddresses(Networks(folder), "cbr0", "/run/x.sock")
    changes = await phase.look()
    (folder / "cbr0" / "10.1.1.3").write_text("other\r\neth0")
    await phase.act(changes, None)  # type: ignore[arg-type]
    assert (folder / "cbr0" / "10.1.1.3").exists()
    assert not (folder / "cbr0" / "10.1.1.4").exists()


class Systemd(MemoryHost):
    """A host whose kubelet starts, or does not."""

    def __init__(self, *, starts: bool = True) -> None:
        super().__init__()
        self.starts = starts

    async def run(self, argv: Sequence[str], **_: Any) -> Completed:
        self.commands.append(tuple(argv))
        active = "is-active" not in argv or self.starts
        return Completed(
            tuple(argv), 0 if active else 3, b"ActiveState=failed\n@@\nflag provided but not defined\n"
        )


async def test_accounting_is_turned_on_once() -> None:
    host = Systemd()
    assert len(await CgroupAccounting(host).run(Events())) == 2
    assert host.files[ACCOUNTING_PATH].data == b"[Service]\nCPUAccounting=true\nMemoryAccounting=true\n"
    assert [words[1] for words in host.commands] == ["daemon-reload", "restart", "is-active"]
    assert list(await CgroupAccounting(host).run(Events())) == []


async def test_a_kubelet_that_does_not_start_with_it_is_an_error_with_the_way_back() -> None:
    with pytest.raises(HostError, match="does not run with the drop-in") as caught:
        await CgroupAccounting(Systemd(starts=False)).run(Events())
    assert "flag provided but not defined" in caught.value.evidence
    assert ACCOUNTING_PATH in caught.value.hint


class Links(MemoryHost):
    """A host with one bridge."""

    async def run(self, argv: Sequence[str], **_: Any) -> Completed:
        self.commands.append(tuple(argv))
        return Completed(tuple(argv), 0, b"7: cni0: <BROADCAST>" if "cni0" in argv else b"")


async def test_a_bridge_is_removed_and_no_other_link() -> None:
    host = Links()
    assert len(await RemoveBridge(host, "cni0").run(Events())) == 1
    assert host.commands[-1] == ("ip", "link", "delete", "dev", "cni0", "type", "bridge")
    assert list(await RemoveBridge(host, "eth0").run(Events())) == []
    assert not any("eth0" in words and "delete" in words for words in host.commands)


class Kubelet(MemoryHost):
    """A host whose kubelet's unit has a state, which starting and enabling it changes."""

    def __init__(self, enabled: str = "disabled", active: str = "inactive", *, starts: bool = True) -> None:
        super().__init__()
        self.enabled, self.active, self.starts = enabled, active, starts

    async def run(self, argv: Sequence[str], **_: Any) -> Completed:
        self.commands.append(tuple(argv))
        if argv[1] == "enable":
            self.enabled = "enabled"
        if argv[1] == "start":
            self.active = "active" if self.starts else "failed"
        said = {"is-enabled": self.enabled, "is-active": self.active}.get(argv[1], "")
        return Completed(tuple(argv), 3 if said in ("inactive", "failed") else 0, f"{said}\n".encode())


async def test_a_kubelet_that_was_stopped_is_started_and_enabled() -> None:
    host = Kubelet()
    changes = await StartKubelet(host).run(Events())
    assert [change.target for change in changes] == ["systemctl enable kubelet", "systemctl start kubelet"]
    assert (host.enabled, host.active) == ("enabled", "active")
    assert list(await StartKubelet(host).run(Events())) == []


async def test_a_kubelet_that_runs_is_only_enabled() -> None:
    changes = await StartKubelet(Kubelet(active="active")).run(Events())
    assert [change.target for change in changes] == ["systemctl enable kubelet"]


async def test_a_kubelet_that_somebody_has_masked_is_left() -> None:
    host = Kubelet("masked")
    assert list(await StartKubelet(host).run(Events())) == []
    assert {words[1] for words in host.commands} <= {"is-enabled", "is-active"}


async def test_a_kubelet_that_does_not_start_is_an_error() -> None:
    with pytest.raises(HostError, match="does not run after its start"):
        await StartKubelet(Kubelet(starts=False)).run(Events())


@pytest.mark.parametrize(
    ("name", "arguments", "phase"),
    [
        ("free-addresses", ("cbr0",), FreeAddresses),
        ("cgroup-accounting", (), CgroupAccounting),
        ("remove-bridge", ("cni0",), RemoveBridge),
        ("swap-off", (), SwapOff),
        ("kernel-settings", (), Kernel),
        ("start-kubelet", (), StartKubelet),
    ],
)
async def test_each_fix_has_its_phase(
    tmp_path: Path, name: str, arguments: tuple[str, ...], phase: type
) -> None:
    node = rooted_node(tmp_path)
    assert isinstance(await phase_of(Fix(name, "x", "cp1", arguments), node.host, "s"), phase)


async def test_there_is_no_other_fix() -> None:
    with pytest.raises(AssertionError):
        await phase_of(Fix("x", "x", "w1"), MemoryHost(), "s")
