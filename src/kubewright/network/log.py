"""The pod network's log: one line an event on standard output, as key=value pairs."""

from __future__ import annotations

import json
import sys
from datetime import UTC, datetime


def say(level: str, message: str, **fields: object) -> None:
    """Write one line. `level` is info, warning or error; values that hold spaces or quotes are quoted."""
    now = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    words = [now, level.upper(), json.dumps(message, ensure_ascii=False)]
    words += [f"{key}={_value(value)}" for key, value in fields.items()]
    sys.stdout.write(" ".join(words) + "\n")
    sys.stdout.flush()


def _value(value: object) -> str:
    text = str(value)
    return json.dumps(text, ensure_ascii=False) if not text or any(c in text for c in ' "=\n') else text
