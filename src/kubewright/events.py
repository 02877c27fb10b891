"""What a workflow says while it runs: a stream of events that renderers turn into a terminal or JSON lines."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from kubewright.errors import KubewrightError, leaves


class Kind(StrEnum):
    """The kinds of event. A phase that was started ends with exactly one of done, skipped or failed."""

    WORKFLOW_STARTED = "workflow.started"
    WORKFLOW_DONE = "workflow.done"
    WORKFLOW_FAILED = "workflow.failed"
    PHASE_STARTED = "phase.started"
    PHASE_PROGRESS = "phase.progress"
    PHASE_DONE = "phase.done"
    PHASE_SKIPPED = "phase.skipped"
    PHASE_FAILED = "phase.failed"
    NOTE = "note"
    WARNING = "warning"


@dataclass(frozen=True, slots=True)
class Event:
    """One thing that happened. `at` is in seconds since the epoch; `elapsed`, in seconds, since its start."""

    kind: Kind
    message: str
    at: float
    name: str = ""
    """The workflow's or phase's name, as users may type it (`apply`, `kubelet-start`)."""
    host: str = ""
    elapsed: float | None = None
    fraction: float | None = None
    """For progress: how much is done, 0 to 1, or None where the total is not known."""
    data: Mapping[str, Any] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """The event as `-o json` prints it: empty fields left out."""
        row: dict[str, Any] = {"kind": str(self.kind), "at": round(self.at, 3), "message": self.message}
        if self.name:
            row["name"] = self.name
        if self.host:
            row["host"] = self.host
        if self.elapsed is not None:
            row["elapsedSeconds"] = round(self.elapsed, 3)
        if self.fraction is not None:
            row["fraction"] = round(self.fraction, 3)
        if self.data:
            row["data"] = dict(self.data)
        return row


Listener = Callable[[Event], None]

_PROGRESS_INTERVAL = 0.2  # seconds


class Activity:
    """What a running phase or workflow reports through."""

    def __init__(self, events: Events, name: str, host: str) -> None:
        self._events = events
        self.name = name
        self.host = host
        self.started = time.monotonic()
        self._skipped: str | None = None
        self._summary: str | None = None
        self._progressed = 0.0
        self.data: dict[str, Any] = {}

    def progress(self, message: str, fraction: float | None = None) -> None:
        """Say what is going on now; `fraction` is 0 to 1.

        Of what comes with a fraction, as often as the sender likes, a few events a second are passed on.
        """
        now = time.monotonic()
        if fraction is not None:
            if now - self._progressed < _PROGRESS_INTERVAL and fraction < 1:
                return
            self._progressed = now
        self._events.emit(
            Kind.PHASE_PROGRESS, message, name=self.name, host=self.host,
            elapsed=time.monotonic() - self.started, fraction=fraction,
        )  # fmt: skip

    def skip(self, why: str) -> None:
        """Mark this phase as having had nothing to do; it ends as skipped."""
        self._skipped = why

    def summary(self, message: str) -> None:
        """What the closing event says in place of the title."""
        self._summary = message


class Events:
    """Sends events to its listeners in order. They are called in the thread of the event loop; none may block."""

    def __init__(self, *listeners: Listener) -> None:
        self._listeners = listeners

    def emit(
        self,
        kind: Kind,
        message: str,
        *,
        name: str = "",
        host: str = "",
        elapsed: float | None = None,
        fraction: float | None = None,
        data: Mapping[str, Any] | None = None,
    ) -> None:
        """Send one event."""
        event = Event(kind, message, time.time(), name, host, elapsed, fraction, data or {})
        for listener in self._listeners:
            listener(event)

    def note(self, message: str, *, host: str = "", data: Mapping[str, Any] | None = None) -> None:
        """Something worth a line that belongs to no phase."""
        self.emit(Kind.NOTE, message, host=host, data=data)

    def warn(self, message: str, *, host: str = "") -> None:
        """Something that the user should know and that stops nothing."""
        self.emit(Kind.WARNING, message, host=host)

    @asynccontextmanager
    async def phase(self, name: str, title: str, *, host: str = "") -> AsyncIterator[Activity]:
        """Run a phase inside: started, then done, skipped or failed, whatever happens."""
        async with self._activity(
            (Kind.PHASE_STARTED, Kind.PHASE_DONE, Kind.PHASE_FAILED), name, title, host
        ) as activity:
            yield activity

    @asynccontextmanager
    async def workflow(self, name: str, title: str) -> AsyncIterator[Activity]:
        """Run a workflow inside: started, then done or failed."""
        async with self._activity(
            (Kind.WORKFLOW_STARTED, Kind.WORKFLOW_DONE, Kind.WORKFLOW_FAILED), name, title, ""
        ) as activity:
            yield activity

    @asynccontextmanager
    async def _activity(
        self, kinds: tuple[Kind, Kind, Kind], name: str, title: str, host: str
    ) -> AsyncIterator[Activity]:
        started, done, failed = kinds
        activity = Activity(self, name, host)
        self.emit(started, title, name=name, host=host)
        try:
            yield activity
        except BaseException as error:
            self.emit(
                failed, _cause(error), name=name, host=host, elapsed=time.monotonic() - activity.started
            )
            raise
        self.emit(
            Kind.PHASE_SKIPPED if activity._skipped is not None else done,
            activity._skipped or activity._summary or title,
            name=name, host=host, elapsed=time.monotonic() - activity.started, data=activity.data,
        )  # fmt: skip


def _cause(error: BaseException) -> str:
    """One line for the first cause that a reader can act on."""
    causes = leaves(error)
    for cause in causes:
        if isinstance(cause, KubewrightError):
            return cause.message
    first = causes[0]
    return "cancelled" if type(first).__name__ == "CancelledError" else str(first) or type(first).__name__
