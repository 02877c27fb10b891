"""`kubewright doctor --fix`: what findings offer, done host by host."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from kubewright.clients.cri import find_socket
from kubewright.errors import KubewrightError
from kubewright.events import Events
from kubewright.hosts import Host
from kubewright.model.doctor.facts import DoctorFacts
from kubewright.model.doctor.finding import Finding, Fix
from kubewright.phases.doctor_fixes import phase_of
from kubewright.workflows.doctor_host import runtime_socket
from kubewright.workflows.fleet import on_all


def offered(findings: Sequence[Finding]) -> list[Fix]:
    """All fixes that findings carry, each once."""
    return list(dict.fromkeys(fix for one in findings for fix in one.fixes))


async def repair(
    fixes: Sequence[Fix], open_: Mapping[str, Callable[[], Host]], facts: DoctorFacts, events: Events
) -> None:
    """Do them, on all hosts at once and on each in order. What fails is told, and stops nothing else: the next
    look finds again what was not mended."""
    hosts = dict.fromkeys(fix.host for fix in fixes)
    count = f"{len(fixes)} thing{'s' if len(fixes) != 1 else ''}"
    async with events.workflow("doctor --fix", f"mend {count}"):
        await on_all(
            {
                name: _on_host([fix for fix in fixes if fix.host == name], open_[name], facts, events)
                for name in hosts
                if name in open_
            }
        )


async def _on_host(
    fixes: Sequence[Fix], open_: Callable[[], Host], facts: DoctorFacts, events: Events
) -> None:
    name = fixes[0].host
    try:
        async with open_() as host:
            node = facts.node(name)
            known = runtime_socket(node.look) if node is not None and node.look is not None else ""
            socket = known or await find_socket(host)
            for fix in fixes:
                try:
                    await (await phase_of(fix, host, socket)).run(events)
                except KubewrightError as error:
                    events.warn(f"not done: {fix.title}: {_said(error)}", host=name)
    except KubewrightError as error:
        events.warn(f"nothing is done there: {_said(error)}", host=name)


def _said(error: KubewrightError) -> str:
    return "; ".join(filter(None, (error.message, *error.evidence[:2], error.hint)))
