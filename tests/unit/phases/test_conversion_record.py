"""The record of a conversion on its hosts, whichever of them a killed run has reached."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from tests.unit.model.test_conversion import RECORD as CONVERSION
from tests.unit.phases.memory_host import KilledError, MemoryHost
from tests.unit.phases.test_endpoint_services import FACTS

from kubewright.errors import ConfigError, HostError
from kubewright.events import Events
from kubewright.hosts import Completed, FileWrite
from kubewright.model.config.cluster import HostSpec, Role
from kubewright.model.conversion import RECORD, Record
from kubewright.phases.conversion_record import RecordEnded, RecordKept, forget, read
from kubewright.phases.node import Node

ENDED = datetime(2026, 3, 1, 13, tzinfo=UTC)
OTHER = replace(CONVERSION, id="other")
QUIET = Events(lambda _: None)


class Removing(MemoryHost):
    async def run(self, argv: Any, **options: Any) -> Completed:
        assert argv[:2] == ["rm", "-f"]
        self.files.pop(argv[2], None)
        return Completed(tuple(argv), 0)


def plane(name: str, record: Record | None = None) -> Node:
    host = Removing()
    host.name = name
    if record is not None:
        host.files[RECORD] = FileWrite(RECORD, record.text(), 0o600)
    return Node(HostSpec(name=name, address=name, roles=[Role.CONTROL_PLANE]), host, FACTS, "10.0.0.1")


def file_of(node: Node) -> FileWrite:
    assert isinstance(node.host, MemoryHost)
    return node.host.files[RECORD]


async def test_it_is_written_for_root_alone_and_only_once() -> None:
    planes = [plane("cp1"), plane("cp2")]
    changes = await RecordKept(planes, CONVERSION).run(QUIET)
    assert [(change.host, change.target) for change in changes] == [("cp1", RECORD), ("cp2", RECORD)]
    assert [file_of(node).mode for node in planes] == [0o600, 0o600]
    assert await RecordKept(planes, CONVERSION).run(QUIET) == []
    assert await read(planes) == CONVERSION


async def test_a_run_that_was_killed_between_two_hosts_is_found_and_finished() -> None:
    planes = [plane("cp1"), plane("cp2")]
    assert isinstance(planes[1].host, MemoryHost)
    planes[1].host.dies_after = 0
    with pytest.raises(ExceptionGroup) as caught:
        await RecordKept(planes, CONVERSION).run(QUIET)
    assert caught.group_contains(KilledError)
    planes[1].host.dies_after = None
    assert await read(planes) == CONVERSION
    assert [change.host for change in await RecordKept(planes, CONVERSION).run(QUIET)] == ["cp2"]


async def test_none_is_found_where_all_have_ended() -> None:
    assert await read([plane("cp1"), plane("cp2", replace(CONVERSION, ended=ENDED))]) is None


async def test_the_end_is_written_where_it_was_unfinished_and_an_interrupted_end_goes_on() -> None:
    planes = [plane("cp1", replace(CONVERSION, ended=ENDED)), plane("cp2", CONVERSION), plane("cp3")]
    assert await read(planes) == CONVERSION
    changes = await RecordEnded(planes, CONVERSION, ENDED).run(QUIET)
    assert [change.host for change in changes] == ["cp2"]
    assert file_of(planes[1]).data == replace(CONVERSION, ended=ENDED).text()
    assert file_of(planes[1]).mode == 0o600
    assert await read(planes) is None
    assert await RecordEnded(planes, CONVERSION, ENDED).run(QUIET) == []


async def test_the_end_of_one_is_not_another_ones() -> None:
    planes = [plane("cp1", OTHER)]
    assert await RecordEnded(planes, CONVERSION, ENDED).run(QUIET) == []
    assert await read(planes) == OTHER


async def test_two_that_are_unfinished_are_an_error() -> None:
    with pytest.raises(HostError, match=r"cp1: .* another conversion") as caught:
        await read([plane("cp1", CONVERSION), plane("cp2", OTHER)])
    assert [line.partition(":")[0] for line in caught.value.evidence] == ["cp1", "cp2"]


async def test_an_unfinished_one_is_not_written_over_but_an_ended_one_is() -> None:
    planes = [plane("cp1", OTHER)]
    with pytest.raises(HostError, match="another conversion"):
        await RecordKept(planes, CONVERSION).run(QUIET)
    planes = [plane("cp1", replace(OTHER, ended=ENDED))]
    await RecordKept(planes, CONVERSION).run(QUIET)
    assert await read(planes) == CONVERSION


async def test_a_damaged_one_is_named_with_its_host() -> None:
    node = plane("cp1")
    assert isinstance(node.host, MemoryHost)
    node.host.files[RECORD] = FileWrite(RECORD, b"{")
    with pytest.raises(ConfigError, match=f"cp1: {RECORD} is damaged"):
        await read([node])


async def test_it_is_forgotten() -> None:
    node = plane("cp1", CONVERSION)
    await forget(node.host)
    assert await read([node]) is None
