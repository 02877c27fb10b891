"""The live view on a terminal: hosts and what they are doing, with elapsed times, redrawn in place."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Self

from rich.cells import cell_len, set_cell_size
from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from kubewright.cli.board import Board, Line, Look
from kubewright.events import Event

_STYLES = {
    Look.RUNNING: "cyan",
    Look.DONE: "green",
    Look.SKIPPED: "bright_black",
    Look.FAILED: "bold red",
    Look.WAITING: "bright_black",
    Look.WARNING: "yellow",
    Look.NOTE: "",
    Look.TITLE: "bold",
}
_MARKS = {Look.DONE: "✓", Look.SKIPPED: "·", Look.FAILED: "✗", Look.WAITING: " ", Look.WARNING: "!"}
_ASCII_MARKS = {Look.DONE: "+", Look.SKIPPED: "-", Look.FAILED: "x", Look.WAITING: " ", Look.WARNING: "!"}
_SPINNER, _ASCII_SPINNER = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏", "|/-\\"
_BAR, _ASCII_BAR = ("━", "─"), ("#", ".")
_BAR_WIDTH = 16
_LABEL_AT_LEAST, _LABEL_AT_MOST = 16, 24
REFRESHES = 8
"""Redrawings a second: smooth enough for a spinner, and next to no load."""


class LiveView:
    """A listener that redraws a `Board`; use it as a context manager, so that the terminal is left in order."""

    def __init__(self, console: Console | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self.console = console or Console(stderr=True, highlight=False)
        self._clock = clock
        self._board = Board(clock)
        self._lock = threading.Lock()  # the refresh thread draws while the event loop's thread adds events
        self._label_width = _LABEL_AT_LEAST
        self._ascii = not self.console.encoding.lower().startswith("utf")
        self._live = Live(
            console=self.console, get_renderable=self.frame, refresh_per_second=REFRESHES, transient=True,
            redirect_stdout=False, redirect_stderr=True, vertical_overflow="crop",
        )  # fmt: skip

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._settle()
        self._live.stop()

    def __call__(self, event: Event) -> None:
        """Take one event; what has come to stay is printed above the live lines."""
        with self._lock:
            self._board(event)
        self._settle()

    def frame(self) -> Group:
        """The live lines as they are now."""
        with self._lock:
            lines = self._board.live(max(self.console.height - 1, 1))
        self._fit(lines)
        return Group(*(self.line(line) for line in lines))

    def line(self, line: Line) -> Text:
        """One line, cut to the terminal's width."""
        width = self.console.width
        style = _STYLES[line.look]
        text = Text(no_wrap=True, overflow="ellipsis")
        if line.look is Look.TITLE:
            text.append(f"{line.label}  ", style="bold")
            text.append(line.text)
            return text
        text.append(f" {self._mark(line.look)} ", style=style)
        text.append(set_cell_size(_cut(line.label, self._label_width, self._ascii), self._label_width) + "  ",
                    style="" if line.look is Look.RUNNING else style)  # fmt: skip
        tail = Text()
        if line.fraction is not None:
            fraction = min(max(line.fraction, 0.0), 1.0)
            if width >= 72:
                full, empty = _ASCII_BAR if self._ascii else _BAR
                filled = round(fraction * _BAR_WIDTH)
                tail.append(" ")
                tail.append(full * filled, style="cyan")
                tail.append(empty * (_BAR_WIDTH - filled), style="bright_black")
            tail.append(f" {fraction:4.0%}")
        if line.seconds is not None:
            tail.append(f" {_seconds(line.seconds):>7}", style="bright_black")
        room = max(width - text.cell_len - tail.cell_len, 0)
        body = _cut(line.text, room, self._ascii)
        text.append(body, style="bright_black" if line.look in (Look.DONE, Look.SKIPPED) else "")
        text.append(" " * (room - cell_len(body)))
        text.append_text(tail)
        return text

    def _settle(self) -> None:
        with self._lock:
            lines = self._board.take_settled()
        if not lines:
            return
        self._fit(lines)
        for line in lines:
            if line.look is Look.NOTE:
                self.console.print(f"{line.label}: {line.text}" if line.label else line.text, markup=False)
            elif line.look in (Look.WARNING, Look.FAILED):  # never cut: this is what the user came for
                text = Text(f" {self._mark(line.look)} ", style=_STYLES[line.look])
                text.append(f"{line.label}: {line.text}" if line.label else line.text)
                self.console.print(text)
            else:
                self.console.print(self.line(line))

    def _fit(self, lines: list[Line]) -> None:
        """Let the label column grow to its longest label; it never shrinks, so that nothing jumps about."""
        most = max(min(_LABEL_AT_MOST, self.console.width // 4), 8)
        labels = [cell_len(line.label) for line in lines if line.look not in (Look.NOTE, Look.TITLE)]
        self._label_width = min(max([self._label_width, *labels]), most)

    def _mark(self, look: Look) -> str:
        if look is Look.RUNNING:
            spinner = _ASCII_SPINNER if self._ascii else _SPINNER
            return spinner[int(self._clock() * 10) % len(spinner)]
        return (_ASCII_MARKS if self._ascii else _MARKS).get(look, " ")


def _cut(text: str, width: int, ascii_only: bool) -> str:
    """The text on one line, cut to a width in cells, with an ellipsis where something is missing."""
    text = " ".join(text.split())
    if cell_len(text) <= width:
        return text
    dots = "..." if ascii_only else "…"
    if width <= len(dots):
        return set_cell_size(text, max(width, 0))
    return set_cell_size(text, width - len(dots)) + dots


def _seconds(seconds: float) -> str:
    """`4.2s`, `2m05s`: short enough for a column of seven."""
    if seconds < 99.95:
        return f"{seconds:.1f}s"
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes}m{rest:02}s"
