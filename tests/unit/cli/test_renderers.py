"""What the renderers show of a stream of events, with a clock of our own."""

from __future__ import annotations

import io
import json

import pytest
from rich.cells import cell_len
from rich.console import Console

from kubewright.cli.board import Board, Line, Look
from kubewright.cli.render_json import JsonLines
from kubewright.cli.render_live import LiveView
from kubewright.cli.render_plain import PlainLines
from kubewright.events import Event, Kind


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def event(kind: Kind, name: str = "", host: str = "", message: str = "", **more: float | None) -> Event:
    return Event(kind, message, 1_700_000_000.0, name, host, **more)  # type: ignore[arg-type]


def test_plain_writes_one_line_for_a_quick_phase() -> None:
    clock, out = Clock(), io.StringIO()
    plain = PlainLines(out, clock=clock)
    plain(event(Kind.PHASE_STARTED, "kubelet-start", "w1", "Start the kubelet"))
    clock.now += 1.1
    plain(event(Kind.PHASE_PROGRESS, "kubelet-start", "w1", "waiting"))
    clock.now += 3.1
    plain(event(Kind.PHASE_DONE, "kubelet-start", "w1", "Start the kubelet", elapsed=4.2))
    assert out.getvalue() == "   4.2s  w1  kubelet-start  done (4.2s)\n"


def test_plain_shows_progress_at_most_every_five_seconds_for_each_host() -> None:
    clock, out = Clock(), io.StringIO()
    plain = PlainLines(out, clock=clock)
    for host in ("w1", "w2"):
        plain(event(Kind.PHASE_STARTED, "images", host, "Import images"))
    for second in range(1, 13):
        clock.now = 100.0 + second
        plain(event(Kind.PHASE_PROGRESS, "images", "w1", f"image {second}", fraction=second / 20))
    plain(event(Kind.PHASE_PROGRESS, "images", "w2", "image 1"))
    assert out.getvalue().splitlines() == [
        "   5.0s  w1  images  image 5 25%",
        "  10.0s  w1  images  image 10 50%",
        "  12.0s  w2  images  image 1",
    ]


def test_plain_counts_what_had_nothing_to_do() -> None:
    out = io.StringIO()
    plain = PlainLines(out, clock=Clock())
    plain(event(Kind.WORKFLOW_STARTED, "lab up", message="lab default"))
    plain(event(Kind.WORKFLOW_STARTED, "apply", message="apply cluster x"))
    for name in ("packages", "programs"):
        plain(event(Kind.PHASE_SKIPPED, name, "w1", "nothing to do", elapsed=0.1))
    plain(event(Kind.PHASE_SKIPPED, "dns", message="nothing to do", elapsed=0.1))
    plain(event(Kind.WORKFLOW_DONE, "apply", message="cluster x: nothing to do", elapsed=1.0))
    plain(event(Kind.WORKFLOW_FAILED, "lab up", message="disk full", elapsed=2.0))
    assert out.getvalue().splitlines() == [
        "   0.0s  lab up  lab default",
        "   0.0s  apply  apply cluster x",
        "   0.0s  apply  done (1.0s): cluster x: nothing to do",
        "   0.0s  w1  2 steps with nothing to do",
        "   0.0s  lab up  failed (2.0s)",
    ]


def test_plain_says_why_a_phase_failed() -> None:
    out = io.StringIO()
    plain = PlainLines(out, clock=Clock())
    plain(event(Kind.PHASE_FAILED, "join", "w1", "token expired", elapsed=0.2))
    plain(event(Kind.WARNING, host="w1", message="clock differs"))
    assert out.getvalue().splitlines() == [
        "   0.0s  w1  join  failed (0.2s): token expired",
        "   0.0s  w1  warning: clock differs",
    ]


def test_quiet_shows_warnings_alone() -> None:
    out = io.StringIO()
    plain = PlainLines(out, warnings_only=True, clock=Clock())
    plain(event(Kind.PHASE_FAILED, "join", "w1", "token expired"))
    plain(event(Kind.NOTE, message="hello"))
    plain(event(Kind.WARNING, message="careful"))
    assert out.getvalue() == "   0.0s  warning: careful\n"


def test_json_lines_are_one_object_a_line() -> None:
    out = io.StringIO()
    lines = JsonLines(out)
    lines(event(Kind.PHASE_DONE, "join", "w1", "line\nbreak ü", elapsed=0.25))
    assert out.getvalue().count("\n") == 1
    assert json.loads(out.getvalue()) == {
        "kind": "phase.done", "at": 1_700_000_000.0, "message": "line\nbreak ü", "name": "join", "host": "w1",
        "elapsedSeconds": 0.25,
    }  # fmt: skip


