"""`apply`: from hosts and a specification to a cluster, or from a cluster to one that fits its specification."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection
from contextlib import suppress
from functools import partial
from pathlib import Path

from kubewright.components.open import open_source
from kubewright.errors import HostError, KubewrightError
from kubewright.events import Events
from kubewright.model import pki
from kubewright.model.config.cluster import ClusterSpec
from kubewright.phases.node import Node
from kubewright.workflows.apply_cluster import Cluster
from kubewright.workflows.apply_control_plane import ControlPlanes
from kubewright.workflows.apply_run import ApplyRun, Outcome
from kubewright.workflows.apply_strays import clear_the_way
from kubewright.workflows.apply_worker import worker
from kubewright.workflows.desired import Desired
from kubewright.workflows.fleet import on_all, open_fleet, raise_all
from kubewright.workflows.inspect_fleet import inspect_fleet
from kubewright.workflows.lost_balancers import keep_lost

__all__ = ["Outcome", "apply", "plan"]


async def apply(
    spec: ClusterSpec,
    events: Events,
    *,
    kubeconfig_out: Path | None = None,
    merge_kubeconfig: bool = True,
    is_gone: Callable[[str], bool] = lambda _: False,
    ignored: Collection[str] = (),
) -> Outcome:
    """Make the cluster what `spec` says; a second run finds nothing to do.

    Nodes of which `is_gone` is true, by their names, are taken out of the cluster. Hosts of a cluster that cannot
    be reached are left out, and raised when all the others are done. `ignored` is `ignored_checks(...)`.

    The administrator's kubeconfig is written to `kubeconfig_out`, 0600, and merged as its own context into the
    user's where `merge_kubeconfig` says so. Raises `KubewrightError`, or a group of them, one a failed host.
    """
    async with events.workflow("apply", f"apply cluster {spec.name}") as activity:
        outcome = await _apply(spec, events, kubeconfig_out, merge_kubeconfig, is_gone, ignored, dry=False)
        activity.summary(
            f"cluster {spec.name}: {len(outcome.changes)} changes" if outcome.changes else
            f"cluster {spec.name}: nothing to do"
        )  # fmt: skip
        return outcome


async def plan(spec: ClusterSpec, events: Events, *, ignored: Collection[str] = ()) -> Outcome:
    """What `apply` would change on which host, found without changing anything."""
    async with events.workflow("plan", f"plan cluster {spec.name}"):
        return await _apply(spec, events, None, False, lambda _: False, ignored, dry=True)


async def _apply(
    spec: ClusterSpec,
    events: Events,
    out: Path | None,
    merge: bool,
    is_gone: Callable[[str], bool],
    ignored: Collection[str],
    *,
    dry: bool,
) -> Outcome:
    source = open_source(spec.source)
    want = await Desired.of(spec, source)
    said = want.cluster.control_plane_endpoint
    lost: dict[str, HostError] = {}
    url = f"https://{said}" if said else None
    inspect = partial(inspect_fleet, spec)
    async with open_fleet(spec, url, events, lost=lost, inspect=inspect, ignored=ignored) as hosts:
        spec, want = await keep_lost(spec, want, hosts)
        run = ApplyRun(spec, events, source, want, hosts, dry=dry)
        await _stages(run, out, merge, is_gone)
    raise_all(lost.values())
    return run.outcome


async def _stages(run: ApplyRun, out: Path | None, merge: bool, is_gone: Callable[[str], bool]) -> None:
    """All hosts at once, and then the cluster. Whoever must find out what is wrong needs the kubeconfig: it is
    handed over as soon as there is one, and also where a host has failed."""
    cluster = Cluster(run)
    planes = ControlPlanes(run, cluster)
    await planes.look()
    ca = await run.lead.host.read_file(pki.CA.cert_path(run.want.cluster.certificates_dir))
    await run.endpoint.check(run.lead, ca, must_answer=False)
    await run.etcd.check()
    await clear_the_way(run, is_gone)
    await run.fetch()
    work: dict[str, Awaitable[None]] = planes.work()
    for node in run.hosts:
        if node.name not in work:
            work[node.name] = worker(run, node) if node in run.nodes else _no_node(run, node)
    async with run.tunnel:
        try:
            await on_all(work)
        except (KubewrightError, ExceptionGroup):
            with suppress(KubewrightError):
                await cluster.hand_over(out, merge)
            raise
        else:
            await cluster.hand_over(out, merge)
            if run.api.exception() is None:
                await cluster.settle(is_gone)
        finally:
            await run.token.forget()


async def _no_node(run: ApplyRun, node: Node) -> None:
    """A host that becomes no Node: it has a proxy, a member of etcd, or both. The members of etcd are worked on
    together, for which the first of their hosts stands."""
    async with asyncio.TaskGroup() as group:
        group.create_task(run.proxy(node))
        if node in run.etcd.nodes[:1]:
            group.create_task(run.etcd.ensure(run.artifacts))
