"""Waits for what a test has caused."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any


async def until(
    condition: Callable[[], Any], what: str, deadline: float = 15.0, *, every: float = 0.01
) -> float:
    """Wait for a condition (an awaitable's or a plain value); the seconds that it took."""
    began = time.monotonic()
    while True:
        value = condition()
        value = await value if asyncio.iscoroutine(value) else value
        if value:
            return time.monotonic() - began
        assert time.monotonic() - began < deadline, f"not within {deadline:g} s: {what}"
        await asyncio.sleep(every)
