"""Which control plane is asked, and that what goes wrong with its answer stays what it is."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from tests.unit.workflows.test_remove import machine

from kubewright.errors import HostError, KubewrightError
from kubewright.model.config.cluster import Role
from kubewright.phases.node import Node
from kubewright.workflows import any_plane as module
from kubewright.workflows.any_plane import any_plane


class Api:
    def __init__(self, ready: bool) -> None:
        self.ready = ready

    async def healthz(self, *_: object, **__: object) -> bool:
        return self.ready


@pytest.fixture
def planes(monkeypatch: pytest.MonkeyPatch) -> list[Node]:
    """cp1 is no control plane yet, cp2's API server is not ready, cp3's is."""

    async def server(node: Node) -> str:
        if node.name == "cp1":
            raise HostError("cp1: there is no admin.conf")
        return node.name

    @asynccontextmanager
    async def over(_host: object, name: str) -> AsyncIterator[Any]:
        yield Api(name == "cp3")

    monkeypatch.setattr(module, "_server", server)
    monkeypatch.setattr(module, "api_over", over)
    return [machine(name, Role.CONTROL_PLANE) for name in ("cp1", "cp2", "cp3")]


async def test_the_first_that_serves_is_asked(planes: list[Node]) -> None:
    async with any_plane(planes) as (through, kube, failures):
        assert through is planes[2]
        assert kube is not None
        assert failures == ["cp1: there is no admin.conf", "cp2: its API server is not ready"]


async def test_none_that_serves_is_said_and_no_error(planes: list[Node]) -> None:
    async with any_plane(planes[:2]) as (through, kube, failures):
        assert (through, kube, len(failures)) == (None, None, 2)


async def test_what_fails_afterwards_is_not_taken_for_a_plane_that_does_not_serve(planes: list[Node]) -> None:
    with pytest.raises(KubewrightError, match="refused"):
        async with any_plane(planes):
            raise KubewrightError("refused")
