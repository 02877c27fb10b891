"""`apply`: from hosts and a specification to a cluster, or from a cluster to one that fits its specification."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path

from kubewright.clients.kube import KubeClient
from kubewright.clients.kubeconfig import Merged
from kubewright.clients.paths import Object
from kubewright.clients.server import Server
from kubewright.components.open import open_source
from kubewright.errors import ConfigError, KubewrightError
from kubewright.events import Events
from kubewright.model import kubeconfig, manifests, pki, x509
from kubewright.model.config.cluster import ClusterSpec
from kubewright.model.kubelet import CONTAINERD_SOCKET
from kubewright.model.objects import to_yaml
from kubewright.model.own_network import OWN_CNI_FILE
from kubewright.phases.api import api_over
from kubewright.phases.controllers import ControllersUp
from kubewright.phases.controlplane import ApiServerUp, StaticPods, ca_directories
from kubewright.phases.gone import GoneNodes
from kubewright.phases.install import Images, Programs
from kubewright.phases.join import Join
from kubewright.phases.kubeconfigs import Kubeconfigs
from kubewright.phases.kubelet import Kubelet
from kubewright.phases.kubelet_finalize import StaticPodsReported
from kubewright.phases.kubelet_join import KUBELET_CONF
from kubewright.phases.local_kubeconfig import LocalKubeconfig
from kubewright.phases.node import Node
from kubewright.phases.nodes import NodeMarks, NodesReady
from kubewright.phases.objects import Objects
from kubewright.phases.phase import Action, Change, Phase
from kubewright.phases.pki import Authorities, Certificates
from kubewright.phases.prepare import Kernel, Packages, Runtime
from kubewright.phases.rollout import Rollout
from kubewright.workflows.desired import Artifacts, Desired
from kubewright.workflows.fleet import AbandonedError, on_all, open_fleet
from kubewright.workflows.run_token import RunToken

# The controllers come when there is an API to control: before that they would only take its processor time, and
# give up after 10 s, to be started again after a longer pause each time.
_FIRST_PODS = (manifests.ETCD, manifests.API_SERVER)


@dataclass
class Outcome:
    """What a run did, or would do."""

    changes: list[Change] = field(default_factory=list)
    nodes: list[str] = field(default_factory=list)
    endpoint: str = ""
    kubeconfig: Path | None = None
    context: Merged | None = None


async def apply(
    spec: ClusterSpec,
    events: Events,
    *,
    kubeconfig_out: Path | None = None,
    merge_kubeconfig: bool = True,
    is_gone: Callable[[str], bool] = lambda _: False,
) -> Outcome:
    """Make the cluster what `spec` says; a second run finds nothing to do.

    Nodes of which `is_gone` is true, by their names, are taken out of the cluster.

    The administrator's kubeconfig is written to `kubeconfig_out`, 0600, and merged as its own context into the
    user's where `merge_kubeconfig` says so. Raises `KubewrightError`, or a group of them, one a failed host.
    """
    async with events.workflow("apply", f"apply cluster {spec.name}") as activity:
        outcome = await _Run(spec, events, dry=False, is_gone=is_gone).all(kubeconfig_out, merge_kubeconfig)
        activity.summary(
            f"cluster {spec.name}: {len(outcome.changes)} changes" if outcome.changes else
            f"cluster {spec.name}: nothing to do"
        )  # fmt: skip
        return outcome


async def plan(spec: ClusterSpec, events: Events) -> Outcome:
    """What `apply` would change on which host, found without changing anything."""
    async with events.workflow("plan", f"plan cluster {spec.name}"):
        return await _Run(spec, events, dry=True).all(None, False)


class _Run:
    """One run over all hosts: the workflow's state, and its stages in order."""

    def __init__(
        self,
        spec: ClusterSpec,
        events: Events,
        *,
        dry: bool,
        is_gone: Callable[[str], bool] = lambda _: False,
    ) -> None:
        self._spec = spec
        self._is_gone = is_gone
        self._events = events
        self._dry = dry
        self._source = open_source(spec.source)
        self._artifacts = Artifacts(self._source, events)
        self._outcome = Outcome()
        self._want: Desired
        self._nodes: list[Node] = []
        self._first: Node
        self._api: asyncio.Future[tuple[KubeClient, bytes]]
        self._tunnel = AsyncExitStack()
        self._admin: Object = {}
        self._token = RunToken(self._kube)
        self._imported: dict[str, asyncio.Event] = {}

    async def all(self, kubeconfig_out: Path | None, merge: bool) -> Outcome:
        """Every stage."""
        control_planes = [host for host in self._spec.hosts if "control-plane" in host.roles]
        if len(control_planes) != 1:
            raise ConfigError(
                f"hosts: {len(control_planes)} of them are control planes; exactly one is possible as yet"
            )
        self._want = await Desired.of(self._spec, self._source)
        self._api = asyncio.get_running_loop().create_future()
        endpoint = self._want.cluster.control_plane_endpoint
        async with open_fleet(self._spec, f"https://{endpoint}" if endpoint else None, self._events) as nodes:
            self._nodes = nodes
            self._first = next(node for node in nodes if node.is_control_plane)
            self._outcome.nodes = [node.name for node in nodes]
            self._imported = {node.name: asyncio.Event() for node in nodes}
            self._outcome.endpoint = self._want.endpoint(self._first)
            await self._fetch()
            work: dict[str, Awaitable[None]] = {
                node.name: self._control_plane(node) if node is self._first else self._worker(node)
                for node in nodes
            }
            async with self._tunnel:
                try:
                    await self._work(work, kubeconfig_out, merge)
                finally:
                    await self._token.forget()
        return self._outcome

    async def _work(self, work: Mapping[str, Awaitable[None]], out: Path | None, merge: bool) -> None:
        """All hosts at once, and then the cluster. Whoever must find out what is wrong needs the kubeconfig:
        it is handed over as soon as there is one, and also where a host has failed."""
        try:
            await on_all(work)
        except (KubewrightError, ExceptionGroup):
            with suppress(KubewrightError):
                await self._hand_over(out, merge)
            raise
        await self._hand_over(out, merge)
        if self._api.exception() is None:
            await self._settle()

    async def _fetch(self) -> None:
        wants = []
        for node in self._nodes:
            first, rest = self._want.node_images(node)
            wants += [*self._want.programs(node), *first, *rest]
        if not self._dry:
            await self._artifacts.fetch(wants)
        elif not await self._artifacts.fetch_ready(wants):
            self._events.warn(
                f"source {self._source.name!r} has to make or download components first, which `apply` does: "
                "this plan leaves out programs and images"
            )

    async def _do(self, phase: Phase) -> Sequence[Change]:
        """Run a phase, or only look where this is a plan."""
        if self._dry:
            changes = await phase.look()
        else:
            changes = await phase.run(self._events)
        self._outcome.changes += changes
        return changes

    # -- hosts ------------------------------------------------------------------------------------------------

    async def _prepare(self, node: Node) -> bool:
        """All that a kubelet needs on its host before it starts; whether its program is another than before."""
        driver = self._want.kubelet_config(self._first).get("cgroupDriver", "cgroupfs")

        async def runtime() -> None:
            await self._do(Packages(node))
            await self._do(Runtime(node, pause_image=self._want.images["pause"], cgroup_driver=driver))

        async with asyncio.TaskGroup() as group:
            group.create_task(runtime())
            group.create_task(self._do(Kernel(node)))
            programs = group.create_task(
                self._do(Programs(node, self._artifacts.of(self._want.programs(node))))
            )
        return any(change.target.endswith("/kubelet") for change in programs.result())

    async def _images(self, node: Node, *, first: bool) -> None:
        wants = self._want.node_images(node)[0 if first else 1]
        await self._do(Images(node, self._artifacts.of(wants), "images" if first else "more-images"))
        if not first:
            self._imported[node.name].set()

    async def _control_plane(self, node: Node) -> None:
        try:
            await self._control_plane_up(node)
        finally:
            if not self._api.done():
                self._api.set_exception(AbandonedError())
                self._api.exception()  # seen: without workers nobody else asks for it

    async def _control_plane_up(self, node: Node) -> None:
        """The kubelet comes first: it looks for a Docker for 5 s before it starts its first Pod, and all that
        the static Pods need is made meanwhile. Their manifests come last, for a Pod whose image is not there
        yet would be pulled, and then wait for its next turn."""
        want = self._want
        control_plane = want.control_plane(node)
        directory = want.cluster.certificates_dir
        etcd = want.cluster.etcd.local
        data = etcd.data_dir if etcd is not None else ""
        certs = Authorities(node, directory, pki.cluster_cas(want.cluster), etcd_data=data)
        specs = kubeconfig.control_plane_kubeconfigs(want.cluster, control_plane)
        of_kubelet = [spec for spec in specs if spec.file == kubeconfig.KUBELET]
        others = Kubeconfigs(node, [spec for spec in specs if spec not in of_kubelet], certs)
        leaves = Certificates(
            node, directory, pki.control_plane_certs(want.cluster, control_plane),
            authorities=certs, service_account=pki.key_kind(want.cluster), etcd_data=data,
        )  # fmt: skip

        async def kubelet_credentials() -> None:
            await self._do(certs)
            await self._do(Kubeconfigs(node, of_kubelet, certs, "kubeconfig-kubelet"))

        async def kubelet() -> None:
            await credentials
            config = to_yaml(want.kubelet_config(node)).decode()
            await self._do(Kubelet(node, want.kubelet_files(node, config), program_changed=await prepared))

        async def images() -> None:
            await prepared
            await self._images(node, first=True)

        async def other_credentials() -> None:
            await credentials
            await self._do(leaves)
            await self._do(others)

        async with asyncio.TaskGroup() as group:
            prepared = group.create_task(self._prepare(node))
            credentials = group.create_task(kubelet_credentials())
            for work in (kubelet(), images(), other_credentials()):
                group.create_task(work)
        pods = manifests.static_pods(
            want.cluster, control_plane, want.facts, ca_dirs=await ca_directories(node.host)
        )
        await self._do(StaticPods(node, {name: pods[name] for name in pods if name in _FIRST_PODS}))
        controllers = StaticPods(
            node, {name: pods[name] for name in pods if name not in _FIRST_PODS}, "controllers"
        )
        async with asyncio.TaskGroup() as group:
            group.create_task(self._images(node, first=False))
            if others.admin:
                group.create_task(self._in_cluster(node, others, certs.ca.cert, controllers))
            else:  # a plan, for a host that has no cluster yet
                group.create_task(self._without_api(node, controllers))

    async def _worker(self, node: Node) -> None:
        try:
            changed = await self._prepare(node)
            await self._images(node, first=True)
            async with asyncio.TaskGroup() as group:
                group.create_task(self._images(node, first=False))
                group.create_task(self._join(node, changed))
        finally:
            self._imported[node.name].set()  # whoever waits for it need not wait for a host that failed

    async def _join(self, node: Node, program_changed: bool) -> None:
        # In a plan for hosts without a cluster there is no API to ask, and the join is all there is to say.
        try:
            kube, ca = await asyncio.shield(self._api)
        except AbandonedError:
            if self._dry and not await node.host.stat_files([KUBELET_CONF], digest=False):
                self._outcome.changes.append(Change(Action.RUN, "join the cluster", node.name))
            raise
        want = self._want
        join = Join(
            node,
            endpoint=self._outcome.endpoint,
            token=self._token.text,
            ca_hashes=[x509.ca_hash(ca)],
            facts=want.facts,
            kubelet_files=lambda text: want.kubelet_files(node, text),
            admin=kube,
        )
        if not any(change.action is Action.RUN for change in await self._do(join)):
            config = to_yaml(want.kubelet_config(self._first)).decode()
            # A kubelet registers its Node when it starts: one whose Node was deleted must start again.
            unknown = await kube.get("v1", "Node", node.name) is None
            files = want.kubelet_files(node, config)
            await self._do(Kubelet(node, files, program_changed=program_changed or unknown))
        await self._do(self._marks(kube, node))

    async def _kube(self) -> KubeClient:
        return (await self._api)[0]

    def _marks(self, kube: KubeClient, node: Node) -> NodeMarks:
        want = self._want
        return NodeMarks(
            kube, node, labels=want.labels(node), taints=want.taints(node),
            cri_socket="" if want.instance_config else want.facts.cri_endpoint(CONTAINERD_SOCKET),
        )  # fmt: skip

    async def _without_api(self, node: Node, controllers: StaticPods) -> None:
        self._events.warn(
            "no API server answers: this plan leaves out what is in the cluster", host=node.name
        )
        await self._do(controllers)

    # -- the cluster ------------------------------------------------------------------------------------------

    async def _in_cluster(self, node: Node, configs: Kubeconfigs, ca: bytes, controllers: StaticPods) -> None:
        want = self._want
        self._admin = kubeconfig.load(configs.admin, kubeconfig.ADMIN)
        # Through the control plane's own address, which its own host reaches whatever the endpoint does; and with
        # rights of its own, for those of admin.conf may be among the objects that are still to come.
        first = Server.from_kubeconfig(kubeconfig.load(configs.first, kubeconfig.SUPER_ADMIN))
        kube = await self._tunnel.enter_async_context(api_over(node.host, first))
        api_up = ApiServerUp(node, kube, deadline=240)
        if not self._dry:
            await self._do(api_up)
        elif await api_up.missing():
            await self._without_api(node, controllers)
            return
        upload = Objects(kube, want.bootstrap_objects(node, ca), "upload-config", "upload the configuration")
        addons = {
            "kube-proxy": (want.proxy_objects(node), "deploy kube-proxy"),
            "network": (want.network_objects(node), "deploy the pod network"),
        }
        async with asyncio.TaskGroup() as group:
            group.create_task(self._do(controllers))
            uploaded = group.create_task(self._do(upload))
            group.create_task(self._do(self._marks(kube, node)))
            await uploaded
            self._api.set_result((kube, ca))
            # A Pod that finds its image missing waits for its next turn, longer each time.
            for imported in self._imported.values():
                await imported.wait()
            for name, (items, title) in addons.items():
                group.create_task(self._do(Objects(kube, items, name, title)))

    async def _settle(self) -> None:
        """Wait until all of it runs.

        DNS comes when all nodes can take Pods: its replicas go to different ones then, and stay there (P05).
        """
        kube = await self._kube()
        await self._do(ControllersUp(self._first, kube, self._want.leases()))
        await self._do(GoneNodes(kube, self._is_gone))
        network = OWN_CNI_FILE if self._want.has_network else ""
        await self._do(StaticPodsReported(self._first, kube, network=network))
        if self._want.has_network:
            await self._do(NodesReady(kube, self._nodes))
        else:
            self._events.note("network.plugin is none: nodes become Ready when you install a pod network")
        await self._do(Objects(kube, self._want.dns_objects(), "dns", "deploy cluster DNS"))
        await self._do(Rollout(kube, self._want.workloads(), [node.name for node in self._nodes]))

    async def _hand_over(self, out: Path | None, merge: bool) -> None:
        if self._dry or not self._api.done() or self._api.exception() is not None:
            return
        local = LocalKubeconfig(self._spec.name, self._admin, out, merge=merge)
        await self._do(local)
        if local.trouble is not None:
            self._events.warn(f"{local.trouble.message}; {local.trouble.hint}")
        self._outcome.kubeconfig = out
        self._outcome.context = local.merged
