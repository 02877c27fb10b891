"""Kubelets that run restart one after another, and nobody waits where there is nothing to wait by."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest
from tests.unit.phases.memory_host import MemoryHost

from kubewright.errors import ApiError
from kubewright.events import Event, Events, Kind
from kubewright.hosts import Completed, FileWrite, HostFacts
from kubewright.model.config.cluster import HostSpec, Role
from kubewright.phases.kubelet_turns import KubeletTurns
from kubewright.phases.node import Node
from kubewright.workflows import apply_run
from kubewright.workflows.apply_run import ApplyRun, Outcome

FILES = [FileWrite("/var/lib/kubelet/config.yaml", b"new")]


class Machine(MemoryHost):
    """A host whose kubelet runs, or does not; what is done is written down in `log`."""

    def __init__(self, name: str, log: list[str], state: str) -> None:
        super().__init__()
        self.name, self.log, self.state, self.starts = name, log, state, 1

    async def run(self, argv: Sequence[str], **_: Any) -> Completed:
        script, output = argv[2], ""
        if "systemctl restart" in script:
            self.log.append(f"restart {self.name}")
            self.starts += 1
            self.state = "active enabled"
        elif "is-active" in script:
            output = self.state
        elif script.startswith("systemctl show"):
            output = f"ActiveState={self.state.split()[0]}\nInvocationID={self.starts}"
        await asyncio.sleep(0)  # whoever else may restart now gets the chance
        return Completed(tuple(argv), 0, output.encode())

    def node(self, *roles: Role) -> Node:
        spec = HostSpec(name=self.name, address="192.0.2.9", roles=list(roles))
        return Node(spec, self, HostFacts.__new__(HostFacts), "192.0.2.9")


class Api:
    """Where a Lease is renewed when it is read for the third time; with `error` it answers nobody."""

    def __init__(self, log: list[str], error: ApiError | None = None) -> None:
        self.log, self.error, self.asked = log, error, dict[str, int]()

    async def get(self, _version: str, kind: str, name: str, _namespace: str) -> Any:
        if self.error:
            raise self.error
        assert kind == "Lease"
        self.asked[name] = self.asked.get(name, 0) + 1
        if self.asked[name] == 3:
            self.log.append(f"{name} reports")
        return {"spec": {"renewTime": "now" if self.asked[name] >= 3 else "before"}}

    async def list(self, *_: Any, **__: Any) -> list[Any]:
        return []


def run_of(planes: Sequence[Node], heard: list[Event]) -> ApplyRun:
    run = ApplyRun.__new__(ApplyRun)
    run.dry, run.outcome, run.events, run.planes = False, Outcome(), Events(heard.append), list(planes)
    run.api = asyncio.get_running_loop().create_future()
    run._turns = KubeletTurns(run.events)
    return run


async def restart(
    monkeypatch: pytest.MonkeyPatch,
    *machines: Machine,
    planes: bool = False,
    api: Api | None = None,
    own: Api | None = None,
) -> tuple[list[str], list[str]]:
    """Bring all kubelets to their new files at once; the control planes that were asked for an API, and warnings.

    `api` is the run's, which answers already, and `own` the one that a control plane has.
    """
    heard: list[Event] = []
    asked: list[str] = []

    @asynccontextmanager
    async def any_plane(some: Sequence[Node]) -> AsyncIterator[Any]:
        asked.append(some[0].name)
        yield None, own, []

    monkeypatch.setattr(apply_run, "any_plane", any_plane)
    nodes = [one.node(Role.CONTROL_PLANE if planes else Role.WORKER) for one in machines]
    run = run_of(nodes if planes else [], heard)
    if api is not None:
        run.api.set_result((api, b""))  # type: ignore[arg-type]
    async with asyncio.timeout(20), asyncio.TaskGroup() as group:
        for node in nodes:
            group.create_task(run.kubelet(node, FILES, program_changed=False))
    assert all(one.files[FILES[0].path].data == b"new" for one in machines)
    return asked, [event.message for event in heard if event.kind is Kind.WARNING]


def machines(log: list[str], state: str = "active enabled") -> list[Machine]:
    return [Machine(name, log, state) for name in ("n1", "n2", "n3")]


IN_TURN = ["restart n1", "n1 reports", "restart n2", "n2 reports", "restart n3", "n3 reports"]


async def test_workers_restart_one_after_another(monkeypatch: pytest.MonkeyPatch) -> None:
    log: list[str] = []
    assert await restart(monkeypatch, *machines(log), api=Api(log)) == ([], [])
    assert log == IN_TURN


async def test_a_kubelet_that_runs_and_is_not_enabled_takes_its_turn_too(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    log: list[str] = []
    await restart(monkeypatch, *machines(log, "active disabled"), api=Api(log))
    assert log == IN_TURN


async def test_control_planes_ask_their_own_api_servers_before_the_runs_answers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    log: list[str] = []
    assert await restart(monkeypatch, *machines(log), planes=True, own=Api(log)) == (["n1", "n2", "n3"], [])
    assert log == IN_TURN


async def test_without_an_api_nobody_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    log: list[str] = []
    assert await restart(monkeypatch, *machines(log), planes=True) == (["n1", "n2", "n3"], [])
    assert sorted(log) == ["restart n1", "restart n2", "restart n3"]


async def test_kubelets_that_do_not_run_take_no_turn_and_ask_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    log: list[str] = []
    api = Api(log)
    assert await restart(monkeypatch, *machines(log, "inactive disabled"), planes=True, own=api) == ([], [])
    assert (sorted(log), api.asked) == (["restart n1", "restart n2", "restart n3"], {})


async def test_a_kubelet_that_is_as_it_must_be_takes_no_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    log: list[str] = []
    done = machines(log)
    for one in done:
        one.files[FILES[0].path] = FILES[0]
    assert await restart(monkeypatch, *done, planes=True, own=Api(log)) == ([], [])
    assert log == []


@pytest.mark.parametrize("error", [ApiError("refused", status=403), ApiError("it does not answer")])
async def test_one_that_gives_no_sign_of_life_is_a_warning(
    monkeypatch: pytest.MonkeyPatch, error: ApiError
) -> None:
    monkeypatch.setattr(apply_run, "_REPORTS", 0.1)
    log: list[str] = []
    _, warnings = await restart(monkeypatch, *machines(log), api=Api(log, error))
    assert sorted(log) == ["restart n1", "restart n2", "restart n3"]
    assert [line.partition(":")[0] for line in warnings] == ["n1", "n2", "n3"]
