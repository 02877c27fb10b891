"""`node remove`: one Node of a cluster.yaml's cluster leaves, whether the file still names it or not."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field

from kubewright.clients.kube import KubeClient
from kubewright.errors import ApiError, ExitCode, HostError, KubewrightError
from kubewright.events import Events
from kubewright.hosts.open import open_host
from kubewright.model import preflight, stored
from kubewright.model.config.cluster import ClusterSpec, HostSpec
from kubewright.model.config.kubeadm import ClusterConfiguration
from kubewright.model.kept import Kept
from kubewright.model.loadbalancer import Backend
from kubewright.model.node import API_PORT
from kubewright.model.objects import SYSTEM, Object
from kubewright.model.pki import CA
from kubewright.model.status import is_plane
from kubewright.phases.etcd import member_names
from kubewright.phases.node import Node
from kubewright.phases.phase import Change, Phase
from kubewright.workflows.any_plane import any_plane
from kubewright.workflows.endpoint import Endpoint
from kubewright.workflows.join_desired import cluster_configuration
from kubewright.workflows.remove import DrainOptions, Removal, Staying
from kubewright.workflows.strays import open_stray


@dataclass
class Outcome:
    """What a run did, or would do."""

    name: str
    changes: list[Change] = field(default_factory=list)
    in_file: bool = False
    """Whether cluster.yaml still names it: the next `apply` would make it anew."""
    control_planes: int = 0
    """How many are left, with their members of etcd."""
    host_reset: bool = False
    kept: list[Kept] = field(default_factory=list)
    """What the host's reset leaves, and why."""
    kubeconfig_may_name_it: bool = False
    """Whether kubeconfigs lead to a control plane's own address, which may be this one's."""


async def remove_node(
    spec: ClusterSpec,
    name: str,
    events: Events,
    *,
    options: DrainOptions | None = None,
    gone: bool = False,
    dry: bool = False,
) -> Outcome:
    """Take a Node out of the cluster of `spec`. With `gone` its host is not looked for; `dry` only looks.

    Raises `KubewrightError` before anything is changed where it must not leave.
    """
    title = f"remove Node {name}"
    async with events.workflow("node-remove", title) as activity, AsyncExitStack() as stack:
        hosts = await _open(spec, name if gone else "", stack, events)
        outcome = await _remove(spec, name, events, hosts, options, gone, dry)
        count = len(outcome.changes)
        activity.data["kept"] = [kept.as_dict() for kept in outcome.kept]
        activity.summary(f"Node {name}: {count} changes" if count else f"Node {name}: nothing to do")
    return outcome


async def _remove(
    spec: ClusterSpec, name: str, events: Events, hosts: dict[str, Node], options: DrainOptions | None,
    gone: bool, dry: bool,
) -> Outcome:  # fmt: skip
    outcome = Outcome(name, in_file=any(host.name == name for host in spec.hosts))

    async def do(phase: Phase) -> Sequence[Change]:
        changes = await (phase.look() if dry else phase.run(events))
        outcome.changes += changes
        return changes

    planes = [node for node in hosts.values() if node.is_control_plane and node.name != name]
    async with any_plane(planes) as (through, kube, failures):
        if through is None or kube is None:
            raise _nobody(name, planes, failures)
        live = await kube.get("v1", "Node", name)
        config = await kube.get("v1", "ConfigMap", stored.KUBEADM_CONFIG, SYSTEM)
        cluster = cluster_configuration(config)
        rows = stored.cluster_status_in(config).get("apiEndpoints") or {}
        known = live is not None or outcome.in_file or name in rows
        if not known and not await _is_member(name, through, kube, cluster):
            raise await _unknown(kube, name)
        rest = spec.model_copy(update={"hosts": [host for host in spec.hosts if host.name != name]})
        endpoint = Endpoint(rest, [node for node in hosts.values() if node.name != name], do)
        ca = await through.host.read_file(CA.cert_path(cluster.certificates_dir))

        async def without(_name: str) -> None:
            if ca is not None:
                await endpoint.ensure(await _backends(kube, planes), ca)

        asked_first = [through, *(node for node in planes if node is not through)]
        stay = Staying(kube, asked_first, cluster, events, do, without)
        async with _host_of(spec, name, live, hosts, gone) as (host, why):
            if host is None:
                events.warn(f"Node {name} is taken out of the cluster, and its host is not reset: {why}")
            outcome.host_reset = host is not None
            local = spec.endpoint is not None and spec.endpoint.type == "local"
            outcome.kubeconfig_may_name_it = local and live is not None and is_plane(live)
            removal = Removal(stay, name, host, options, dead=gone)
            await removal.run()
            outcome.kept = removal.kept
        outcome.control_planes = sum(map(is_plane, await kube.list("v1", "Node")))
    return outcome


