"""Nodes whose machines have been removed for good: nothing waits for them any more."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import ClassVar

from kubewright.clients.kube import KubeClient
from kubewright.events import Activity
from kubewright.phases.phase import Action, Change, Phase


class GoneNodes(Phase):
    """Take Nodes out of the cluster, with their Pods; `is_gone` knows by its name whose machine is no more."""

    name: ClassVar[str] = "gone-nodes"
    title: ClassVar[str] = "remove Nodes whose machines are gone"

    def __init__(self, kube: KubeClient, is_gone: Callable[[str], bool]) -> None:
        self._kube = kube
        self._is_gone = is_gone

    async def look(self) -> list[Change]:
        """Which Nodes are left of them."""
        names = [node["metadata"]["name"] for node in await self._kube.list("v1", "Node")]
        return [Change(Action.DELETE, f"Node {name}") for name in names if self._is_gone(name)]

    async def act(self, changes: Sequence[Change], activity: Activity) -> None:
        """Delete each Node, then its Pods at once: no kubelet is there to confirm their end, and without that
        a Service would lead to them for another minute. A DaemonSet's would come back as long as the Node is
        there."""
        for change in changes:
            name = change.target.removeprefix("Node ")
            await self._kube.delete("v1", "Node", name)
            for pod in await self._kube.list("v1", "Pod", fields=f"spec.nodeName={name}"):
                meta = pod["metadata"]
                await self._kube.delete("v1", "Pod", meta["name"], meta["namespace"], grace=0)
