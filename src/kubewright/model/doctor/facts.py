"""All that `doctor` knows when it begins to think: each host's look and runtime, and what `status` has asked."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from kubewright.model.doctor.look import Look
from kubewright.model.doctor.plan import Plan, is_dns
from kubewright.model.doctor.probes import Probed
from kubewright.model.doctor.reserved import Reservation
from kubewright.model.objects import SYSTEM, Object, read_mapping
from kubewright.model.status import SETTLED, node_status, parse_time
from kubewright.model.status_report import Facts as StatusFacts
from kubewright.model.status_report import StatusReport


@dataclass(frozen=True, slots=True)
class Ended:
    """How a container ended, as its runtime says it."""

    code: int
    reason: str = ""
    message: str = ""
    at: datetime | None = None
    lasted: timedelta | None = None
    """For how long it had run."""

    def __str__(self) -> str:
        words = f"ended with {self.code}"
        if self.reason and self.reason not in ("Error", "Completed"):
            words += f" ({self.reason})"
        if self.at is not None:
            words += f" at {self.at:%H:%M:%S} UTC"
        return f"{words}: {self.message.splitlines()[0]}" if self.message.strip() else words


@dataclass(frozen=True, slots=True)
class Container:
    """A container of a Pod in kube-system."""

    pod: str
    name: str
    attempt: int
    running: bool
    ended: Ended | None = None
    """None where it runs, or where nobody could say."""
    image: str = ""
    """Its image's name, or id."""
    architecture: str = ""
    """What the image is for; asked only of one that has failed, and empty where the runtime does not say."""
    created: datetime | None = None
    """None where nobody could say."""


@dataclass(frozen=True, slots=True)
class RuntimeFacts:
    """A host's container runtime, asked on its socket."""

    answers: bool
    error: str = ""
    """Why it does not answer."""
    evidence: tuple[str, ...] = ()
    """What systemd says of it then."""
    socket: str = ""
    """Where it was asked; empty where that was not found out."""
    name: str = ""
    ready: bool = True
    network_ready: bool = True
    message: str = ""
    sandboxes: frozenset[str] = frozenset()
    """The ids of all Pods' sandboxes."""
    containers: tuple[Container, ...] = ()
    pods: frozenset[str] | None = None
    """The names of kube-system's Pods that have a sandbox which is up; None where that is not known."""

    def has(self, pod: str) -> bool:
        """Whether a Pod may still be one of this node's: of one that is gone, logs and containers stay a while."""
        return self.pods is None or pod in self.pods

    def of(self, name: str) -> tuple[Container, ...]:
        """The containers of a name, the newest first."""
        return tuple(sorted((one for one in self.containers if one.name == name), key=_newest, reverse=True))

    def runs(self, name: str) -> bool:
        """Whether a container of this name runs."""
        return any(one.running for one in self.containers if one.name == name)


def _newest(one: Container) -> tuple[bool, float, int]:
    at = one.ended.at.timestamp() if one.ended and one.ended.at else 0.0
    return one.running, at, one.attempt


@dataclass(frozen=True, slots=True)
class NodeFacts:
    """One host. Without a `look` it did not answer, and `error` says why."""

    name: str
    control_plane: bool = False
    error: str = ""
    look: Look | None = None
    runtime: RuntimeFacts | None = None
    """None on a host that is no node."""
    reserved: tuple[Reservation, ...] = ()
    """Read after the runtime was asked: what is reserved for no sandbox then is no Pod that has just gone."""

    mute: Mapping[str, str] = field(default_factory=dict)
    """Controllers whose containers run and that do not say that they are well, each with what was seen."""
    probed: Probed | None = None
    """What became of the packets that it has sent; None where it has sent none."""
    raw: str = ""
    """What the look printed, for a bundle."""

    @property
    def answers(self) -> bool:
        """Whether it was looked at."""
        return self.look is not None


