"""Removing what a check made: its namespace, and those of checks that were killed."""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta

from kubewright.clients.kube import KubeClient
from kubewright.clients.paths import object_path
from kubewright.errors import ApiError
from kubewright.events import Events
from kubewright.model.status import parse_time
from kubewright.workflows.check_objects import LABEL

FORSAKEN = timedelta(minutes=10)
"""No check takes so long: a namespace of ours that is older belongs to nobody."""
_PATIENCE = 20.0
"""Seconds for a namespace to go; without trouble it takes 6."""


async def remove_leftovers(kube: KubeClient, events: Events, *, now: datetime) -> None:
    """Delete namespaces of checks that were killed; their end is not waited for. `now` is the server's time."""
    for namespace in await kube.list("v1", "Namespace", labels=f"{LABEL}=true"):
        meta = namespace["metadata"]
        if now - parse_time(meta["creationTimestamp"]) > FORSAKEN and not meta.get("deletionTimestamp"):
            events.note(f"removing {meta['name']}, which an earlier check left behind")
            await kube.delete("v1", "Namespace", meta["name"])


async def remove_namespace(kube: KubeClient, events: Events, name: str) -> None:
    """Delete the namespace and wait until it is gone; a warning says if it is not gone in the end.

    The namespace controller looks at it only after 5 s (namespaceDeletionGracePeriod), and a kubelet reports the
    end of a pod up to 10 s late (its status manager's syncPeriod), one that does not answer never. So the pods'
    objects are deleted at once, and the kubelets end the containers within those 5 s.
    """
    try:
        if not await kube.delete("v1", "Namespace", name):
            return
        await kube.request("DELETE", object_path("v1", "Pod", name), body={"gracePeriodSeconds": 0})
        end = asyncio.get_running_loop().time() + _PATIENCE
        while (left := await kube.get("v1", "Namespace", name)) is not None:
            if asyncio.get_running_loop().time() > end:
                conditions = (left.get("status") or {}).get("conditions") or []
                said = [item.get("message", "") for item in conditions if item.get("status") == "True"]
                events.warn(
                    f"namespace {name} is still being deleted after {_PATIENCE:.0f} s: {'; '.join(said)}"
                )
                return
            await asyncio.sleep(0.1)
    except ApiError as error:
        events.warn(f"{error.message}; what is left goes with: kubectl delete namespace {name}")
