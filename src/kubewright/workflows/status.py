"""`kubewright status`: everybody who can say how a cluster is, asked at once, each with a bounded time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, TypeVar, cast

from kubewright.clients.kube import KubeClient
from kubewright.clients.paths import Object
from kubewright.clients.server import Server
from kubewright.errors import ApiError, ExitCode, HostError, KubewrightError, leaves
from kubewright.model.node import API_PORT, host_port, is_address
from kubewright.model.objects import SYSTEM
from kubewright.model.status import NodeStatus, Seen, node_status, sort_nodes
from kubewright.model.status_api import HERE, ApiAnswer, api_status
from kubewright.model.status_etcd import ListedMember, MemberAnswer
from kubewright.model.status_hosts import host_problems
from kubewright.model.status_look import ADMIN_CONF
from kubewright.model.status_report import Facts, StatusReport, report
from kubewright.workflows.status_ask import ask_api

if TYPE_CHECKING:
    from kubewright.model.config.cluster import ClusterSpec
    from kubewright.workflows.status_host import HostRead, HostSource

T = TypeVar("T")

_OBJECTS, _OBJECTS_UNREADY = 20.0, 3.0
"""Seconds in which an API server must have listed the cluster's objects, when it is ready and when it is not."""


class StatusReader:
    """All sources of one cluster, kept open from one read to the next. Use it as an asynchronous context manager.

    `servers` are the API as it is known here. With `spec`, the hosts of a cluster.yaml are asked, too, so that
    neither an API nor all of the hosts need to answer; `hosts` are those to ask in place of the spec's. With
    `config_maps`, those of kube-system are read as well, and by whom the API, cluster DNS and Pods are reached
    (Services, network policies). `within` are the seconds that objects may take.
    """

    def __init__(
        self,
        servers: Sequence[Server],
        spec: ClusterSpec | None = None,
        *,
        hosts: Sequence[HostSource] | None = None,
        config_maps: bool = False,
        within: float | None = None,
    ) -> None:
        self._here = [KubeClient(server) for server in servers]
        own = [] if spec is None else _sources(spec)
        self._hosts = own if hosts is None else [*hosts]
        self._config_maps = config_maps
        self._within = within
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> StatusReader:
        for kube in self._here:
            await self._stack.enter_async_context(kube)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()
        async with asyncio.TaskGroup() as group:
            for source in self._hosts:
                group.create_task(source.close())

    async def read(self) -> StatusReport:
        """One look. Raises `KubewrightError` only where nobody at all can say anything about the cluster."""
        return report(await self._gather(refuse=True))

    async def facts(self, *, again: bool = False) -> Facts:
        """One look as the facts that a report is made of, also where nobody answers. Raises nothing.

        With `again`, hosts that were silent in the last look are not waited for as long.
        """
        return await self._gather(refuse=False, again=again)

    async def _gather(self, *, refuse: bool, again: bool = False) -> Facts:
        now = datetime.now(UTC)
        race = _Race(len(self._here) + len(self._hosts), self._within or _OBJECTS)
        async with asyncio.TaskGroup() as group:
            here = [group.create_task(self._ask_here(kube, race)) for kube in self._here]
            hosts = [group.create_task(source.read(race.enter, again=again)) for source in self._hosts]
            objects = group.create_task(_objects(race, now, config_maps=self._config_maps))
            # What can only be asked when all hosts have spoken does not wait for the objects.
            later = group.create_task(self._ask_later(hosts))
        reads = [task.result() for task in hosts]
        answers = [task.result() for task in here]
        found = objects.result()
        if refuse and found.seen is None:
            _refuse_if_silent(found.error, [error for _, error in answers if error], reads)
        facts = Facts(
            found.seen.now if found.seen else now, found.seen,
            "" if found.error is None else found.error.message, found.leases,
            endpoint=_one_each([answer for answer, _ in answers]), config_maps=found.config_maps,
            services=found.services, endpoints=found.endpoints, policies=found.policies,
        )  # fmt: skip
        return self._with_hosts(facts, reads, later.result()) if reads else facts

    async def _ask_here(self, kube: KubeClient, race: _Race) -> tuple[ApiAnswer, KubewrightError | None]:
        answer, error = await ask_api(kube, HERE)
        race.enter(kube if error is None else None, answer)
        return answer, error

    async def _ask_later(
        self, hosts: Sequence[asyncio.Task[HostRead]]
    ) -> tuple[list[MemberAnswer], list[ApiAnswer]]:
        """Members of etcd and API servers on hosts that say nothing, asked over others and from here."""
        reads = [await task for task in hosts]
        async with asyncio.TaskGroup() as group:
            more = group.create_task(self._ask_other_members(self._members(reads), reads))
            silent = [
                group.create_task(self._ask_from_here(source, reads))
                for source, read in zip(self._hosts, reads, strict=True)
                if source.is_control_plane and not read.status.answers
            ]
        return more.result(), [task.result() for task in silent]

    def _with_hosts(
        self, facts: Facts, reads: Sequence[HostRead], later: tuple[list[MemberAnswer], list[ApiAnswer]]
    ) -> Facts:
        """The facts with what the hosts said, and with what was asked in their place."""
        more, silent = later
        servers = {read.server.name: read.server for read in reads if read.server}
        servers |= {answer.name: answer for answer in silent}
        own = {server.url for server in servers.values()}
        return replace(
            facts,
            servers=[servers[read.status.name] for read in reads if read.status.name in servers],
            # A kubeconfig here may name one API server, which its own host has been asked about.
            endpoint=[
                *(answer for answer in facts.endpoint if answer.url not in own),
                *(read.endpoint for read in reads if read.endpoint),
            ],
            etcd=_each_once([*self._members(reads), *more]),
            external_etcd=any(read.look and read.look.etcd and read.look.etcd.external for read in reads)
            or any(source.is_etcd_host for source in self._hosts),
            proxies=[proxy for read in reads for proxy in read.proxies],
            certs=[cert for read in reads for cert in read.certs],
            hosts=[read.status for read in reads],
        )

    def _members(self, reads: Sequence[HostRead]) -> list[MemberAnswer]:
        """What members said: those with hosts of their own on these, unless none of them lets us in."""
        own = [
            answer
            for source, read in zip(self._hosts, reads, strict=True)
            if source.is_etcd_host
            for answer in read.etcd
        ]
        return own or [answer for read in reads for answer in read.etcd]

    async def _ask_other_members(
        self, answers: Sequence[MemberAnswer], reads: Sequence[HostRead]
    ) -> list[MemberAnswer]:
        """Members on hosts that have not answered, asked over one that has."""
        heard = {answer.words.id for answer in answers if answer.words}
        tried = {answer.where for answer in answers}
        others: dict[int, ListedMember] = {
            one.id: one
            for answer in answers
            for one in answer.listed
            if one.id not in heard and one.name not in tried and not tried & {*one.client_urls}
        }
        names = {answer.where for answer in answers if answer.words}
        for source, read in zip(self._hosts, reads, strict=True):
            external = bool(read.look and read.look.etcd and read.look.etcd.external)
            if others and read.status.answers and read.etcd and (external or source.name in names):
                return await source.ask_others([*others.values()])
        return []

    async def _ask_from_here(self, source: HostSource, reads: Sequence[HostRead]) -> ApiAnswer:
        """The API server of a host that does not let us in, asked without it."""
        from kubewright.workflows.status_host import at

        known = [kube.server for kube in self._here]
        known += [read.credentials for read in reads if read.credentials]
        url = f"https://{host_port(source.address, API_PORT)}"
        # A name of SSH's need not stand in the certificate.
        name = "" if is_address(source.address) else "kubernetes"
        if not known:
            return ApiAnswer(source.name, url, error="nobody has told us by which CA to know it")
        async with KubeClient(at(known[0], url, name=name)) as kube:
            return (await ask_api(kube, source.name))[0]


