"""A Node gives up its Pods: no new ones come, and those that are there are evicted, by their budgets."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import ClassVar

from kubewright.clients.objects import ObjectClient
from kubewright.clients.paths import object_path
from kubewright.errors import ApiError, ExitCode, KubewrightError
from kubewright.events import Activity
from kubewright.model import drain as model
from kubewright.model.objects import Object
from kubewright.phases.phase import Action, Change, Phase
from kubewright.phases.waiting import wait_until

DEADLINE = 300.0
"""Seconds for all Pods of a Node to be gone."""
_AT_ONCE = 16
_AGAIN = 1.0
"""Seconds after which a Pod is asked for again that could not be evicted."""


class Cordon(Phase):
    """Whether new Pods come to a Node."""

    name: ClassVar[str] = "cordon"
    title: ClassVar[str] = "let no new Pods come"

    def __init__(self, kube: ObjectClient, node: str, *, closed: bool = True) -> None:
        self._kube = kube
        self._node = node
        self._closed = closed
        if not closed:
            self.name, self.title = "uncordon", "let new Pods come"  # type: ignore[misc]  # one class does both

    async def look(self) -> list[Change]:
        """Whether it is so already. Raises `KubewrightError` where there is no such Node."""
        spec = (await existing_node(self._kube, self._node)).get("spec") or {}
        if bool(spec.get("unschedulable")) == self._closed:
            return []
        return [Change(Action.UPDATE, f"Node {self._node} {'un' * self._closed}schedulable")]

    async def act(self, changes: Sequence[Change], activity: Activity) -> None:
        """Say so in the Node."""
        body = {"spec": {"unschedulable": True if self._closed else None}}
        await self._kube.patch("v1", "Node", self._node, body)


class Drain(Phase):
    """No Pods but its own on a Node: those of DaemonSets and static Pods stay.

    They are evicted, which asks their PodDisruptionBudgets, all at once; what a budget forbids is asked for again
    until it allows it. A Pod without a controller would be lost, so that one stops all before anything is done,
    unless `force`. `deadline` is in seconds; `grace`, a Pod's time to end, too, and None leaves it to the Pod.
    """

    name: ClassVar[str] = "drain"
    title: ClassVar[str] = "drain the Node"

    def __init__(
        self, kube: ObjectClient, node: str, *, deadline: float = DEADLINE, grace: int | None = None,
        force: bool = False,
    ) -> None:  # fmt: skip
        self._kube = kube
        self._node = node
        self._deadline = deadline
        self._grace = grace
        self._force = force
        self._cordon = Cordon(kube, node)
        self._again: dict[str, float] = {}
        self._blocked: dict[str, str] = {}

    async def look(self) -> list[Change]:
        """Which Pods must go."""
        changes = await self._cordon.look()
        found = await self._pods()
        if found.lost and not self._force:
            raise KubewrightError(
                f"Node {self._node}: no controller would make these Pods anew elsewhere: "
                f"{model.shortened(map(model.title, found.lost))}",
                exit_code=ExitCode.HOST_NOT_FIT,
                hint="delete them, or say --force, which does; a Deployment's Pods are made anew",
            )
        return [*changes, *(Change(Action.DELETE, f"Pod {model.title(pod)}") for pod in found.pods)]

    async def _pods(self) -> model.Leaving:
        return model.leaving(await self._kube.list("v1", "Pod", fields=f"spec.nodeName={self._node}"))

    async def act(self, changes: Sequence[Change], activity: Activity) -> None:
        """Close the Node, and evict until nothing is left."""
        if closing := await self._cordon.look():
            await self._cordon.act(closing, activity)
        version = await self._eviction_version()

        async def missing() -> str | None:
            found = await self._pods()
            now = asyncio.get_running_loop().time()
            due = [
                pod for pod in found.pods
                if not model.ends(pod) and self._again.get(pod["metadata"]["uid"], 0.0) <= now
            ]  # fmt: skip
            room = asyncio.Semaphore(_AT_ONCE)
            async with asyncio.TaskGroup() as group:
                for pod in due:
                    group.create_task(self._evict(pod, version, room))
            return self._left(found.pods) if found.pods else None

        await wait_until(
            missing, f"the Pods of Node {self._node} to leave", deadline=self._deadline, interval=0.25,
            progress=activity.progress, diagnose=self._diagnose,
            hint="a PodDisruptionBudget opens when its other Pods are ready: `kubectl get pdb -A`; the Node takes "
            f"no new Pods until `kubewright node uncordon {self._node}`",
        )  # fmt: skip

    async def _eviction_version(self) -> str:
        """In which version the API server knows evictions: policy/v1 since 1.22, policy/v1beta1 before."""
        found = await self._kube.json("GET", "/api/v1")
        for item in found.get("resources") or []:
            if item.get("name") == "pods/eviction":
                return f"{item['group']}/{item['version']}"
        raise ApiError("the API server does not offer evictions (pods/eviction)", status=404)

    async def _evict(self, pod: Object, version: str, room: asyncio.Semaphore) -> None:
        meta = pod["metadata"]
        body: Object = {
            "apiVersion": version, "kind": "Eviction",
            "metadata": {"name": meta["name"], "namespace": meta["namespace"]},
            # Of two Pods of one name (a StatefulSet's) the one that is here.
            "deleteOptions": {"preconditions": {"uid": meta["uid"]}},
        }  # fmt: skip
        if self._grace is not None:
            body["deleteOptions"]["gracePeriodSeconds"] = self._grace
        path = object_path("v1", "Pod", meta["namespace"], meta["name"]) + "/eviction"
        self._again[meta["uid"]] = asyncio.get_running_loop().time() + _AGAIN
        async with room:
            try:
                answer = await self._kube.json("POST", path, body=body)
            except ApiError as error:
                if error.status not in (404, 409) and not error.passes:
                    raise
                said = error.message.partition(f"/eviction: {error.status} ")[2]
                self._blocked[meta["uid"]] = said or error.message
                return
        if answer.get("status") == "Failure":  # of two budgets, with the status of success (until 1.21)
            self._blocked[meta["uid"]] = str(answer.get("message", ""))
        else:
            self._blocked.pop(meta["uid"], None)

    def _why(self, pod: Object) -> str:
        if model.ends(pod):
            return "ends"
        return self._blocked.get(pod["metadata"]["uid"], "is evicted")

    def _left(self, pods: Sequence[Object]) -> str:
        count = f"{len(pods)} Pod{'s' * (len(pods) != 1)}"
        # Those that nothing moves are named first.
        pods = sorted(pods, key=model.ends)
        return f"{count} left: " + model.shortened(
            (f"{model.title(pod)} {self._why(pod)}" for pod in pods), most=3
        )

    async def _diagnose(self) -> list[str]:
        return [f"Pod {model.title(pod)}: {self._why(pod)}" for pod in (await self._pods()).pods][:20]


async def existing_node(kube: ObjectClient, name: str) -> Object:
    """A Node. Raises `KubewrightError` with the names of those that there are where it is not one of them."""
    found = await kube.get("v1", "Node", name)
    if found is None:
        names = sorted(node["metadata"]["name"] for node in await kube.list("v1", "Node"))
        raise KubewrightError(
            f"the cluster has no Node {name!r}",
            hint=f"its Nodes: {', '.join(names)}",
            exit_code=ExitCode.USAGE,
        )
    return found
