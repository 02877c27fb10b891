"""Which findings explain which others, so that a cause is shown and what follows from it is not."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from kubewright.model.doctor.finding import Finding, Severity


@dataclass(frozen=True, slots=True)
class Rule:
    """A finding of `cause` explains those of `effects`: on the same host, or `anywhere`."""

    cause: str
    effects: tuple[str, ...]
    anywhere: bool = False
    away: bool = False
    """Only where the API is away from somebody: what one of several API servers does, nobody else notices."""
    error: bool = False
    """Only where the cause is an error, and no warning."""
    dns: bool = False
    """Anywhere, where the cause is of the cluster, or of a host that has a Pod of cluster DNS."""
    waits: bool = False
    """Only where the API answers otherwise: what is explained waits for this one and does its work meanwhile, and
    so explains nothing itself."""


CONTROLLERS = ("controller-manager-down", "scheduler-down")
API = ("apiserver-down", "api-silent")
PLANE = (*API, *CONTROLLERS, "etcd-member-down")
_NODE = ("node-not-ready",)
_PODS = ("proxy-down", "network-pod-down", "daemon-pod-missing")
_AGENTS = ("proxy-down", "network-pod-down")
"""They are not ready without the API, which the pod network's reaches through a service."""
_DNS = ("dns-down", "dns-silent")
_PACKETS = ("packets-dropped", "packets-too-large")
_SERVICES = ("service-silent",)

_RULES = (
    # A host that is away, and a control plane of which nothing was started.
    Rule("host-silent", (*PLANE, "nothing-runs", "kubelet-dead", *_NODE, *_PODS, "balancer-down")),
    Rule("nothing-runs", (*PLANE, *_PODS)),
    # What is below the kubelet.
    Rule(
        "disk-full",
        ("runtime-dead", "runtime-not-ready", "kubelet-dead", "nothing-runs", *PLANE, *_NODE, *_PODS),
    ),
    Rule(
        "runtime-dead",
        ("runtime-not-ready", "kubelet-dead", "nothing-runs", *PLANE, *_NODE, *_PODS, "no-network"),
    ),
    Rule("runtime-not-ready", ("kubelet-dead", "nothing-runs", *PLANE, *_NODE, *_PODS, "no-network")),
    Rule("swap-on", ("kubelet-dead",)),
    Rule("cgroup-driver", ("kubelet-dead", *_NODE)),
    Rule("cgroup-accounting", ("kubelet-dead",)),
    Rule("kubelet-certificate", ("kubelet-dead", *_NODE)),
    Rule("host-renamed", ("kubelet-dead", *_NODE)),
    Rule("kubelet-dead", ("nothing-runs", *_NODE, *_PODS, "no-network")),
    # Nobody looks after kube-proxy there.
    *(
        Rule(kind, _SERVICES)
        for kind in (
            "disk-full",
            "runtime-dead",
            "runtime-not-ready",
            "kubelet-dead",
            "cgroup-driver",
            "host-renamed",
        )
    ),
    Rule("exec-format", (*PLANE, "nothing-runs", *_NODE, *_PODS, "no-network", "subnet-env", "dns-loop")),
    Rule("selinux-denies", (*PLANE, "nothing-runs", *_PODS, "subnet-env", "no-network")),
    Rule("selinux-denies", ("etcd-no-quorum",), anywhere=True),
    # The control plane.
    Rule("certificates-ended", (*PLANE, "etcd-no-quorum")),
    Rule(
        "certificates-ended",
        ("etcd-no-quorum", "no-leader", "endpoint-silent"),
        anywhere=True,
    ),
    Rule("certificates-ended", (*_NODE, *_AGENTS), anywhere=True, away=True),
    Rule("etcd-alarm", API),
    Rule("etcd-alarm", ("no-leader", *CONTROLLERS, *_NODE, *_AGENTS), anywhere=True),
    Rule("etcd-member-down", API),
    Rule("etcd-member-down", ("etcd-no-quorum",), anywhere=True),
    Rule(
        "etcd-no-quorum",
        (*API, *CONTROLLERS, "no-leader", "endpoint-silent", *_NODE, *_AGENTS),
        anywhere=True,
    ),
    Rule("apiserver-down", ("api-silent", *CONTROLLERS)),
    Rule("apiserver-down", ("endpoint-silent", "no-leader", *_NODE, *_AGENTS), anywhere=True, away=True),
    Rule("api-certificate", ("api-silent",)),
    Rule("api-certificate", ("endpoint-silent", *_NODE, *_AGENTS), anywhere=True, away=True),
    Rule("api-silent", CONTROLLERS),
    Rule("api-silent", ("endpoint-silent", "no-leader", *_NODE, *_AGENTS), anywhere=True, away=True),
    # Whoever was connected to one that hangs waits for it, whatever the endpoint does.
    Rule("api-silent", ("network-pod-down",), anywhere=True, waits=True),
    Rule("balancer-down", ("endpoint-silent",), anywhere=True, away=True),
    # One on a node serves that node alone; of one for all, the endpoint is silent as seen from each of them.
    Rule("balancer-down", (*_NODE, *_AGENTS, *_SERVICES)),
    Rule("endpoint-silent", (*_NODE, *_AGENTS)),
    Rule("kubelet-server", (*_NODE, "endpoint-silent")),
    Rule("proxy-server", ("network-pod-down",), anywhere=True, error=True),
    # Where another leads, one that is down keeps nobody waiting.
    Rule("controller-manager-down", ("no-leader",), anywhere=True),
    Rule("scheduler-down", ("no-leader",), anywhere=True),
    Rule("no-leader", ("daemon-pod-missing", *_DNS), anywhere=True),
    # The pod network, services, DNS.
    Rule("ip-forward-off", (*_AGENTS, *_SERVICES)),
    Rule("ip-forward-off", _DNS, dns=True),
    Rule("bridge-address", ("network-pod-down",)),
    Rule("proxy-down", ("network-pod-down", *_SERVICES)),
    Rule("daemon-pod-missing", ("subnet-env", "no-network", *_NODE, *_SERVICES)),
    Rule("network-pod-down", ("subnet-env", "no-network", *_NODE)),
    Rule("subnet-env", ("no-network", *_NODE)),
    Rule("no-network", _NODE),
    *(
        Rule(kind, _PACKETS)
        for kind in (
            "ip-forward-off",
            "bridge-address",
            "daemon-pod-missing",
            "network-pod-down",
            "subnet-env",
            "no-network",
        )
    ),
    Rule("proxy-server", _SERVICES, anywhere=True, error=True),
    Rule("service-silent", ("network-pod-down",)),
    Rule("dns-down", ("dns-silent",), anywhere=True),
    # Without the API it answers as long as it is not started anew.
    *(Rule(kind, _DNS, dns=True, away=True) for kind in API),
    Rule("resolv-loop", ("dns-loop", *_DNS), dns=True),
    Rule("dns-loop", _DNS, dns=True),
    *(
        Rule(kind, _DNS, dns=True)
        for kind in (
            "host-silent",
            "host-renamed",
            "cgroup-driver",
            "runtime-dead",
            "runtime-not-ready",
            "disk-full",
            "kubelet-dead",
            "exec-format",
            "selinux-denies",
            "subnet-env",
            "no-network",
            "addresses-leaked",
            "bridge-address",
            "proxy-down",
            "daemon-pod-missing",
            "network-pod-down",
            "node-not-ready",
            "proxy-server",
            *_PACKETS,
            *_SERVICES,
        )
    ),
)


