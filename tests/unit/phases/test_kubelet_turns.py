"""Kubelets take turns, and a turn ends when the node's Pods are Ready again."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from tests.unit.phases.memory_host import MemoryHost

from kubewright.errors import ApiError
from kubewright.events import Event, Events, Kind
from kubewright.hosts import Completed, HostFacts
from kubewright.model.config.cluster import HostSpec
from kubewright.phases.kubelet_turns import KubeletTurns
from kubewright.phases.node import Node


class Machine(MemoryHost):
    """A node with a kubelet."""

    def __init__(self, name: str, *, active: bool = True) -> None:
        super().__init__()
        self.name = name
        self.active = active
        self.starts = 1

    def restart(self) -> None:
        self.active = True
        self.starts += 1

    async def run(self, argv: Any, **options: Any) -> Completed:
        assert argv[2].startswith("systemctl show")
        state = "active" if self.active else "inactive"
        return Completed(tuple(argv), 0, f"ActiveState={state}\nInvocationID={self.starts}\n".encode())

    @property
    def node(self) -> Node:
        facts = HostFacts.__new__(HostFacts)
        return Node(HostSpec(name=self.name, address="192.0.2.9"), self, facts, "192.0.2.9")


def pod(
    name: str,
    *,
    ready: bool = True,
    since: str = "before",
    probe: str = "readinessProbe",
    going: bool = False,
) -> dict[str, Any]:
    condition = {"type": "Ready", "status": str(ready), "lastTransitionTime": since}
    container: dict[str, Any] = {"name": "c"} | ({probe: {"httpGet": {}}} if probe else {})
    meta = {"namespace": "default", "name": name, "uid": f"uid-{name}"}
    return {
        "metadata": meta | ({"deletionTimestamp": "now"} if going else {}),
        "spec": {"containers": [container]},
        "status": {"phase": "Running", "conditions": [condition]},
    }


class Api:
    """What the API lists, one answer after another; the last one stays."""

    def __init__(self, *answers: list[dict[str, Any]] | Exception) -> None:
        self.answers = list(answers)
        self.asked = 0

    async def list(self, version: str, kind: str, namespace: str = "", *, fields: str = "") -> Any:
        assert (version, kind, namespace) == ("v1", "Pod", "")
        assert fields.startswith("spec.nodeName=w")
        answer = self.answers[min(self.asked, len(self.answers) - 1)]
        self.asked += 1
        if isinstance(answer, Exception):
            raise answer
        return answer


async def take(
    api: Api, act: Callable[[Machine], None] = Machine.restart, **options: float
) -> tuple[int, list[str]]:
    """One turn: how often the API was asked, and the warnings."""
    heard: list[Event] = []
    machine = Machine("w1")
    async with KubeletTurns(Events(heard.append), **options).turn(machine.node, api):  # type: ignore[arg-type]
        act(machine)
    return api.asked, [event.message for event in heard if event.kind is Kind.WARNING]


async def test_pods_that_are_not_ready_for_a_moment_are_waited_for() -> None:
    api = Api([pod("a")], [pod("a")], [pod("a", ready=False, since="then")], [pod("a", since="now")])
    assert await take(api) == (4, [])


@pytest.mark.parametrize("probe", ["readinessProbe", "startupProbe"])
async def test_what_the_api_says_from_before_the_restart_is_not_believed(probe: str) -> None:
    api = Api([pod("a", probe=probe)], [pod("a", probe=probe)], [pod("a", since="now", probe=probe)])
    assert await take(api) == (3, [])


async def test_a_pod_without_a_probe_is_ready_at_once() -> None:
    assert await take(Api([pod("a", probe="")])) == (2, [])


async def test_a_pod_that_never_was_unready_is_let_go_after_a_while() -> None:
    assert await take(Api([pod("a")]), settled=0.0) == (2, [])


@pytest.mark.parametrize("then", [[], [pod("a", ready=False, going=True)], [pod("b", ready=False)]])
async def test_pods_that_have_gone_or_come_are_not_waited_for(then: list[dict[str, Any]]) -> None:
    assert await take(Api([pod("a"), pod("c", ready=False)], then)) == (2, [])


async def test_static_pods_are_not_waited_for() -> None:
    static = pod("kube-apiserver-w1", ready=False, since="now")
    static["metadata"]["annotations"] = {"kubernetes.io/config.mirror": "hash"}
    ready = pod("kube-apiserver-w1")
    ready["metadata"]["annotations"] = static["metadata"]["annotations"]
    assert await take(Api([pod("a"), ready], [pod("a", since="now"), static])) == (2, [])


async def test_a_pod_that_has_done_its_work_is_not_waited_for() -> None:
    done = pod("a", ready=False, since="now")
    done["status"]["phase"] = "Succeeded"
    assert await take(Api([pod("a")], [done])) == (2, [])


async def test_a_pod_that_was_not_ready_before_is_not_waited_for() -> None:
    assert await take(Api([pod("a", ready=False)])) == (1, [])


async def test_a_kubelet_that_was_not_restarted_is_not_waited_for() -> None:
    assert await take(Api([pod("a")]), lambda machine: None) == (1, [])


async def test_pods_that_stay_unready_are_a_warning() -> None:
    _, warnings = await take(Api([pod("a")], [pod("a", ready=False)]), deadline=0.0)
    assert warnings == [
        "w1: 0 s after its kubelet was restarted not all of its Pods are Ready again: "
        "default/a: running, not ready"
    ]


async def test_an_api_that_does_not_answer_for_a_moment_is_asked_again() -> None:
    api = Api([pod("a")], ApiError("away"), [pod("a", since="now")])
    assert await take(api) == (3, [])


@pytest.mark.parametrize("answers", [[ApiError("no", status=403)], [[pod("a")], ApiError("no", status=403)]])
async def test_an_api_that_refuses_stops_nothing(answers: list[Any]) -> None:
    _, warnings = await take(Api(*answers))
    assert len(warnings) == 1
    assert warnings[0].startswith("w1: its Pods are not waited for")


async def test_two_kubelets_do_not_restart_at_once() -> None:
    turns = KubeletTurns(Events())
    machines = Machine("w1"), Machine("w2")
    log: list[str] = []
    first, release = asyncio.Event(), asyncio.Event()

    async def restart(machine: Machine) -> None:
        async with turns.turn(machine.node, Api([pod("a", probe="")])):  # type: ignore[arg-type]
            log.append(f"{machine.name} begins")
            first.set()
            await release.wait()
            machine.restart()
            log.append(f"{machine.name} ends")

    async with asyncio.TaskGroup() as group:
        group.create_task(restart(machines[0]))
        group.create_task(restart(machines[1]))
        await first.wait()
        for _ in range(20):
            await asyncio.sleep(0)
        assert len(log) == 1
        release.set()
    assert [line.split()[1] for line in log] == ["begins", "ends", "begins", "ends"]


async def test_the_next_waits_for_the_pods_of_the_one_before() -> None:
    turns = KubeletTurns(Events())
    away, back = asyncio.Event(), asyncio.Event()
    began: list[str] = []

    class Slow(Api):
        async def list(self, *args: Any, **options: Any) -> Any:
            found = await super().list(*args, **options)
            if self.asked > 1:
                away.set()
                await back.wait()
                return [pod("a", since="now")]
            return found

    async def restart(machine: Machine, api: Api) -> None:
        async with turns.turn(machine.node, api):  # type: ignore[arg-type]
            began.append(machine.name)
            machine.restart()

    async with asyncio.TaskGroup() as group:
        group.create_task(restart(Machine("w1"), Slow([pod("a")])))
        await away.wait()
        group.create_task(restart(Machine("w2"), Api([])))
        for _ in range(20):
            await asyncio.sleep(0)
        assert began == ["w1"]
        back.set()
    assert began == ["w1", "w2"]


async def test_a_kubelet_that_does_not_run_yet_takes_no_turn() -> None:
    turns = KubeletTurns(Events())
    api = Api([])
    async with turns.turn(Machine("w1").node, api), asyncio.timeout(5):  # type: ignore[arg-type]
        new = Machine("w2", active=False)
        async with turns.turn(new.node, api):  # type: ignore[arg-type]
            new.restart()
    assert api.asked == 1


async def test_a_failed_restart_gives_the_turn_on() -> None:
    turns = KubeletTurns(Events())
    api = Api([pod("a")])
    with pytest.raises(ValueError, match="broken"):
        async with turns.turn(Machine("w1").node, api):  # type: ignore[arg-type]
            raise ValueError("broken")
    async with asyncio.timeout(5), turns.turn(Machine("w2").node, api):  # type: ignore[arg-type]
        pass
    assert api.asked == 2
