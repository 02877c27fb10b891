"""Preflight of a fleet beyond the facts: a look at each host, the clocks, and ports probed between hosts."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

from kubewright.errors import KubewrightError
from kubewright.hosts import Host
from kubewright.model.clocks import Reading, clock_findings
from kubewright.model.config.cluster import ClusterSpec
from kubewright.model.fleet_checks import (
    SETTINGS,
    check_between,
    check_new_host,
    check_settings,
    is_new,
    node_checks,
)
from kubewright.model.fleet_look import FLEET_LOOK, FleetLook, parse_fleet_look
from kubewright.model.fleet_ports import NODE_PORTS, Filter, Way, closed, reach_findings, ways
from kubewright.model.node_look import NodeLook
from kubewright.model.packet_filter import RULES
from kubewright.model.port_probe import Answer, without_ours
from kubewright.model.preflight import Belonging, Finding
from kubewright.model.versions import facts_for
from kubewright.phases.node import Node
from kubewright.phases.port_probe import Listener, connect, listening
from kubewright.workflows.preflight import look_at

LENIENT = frozenset({"nodeports"})
"""Checks whose errors a conversion only warns of, `ignored_checks(...)`: its cluster serves as it is."""
_AT_ONCE = 100
"""Hosts that are looked at at the same time."""


@dataclass(frozen=True, slots=True)
class _Seen:
    """What was found on one host."""

    look: NodeLook
    more: FleetLook
    new: bool


async def inspect_fleet(
    spec: ClusterSpec,
    nodes: Sequence[Node],
    belonging: Mapping[str, Belonging],
    *,
    whole: bool = False,
    only: Collection[str] = (),
) -> list[Finding]:
    """Look at all hosts and between them; nothing is changed, and nobody is told.

    `nodes` are the hosts that can be reached. With `whole`, hosts that are in the cluster are probed among each
    other, too, and kernel settings are told that `apply` would set; else only what concerns a new host. With
    `only`, only ways to and from these hosts are probed.
    """
    if not whole and not any(_may_be_new(belonging[node.name]) for node in nodes):
        return []
    seen, clocks = await _look(spec, nodes, belonging)
    new = {name for name, one in seen.items() if one.new}
    version = facts_for(spec.kubernetes_version)
    findings = []
    for node in nodes:
        one = seen[node.name]
        if one.new:
            findings += check_new_host(spec, node.spec, node.facts, version, one.look, one.more)
        if whole:
            findings += check_settings(spec, node.spec, one.look, one.more)
    if new or whole:
        hostnames = {node.name: node.facts.hostname for node in nodes}
        findings += check_between(hostnames, {node.name: node.ip for node in nodes}, new)
        findings += clock_findings(clocks)
    unique = len({node.ip for node in nodes}) == len(nodes)
    wanted = [
        way
        for way in ways(spec)
        if (whole or {way.user, way.target} & new) and (not only or {way.user, way.target} & {*only})
    ]
    if wanted and unique:
        findings += await _probe(wanted, nodes, seen)
    return findings


def _may_be_new(belonging: Belonging) -> bool:
    """By what is known without a look: hosts that are no Nodes tell only then."""
    return not belonging.kubeconfigs and not belonging.manifests


async def _look(
    spec: ClusterSpec, nodes: Sequence[Node], belonging: Mapping[str, Belonging]
) -> tuple[dict[str, _Seen], dict[str, Reading]]:
    from kubewright.clients.cri import SOCKETS

    version = facts_for(spec.kubernetes_version)
    turns = asyncio.Semaphore(_AT_ONCE)
    clocks = await _clocks(nodes, turns)

    async def one(node: Node) -> _Seen:
        async with turns, asyncio.TaskGroup() as group:
            look = group.create_task(look_at(node.host, node_checks(spec, node.spec, version)))
            more = group.create_task(
                node.host.shell(FLEET_LOOK, " ".join(SOCKETS), " ".join(SETTINGS), check=False)
            )
        found = replace(look.result(), listening=without_ours(look.result().listening))
        return _Seen(
            found,
            parse_fleet_look(more.result().stdout.decode(errors="replace")),
            is_new(belonging[node.name], found),
        )

    async with asyncio.TaskGroup() as group:
        looks = {node.name: group.create_task(one(node)) for node in nodes}
    return {name: task.result() for name, task in looks.items()}, clocks


async def _clocks(nodes: Sequence[Node], turns: asyncio.Semaphore) -> dict[str, Reading]:
    """All clocks, read at once. A host that does not tell is left out."""

    async def read(host: Host) -> Reading | None:
        async with turns:
            before, started = time.time(), time.monotonic()
            try:
                said = float((await host.run(["date", "+%s.%N"], check=False, timeout=30)).text)
            except (KubewrightError, ValueError):
                return None
            return Reading(said, before, before + time.monotonic() - started)

    async with asyncio.TaskGroup() as group:
        tasks = {node.name: group.create_task(read(node.host)) for node in nodes}
    return {name: reading for name, task in tasks.items() if (reading := task.result()) is not None}


async def _probe(wanted: Sequence[Way], nodes: Sequence[Node], seen: Mapping[str, _Seen]) -> list[Finding]:
    """Try the ways. Where nobody listens yet, and only on new hosts, we do for that moment.

    A port of a host in the cluster is never taken: its own program may start just then.
    """
    there = {node.name: node for node in nodes}
    tried = [
        way for way in wanted if way.user in there and way.target in there and _tells(way, seen[way.target])
    ]
    ports: dict[str, set[int]] = {}
    for way in tried:
        if seen[way.target].new:
            ports.setdefault(way.target, set()).add(way.port)
    users: dict[str, set[tuple[str, int]]] = {}
    for way in tried:
        users.setdefault(way.user, set()).add((there[way.target].ip, way.port))
    async with listening(
        {name: (there[name].host, there[name].ip, found) for name, found in ports.items()}
    ) as heard:
        found = await connect({name: (there[name].host, targets) for name, targets in users.items()})
    answers = {
        way: answer
        for way in tried
        if (answer := found.get(way.user, {}).get((there[way.target].ip, way.port))) is not None
    }
    shut = closed(tried, answers, {name: one.ports for name, one in heard.items()})
    rules = await _rules({way.target: there[way.target] for way in shut})
    filters = {name: Filter(seen[name].more.firewall, found) for name, found in rules.items()}
    return [
        *_unheard(heard),
        *reach_findings(answers, shut, filters, {name: node.ip for name, node in there.items()}),
        *_silent_users(users, found),
    ]


async def _rules(targets: Mapping[str, Node]) -> dict[str, str]:
    """The rules of hosts' own packet filters. They are only asked for where something is closed: to list rules may
    load modules of the kernel."""
    turns = asyncio.Semaphore(_AT_ONCE)

    async def ask(host: Host) -> str:
        async with turns:
            try:
                return (await host.shell(RULES, check=False)).text
            except KubewrightError:
                return ""

    async with asyncio.TaskGroup() as group:
        tasks = {name: group.create_task(ask(node.host)) for name, node in targets.items()}
    return {name: task.result() for name, task in tasks.items()}


def _tells(way: Way, target: _Seen) -> bool:
    """Whether a connection would tell something: not where somebody else has the port, which is a finding by
    itself, nor of NodePorts in a cluster, which belong to its Services."""
    if target.new:
        return way.port not in target.look.listening
    return way.port not in NODE_PORTS


def _unheard(listeners: Mapping[str, Listener]) -> list[Finding]:
    return [
        Finding(
            name, "its ports could not be tried: no program of ours could listen there",
            "other hosts must reach its ports, which docs/preflight.md lists", check="PortReach", error=False,
            evidence=(one.trouble,),
        )
        for name, one in listeners.items()
        if one.trouble
    ]  # fmt: skip


def _silent_users(
    users: Mapping[str, Collection[tuple[str, int]]], found: Mapping[str, Mapping[tuple[str, int], Answer]]
) -> list[Finding]:
    return [
        Finding(
            name, "the ways from it to other hosts could not be tried", "it must have perl", check="PortReach",
            error=False,
        )
        for name in users
        if name not in found
    ]  # fmt: skip
