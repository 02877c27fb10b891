"""What is looked at on the hosts to which a cluster's etcd is to move, and on the ways to them and back."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

from kubewright.errors import KubewrightError, leaves
from kubewright.model import etcd_moves, pki
from kubewright.model.config.cluster import Role
from kubewright.model.config.kubeadm_types import ClusterConfiguration
from kubewright.model.convert_look import HostSeen
from kubewright.model.etcd_hosts import PORTS
from kubewright.model.node import host_port
from kubewright.model.preflight import Finding
from kubewright.model.status_etcd import MemberAnswer
from kubewright.model.versions import facts_for
from kubewright.phases.etcd_hosts import look_at
from kubewright.phases.etcd_move import closed_ways
from kubewright.phases.node import Node


async def etcd_host_findings(
    nodes: Sequence[Node],
    planes: Sequence[Node],
    etcd: Sequence[MemberAnswer],
    wanted: ClusterConfiguration,
    seen: Mapping[str, HostSeen],
    *,
    reached: bool,
) -> list[Finding]:
    """All that stands in the way. `nodes` are all hosts, `planes` the control planes with an etcd of their own;
    `reached` says whether that serves others already, so that the hosts must get to it."""
    hosts = [node for node in nodes if Role.ETCD in node.spec.roles]
    try:
        async with asyncio.TaskGroup() as group:
            looks = [group.create_task(look_at(node)) for node in hosts]
            ways = [
                group.create_task(_ways(node, hosts, planes, reached=reached)) for node in (*hosts, *planes)
            ]
            foreign = group.create_task(_other_ca(hosts, planes, wanted.certificates_dir))
    except* KubewrightError as errors:
        failed = [one for one in leaves(errors) if isinstance(one, KubewrightError)]
    else:
        failed = []
    if failed:
        return [Finding(one.host or "etcd", one.message, one.hint, one.exit_code) for one in failed]
    found = [task.result() for task in looks]
    fresh = [look.name for look in found if not look.has_data]
    rooms = {name: room for name in fresh if name in seen and (room := seen[name].room) is not None}
    return [
        *etcd_moves.host_findings(found, etcd, other_ca=foreign.result()),
        *etcd_moves.etcd_findings(etcd, facts_for(wanted.kubernetes_version), rooms),
        *(one for task in ways for one in task.result()),
    ]  # fmt: skip


async def _ways(node: Node, hosts: Sequence[Node], planes: Sequence[Node], *, reached: bool) -> list[Finding]:
    """Whether one of them gets to all others that it will talk with."""
    others = [*hosts, *(planes if reached else [])] if node in hosts else list(hosts)
    places = [(other.ip, port) for other in others if other is not node for port in PORTS]
    names = {
        f"{other.ip} {port}": f"{other.name} ({host_port(other.ip, port)})"
        for other in others
        for port in PORTS
    }
    found = []
    for line in await closed_ways(node.host, places):
        place, _, why = line.partition(": ")
        found.append(
            Finding(
                node.name, f"it cannot reach {names.get(place, place)}: {why}",
                "let control planes and etcd's hosts reach each other on TCP ports 2379 and 2380",
            )
        )  # fmt: skip
    return found


async def _other_ca(hosts: Sequence[Node], planes: Sequence[Node], directory: str) -> list[str]:
    """The hosts that have another CA for etcd than the cluster."""
    path = pki.ETCD_CA.cert_path(directory)
    async with asyncio.TaskGroup() as group:
        tasks = {node.name: group.create_task(node.host.read_file(path)) for node in (*planes, *hosts)}
    have = {name: (task.result() or b"").strip() for name, task in tasks.items()}
    known = {have[node.name] for node in planes if have[node.name]}
    return [node.name for node in hosts if known and have[node.name] and have[node.name] not in known]
