"""An event loop whose clock goes on only when nobody has anything to do: hours of waiting take no time."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


class _Patient(selectors.DefaultSelector):
    """Does not wait: the time that it should have waited for has passed."""

    passed = 0.0

    def select(self, timeout: float | None = None) -> Any:
        found = super().select(0)
        if not found:
            assert timeout is not None, "everybody waits for nothing"
            self.passed += max(timeout, 0.0)
        return found


class _Loop(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        self._clock = _Patient()
        super().__init__(self._clock)

    def time(self) -> float:
        return self._clock.passed


def waited(work: Coroutine[Any, Any, T]) -> tuple[T, float]:
    """What the work comes to, and how many seconds of waiting it took."""
    with asyncio.Runner(loop_factory=_Loop) as runner:
        result = runner.run(work)
        return result, runner.get_loop().time()