def test_board_shows_what_runs_and_collapses_a_host_to_one_line() -> None:
    clock = Clock()
    board = Board(clock)
    board(event(Kind.WORKFLOW_STARTED, "apply", message="Make the cluster"))
    for host in ("w1", "w2"):
        board(event(Kind.PHASE_STARTED, "prepare", host, "Prepare the host"))
    clock.now += 2
    board(event(Kind.PHASE_PROGRESS, "prepare", "w2", "packages", fraction=0.5))
    board(event(Kind.PHASE_DONE, "prepare", "w1", "Prepare the host", elapsed=2.0))
    assert board.live() == [
        Line(Look.WAITING, "w1", "at rest: 1 step done", 2.0),
        Line(Look.RUNNING, "w2", "prepare: packages", 2.0, 0.5),
    ]
    board(event(Kind.PHASE_SKIPPED, "prepare", "w2", "nothing"))
    assert board.take_settled() == [Line(Look.TITLE, "apply", "Make the cluster")]
    board(event(Kind.WORKFLOW_DONE, "apply", message="Make the cluster", elapsed=2.0))
    assert board.live() == []
    assert board.take_settled() == [
        Line(Look.DONE, "w1", "1 step done", 2.0),
        Line(Look.SKIPPED, "w2", "nothing to do", 2.0),
        Line(Look.DONE, "apply", "Make the cluster", 2.0),
    ]


def test_board_keeps_hosts_of_an_inner_workflow_until_the_outer_one_ends() -> None:
    board = Board(Clock())
    board(event(Kind.WORKFLOW_STARTED, "lab up"))
    board(event(Kind.WORKFLOW_STARTED, "apply"))
    board(event(Kind.PHASE_STARTED, "join", "w1"))
    board(event(Kind.PHASE_DONE, "join", "w1"))
    board(event(Kind.WORKFLOW_DONE, "apply"))
    assert [line.label for line in board.live()] == ["w1"]
    board(event(Kind.WORKFLOW_DONE, "lab up"))
    assert [line.label for line in board.take_settled()] == ["lab up", "apply", "apply", "w1", "lab up"]


def test_board_leaves_hosts_at_rest_out_of_a_low_terminal() -> None:
    board = Board(Clock())
    for number in range(10):
        board(event(Kind.PHASE_STARTED, "images", f"w{number}", "Import"))
    for number in range(6):
        board(event(Kind.PHASE_DONE, "images", f"w{number}"))
    labels = [(line.label, line.text) for line in board.live(height=3)]
    assert labels == [("w6", "images: Import"), ("w7", "images: Import"), ("…", "2 more at work, 6 at rest")]


def test_a_cancelled_phase_is_not_shown_as_a_cause() -> None:
    board = Board(Clock())
    for host, why in (("w1", "disk full"), ("w2", "cancelled")):
        board(event(Kind.PHASE_STARTED, "images", host))
        board(event(Kind.PHASE_FAILED, "images", host, why))
    assert board.take_settled() == [Line(Look.FAILED, "w1", "images: disk full")]
    assert [line.look for line in board.live()] == [Look.FAILED, Look.FAILED]


def view(width: int, clock: Clock) -> tuple[LiveView, io.StringIO]:
    out = io.StringIO()
    console = Console(file=out, force_terminal=True, width=width, height=20, color_system=None)
    return LiveView(console, clock), out


@pytest.mark.parametrize("width", [24, 40, 71, 72, 200])
def test_a_live_line_fills_the_width_and_never_more(width: int) -> None:
    live, _ = view(width, Clock())
    for text in ("short", "a text that is far too long for any terminal " * 5, "日本語のホスト" * 9, ""):
        for line in (
            Line(Look.RUNNING, "w1", text, 12.3, 0.42),
            Line(Look.RUNNING, "a-name-that-is-longer-than-all", text, 3999.0, 1.7),
            Line(Look.DONE, "w1", text, None),
        ):
            shown = live.line(line)
            assert shown.cell_len <= max(width, 40), shown.plain
            assert "\n" not in shown.plain
            if width >= 40:
                assert cell_len(shown.plain) == width


def test_live_prints_what_stays_and_leaves_no_spinner_behind() -> None:
    clock = Clock()
    live, out = view(80, clock)
    with live:
        live(event(Kind.WORKFLOW_STARTED, "apply", message="Make the cluster"))
        live(event(Kind.PHASE_STARTED, "images", "w1", "Import"))
        live(event(Kind.PHASE_DONE, "images", "w1", "Import", elapsed=1.0))
        live(event(Kind.NOTE, message="Your [cluster] is up."))
        live(event(Kind.WORKFLOW_DONE, "apply", message="Make the cluster", elapsed=1.0))
    text = out.getvalue()
    assert "✓ w1" in text
    assert "Your [cluster] is up." in text
    assert "\x1b[?25h" in text[text.rindex("✓ apply") :], "the cursor is shown again"
