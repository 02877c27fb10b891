"""From facts to findings: all diagnoses, one after the other, and of what they find the causes alone."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace

from kubewright.model.doctor import (
    certs,
    controlplane,
    dns,
    etcd,
    host,
    kubelet,
    network,
    packets,
    runtime,
    selinux,
    service,
)
from kubewright.model.doctor.causes import causes_only
from kubewright.model.doctor.facts import DoctorFacts
from kubewright.model.doctor.finding import Finding, merged
from kubewright.model.doctor.redact import redacted

Diagnosis = Callable[[DoctorFacts], Iterator[Finding]]

DIAGNOSES: tuple[Diagnosis, ...] = (
    *host.DIAGNOSES,
    *runtime.DIAGNOSES,
    *selinux.DIAGNOSES,
    *kubelet.DIAGNOSES,
    *certs.DIAGNOSES,
    *etcd.DIAGNOSES,
    *controlplane.DIAGNOSES,
    *network.DIAGNOSES,
    *packets.DIAGNOSES,
    *service.DIAGNOSES,
    *dns.DIAGNOSES,
)
"""In the order in which findings of one severity are shown: what is below comes first."""


def diagnose(facts: DoctorFacts, diagnoses: Iterable[Diagnosis] = DIAGNOSES) -> list[Finding]:
    """The causes of what is wrong, the worst first."""
    return causes(symptoms(facts, diagnoses), facts)


def symptoms(facts: DoctorFacts, diagnoses: Iterable[Diagnosis] = DIAGNOSES) -> list[Finding]:
    """All that is found, causes and what follows from them."""
    return [one for diagnosis in diagnoses for one in diagnosis(facts)]


def causes(found: Sequence[Finding], facts: DoctorFacts) -> list[Finding]:
    """The causes among findings, the worst first; their evidence, which others have written, without secrets."""
    shown = merged(causes_only(found, api_served=facts.api_served, dns_hosts=facts.dns_hosts))
    clean = [replace(one, evidence=tuple(redacted(line)[:400] for line in one.evidence)) for one in shown]
    return sorted(clean, key=lambda one: -one.severity)


def confirmed(first: Sequence[Finding], second: Sequence[Finding]) -> list[Finding]:
    """Of what a second look found, that which the first had found as well: what has passed meanwhile was a
    start or a restart, and no fault.

    All symptoms are compared, not the causes: a container that ends again and again is down in one look, and runs
    in the other without answering.
    """
    known = {(one.kind, host) for one in first for host in one.hosts or ("",)}
    kept = []
    for one in second:
        if not one.hosts:
            if (one.kind, "") in known:
                kept.append(one)
            continue
        hosts = tuple(host for host in one.hosts if (one.kind, host) in known)
        if hosts:
            kept.append(replace(one, hosts=hosts, fixes=tuple(fix for fix in one.fixes if fix.host in hosts)))
    return kept
