"""What is said of a systemd unit: its state in systemctl's own words, then its last lines."""

from __future__ import annotations

from typing import Any

import pytest
from tests.unit.phases.memory_host import MemoryHost

from kubewright.hosts import Completed
from kubewright.hosts.units import unit_lines

JOURNAL = "it fell\nand again"


class Host(MemoryHost):
    """One whose systemd says this."""

    def __init__(self, **state: str) -> None:
        super().__init__()
        known = {"LoadState": "loaded", "Result": "success"} | state
        self.said = "".join(f"{name}={value}\n" for name, value in known.items()) if state else ""

    async def run(self, argv: Any, **options: Any) -> Completed:
        assert argv[4:6] == ["containerd", "5"]
        return Completed(tuple(argv), 0, f"{self.said}@@\n{JOURNAL}\n".encode())


@pytest.mark.parametrize(
    ("state", "text"),
    [
        ({"ActiveState": "active", "SubState": "running"}, "containerd: active (running)"),
        ({"ActiveState": "inactive", "SubState": "dead"}, "containerd: inactive (dead)"),
        (
            {"SubState": "failed", "Result": "exit-code", "ActiveState": "failed"},
            "containerd: failed (Result: exit-code)",
        ),
        (
            {"ActiveState": "activating", "SubState": "auto-restart", "Result": "signal"},
            "containerd: activating (auto-restart) (Result: signal)",
        ),
        (
            {"ActiveState": "inactive", "SubState": "dead", "LoadState": "not-found"},
            "containerd: there is no such unit",
        ),
        ({}, "containerd: systemd does not say its state"),
    ],
)
async def test_a_state_in_systemctls_words(state: dict[str, str], text: str) -> None:
    assert await unit_lines(Host(**state), "containerd", 5) == [text, "it fell", "and again"]


async def test_the_journal_of_a_unit_that_was_stopped_is_of_earlier_times() -> None:
    stopped = Host(ActiveState="inactive", SubState="dead")
    assert await unit_lines(stopped, "containerd", 5, of_failure=True) == ["containerd: inactive (dead)"]
    fallen = Host(ActiveState="inactive", SubState="dead", Result="exit-code")
    assert len(await unit_lines(fallen, "containerd", 5, of_failure=True)) == 3
