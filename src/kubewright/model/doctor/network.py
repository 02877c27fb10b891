"""Diagnoses of the pod network on each node (P12, P19, P36, P37, P38)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime, timedelta
from typing import Any

from kubewright.model.doctor.cni import configurations, misplaced, plugins, pod_network, subnets
from kubewright.model.doctor.facts import DoctorFacts, NodeFacts
from kubewright.model.doctor.finding import Finding, Fix, Severity
from kubewright.model.doctor.look import CNI_DIR, SUBNET_ENV, Look
from kubewright.model.doctor.pods import STARTED, pods_words
from kubewright.model.doctor.reserved import FREE_ADDRESSES, dead_reservations
from kubewright.model.objects import SYSTEM
from kubewright.model.status import node_status, parse_time, pod_trouble, ready_for

REMOVE_BRIDGE = "remove-bridge"
"""The fix that removes a bridge of an older pod network."""
_MANY = 10
_FEW_LEFT = 5
_AGAIN = 2
_A_START = timedelta(seconds=3)
"""Less than there is between two looks, so that who goes on is not found in the second."""
_A_MOMENT = timedelta(seconds=30)
_RUNTIMES = ("containerd", "crio", "cri-docker")
_NETWORKS = re.compile(r"flannel|calico|cilium|weave|canal|antrea|kube-router|kubewright-network")


# -- addresses ----------------------------------------------------------------------------------------------------


def leaked(facts: DoctorFacts) -> Iterator[Finding]:
    """Addresses that host-local has given to Pods which are gone (P37)."""
    for node, look in facts.looks():
        network, runtime = pod_network(look), node.runtime
        if not network or runtime is None or not runtime.answers:
            continue
        gone = dead_reservations(node.reserved, runtime.sandboxes, network)
        said = _said(look, "no IP addresses available")
        four = [one for one in subnets(look) if one.version == 4]
        mine = sum(1 for one in node.reserved if one.network == network and ":" not in one.address)
        # Without the network's own address, the broadcast address and the gateway.
        room = sum(one.num_addresses - 3 for one in four)
        full = bool(said) or (bool(room) and room - mine < _FEW_LEFT)
        if not gone or (len(gone) < _MANY and not full):
            continue
        yield Finding(
            "addresses-leaked",
            Severity.ERROR if full else Severity.WARNING,
            "addresses of the pod network are reserved for Pods that are gone",
            hosts=(node.name,),
            pitfall="P37",
            evidence=(
                f"{mine} of {room or '?'} addresses in /var/lib/cni/networks/{network} are reserved; "
                f"{len(gone)} of them name no sandbox that the runtime has",
                f"for example {gone[0].path}: {gone[0].container[:16] or 'empty'}",
                *said,
            ),
            breaks="no IP addresses available in network: Pods stay in ContainerCreating"
            if full
            else "when none is left, Pods stay in ContainerCreating",
            mend=("kubewright doctor --fix frees the dead ones alone",),
            fixes=(
                Fix(FREE_ADDRESSES, f"free {len(gone)} addresses that no Pod has", node.name, (network,)),
            ),
        )


def _said(look: Look, words: str) -> list[str]:
    """The last line in which the kubelet has said so of late."""
    return [f"kubelet: {line}" for line in look.recent if words in line][-1:]


def bridge_address(facts: DoctorFacts) -> Iterator[Finding]:
    """A bridge with the address of an older pod network (P38)."""
    for node, look in facts.looks():
        for name, have in misplaced(look).items() if look.joined else ():
            yield Finding(
                "bridge-address",
                Severity.ERROR,
                f"the bridge {name} is of an older pod network",
                hosts=(node.name,),
                pitfall="P38",
                evidence=(
                    f"{name}: {', '.join(have)}",
                    f"the node's Pods are in {', '.join(map(str, subnets(look)))}",
                    *_said(look, "already has an IP address different from"),
                ),
                breaks=f"{name} already has an IP address different from the one wanted, or has its routes: "
                "no new Pod gets a network",
                mend=(
                    "kubectl drain the node, if Pods hang on the bridge",
                    f"ip link set {name} down && ip link delete {name}: the next Pod makes it anew",
                ),
                fixes=(
                    Fix(
                        REMOVE_BRIDGE,
                        f"remove {name}",
                        node.name,
                        (name,),
                        interrupts="Pods that hang on it lose their network",
                    ),
                ),
            )


# -- the network's agent ----------------------------------------------------------------------------------------


def subnet_env(facts: DoctorFacts) -> Iterator[Finding]:
    """flannel's plugin without the file that its daemon writes (P36)."""
    for node, look in facts.looks():
        wanted = [
            str(plugin.get("subnetFile") or SUBNET_ENV)
            for _, document in configurations(look)[:1]
            for plugin in plugins(document)
            if plugin.get("type") == "flannel"
        ]
        if (
            look.joined
            and wanted == [SUBNET_ENV]
            and SUBNET_ENV not in look.files
            and _had_time(facts, node, look)
        ):
            yield Finding(
                "subnet-env",
                Severity.ERROR,
                "flannel's daemon has not run on this node since it was started",
                hosts=(node.name,),
                pitfall="P36",
                evidence=(
                    f"{configurations(look)[0][0]} is of type flannel, and there is no {SUBNET_ENV}",
                    *_said(look, "subnet.env: no such file"),
                ),
                breaks=f"open {SUBNET_ENV}: no such file or directory: no Pod here gets a network",
                mend=(
                    "kubectl -n kube-flannel get pods -o wide, and the log of the one on this node",
                    "does the node have a podCIDR? kubectl get node -o jsonpath='{..podCIDR}'",
                ),
            )


