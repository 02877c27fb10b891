"""Diagnosis of SELinux: not that it enforces, but a container that ends for being denied something (P18, P50)."""

from __future__ import annotations

import re
from collections.abc import Iterator

from kubewright.model.doctor.facts import DoctorFacts, NodeFacts
from kubewright.model.doctor.finding import Finding, Severity
from kubewright.model.doctor.look import SELINUX_ENFORCE, Look
from kubewright.model.doctor.pods import loops

_DENIED = re.compile(r"permission denied|operation not permitted", re.IGNORECASE)
_PORT = re.compile(r"\bbind: permission denied", re.IGNORECASE)
"""A port below 1024 is refused for want of a capability, whatever SELinux says."""


def denied(facts: DoctorFacts) -> Iterator[Finding]:
    """Containers of kube-system that do not come to run where SELinux enforces, and say that they were denied
    something."""
    for node, look in facts.looks():
        if look.files.get(SELINUX_ENFORCE, "").strip() != "1":
            continue
        names = dict.fromkeys(one.name for one in node.runtime.containers) if node.runtime else {}
        for name in names:
            lines = _lines(node, look, name) if _ends(facts, node, name) else []
            if not lines:
                continue
            dns = name == "coredns"
            yield Finding(
                "selinux-denies",
                Severity.ERROR,
                f"SELinux is enforcing, and {'CoreDNS' if dns else name} ends because it is denied something",
                hosts=(node.name,),
                pitfall="P18" if dns else "P50",
                evidence=(*lines[-2:], f"{SELINUX_ENFORCE} is 1"),
                breaks="no name is resolved by the DNS Pods on this node"
                if dns
                else f"{name} does not run here",
                mend=(
                    "what was denied: ausearch -m avc -ts recent, or journalctl -k -g avc",
                    "does it run without? setenforce 0, until the next restart",
                    "for good: container-selinux and a current runtime, or SELINUX=permissive in its config",
                ),
            )


def _ends(facts: DoctorFacts, node: NodeFacts, name: str) -> bool:
    return node.runtime is not None and (not node.runtime.runs(name) or loops(facts, node, name))


def _lines(node: NodeFacts, look: Look, name: str) -> list[str]:
    """What it said last, or its runtime of it, that is a denial."""
    said = [
        f"{pod}/{container}: {line}"
        for (pod, container), log in look.logs.items()
        if container == name
        for line in log[-2:]
    ]
    said += [
        f"container {name} of {one.pod}: {one.ended}"
        for one in (node.runtime.of(name) if node.runtime else ())
        if one.ended is not None and one.ended.code != 0 and one.ended.message
    ]
    return [line for line in said if _DENIED.search(line) and not _PORT.search(line)]


DIAGNOSES = (denied,)
