"""Nodes that leave for good: nothing waits for them any more."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import ClassVar

from kubewright.clients.kube import KubeClient
from kubewright.clients.objects import ObjectClient
from kubewright.events import Activity
from kubewright.model.reset import why_not_this_node
from kubewright.phases.node import Node
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
        """Delete each Node with its Pods."""
        for change in changes:
            await _delete(self._kube, change.target.removeprefix("Node "))


class OwnNodeGone(Phase):
    """Take a host's own Node out of the cluster, with its Pods, if it is still this host's."""

    name: ClassVar[str] = "remove-node"
    title: ClassVar[str] = "remove this host's Node"

    def __init__(self, kube: ObjectClient, name: str, node: Node) -> None:
        self._kube = kube
        self._name = name
        self._node = node
        self.host_name = node.name
        self.there = False
        """Whether the cluster has it, found by `look`."""
        self.foreign = ""
        """Why it is another host's by now, found by `look`."""

    async def look(self) -> list[Change]:
        """Whether it is there, and this host's: one of the same name may have taken its place."""
        found = await self._kube.get("v1", "Node", self._name)
        self.there = found is not None
        if found is None:
            return []
        facts = self._node.facts
        addresses = {self._node.ip, *facts.addresses}
        self.foreign = why_not_this_node(found, machine_id=facts.machine_id, addresses=addresses)
        return [] if self.foreign else [Change(Action.DELETE, f"Node {self._name}")]

    async def act(self, changes: Sequence[Change], activity: Activity) -> None:
        """Delete it."""
        await _delete(self._kube, self._name)
        self.there = False


async def _delete(kube: ObjectClient, name: str) -> None:
    """Delete a Node, then its Pods at once: no kubelet is there, or will be, to confirm their end, and without
    that a Service would lead to them for another minute. A DaemonSet's would come back as long as the Node is
    there."""
    await kube.delete("v1", "Node", name)
    for pod in await kube.list("v1", "Pod", fields=f"spec.nodeName={name}"):
        meta = pod["metadata"]
        await kube.delete("v1", "Pod", meta["name"], meta["namespace"], grace=0)
