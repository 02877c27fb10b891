"""`kubewright status`: read a cluster's nodes, parts and problems in one look."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

from kubewright.clients.kube import KubeClient
from kubewright.errors import ApiError
from kubewright.model.status import ClusterStatus, NodeStatus, Seen, digest, node_status, sort_nodes


async def read_status(kube: KubeClient) -> ClusterStatus:
    """Everything at once, a few requests in all. Raises `ApiError` where the API cannot be read."""
    version = await kube.json("GET", "/version")  # first and alone: if nothing answers, one error says so
    async with asyncio.TaskGroup() as group:
        readyz = group.create_task(_readyz(kube))
        nodes = group.create_task(kube.list("v1", "Node"))
        pods = group.create_task(kube.list("v1", "Pod"))
        daemon_sets = group.create_task(kube.list("apps/v1", "DaemonSet", "kube-system"))
        deployments = group.create_task(kube.list("apps/v1", "Deployment", "kube-system"))
    return digest(
        Seen(
            server=kube.server.url,
            version=str(version.get("gitVersion", "")),
            now=datetime.now(UTC),
            readyz=readyz.result(),
            nodes=nodes.result(),
            pods=pods.result(),
            daemon_sets=daemon_sets.result(),
            deployments=deployments.result(),
        )
    )


async def read_nodes(kube: KubeClient) -> tuple[NodeStatus, ...]:
    """The nodes alone, control planes first."""
    now = datetime.now(UTC)
    return sort_nodes(node_status(node, now) for node in await kube.list("v1", "Node"))


async def _readyz(kube: KubeClient) -> str:
    """The readiness checks' text; empty for a user who may not see it."""
    try:
        return await kube.readyz()
    except ApiError as error:
        if error.status in (401, 403):
            return ""
        raise