DELIBERATE = {
    "kubelet-stopped": "kubelet-dead",
    "apiserver-removed": "apiserver-down",
    "controller-manager-removed": "controller-manager-down",
    "scheduler-removed": "scheduler-down",
    "etcd-removed": "etcd-member-down",
    "daemon-pod-kept-off": "daemon-pod-missing",
}
"""What somebody has done, and what it is like: it explains the same, and nothing explains it."""
RULES = (
    *_RULES,
    *(
        replace(rule, cause=kind)
        for kind, like in DELIBERATE.items()
        for rule in _RULES
        if rule.cause == like
    ),
)


def causes_only(
    findings: Sequence[Finding],
    rules: Iterable[Rule] = RULES,
    *,
    api_served: bool = False,
    dns_hosts: frozenset[str] | None = None,
) -> list[Finding]:
    """The findings that no other explains. What is explained itself explains on, so that a chain has one end, but
    for what merely waits.

    With `api_served` the API answers wherever the cluster asks it, whatever is wrong with one of its servers.
    `dns_hosts` have a Pod of cluster DNS; None where that is not known. Of a finding on several hosts those hosts
    are left where nothing explains it.
    """
    rules = tuple(rules)
    if api_served:
        findings = _unexplained(findings, [rule for rule in rules if rule.waits], dns_hosts)
    others = [rule for rule in rules if not rule.waits and not (rule.away and api_served)]
    return _unexplained(findings, others, dns_hosts)


def _unexplained(
    findings: Sequence[Finding], rules: Sequence[Rule], dns_hosts: frozenset[str] | None
) -> list[Finding]:
    kept = []
    for one in findings:
        others = [other for other in findings if other is not one]
        if not one.hosts:
            if not any(_explains(rules, other, one, None, dns_hosts) for other in others):
                kept.append(one)
            continue
        hosts = tuple(
            host
            for host in one.hosts
            if not any(_explains(rules, other, one, host, dns_hosts) for other in others)
        )
        if hosts:
            kept.append(one if hosts == one.hosts else replace(one, hosts=hosts))
    return kept


def _explains(
    rules: Sequence[Rule], cause: Finding, one: Finding, host: str | None, dns_hosts: frozenset[str] | None
) -> bool:
    """Whether a finding explains another, of which `host` is one; None for a finding of the cluster."""
    near = host is not None and not {host, *one.about}.isdisjoint(cause.hosts)
    serves = not cause.hosts or dns_hosts is None or not dns_hosts.isdisjoint(cause.hosts)
    return any(
        rule.cause == cause.kind
        and one.kind in rule.effects
        and (cause.severity is Severity.ERROR or not rule.error)
        and (rule.anywhere or near or (rule.dns and serves))
        for rule in rules
    )


def circles(rules: Iterable[Rule] = RULES) -> list[str]:
    """Kinds that explain themselves by way of others: two such findings would hide each other."""
    effects: dict[str, set[str]] = {}
    for rule in rules:
        effects.setdefault(rule.cause, set()).update(rule.effects)
    found = []
    for kind in effects:
        seen: set[str] = set()
        queue = [*effects[kind]]
        while queue:
            one = queue.pop()
            if one not in seen:
                seen.add(one)
                queue += effects.get(one, ())
        if kind in seen:
            found.append(kind)
    return sorted(found)
