"""`preflight`: all that is wrong with the hosts of a cluster.yaml, and mending it where that is asked for."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from kubewright.errors import ConfigError, ExitCode
from kubewright.events import Events
from kubewright.model.config.cluster import ClusterSpec
from kubewright.model.config.kubeadm import default_cluster_configuration
from kubewright.model.fleet_checks import wanted_modules
from kubewright.model.fleet_ports import openings
from kubewright.model.preflight import Finding, Fix
from kubewright.phases.make_fit import FirewallOpen, SelinuxPermissive, SwapOff
from kubewright.phases.node import Node
from kubewright.phases.phase import Change, Phase
from kubewright.phases.prepare import Kernel
from kubewright.workflows.fleet import on_all, open_fleet
from kubewright.workflows.inspect_fleet import inspect_fleet


@dataclass
class FleetReport:
    """What was found, and what was mended, or would be."""

    cluster: str
    hosts: list[str]
    findings: list[Finding] = field(default_factory=list)
    changes: list[Change] = field(default_factory=list)

    @property
    def errors(self) -> list[Finding]:
        """The findings that `apply` would refuse."""
        return [one for one in self.findings if one.error]

    def as_dict(self) -> dict[str, Any]:
        """The report as `-o json` prints it."""
        return {
            "cluster": self.cluster,
            "hosts": self.hosts,
            "fit": not self.errors,
            "findings": [one.as_dict() for one in self.findings],
            "changes": [change.as_dict() for change in self.changes],
        }


async def preflight_fleet(
    spec: ClusterSpec,
    events: Events,
    *,
    hosts: Collection[str] = (),
    ignored: Collection[str] = (),
    fix: bool = False,
    dry: bool = False,
) -> FleetReport:
    """Look at all hosts of `spec`, and between them; with `hosts`, tell only what concerns these.

    `ignored` is `ignored_checks(...)`. With `fix`, what can be mended is, and the hosts are looked at again; with
    `dry`, it is only said what would be. Nothing else is changed. Raises `ConfigError` for an unknown host, and
    `KubewrightError`, or a group of them, where mending fails.
    """
    if unknown := [name for name in hosts if name not in {host.name for host in spec.hosts}]:
        raise ConfigError(
            f"--host: cluster.yaml has no host {unknown[0]!r}", exit_code=ExitCode.USAGE,
            hint=f"its hosts: {', '.join(host.name for host in spec.hosts)}",
        )  # fmt: skip
    chosen = [host.name for host in spec.hosts if not hosts or host.name in hosts]
    report = FleetReport(spec.name, chosen)
    async with events.workflow("preflight", f"check the hosts of cluster {spec.name}") as activity:
        async with _opened(spec, events, hosts, ignored, report) as nodes:
            mine = [one for one in report.findings if fix and one.host in chosen]
            work = _fixes(spec, nodes, mine)
            if dry:
                for phases in work.values():
                    for phase in phases:
                        report.changes += await phase.look()
            else:
                await on_all({name: _mend(phases, events, report) for name, phases in work.items()})
        if report.changes and not dry:
            async with _opened(spec, events, hosts, ignored, report):
                pass
        activity.summary(
            f"cluster {spec.name}: {len(report.findings)} findings" if report.findings else
            f"cluster {spec.name}: its hosts are fit"
        )  # fmt: skip
    return report


@asynccontextmanager
async def _opened(
    spec: ClusterSpec, events: Events, hosts: Collection[str], ignored: Collection[str], report: FleetReport
) -> AsyncIterator[list[Node]]:
    """The hosts, with what is found on them in the report."""
    said = default_cluster_configuration(spec).control_plane_endpoint
    told: list[Finding] = []
    inspect = partial(inspect_fleet, spec, whole=True, only=hosts)
    async with open_fleet(
        spec, f"https://{said}" if said else None, events, inspect=inspect, ignored=ignored, told=told
    ) as nodes:
        report.findings = [one for one in told if not hosts or one.host in {*hosts} or one.about & {*hosts}]
        yield nodes


def _fixes(spec: ClusterSpec, nodes: Sequence[Node], findings: Sequence[Finding]) -> dict[str, list[Phase]]:
    """What mends the findings, by host, in the order in which it is done."""
    there = {node.name: node for node in nodes}
    addresses = {node.name: node.ip for node in nodes}
    work: dict[str, dict[Fix, Phase]] = {}
    for one in findings:
        node = there.get(one.host)
        if node is None or one.fix is None:
            continue
        phases = work.setdefault(one.host, {})
        match one.fix:
            case Fix.SWAP:
                phases[one.fix] = SwapOff(node)
            case Fix.KERNEL:
                phases[one.fix] = Kernel(node, [*wanted_modules(spec)])
            case Fix.SELINUX:
                phases[one.fix] = SelinuxPermissive(node)
            case Fix.FIREWALL:
                phases[one.fix] = FirewallOpen(node, one.firewall, openings(spec, node.name, addresses))
    return {name: list(phases.values()) for name, phases in work.items()}


async def _mend(phases: Sequence[Phase], events: Events, report: FleetReport) -> None:
    for phase in phases:
        report.changes += await phase.run(events)
