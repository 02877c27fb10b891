"""Comparing two states of a computer."""

from __future__ import annotations

from kubewright.lab import snapshot


def test_what_came_and_what_went_is_named() -> None:
    before = {"mount": frozenset({"/a", "/b"}), "link": frozenset({"eth0"})}
    after = {"mount": frozenset({"/b", "/c"}), "link": frozenset({"eth0"})}
    assert [str(found) for found in snapshot.compare(before, after)] == ["mount: - /a", "mount: + /c"]
    assert [str(found) for found in snapshot.compare(before, after, lambda found: found.added)] == [
        "mount: - /a"
    ]
    assert snapshot.compare(before, before) == []


def test_a_snapshot_is_read_as_it_was_written() -> None:
    taken = {"mount": frozenset({"/a", "/b"}), "link": frozenset[str]()}
    assert snapshot.load(snapshot.dump(taken)) == taken


async def test_this_computer_can_be_looked_at_and_looking_leaves_nothing() -> None:
    taken = await snapshot.take()
    assert {"process", "mount", "network namespace", "cgroup", "file", "link", "kernel setting"} <= set(taken)
    assert any(line.startswith("/ ") for line in taken["mount"])
    assert any('"lo"' in line for line in taken["link"])
