"""What a cluster's objects say about its health: nodes, parts and problems, as `kubewright status` shows them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime, timedelta
from typing import Any

Object = Mapping[str, Any]

ROLE_LABEL = "node-role.kubernetes.io/"
CONTROL_PLANE_ROLES = ("control-plane", "master")
CONTROL_PLANE_LABELS = tuple(f"{ROLE_LABEL}{role}" for role in CONTROL_PLANE_ROLES)
"""The labels of a control plane's Node, of which each version has one or both; its taints have the same keys."""
CONTROL_PLANE_PARTS = {
    "kube-apiserver": "API server",
    "kube-controller-manager": "controller manager",
    "kube-scheduler": "scheduler",
    "etcd": "etcd",
}
"""Static Pods by their `component` label, as kubeadm sets it."""
_ON_THE_WAY = {"Completed", "PodInitializing", "ContainerCreating"}
"""Reasons of a container's state that are no trouble."""
SETTLED = timedelta(minutes=2)
"""A kubelet that joined with static Pods running reports them within this time."""
FRESH = timedelta(seconds=30)
"""A pod younger than this may well be not ready yet: it is not called a problem."""


@dataclass(frozen=True, slots=True)
class NodeStatus:
    """A node as its object describes it."""

    name: str
    ready: bool
    roles: tuple[str, ...]
    version: str
    """Of the kubelet."""
    address: str
    """The first InternalIP, else the first address of any kind."""
    pod_cidr: str
    taints: tuple[str, ...]
    schedulable: bool = True
    problems: tuple[str, ...] = ()
    new: bool = False
    """Whether its kubelet may not have reported its static Pods yet."""

    @property
    def is_control_plane(self) -> bool:
        """Whether its roles make it a control plane."""
        return any(role in CONTROL_PLANE_ROLES for role in self.roles)


@dataclass(frozen=True, slots=True)
class PartStatus:
    """A part of the cluster: how many of it are ready, of how many there should be."""

    name: str
    ready: int
    wanted: int
    detail: str = ""
    starting: int = 0
    """Of those that are not ready: how many have run for so short a time that this is no trouble."""

    @property
    def healthy(self) -> bool:
        """All are ready or about to be, and there is at least one."""
        return self.ready + self.starting >= self.wanted > 0


@dataclass(frozen=True, slots=True)
class ClusterStatus:
    """All that `kubewright status` says."""

    server: str
    version: str
    nodes: tuple[NodeStatus, ...]
    parts: tuple[PartStatus, ...]
    problems: tuple[str, ...] = ()
    failed_api_checks: tuple[str, ...] = ()

    @property
    def healthy(self) -> bool:
        """Whether there is nothing to complain about."""
        return not self.problems and not self.failed_api_checks

    def as_dict(self) -> dict[str, Any]:
        """The document that `-o json` prints."""
        return {
            "server": self.server,
            "version": self.version,
            "healthy": self.healthy,
            "nodes": [_camel(asdict(node), without="new") for node in self.nodes],
            "parts": [_camel(asdict(part)) | {"healthy": part.healthy} for part in self.parts],
            "failedApiChecks": list(self.failed_api_checks),
            "problems": list(self.problems),
        }


@dataclass(frozen=True, slots=True)
class Seen:
    """The objects that were read. `now` is the time of reading."""

    server: str
    version: str
    now: datetime
    readyz: str = ""
    """The text of `/readyz?verbose`."""
    nodes: Sequence[Object] = ()
    pods: Sequence[Object] = ()
    """Of all namespaces."""
    daemon_sets: Sequence[Object] = ()
    deployments: Sequence[Object] = field(default=())


def digest(seen: Seen) -> ClusterStatus:
    """The status that the objects add up to."""
    nodes = sort_nodes(node_status(node, seen.now) for node in seen.nodes)
    system = [pod for pod in seen.pods if pod["metadata"]["namespace"] == "kube-system"]
    parts = (
        *_control_plane(nodes, system),
        *(_workload(item, "numberReady", "desiredNumberScheduled") for item in _system(seen.daemon_sets)),
        *(_workload(item, "readyReplicas", "replicas") for item in _system(seen.deployments)),
    )
    failed = failed_checks(seen.readyz)
    problems = [
        *(f"API server: check {name} fails" for name in failed),
        *(f"node {node.name}: {problem}" for node in nodes for problem in node.problems),
        *(
            f"{part.name}: {part.ready} of {part.wanted} ready{': ' if part.detail else ''}{part.detail}"
            for part in parts
            if not part.healthy
        ),
        *_pod_problems(system, nodes, seen.now),
        *_shut_off(seen.pods, nodes),
    ]
    return ClusterStatus(seen.server, seen.version, nodes, parts, tuple(problems), failed)


