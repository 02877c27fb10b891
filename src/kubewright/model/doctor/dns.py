"""Diagnoses of cluster DNS (P04, P18, P19)."""

from __future__ import annotations

import re
from collections.abc import Iterator

from kubewright.model.doctor.facts import DoctorFacts
from kubewright.model.doctor.finding import Finding, Severity
from kubewright.model.doctor.plan import is_dns
from kubewright.model.objects import SYSTEM
from kubewright.model.status import pod_trouble

_SELECTED = "-l k8s-app=kube-dns"
_LOOP = re.compile(r"plugin/loop: .*(loop detected|detected for zone)", re.IGNORECASE)
"""What CoreDNS says last, in its versions until 1.2 and later."""


def loop(facts: DoctorFacts) -> Iterator[Finding]:
    """CoreDNS that has found itself behind its own upstream (P18)."""
    for node, look in facts.looks():
        lines = [
            f"{pod}/{container}: {line}"
            for (pod, container), log in look.logs.items()
            if container == "coredns"
            for line in log[-2:]
            if _LOOP.search(line)
        ]
        if lines:
            yield Finding(
                "dns-loop",
                Severity.ERROR,
                "CoreDNS ends because its questions come back to it",
                hosts=(node.name,),
                pitfall="P18",
                evidence=(*lines[-2:], f"{look.resolv_path}: {', '.join(look.nameservers) or 'empty'}"),
                breaks="no name is resolved by the DNS Pods on this node",
                mend=(
                    "set resolvConf in /var/lib/kubelet/config.yaml to a file that does not name the host itself",
                    "systemctl restart kubelet",
                    f"kubectl -n {SYSTEM} rollout restart deployment coredns",
                ),
            )


def down(facts: DoctorFacts) -> Iterator[Finding]:
    """Cluster DNS of which no Pod is ready."""
    objects = facts.asked.objects
    for item in objects.deployments if objects else ():
        meta = item["metadata"]
        if not is_dns(item) or not facts.settled(item):
            continue
        wanted = (item.get("spec") or {}).get("replicas", 1)
        if not wanted or (item.get("status") or {}).get("readyReplicas"):
            continue
        pods = facts.dns_pods()
        troubles = [f"Pod {pod['metadata']['name']}: {pod_trouble(pod)}" for pod in pods if pod_trouble(pod)]
        pending = any((pod.get("status") or {}).get("phase") == "Pending" for pod in pods)
        yield Finding(
            "dns-down",
            Severity.ERROR,
            "no Pod of cluster DNS is ready",
            pitfall="P19" if pending else "P04",
            evidence=(f"Deployment {SYSTEM}/{meta['name']}: 0 of {wanted} ready", *troubles[:3]),
            breaks="no name of a service or of the world is resolved in Pods",
            mend=(
                f"kubectl -n {SYSTEM} describe pods {_SELECTED}",
                f"kubectl -n {SYSTEM} logs {_SELECTED}",
            ),
        )


DIAGNOSES = (loop, down)
