"""The record of a conversion on the control planes that there were: written, found again, ended and removed."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from typing import ClassVar

from kubewright.errors import ExitCode, HostError
from kubewright.events import Activity
from kubewright.hosts import FileWrite, Host
from kubewright.model.conversion import RECORD, Record, parse_record
from kubewright.phases.files import differing, file_changes
from kubewright.phases.node import Node
from kubewright.phases.phase import Action, Change, Phase

_MODE = 0o600


class RecordKept(Phase):
    """The record stands on these control planes before anything is changed. That of an ended one gives way."""

    name: ClassVar[str] = "conversion-record"
    title: ClassVar[str] = "note that a conversion is under way"

    def __init__(self, planes: Sequence[Node], record: Record) -> None:
        self._planes = planes
        self._record = record
        self._wanted: list[Node] = []

    async def look(self) -> list[Change]:
        """On which of them it is missing, or another. Raises `HostError` where another one is unfinished, and
        `ConfigError` for one that cannot be read."""
        _only([*await _unfinished(self._planes), ("", self._record)])
        file = FileWrite(RECORD, self._record.text(), _MODE)
        async with asyncio.TaskGroup() as group:
            tasks = [(node, group.create_task(differing(node.host, [file]))) for node in self._planes]
        self._wanted = [node for node, task in tasks if task.result()]
        return [change for node in self._wanted for change in await file_changes(node.host, [file])]

    async def act(self, changes: Sequence[Change], activity: Activity) -> None:
        """Write it."""
        async with asyncio.TaskGroup() as group:
            for node in self._wanted:
                group.create_task(node.host.write_file(RECORD, self._record.text(), mode=_MODE))


class RecordEnded(Phase):
    """The record says on all control planes that have it that the conversion has ended."""

    name: ClassVar[str] = "conversion-ended"
    title: ClassVar[str] = "note that the conversion has ended"

    def __init__(self, planes: Sequence[Node], record: Record, ended: datetime) -> None:
        """`ended` is in UTC. Records of other conversions stay what they are."""
        self._planes = planes
        self._record = record
        self._ended = replace(record, ended=ended)
        self._wanted: list[Node] = []

    async def look(self) -> list[Change]:
        """On which of them it is unfinished."""
        unfinished = {name for name, found in await _unfinished(self._planes) if found.id == self._record.id}
        self._wanted = [node for node in self._planes if node.name in unfinished]
        return [Change(Action.UPDATE, RECORD, node.name) for node in self._wanted]

    async def act(self, changes: Sequence[Change], activity: Activity) -> None:
        """Write when it ended."""
        async with asyncio.TaskGroup() as group:
            for node in self._wanted:
                group.create_task(node.host.write_file(RECORD, self._ended.text(), mode=_MODE))


async def read(nodes: Sequence[Node]) -> Record | None:
    """The conversion that is unfinished, from whichever of the hosts has it; None where there is none.

    Raises `HostError` where hosts have different ones, and `ConfigError` for a record that cannot be read.
    """
    return _only(await _unfinished(nodes))


async def forget(host: Host) -> None:
    """Remove the record from a host."""
    await host.run(["rm", "-f", RECORD])


async def _unfinished(nodes: Sequence[Node]) -> list[tuple[str, Record]]:
    """The unfinished records, each with its host's name."""
    async with asyncio.TaskGroup() as group:
        tasks = [(node, group.create_task(node.host.read_file(RECORD))) for node in nodes]
    found = [(node, task.result()) for node, task in tasks]
    records = [
        (node.name, parse_record(content, f"{node.name}: {RECORD}"))
        for node, content in found
        if content is not None
    ]
    return [(name, record) for name, record in records if record.unfinished]


def _only(found: Sequence[tuple[str, Record]]) -> Record | None:
    """The one that all of them are. Raises `HostError` where they differ."""
    if not found:
        return None
    name, first = found[0]
    if any(record != first for _, record in found[1:]):
        raise HostError(
            f"{name}: {RECORD} says that another conversion is under way here than elsewhere",
            host=name, exit_code=ExitCode.HOST_NOT_FIT,
            evidence=[
                f"{other or 'this run'}: {record.mode} to {record.to}, begun {record.began:%Y-%m-%d %H:%M:%S}, "
                f"backup {record.id}"
                for other, record in found
            ],
            hint="finish the one that is right with its own cluster.yaml, or take it back by its backup; the "
            "other's file can then be removed",
        )  # fmt: skip
    return first
