"""Whom each node asks, to see whether packets arrive: Pods on other nodes, Services, cluster DNS."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from kubewright.model.doctor.probes import DNS_PORT, SMALL, Question
from kubewright.model.objects import SYSTEM
from kubewright.model.status import Object, Seen, node_status

TARGETS = 20
"""Of so many other nodes a node asks a Pod: those that come after it by name, so that each is asked by as many."""
ENDPOINTS = 8
"""A Service with more endpoints than these is not judged: which of them it has chosen is not known."""
CONNECTIONS = 6
"""How often a Service is asked at once, for the same reason."""
QUESTIONS = 3
"""How often DNS is asked at once: each time kube-proxy may choose another of its Pods."""
_PING_HEADERS = {4: 28, 6: 48}
"""Of IP and ICMP, in bytes."""


@dataclass(frozen=True, slots=True)
class PodTarget:
    """A Pod that is asked for its node."""

    node: str
    name: str
    address: str
    port: int
    proven: bool = False
    """Whether its own kubelet asks it whether it is ready, and it is."""


@dataclass(frozen=True, slots=True)
class ServiceTarget:
    """A Service by its address, and who is behind it."""

    name: str
    address: str
    port: int
    endpoints: tuple[tuple[str, int], ...] = ()


@dataclass(frozen=True, slots=True)
class Plan:
    """Everybody that is asked."""

    pods: Mapping[str, PodTarget] = field(default_factory=dict)
    """By node."""
    services: tuple[ServiceTarget, ...] = ()
    name: str = ""
    """What DNS is asked for."""

    @property
    def dns(self) -> str:
        """The address of cluster DNS; empty where nobody stands behind it."""
        return next((one.address for one in self.services if one.port == DNS_PORT and one.endpoints), "")

    def others(self, node: str) -> tuple[PodTarget, ...]:
        """The Pods that a node asks beside its own."""
        names = sorted(self.pods)
        after = [name for name in names if name > node] + [name for name in names if name < node]
        return tuple(self.pods[name] for name in after[:TARGETS])


def plan(
    seen: Seen,
    services: Sequence[Object],
    endpoints: Sequence[Object],
    policies: Sequence[Object],
    domain: str,
) -> Plan:
    """What is asked in a cluster with these objects.

    Pods in a namespace with a network policy are left out: what does not reach them may be kept off.
    """
    closed = {str(one["metadata"].get("namespace", "")) for one in policies}
    ready = {str(node["metadata"]["name"]) for node in seen.nodes if node_status(node, seen.now).ready}
    best: dict[str, tuple[tuple[bool, bool, bool, str], PodTarget]] = {}
    for pod in seen.pods:
        if (found := _target(pod)) is None or found.node not in ready:
            continue
        meta = pod["metadata"]
        if meta.get("namespace") in closed:
            continue
        rank = (not found.proven, not is_dns(pod), meta.get("namespace") != SYSTEM, found.name)
        if found.node not in best or rank < best[found.node][0]:
            best[found.node] = rank, found
    behind = {_key(one): one for one in endpoints}
    wanted = (("default", "kubernetes", 443), (SYSTEM, "kube-dns", DNS_PORT))
    found_services = [
        target
        for service in services
        for namespace, name, port in wanted
        if _key(service) == (namespace, name)
        and (target := _service(service, behind.get((namespace, name)), port)) is not None
    ]
    return Plan(
        {node: one for node, (_, one) in best.items()},
        tuple(found_services),
        f"kubernetes.default.svc.{domain.strip('.') or 'cluster.local'}",
    )


def _key(item: Object) -> tuple[str, str]:
    return str(item["metadata"].get("namespace", "")), str(item["metadata"]["name"])


def _target(pod: Object) -> PodTarget | None:
    spec, status, meta = pod.get("spec") or {}, pod.get("status") or {}, pod["metadata"]
    address = str(status.get("podIP") or "")
    gone = meta.get("deletionTimestamp") or status.get("phase") != "Running"
    if gone or not address or spec.get("hostNetwork"):
        return None
    containers: list[Mapping[str, Any]] = spec.get("containers") or []
    ports = [
        int(port["containerPort"])
        for container in containers
        for port in container.get("ports") or ()
        if (port.get("protocol") or "TCP") == "TCP"
    ]
    if not ports:
        return None
    is_ready = any(
        one.get("type") == "Ready" and one.get("status") == "True" for one in status.get("conditions") or ()
    )
    asked = any(
        kind in (container.get("readinessProbe") or {})
        for container in containers
        for kind in ("httpGet", "tcpSocket", "grpc")
    )
    name = f"{meta.get('namespace')}/{meta['name']}"
    return PodTarget(str(spec.get("nodeName") or ""), name, address, min(ports), is_ready and asked)


def _service(service: Object, endpoints: Object | None, port: int) -> ServiceTarget | None:
    address = str((service.get("spec") or {}).get("clusterIP") or "")
    ports = [
        one
        for one in (service.get("spec") or {}).get("ports") or ()
        if one.get("port") == port and (one.get("protocol") or "TCP") == "TCP"
    ]
    if address in ("", "None") or not ports:
        return None
    title = ports[0].get("name") or ""
    behind = [
        (str(one["ip"]), int(way["port"]))
        for subset in (endpoints or {}).get("subsets") or ()
        for way in subset.get("ports") or ()
        if (way.get("name") or "") == title and (way.get("protocol") or "TCP") == "TCP"
        for one in subset.get("addresses") or ()
    ]
    return ServiceTarget("/".join(_key(service)), address, port, tuple(behind))


def is_dns(item: Object) -> bool:
    """Whether a Pod or a workload is cluster DNS', by its label."""
    return bool((item["metadata"].get("labels") or {}).get("k8s-app") == "kube-dns")


def large(address: str, *mtus: int) -> int:
    """How many bytes `ping` must send for the largest packet of these links; 0 where one is not known."""
    smallest = min(mtus, default=0)
    size = smallest - _PING_HEADERS[6 if ":" in address else 4]
    return size if size > SMALL else 0


def questions(whole: Plan, node: str, mtus: Mapping[str, int]) -> list[Question]:
    """What a node asks; `mtus` are the smallest of each node's links."""
    asked: dict[Question, None] = {}
    again: list[Question] = []
    own = whole.pods.get(node)
    for one in (*((own,) if own else ()), *whole.others(node)):
        asked[Question("tcp", one.address, str(one.port))] = None
        if one.node == node:
            continue
        asked[Question("ping", one.address, str(SMALL))] = None
        if size := large(one.address, mtus.get(node, 0), mtus.get(one.node, 0)):
            asked[Question("ping", one.address, str(size))] = None
    for service in whole.services:
        if 0 < len(service.endpoints) <= ENDPOINTS:
            for address, port in service.endpoints:
                asked[Question("tcp", address, str(port))] = None
            again += [Question("tcp", service.address, str(service.port))] * CONNECTIONS
    again += [Question("dns", whole.dns, whole.name)] * QUESTIONS if whole.dns and whole.name else []
    return [*asked, *again]
