"""Kubelets that run restart one after another, so that no Service loses all of its Pods at once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass

from kubewright.clients.objects import ObjectClient
from kubewright.errors import ApiError, WaitTimeoutError
from kubewright.events import Events
from kubewright.hosts import Host
from kubewright.model.drain import MIRROR
from kubewright.model.objects import Object
from kubewright.phases.node import Node
from kubewright.phases.rollout import pod_trouble
from kubewright.phases.waiting import wait_until

_PROBES = ("readinessProbe", "startupProbe")
_DEADLINE = 60.0
_SETTLED = 15.0
"""Seconds after which a kubelet that was restarted has told of its Pods what there is to tell."""
_SHOW = 'systemctl show -p ActiveState -p InvocationID "$1"'


@dataclass(frozen=True, slots=True)
class _Ready:
    """A Pod that is Ready."""

    name: str
    since: str
    """When it has become so, as the API writes it."""
    probed: bool
    """Whether its kubelet finds out by a probe."""


class KubeletTurns:
    """Whose turn it is to restart its kubelet.

    A kubelet that was restarted reports Pods with a readiness or startup probe as not Ready until its probes have
    run again (kubernetes/kubernetes#100277), and their Services send nobody there meanwhile.
    """

    def __init__(self, events: Events, *, deadline: float = _DEADLINE, settled: float = _SETTLED) -> None:
        """`deadline`, in seconds, is how long a node's Pods are waited for; `settled`, how long one that stays
        Ready is looked at."""
        self._events = events
        self._deadline = deadline
        self._settled = settled
        self._one = asyncio.Lock()

    @asynccontextmanager
    async def turn(self, node: Node, kube: ObjectClient) -> AsyncIterator[None]:
        """Inside, no other kubelet restarts. Where this one did, its Pods that were Ready are waited for after it.

        A kubelet that does not run yet takes no turn. Pods that are not Ready again in time are a warning.
        """
        if not await _running(node.host):
            yield
            return
        async with self._one:
            before = await _running(node.host)
            ready = await self._ready(node, kube)
            yield
            if ready and await _running(node.host) != before:
                await self._wait(node, kube, ready)

    async def _ready(self, node: Node, kube: ObjectClient) -> dict[str, _Ready]:
        try:
            return {uid: ready for uid, pod in (await _pods(node, kube)).items() if (ready := _said(pod))}
        except ApiError as error:
            self._events.warn(
                f"{node.name}: its Pods are not waited for, for the API did not list them: {error.message}",
                host=node.name,
            )
            return {}

    async def _wait(self, node: Node, kube: ObjectClient, before: Mapping[str, _Ready]) -> None:
        loop = asyncio.get_running_loop()
        settled = loop.time() + self._settled

        async def missing() -> str | None:
            pods = await _pods(node, kube)
            reasons = []
            for uid, then in before.items():
                pod = pods.get(uid)
                if pod is None or pod["metadata"].get("deletionTimestamp"):
                    continue  # whoever took it away has another one elsewhere
                now = _said(pod)
                if now is None:
                    if why := pod_trouble(pod):
                        reasons.append(f"{then.name}: {why}")
                # What the API says may still be from before the restart.
                elif then.probed and now.since == then.since and loop.time() < settled:
                    reasons.append(f"{then.name}: its probe has not run yet")
            return ", ".join(reasons) or None

        try:
            await wait_until(missing, "its Pods", deadline=self._deadline, interval=0.3)
        except WaitTimeoutError as error:
            last = error.evidence[0].removeprefix("last seen: ") if error.evidence else ""
            self._events.warn(
                f"{node.name}: {self._deadline:.0f} s after its kubelet was restarted not all of its Pods are "
                f"Ready again: {last}",
                host=node.name,
            )
        except ApiError as error:
            self._events.warn(f"{node.name}: its Pods are not waited for: {error.message}", host=node.name)


async def _running(host: Host) -> str:
    """The kubelet's invocation, another one after each start; empty where it does not run."""
    lines = (await host.shell(_SHOW, "kubelet.service")).text.splitlines()
    said = dict(line.split("=", 1) for line in lines if "=" in line)
    return said.get("InvocationID", "") if said.get("ActiveState") == "active" else ""


async def _pods(node: Node, kube: ObjectClient) -> dict[str, Object]:
    """A node's Pods by their uids, without the static ones: no Service leads to those, and the kubelet calls them
    Ready up to a minute after they serve, at its next look at them."""
    pods = await kube.list("v1", "Pod", fields=f"spec.nodeName={node.name}")
    return {
        str(pod["metadata"]["uid"]): pod
        for pod in pods
        if MIRROR not in (pod["metadata"].get("annotations") or {})
    }


def _said(pod: Object) -> _Ready | None:
    """What the API says of a Pod that is Ready; None of one that is not."""
    conditions = {one["type"]: one for one in (pod.get("status") or {}).get("conditions") or []}
    condition = conditions.get("Ready") or {}
    if condition.get("status") != "True":
        return None
    meta, containers = pod["metadata"], pod["spec"].get("containers") or []
    return _Ready(
        f"{meta['namespace']}/{meta['name']}",
        str(condition.get("lastTransitionTime", "")),
        any(container.get(probe) for container in containers for probe in _PROBES),
    )
