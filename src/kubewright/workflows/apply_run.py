"""What the hosts of one `apply` share: what is wanted, how phases are run, and the API once it answers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from kubewright.clients.kube import KubeClient
from kubewright.clients.kubeconfig import Merged
from kubewright.clients.paths import Object
from kubewright.components.source import Artifact, Source, Want
from kubewright.errors import ApiError, WaitTimeoutError
from kubewright.events import Events
from kubewright.hosts import FileWrite
from kubewright.model.config.cluster import ClusterSpec
from kubewright.model.fleet_checks import wanted_modules
from kubewright.model.kubelet import CONTAINERD_SOCKET
from kubewright.model.loadbalancer import Backend
from kubewright.model.node_origin import HOST_ANNOTATION, Origin
from kubewright.model.pki import CA
from kubewright.model.x509 import KeyPair
from kubewright.phases.alive import reports_again
from kubewright.phases.controlplane import ApiServerReady
from kubewright.phases.install import Images, Programs
from kubewright.phases.kubelet import Kubelet
from kubewright.phases.kubelet_turns import KubeletTurns
from kubewright.phases.node import Node
from kubewright.phases.nodes import NodeMarks
from kubewright.phases.phase import Action, Change, Phase
from kubewright.phases.prepare import Kernel, Packages, Runtime
from kubewright.secret import Secret
from kubewright.workflows.any_plane import any_plane
from kubewright.workflows.desired import Artifacts, Desired
from kubewright.workflows.endpoint import Endpoint
from kubewright.workflows.etcd_hosts import OutsideEtcd
from kubewright.workflows.fleet import AbandonedError
from kubewright.workflows.run_token import RunToken

_REPORTS = 60.0
"""Seconds in which a kubelet that was restarted must have given a sign of life."""


@dataclass
class Outcome:
    """What a run did, or would do."""

    changes: list[Change] = field(default_factory=list)
    nodes: list[str] = field(default_factory=list)
    endpoint: str = ""
    kubeconfig: Path | None = None
    context: Merged | None = None


class ApplyRun:
    """One run over all hosts that can be reached."""

    def __init__(
        self,
        spec: ClusterSpec,
        events: Events,
        source: Source,
        want: Desired,
        hosts: Sequence[Node],
        *,
        dry: bool,
    ) -> None:
        """`hosts` are connected; those among them that become Nodes are `nodes`."""
        loop = asyncio.get_running_loop()
        self.spec = spec
        self.events = events
        self.dry = dry
        self.outcome = Outcome()
        self.hosts = list(hosts)
        self.nodes = [node for node in hosts if node.spec.is_node]
        self.planes = [node for node in self.nodes if node.is_control_plane]
        self.endpoint = Endpoint(spec, self.hosts, self.do)
        self.etcd = OutsideEtcd(
            want.with_endpoint(self.endpoint.address, self.endpoint.names),
            self.hosts,
            self.do,
            events,
            dry=dry,
        )
        self.lead = self.planes[0]
        """The control plane that has, or makes, the authorities."""
        self.outcome.nodes = [node.name for node in self.nodes]
        self.outcome.endpoint = self.want.endpoint(self.lead)
        self.shared: asyncio.Future[Mapping[str, Secret[bytes]]] = loop.create_future()
        """What control planes share, by path; empty in a plan for hosts without a cluster."""
        self.api: asyncio.Future[tuple[KubeClient, bytes]] = loop.create_future()
        """The API through the first control plane that answers, when its configuration is in it; and the CA."""
        self.tunnel = AsyncExitStack()
        self.admin: Object = {}
        self.token = RunToken(self.kube)
        self.joined: list[Node] = []
        """Workers that have become Nodes in this run."""
        self.imported = {node.name: asyncio.Event() for node in self.nodes}
        self._source = source
        self._artifacts = Artifacts(source, events)
        self.leaving: dict[str, Backend] = {}
        """Control planes that the file names no more, and that serve until they leave."""
        self._backends: dict[str, Backend] = {}
        self._changing_backends = asyncio.Lock()
        self._turns = KubeletTurns(events)

    @property
    def want(self) -> Desired:
        """What is wanted, as far as it is known by now."""
        return self.etcd.want

    async def kube(self) -> KubeClient:
        """The cluster's API, when it answers. Raises `AbandonedError` where it never will."""
        return (await asyncio.shield(self.api))[0]

    def give_up(self, *futures: asyncio.Future[Any]) -> None:
        """Let those who wait for any of these know that it will not come."""
        for future in futures:
            if not future.done():
                future.set_exception(AbandonedError())
                future.exception()  # seen: perhaps nobody asks for it

    async def fetch(self) -> None:
        """Bring the components of all nodes to this computer."""
        wants = []
        for node in self.nodes:
            first, rest = self.want.node_images(node)
            wants += [*self.want.programs(node), *first, *rest]
        wants += [want for node in self.hosts for want in self.etcd.programs(node)]
        if not self.dry:
            await self._artifacts.fetch(wants)
        elif not await self._artifacts.fetch_ready(wants):
            self.events.warn(
                f"source {self._source.name!r} has to make or download components first, which `apply` does: "
                "this plan leaves out programs and images"
            )

    def artifacts(self, wants: Sequence[Want]) -> list[Artifact]:
        """What `fetch` has brought for these."""
        return self._artifacts.of(wants)

    async def do(self, phase: Phase) -> Sequence[Change]:
        """Run a phase, or only look where this is a plan."""
        if self.dry:  # what is looked at twice has not become so in between
            changes = await phase.look()
            self.outcome.changes += [one for one in changes if one not in self.outcome.changes]
        else:
            changes = await phase.run(self.events)
            self.outcome.changes += changes
        return changes

    def has_updated(self, node: Node, path: str) -> bool:
        """Whether this run has changed a file that was on a host."""
        return any(
            (one.action, one.target, one.host) == (Action.UPDATE, path, node.name)
            for one in self.outcome.changes
        )

    # -- any host ---------------------------------------------------------------------------------------------

    async def prepare(self, node: Node) -> bool:
        """All that a kubelet needs on its host before it starts; whether its program is another than before."""
        driver = self.want.kubelet_config(self.lead).get("cgroupDriver", "cgroupfs")

        async def runtime() -> None:
            await self.do(Packages(node))
            await self.do(Runtime(node, pause_image=self.want.images["pause"], cgroup_driver=driver))

        async with asyncio.TaskGroup() as group:
            group.create_task(runtime())
            group.create_task(self.do(Kernel(node, [*wanted_modules(self.spec)])))
            programs = group.create_task(
                self.do(Programs(node, self._artifacts.of(self.want.programs(node))))
            )
        return any(change.target.endswith("/kubelet") for change in programs.result())

    async def images(self, node: Node, *, first: bool) -> None:
        """The images that a node's start waits for, or the others."""
        wants = self.want.node_images(node)[0 if first else 1]
        await self.do(Images(node, self._artifacts.of(wants), "images" if first else "more-images"))
        if not first:
            self.imported[node.name].set()

    async def kubelet(self, node: Node, files: Sequence[FileWrite], *, program_changed: bool) -> None:
        """A node's kubelet, running with these files. Those that run restart one after another."""
        turn = partial(self._kubelet_turn, node)
        await self.do(Kubelet(node, files, program_changed=program_changed, turn=turn))

    @asynccontextmanager
    async def _kubelet_turn(self, node: Node) -> AsyncIterator[None]:
        """Inside, no other kubelet restarts; it ends when this one reports again, and its Pods are Ready again.

        Where no API answers, there is nobody whom the restart could cost something, and nothing to wait by: a
        control plane's kubelet may be what its API server waits for.
        """
        async with self._answering(node) as kube:
            if kube is None:
                yield
                return
            async with self._turns.turn(node, kube):
                yield
                try:
                    await reports_again(kube, node.name, deadline=_REPORTS)
                except (WaitTimeoutError, ApiError) as error:
                    self.events.warn(
                        f"{node.name}: its kubelet was restarted, and no sign of life is seen: {error.message}",
                        host=node.name,
                    )

    @asynccontextmanager
    async def _answering(self, node: Node) -> AsyncIterator[KubeClient | None]:
        """An API that answers by now; None where none does. A control plane's kubelet must not wait for `api`,
        which may wait for it."""
        if self.api.done():
            yield None if self.api.exception() else self.api.result()[0]
            return
        own = [node] if node in self.planes else []
        async with any_plane([*own, *(one for one in self.planes if one is not node)]) as (_, kube, _):
            yield kube

    def marks(self, kube: KubeClient, node: Node) -> NodeMarks:
        """A Node's labels, taints and annotations."""
        want = self.want
        return NodeMarks(
            kube, node, labels=want.labels(node), taints=want.taints(node),
            cri_socket="" if want.instance_config else want.facts.cri_endpoint(CONTAINERD_SOCKET),
            annotations={HOST_ANNOTATION: str(Origin.of(self.spec, node.spec))},
        )  # fmt: skip

    # -- the endpoint -----------------------------------------------------------------------------------------

    async def proxy(self, node: Node) -> None:
        """A host's proxy of the endpoint; none where it runs none, or none any more."""
        if node not in self.endpoint.hosts:
            await self.endpoint.forget(node)
            return
        ca = await self.ca()
        if ca is not None:
            await self.endpoint.ensure_on(node, self.backends, ca)
        else:
            self.outcome.changes.append(Change(Action.RUN, "set up the endpoint's proxy", node.name))

    async def ca(self) -> bytes | None:
        """The cluster's CA; None in a plan for hosts without a cluster."""
        shared = await asyncio.shield(self.shared)
        ca = shared.get(CA.cert_path(self.want.cluster.certificates_dir))
        return None if ca is None else ca.reveal()

    async def authority(self) -> KeyPair | None:
        """The cluster's CA with its key; None where that is kept elsewhere, and where there is no cluster yet."""
        shared, directory = await asyncio.shield(self.shared), self.want.cluster.certificates_dir
        cert, key = shared.get(CA.cert_path(directory)), shared.get(CA.key_path(directory))
        return None if cert is None or key is None else KeyPair(cert.reveal(), key)

    @property
    def backends(self) -> list[Backend]:
        """The API servers behind the endpoint, in the file's order; then those that leave."""
        mine = [self._backends[node.name] for node in self.planes if node.name in self._backends]
        return [*mine, *self.leaving.values()]

    def expect_behind_endpoint(self, node: Node) -> None:
        """Count a control plane among those that serve, or will in a moment, before any proxy is configured."""
        plane = self.want.control_plane(node)
        self._backends[node.name] = Backend(plane.name, plane.advertise_address, plane.bind_port)

    async def put_behind_endpoint(self, node: Node, kube: KubeClient) -> None:
        """Let all proxies know a further control plane, when its API server is ready. `kube` is that one's."""
        ca = await self.ca()
        if node.name in self._backends or ca is None:
            return
        await self.do(ApiServerReady(node, kube))
        async with self._changing_backends:
            self.expect_behind_endpoint(node)
            await self.endpoint.ensure(self.backends, ca)
