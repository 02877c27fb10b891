"""Removing what a check made: its namespace, and those of checks that were killed."""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta

from kubewright.clients.kube import KubeClient
from kubewright.errors import ApiError
from kubewright.events import Events
from kubewright.model.status import parse_time
from kubewright.workflows.check_objects import LABEL

FORSAKEN = timedelta(minutes=10)
"""No check takes so long: a namespace of ours that is older belongs to nobody."""
_GENTLE, _FORCED = 12.0, 15.0
"""Seconds for the pods to end by themselves, and for the rest after that."""


async def remove_leftovers(kube: KubeClient, events: Events, *, now: datetime) -> None:
    """Delete namespaces of checks that were killed; their end is not waited for. `now` is the server's time."""
    for namespace in await kube.list("v1", "Namespace", labels=f"{LABEL}=true"):
        meta = namespace["metadata"]
        if now - parse_time(meta["creationTimestamp"]) > FORSAKEN and not meta.get("deletionTimestamp"):
            events.note(f"removing {meta['name']}, which an earlier check left behind")
            await kube.delete("v1", "Namespace", meta["name"])


async def remove_namespace(kube: KubeClient, events: Events, name: str) -> None:
    """Delete the namespace and wait until it is gone; a warning says if it is not gone in the end.

    Pods on nodes that do not answer never end by themselves: after a while they are deleted by force.
    """
    try:
        if not await kube.delete("v1", "Namespace", name):
            return
        if await _gone(kube, name, _GENTLE):
            return
        for pod in await kube.list("v1", "Pod", name):
            await kube.delete("v1", "Pod", pod["metadata"]["name"], name, grace=0)
        if await _gone(kube, name, _FORCED):
            return
        why = "it is still being deleted"
    except ApiError as error:
        why = error.message
    events.warn(f"namespace {name} could not be removed: {why}; kubectl delete namespace {name}")


async def _gone(kube: KubeClient, name: str, seconds: float) -> bool:
    end = asyncio.get_running_loop().time() + seconds
    while await kube.get("v1", "Namespace", name) is not None:
        if asyncio.get_running_loop().time() > end:
            return False
        await asyncio.sleep(0.1)
    return True
