"""Node objects: their labels, taints and annotations, and waiting until they are Ready."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import ClassVar

from kubewright.clients.kube import KubeClient
from kubewright.clients.paths import Object
from kubewright.errors import ApiError
from kubewright.events import Activity
from kubewright.model import stored
from kubewright.phases.node import Node
from kubewright.phases.phase import Action, Change, Phase
from kubewright.phases.waiting import unit_evidence, wait_until


class NodeMarks(Phase):
    """Labels, taints and annotations of a Node. Those that others have set stay."""

    name: ClassVar[str] = "mark-node"
    title: ClassVar[str] = "label and taint the Node"

    def __init__(
        self,
        kube: KubeClient,
        node: Node,
        *,
        labels: Mapping[str, str],
        taints: Sequence[Mapping[str, str]],
        cri_socket: str,
        annotations: Mapping[str, str] | None = None,
    ) -> None:
        self._kube = kube
        self._node = node
        self.host_name = node.name
        self._labels = labels
        self._taints = taints
        self._cri_socket = cri_socket
        self._annotations = annotations or {}

    async def look(self) -> list[Change]:
        """Which marks are missing; a Node that is not there yet lacks them all."""
        live = await self._kube.get("v1", "Node", self._node.name)
        patch = self._patch(live or {})
        meta = patch.get("metadata") or {}
        marks = [f"{title[:-1]} {key}={value}" for title in ("labels", "annotations")
                 for key, value in (meta.get(title) or {}).items()]  # fmt: skip
        marks += [
            f"taint {item['key']}:{item['effect']}" for item in (patch.get("spec") or {}).get("taints", [])
        ]
        return [Change(Action.UPDATE, f"Node {self._node.name} {mark}", self.host_name) for mark in marks]

    def _patch(self, live: Object) -> Object:
        return stored.node_patch(
            live, labels=self._labels, taints=self._taints, cri_socket=self._cri_socket,
            annotations=self._annotations,
        )  # fmt: skip

    async def act(self, changes: Sequence[Change], activity: Activity) -> None:
        """Wait for the Node, and patch it. Others (the node controller) change its taints too, so that the
        patch carries the version that was read, and a lost race is tried again."""
        await wait_until(
            self._patched,
            f"Node {self._node.name} to be marked",
            deadline=60,
            diagnose=lambda: unit_evidence(self._node.host, "kubelet"),
            hint=f"the kubelet registers the Node: journalctl -u kubelet on {self._node.name}",
            progress=activity.progress,
        )

    async def _patched(self) -> str | None:
        live = await self._kube.get("v1", "Node", self._node.name)
        if live is None:
            return "the kubelet has not registered the Node yet"
        if not (patch := self._patch(live)):
            return None
        try:
            await self._kube.merge("v1", "Node", self._node.name, patch)
        except ApiError as error:
            if error.status != 409:
                raise
            return "somebody else changed the Node"
        return None


class NodesReady(Phase):
    """Every node's Ready condition, as its kubelet has reported it since the host was booted: after a power cut
    the last report from before stands for 40 s."""

    name: ClassVar[str] = "nodes-ready"
    title: ClassVar[str] = "wait until all nodes are Ready"
    always_verify: ClassVar[bool] = True

    def __init__(self, kube: KubeClient, nodes: Sequence[Node]) -> None:
        self._kube = kube
        self._nodes = nodes
        self._boots: dict[str, str] = {}

    async def look(self) -> list[Change]:
        """Nothing: the kubelets make it so."""
        return []

    async def act(self, changes: Sequence[Change], activity: Activity) -> None:
        """Nothing to do."""

    async def verify(self, activity: Activity) -> None:
        """Wait for all of them; a node that stays behind is named with its reason and its kubelet's log."""
        read = ["cat", "/proc/sys/kernel/random/boot_id"]
        async with asyncio.TaskGroup() as group:
            boots = {node.name: group.create_task(node.host.run(read, check=False)) for node in self._nodes}
        self._boots = {name: task.result().text for name, task in boots.items()}
        await wait_until(
            self._missing, "all nodes to be Ready", deadline=180, interval=0.2,
            diagnose=self._diagnose, progress=activity.progress,
            hint="`kubectl describe node NAME` tells more",
        )  # fmt: skip

    async def _missing(self) -> str | None:
        states = {
            node["metadata"]["name"]: ready_reason(node) or self._from_before(node)
            for node in await self._kube.list("v1", "Node")
        }
        missing = {
            node.name: states.get(node.name, "not registered")
            for node in self._nodes
            if states.get(node.name, "not registered")
        }
        return ", ".join(f"{name}: {why}" for name, why in missing.items()) or None

    def _from_before(self, node: Object) -> str:
        """Why the Node's state cannot be trusted: it was last reported before its host was booted."""
        now = self._boots.get(node["metadata"]["name"])
        then = ((node.get("status") or {}).get("nodeInfo") or {}).get("bootID")
        return "its kubelet has not reported since it was booted" if now and then and now != then else ""

    async def _diagnose(self) -> list[str]:
        live = {node["metadata"]["name"]: node for node in await self._kube.list("v1", "Node")}
        evidence = []
        for node in self._nodes:
            found = live.get(node.name)
            if found is None or ready_reason(found):
                evidence += [
                    f"{node.name}: {line}" for line in await unit_evidence(node.host, "kubelet", lines=5)
                ]
        return evidence


def ready_reason(node: Object) -> str:
    """Why a Node is not Ready; empty where it is."""
    for condition in (node.get("status") or {}).get("conditions") or []:
        if condition["type"] == "Ready":
            if condition["status"] == "True":
                return ""
            return condition.get("message") or condition.get("reason") or "not Ready"
    return "has not reported yet"
