"""The lock by which one process at a time changes a lab."""

from __future__ import annotations

import asyncio
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from kubewright.errors import ExitCode, KubewrightError
from kubewright.lab import places

NOBODY = "process 4194305\n"
"""With a number that is greater than any that a kernel gives."""


@pytest.fixture
def held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Path, int]]:
    """A lock that somebody has, with the file and its descriptor."""
    monkeypatch.setattr(places, "RUN", tmp_path)
    file = tmp_path / "a.lock"
    descriptor = os.open(file, os.O_RDWR | os.O_CREAT)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    yield file, descriptor
    os.close(descriptor)


async def test_another_process_that_changes_the_lab_is_named(held: tuple[Path, int]) -> None:
    held[0].write_text(f"process {os.getpid()}\n")
    with pytest.raises(KubewrightError, match=f"lab 'a' is being changed .*process {os.getpid()}") as caught:
        async with places.lab_lock("a"):
            pass
    assert caught.value.exit_code is ExitCode.BUSY


async def test_what_a_killed_holder_has_just_begun_is_waited_for(held: tuple[Path, int]) -> None:
    """A child that has not yet become another program holds what its parent held."""
    file, descriptor = held
    file.write_text(NOBODY)
    asyncio.get_running_loop().call_later(0.1, fcntl.flock, descriptor, fcntl.LOCK_UN)
    async with places.lab_lock("a"):
        assert file.read_text() == f"process {os.getpid()}\n"


async def test_it_is_not_waited_for_without_end(
    held: tuple[Path, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(places, "_AFTER_THE_END", 0.1)
    held[0].write_text(NOBODY)
    with pytest.raises(KubewrightError, match="process 4194305"):
        async with places.lab_lock("a"):
            pass
