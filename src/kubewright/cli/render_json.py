"""Events as JSON lines, one event a line, for programs that follow a run."""

from __future__ import annotations

import json
from typing import TextIO

from kubewright.events import Event


class JsonLines:
    """Writes each event as it happens and flushes, so that a reader of a pipe sees it at once."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def __call__(self, event: Event) -> None:
        """Write one event."""
        self._stream.write(json.dumps(event.as_dict(), ensure_ascii=False, default=str) + "\n")
        self._stream.flush()
