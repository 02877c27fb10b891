"""The control planes of one `apply`, side by side: all of a new cluster at once, or more of a living one."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Sequence
from dataclasses import replace

from kubewright.clients.paths import Object
from kubewright.clients.server import Server
from kubewright.errors import ExitCode, HostError
from kubewright.model import formation, kubeconfig, manifests, pki
from kubewright.model.arguments import EtcdMember
from kubewright.model.config.etcd import even_or_single
from kubewright.model.formation import Begun, EtcdRole, PlaneLook
from kubewright.model.kubelet import CONTAINERD_SOCKET
from kubewright.model.objects import to_yaml
from kubewright.phases.api import api_over
from kubewright.phases.cluster_status import ClusterStatus
from kubewright.phases.controlplane import ApiServerUp, StaticPods, ca_directories
from kubewright.phases.etcd import EtcdHealthy, NewEtcdMember
from kubewright.phases.etcd_reach import progress_of
from kubewright.phases.kubeconfigs import Kubeconfigs
from kubewright.phases.node import Node
from kubewright.phases.pki import Authorities, Certificates
from kubewright.phases.shared_certs import SharedCerts, read_shared
from kubewright.workflows.apply_cluster import Cluster
from kubewright.workflows.apply_members import Founders, Newcomers, Restarts
from kubewright.workflows.apply_run import ApplyRun

# The controllers come when there is an API to control: before that they would only take its processor time, and
# give up after 10 s, to be started again after a longer pause each time.
_FIRST_PODS = (manifests.ETCD, manifests.API_SERVER)
_SERVES_AGAIN = 240.0
_ETCD_PATH = manifests.manifest_path(manifests.ETCD)
_API_SERVER_PATH = manifests.manifest_path(manifests.API_SERVER)


class ControlPlanes:
    """All control planes of one run that can be reached."""

    def __init__(self, run: ApplyRun, cluster: Cluster) -> None:
        self._run = run
        self._cluster = cluster
        self._formation = formation.formation([])
        self._begun: dict[str, Begun | None] = {}
        self._serving: set[str] = set()
        """Those who found the cluster or are of it: whom the endpoint leads to from the start."""
        self._hoped_for: set[str] = set()
        """Those of them who may still bring the API."""
        self._founders = Founders(self._formation)
        self._newcomers = Newcomers([])
        self._restarts = Restarts()
        self._running: set[str] = set()
        """Those that have an API server already."""

    async def look(self) -> None:
        """Find out who is to found a cluster, serves, or joins. Raises `HostError` where nobody can be joined."""
        run = self._run
        local = run.want.cluster.etcd.local
        if (
            local is not None
            and (count := len(run.spec.control_planes)) > 1
            and (why := even_or_single(count))
        ):
            run.events.warn(why)
        async with asyncio.TaskGroup() as group:
            looks = [group.create_task(_look(node, self._data, self._ca_path)) for node in run.planes]
        planes = [task.result() for task in looks]
        self._begun = {plane.name: plane.begun for plane in planes}
        self._running = {plane.name for plane in planes if plane.has_api_server}
        self._formation = formation.formation(planes)
        if await self._have_decided([plane.name for plane in planes if plane.has_data]):
            self._formation = formation.formation(planes, decided=True)
        if local is None:  # whoever keeps etcd, it takes no control plane to form it
            self._formation = formation.without_etcd(planes)
        roles = self._formation.roles
        self._founders = Founders(self._formation)
        self._newcomers = Newcomers([name for name, role in roles.items() if role is EtcdRole.GROW])
        for node in run.planes:
            if roles[node.name] not in (EtcdRole.GROW, EtcdRole.COME):
                self._serving.add(node.name)
                run.expect_behind_endpoint(node)
        if not self._serving:
            raise HostError(
                f"none of {', '.join(roles)} is a member of the cluster's etcd yet, and the control planes that "
                "are cannot be reached",
                hint="bring one of them back first",
            )
        self._hoped_for = set(self._serving)
        run.lead = self._with_authorities(planes)

    def _with_authorities(self, planes: Sequence[PlaneLook]) -> Node:
        """The control plane from which the others get the authorities: one that has them, wherever there is one.

        Raises `HostError` where a cluster runs without: new ones would cut off every node.
        """
        serving = [node for node in self._run.planes if node.name in self._serving]
        having = {plane.name for plane in planes if plane.has_ca}
        if self._running and not having:
            raise HostError(
                f"none of {', '.join(sorted(self._running))} has the cluster's CA ({self._ca_path}) any more",
                exit_code=ExitCode.HOST_NOT_FIT,
                hint="restore the directory from a copy: a new CA would cut off every node",
            )
        return next((node for node in serving if node.name in having), serving[0])

    async def _have_decided(self, with_data: Sequence[str]) -> bool:
        """Whether few of the founders have data because the others have left the cluster since.

        Raises `HostError` where they have lost it: they would begin anew, and could outvote the one that knows
        what was decided.
        """
        if EtcdRole.FOUND not in self._formation.roles.values():
            return False
        founders = len(self._formation.founders)
        for node in self._run.planes:
            if node.name not in with_data:
                continue
            applied, leader = await progress_of(node.host, founders)
            if applied <= founders:  # what founders know of each other: an entry for each
                continue
            if leader:
                return True
            raise HostError(
                f"{node.name}: its etcd was a member of a cluster, and most of the others have lost their data",
                host=node.name, exit_code=ExitCode.HOST_NOT_FIT,
                hint="restore etcd from a snapshot, or begin anew: `kubewright reset` clears a host",
            )  # fmt: skip
        return False

    def work(self) -> dict[str, Awaitable[None]]:
        """The work of each, by name."""
        return {node.name: self._watched(node) for node in self._run.planes}

    async def _watched(self, node: Node) -> None:
        run = self._run
        try:
            await self._up(node)
        finally:
            if node is run.lead:
                run.give_up(run.shared)
            self._founders.ended(node.name)
            self._newcomers.ended(node.name)
            self._hoped_for.discard(node.name)
            if not self._hoped_for:
                run.give_up(run.api)
            run.imported[node.name].set()  # whoever waits for it need not wait for a host that failed

    async def _up(self, node: Node) -> None:
        """The kubelet comes first: it looks for a Docker for 5 s before it starts its first Pod, and all that
        the static Pods need is made meanwhile. Their manifests come last, for a Pod whose image is not there
        yet would be pulled, and then wait for its next turn."""
        run, want = self._run, self._run.want
        plane, directory = want.control_plane(node), want.cluster.certificates_dir
        certs = Authorities(
            node, directory, pki.cluster_cas(want.cluster), etcd_data=self._data,
            service_account=pki.key_kind(want.cluster),
        )  # fmt: skip
        specs = kubeconfig.control_plane_kubeconfigs(want.cluster, plane)
        of_kubelet = [spec for spec in specs if spec.file == kubeconfig.KUBELET]
        others = Kubeconfigs(node, [spec for spec in specs if spec not in of_kubelet], certs)
        leaves = Certificates(
            node, directory, pki.control_plane_certs(want.cluster, plane), authorities=certs,
            etcd_data=self._data,
        )  # fmt: skip

        async def kubelet_credentials() -> None:
            await self._authorities(node, certs)
            await run.do(Kubeconfigs(node, of_kubelet, certs, "kubeconfig-kubelet"))

        async def kubelet() -> None:
            await credentials
            config = to_yaml(want.kubelet_config(run.lead)).decode()
            await run.kubelet(node, want.kubelet_files(node, config), program_changed=await prepared)

        async def images() -> None:
            await prepared
            await run.images(node, first=True)

        async def other_credentials() -> None:
            await credentials
            await run.etcd.bring(node)
            await run.do(leaves)
            await run.do(others)

        async def proxy() -> None:
            await prepared
            await run.proxy(node)

        async with asyncio.TaskGroup() as group:
            prepared = group.create_task(run.prepare(node))
            credentials = group.create_task(kubelet_credentials())
            needed = [group.create_task(work) for work in (images(), other_credentials())]
            for work in (kubelet(), proxy(), self._serve(node, needed, certs, others)):
                group.create_task(work)

    @property
    def _data(self) -> str:
        local = self._run.want.cluster.etcd.local
        return local.data_dir if local is not None else ""

    @property
    def _ca_path(self) -> str:
        return pki.CA.cert_path(self._run.want.cluster.certificates_dir)

    async def _authorities(self, node: Node, certs: Authorities) -> None:
        """Made on one control plane, and brought to the others from there."""
        run = self._run
        if node is not run.lead:
            files = await asyncio.shield(run.shared)
            if files:
                await run.do(SharedCerts(node, run.want.cluster, files))
        await run.do(certs)
        if node is run.lead:
            run.shared.set_result(await read_shared(node, run.want.cluster))

    async def _serve(
        self, node: Node, needed: Sequence[asyncio.Task[None]], certs: Authorities, configs: Kubeconfigs
    ) -> None:
        """Its static Pods, and the cluster's objects once its API server answers."""
        run = self._run
        await asyncio.gather(*needed, run.etcd.serving())
        async with asyncio.TaskGroup() as group:
            group.create_task(run.images(node, first=False))
            if self._is_marked_early(node):
                group.create_task(run.do(run.marks(await run.kube(), node)))
            if self._formation.roles[node.name] is EtcdRole.GROW:
                await self._grow(node)
            if self._formation.roles[node.name] is EtcdRole.FOUND and not run.dry:
                await self._founders.ready(node.name)
            pods = await self._pods(node)
            await self._first_pods(node, {name: pods[name] for name in pods if name in _FIRST_PODS}, configs)
            controllers = StaticPods(
                node, {name: pods[name] for name in pods if name not in _FIRST_PODS}, "controllers"
            )
            if configs.admin:
                await self._in_cluster(node, configs, certs.ca.cert, controllers)
            else:  # a plan, for a host that has no cluster yet
                await self._without_api(node, controllers)

    async def _first_pods(self, node: Node, pods: dict[str, Object], configs: Kubeconfigs) -> None:
        """etcd and the API server. Those that run and become others (another etcd behind them, another flag) do so
        one after another, each when the one before it serves again."""
        run, phase = self._run, StaticPods(node, pods)
        if run.dry or node.name not in self._running:
            await run.do(phase)
            return
        changes = await phase.look()
        if not changes or not configs.first:
            await run.do(phase)
            return
        if any(change.target == _ETCD_PATH for change in changes):
            self._refuse_without_majority(node)
        async with api_over(node.host, self._own_server(node, configs)) as kube:
            up = ApiServerUp(node, kube, deadline=_SERVES_AGAIN)
            async with self._restarts.turn(serves=await up.missing() is None):
                await self._others_serve(node, configs)
                await run.do(phase)
                await run.do(up)

    def _refuse_without_majority(self, node: Node) -> None:
        """Raise `HostError` where etcd would have none while this member starts anew, for others are lost."""
        names = [host.name for host in self._run.spec.control_planes]
        if lost := formation.missed(names, {plane.name for plane in self._run.planes}):
            raise HostError(
                f"{node.name}: its etcd is to start anew, and without {', '.join(lost)} it has no majority then",
                host=node.name, exit_code=ExitCode.HOST_NOT_FIT,
                hint=f"start {lost[0]} first, or take it out of cluster.yaml",
            )  # fmt: skip

    async def _others_serve(self, node: Node, configs: Kubeconfigs) -> None:
        """Wait until all others serve that can be reached, and have an API server: what stopped one of them, in
        this run or the one before, shall not stop the next."""
        async with asyncio.TaskGroup() as group:
            for other in self._run.planes:
                if other is not node and other.name in self._running:
                    group.create_task(self._serves(other, configs))

    async def _serves(self, node: Node, configs: Kubeconfigs) -> None:
        async with api_over(node.host, self._own_server(node, configs)) as kube:
            await self._run.do(ApiServerUp(node, kube, deadline=_SERVES_AGAIN))

    def _own_server(self, node: Node, configs: Kubeconfigs) -> Server:
        """The node's own API server, which its host reaches whatever the endpoint does; with rights of its own,
        for those of admin.conf may be among the objects that are still to come."""
        first = Server.from_kubeconfig(kubeconfig.load(configs.first, kubeconfig.SUPER_ADMIN))
        return replace(first, url=self._run.want.control_plane(node).url)

    def _is_marked_early(self, node: Node) -> bool:
        """Whether its Node is there before its API server, and must not take the Pods of users meanwhile (P29)."""
        want = self._run.want
        local = want.facts.kubelet_local_mode(want.cluster.feature_gates)
        return node.name not in self._serving and not local

    # -- etcd -------------------------------------------------------------------------------------------------

    async def _pods(self, node: Node) -> dict[str, Object]:
        """All static Pods; etcd's with the members with which it was begun, which nobody reads again."""
        if self._formation.roles[node.name] is EtcdRole.GROW and not self._run.dry:
            self._begun[node.name] = formation.begun_in(await node.host.read_file(_ETCD_PATH))
        begun = self._begun[node.name]
        if begun is None and self._formation.roles[node.name] is EtcdRole.GROW:  # a plan, which has said it
            pods = await self._pods_of(node, Begun((), ""))
            return {name: pod for name, pod in pods.items() if name != manifests.ETCD}
        return await self._pods_of(node, begun or self._formation.begun())

    async def _pods_of(self, node: Node, begun: Begun) -> dict[str, Object]:
        want = self._run.want
        return manifests.static_pods(
            want.cluster, want.control_plane(node), want.facts, ca_dirs=await ca_directories(node.host),
            etcd_members=begun.members, etcd_state=begun.state,
        )  # fmt: skip

    async def _grow(self, node: Node) -> None:
        """Its member of the etcd that runs; etcd takes one learner at a time."""
        run, want = self._run, self._run.want
        kube = await run.kube()
        ca_dirs = await ca_directories(node.host)

        def pod(members: Sequence[EtcdMember]) -> Object:
            return manifests.static_pods(
                want.cluster, want.control_plane(node), want.facts, ca_dirs=ca_dirs, etcd_members=members
            )[manifests.ETCD]

        member = NewEtcdMember(
            node, kube, want.control_plane(node), certificates_dir=want.cluster.certificates_dir,
            cri_socket=CONTAINERD_SOCKET, data_dir=self._data, pod=pod,
        )  # fmt: skip
        if run.dry:
            await run.do(member)
            return
        addresses = {one.name: one.ip for one in run.planes}
        directory = want.cluster.certificates_dir
        async with self._newcomers.turn(node, kube, directory, addresses) as announced:
            if not announced:
                await run.do(EtcdHealthy(node, kube, directory))
            await run.do(member)

    # -- the API ----------------------------------------------------------------------------------------------

    async def _in_cluster(self, node: Node, configs: Kubeconfigs, ca: bytes, controllers: StaticPods) -> None:
        run, want = self._run, self._run.want
        server = self._own_server(node, configs)
        kube = await run.tunnel.enter_async_context(api_over(node.host, server))
        # Each look takes this computer's and the host's time, too.
        api_up = ApiServerUp(node, kube, deadline=240, interval=0.05 * len(run.planes))
        if not run.dry:
            await run.do(api_up)
        elif await api_up.missing():
            await self._without_api(node, controllers)
            return
        async with asyncio.TaskGroup() as group:
            group.create_task(run.do(controllers))
            if not self._is_marked_early(node):
                group.create_task(run.do(run.marks(kube, node)))
            group.create_task(run.put_behind_endpoint(node, kube))
            group.create_task(self._cluster.reached(node, kube, ca, configs.admin))
            await run.kube()
            if want.facts.cluster_status_kept and node is not self._cluster.through:
                group.create_task(run.do(ClusterStatus(kube, want.control_plane(node))))

    async def _without_api(self, node: Node, controllers: StaticPods) -> None:
        """In a plan: its own API server does not answer. Of one that is added, the others' tells what would be."""
        run, want = self._run, self._run.want
        await run.do(controllers)
        if node.name in self._serving:
            run.events.warn(
                "no API server answers: this plan leaves out what is in the cluster", host=node.name
            )
            return
        kube = await run.kube()
        await run.put_behind_endpoint(node, kube)
        if want.facts.cluster_status_kept:
            await run.do(ClusterStatus(kube, want.control_plane(node)))


async def _look(node: Node, data_dir: str, ca_path: str) -> PlaneLook:
    """Raises `HostError` where etcd's data is elsewhere than the file says: it would be taken for lost."""
    data = f"{data_dir}/member" if data_dir else ""
    manifest = await node.host.read_file(_ETCD_PATH)
    kept = formation.data_dir_in(manifest)
    if data_dir and kept and kept != data_dir:
        raise HostError(
            f"{node.name}: its etcd has its data in {kept}, and cluster.yaml says etcd.local.dataDir: {data_dir}",
            host=node.name, exit_code=ExitCode.HOST_NOT_FIT,
            hint=f"say {kept} in cluster.yaml; to move the data, stop etcd on one control plane after the other, "
            "move the directory, and change the manifest by hand first",
        )  # fmt: skip
    paths = [path for path in (data, _API_SERVER_PATH, ca_path) if path]
    found = await node.host.stat_files(paths, digest=False)
    return PlaneLook(
        node.name, node.ip, formation.begun_in(manifest), data in found, _API_SERVER_PATH in found,
        ca_path in found,
    )  # fmt: skip
