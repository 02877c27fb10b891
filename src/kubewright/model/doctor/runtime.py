"""Diagnoses of the container runtime, and of images for another architecture (P13, P15)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from kubewright.model.doctor.facts import DoctorFacts, NodeFacts
from kubewright.model.doctor.finding import Finding, Severity

_EXEC = "exec format error"
_UNITS = {"crio": "crio", "cri-dockerd": "cri-docker", "dockershim": "docker"}
"""Whose socket has such a part in its path."""


def dead(facts: DoctorFacts) -> Iterator[Finding]:
    """A runtime that does not answer on its socket (P15)."""
    for node, look in facts.looks():
        if not look.joined or node.runtime is None or node.runtime.answers:
            continue
        unit = next((name for part, name in _UNITS.items() if part in node.runtime.socket), "containerd")
        state = [f"{unit}: {look.units[unit].words}"] if unit in look.units else []
        yield Finding(
            "runtime-dead",
            Severity.ERROR,
            "the container runtime does not answer",
            hosts=(node.name,),
            pitfall="P15",
            evidence=tuple(dict.fromkeys((node.runtime.error, *state, *node.runtime.evidence))),
            breaks="no container is started or stopped here, and the node becomes NotReady",
            mend=(f"systemctl restart {unit}", f"journalctl -u {unit} -n 50"),
        )


def not_ready(facts: DoctorFacts) -> Iterator[Finding]:
    """A runtime that answers, and says that it cannot run containers."""
    for node, look in facts.looks():
        runtime = node.runtime
        if look.joined and runtime is not None and runtime.answers and not runtime.ready:
            yield Finding(
                "runtime-not-ready",
                Severity.ERROR,
                "the container runtime says that it is not ready",
                hosts=(node.name,),
                pitfall="P15",
                evidence=(f"RuntimeReady is false: {runtime.message}",),
                breaks="no container is started here",
                mend=("look at the journal of its unit",),
            )


def exec_format(facts: DoctorFacts) -> Iterator[Finding]:
    """Programs of another architecture (P13): the message is the kernel's, and the same everywhere."""
    for node, look in facts.looks():
        seen = [*_in_containers(node)]
        for (pod, container), lines in look.logs.items():
            # The log of one that runs may have the line from long ago.
            if node.runtime is None or (node.runtime.has(pod) and not node.runtime.runs(container)):
                seen += [f"{pod}/{container}: {line}" for line in lines if _EXEC in line.lower()]
        stopped = look.kubelet is not None and look.kubelet.active != "active"
        lines = look.journal[-10:] if stopped else look.recent
        # Of its own program another finding tells: the kubelet does not run.
        said = [line for line in lines if _EXEC in line.lower() and "kubelet.service:" not in line]
        seen = seen or [f"kubelet: {line}" for line in said[-2:]]
        if seen:
            images = _images(node, look.machine, seen)
            yield Finding(
                "exec-format",
                Severity.ERROR,
                "an image or program is for another architecture than the host",
                hosts=(node.name,),
                pitfall="P13",
                evidence=(*list(dict.fromkeys(seen))[:4], *images),
                breaks="its containers end as soon as they start",
                mend=("take the image of the host's architecture: crictl rmi IMAGE, then crictl pull IMAGE",),
            )


def _images(node: NodeFacts, machine: str, seen: Sequence[str]) -> list[str]:
    """What the images of the containers that were seen are for, beside what the host is."""
    lines = [
        f"{one.image} is for {one.architecture}" + (f", the host is {machine}" if machine else "")
        for one in (node.runtime.containers if node.runtime else ())
        if one.architecture and any(one.pod in line for line in seen)
    ]
    return list(dict.fromkeys(lines))[:3] or ([f"the host is {machine}"] if machine else [])


def _in_containers(node: NodeFacts) -> Iterator[str]:
    for one in node.runtime.containers if node.runtime else ():
        if one.ended is not None and _EXEC in one.ended.message.lower() and not one.running:
            assert node.runtime is not None
            if node.runtime.has(one.pod) and not node.runtime.runs(one.name):
                yield f"container {one.name} of {one.pod}: {one.ended}"


DIAGNOSES = (dead, not_ready, exec_format)
