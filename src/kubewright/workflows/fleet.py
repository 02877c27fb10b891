"""The hosts of a cluster in one run: connected, known, fit, and worked on at once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from urllib.parse import urlsplit

from kubewright.errors import ExitCode, HostError, KubewrightError, leaves
from kubewright.events import Events
from kubewright.hosts import Host
from kubewright.hosts.open import open_host
from kubewright.model import preflight, x509
from kubewright.model.config.cluster import ClusterSpec
from kubewright.model.config.endpoint import endpoint_address, endpoint_hosts
from kubewright.model.facts import HostFacts
from kubewright.model.kubeconfig import KUBELET_CLIENT_CURRENT
from kubewright.model.objects import read_mapping
from kubewright.model.pki import CA, certificates_dir
from kubewright.phases.node import Node

_KUBECONFIGS = tuple(
    f"/etc/kubernetes/{name}.conf"
    for name in ("admin", "kubelet", "bootstrap-kubelet", "controller-manager", "scheduler")
)
_MANIFESTS = tuple(f"/etc/kubernetes/manifests/{name}.yaml" for name in ("etcd", "kube-apiserver"))


Inspect = Callable[[list[Node], Mapping[str, preflight.Belonging]], Awaitable[list[preflight.Finding]]]
"""What else is looked at on the hosts, and what it found."""


class AbandonedError(Exception):
    """A host's work that cannot go on because another host failed; the other host's error tells why."""


async def on_all(work: Mapping[str, Awaitable[None]]) -> None:
    """Do the work of all hosts at once. One host's failure does not stop the others; all failures are raised.

    Raises the error itself where there is one, an `ExceptionGroup` of them where there are several.
    """
    failures: list[KubewrightError] = []

    async def guarded(name: str, task: Awaitable[None]) -> None:
        try:
            await task
        except AbandonedError:
            return
        except (KubewrightError, ExceptionGroup) as error:
            for leaf in leaves(error):
                if isinstance(leaf, AbandonedError):
                    continue
                if not isinstance(leaf, KubewrightError):
                    raise
                leaf.host = leaf.host or name
                if leaf not in failures:  # several hosts may have waited for the same thing
                    failures.append(leaf)

    async with asyncio.TaskGroup() as group:
        for name, task in work.items():
            group.create_task(guarded(name, task))
    raise_all(failures)


def raise_all(failures: Collection[KubewrightError]) -> None:
    """Raise the failure where there is one, an `ExceptionGroup` of them where there are several."""
    if len(failures) == 1:
        raise next(iter(failures))
    if failures:
        raise ExceptionGroup(f"{len(failures)} failures", list(failures))


@asynccontextmanager
async def open_fleet(
    spec: ClusterSpec,
    endpoint: str | None,
    events: Events,
    *,
    lost: dict[str, HostError] | None = None,
    moves: bool = False,
    inspect: Inspect | None = None,
    ignored: Collection[str] = (),
    told: list[preflight.Finding] | None = None,
) -> AsyncIterator[list[Node]]:
    """Connect to all hosts, look at them, and refuse those that are unfit, all findings at once.

    `endpoint` is the URL of the cluster's API where the file says it; else it follows from the hosts' addresses.
    With `lost`, hosts that cannot be reached are put there, by name, and left out, if one of the control planes
    has a cluster; a cluster that is not there yet is begun with all of its hosts. Where the API `moves` to another
    address, hosts may still name the one before. Nothing is changed on any host.

    What `inspect` finds is told with the rest; warnings are, too, and errors of checks that are `ignored`
    (`ignored_checks(...)`). With `told`, all findings are put there instead, and nothing is refused or warned of.
    """
    async with AsyncExitStack() as stack:
        hosts: dict[str, Host] = {}
        for item in spec.hosts:
            hosts[item.name] = await stack.enter_async_context(open_host(item, spec.ssh))
        facts: dict[str, HostFacts] = {}
        belonging: dict[str, preflight.Belonging] = {}
        own = CA.cert_path(certificates_dir(spec.cluster_configuration))
        # A worker that kubeadm has joined has it in kubeadm's place, wherever the control planes have theirs.
        ca_paths = {
            item.name: (own,) if item.is_control_plane else (own, CA.cert_path()) for item in spec.hosts
        }

        async def look(name: str, host: Host) -> None:
            try:
                await look_at(name, host)
            except KubewrightError as error:
                if told is not None:
                    told.append(preflight.Finding(name, error.message, error.hint, error.exit_code))
                elif (
                    lost is not None
                    and isinstance(error, HostError)
                    and error.exit_code is ExitCode.HOST_UNREACHABLE
                ):
                    lost[name] = error
                else:
                    raise

        async def look_at(name: str, host: Host) -> None:
            async with events.phase("connect", "connect and look", host=name) as activity:
                facts[name] = await host.facts()
                belonging[name] = await _belonging(host, ca_paths[name])
                activity.summary(f"{facts[name].os_name}, {facts[name].cpus} CPUs, {facts[name].arch}")

        try:
            await on_all({name: look(name, host) for name, host in hosts.items()})
        except (KubewrightError, ExceptionGroup) as error:  # then those that are lost are findings, too
            found = leaves(error)
            refused = [leaf for leaf in found if isinstance(leaf, KubewrightError)]
            if len(refused) == len(found):
                raise_all([*refused, *(lost or {}).values()])
            raise
        if lost and not any(
            belonging[host.name].manifests for host in spec.control_planes if host.name in facts
        ):
            raise_all(lost.values())
        nodes = [
            Node(item, hosts[item.name], facts[item.name], preflight.node_ip(item, facts[item.name]))
            for item in spec.hosts
            if item.name in facts
        ]
        async with events.phase("preflight", "check that the hosts are fit") as activity:
            first = next((node.ip for node in nodes if node.is_control_plane), spec.control_planes[0].address)
            said = {item.name: item.node_ip or item.address for item in spec.hosts}
            address = endpoint_address(spec, said | {node.name: node.ip for node in nodes})
            url = endpoint or (f"https://{address}" if address else f"https://{first}:6443")
            known = [(node.spec, belonging[node.name]) for node in nodes]
            if endpoint is None and any(host.name not in facts for host in endpoint_hosts(spec)[:1]):
                # The file may have that host's address for SSH alone. A control plane's own is no such endpoint.
                live = preflight.live_endpoint(spec, known)
                url = live if urlsplit(live).hostname not in {None, *(node.ip for node in nodes)} else url
            findings = [
                found for node in nodes for found in preflight.check_host(spec, node.spec, node.facts)
            ]
            findings += preflight.check_fleet({node.name: node.facts for node in nodes})
            if any(node.is_control_plane for node in nodes):  # without any, nobody knows whose the others are
                findings += preflight.check_belonging(spec, url, known, moves=moves)
            for node in nodes:
                # Once a host is a node, the routes into the pod subnet are the cluster's own.
                if node.spec.is_node and not belonging[node.name].kubeconfigs:
                    findings += preflight.foreign_routes(spec, node.spec, node.facts)
            if inspect is not None and nodes:
                activity.progress("look at new hosts, and try their ports from each other")
                findings += await inspect(nodes, belonging)
            findings = preflight.without_ignored(findings, ignored)
            if told is not None:
                told += findings
            else:
                for one in findings:
                    if not one.error:
                        events.warn(f"{one} ({one.hint})", host=one.host)
                preflight.refuse(findings, ignorable=inspect is not None and not moves)
        yield nodes


async def _belonging(host: Host, ca_paths: Sequence[str]) -> preflight.Belonging:
    """`ca_paths` are where its CA may be; the first that is there is it."""
    found = await host.read_files([*_KUBECONFIGS, *ca_paths, *_MANIFESTS, KUBELET_CLIENT_CURRENT])
    ca_path = next((path for path in ca_paths if path in found), ca_paths[0])
    kubeconfigs = {path: read_mapping(found[path]) or {} for path in _KUBECONFIGS if path in found}
    user = x509.common_name(found.get(KUBELET_CLIENT_CURRENT, b"")) if kubeconfigs else ""
    manifests = any(path in found for path in _MANIFESTS)
    return preflight.Belonging(found.get(ca_path), kubeconfigs, manifests, user, ca_path)
