"""Chooses how a workflow's events are shown: live on a terminal, as plain lines, or as JSON lines."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from kubewright.cli.render_json import JsonLines
from kubewright.cli.render_plain import PlainLines
from kubewright.events import Listener


@contextmanager
def renderer(*, output: str, stream: bool = True, quiet: bool = False) -> Iterator[Listener]:
    """A listener for events, closed at the end. See `cli.common.run` for what goes where."""
    if output == "json" and stream:
        yield JsonLines(sys.stdout)
    elif output != "text" or quiet:
        yield PlainLines(sys.stderr, warnings_only=True)
    elif is_live():
        from kubewright.cli.render_live import LiveView  # rich costs 0.1 s: a terminal alone pays it

        with LiveView() as view:
            yield view
    else:
        yield PlainLines(sys.stderr)


def is_live() -> bool:
    """Whether a person watches standard error on a terminal that can move its cursor."""
    return sys.stderr.isatty() and not os.environ.get("CI") and os.environ.get("TERM", "dumb") != "dumb"
