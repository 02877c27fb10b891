"""What a phase is: it looks, says what it would change, acts, and verifies."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, ClassVar

from kubewright.events import Activity, Events


class Action(StrEnum):
    """What is done to a target."""

    CREATE = "create"
    UPDATE = "update"
    DELETE = "delete"
    RUN = "run"


@dataclass(frozen=True, slots=True)
class Change:
    """One difference between what is and what must be."""

    action: Action
    target: str
    """A path, an object (`ConfigMap kube-system/kubeadm-config`), an image or a unit."""
    host: str = ""
    """Empty for an object of the cluster."""
    diff: tuple[str, ...] = ()
    """Lines of a unified diff; empty where there is nothing to show, or where it would show a secret."""

    def as_dict(self) -> dict[str, Any]:
        """The change as `plan -o json` prints it."""
        row: dict[str, Any] = {"action": str(self.action), "target": self.target}
        if self.host:
            row["host"] = self.host
        if self.diff:
            row["diff"] = list(self.diff)
        return row


class Phase(ABC):
    """One named, idempotent step on one host or on the cluster.

    `look` changes nothing. `act` may be killed anywhere: running the phase again finishes it. A phase that has
    nothing to do still runs `verify` where `always_verify` says so (waiting for a rollout, for example).
    """

    name: ClassVar[str]
    title: ClassVar[str]
    always_verify: ClassVar[bool] = False

    host_name: str = ""

    @abstractmethod
    async def look(self) -> Sequence[Change]:
        """What differs from what must be; empty where nothing does."""

    @abstractmethod
    async def act(self, changes: Sequence[Change], activity: Activity) -> None:
        """Make the changes that `look` found."""

    async def verify(self, activity: Activity) -> None:
        """Wait until the change has taken effect. Raises `WaitTimeoutError` with what was last seen."""
        return

    async def run(self, events: Events) -> Sequence[Change]:
        """Look, act, verify; the changes that were made."""
        async with events.phase(self.name, self.title, host=self.host_name) as activity:
            changes = await self.look()
            if changes:
                await self.act(changes, activity)
            if changes or self.always_verify:
                await self.verify(activity)
            if not changes:
                activity.skip("nothing to do")
            else:
                activity.data["changes"] = len(changes)
            return changes