async def read_nodes(kube: KubeClient) -> tuple[NodeStatus, ...]:
    """The nodes alone, control planes first."""
    now = datetime.now(UTC)
    return sort_nodes(node_status(node, now) for node in await kube.list("v1", "Node"))


def _sources(spec: ClusterSpec) -> list[HostSource]:
    """The hosts to ask: control planes, and whoever runs a load balancer or an etcd of ours."""
    from kubewright.hosts.open import open_host
    from kubewright.model.config.endpoint import endpoint_hosts
    from kubewright.model.pki import certificates_dir
    from kubewright.workflows.status_host import HostSource
    from kubewright.workflows.status_parts import Wanted, wanted_of

    pki = certificates_dir(spec.cluster_configuration)
    balancing = {host.name for host in endpoint_hosts(spec)}
    wanted = wanted_of(spec)
    return [
        HostSource(
            host, partial(open_host, host, spec.ssh), pki, wanted if host.name in balancing else Wanted()
        )
        for host in spec.hosts
        if host.is_control_plane or host.name in balancing or host in spec.etcd_hosts
    ]


class _Race:
    """Which API server is asked for the cluster's objects: the first that is ready, else any that answers."""

    def __init__(self, entrants: int, within: float) -> None:
        self._missing = entrants
        self._within = within
        self._answered: list[KubeClient] = []
        self._winner: asyncio.Future[tuple[KubeClient | None, float]] = (
            asyncio.get_running_loop().create_future()
        )

    def enter(self, kube: KubeClient | None, answer: ApiAnswer | None) -> None:
        """One entrant's result; None where it does not answer, or nothing can be read there."""
        self._missing -= 1
        if kube is not None and answer is not None and answer.milliseconds is not None:
            self._answered.append(kube)
            if not self._winner.done() and api_status(answer).ready:
                self._winner.set_result((kube, self._within))
        if not self._missing and not self._winner.done():
            self._winner.set_result((next(iter(self._answered), None), _OBJECTS_UNREADY))

    async def winner(self) -> tuple[KubeClient | None, float]:
        """Whom to ask, and for how long, in seconds; None where nobody answers. It comes when all have entered at
        the latest."""
        return await self._winner


