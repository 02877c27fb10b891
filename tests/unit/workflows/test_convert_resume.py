"""A conversion goes on: a kubelet that its killed run has stopped is started before the check refuses its Node."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from tests.unit.phases.memory_host import MemoryHost
from tests.unit.phases.test_endpoint_services import FACTS

from kubewright.errors import HostError
from kubewright.events import Event, Events
from kubewright.hosts import Completed
from kubewright.model.config.cluster import HostSpec
from kubewright.model.conversion import Mode, Record
from kubewright.phases.node import Node
from kubewright.workflows.convert_resume import wake

RECORD = Record(
    "20261122-101500", Mode.TO_HA, datetime(2026, 11, 22, tzinfo=UTC), "https://192.0.2.1:6443",
    "192.0.2.9:6443", ("cp1",), ("cp1", "w1", "gone"),
)  # fmt: skip


class Machine(MemoryHost):
    """A host with a kubelet."""

    def __init__(self, name: str, *, active: bool, broken: bool = False) -> None:
        super().__init__()
        self.name = name
        self.active = active
        self.broken = broken
        self.starts = 0

    async def run(self, argv: Any, **options: Any) -> Completed:
        if argv[:2] == ["systemctl", "is-active"]:
            return Completed(tuple(argv), 0, b"active\n" if self.active else b"inactive\n")
        if "systemctl start" in argv[2]:
            self.starts += 1
            self.active = not self.broken
            return Completed(tuple(argv), int(self.broken))
        return Completed(tuple(argv), 0)


async def woken(*machines: Machine) -> list[Event]:
    seen: list[Event] = []
    nodes = [
        Node(HostSpec.model_validate({"name": host.name, "address": "192.0.2.1"}), host, FACTS, "192.0.2.1")
        for host in machines
    ]
    await wake(nodes, RECORD, Events(seen.append))
    return seen


async def test_only_what_was_a_node_and_does_not_run_is_started() -> None:
    """A host that is half added has a kubelet that `apply` sees to."""
    machines = Machine("cp1", active=True), Machine("w1", active=False), Machine("cp2", active=False)
    seen = await woken(*machines)
    assert [host.starts for host in machines] == [0, 1, 0]
    assert {event.host for event in seen} == {"w1"}, "of the others nothing is said"


async def test_a_kubelet_that_does_not_start_is_told_with_its_host() -> None:
    with pytest.raises(HostError, match="w1: the kubelet does not start"):
        await woken(Machine("w1", active=False, broken=True))
