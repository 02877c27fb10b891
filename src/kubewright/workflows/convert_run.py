"""What the stages of one conversion share: how phases are run, what has been done so far, and how long it took."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from kubewright.events import Events
from kubewright.model.conversion import Mode
from kubewright.phases.phase import Change, Phase
from kubewright.workflows.apply import Outcome


@dataclass
class Stage:
    """One stage of a conversion: what it changed, in order."""

    name: str
    title: str
    seconds: float = 0.0
    changes: list[Change] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        """The stage as `-o json` prints it."""
        return {
            "name": self.name, "title": self.title, "seconds": round(self.seconds, 1),
            "changes": [change.as_dict() for change in self.changes],
        }  # fmt: skip


@dataclass
class Report:
    """What a conversion did or, where it was dry, would do."""

    mode: Mode
    before: str
    """The URL of the API when it began."""
    after: str
    """And when it has ended."""
    backup: str = ""
    """The id under which everything can be brought back."""
    stages: list[Stage] = field(default_factory=list)
    outcome: Outcome | None = None
    """The last stage's, which is `apply`; None in a dry run."""
    notes: list[str] = field(default_factory=list)
    """What is left for the user to know or do."""

    @property
    def changes(self) -> list[Change]:
        """Of all stages, in order."""
        return [change for stage in self.stages for change in stage.changes]

    def as_dict(self) -> dict[str, Any]:
        """The report as `-o json` prints it."""
        return {
            "mode": str(self.mode), "before": self.before, "after": self.after, "backup": self.backup,
            "stages": [stage.as_dict() for stage in self.stages], "notes": self.notes,
        }  # fmt: skip


class ConversionRun:
    """Runs phases in stages, or only looks where this is a dry run."""

    def __init__(self, events: Events, report: Report, *, dry: bool) -> None:
        self.events = events
        self.report = report
        self.dry = dry

    @asynccontextmanager
    async def stage(self, name: str, title: str) -> AsyncIterator[Stage]:
        """All phases inside belong to one stage. One without changes is not reported."""
        stage = Stage(name, title)
        self.report.stages.append(stage)
        started = time.monotonic()
        try:
            yield stage
        finally:
            stage.seconds = time.monotonic() - started
            if not stage.changes:
                self.report.stages.remove(stage)

    async def do(self, phase: Phase) -> Sequence[Change]:
        """Run a phase in the stage that is under way."""
        stage = self.report.stages[-1]
        changes = await (phase.look() if self.dry else phase.run(self.events))
        stage.changes += [one for one in changes if one not in stage.changes] if self.dry else changes
        return changes