def no_network(facts: DoctorFacts) -> Iterator[Finding]:
    """A node without a CNI configuration: nothing has brought a pod network (P19)."""
    for node, look in facts.looks():
        runtime = node.runtime
        if not look.joined or runtime is None or not runtime.answers or runtime.network_ready:
            continue
        if _had_time(facts, node, look):
            paths = [path for path, _ in configurations(look)]
            yield Finding(
                "no-network",
                Severity.ERROR,
                "the node has no pod network",
                hosts=(node.name,),
                pitfall="P19",
                evidence=(
                    "the runtime's condition NetworkReady is false",
                    f"in {CNI_DIR} there is {', '.join(paths) if paths else 'no configuration'}",
                ),
                breaks="the node stays NotReady, and CoreDNS Pending",
                mend=("install a pod network, or: kubewright apply -f cluster.yaml, which brings one",),
            )


def _had_time(facts: DoctorFacts, node: NodeFacts, look: Look) -> bool:
    """Whether a pod network has had the time to come: the kubelet has run for long, or it alone was started anew,
    and its Node and the runtime have been there for long."""
    if look.kubelet_up(STARTED):
        return True
    runtimes = (look.units.get(name) for name in _RUNTIMES)
    if not any(unit is not None and unit.up is not None and unit.up >= STARTED for unit in runtimes):
        return False
    name, objects = facts.node_name(node), facts.asked.objects
    return any(
        one["metadata"]["name"] == name and facts.settled(one) for one in (objects.nodes if objects else ())
    )


# -- DaemonSets ---------------------------------------------------------------------------------------------------


def daemon_pods(facts: DoctorFacts) -> Iterator[Finding]:
    """Nodes without their Pod of kube-proxy or the pod network, or with one that is not ready (P11, P12)."""
    objects = facts.asked.objects
    for item in objects.daemon_sets if objects else ():
        name = str(item["metadata"]["name"])
        network = _NETWORKS.search(name) is not None
        if (name != "kube-proxy" and not network) or not facts.settled(item):
            continue
        by_node = {
            str((pod.get("spec") or {}).get("nodeName", "")): pod
            for pod in facts.system_pods()
            if _owned(pod, name)
        }
        for node in objects.nodes if objects else ():
            title = str(node["metadata"]["name"])
            if not facts.settled(node):
                continue
            pod = by_node.get(title)
            if pod is None:
                if why := _kept_off(item, node):
                    yield _missing(name, title, why, network)
            elif not node_status(node, facts.now).ready or not (facts.settled(pod) or _fails(pod)):
                continue
            elif trouble := _trouble(pod, facts.now):
                yield _ill(facts.node(title), name, title, pod, trouble, network)


def _missing(name: str, node: str, why: str, network: bool) -> Finding:
    return Finding(
        "daemon-pod-missing" if why == _NOT_MADE else "daemon-pod-kept-off",
        Severity.ERROR,
        f"the node has no Pod of {name}",
        hosts=(node,),
        pitfall="P12",
        evidence=(f"DaemonSet {SYSTEM}/{name}: {why}",),
        breaks="Pods here get no network" if network else "services do not work from this node",
        mend=(f"kubectl -n {SYSTEM} edit daemonset {name}: tolerations and nodeSelector",),
    )


