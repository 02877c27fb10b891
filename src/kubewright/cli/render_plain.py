"""Events as plain lines, for logs and for terminals that cannot move their cursor."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from typing import TextIO

from kubewright.events import Event, Kind

PROGRESS_EVERY = 5.0
"""Seconds between two progress lines of one phase on one host."""


class PlainLines:
    """One line for each phase that did something, each note and warning, and now and then a long phase's progress.

    A line begins with the seconds since the start. A phase that ends within `PROGRESS_EVERY` has one line. Phases
    with nothing to do are counted, one line a host at the end: they would drown the others.
    """

    def __init__(
        self, stream: TextIO, *, warnings_only: bool = False, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._stream = stream
        self._warnings_only = warnings_only
        self._clock = clock
        self._start = clock()
        self._last: dict[tuple[str, str], float] = {}
        self._skipped: Counter[str] = Counter()
        self._workflows = 0

    def __call__(self, event: Event) -> None:
        """Write the event's line, if it has one."""
        if self._warnings_only and event.kind is not Kind.WARNING:
            return
        if event.kind is Kind.WORKFLOW_STARTED:
            self._workflows += 1
        elif event.kind in (Kind.WORKFLOW_DONE, Kind.WORKFLOW_FAILED):
            self._workflows -= 1
            if self._workflows <= 0:
                for host, count in sorted(self._skipped.items()):
                    self._write(host, f"{count} step{'s' if count != 1 else ''} with nothing to do")
                self._skipped.clear()
        text = self._text(event)
        if text is not None:
            self._write(event.host, text)

    def _write(self, host: str, text: str) -> None:
        where = f"{host}  " if host else ""
        self._stream.write(f"{self._clock() - self._start:6.1f}s  {where}{text}\n")
        self._stream.flush()

    def _text(self, event: Event) -> str | None:
        took = f" ({event.elapsed:.1f}s)" if event.elapsed is not None else ""
        key = (event.host, event.name)
        match event.kind:
            case Kind.PHASE_STARTED:
                self._last[key] = self._clock()
                return None
            case Kind.PHASE_PROGRESS:
                if self._clock() - self._last.get(key, self._start) < PROGRESS_EVERY:
                    return None
                self._last[key] = self._clock()
                percent = f" {event.fraction:.0%}" if event.fraction is not None else ""
                return f"{event.name}  {event.message}{percent}"
            case Kind.PHASE_DONE:
                return f"{event.name}  done{took}"
            case Kind.PHASE_SKIPPED:
                if event.host:
                    self._skipped[event.host] += 1
                return None
            case Kind.PHASE_FAILED | Kind.WORKFLOW_FAILED if event.message == "cancelled":
                return f"{event.name}  cancelled{took}"
            case Kind.PHASE_FAILED:
                return f"{event.name}  failed{took}: {event.message}"
            case Kind.WORKFLOW_FAILED:
                return f"{event.name}  failed{took}"  # why is the error's to say, which follows
            case Kind.WORKFLOW_STARTED:
                return f"{event.name}  {event.message}"
            case Kind.WORKFLOW_DONE:
                return f"{event.name}  done{took}: {event.message}"
            case Kind.WARNING:
                return f"warning: {event.message}"
            case _:
                return event.message
