"""What several diagnoses ask about static Pods and their containers."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import timedelta

from kubewright.model.doctor.facts import Container, DoctorFacts, Ended, NodeFacts
from kubewright.model.doctor.logs import reasons
from kubewright.model.doctor.look import Look
from kubewright.model.objects import read_mapping
from kubewright.model.reset import container_flags
from kubewright.model.status import CONTROL_PLANE_PARTS

STARTED = timedelta(minutes=2)
"""A kubelet that has run for as long has started what it is to start."""
RECENT, SHORT, OFTEN = timedelta(minutes=3), timedelta(minutes=2), 3
"""A container that has ended within `RECENT`, had run for less than `SHORT`, and was started again `OFTEN` times
does not come to rest. A runtime keeps one ended container; the attempts tell how many there were."""
_LONGER, _AT_LEAST = timedelta(seconds=10), timedelta(seconds=30)
"""Once it runs for so much longer than it did before, and for so long at least, it has."""
_BAD = re.compile(
    r"\b(panic|fatal|error|failed|cannot|refused|denied|no space|expired|unable)\b|^[EF]\d{4} ", re.IGNORECASE
)


def flags(look_manifests: Mapping[str, str], name: str) -> dict[str, str]:
    """The flags of a static Pod's manifest; empty where there is none, or it is damaged."""
    return container_flags(read_mapping(look_manifests.get(name, "")) or {})


def last_words(node: NodeFacts, container: str) -> tuple[str, ...]:
    """How a container ended last, and what its log says of the reason.

    Where it has ended, that is the first lines that tell one, for a usage may follow; else the last that seem to.
    """
    lines: list[str] = []
    newest: Ended | None = None
    runs = node.runtime is not None and node.runtime.runs(container)
    if node.runtime is not None:
        ended = [one for one in node.runtime.of(container) if one.ended is not None]
        if ended:
            last = max(ended, key=_time)
            newest = last.ended
            lines.append(f"container {container}, attempt {last.attempt}, {newest}")
        elif node.runtime.answers and not node.runtime.of(container):
            lines.append(f"there is no container {container}")
    if node.look is not None:
        told = next((lines for (_, name), lines in node.look.told.items() if name == container), ())
        short = newest is not None and newest.lasted is not None and newest.lasted < SHORT
        said = _said(node.look.log(container), () if runs else told, short=short)
        lines += [f"{container}: {line}" for line in said]
    return tuple(lines)


def pods_words(look: Look, pod: str, *, ends: bool) -> tuple[str, ...]:
    """What the logs of a Pod of kube-system say of why it is not ready; `ends` where it does so again and again,
    soon after its start."""
    return tuple(
        f"{container}: {line}"
        for (name, container), log in look.logs.items()
        if name == pod
        for line in _said(log, look.told.get((name, container), ()), short=ends)
    )


def _said(log: Sequence[str], told: Sequence[str], *, short: bool) -> list[str]:
    lines = [line for line in log if line.strip()]
    bad = [line for line in lines if _BAD.search(line)]
    return reasons(told, short=short) or (bad or lines)[-2:]


def _time(one: Container) -> float:
    return one.ended.at.timestamp() if one.ended and one.ended.at else 0.0


def nothing_runs(node: NodeFacts) -> bool:
    """Whether a control plane has manifests, and nobody has started a container for them.

    Where a kubelet runs and containers have ended, it is one of them that is the cause.
    """
    if node.look is None or node.runtime is None or not node.runtime.answers:
        return False
    wanted = [name for name in CONTROL_PLANE_PARTS if name in node.look.manifests]
    if not wanted or any(node.runtime.runs(name) for name in wanted):
        return False
    unit = node.look.kubelet
    return unit is None or unit.active != "active" or not any(node.runtime.of(name) for name in wanted)


def loops(facts: DoctorFacts, node: NodeFacts, container: str) -> bool:
    """Whether a container that runs has ended often, soon after its start and of late: it will end again.

    One that has run for long and was restarted, as a controller that has lost its Lease, is no such.
    """
    if node.runtime is None:
        return False
    look = node.look
    now = look.now if look is not None and look.now is not None else facts.now
    found = node.runtime.of(container)
    failed = [one.ended for one in found if one.ended is not None and one.ended.code != 0]
    soon = [one for one in failed if one.at and now - one.at < RECENT and one.lasted and one.lasted < SHORT]
    if not soon or max(one.attempt for one in found) < OFTEN:
        return False
    rests = max(_AT_LEAST, *(one.lasted + _LONGER for one in soon if one.lasted))
    return not any(one.running and one.created and now - one.created > rests for one in found)