@dataclass(frozen=True, slots=True)
class DoctorFacts:
    """Everything. `now` is the cluster's time, or ours where no API server has told it."""

    now: datetime
    nodes: tuple[NodeFacts, ...]
    status: StatusReport
    asked: StatusFacts
    endpoint: str = ""
    """The `host:port` that cluster.yaml gives clients of the API; empty where there is no such file."""
    whole: bool = True
    """Whether all hosts of the cluster were asked, rather than one."""
    plan: Plan = field(default_factory=Plan)
    """To whom packets were sent."""

    def node(self, name: str) -> NodeFacts | None:
        """A host by its name."""
        return next((one for one in self.nodes if one.name == name), None)

    def node_name(self, host: NodeFacts) -> str:
        """The name of a host's Node; empty where it has none. A host that was named by its address has another."""
        names = {
            str(one["metadata"]["name"]) for one in (self.asked.objects.nodes if self.asked.objects else ())
        }
        own = host.look.hostname.lower() if host.look else ""
        return next((name for name in (host.name, own) if name in names), "")

    def mtus(self) -> dict[str, int]:
        """The smallest MTU of each node's links, where it is known."""
        return {self.node_name(one): look.mtu for one, look in self.looks() if look.mtu}

    def looks(self) -> Iterator[tuple[NodeFacts, Look]]:
        """The hosts that were looked at, each with its look."""
        return ((one, one.look) for one in self.nodes if one.look is not None)

    def planes(self) -> Iterator[tuple[NodeFacts, Look]]:
        """Those of them that are control planes."""
        return ((one, look) for one, look in self.looks() if one.control_plane)

    def config_map(self, name: str) -> Mapping[str, str]:
        """The data of a ConfigMap in kube-system; empty where there is none, or it could not be read."""
        for item in self.asked.config_maps:
            if item["metadata"]["name"] == name:
                return item.get("data") or {}
        return {}

    @property
    def cluster_endpoint(self) -> str:
        """The `controlPlaneEndpoint` of the cluster, by its own configuration or else by cluster.yaml."""
        document = read_mapping(self.config_map("kubeadm-config").get("ClusterConfiguration", "")) or {}
        return str(document.get("controlPlaneEndpoint") or "") or self.endpoint

    @property
    def api_served(self) -> bool:
        """Whether the API answers wherever the cluster asks it: at the endpoint, from each host that was asked; in
        a cluster without one, at all servers."""
        rows = self.status.endpoint or self.status.servers
        return bool(rows) and all(one.ready for one in rows)

    @property
    def dns_hosts(self) -> frozenset[str] | None:
        """The hosts that cluster DNS depends on: those with a Pod of it, and where one waits for a node,
        those that are not Ready. None where the API does not tell."""
        objects, pods = self.asked.objects, self.dns_pods()
        if objects is None or not pods:
            return None
        nodes = {str((pod.get("spec") or {}).get("nodeName") or "") for pod in pods}
        if "" in nodes:
            nodes.remove("")
            nodes |= {
                one.name for one in (node_status(node, self.now) for node in objects.nodes) if not one.ready
            }
        return frozenset(nodes | {one.name for one in self.nodes if self.node_name(one) in nodes})

    @property
    def readable(self) -> bool:
        """Whether the cluster's objects could be read."""
        return self.asked.objects is not None

    def system_pods(self) -> list[Object]:
        """The Pods of kube-system."""
        pods = self.asked.objects.pods if self.asked.objects else ()
        return [dict(pod) for pod in pods if pod["metadata"].get("namespace") == SYSTEM]

    def dns_pods(self) -> list[Object]:
        """Those of them that are cluster DNS'."""
        return [pod for pod in self.system_pods() if is_dns(pod)]

    def settled(self, item: Mapping[str, object]) -> bool:
        """Whether an object is old enough that what is missing of it is missed."""
        meta = item["metadata"]
        created = meta.get("creationTimestamp") if isinstance(meta, dict) else None
        return created is None or self.now - parse_time(str(created)) >= SETTLED
