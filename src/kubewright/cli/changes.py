"""What a dry run shows: every file and object that would be written, secrets left out."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import click

from kubewright.cli.output import print_document

if TYPE_CHECKING:
    from kubewright.phases.phase import Change


def print_changes(changes: Sequence[Change], output: str, *, title: str) -> None:
    """Print the changes of a dry run, with their content; `title` says to a person what was looked at."""
    if output != "text":
        print_document({"changes": [change.as_dict() for change in changes]}, output)
        return
    if not changes:
        click.echo(f"{title}: nothing to do")
        return
    for line in change_lines(changes):
        click.echo(line)
    count = len(changes)
    click.echo(f"\n{title}: {count} {'change' if count == 1 else 'changes'}; nothing was changed")


def change_lines(changes: Iterable[Change]) -> list[str]:
    """The changes as lines, under the hosts that they belong to, in the order in which they would be made."""
    lines: list[str] = []
    host: str | None = None
    for change in changes:
        where = change.host or "the cluster"
        if where != host:
            host = where
            lines.append(where)
        lines.append(f"  {change.action:<6} {change.target}")
        # A hunk's header says nothing about a file that is new as a whole.
        lines += [f"         {line}" for line in change.diff if not line.startswith("@@ -0,0")]
    return lines