def _ill(
    node: NodeFacts | None, name: str, title: str, pod: Mapping[str, Any], trouble: str, network: bool
) -> Finding:
    own = str(pod["metadata"]["name"])
    words = pods_words(node.look, own, ends=_fails(pod)) if node and node.look else ()
    return Finding(
        "network-pod-down" if network else "proxy-down",
        Severity.ERROR,
        f"{name} does not run",
        hosts=(title,),
        pitfall="P36" if network else "P11",
        evidence=(f"{own}: {trouble}", *words),
        breaks="new Pods here get no network"
        if network
        else "services change, and this node does not follow: their addresses cannot be reached from here",
        mend=(f"kubectl -n {SYSTEM} logs daemonset/{name}",),
    )


def _fails(pod: Mapping[str, Any]) -> bool:
    """Whether a Pod has been started again and again."""
    statuses = (pod.get("status") or {}).get("containerStatuses") or ()
    return any(one.get("restartCount", 0) >= _AGAIN for one in statuses)


def _trouble(pod: Mapping[str, Any], now: datetime) -> str:
    """Why a Pod is not ready, unless it has been so for a moment only; or that it was started again just now: of
    those that end at once, again and again, each look may meet one in the second in which it runs."""
    for one in (pod.get("status") or {}).get("containerStatuses") or ():
        begun = ((one.get("state") or {}).get("running") or {}).get("startedAt")
        if begun and one.get("restartCount", 0) >= _AGAIN and now - parse_time(begun) < _A_START:
            ended = (one.get("lastState") or {}).get("terminated") or {}
            code = f", with exit code {ended['exitCode']}" if "exitCode" in ended else ""
            return f"container {one['name']}: has ended {one['restartCount']} times{code}"
    return "" if _just_now(pod, now) else pod_trouble(pod)


def _just_now(pod: Mapping[str, Any], now: datetime) -> bool:
    """Whether a Pod whose containers run has not been ready for a moment: on a busy host a probe may be late."""
    status = pod.get("status") or {}
    if not all("running" in (one.get("state") or {}) for one in status.get("containerStatuses") or ()):
        return False
    since = ready_for(pod, now)
    return since is not None and since < _A_MOMENT


def _owned(pod: Mapping[str, Any], name: str) -> bool:
    owners = pod["metadata"].get("ownerReferences") or ()
    return any(one.get("kind") == "DaemonSet" and one.get("name") == name for one in owners)


def _kept_off(daemon_set: Mapping[str, Any], node: Mapping[str, Any]) -> str:
    """Why a DaemonSet has no Pod on a node; the node may be one that it does not mean (another system's)."""
    spec = ((daemon_set.get("spec") or {}).get("template") or {}).get("spec") or {}
    labels = node["metadata"].get("labels") or {}
    selector = spec.get("nodeSelector") or {}
    if lacking := [f"{key}={value}" for key, value in selector.items() if labels.get(key) != value]:
        system = "kubernetes.io/os" in selector and labels.get("kubernetes.io/os") not in (
            None,
            selector["kubernetes.io/os"],
        )
        return (
            ""
            if system
            else f"its nodeSelector wants {', '.join(lacking)}, which the node's labels do not have"
        )
    taints = [
        one
        for one in (node.get("spec") or {}).get("taints") or ()
        if one.get("effect") in ("NoSchedule", "NoExecute")
        and not _tolerated(one, spec.get("tolerations") or ())
    ]
    if taints:
        return f"it does not tolerate {', '.join(str(one.get('key')) for one in taints)}"
    return _NOT_MADE


_NOT_MADE = "nothing keeps it off: the controller manager, the scheduler or the kubelet has not made it"
_DAEMON_TAINTS = re.compile(
    r"node\.kubernetes\.io/(not-ready|unreachable|disk-pressure|memory-pressure|pid-pressure|"
    r"unschedulable|network-unavailable)"
)
"""The taints that the controller lets the Pods of DaemonSets tolerate (Kubernetes' documentation, "DaemonSet")."""


def _tolerated(taint: Mapping[str, Any], tolerations: Iterable[Mapping[str, Any]]) -> bool:
    if _DAEMON_TAINTS.fullmatch(str(taint.get("key"))):
        return True
    for one in tolerations:
        if one.get("effect") not in (None, "", taint.get("effect")):
            continue
        if one.get("operator") == "Exists":
            if one.get("key") in (None, "", taint.get("key")):
                return True
        elif one.get("key") == taint.get("key") and (one.get("value") or "") == (taint.get("value") or ""):
            return True
    return False


DIAGNOSES = (daemon_pods, subnet_env, no_network, leaked, bridge_address)
