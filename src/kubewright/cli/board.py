"""The state of a running workflow as a terminal shows it: one lane a host, and lines that stay."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum

from kubewright.events import Event, Kind


class Look(StrEnum):
    """How a line is meant, for its colour and its mark."""

    RUNNING = "running"
    DONE = "done"
    SKIPPED = "skipped"
    FAILED = "failed"
    WAITING = "waiting"
    WARNING = "warning"
    NOTE = "note"
    TITLE = "title"


@dataclass(frozen=True, slots=True)
class Line:
    """One line: a mark by its look, a label, a text, perhaps a bar, and seconds at its right end."""

    look: Look
    label: str
    text: str
    seconds: float | None = None
    fraction: float | None = None


@dataclass(slots=True)
class Step:
    """A phase that runs now."""

    name: str
    message: str
    started: float
    fraction: float | None = None


@dataclass(slots=True)
class Lane:
    """What one host has done and is doing."""

    host: str
    started: float
    ended: float = 0.0
    running: dict[str, Step] = field(default_factory=dict)
    done: int = 0
    skipped: int = 0
    failed: str = ""
    last: str = ""


class Board:
    """Takes events; gives the lines that change (`live`) and those that are to stay (`take_settled`).

    A phase of a host shows while it runs and then counts in its host's lane; at the end a lane is one line. A
    phase of no host is a line of its own, which stays where there was something to do. `clock` is monotonic, in
    seconds.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._lanes: dict[str, Lane] = {}
        self._workflows: list[tuple[str, float]] = []
        self._settled: list[Line] = []

    def __call__(self, event: Event) -> None:
        """Take one event."""
        now = self._clock()
        match event.kind:
            case Kind.WORKFLOW_STARTED:
                self._workflows.append((event.name, now))
                self._settled.append(Line(Look.TITLE, event.name, event.message))
            case Kind.WORKFLOW_DONE | Kind.WORKFLOW_FAILED:
                self._end_workflow(event)
            case Kind.NOTE:
                self._settled.append(Line(Look.NOTE, event.host, event.message))
            case Kind.WARNING:
                self._settled.append(Line(Look.WARNING, event.host, event.message))
            case Kind.PHASE_STARTED:
                lane = self._lanes.setdefault(event.host, Lane(event.host, now))
                lane.running[event.name] = Step(event.name, event.message, now)
            case Kind.PHASE_PROGRESS:
                found = self._lanes.get(event.host)
                if found and (step := found.running.get(event.name)):
                    step.message, step.fraction = event.message, event.fraction
            case _:
                self._end_phase(event, now)

    def take_settled(self) -> list[Line]:
        """The lines that have come to stay since the last call."""
        settled, self._settled = self._settled, []
        return settled

    def live(self, height: int = 1000) -> list[Line]:
        """The lines as they are now, at most `height`: where that is too few, hosts at rest are left out first."""
        now = self._clock()
        busy = [line for lane in self._lanes.values() for line in _running(lane, now)]
        at_rest = sum(1 for lane in self._lanes.values() if lane.host and not lane.running)
        if len(busy) + at_rest <= height:
            return [
                line
                for lane in self._lanes.values()
                for line in (_running(lane, now) or ([_rest(lane, over=False)] if lane.host else []))
            ]
        shown = busy[: max(height - 1, 0)]
        hidden = len(busy) - len(shown)
        counts = ((hidden, "more at work"), (at_rest, "at rest"))
        more = ", ".join(f"{count} {what}" for count, what in counts if count)
        return [*shown, Line(Look.WAITING, "…", more)][:height]

    def _end_phase(self, event: Event, now: float) -> None:
        lane = self._lanes.setdefault(event.host, Lane(event.host, now))
        lane.running.pop(event.name, None)
        lane.last, lane.ended = event.name, now
        if event.kind is Kind.PHASE_FAILED:
            lane.failed = event.name
            cancelled = event.message == "cancelled"
            if not cancelled:
                label = event.host or event.name
                text = f"{event.name}: {event.message}" if event.host else event.message
                self._settled.append(Line(Look.FAILED, label, text, event.elapsed))
        elif event.kind is Kind.PHASE_SKIPPED:
            lane.skipped += 1
        else:
            lane.done += 1
            if not event.host:
                self._settled.append(Line(Look.DONE, event.name, event.message, event.elapsed))

    def _end_workflow(self, event: Event) -> None:
        if self._workflows:
            self._workflows.pop()
        if not self._workflows:
            self._settled += [_rest(lane) for lane in self._lanes.values() if lane.host]
            self._lanes.clear()
        if event.kind is Kind.WORKFLOW_DONE:
            self._settled.append(Line(Look.DONE, event.name, event.message, event.elapsed))


def _running(lane: Lane, now: float) -> list[Line]:
    lines = []
    for index, step in enumerate(lane.running.values()):
        if lane.host:
            label, text = lane.host if index == 0 else "", f"{step.name}: {step.message}"
        else:
            label, text = step.name, step.message
        lines.append(Line(Look.RUNNING, label, text, now - step.started, step.fraction))
    return lines


def _rest(lane: Lane, *, over: bool = True) -> Line:
    """A lane's one line when nothing runs on its host; without a mark as long as the run is not over."""
    seconds = lane.ended - lane.started
    if lane.failed:
        return Line(Look.FAILED, lane.host, f"stopped at {lane.failed}", seconds)
    if not lane.done:
        return Line(Look.SKIPPED if over else Look.WAITING, lane.host, "nothing to do", seconds)
    steps = f"{lane.done} step{'s' if lane.done != 1 else ''} done"
    rest = f", {lane.skipped} with nothing to do" if lane.skipped else ""
    return Line(
        Look.DONE if over else Look.WAITING, lane.host, f"{'' if over else 'at rest: '}{steps}{rest}", seconds
    )
