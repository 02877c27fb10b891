"""`kubewright status --watch`: one look after another, redrawn on a terminal, block after block elsewhere."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click

from kubewright.cli.common import run
from kubewright.cli.status_text import header, joined, sections, status_lines, verdict
from kubewright.cli.table import bad, faint
from kubewright.errors import KubewrightError, leaves

if TYPE_CHECKING:
    from kubewright.events import Events
    from kubewright.model.status_report import StatusReport
    from kubewright.workflows.status import StatusReader

# The other screen, no cursor, and lines that are cut at the terminal's edge; and all of it back.
_ENTER, _LEAVE = "\x1b[?1049h\x1b[?25l\x1b[?7l", "\x1b[?7h\x1b[?25h\x1b[?1049l"
_HOME, _TO_LINE_END, _TO_END = "\x1b[H", "\x1b[K", "\x1b[J"


def watch_status(make_reader: Callable[[], StatusReader], *, interval: float, output: str) -> None:
    """Show the status every `interval` seconds until a signal ends it, which is no error.

    A look that finds nobody who answers is shown, too, and the next one is tried.
    """
    last: list[list[str]] = []

    async def workflow(_events: Events) -> None:
        async with make_reader() as reader:
            while True:
                try:
                    found, error = await reader.read(), ""
                except (KubewrightError, ExceptionGroup) as group:
                    first, *_ = leaves(group)
                    if not isinstance(first, KubewrightError):
                        raise
                    found, error = None, first.message
                show(found, error)
                await asyncio.sleep(interval)

    def show(found: StatusReport | None, error: str) -> None:
        if output != "text":
            print_one(found, error, output)
        elif live:
            last[:] = [plain(found, error)]
            rows = shutil.get_terminal_size().lines
            sys.stdout.write(drawn(frame(found, error, interval, rows)))
            sys.stdout.flush()
        else:
            click.echo("\n".join([f"# {_now()}", *plain(found, error), ""]))

    live = output == "text" and sys.stdout.isatty() and os.environ.get("TERM", "dumb") != "dumb"
    try:
        with _screen(live):
            # Notes of a workflow's on standard error would tear what is drawn: all but warnings are left out.
            run(workflow, output="yaml" if output == "text" else output, stream=False)
    except KeyboardInterrupt:
        if last:
            click.echo("\n".join(last[0]))  # what was seen last stays, when the other screen has gone


def plain(found: StatusReport | None, error: str) -> list[str]:
    """One look as lines."""
    return status_lines(found) if found is not None else [bad(f"error: {error}")]


def frame(found: StatusReport | None, error: str, interval: float, rows: int) -> list[str]:
    """One look for a terminal with so many rows: what is wrong comes first, for the end may not fit."""
    lines = [faint(f"every {interval:g} s, {_now()}")]
    if found is None:
        return [*lines, "", *plain(None, error)]
    lines += joined([[header(found)], verdict(found), *sections(found)])
    if len(lines) >= rows:
        hidden = len(lines) - max(rows - 2, 1)
        lines = [*lines[: max(rows - 2, 1)], faint(f"… {hidden} more lines")]
    return lines


def drawn(lines: Sequence[str]) -> str:
    """Lines over those that are there, without a moment in which nothing is: that would flicker."""
    return _HOME + "".join(f"{line}{_TO_LINE_END}\n" for line in lines) + _TO_END


def print_one(found: StatusReport | None, error: str, output: str) -> None:
    """One look as a JSON line, or as a document of a YAML stream."""
    document: dict[str, Any]
    document = found.as_dict() if found is not None else {"healthy": False, "time": _now(), "error": error}
    if output == "json":
        click.echo(json.dumps(document, ensure_ascii=False))
        return
    import yaml

    click.echo("---\n" + yaml.safe_dump(document, sort_keys=False, allow_unicode=True), nl=False)


@contextmanager
def _screen(live: bool) -> Iterator[None]:
    """The terminal's other screen, and in any case back again."""
    if not live:
        yield
        return
    sys.stdout.write(_ENTER)
    try:
        yield
    finally:
        sys.stdout.write(_LEAVE)
        sys.stdout.flush()


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
