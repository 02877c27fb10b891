"""Whether a Node's kubelet lives, as the cluster sees it."""

from __future__ import annotations

import asyncio

from kubewright.clients.kube import KubeClient
from kubewright.clients.paths import Object
from kubewright.phases.waiting import wait_until

_LEASES = "kube-node-lease"
_PATIENCE = 25.0
"""Seconds without a sign of life: a kubelet renews its Lease every 10 s (KubeletConfiguration,
nodeLeaseDurationSeconds 40)."""


def is_silent(node: Object) -> bool:
    """Whether the controllers have given up on a Node's kubelet, which they do after 40 s."""
    for condition in (node.get("status") or {}).get("conditions") or []:
        if condition["type"] == "Ready":
            return bool(condition["status"] == "Unknown")
    return True


async def reports(kube: KubeClient, node: Object, *, patience: float = _PATIENCE) -> bool:
    """Whether a kubelet renews its Lease. No clock is compared: `patience` seconds are waited for a renewal.

    Where the controllers have noticed its silence already, nothing is waited for.
    """
    name = str(node["metadata"]["name"])
    loop = asyncio.get_running_loop()
    end = loop.time() + patience
    before = await renewed(kube, name)
    while not is_silent(node):
        if await renewed(kube, name) != before:
            return True
        if loop.time() >= end:
            return False
        await asyncio.sleep(0.5)
        node = await kube.get("v1", "Node", name) or {}
    return False


async def renewed(kube: KubeClient, name: str) -> str:
    """When a Node's kubelet has last renewed its Lease, by its own clock; empty where it has none."""
    lease = await kube.get("coordination.k8s.io/v1", "Lease", name, _LEASES) or {}
    return str((lease.get("spec") or {}).get("renewTime", ""))


async def reports_again(kube: KubeClient, name: str, *, deadline: float) -> None:
    """Wait until a kubelet that was restarted just now renews its Lease, which it does when it has started: until
    then the API still shows the last renewal of the one before it.

    Raises `WaitTimeoutError` after `deadline` seconds, and `ApiError` where the API refuses.
    """
    before: str | None = None

    async def missing() -> str | None:
        nonlocal before
        now = await renewed(kube, name)
        before = now if before is None else before
        return "it has not renewed its Lease yet" if now == before else None

    await wait_until(missing, f"{name}: the kubelet to report", deadline=deadline, interval=0.2)
