"""The host that a node command acts on, as a node."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from tests.unit.phases.memory_host import MemoryHost

from kubewright.cli import node
from kubewright.cli.node import NodeOptions, opened_node
from kubewright.errors import ConfigError
from kubewright.hosts import HostFacts


class Odd(MemoryHost):
    """A host whose own name no Node can have."""

    async def facts(self) -> HostFacts:
        return HostFacts(
            "My_Host",
            "debian",
            "12",
            "",
            "amd64",
            "",
            2,
            4 << 30,
            0,
            True,
            "systemd",
            2,
            0,
            "192.0.2.1",
            (),
            (),
        )


@pytest.fixture(autouse=True)
def odd(monkeypatch: pytest.MonkeyPatch) -> None:
    @asynccontextmanager
    async def opened(_: NodeOptions) -> AsyncIterator[MemoryHost]:
        yield Odd()

    monkeypatch.setattr(node, "opened_host", opened)


async def test_a_host_that_becomes_a_node_needs_a_nodes_name() -> None:
    with pytest.raises(ConfigError, match=r"'my_host' cannot be the name of a node \(P14\)"):
        async with opened_node(NodeOptions()):
            pass
    async with opened_node(NodeOptions(), name="CP1") as found:
        assert found.name == "cp1"


async def test_one_that_is_a_node_already_is_taken_as_it_is() -> None:
    """It was given another name when it joined; reset and upgrade have no option to say it again."""
    async with opened_node(NodeOptions(), is_node=True) as found:
        assert found.name == "my_host"
