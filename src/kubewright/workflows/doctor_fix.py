"""`kubewright doctor --fix`: what findings offer, done host by host."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from kubewright.clients.cri import find_socket
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
    """Do them, on all hosts at once and on each in order. One host's failure does not stop the others."""
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
    async with open_() as host:
        node = facts.node(fixes[0].host)
        known = runtime_socket(node.look) if node is not None and node.look is not None else ""
        socket = known or await find_socket(host)
        for fix in fixes:
            await (await phase_of(fix, host, socket)).run(events)