async def _open(spec: ClusterSpec, left_out: str, stack: AsyncExitStack, events: Events) -> dict[str, Node]:
    """All hosts that can be reached. Nothing is asked of them but to be there."""
    found: dict[str, Node] = {}

    async def one(item: HostSpec) -> None:
        host = await stack.enter_async_context(open_host(item, spec.ssh))
        try:
            facts = await host.facts()
        except HostError as error:
            events.warn(error.message, host=item.name)
            return
        found[item.name] = Node(item, host, facts, preflight.node_ip(item, facts))

    async with asyncio.TaskGroup() as group:
        for item in spec.hosts:
            if item.name != left_out:
                group.create_task(one(item))
    return {item.name: found[item.name] for item in spec.hosts if item.name in found}


@asynccontextmanager
async def _host_of(
    spec: ClusterSpec, name: str, live: Object | None, hosts: dict[str, Node], gone: bool
) -> AsyncIterator[tuple[Node | None, str]]:
    """The host of the Node, by the file or its annotation; None, and why, where there is none to reach."""
    if gone:
        yield None, "it is gone, as --gone says"
    elif name in hosts:
        yield hosts[name], ""
    elif any(host.name == name for host in spec.hosts):
        yield None, "it cannot be reached"
    elif live is None:
        yield None, "nothing says where it is"
    else:
        async with open_stray(live, spec) as found:
            yield found


async def _backends(kube: KubeClient, planes: Sequence[Node]) -> list[Backend]:
    """The API servers behind the endpoint: those of the file's control planes that are Nodes, in its order."""
    names = {node["metadata"]["name"] for node in await kube.list("v1", "Node")}
    return [Backend(node.name, node.ip, API_PORT) for node in planes if node.name in names]


def _nobody(name: str, planes: Sequence[Node], failures: Sequence[str]) -> KubewrightError:
    if not planes:
        return KubewrightError(
            f"{name}: no other control plane can be reached, and without it there is no cluster",
            host=name, exit_code=ExitCode.HOST_NOT_FIT,
            hint="add another control plane first, or bring one back",
        )  # fmt: skip
    error = ApiError(
        f"no other control plane than {name} serves: nothing has been changed",
        hint="etcd needs a majority of its members: bring one of these back first",
    )
    error.evidence = tuple(failures)
    return error


async def _is_member(name: str, through: Node, kube: KubeClient, cluster: ClusterConfiguration) -> bool:
    """Whether a control plane's etcd has a member of this name: it outlives a Node that somebody has deleted."""
    if cluster.etcd.external is not None:
        return False
    return name in await member_names(through.host, kube, cluster.certificates_dir)


async def _unknown(kube: KubeClient, name: str) -> KubewrightError:
    names = sorted(node["metadata"]["name"] for node in await kube.list("v1", "Node"))
    return KubewrightError(
        f"the cluster has no Node {name!r} and nothing left of one, and cluster.yaml no host of that name",
        hint=f"its Nodes: {', '.join(names)}", exit_code=ExitCode.USAGE,
    )  # fmt: skip
