"""A semaphore whose limit can be lowered while it is in use: how many commands run at once on a connection."""

from __future__ import annotations

import asyncio
from collections import deque
from types import TracebackType


class Slots:
    """`async with slots` waits until fewer than `limit` are in use; those who wait longest come first."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.used = 0
        self._waiting: deque[asyncio.Future[None]] = deque()

    async def take(self) -> None:
        """Wait for a slot and take it."""
        while self.used >= self.limit:
            turn = asyncio.get_running_loop().create_future()
            self._waiting.append(turn)
            try:
                await turn
            except asyncio.CancelledError:
                if turn.done() and not turn.cancelled():
                    self._wake()  # our turn had come: it is the next one's
                raise
        self.used += 1

    def give_back(self) -> None:
        """Give a slot back. Never waits, so that it is safe while a task is being cancelled."""
        self.used -= 1
        self._wake()

    def _wake(self) -> None:
        while self._waiting and self.used < self.limit:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(None)
                return

    async def refused(self) -> bool:
        """The other side allows no more than the others hold: lower the limit to that and take a slot anew.

        False where nobody else holds any, so that waiting would be in vain.
        """
        if self.used <= 1:
            return False
        self.limit = max(1, self.used - 1)
        self.used -= 1
        try:
            await self.take()
        except asyncio.CancelledError:
            self.used += 1  # whoever took the slot gives it back
            raise
        return True

    async def __aenter__(self) -> None:
        await self.take()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.give_back()
