"""A look of `status` that takes its time is spoken of."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from kubewright.cli import status
from kubewright.errors import ApiError
from kubewright.events import Events


class Reader:
    """Answers after some seconds, with an error or with itself."""

    def __init__(self, seconds: float, error: ApiError | None = None) -> None:
        self._seconds, self._error = seconds, error
        self.ended = False

    async def read(self) -> Any:
        try:
            await asyncio.sleep(self._seconds)
        finally:
            self.ended = True
        if self._error:
            raise self._error
        return self


def look(reader: Any, seen: list[str]) -> Any:
    return status._read(reader, Events(lambda event: seen.append(str(event.kind))))


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(status, "_A_MOMENT", 0.05)


@pytest.mark.parametrize(("seconds", "said"), [(0.0, []), (0.2, ["phase.started", "phase.done"])])
def test_only_a_look_that_takes_time_is_spoken_of(seconds: float, said: list[str]) -> None:
    reader = Reader(seconds)
    seen: list[str] = []
    assert asyncio.run(look(reader, seen)) is reader
    assert seen == said


def test_an_error_is_the_looks_own() -> None:
    seen: list[str] = []
    with pytest.raises(ApiError, match="nobody answers"):
        asyncio.run(look(Reader(0.2, ApiError("nobody answers")), seen))
    assert seen[-1] == "phase.failed"


def test_one_that_is_interrupted_does_not_go_on() -> None:
    reader = Reader(60)

    async def interrupted() -> None:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(look(reader, []), 0.2)

    asyncio.run(interrupted())
    assert reader.ended
