"""Objects as they must be in the cluster: which of them differ, and applying those."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Sequence
from typing import Any, ClassVar

from kubewright.clients.kube import KubeClient
from kubewright.clients.paths import Object
from kubewright.errors import ApiError, WaitTimeoutError
from kubewright.events import Activity
from kubewright.model.objects import to_yaml
from kubewright.phases.files import diff_lines
from kubewright.phases.phase import Action, Change, Phase

# What the API server fills in and nobody asks for.
_FILLED_IN = ("managedFields", "resourceVersion", "generation", "uid", "creationTimestamp", "selfLink")


def object_name(obj: Object) -> str:
    """`ConfigMap kube-system/kubeadm-config`."""
    meta = obj["metadata"]
    return f"{obj['kind']} {meta['namespace'] + '/' if meta.get('namespace') else ''}{meta['name']}"


class Objects(Phase):
    """Server-side apply of a list of objects; what others have set on them stays."""

    name: ClassVar[str] = "objects"
    title: ClassVar[str] = "apply objects"

    def __init__(self, kube: KubeClient, objects: Sequence[Object], name: str, title: str) -> None:
        self._kube = kube
        self._objects = objects
        self.name = name  # type: ignore[misc]  # one class serves several phases
        self.title = title  # type: ignore[misc]
        self._wanted: list[Object] = []

    async def look(self) -> list[Change]:
        """Compare each object with what applying it would give (a dry run on the server)."""
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(self._difference(obj)) for obj in self._objects]
        changes = []
        self._wanted = []
        for obj, task in zip(self._objects, tasks, strict=True):
            if (change := task.result()) is not None:
                changes.append(change)
                self._wanted.append(obj)
        return changes

    async def _difference(self, obj: Object) -> Change | None:
        meta = obj["metadata"]
        live = await self._kube.get(obj["apiVersion"], obj["kind"], meta["name"], meta.get("namespace", ""))
        if live is None:
            return created(obj)
        would_be = await self._kube.apply(obj, dry_run=True)
        old, new = _comparable(live), _comparable(would_be)
        if old == new:
            return None
        secret = obj["kind"] == "Secret"
        return Change(
            Action.UPDATE, object_name(obj), diff=() if secret else diff_lines("", to_yaml(old), to_yaml(new))
        )

    async def act(self, changes: Sequence[Change], activity: Activity) -> None:
        """Apply those that differ, all at once: the API orders nothing, and neither do these objects."""
        async with asyncio.TaskGroup() as group:
            for obj in self._wanted:
                group.create_task(apply_when_possible(self._kube, obj))


def created(obj: Object) -> Change:
    """An object that is not there yet, as a change; a Secret's content is not shown."""
    secret = obj["kind"] == "Secret"
    return Change(Action.CREATE, object_name(obj), diff=() if secret else diff_lines("", b"", to_yaml(obj)))


async def apply_when_possible(kube: KubeClient, obj: Object, *, deadline: float = 30.0) -> None:
    """Apply an object, waiting up to `deadline` seconds for its namespace: a new API server makes
    kube-system and kube-public only after it has begun to answer."""
    end = asyncio.get_running_loop().time() + deadline
    while True:
        try:
            await kube.apply(obj)
            return
        except ApiError as error:
            namespace = obj["metadata"].get("namespace", "")
            if not (error.status == 404 and namespace in ("kube-system", "kube-public")):
                raise
            if asyncio.get_running_loop().time() > end:
                raise WaitTimeoutError(
                    f"{object_name(obj)}: its namespace did not appear within {deadline:.0f} s",
                    evidence=[error.message],
                    hint="look at the API server's log: its controllers make this namespace at start",
                ) from error
            await asyncio.sleep(0.1)


def _comparable(obj: Object) -> Any:
    trimmed = copy.deepcopy(obj)
    trimmed.pop("status", None)
    for key in _FILLED_IN:
        trimmed["metadata"].pop(key, None)
    return trimmed
