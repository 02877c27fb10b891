"""Waiting until DaemonSets and Deployments run everywhere, and saying why one does not."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import ClassVar

from kubewright.clients.kube import KubeClient
from kubewright.clients.paths import Object
from kubewright.events import Activity
from kubewright.phases.nodes import ready_reason
from kubewright.phases.phase import Change, Phase
from kubewright.phases.waiting import wait_until


class Rollout(Phase):
    """The workloads in kube-system that a cluster is not whole without.

    A Node that is none of `nodes` and not Ready is not waited for: nobody said that it must be there.
    """

    name: ClassVar[str] = "rollout"
    title: ClassVar[str] = "wait for kube-proxy, the pod network and cluster DNS"
    always_verify: ClassVar[bool] = True

    def __init__(
        self, kube: KubeClient, workloads: Sequence[tuple[str, str]], nodes: Collection[str]
    ) -> None:
        self._kube = kube
        self._workloads = workloads
        self._nodes = nodes

    async def look(self) -> list[Change]:
        """Nothing: their controllers make it so."""
        return []

    async def act(self, changes: Sequence[Change], activity: Activity) -> None:
        """Nothing to do."""

    async def verify(self, activity: Activity) -> None:
        """Wait for all of them."""
        await wait_until(
            self._missing, "the workloads in kube-system", deadline=180, interval=0.2,
            diagnose=self._diagnose, progress=activity.progress,
            hint="`kubectl -n kube-system describe pod NAME` tells more",
        )  # fmt: skip

    async def _missing(self) -> str | None:
        reasons = []
        strangers = sum(
            1
            for node in await self._kube.list("v1", "Node")
            if node["metadata"]["name"] not in self._nodes and ready_reason(node)
        )
        for kind, name in self._workloads:
            live = await self._kube.get("apps/v1", kind, name, "kube-system")
            reason = "not there" if live is None else unfinished(live, without=strangers)
            if reason:
                reasons.append(f"{name}: {reason}")
        return ", ".join(reasons) or None

    async def _diagnose(self) -> list[str]:
        return [
            f"{pod['metadata']['name']} on {pod['spec'].get('nodeName', 'no node')}: {why}"
            for pod in await self._kube.list("v1", "Pod", "kube-system")
            if (why := pod_trouble(pod))
        ]


def unfinished(workload: Object, *, without: int = 0) -> str:
    """What a DaemonSet or Deployment still waits for; empty where its rollout is over.

    On `without` of its nodes, a DaemonSet is not expected to run, and as many of a Deployment's Pods may have been
    there, of which one must be elsewhere.
    """
    status = workload.get("status") or {}
    if status.get("observedGeneration", 0) < workload["metadata"].get("generation", 0):
        return "not seen by its controller yet"
    if workload["kind"] == "DaemonSet":
        wanted = max(status.get("desiredNumberScheduled", 0) - without, 0)
        updated, ready = status.get("updatedNumberScheduled", 0), status.get("numberReady", 0)
    else:
        wanted = workload["spec"].get("replicas", 1)
        updated, ready = status.get("updatedReplicas", 0), status.get("readyReplicas", 0)
        if status.get("replicas", 0) > wanted:
            return "" if without else "old pods are still going"
        wanted = max(wanted - without, min(wanted, 1))
    if updated < wanted:
        return f"{updated} of {wanted} updated"
    return f"{ready} of {wanted} ready" if ready < wanted else ""


def pod_trouble(pod: Object) -> str:
    """Why a pod is not Ready, in its own words; empty where it is."""
    status = pod.get("status") or {}
    conditions = {item["type"]: item for item in status.get("conditions") or []}
    if conditions.get("Ready", {}).get("status") == "True" or status.get("phase") == "Succeeded":
        return ""
    for container in [*(status.get("initContainerStatuses") or []), *(status.get("containerStatuses") or [])]:
        for state in ("waiting", "terminated"):
            if (detail := (container.get("state") or {}).get(state)) is not None:
                return f"{detail.get('reason', state)} {detail.get('message', '')}".strip()[:300]
    unscheduled = conditions.get("PodScheduled", {})
    if unscheduled.get("status") == "False":
        return str(unscheduled.get("message", "not scheduled"))
    return "running, not ready"