def node_status(node: Object, now: datetime) -> NodeStatus:
    """One node's status."""
    meta, spec, status = node["metadata"], node.get("spec") or {}, node.get("status") or {}
    conditions = {item["type"]: item for item in status.get("conditions") or []}
    ready = conditions.get("Ready", {})
    problems = []
    if ready.get("status") != "True":
        why = ready.get("message") or ready.get("reason") or "its kubelet has not reported yet"
        problems.append(f"not Ready{_since(ready, now)}: {' '.join(why.split())}")
    problems += [
        f"{kind}{_since(item, now)}: {item.get('message', '')}"
        for kind, item in sorted(conditions.items())
        if kind != "Ready" and item.get("status") == "True"
    ]
    addresses = status.get("addresses") or []
    internal = [item["address"] for item in addresses if item["type"] == "InternalIP"]
    roles = [key.removeprefix(ROLE_LABEL) for key in meta.get("labels") or {} if key.startswith(ROLE_LABEL)]
    return NodeStatus(
        name=meta["name"],
        ready=ready.get("status") == "True",
        roles=tuple(sorted(roles)),
        version=(status.get("nodeInfo") or {}).get("kubeletVersion", ""),
        address=next(iter(internal or [item["address"] for item in addresses]), ""),
        pod_cidr=", ".join(spec.get("podCIDRs") or [spec["podCIDR"]] if spec.get("podCIDR") else []),
        taints=tuple(_taint(item) for item in spec.get("taints") or []),
        schedulable=not spec.get("unschedulable"),
        problems=tuple(problems),
        new=_younger(meta, now, SETTLED),
    )


def failed_checks(readyz: str) -> tuple[str, ...]:
    """The names of failed checks in the text of `/readyz?verbose`: lines that begin with `[-]`."""
    failed = (line[3:].split() for line in readyz.splitlines() if line.startswith("[-]"))
    return tuple(words[0] for words in failed if words)


def pod_trouble(pod: Object) -> str:
    """Why a pod is not ready, in the words of its containers' states; empty where it is ready or has finished."""
    status = pod.get("status") or {}
    conditions = {item["type"]: item for item in status.get("conditions") or []}
    if status.get("phase") == "Succeeded" or conditions.get("Ready", {}).get("status") == "True":
        return ""
    for container in [*(status.get("initContainerStatuses") or []), *(status.get("containerStatuses") or [])]:
        state = container.get("state") or {}
        restarts = container.get("restartCount", 0)
        again = f" ({restarts} restart{'s' if restarts != 1 else ''})" if restarts else ""
        for how in ("waiting", "terminated"):
            found = state.get(how) or {}
            if found.get("reason") and found["reason"] not in _ON_THE_WAY:
                what = " ".join(f"{found['reason']}: {found.get('message', '')}".rstrip(": ").split())
                return f"container {container['name']}: {what}{again}"
        if "running" in state:
            return f"container {container['name']} runs and is not ready{again}"
    scheduled = conditions.get("PodScheduled", {})
    if scheduled.get("status") == "False":
        return f"not scheduled: {scheduled.get('message') or scheduled.get('reason', '')}"
    reason = status.get("message") or status.get("reason") or ""
    return f"{status.get('phase', 'Unknown')}{': ' if reason else ''}{reason}"


def is_plane(node: Object) -> bool:
    """Whether a Node's labels say that it is a control plane."""
    labels = node["metadata"].get("labels") or {}
    return any(label in labels for label in CONTROL_PLANE_LABELS)


def internal_ip(node: Object) -> str:
    """The address that a Node uses; empty where it has not said one."""
    said = (node.get("status") or {}).get("addresses") or ()
    return next((str(one["address"]) for one in said if one.get("type") == "InternalIP"), "")


def parse_time(text: str) -> datetime:
    """A Kubernetes timestamp (RFC 3339, UTC)."""
    return datetime.fromisoformat(text.replace("Z", "+00:00"))


def span(duration: timedelta) -> str:
    """A duration in one or two units: `40s`, `5m`, `3h`, `12d`."""
    seconds = max(int(duration.total_seconds()), 0)
    for size, unit in ((86400, "d"), (3600, "h"), (60, "m")):
        if seconds >= 2 * size:
            return f"{seconds // size}{unit}"
    return f"{seconds}s"


