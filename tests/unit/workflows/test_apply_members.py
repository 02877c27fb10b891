"""In what order members of etcd start: no founder before a majority can, no newcomer beside another."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest

from kubewright.errors import KubewrightError
from kubewright.model.arguments import EtcdMember, peer_url
from kubewright.model.formation import EtcdRole, Formation
from kubewright.workflows import apply_members
from kubewright.workflows.apply_members import Founders, Newcomers, Restarts
from kubewright.workflows.fleet import AbandonedError

ADDRESSES = {f"cp{number}": f"192.0.2.{number}" for number in range(1, 6)}
FOUND, SERVE = EtcdRole.FOUND, EtcdRole.SERVE


def founders(*roles: EtcdRole, lost: int = 0) -> Founders:
    names = list(ADDRESSES)[: len(roles) + lost]
    members = tuple(EtcdMember(name, peer_url(ADDRESSES[name])) for name in names)
    return Founders(Formation(dict(zip(names, roles, strict=False)), members))


async def waits(task: asyncio.Task[None]) -> bool:
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    return not task.done()


# -- founders -----------------------------------------------------------------------------------------------------


async def test_one_alone_waits_for_nobody() -> None:
    await founders(FOUND).ready("cp1")


async def test_the_first_of_three_waits_for_the_second_and_not_for_the_third() -> None:
    three = founders(FOUND, FOUND, FOUND)
    first = asyncio.create_task(three.ready("cp1"))
    assert await waits(first)
    await three.ready("cp3")
    await first
    await three.ready("cp2")


async def test_one_that_fails_is_not_waited_for_by_a_majority() -> None:
    three = founders(FOUND, FOUND, FOUND)
    first = asyncio.create_task(three.ready("cp1"))
    three.ended("cp2")
    assert await waits(first)
    await three.ready("cp3")
    await first


async def test_when_no_majority_can_come_any_more_nobody_starts() -> None:
    three = founders(FOUND, FOUND, FOUND)
    first = asyncio.create_task(three.ready("cp1"))
    three.ended("cp2")
    three.ended("cp3")
    with pytest.raises(AbandonedError):
        await first


async def test_those_that_have_started_and_those_out_of_reach_are_counted() -> None:
    await founders(SERVE, FOUND, FOUND).ready("cp2")
    await founders(FOUND, FOUND, lost=1).ready("cp1")


# -- newcomers ----------------------------------------------------------------------------------------------------


class Line:
    """Newcomers that come one by one, with what etcd says of unfinished members."""

    def __init__(self, names: list[str], announced: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
        self.newcomers = Newcomers(names)
        self.order: list[tuple[str, bool]] = []
        self.inside = 0

        async def unfinished(*_: object) -> set[str]:
            await asyncio.sleep(0)
            return {peer_url(ADDRESSES[name]) for name in announced}

        monkeypatch.setattr(apply_members, "unfinished", unfinished)

    async def come(self, name: str) -> None:
        class Of:
            host = None

        node = cast(Any, Of())
        node.name = name
        async with self.newcomers.turn(node, cast(Any, None), "", ADDRESSES) as announced:
            self.inside += 1
            assert self.inside == 1, "etcd takes one learner at a time"
            await asyncio.sleep(0.005)
            self.order.append((name, announced))
            self.inside -= 1


async def all_of(line: Line, *names: str) -> list[tuple[str, bool]]:
    async with asyncio.TaskGroup() as group:
        for name in names:
            group.create_task(line.come(name))
    return line.order


async def test_newcomers_come_one_after_another(monkeypatch: pytest.MonkeyPatch) -> None:
    line = Line(["cp2", "cp3", "cp4"], [], monkeypatch)
    assert await all_of(line, "cp2", "cp3", "cp4") == [("cp2", False), ("cp3", False), ("cp4", False)]


async def test_one_that_was_announced_before_goes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    line = Line(["cp2", "cp3", "cp4"], ["cp4"], monkeypatch)
    order = await all_of(line, "cp2", "cp3", "cp4")
    assert order[0] == ("cp4", True)
    assert {name for name, _ in order} == {"cp2", "cp3", "cp4"}


async def test_one_that_was_announced_and_fails_early_is_not_waited_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    line = Line(["cp2", "cp3"], ["cp3"], monkeypatch)
    task = asyncio.create_task(line.come("cp2"))
    await asyncio.sleep(0.01)
    assert not task.done()
    line.newcomers.ended("cp3")
    await task


# -- restarts -----------------------------------------------------------------------------------------------------


async def test_one_api_server_changes_at_a_time() -> None:
    restarts, log = Restarts(), []

    async def change(name: str, *, serves: bool = True) -> None:
        async with restarts.turn(serves=serves):
            log.append(f"{name} begins")
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            log.append(f"{name} ends")

    await asyncio.gather(change("cp1"), change("cp2"))
    assert log == ["cp1 begins", "cp1 ends", "cp2 begins", "cp2 ends"]
    log.clear()
    await asyncio.gather(change("cp1"), change("cp2", serves=False))
    assert log[:2] == ["cp1 begins", "cp2 begins"], "one that does not serve waits for nobody"


async def test_what_stops_one_api_server_stops_no_second() -> None:
    restarts = Restarts()
    with pytest.raises(KubewrightError, match="bad flag"):
        async with restarts.turn(serves=True):
            raise KubewrightError("bad flag")
    with pytest.raises(AbandonedError):
        async with restarts.turn(serves=True):
            raise AssertionError("it was touched")
    async with restarts.turn(serves=False):
        pass
