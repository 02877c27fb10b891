"""How long `doctor` waits for whom: for hosts that are dead, frozen or slow."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from typing import Any

import pytest
from tests.unit.workflows.test_doctor_host import JOINED, Machine
from tests.unit.workflows.virtual_time import waited

from kubewright.errors import HostError
from kubewright.events import Event, Events, Kind, Listener
from kubewright.hosts import Completed
from kubewright.model.config.cluster import HostSpec, Role
from kubewright.model.doctor.look import LOOK
from kubewright.workflows.doctor import PAUSE, Doctor, Examination
from kubewright.workflows.doctor_host import DoctorHost
from kubewright.workflows.status_host import REACH, REACH_AGAIN
from kubewright.workflows.status_parts import Wanted

FOREVER = 10_000.0


class Slow(Machine):
    """A host that takes its time to show its files, and to print its look."""

    def __init__(self, files: float = 0.0, look: float = 0.0) -> None:
        super().__init__()
        self.files_after, self.look_after = files, look

    async def read_files(self, paths: Iterable[str]) -> dict[str, bytes]:
        await self._late(self.files_after)
        return await super().read_files(paths)

    async def run(self, argv: Sequence[str], **options: Any) -> Completed:
        if LOOK in argv:
            await self._late(self.look_after)
        return await super().run(argv, **options)

    async def _late(self, seconds: float) -> None:
        try:
            await asyncio.sleep(seconds)
        except asyncio.CancelledError:
            await asyncio.sleep(5)  # over SSH, to end a command on a frozen host
            raise


class Refusing(Machine):
    def __init__(self) -> None:
        super().__init__()
        self.error = HostError("it cannot be reached: connection refused", host="x")


class FreezesAfterwards(Slow):
    """It shows its files once."""

    async def read_files(self, paths: Iterable[str]) -> dict[str, bytes]:
        found = await super().read_files(paths)
        self.files_after = FOREVER
        return found


def cluster(*others: Machine) -> list[DoctorHost]:
    """Ten hosts; those that are not given are well, but for a runtime."""
    machines = [*others, *(Machine() for _ in range(10 - len(others)))]
    hosts = []
    for number, machine in enumerate(machines):
        machine.name = f"n{number}"
        spec = HostSpec(name=machine.name, address=f"192.0.2.{number + 1}", roles=[Role.WORKER])
        hosts.append(
            DoctorHost(spec, lambda one=machine: one, "/etc/kubernetes/pki", Wanted(), certain=True)  # type: ignore[misc]
        )
    return hosts


def examined(hosts: list[DoctorHost], *listeners: Listener) -> tuple[Examination, float]:
    async def work() -> Examination:
        async with Doctor(hosts) as one:
            return await one.examine(Events(*listeners))

    return waited(work())


def silent(found: Examination) -> list[str]:
    return [host for one in found.findings if one.kind == "host-silent" for host in one.hosts]


def test_hosts_that_answer_are_waited_for_no_longer_than_the_pause() -> None:
    found, seconds = examined(cluster())
    assert found.findings
    assert seconds == PAUSE


def test_a_frozen_host_is_waited_for_once_and_then_less() -> None:
    """What it takes to end the connection to it is waited for beside all else, and at the end."""
    found, seconds = examined(cluster(Slow(FOREVER), Refusing()))
    assert silent(found) == ["n0", "n1"]
    assert REACH + REACH_AGAIN <= seconds <= REACH + REACH_AGAIN + 5.5


def test_a_host_that_freezes_between_the_looks_is_not_reported_and_holds_nobody_up() -> None:
    found, seconds = examined(cluster(FreezesAfterwards()))
    assert silent(found) == []
    assert seconds <= PAUSE + REACH + 5.5


def test_hosts_that_refuse_at_once_have_the_pause_to_come_back() -> None:
    hosts = cluster(*(Refusing() for _ in range(10)))
    found, seconds = examined(hosts)
    assert len(silent(found)) == 10
    assert seconds == PAUSE


def test_a_look_that_hangs_is_waited_for_less_the_second_time() -> None:
    found, seconds = examined(cluster(Slow(look=FOREVER)))
    assert silent(found) == ["n0"]
    assert seconds <= 24


class StartedAgain(Machine):
    """Its kubelet has ended four times and runs for 2 s; it goes on, or ends as often as it is looked at."""

    def __init__(self, *, mended: bool) -> None:
        super().__init__()
        self.mended = mended
        self.first: float | None = None

    async def run(self, argv: Sequence[str], **options: Any) -> Completed:
        now = asyncio.get_running_loop().time()
        self.first = now if self.first is None else self.first
        up = 100.0 + (now - self.first if self.mended else 0.0)
        words = (
            "Id=kubelet.service LoadState=loaded UnitFileState=enabled ActiveState=active SubState=running "
        )
        words += "Result=success MainPID=1 NRestarts=4 ActiveEnterTimestampMonotonic=98000000"
        units = "\n ".join(words.split())
        self.look = f"{JOINED}\n@@ file:/proc/uptime\n {up} 90.0\n\n@@ units\n {units}\n"
        return await super().run(argv, **options)


@pytest.mark.parametrize(("mended", "waited_for"), [(True, 13.0), (False, 26.0)])
def test_a_kubelet_that_was_just_started_again_is_looked_at_until_it_has_got_through_its_start(
    mended: bool, waited_for: float
) -> None:
    """One that was mended a moment ago is no fault, whatever systemd has counted."""
    _, seconds = examined(cluster(StartedAgain(mended=mended)))
    assert seconds == pytest.approx(waited_for)


def test_a_host_that_is_slow_has_the_pause_after_it_has_answered() -> None:
    found, seconds = examined(cluster(Slow(look=3.0)))
    assert silent(found) == []
    assert seconds == 3.0 + PAUSE + 3.0


def test_who_has_answered_is_told_and_who_is_waited_for() -> None:
    told: list[Event] = []
    found, _ = examined(cluster(Slow(FOREVER), Slow(FOREVER)), told.append)
    assert silent(found) == ["n0", "n1"]
    first = [one.message for one in told if one.name == "doctor-ask" and one.kind is Kind.PHASE_PROGRESS]
    assert first[0] == "1 of 10 hosts has answered"
    assert first[-1] == "8 of 10 hosts have answered; not yet: n0, n1"
    assert [one.message for one in told if one.name == "doctor-ask" and one.kind is Kind.PHASE_DONE] == [
        "8 of 10 hosts have answered; silent: n0, n1"
    ]
    again = [one.message for one in told if one.name == "doctor-again" and one.kind is Kind.PHASE_PROGRESS]
    assert again[0] == "wait for what passes by itself"
    assert "8 of 10 hosts have answered; not yet: n0, n1" in again
    assert again[-1] == "packets between nodes"


def test_one_host_is_asked_by_its_name() -> None:
    told: list[Event] = []
    examined(cluster()[:1], told.append)
    assert next(one.message for one in told if one.kind is Kind.PHASE_STARTED) == "ask n0"
