"""`convert --to-external-etcd`: etcd moves from the control planes to hosts of its own, while it serves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from kubewright.clients.kube import KubeClient
from kubewright.components.open import open_source
from kubewright.errors import ExitCode, HostError
from kubewright.events import Events
from kubewright.hosts import FileWrite
from kubewright.model import etcd_moves, manifests, pki
from kubewright.model.config.cluster import ClusterSpec
from kubewright.model.config.kubeadm import to_stored
from kubewright.model.config.kubeadm_types import Etcd, LocalEtcd
from kubewright.model.conversion import Existing, Mode, Record
from kubewright.model.etcd_moves import Stacked
from kubewright.model.objects import read_mapping
from kubewright.phases.api import api_over
from kubewright.phases.backup import etcd_pod
from kubewright.phases.controlplane import ApiServerReady, StaticPods, ca_directories
from kubewright.phases.etcd_cluster import EtcdMembers, EtcdServes
from kubewright.phases.etcd_hosts import EtcdHosts
from kubewright.phases.etcd_move import (
    DataAside,
    EtcdLeads,
    EtcdPodGone,
    EtcdTold,
    MovingEtcd,
    StackedMemberLeft,
)
from kubewright.phases.etcd_outside import EtcdFiles
from kubewright.phases.installed import read_installed, runtime_socket
from kubewright.phases.node import Node
from kubewright.workflows.convert import Conversion, convert
from kubewright.workflows.convert_run import Report
from kubewright.workflows.desired import Artifacts, Desired
from kubewright.workflows.etcd_hosts import OutsideEtcd

_READY = 240.0
"""Seconds in which an API server that was started anew is ready."""


async def to_external_etcd(
    spec: ClusterSpec,
    events: Events,
    *,
    file: Path = Path("cluster.yaml"),
    kubeconfig_out: Path | None = None,
    merge_kubeconfig: bool = True,
    dry: bool = False,
) -> Report:
    """Move the stacked etcd of `spec`'s cluster to its hosts with the role `etcd`. As `convert`."""
    return await convert(
        spec, Mode.EXTERNAL_ETCD, events, file=file, kubeconfig_out=kubeconfig_out,
        merge_kubeconfig=merge_kubeconfig, dry=dry, kind=EtcdConversion,
    )  # fmt: skip


