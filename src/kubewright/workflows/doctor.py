"""`kubewright doctor`: everybody is asked at once, and once more where something was found."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from typing import Any

from kubewright.clients.server import Server
from kubewright.errors import ExitCode, HostError
from kubewright.events import Activity, Events
from kubewright.hosts import Host
from kubewright.hosts.open import open_host
from kubewright.model.config.cluster import ClusterSpec, HostSpec, Role
from kubewright.model.config.endpoint import configured_address, endpoint_hosts
from kubewright.model.doctor.diagnose import causes, confirmed, symptoms
from kubewright.model.doctor.facts import DoctorFacts
from kubewright.model.doctor.finding import Finding, Severity, worst
from kubewright.model.doctor.kubelet import restless
from kubewright.model.doctor.plan import Plan, plan, questions
from kubewright.model.pki import PKI_DIR, certificates_dir
from kubewright.model.status_report import report
from kubewright.workflows.doctor_host import DoctorHost
from kubewright.workflows.status import StatusReader
from kubewright.workflows.status_parts import Wanted, wanted_of

_OBJECTS = 8.0
"""Seconds in which a ready API server must have listed the cluster's objects; without them the hosts say much."""
PAUSE = 4.0
"""Seconds from the last host's answer to the second look: in this time a container or a unit that restarts by
itself has begun again."""
_LOOKS = 2
"""More looks than the first: one, and another where a kubelet had just been started again in it."""
_NAMED = 3
"""So many hosts that have not answered are named."""


@dataclass(frozen=True, slots=True)
class Examination:
    """What was found, and out of what."""

    findings: tuple[Finding, ...]
    facts: DoctorFacts

    @property
    def severity(self) -> Severity | None:
        """The worst of the findings'."""
        return worst(self.findings)

    @property
    def exit_code(self) -> ExitCode:
        """What the process returns."""
        codes = {Severity.WARNING: ExitCode.DOCTOR_WARNED, Severity.ERROR: ExitCode.DOCTOR_FOUND}
        return codes[self.severity] if self.severity else ExitCode.OK

    def as_dict(self) -> dict[str, Any]:
        """The document that `doctor -o json` prints."""
        return {
            "healthy": not self.findings,
            "severity": str(self.severity) if self.severity else None,
            "time": self.facts.now.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            "apiRead": self.facts.readable,
            "hosts": [
                {
                    "name": one.name,
                    "answers": one.answers,
                    "controlPlane": one.control_plane,
                    "error": one.error or None,
                }
                for one in self.facts.nodes
            ],
            "findings": [one.as_dict() for one in self.findings],
        }


