"""Waiting for the pods of a check, node by node; a node whose pods do not start does not hold up the others."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass

from kubewright.clients.kube import KubeClient
from kubewright.clients.paths import Object
from kubewright.events import Activity
from kubewright.model.status import pod_trouble
from kubewright.workflows.check_objects import LABEL
from kubewright.workflows.check_plan import Member, Place, Source
from kubewright.workflows.status import read_nodes

_LOOK_AT_NODES = 2.0
"""Seconds between two looks at the nodes while their pods are waited for."""


@dataclass(frozen=True, slots=True)
class Pods:
    """The nodes that take part, the pod behind each source, and why other nodes take no part."""

    members: tuple[Member, ...]
    names: Mapping[Source, str]
    absent: dict[str, str]


async def started_pods(
    kube: KubeClient, namespace: str, addresses: Mapping[str, str], phase: Activity, deadline: float
) -> Pods:
    """Wait until both pods are Ready on each node of `addresses`, at most `deadline` seconds.

    A node that is no longer Ready meanwhile is not waited for.
    """
    loop = asyncio.get_running_loop()
    began = loop.time()
    next_look = began + _LOOK_AT_NODES
    shown = ""
    absent: dict[str, str] = {}
    while True:
        pods = _by_source(await kube.list("v1", "Pod", namespace))
        waiting = {node: why for node in addresses if node not in absent and (why := _missing(node, pods))}
        if not waiting or loop.time() >= began + deadline:
            break
        first = next(iter(waiting))
        message = f"{len(waiting)} of {len(addresses)} nodes to go; {first}: {waiting[first]}"
        if message != shown:
            shown = message
            phase.progress(message, 1 - len(waiting) / len(addresses))
        await asyncio.sleep(0.1)
        if loop.time() >= next_look:
            next_look += _LOOK_AT_NODES
            absent |= {node: why for node, why in (await not_ready(kube)).items() if node in waiting}
    absent |= {
        node: f"{why}, {deadline:.0f} s after its start{await _events(kube, namespace, pods, node)}"
        for node, why in waiting.items()
    }
    members = tuple(
        Member(node, addresses[node], pods[Source(Place.POD, node)]["status"]["podIP"])
        for node in sorted(addresses)
        if node not in absent
    )
    names = {source: pod["metadata"]["name"] for source, pod in pods.items() if source.node not in absent}
    return Pods(members, names, absent)


async def not_ready(kube: KubeClient) -> dict[str, str]:
    """The nodes that are not Ready, and why."""
    return {node.name: "; ".join(node.problems) for node in await read_nodes(kube) if not node.ready}


def _by_source(pods: list[Object]) -> dict[Source, Object]:
    found = {}
    for pod in pods:
        place = (pod["metadata"].get("labels") or {}).get(LABEL, "")
        node = pod["spec"].get("nodeName") or _wanted_node(pod)
        if place and node and not pod["metadata"].get("deletionTimestamp"):
            found[Source(Place(place), node)] = pod
    return found


def _wanted_node(pod: Object) -> str:
    """The node that a DaemonSet made the pod for, before the scheduler has bound it."""
    affinity = ((pod["spec"].get("affinity") or {}).get("nodeAffinity") or {}).get(
        "requiredDuringSchedulingIgnoredDuringExecution"
    ) or {}
    for term in affinity.get("nodeSelectorTerms") or []:
        for field in term.get("matchFields") or []:
            if field.get("key") == "metadata.name" and field.get("values"):
                return str(field["values"][0])
    return ""


def _missing(node: str, pods: Mapping[Source, Object]) -> str:
    """What the node still lacks; empty where both of its pods are Ready and have an address."""
    for place in (Place.POD, Place.NODE):
        pod = pods.get(Source(place, node))
        if pod is None:
            return f"no pod of DaemonSet {place} has been made for it"
        if trouble := pod_trouble(pod):
            return f"pod {pod['metadata']['name']}: {trouble}"
        if not (pod.get("status") or {}).get("podIP"):
            return f"pod {pod['metadata']['name']} has no address"
    return ""


async def _events(kube: KubeClient, namespace: str, pods: Mapping[Source, Object], node: str) -> str:
    """The last warning about the node's pods: it says what their state does not (a CNI plugin's error)."""
    names = {pod["metadata"]["name"] for source, pod in pods.items() if source.node == node}
    warnings = [
        event
        for event in await kube.list("v1", "Event", namespace, fields="type=Warning")
        if event["involvedObject"].get("name") in names
    ]
    if not warnings:
        return ""
    last = max(warnings, key=lambda event: str(event.get("lastTimestamp") or event.get("eventTime") or ""))
    return f"; {last.get('reason', '')}: {' '.join(str(last.get('message', '')).split())[:300]}"
