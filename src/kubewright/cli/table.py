"""Plain tables for results on standard output: columns as wide as their content, no lines around them."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Sequence
from unicodedata import combining, east_asian_width

import click

_ESCAPES = re.compile(r"\x1b\[[0-9;]*m")


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """The lines of a table; a column whose cells are all empty is left out."""
    keep = [index for index in range(len(header)) if any(row[index] for row in rows)]
    cells = [[row[index] for index in keep] for row in (header, *rows)]
    widths = [max(width(row[column]) for row in cells) for column in range(len(keep))]
    lines = (
        "  ".join(cell + " " * (space - width(cell)) for cell, space in zip(row, widths, strict=True))
        for row in cells
    )
    return [line.rstrip() for line in lines]


def width(text: str) -> int:
    """The columns that a text takes on a terminal, without the escape sequences for its colours."""
    return sum(
        0 if combining(char) else 2 if east_asian_width(char) in "WF" else 1
        for char in _ESCAPES.sub("", text)
    )


def coloured(text: str, colour: str) -> str:
    """The text in a colour where standard output is a terminal and colours are wanted (no-color.org)."""
    if sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb":
        return click.style(text, fg=colour)
    return text


def good(text: str) -> str:
    """As it should be."""
    return coloured(text, "green")


def bad(text: str) -> str:
    """Not as it should be."""
    return coloured(text, "red")


def faint(text: str) -> str:
    """Of less weight."""
    return coloured(text, "bright_black")
