"""Work on many hosts at once: every failure is told, and none hides another."""

from __future__ import annotations

import asyncio

import pytest

from kubewright.errors import HostError
from kubewright.workflows.fleet import AbandonedError, on_all


async def test_one_failure_lets_the_others_end_and_is_raised_itself() -> None:
    ended: list[str] = []

    async def works() -> None:
        await asyncio.sleep(0.01)
        ended.append("b")

    async def fails() -> None:
        raise HostError("broken")

    with pytest.raises(HostError) as caught:
        await on_all({"a": fails(), "b": works()})
    assert ended == ["b"]
    assert caught.value.host == "a"


async def test_several_failures_are_one_group() -> None:
    async def fails(name: str) -> None:
        raise HostError(f"{name} is broken", host=name)

    with pytest.raises(ExceptionGroup) as caught:
        await on_all({"a": fails("a"), "b": fails("b")})
    assert sorted(str(error) for error in caught.value.exceptions) == ["a is broken", "b is broken"]


async def test_an_error_that_several_hosts_share_is_told_once() -> None:
    shared: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    shared.set_exception(HostError("no token"))

    async def waits() -> None:
        await shared

    with pytest.raises(HostError, match="no token"):
        await on_all({"a": waits(), "b": waits()})


async def test_what_waits_for_a_failed_host_is_silent() -> None:
    gate: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def first() -> None:
        gate.set_exception(AbandonedError())
        raise HostError("the cause")

    async def second() -> None:
        await gate

    with pytest.raises(HostError, match="the cause"):
        await on_all({"first": first(), "second": second()})


async def test_a_programming_error_is_not_swallowed() -> None:
    async def wrong() -> None:
        raise ZeroDivisionError

    with pytest.raises(ExceptionGroup) as caught:
        await on_all({"a": wrong()})
    assert caught.group_contains(ZeroDivisionError)


async def test_cancelling_stops_all() -> None:
    stopped: list[str] = []

    async def waits(name: str) -> None:
        try:
            await asyncio.sleep(60)
        finally:
            stopped.append(name)

    task = asyncio.ensure_future(on_all({"a": waits("a"), "b": waits("b")}))
    await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert sorted(stopped) == ["a", "b"]