@dataclass(frozen=True, slots=True)
class _Found:
    """The cluster's objects, or why they could not be read (None: nobody answers)."""

    seen: Seen | None = None
    leases: Sequence[Object] = ()
    error: KubewrightError | None = None
    config_maps: Sequence[Object] = ()
    services: Sequence[Object] = ()
    endpoints: Sequence[Object] = ()
    policies: Sequence[Object] = ()


async def _objects(race: _Race, now: datetime, *, config_maps: bool) -> _Found:
    kube, patience = await race.winner()
    if kube is None:
        return _Found()
    try:
        async with asyncio.timeout(patience), asyncio.TaskGroup() as group:
            version = group.create_task(kube.json("GET", "/version"))
            readyz = group.create_task(_or(kube.readyz(), ""))
            nodes = group.create_task(kube.list("v1", "Node"))
            pods = group.create_task(kube.list("v1", "Pod"))
            daemon_sets = group.create_task(kube.list("apps/v1", "DaemonSet", SYSTEM))
            deployments = group.create_task(kube.list("apps/v1", "Deployment", SYSTEM))
            leases = group.create_task(
                _or(kube.list("coordination.k8s.io/v1", "Lease", SYSTEM), list[Object]())
            )
            maps = (
                group.create_task(_or(kube.list("v1", "ConfigMap", SYSTEM), list[Object]()))
                if config_maps
                else None
            )
            more = group.create_task(_ways(kube)) if config_maps else None
    except TimeoutError:
        return _Found(
            error=ApiError(f"{kube.server.url} has not listed nodes and pods within {patience:g} s")
        )
    except ExceptionGroup as group_error:
        errors = leaves(group_error)
        if not all(isinstance(error, KubewrightError) for error in errors):
            raise
        return _Found(error=cast("KubewrightError", errors[0]))
    # Leases and ages are by the cluster's clock, which need not be ours.
    seen = Seen(
        server=kube.server.url, version=str(version.result().get("gitVersion", "")), now=kube.said_at or now,
        readyz=readyz.result(), nodes=nodes.result(), pods=pods.result(), daemon_sets=daemon_sets.result(),
        deployments=deployments.result(),
    )  # fmt: skip
    services, endpoints, policies = more.result() if more else ((), (), ())
    return _Found(
        seen, leases.result(), None, maps.result() if maps else (), services, endpoints, policies
    )  # fmt: skip


async def _ways(kube: KubeClient) -> tuple[Sequence[Object], Sequence[Object], Sequence[Object]]:
    """The Services of the API and of cluster DNS, their endpoints, and all network policies.

    Nothing where the policies cannot be read: without them it is not known who may reach whom.
    """
    names = (("kubernetes", "default"), ("kube-dns", SYSTEM))
    try:
        async with asyncio.TaskGroup() as group:
            policies = group.create_task(kube.list("networking.k8s.io/v1", "NetworkPolicy"))
            found = {
                kind: [group.create_task(kube.get("v1", kind, *name)) for name in names]
                for kind in ("Service", "Endpoints")
            }
    except ExceptionGroup as error:
        if all(isinstance(one, KubewrightError) for one in leaves(error)):
            return (), (), ()
        raise
    services, endpoints = (
        [one for task in found[kind] if (one := task.result()) is not None]
        for kind in ("Service", "Endpoints")
    )
    return services, endpoints, policies.result()


async def _or(question: Awaitable[T], nothing: T) -> T:
    """The answer; `nothing` for a user who may not see it."""
    try:
        return await question
    except ApiError as error:
        if error.status in (401, 403):
            return nothing
        raise


def _one_each(answers: Sequence[ApiAnswer]) -> list[ApiAnswer]:
    """One answer of each address: several kubeconfigs here may name it, of which one may be old."""
    best = {answer.url: answer for answer in answers}
    return [*(best | {answer.url: answer for answer in answers if not answer.error}).values()]


def _each_once(answers: Sequence[MemberAnswer]) -> list[MemberAnswer]:
    """One answer of each member, a good one if there is any: an external etcd is asked by every control plane."""
    best: dict[str, MemberAnswer] = {}
    for answer in answers:
        if answer.where not in best or (best[answer.where].words is None and answer.words is not None):
            best[answer.where] = answer
    return [*best.values()]


def _refuse_if_silent(
    objects: KubewrightError | None, here: Sequence[KubewrightError], reads: Sequence[HostRead]
) -> None:
    """Raise where neither an API server nor a control plane or etcd's host says anything about the cluster."""
    if any(read.status.joined and read.look and (read.look.node or read.look.etcd) for read in reads):
        return
    if objects is not None:
        raise objects
    reached = [read.status for read in reads if read.status.answers and read.status.control_plane]
    if reached:
        name = reached[0].name
        raise HostError(
            f"{name}: there is no {ADMIN_CONF}: no cluster has been made here yet", host=name,
            hint="kubewright apply -f FILE makes it", exit_code=ExitCode.FAILURE,
        )  # fmt: skip
    errors = [read.error for read in reads if read.error and read.status.control_plane]
    error = next(iter([*errors, *here]), ApiError("nobody answers who could say how the cluster is"))
    error.evidence = (*error.evidence, *host_problems([read.status for read in reads]))
    raise error
