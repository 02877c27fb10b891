"""What all unit tests share: short pauses, kept bytecode, and a heap that is not searched again and again."""

from __future__ import annotations

import asyncio
import gc
import os
import sys
from collections.abc import Generator, Iterator
from typing import Any

import pytest

PAUSING = tuple(
    f"kubewright.phases.{name}" for name in ("alive", "discovery", "etcd_members", "objects", "waiting")
)
"""Where a pause lies between two looks at the same thing."""
PAUSE = 0.01


class Brisk:
    """asyncio, but for its `sleep`."""

    def __getattr__(self, name: str) -> Any:
        return getattr(asyncio, name)

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(min(seconds, PAUSE))


@pytest.fixture(scope="module", autouse=True)
def short_pauses() -> Iterator[None]:
    """Phases pause for as long as a machine may need; what they look at here has changed at once."""
    with pytest.MonkeyPatch.context() as patch:
        for name in PAUSING:
            if module := sys.modules.get(name):
                patch.setattr(module, "asyncio", Brisk())
        yield


def pytest_configure(config: pytest.Config) -> None:
    """Keep bytecode where none may lie beside the sources: else each process compiles all of them anew.

    Those are the workers, which rewrite the assertions of all tests, too, and the programs that tests start.
    """
    cache = getattr(config, "cache", None)  # there is none with `-p no:cacheprovider`
    if sys.dont_write_bytecode and cache is not None:
        sys.pycache_prefix = str(cache.mkdir("bytecode"))
        sys.dont_write_bytecode = False
        os.environ["PYTHONPYCACHEPREFIX"] = sys.pycache_prefix
        os.environ.pop("PYTHONDONTWRITEBYTECODE", None)


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """All that is made here stays: the collector need not look at it, now or in each of its rounds later."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()