class EtcdConversion(Conversion):
    """One run of it, up to the moment from which `apply` goes on.

    Nobody keeps book: who is a member, which etcd an API server's manifest names, which manifests and data are
    there, tells a run where the one before was killed.
    """

    def __init__(
        self, spec: ClusterSpec, mode: Mode, want: Desired, nodes: Sequence[Node], existing: Existing,
        record: Record | None, events: Events, *, file: Path, dry: bool,
    ) -> None:  # fmt: skip
        super().__init__(spec, mode, want, nodes, existing, record, events, file=file, dry=dry)
        self._events = events
        self._outside = OutsideEtcd(self._want, nodes, self._do, events, dry=dry)
        local = Etcd(local=LocalEtcd(data_dir=existing.etcd_data) if existing.etcd_data else LocalEtcd())
        # What the cluster is before it moves.
        self._want = replace(self._want, cluster=self._want.cluster.model_copy(update={"etcd": local}))

    @property
    def _to(self) -> str:
        return ", ".join(host.name for host in self._spec.etcd_hosts)

    def _refuse_another(self) -> None:
        """Other hosts than those of the run before are members that come, and its own that leave."""

    async def until_moved(self) -> None:
        """Every stage before `apply`."""
        await self._keep()
        async with api_over(self._lead.host, await self._own_server(self._lead)) as kube:
            await self._secure_etcd(kube)
            await self._prepare()
            members = await self._members_before()
            moving = MovingEtcd(self._outside.nodes, self._before, members, self._directory)
            reached = not (self.run.dry and (self._existing.etcd_plain or self._existing.etcd_loopback))
            if reached:
                await self._join(moving)
            else:
                self._events.warn("etcd must serve others first: the plan leaves out how its members move")
            await self._switch()
            await self._told(kube)
            if reached:
                await self._leave(moving)

    async def _plan_rest(self) -> None:
        """`apply` has nothing to add that could be foreseen."""

    # -- the stages ---------------------------------------------------------------------------------------------

    async def _prepare(self) -> None:
        """What members on the hosts need: the cluster's own CA of etcd, for else they could not meet."""
        async with self.run.stage("etcd-hosts", "prepare etcd's hosts"):
            outside = self._outside
            artifacts = Artifacts(open_source(self._spec.source), self._events)
            wants = [want for node in outside.nodes for want in outside.programs(node)]
            if not self.run.dry:
                await artifacts.fetch(wants)
            elif not await artifacts.fetch_ready(wants):
                self._events.warn("programs are to be made or downloaded first: this plan leaves them out")
            files = await self._authority()
            for node in outside.nodes:
                await self._refuse_other_ca(node, files)
                await self._do(EtcdFiles(node, files))
            await outside.prepare(artifacts.of)

    async def _authority(self) -> list[FileWrite]:
        """The CA of the etcd that there is, with its key, from whoever has both; nothing in a dry run of a cluster
        that has none yet. Raises `HostError` where nobody has it: another one would keep the members apart."""
        cert, key = pki.ETCD_CA.cert_path(self._directory), pki.ETCD_CA.key_path(self._directory)
        for node in [*self._planes, *self._outside.nodes]:
            found = await node.host.read_files([cert, key])
            if len(found) == 2:
                return [FileWrite(key, found[key], pki.KEY_MODE), FileWrite(cert, found[cert], pki.CERT_MODE)]
        if self.run.dry:
            return []
        raise HostError(
            f"{self._lead.name}: there is no {cert} with its key on any control plane", host=self._lead.name,
            exit_code=ExitCode.HOST_NOT_FIT, hint="restore them from a copy: etcd's members trust no other CA",
        )  # fmt: skip

    async def _refuse_other_ca(self, node: Node, files: Sequence[FileWrite]) -> None:
        """Raise `HostError` where a host has the CA of another etcd, which would be overwritten."""
        for file in files[1:]:
            found = await node.host.read_file(file.path)
            if found is not None and found.strip() != file.data.strip():
                raise HostError(
                    f"{node.name}: {file.path} is another CA than the cluster's", host=node.name,
                    exit_code=ExitCode.HOST_IN_OTHER_CLUSTER,
                    hint="take the host out of the etcd that it is in, and remove the file with its key",
                )  # fmt: skip

    async def _members_before(self) -> list[Stacked]:
        """The control planes' members, by their manifests, or by those in the backup where they have left."""
        found = []
        for node in self._before:
            pod = read_mapping(await node.host.read_file(manifests.manifest_path(manifests.ETCD)) or b"")
            pod = pod or await etcd_pod(node.host, self._record.id)
            if member := etcd_moves.stacked(node.name, node.ip, pod):
                found.append(member)
        return found

    async def _join(self, moving: MovingEtcd) -> None:
        """Members on the hosts, one after another, as learners first; those of control planes stay."""
        async with self.run.stage("etcd-members", "members of etcd on its hosts"):
            stay = [one.name for one in moving.stacked]
            await self._do(EtcdMembers(moving, self._want.cluster.cluster_name, stay=stay))
            if not self.run.dry:
                await self._do(EtcdServes(EtcdHosts(moving.nodes, self._directory)))

    async def _switch(self) -> None:
        """API servers use the hosts' members, one after another, each ready before the next one's turn. Nobody
        misses a write: it is the same etcd."""
        async with self.run.stage("api-servers", "API servers use etcd on its hosts"):
            for node in self._planes:
                await self._outside.bring(node)
            for node in self._planes:
                await self._switch_one(node)
            await self._all_ready(self._planes)

    async def _switch_one(self, node: Node) -> None:
        want = self._outside.want
        pods = manifests.static_pods(
            want.cluster, want.control_plane(node), want.facts, ca_dirs=await ca_directories(node.host)
        )
        phase = StaticPods(node, {manifests.API_SERVER: pods[manifests.API_SERVER]}, "api-server")
        if not self.run.dry and await phase.look():
            await self._all_ready([one for one in self._planes if one is not node])
        await self._do(phase)
        await self._all_ready([node])

    async def _all_ready(self, nodes: Sequence[Node]) -> None:
        if self.run.dry:
            return
        for node in nodes:
            async with api_over(node.host, await self._own_server(node)) as kube:
                await self._do(ApiServerReady(node, kube, _READY))

    async def _told(self, kube: KubeClient) -> None:
        """Before the first member leaves: a control plane that joins meanwhile must not bring another one."""
        async with self.run.stage("config", "tell joining control planes where etcd is"):
            await self._do(EtcdTold(kube, to_stored(self._outside.want.cluster)["etcd"]))

    async def _leave(self, moving: MovingEtcd) -> None:
        """The control planes' members leave one after another; each one's data is put aside before the next."""
        if not moving.stacked:
            return
        async with self.run.stage("stacked-etcd", "etcd leaves the control planes"):
            await self._do(EtcdLeads(moving))
            for member in moving.stacked:
                node = self._nodes[member.host]
                await self._do(StackedMemberLeft(moving, member))
                await self._do(
                    EtcdPodGone(node, await runtime_socket(node.host, "", await read_installed(node.host)))
                )
                if member.data_dir:
                    await self._do(DataAside(node, member.data_dir, self._record.id))
