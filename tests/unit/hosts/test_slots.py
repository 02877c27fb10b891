"""Slots: never more than the limit at once, and none lost whatever is cancelled."""

from __future__ import annotations

import asyncio

import pytest

from kubewright.hosts.slots import Slots


async def test_never_more_than_the_limit() -> None:
    slots, most = Slots(3), 0

    async def work() -> None:
        nonlocal most
        async with slots:
            most = max(most, slots.used)
            await asyncio.sleep(0)

    await asyncio.gather(*(work() for _ in range(20)))
    assert (most, slots.used) == (3, 0)


@pytest.mark.parametrize("victims", [range(5), range(0, 10, 2), [9], [0]])
async def test_cancelled_waiters_lose_no_slot(victims: list[int]) -> None:
    slots = Slots(1)
    await slots.take()
    waiting = [asyncio.create_task(slots.take()) for _ in range(10)]
    await asyncio.sleep(0)
    slots.give_back()  # the first in the queue has its turn, and may be cancelled before it runs
    for index in victims:
        waiting[index].cancel()
    done = 0
    while done < 10 - len(victims):
        await asyncio.sleep(0)
        finished = sum(task.done() and not task.cancelled() for task in waiting)
        if finished > done:
            done = finished
            slots.give_back()
        elif all(task.done() for task in waiting):
            break
    assert done == 10 - len(victims)
    assert slots.used == 0


async def test_a_refusal_lowers_the_limit_and_waits() -> None:
    slots = Slots(8)
    for _ in range(3):
        await slots.take()
    again = asyncio.create_task(slots.refused())
    await asyncio.sleep(0)
    assert (slots.limit, slots.used, again.done()) == (2, 2, False)
    slots.give_back()
    assert await again is True
    assert slots.used == 2


async def test_a_refusal_with_nobody_to_wait_for() -> None:
    slots = Slots(8)
    await slots.take()
    assert await slots.refused() is False
    assert slots.used == 1


async def test_a_cancelled_refusal_keeps_the_count() -> None:
    slots = Slots(8)
    await slots.take()
    await slots.take()
    again = asyncio.create_task(slots.refused())
    await asyncio.sleep(0)
    again.cancel()
    with pytest.raises(asyncio.CancelledError):
        await again
    slots.give_back()
    slots.give_back()
    assert slots.used == 0
