"""What a user sees of an error: its message, evidence and mend, one exit code, and no traceback."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
import traceback
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import click

from kubewright.errors import ExitCode, KubewrightError, leaves

INTERRUPTED = "interrupted; run the same command again to go on"


def report(error: BaseException, *, output: str = "") -> int:
    """Show `error` on standard error, as JSON lines where `output` is `json`; return the exit code.

    Of a group every single error is shown; the exit code is the first one's. An error that is no
    `KubewrightError` is a mistake of ours: its traceback goes to a file that only the user can read, and to the
    terminal where KUBEWRIGHT_DEBUG is set.
    """
    rows = [_row(leaf) for leaf in _worth_showing(leaves(error))]
    for row in rows:
        if output == "json":
            click.echo(json.dumps({"kind": "error", **row}, ensure_ascii=False), err=True)
        else:
            click.echo("\n".join(_text(row)), err=True)
    return int(rows[0]["exitCode"])


def _worth_showing(errors: Iterable[BaseException]) -> list[BaseException]:
    """Without what was cancelled because of another error, and without repetitions."""
    errors = list(errors)
    real = [error for error in errors if not isinstance(error, asyncio.CancelledError)] or errors[:1]
    seen: dict[tuple[type, str, str], BaseException] = {}
    for error in real:
        seen.setdefault((type(error), str(error), getattr(error, "host", "")), error)
    return list(seen.values())


def _row(error: BaseException) -> dict[str, Any]:
    if isinstance(error, KubewrightError):
        row: dict[str, Any] = {"message": error.message, "exitCode": int(error.exit_code)}
        if error.host:
            row["host"] = error.host
        if error.evidence:
            row["evidence"] = list(error.evidence)
        if error.hint:
            row["hint"] = error.hint
        return row
    if isinstance(error, KeyboardInterrupt | asyncio.CancelledError | click.Abort):
        return {"message": INTERRUPTED, "exitCode": int(ExitCode.INTERRUPTED)}
    where = _write_traceback(error)
    if os.environ.get("KUBEWRIGHT_DEBUG"):
        traceback.print_exception(error)
    what = " ".join(str(error).split())[:200]
    return {
        "message": f"this should not happen: {type(error).__name__}{': ' if what else ''}{what}",
        "exitCode": int(ExitCode.FAILURE),
        "hint": f"please report it, with {where}" if where else "please report it",
    }


def _text(row: dict[str, Any]) -> list[str]:
    host = row.get("host", "")
    message = row["message"]
    if host and not message.startswith(host):
        message = f"{host}: {message}"
    if row["exitCode"] == ExitCode.INTERRUPTED:
        return [message]
    lines = [f"{_style('error:', fg='red', bold=True)} {message}"]
    lines += [f"    {line}" for line in row.get("evidence", ())]
    if row.get("hint"):
        lines.append(f"{_style('mend:', fg='green')} {row['hint']}")
    return lines


def _style(text: str, **style: Any) -> str:
    coloured = sys.stderr.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
    return click.style(text, **style) if coloured else text


def _write_traceback(error: BaseException) -> Path | None:
    """Keep the traceback in `~/.cache/kubewright/crash`; None where that cannot be written."""
    try:
        home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        folder = home / "kubewright" / "crash"
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        path = folder / time.strftime(f"%Y%m%dT%H%M%S-{os.getpid()}.txt")
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        with os.fdopen(fd, "w", encoding="utf-8") as file:
            file.writelines(traceback.format_exception(error))
    except (OSError, RuntimeError):
        return None
    return path
