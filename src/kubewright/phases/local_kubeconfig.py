"""The administrator's kubeconfig on this computer: a file of its own, and a context in the user's (P24)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

from kubewright.clients import kubeconfig as contexts
from kubewright.errors import ConfigError
from kubewright.events import Activity
from kubewright.hosts import FileWrite, Host
from kubewright.model import kubeconfig
from kubewright.phases.files import differing
from kubewright.phases.phase import Action, Change, Phase


class LocalKubeconfig(Phase):
    """Write `out` (where given), and merge the context `name` into the user's kubeconfig (where asked).

    A user's file that cannot take the context is left as it is, and that is a warning: the cluster is there.
    After `run`, `merged` is where the context stands, and `trouble` why it does not.
    """

    name: ClassVar[str] = "local-kubeconfig"
    title: ClassVar[str] = "write the kubeconfig on this computer"
    always_verify: ClassVar[bool] = True

    def __init__(
        self, computer: Host, name: str, admin: dict[str, Any], out: Path | None, *, merge: bool
    ) -> None:
        self._computer = computer
        self._context = name
        self._admin = admin
        self._merge = merge
        content = kubeconfig.dump(admin)
        self._files = [FileWrite(str(out), content, kubeconfig.KUBECONFIG_MODE)] if out is not None else []
        self.merged: contexts.Merged | None = None
        self.trouble: ConfigError | None = None

    async def look(self) -> list[Change]:
        """Whether the file of its own differs."""
        return [Change(Action.UPDATE, file.path) for file in await differing(self._computer, self._files)]

    async def act(self, changes: Sequence[Change], activity: Activity) -> None:
        """Write it."""
        await self._computer.write_files(self._files)

    async def verify(self, activity: Activity) -> None:
        """Merge the context; nothing is written where it is there already."""
        if not self._merge:
            return
        try:
            self.merged = contexts.merge_context(contexts.default_target(), self._admin, self._context)
        except ConfigError as error:
            self.trouble = error
