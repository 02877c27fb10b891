"""Comparing two states of a computer."""

from __future__ import annotations

import pytest

from kubewright.lab import snapshot


def test_what_came_and_what_went_is_named() -> None:
    before = {"mount": frozenset({"/a", "/b"}), "link": frozenset({"eth0"})}
    after = {"mount": frozenset({"/b", "/c"}), "link": frozenset({"eth0"})}
    assert [str(found) for found in snapshot.compare(before, after)] == ["mount: - /a", "mount: + /c"]
    assert [str(found) for found in snapshot.compare(before, after, lambda found: found.added)] == [
        "mount: - /a"
    ]
    assert snapshot.compare(before, before) == []


@pytest.mark.parametrize(
    ("kind", "added", "line", "ours"),
    [
        ("process", True, "7 started 9: /usr/bin/containerd", True),
        ("process", False, "7 started 9: /usr/bin/containerd", False),
        ("process", True, "7 started 9: cron -f", False),
        ("file", True, "/run/netns/cp1", True),
        ("file", True, "/tmp/systemd-private-1", False),
        ("network namespace", True, "net:[4026531840] lab default", True),
        ("network namespace", True, "net:[4026531840]", False),
        ("link", False, "{}", True),
        ("kernel setting", True, "net/ipv4/ip_forward = 1", True),
    ],
)
def test_what_is_ours(kind: str, added: bool, line: str, ours: bool) -> None:
    assert snapshot.ours(snapshot.Difference(kind, added, line)) is ours


def test_a_snapshot_is_read_as_it_was_written() -> None:
    taken = {"mount": frozenset({"/a", "/b"}), "link": frozenset[str]()}
    assert snapshot.load(snapshot.dump(taken)) == taken


async def test_this_computer_can_be_looked_at_and_looking_leaves_nothing() -> None:
    taken = await snapshot.take()
    assert {"process", "mount", "network namespace", "cgroup", "file", "link", "kernel setting"} <= set(taken)
    assert any(line.startswith("/ ") for line in taken["mount"])
    assert any('"lo"' in line for line in taken["link"])
