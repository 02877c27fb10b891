"""Diagnoses of the control plane's components: what runs, who leads, how much they log (P03, P21, P26)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import urlsplit

from kubewright.errors import ConfigError
from kubewright.model import x509
from kubewright.model.doctor.facts import DoctorFacts, NodeFacts
from kubewright.model.doctor.finding import Finding, Severity
from kubewright.model.doctor.look import Look
from kubewright.model.doctor.pods import STARTED, flags, last_words, loops, nothing_runs
from kubewright.model.manifests import MANIFESTS_DIR, manifest_path
from kubewright.model.node import split_endpoint
from kubewright.model.objects import SYSTEM
from kubewright.model.reset import container_flags
from kubewright.model.status import CONTROL_PLANE_PARTS
from kubewright.model.status_api import LEADERS

_REMOVED = {
    "kube-apiserver": "apiserver-removed",
    "kube-controller-manager": "controller-manager-removed",
    "kube-scheduler": "scheduler-removed",
}
_KINDS = {
    "kube-apiserver": ("apiserver-down", "clients of this API server, and what is pinned to it"),
    "kube-controller-manager": (
        "controller-manager-down",
        "where no other leads: Deployments and StatefulSets make no Pods, nodes get no certificate and no network",
    ),
    "kube-scheduler": ("scheduler-down", "where no other leads: new Pods stay Pending"),
}
LOUD = 4
"""The verbosity from which on a component fills the disk (P03)."""


def nothing_started(facts: DoctorFacts) -> Iterator[Finding]:
    """A control plane whose manifests are there, and of which not one container runs."""
    for node, look in facts.planes():
        if nothing_runs(node) and _may_judge(look):
            yield Finding(
                "nothing-runs",
                Severity.ERROR,
                "not one of the control plane's containers runs",
                hosts=(node.name,),
                pitfall="P21",
                evidence=(
                    f"manifests: {', '.join(sorted(set(CONTROL_PLANE_PARTS) & set(look.manifests)))}",
                    *last_words(node, "etcd"),
                    *last_words(node, "kube-apiserver"),
                ),
                breaks="this control plane does nothing",
                mend=("journalctl -u kubelet -n 50",),
            )


def component_down(facts: DoctorFacts) -> Iterator[Finding]:
    """A component whose container has ended, or ends again and again, or that has no manifest any more (P21)."""
    for node, look in facts.planes():
        if node.runtime is None or not node.runtime.answers or not look.joined:
            continue
        for name, (kind, breaks) in _KINDS.items():
            if name not in look.manifests:
                if node.control_plane or len(look.manifests) > 1:
                    yield _gone(node, name, _REMOVED[name], breaks)
            elif not node.runtime.runs(name):
                yield _ended(node, name, kind, breaks, "does not run")
            elif name in node.mute:
                yield _ended(node, name, kind, breaks, "runs, and does not answer", node.mute[name])
            elif loops(facts, node, name):
                yield _ended(node, name, kind, breaks, "ends again and again")


def _gone(node: NodeFacts, name: str, kind: str, breaks: str) -> Finding:
    return Finding(
        kind,
        Severity.ERROR,
        f"{name} is not started: its manifest is gone",
        hosts=(node.name,),
        pitfall="P21",
        evidence=(f"there is no {MANIFESTS_DIR}/{name}.yaml", *last_words(node, name)),
        breaks=breaks,
        mend=(
            f"kubewright init phase control-plane {name.removeprefix('kube-')}",
            "or: kubewright apply -f cluster.yaml",
        ),
    )


def _ended(node: NodeFacts, name: str, kind: str, breaks: str, how: str, *more: str) -> Finding:
    return Finding(
        kind,
        Severity.ERROR,
        f"{name} {how}",
        hosts=(node.name,),
        pitfall="P21",
        evidence=(*more, *last_words(node, name)),
        breaks=breaks,
        mend=(
            f"tail -n 50 /var/log/pods/kube-system_{name}-*/{name}/*.log",
            f"look at {MANIFESTS_DIR}/{name}.yaml",
        ),
    )


def _may_judge(look: Look) -> bool:
    """Not while a kubelet is on its way: it starts static Pods in its first minute. A dead one starts none."""
    unit = look.kubelet
    return unit is None or unit.active != "active" or look.kubelet_up(STARTED)


def api_silent(facts: DoctorFacts) -> Iterator[Finding]:
    """An API server that runs and does not answer, or is not ready."""
    for one in facts.status.servers:
        if one.ready:
            continue
        node = facts.node(one.name)
        runs = node is not None and node.runtime is not None and node.runtime.runs("kube-apiserver")
        detail = one.detail or "no answer"
        what = (
            "the API server answers, and is not ready"
            if one.answers
            else "the API server runs, and does not answer"
            if runs
            else "the API server does not answer"
        )
        yield Finding(
            "api-silent",
            Severity.ERROR,
            what,
            hosts=(one.name,),
            pitfall="P21",
            evidence=(f"{one.url}: {detail}", *(last_words(node, "kube-apiserver") if node else ())),
            breaks="clients of this API server",
            mend=(
                "tail -n 50 /var/log/pods/kube-system_kube-apiserver-*/kube-apiserver/*.log",
                "if its process hangs: crictl stop its container, and the kubelet starts it again",
            ),
        )


def no_leader(facts: DoctorFacts) -> Iterator[Finding]:
    """Controllers or schedulers that run, and of which none leads (P21)."""
    for one in facts.status.leaders:
        if one.problem:
            yield Finding(
                "no-leader",
                Severity.ERROR,
                f"no {LEADERS[one.name]} leads",
                pitfall="P21",
                evidence=(f"Lease kube-system/{one.name}: {one.problem}",),
                breaks=_KINDS[one.name][1],
                mend=(
                    f"tail -n 50 /var/log/pods/kube-system_{one.name}-*/{one.name}/*.log on each control plane",
                ),
            )


def loud(facts: DoctorFacts) -> Iterator[Finding]:
    """Components that log at a verbosity of 4 and more (P03)."""
    for node, look in facts.looks():
        levels = {manifest_path(name): flags(look.manifests, name).get("v", "") for name in look.manifests}
        if look.joined:
            levels["the kubelet's flags"] = look.kubelet_flags.get("v", "")
        if seen := _too_loud(levels):
            yield _loud(seen, node.name)
    objects = facts.asked.objects
    for item in (*objects.daemon_sets, *objects.deployments) if objects else ():
        levels = {f"{SYSTEM}/{item['metadata']['name']}": container_flags(_template(item)).get("v", "")}
        if seen := _too_loud(levels):
            yield _loud(seen)


def _template(workload: Mapping[str, Any]) -> Mapping[str, Any]:
    template = (workload.get("spec") or {}).get("template")
    return template if isinstance(template, dict) else {}


def _too_loud(levels: Mapping[str, str]) -> tuple[str, ...]:
    return tuple(
        f"{where}: --v={level}" for where, level in levels.items() if level.isdecimal() and int(level) >= LOUD
    )


def _loud(seen: tuple[str, ...], *hosts: str) -> Finding:
    return Finding(
        "loud", Severity.WARNING, f"components log at verbosity {LOUD} or more", hosts=hosts, pitfall="P03",
        evidence=seen, breaks="the logs fill the disk, and slow etcd down",
        mend=("set --v=2 there, and in the extraArgs of the configuration",),
    )  # fmt: skip


def api_certificate(facts: DoctorFacts) -> Iterator[Finding]:
    """An API server whose certificate lacks a name by which it is reached (P26)."""
    endpoint = facts.cluster_endpoint
    for node, look in facts.planes():
        path, pem = next(
            ((path, pem) for path, pem in look.certs.items() if path.endswith("/apiserver.crt")), ("", b"")
        )
        if not pem or "kube-apiserver" not in look.manifests:
            continue
        wanted = [flags(look.manifests, "kube-apiserver").get("advertise-address", "")]
        if endpoint:
            wanted.append(_host(endpoint))
        wanted += _servers_of(look)
        try:
            lacking = x509.lacking(pem, dict.fromkeys(name for name in wanted if name))
            said = x509.description(pem)
        except ConfigError as error:
            lacking, said = ["anybody"], error.message
        if lacking:
            yield Finding(
                "api-certificate",
                Severity.ERROR,
                "the API server's certificate lacks a name by which it is reached",
                hosts=(node.name,),
                pitfall="P26",
                evidence=(f"{path} is not for {', '.join(lacking)}", f"it is {said}"),
                breaks="clients that use these names refuse it: x509, certificate is valid for others",
                mend=(
                    "add the names to apiServer.certSANs in the configuration",
                    f"rm {path} {path.removesuffix('.crt')}.key && kubewright init phase certs apiserver",
                ),
            )


def _host(endpoint: str) -> str:
    try:
        return split_endpoint(endpoint)[0]
    except ConfigError:
        return ""


def _servers_of(look: Look) -> list[str]:
    """Whom the control plane's own kubelet asks, where that is on this very host."""
    from kubewright.model.doctor.kubelet import server_of

    host = urlsplit(server_of(look)).hostname or ""
    own = {address.partition("/")[0] for found in look.addresses.values() for address in found}
    return [host] if host in own else []


DIAGNOSES = (nothing_started, component_down, api_silent, no_leader, loud, api_certificate)
