"""What `kubewright check` tries, from where: a pure plan out of the nodes and addresses that it found."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from ipaddress import ip_address
from typing import Any

POD_PORT = 8080
SERVICE_PORT = 80
SERVICE = "probe"
SERVICE_REQUESTS = 3
"""A service address is asked that often by each: it leads to another pod each time."""
REQUEST_SECONDS = 2.0


class Topic(StrEnum):
    """What a check is about; the columns of the matrix."""

    PODS = "pods"
    SERVICE = "service"
    NODE_PORT = "nodePort"
    DNS = "dns"
    API = "api"


class Place(StrEnum):
    """Where a check is made from: a pod, a node's own network, or this computer."""

    POD = "pod"
    NODE = "node"
    COMPUTER = "computer"


@dataclass(frozen=True, slots=True)
class Source:
    """One place of checks: a pod of ours on `node`, or this computer (no node)."""

    place: Place
    node: str = ""

    def __str__(self) -> str:
        return "this computer" if self.place is Place.COMPUTER else f"{self.place} {self.node}"


@dataclass(frozen=True, slots=True)
class Check:
    """One thing to try. `target` is the node that must answer, or the name or address that is asked for."""

    topic: Topic
    source: Source
    target: str
    probe: Mapping[str, Any] = field(hash=False)
    """What the probe program is told, less the id."""
    number: int = 0

    @property
    def id(self) -> str:
        """Unique in one run, and the same in the next."""
        return f"{self.topic}|{self.source}|{self.target}|{self.number}"


@dataclass(frozen=True, slots=True)
class Result:
    """How a check ended. `seconds` is the time that the answer took."""

    check: Check
    ok: bool
    detail: str = ""
    seconds: float = 0.0
    tries: int = 1

    def as_dict(self) -> dict[str, Any]:
        """A row of `-o json`."""
        source = self.check.source
        return {
            "topic": str(self.check.topic), "from": str(source.place), "fromNode": source.node,
            "target": self.check.target, "ok": self.ok, "seconds": round(self.seconds, 4),
            "tries": self.tries, "detail": self.detail,
        }  # fmt: skip


@dataclass(frozen=True, slots=True)
class Member:
    """A node that takes part: its own address and the addresses of our two pods there."""

    node: str
    address: str
    pod_ip: str


@dataclass(frozen=True, slots=True)
class Setting:
    """The addresses and names of one run."""

    namespace: str
    domain: str
    """The cluster's DNS domain."""
    service_ip: str
    node_port: int
    kubernetes_ip: str
    """Of the Service `kubernetes` in `default`."""


@dataclass(frozen=True, slots=True)
class Report:
    """All results. `absent` says of each node that could not take part why not."""

    nodes: tuple[str, ...]
    results: tuple[Result, ...]
    absent: Mapping[str, str] = field(default_factory=dict)
    skipped: tuple[str, ...] = ()
    """What was left out, and why: no failure, and worth a line."""

    @property
    def failures(self) -> tuple[Result, ...]:
        """The results that are not ok."""
        return tuple(result for result in self.results if not result.ok)

    @property
    def ok(self) -> bool:
        """Every node took part, and every check passed."""
        return bool(self.results) and not self.failures and not self.absent

    def as_dict(self, diagnosis: Sequence[str]) -> dict[str, Any]:
        """The document that `-o json` prints."""
        return {
            "ok": self.ok,
            "checks": len(self.results),
            "failures": len(self.failures),
            "nodes": list(self.nodes),
            "absent": dict(self.absent),
            "skipped": list(self.skipped),
            "diagnosis": list(diagnosis),
            "results": [result.as_dict() for result in self.results],
        }


def plan(setting: Setting, members: Sequence[Member], *, computer: bool) -> list[Check]:
    """All checks; with `computer`, the NodePorts from this computer, too."""
    checks: list[Check] = []
    for member in members:
        for place in (Place.POD, Place.NODE):
            source = Source(place, member.node)
            checks += _pods(source, members)
            checks += _service(source, setting)
        checks += _node_ports(Source(Place.NODE, member.node), members, setting)
        checks += _dns(Source(Place.POD, member.node), setting)
        checks.append(Check(Topic.API, Source(Place.POD, member.node), "API server", {"kind": "api"}))
    if computer:
        checks += _node_ports(Source(Place.COMPUTER), members, setting)
    return checks


def request(checks: Sequence[Check], *, tries: int = 0) -> list[dict[str, Any]]:
    """What the probe program reads; after `tries` it gives a check up, with 0 when its time is over."""
    more = {"timeout": REQUEST_SECONDS} | ({"tries": tries} if tries else {})
    return [{"id": check.id, **more, **check.probe} for check in checks]


def url(address: str, port: int) -> str:
    """An HTTP URL; IPv6 addresses stand in brackets."""
    return f"http://{f'[{address}]' if ':' in address else address}:{port}/"


def _pods(source: Source, members: Sequence[Member]) -> Iterator[Check]:
    for target in members:
        probe = {"kind": "http", "url": url(target.pod_ip, POD_PORT), "expect_node": target.node}
        yield Check(Topic.PODS, source, target.node, probe)


def _service(source: Source, setting: Setting) -> Iterator[Check]:
    probe = {"kind": "http", "url": url(setting.service_ip, SERVICE_PORT)}
    for number in range(SERVICE_REQUESTS):
        yield Check(Topic.SERVICE, source, setting.service_ip, probe, number)


def _node_ports(source: Source, members: Sequence[Member], setting: Setting) -> Iterator[Check]:
    for target in members:
        probe = {"kind": "http", "url": url(target.address, setting.node_port)}
        yield Check(Topic.NODE_PORT, source, target.node, probe)


def _dns(source: Source, setting: Setting) -> Iterator[Check]:
    full = f"{SERVICE}.{setting.namespace}.svc.{setting.domain}."
    record = "AAAA" if ":" in setting.service_ip else "A"
    questions = (
        (f"kubernetes.default.svc.{setting.domain}.", record, setting.kubernetes_ip),
        (full, record, setting.service_ip),
        (SERVICE, record, setting.service_ip),  # by the search path of the pod's resolv.conf
        (f"{ip_address(setting.service_ip).reverse_pointer}.", "PTR", full),
    )
    for name, kind, expect in questions:
        yield Check(Topic.DNS, source, name, {"kind": "dns", "name": name, "type": kind, "expect": [expect]})
