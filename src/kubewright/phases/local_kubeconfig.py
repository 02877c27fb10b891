"""The administrator's kubeconfig on this computer: a file of its own, and a context in the user's (P24)."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

from kubewright.clients import kubeconfig as contexts
from kubewright.clients.filelock import replace_file
from kubewright.errors import ConfigError
from kubewright.events import Activity
from kubewright.model import kubeconfig
from kubewright.phases.phase import Action, Change, Phase


class LocalKubeconfig(Phase):
    """Write `out` (where given), and merge the context `name` into the user's kubeconfig (where asked).

    A user's file that cannot take the context is left as it is, and that is a warning: the cluster is there.
    After `run`, `merged` is where the context stands, and `trouble` why it does not.
    """

    name: ClassVar[str] = "local-kubeconfig"
    title: ClassVar[str] = "write the kubeconfig on this computer"
    always_verify: ClassVar[bool] = True

    def __init__(self, name: str, admin: dict[str, Any], out: Path | None, *, merge: bool) -> None:
        self._context = name
        self._admin = admin
        self._merge = merge
        self._out = None if out is None else out.expanduser().resolve()
        self.merged: contexts.Merged | None = None
        self.trouble: ConfigError | None = None

    async def look(self) -> list[Change]:
        """Whether the file of its own differs."""
        if self._out is None or _holds(self._out, self._content):
            return []
        return [Change(Action.UPDATE if self._out.exists() else Action.CREATE, str(self._out))]

    async def act(self, changes: Sequence[Change], activity: Activity) -> None:
        """Write it. It is the user's own file, root or not."""
        if self._out is not None:
            _write(self._out, self._content)

    async def verify(self, activity: Activity) -> None:
        """Merge the context; nothing is written where it is there already."""
        if not self._merge:
            return
        try:
            # In a thread: another process may hold the file for some seconds.
            self.merged = await asyncio.to_thread(
                contexts.merge_context, contexts.default_target(), self._admin, self._context
            )
        except ConfigError as error:
            self.trouble = error

    @property
    def _content(self) -> bytes:
        return kubeconfig.dump(self._admin).reveal()


def _holds(file: Path, content: bytes) -> bool:
    try:
        private = file.stat().st_mode & 0o777 == kubeconfig.KUBECONFIG_MODE
        return private and file.read_bytes() == content
    except OSError:
        return False


def _write(file: Path, content: bytes) -> None:
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"{file.parent}: cannot be made: {error.strerror}") from None
    replace_file(file, content, mode=kubeconfig.KUBECONFIG_MODE)