class Doctor:
    """The hosts of a cluster, or one of them, and the API. Use it as an asynchronous context manager."""

    def __init__(
        self,
        hosts: Sequence[DoctorHost],
        *,
        servers: Sequence[Server] = (),
        endpoint: str = "",
        whole: bool = True,
    ) -> None:
        self._hosts = hosts
        self._endpoint = endpoint
        self._whole = whole
        self._reader = StatusReader(
            servers, hosts=[one.source for one in hosts], config_maps=True, within=_OBJECTS
        )

    @classmethod
    def of_cluster(cls, spec: ClusterSpec, servers: Sequence[Server] = ()) -> Doctor:
        """All hosts of a cluster.yaml."""
        pki = certificates_dir(spec.cluster_configuration)
        address = configured_address(spec) if spec.endpoint is not None else ""
        balancing = {host.name: wanted_of(spec) for host in endpoint_hosts(spec)}
        hosts = [
            DoctorHost(
                host,
                partial(open_host, host, spec.ssh),
                pki,
                balancing.get(host.name, Wanted()),
                certain=True,
            )
            for host in spec.hosts
        ]
        return cls(hosts, servers=servers, endpoint=address)

    @classmethod
    def of_host(cls, spec: HostSpec, open_: Callable[[], Host]) -> Doctor:
        """One host, of which only its own files say whether it is a control plane."""
        asked = spec.model_copy(update={"roles": [Role.CONTROL_PLANE]})
        return cls([DoctorHost(asked, open_, PKI_DIR, Wanted(), certain=False)], whole=False)

    async def __aenter__(self) -> Doctor:
        await self._reader.__aenter__()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._reader.__aexit__()

    async def examine(self, events: Events) -> Examination:
        """Look, and think. What is found is looked for once more: nothing is reported that passes by itself.

        Raises `HostError` where the one host that is asked has nothing of a cluster.
        """
        began = asyncio.get_running_loop().time()
        whom = self._hosts[0].name if len(self._hosts) == 1 else f"{len(self._hosts)} hosts"
        async with events.phase("doctor-ask", f"ask {whom}") as phase:
            facts = await self.ask(phase)
            phase.summary(self._answered("silent"))
        async with events.phase("doctor-packets", "packets between nodes") as phase:
            facts = await self.probe(facts)
            if senders := sum(node.probed is not None for node in facts.nodes):
                phase.summary(f"packets from {senders} node{'s' if senders != 1 else ''}")
            else:
                phase.skip("nobody has sent packets")
        self._refuse_if_bare(facts)
        found = symptoms(facts)
        if found:
            async with events.phase("doctor-again", "second look at what was found") as phase:
                for _ in range(_LOOKS):
                    phase.progress("wait for what passes by itself")
                    await self._pause(began, facts)
                    facts = await self.ask(phase, again=True)
                    phase.progress("packets between nodes")
                    facts = await self.probe(facts)
                    found = confirmed(found, symptoms(facts))
                    if not any(restless(look) for _, look in facts.looks()):
                        break
        return Examination(tuple(causes(found, facts)), facts)

    async def _pause(self, began: float, facts: DoctorFacts) -> None:
        """Wait until all have had the time to begin again, of which the wait for silent hosts is a part; and until
        kubelets that have just been started again have had the time to end once more."""
        since = max(began, *(one.heard for one in self._hosts), 0.0)
        pause = max(PAUSE, *(restless(look).total_seconds() for _, look in facts.looks()), 0.0)
        await asyncio.sleep(max(0.0, since + pause - asyncio.get_running_loop().time()))

    async def ask(self, activity: Activity, *, again: bool = False) -> DoctorFacts:
        """All facts but those of packets, within a bounded time, which is shorter where it is asked `again`."""
        for one in self._hosts:
            one.forget()
            one.on_answer = lambda: activity.progress(self._answered())
        asked = await self._reader.facts(again=again)
        errors = {one.name: "; ".join(one.problems) for one in asked.hosts if not one.answers}
        nodes = tuple(one.facts(errors.get(one.name, "")) for one in self._hosts)
        clocks = [one.look.now for one in nodes if one.look is not None and one.look.now is not None]
        now = asked.now if asked.objects is not None or not clocks else clocks[0]
        return DoctorFacts(now or datetime.now(UTC), nodes, report(asked), asked, self._endpoint, self._whole)

    def _answered(self, others: str = "not yet") -> str:
        """How many hosts have answered, and who has not where they are few: what the `others` are."""
        silent = [one.name for one in self._hosts if not one.answered]
        count, of = len(self._hosts) - len(silent), len(self._hosts)
        names = f"; {others}: {', '.join(silent)}" if 0 < len(silent) <= _NAMED else ""
        return (
            f"{count} of {of} host{'s' if of != 1 else ''} {'has' if count == 1 else 'have'} answered{names}"
        )

    async def probe(self, facts: DoctorFacts) -> DoctorFacts:
        """The facts with what became of packets, which all nodes send at once."""
        whole, mtus = planned(facts), facts.mtus()
        async with asyncio.TaskGroup() as group:
            for one, node in zip(self._hosts, facts.nodes, strict=True):
                name = facts.node_name(node)
                if name and node.answers and (asked := questions(whole, name, mtus)):
                    group.create_task(one.probe(asked))
        nodes = tuple(
            replace(node, probed=one.probed) for one, node in zip(self._hosts, facts.nodes, strict=True)
        )
        return replace(facts, nodes=nodes, plan=whole)

    def _refuse_if_bare(self, facts: DoctorFacts) -> None:
        if self._whole:
            return
        for node, look in facts.looks():
            if not look.joined and not look.manifests and not facts.asked.etcd:
                raise HostError(
                    f"{node.name}: there is nothing of a cluster on it",
                    host=node.name,
                    exit_code=ExitCode.FAILURE,
                    hint="name a cluster with -f cluster.yaml, or one of its nodes with --host",
                )


async def examined(opened: AbstractAsyncContextManager[Doctor], events: Events) -> Examination:
    """Reach whom to ask, examine them, and let go of them."""
    async with (
        events.workflow("doctor", "look for what is wrong, and why") as activity,
        AsyncExitStack() as stack,
    ):
        found = await (await stack.enter_async_context(opened)).examine(events)
        async with events.phase("doctor-close", "end the connections") as phase:
            loop = asyncio.get_running_loop()
            began = loop.time()
            await stack.aclose()
            # Only those to hosts that are silent take time; else it is nothing to tell.
            if loop.time() - began < 1:
                phase.skip("they have ended at once")
        count = len(found.findings)
        activity.summary(f"{count} finding{'s' if count != 1 else ''}" if count else "nothing is wrong")
    return found


def planned(facts: DoctorFacts) -> Plan:
    """To whom packets are sent: nobody, where the API does not say who there is."""
    asked = facts.asked
    if asked.objects is None or not asked.services:
        return Plan()
    domains = (str(look.kubelet_config.get("clusterDomain") or "") for _, look in facts.looks())
    return plan(
        asked.objects, asked.services, asked.endpoints, asked.policies, next(filter(None, domains), "")
    )