def _control_plane(nodes: Sequence[NodeStatus], system: Iterable[Object]) -> list[PartStatus]:
    """The static Pods of the control plane; none are missed where no node has the role (a hosted one).

    etcd is external where no node runs it.
    """
    found: dict[str, dict[str, Object]] = {component: {} for component in CONTROL_PLANE_PARTS}
    for pod in system:
        component = (pod["metadata"].get("labels") or {}).get("component", "")
        if component in found:
            found[component][(pod.get("spec") or {}).get("nodeName", "")] = pod
    parts = []
    new = {node.name for node in nodes if node.new}
    for component, title in CONTROL_PLANE_PARTS.items():
        pods = found[component]
        wanted = [
            node.name for node in nodes if node.is_control_plane and (node.name in pods or not node.new)
        ]
        if component == "etcd" and wanted and not pods and any(found.values()):
            parts.append(PartStatus("etcd", 1, 1, "external"))
        elif wanted:
            troubles = {name: pod_trouble(pods[name]) if name in pods else "no Pod" for name in wanted}
            bad = [name for name, trouble in troubles.items() if trouble]
            starting = [name for name in bad if name in pods and name in new and _starts(pods[name])]
            detail = "; ".join(
                f"{name}: {'starting' if name in starting else troubles[name]}" for name in bad
            )
            parts.append(
                PartStatus(title, len(wanted) - len(bad), len(wanted), detail, starting=len(starting))
            )
    return parts


def _starts(pod: Object) -> bool:
    """Whether a Pod's containers have not failed yet: the kubelet asks for the first time after 10 s if they are
    well, and reports it later still."""
    containers = (pod.get("status") or {}).get("containerStatuses") or []
    return all(
        "running" in (container.get("state") or {}) and not container.get("restartCount")
        for container in containers
    )


def _system(items: Iterable[Object]) -> list[Object]:
    return sorted(
        (item for item in items if item["metadata"]["namespace"] == "kube-system"),
        key=lambda item: str(item["metadata"]["name"]),
    )


def _workload(item: Object, ready: str, wanted: str) -> PartStatus:
    status = item.get("status") or {}
    want = status.get(wanted, 0) if wanted != "replicas" else (item.get("spec") or {}).get("replicas", 1)
    return PartStatus(item["metadata"]["name"], status.get(ready) or 0, want)


def _pod_problems(system: Iterable[Object], nodes: Sequence[NodeStatus], now: datetime) -> list[str]:
    not_ready = {node.name for node in nodes if not node.ready}
    lines = []
    for pod in system:
        meta, node = pod["metadata"], (pod.get("spec") or {}).get("nodeName", "")
        young = (
            now - parse_time(meta["creationTimestamp"]) < FRESH if meta.get("creationTimestamp") else False
        )
        if node in not_ready or young or (meta.get("labels") or {}).get("component") in CONTROL_PLANE_PARTS:
            continue
        if trouble := pod_trouble(pod):
            where = f" on {node}" if node else ""
            lines.append(f"pod {meta['namespace']}/{meta['name']}{where}: {trouble}")
    return lines


def _shut_off(pods: Iterable[Object], nodes: Sequence[NodeStatus]) -> list[str]:
    """Pods that say Running on nodes that do not answer: nobody knows, and nobody moves them yet (P53)."""
    lines = []
    for node in nodes:
        if node.ready:
            continue
        count = sum(
            1
            for pod in pods
            if (pod.get("spec") or {}).get("nodeName") == node.name
            and (pod.get("status") or {}).get("phase") == "Running"
        )
        if count:
            lines.append(
                f"node {node.name}: {count} pod{'s' if count != 1 else ''} there still say Running, as last "
                "reported; those that tolerate it for 5 minutes are moved after that time"
            )
    return lines


def _younger(meta: Object, now: datetime, age: timedelta) -> bool:
    created = meta.get("creationTimestamp")
    return created is not None and now - parse_time(created) < age


def ready_for(item: Object, now: datetime) -> timedelta | None:
    """For how long a Node or Pod has been Ready, or not Ready, as it is now; None where that was not said."""
    conditions = (item.get("status") or {}).get("conditions") or ()
    return next((_age(one, now) for one in conditions if one.get("type") == "Ready"), None)


def _age(condition: Object, now: datetime) -> timedelta | None:
    when = condition.get("lastTransitionTime")
    return now - parse_time(when) if when else None


def _since(condition: Object, now: datetime) -> str:
    age = _age(condition, now)
    return f" for {span(age)}" if age is not None else ""


def _taint(taint: Object) -> str:
    value = f"={taint['value']}" if taint.get("value") else ""
    return f"{taint['key']}{value}:{taint['effect']}"


def sort_nodes(nodes: Iterable[NodeStatus]) -> tuple[NodeStatus, ...]:
    """Control planes first, then by name."""
    return tuple(sorted(nodes, key=lambda node: (not node.is_control_plane, node.name)))


def _camel(row: Mapping[str, Any], *, without: str = "") -> dict[str, Any]:
    def name(key: str) -> str:
        first, *rest = key.split("_")
        return first + "".join("CIDR" if word == "cidr" else word.capitalize() for word in rest)

    return {
        name(key): list(value) if isinstance(value, tuple) else value
        for key, value in row.items()
        if key != without
    }
