"""Running one workflow from a command: a renderer for its events, and signals that end it cleanly."""

from __future__ import annotations

import asyncio
import shutil
import signal
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

import click

from kubewright.cli.render import renderer
from kubewright.events import Events

T = TypeVar("T")


def program() -> str:
    """What to type for this program: its name where the shell finds it, else the path that it was called by."""
    called = sys.argv[0]
    if Path(called).name == "kubewright" and not shutil.which("kubewright"):
        return called
    return "kubewright"


_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def run(workflow: Callable[[Events], Awaitable[T]], *, output: str = "text", stream: bool = True) -> T:
    """Run a workflow to its end and return what it returns.

    Progress goes to standard error, as a live view on a terminal and as plain lines elsewhere. With `output`
    `json` the events are JSON lines on standard output; a command whose result is one document passes
    `stream=False` instead, and only warnings are shown, on standard error, where the output is not `text`.

    The first SIGINT, SIGTERM or SIGHUP cancels the workflow, which cleans up after itself; a second one cancels
    the cleaning up, too. Raises what the workflow raises, and `KeyboardInterrupt` where a signal ended it.
    """
    ctx = click.get_current_context(silent=True)
    quiet = bool(ctx and ctx.meta.get("kubewright.quiet"))
    with renderer(output=output, stream=stream, quiet=quiet) as listener:
        return asyncio.run(_until_signal(workflow, Events(listener)))


async def _until_signal(workflow: Callable[[Events], Awaitable[T]], events: Events) -> T:
    task = asyncio.ensure_future(workflow(events))
    received = 0

    def stop() -> None:
        nonlocal received
        received += 1
        if received == 1:
            events.note("interrupted: cleaning up; interrupt once more to leave without")
        task.cancel()

    loop = asyncio.get_running_loop()
    # One that our parent has us ignore (`nohup`, a job in the background of a script) stays ignored.
    heeded = [number for number in _SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]
    for number in heeded:
        loop.add_signal_handler(number, stop)
    try:
        # A task of its own: cancelling it must not cancel the loop's main task, which reports the end.
        await asyncio.wait([task])
        if received and (task.cancelled() or task.exception() is not None):
            _show_second_cause(task, events)
            raise KeyboardInterrupt
        return task.result()
    finally:
        for number in heeded:
            loop.remove_signal_handler(number)


def _show_second_cause(task: asyncio.Future[T], events: Events) -> None:
    """Cleaning up after a signal can fail on its own: that must be seen."""
    if not task.cancelled() and (error := task.exception()) is not None:
        from kubewright.errors import KubewrightError, leaves

        for leaf in leaves(error):
            if isinstance(leaf, KubewrightError):
                events.warn(leaf.message, host=leaf.host)
