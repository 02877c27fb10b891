"""etcd outside the control planes in one `apply`: the user's own, or one that Kubewright builds and keeps."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from datetime import timedelta

from kubewright.clients.etcd import Credentials
from kubewright.components.source import Artifact, Form, Want
from kubewright.errors import ExitCode, HostError
from kubewright.events import Events
from kubewright.hosts import FileWrite
from kubewright.model import pki
from kubewright.model.arguments import client_url
from kubewright.model.config.cluster import Role
from kubewright.model.config.etcd import with_endpoints
from kubewright.model.config.kubeadm_types import ClusterConfiguration, Etcd, LocalEtcd
from kubewright.model.etcd_endpoints import kept_endpoints
from kubewright.model.etcd_hosts import is_formed
from kubewright.model.etcd_unit import DATA_DIR, etcd_unit
from kubewright.model.node import ControlPlaneNode, is_address
from kubewright.model.pki import CertSpec
from kubewright.phases.etcd_cluster import EtcdFounded, EtcdMembers, EtcdServes
from kubewright.phases.etcd_hosts import PROGRAM, EtcdHosts, EtcdRestart, EtcdUnit
from kubewright.phases.etcd_outside import EtcdFiles, client_files
from kubewright.phases.install import Programs
from kubewright.phases.node import Node
from kubewright.phases.phase import Change, Phase
from kubewright.phases.pki import Authorities, Certificates
from kubewright.workflows.desired import Desired
from kubewright.workflows.etcd_check import EtcdCheck
from kubewright.workflows.fleet import AbandonedError

_RENEW_BEFORE = timedelta(days=30)
_CLIENT = "apiserver-etcd-client"


class OutsideEtcd:
    """Where the cluster's state is kept, if not on the control planes.

    Made when the hosts are known, it gives the `want` to go on with. Then: `check` before anything is changed,
    after which `want` may be another; `ensure` beside all other work, with the artifacts of `programs`; and on
    each control plane `bring`, and `serving` before its static Pods. Where etcd is on the control planes only
    `check` does anything.
    """

    def __init__(
        self,
        want: Desired,
        hosts: Sequence[Node],
        do: Callable[[Phase], Awaitable[Sequence[Change]]],
        events: Events,
        *,
        dry: bool,
    ) -> None:
        """`hosts` are those that can be reached; `do` runs a phase, or only looks where this is a plan (`dry`)."""
        self._do = do
        self._events = events
        self._dry = dry
        self.nodes = [node for node in hosts if Role.ETCD in node.spec.roles]
        """The hosts with the role `etcd`."""
        self.want = _with_hosts(want, self.nodes)
        """What is wanted, with the addresses of these hosts in it."""
        there = {node.name for node in self.nodes}
        self._absent = [host.name for host in want.spec.etcd_hosts if host.name not in there]
        self._planes = [node for node in hosts if node.is_control_plane]
        self._hosts = EtcdHosts(self.nodes, want.cluster.certificates_dir)
        self._check: EtcdCheck | None = None
        loop = asyncio.get_running_loop()
        self._keys: asyncio.Future[dict[str, Credentials]] = loop.create_future()
        self._serves: asyncio.Future[None] = loop.create_future()

    @property
    def used(self) -> bool:
        """Whether etcd is outside the control planes."""
        return self.want.cluster.etcd.external is not None

    def programs(self, node: Node) -> list[Want]:
        """The programs that a host with the role `etcd` needs; none for any other."""
        if node not in self.nodes:
            return []
        version = self.want.facts.etcd_tag
        return [Want(name, version, node.facts.arch, Form.BINARY) for name in ("etcd", "etcdctl")]

    async def check(self) -> None:
        """Refuse an etcd that will not do, with nothing changed anywhere. Raises `ConfigError`, `HostError`."""
        want = self.want
        self._check = EtcdCheck(
            want.spec, want.cluster, self._planes, self._hosts, self._absent, self._events
        )
        keys = await self._check.run()
        self.want = _with_hosts(want, self.nodes, self._check.used)
        if not self.nodes:
            self._keys.set_result(keys)
            self._serves.set_result(None)

    async def bring(self, node: Node) -> None:
        """The files by which a control plane's API server uses etcd."""
        external = self.want.cluster.etcd.external
        if external is None:
            return
        keys = (await asyncio.shield(self._keys)).get(node.name)
        if keys is not None:
            await self._do(EtcdFiles(node, client_files(external, keys)))

    async def serving(self) -> None:
        """Wait until API servers may be started. Raises `AbandonedError` where they never may."""
        await asyncio.shield(self._serves)

    async def ensure(self, artifacts: Callable[[Sequence[Want]], Sequence[Artifact]]) -> None:
        """Make and keep the etcd of the hosts with this role; nothing where there are none.

        `artifacts` gives what was fetched for the wants of `programs`.
        """
        if not self.nodes:
            return
        try:
            await self._ensure(artifacts)
        finally:
            for future in (self._keys, self._serves):
                if not future.done():
                    future.set_exception(AbandonedError())
                    future.exception()  # seen: perhaps nobody asks for it

    # -- the hosts with the role etcd ---------------------------------------------------------------------------

    async def prepare(self, artifacts: Callable[[Sequence[Want]], Sequence[Artifact]]) -> None:
        """The files of the hosts: the CA that one of them has (or a new one), certificates, programs, units. A
        member starts only where it has data."""
        authorities = await self._authorities()
        async with asyncio.TaskGroup() as group:
            certificates = [group.create_task(self._certificates(node, authorities)) for node in self.nodes]
            for node, before in zip(self.nodes, certificates, strict=True):
                programs = artifacts(self.programs(node))
                group.create_task(self._unit(node, programs, before))

    async def _ensure(self, artifacts: Callable[[Sequence[Want]], Sequence[Artifact]]) -> None:
        await self.prepare(artifacts)
        cluster = self.want.cluster
        if is_formed(await self._hosts.looks()):
            await self._do(EtcdMembers(self._hosts, cluster.cluster_name, self._absent))
            if (
                self._check is not None and self._check.new
            ):  # it may not have served when it was looked at first
                async with self._hosts.client() as etcd:
                    await self._check.refuse_another_cluster(etcd)
        else:
            await self._do(EtcdFounded(self._hosts, cluster.cluster_name))
        self._serves.set_result(None)
        for node in self.nodes:
            await self._do(EtcdRestart(self._hosts, node))
        if not self._dry:
            await self._do(EtcdServes(self._hosts))

    async def _authorities(self) -> Authorities:
        """etcd's own CA. All of these hosts have it with its key: any of them may be the one that is lost."""
        directory = self.want.cluster.certificates_dir
        spec = next(one for one in pki.cluster_cas(self._stacked) if one.name == pki.ETCD_CA.name)
        cert, key = spec.cert_path(directory), spec.key_path(directory)
        found = {node.name: await node.host.read_files([cert, key]) for node in self.nodes}
        holder = next((node for node in self.nodes if len(found[node.name]) == 2), self.nodes[0])
        held = found[holder.name].get(cert, b"").strip()
        for node in self.nodes:
            if cert in found[node.name] and found[node.name][cert].strip() != held:
                raise HostError(
                    f"{node.name}: {cert} is another CA than that of {holder.name}", host=node.name,
                    exit_code=ExitCode.HOST_IN_OTHER_CLUSTER,
                    hint="take the host out of the etcd that it is in, and remove the file with its key",
                )  # fmt: skip
        looks = await self._hosts.looks()
        authorities = Authorities(
            holder, directory, [spec], etcd_data=DATA_DIR if any(look.has_data for look in looks) else ""
        )
        await self._do(authorities)
        if pair := authorities.pairs.get(spec.name):
            files = [FileWrite(key, pair.key, pki.KEY_MODE), FileWrite(cert, pair.cert, pki.CERT_MODE)]
            for node in self.nodes:
                if node is not holder:
                    await self._do(EtcdFiles(node, files))
        await self._client(holder, authorities)
        return authorities

    async def _client(self, holder: Node, authorities: Authorities) -> None:
        """The certificate by which all API servers use etcd, kept beside the CA as in kubeadm's guide."""
        specs = [spec for spec in self._leaves(holder) if spec.name == _CLIENT]
        phase = self._certs(holder, specs, authorities, "certs-client")
        await self._do(phase)
        if _CLIENT not in phase.pairs:  # a plan, for hosts without an etcd
            self._keys.set_result({})
            return
        pair, ca = phase.pairs[_CLIENT], authorities.pairs[pki.ETCD_CA.name]
        keys = Credentials(ca.cert, pair.cert, pair.key)
        self._keys.set_result(dict.fromkeys([node.name for node in self._planes], keys))

    async def _certificates(self, node: Node, authorities: Authorities) -> None:
        """A member's own certificates, which etcd reads anew for each connection: no restart is needed."""
        specs = [spec for spec in self._leaves(node) if spec.name != _CLIENT]
        await self._do(self._certs(node, specs, authorities, "certs"))

    def _certs(
        self, node: Node, specs: Sequence[CertSpec], authorities: Authorities, name: str
    ) -> Certificates:
        early = min(_RENEW_BEFORE, min(spec.validity for spec in specs) / 3)
        phase = Certificates(
            node, self.want.cluster.certificates_dir, specs, authorities=authorities, renew_before=early
        )
        phase.name = name  # type: ignore[misc]  # the CA's keeper has two steps of them
        return phase

    async def _unit(self, node: Node, programs: Sequence[Artifact], certificates: asyncio.Task[None]) -> None:
        await self._do(Programs(node, programs))
        await certificates
        want = self.want
        member = ControlPlaneNode(node.name, node.ip)
        await self._do(EtcdUnit(node, etcd_unit(PROGRAM, want.cluster, member, want.facts)))

    def _leaves(self, node: Node) -> list[CertSpec]:
        specs = pki.control_plane_certs(self._stacked, ControlPlaneNode(node.name, node.ip))
        return [spec for spec in specs if spec.ca == pki.ETCD_CA.name]

    @property
    def _stacked(self) -> ClusterConfiguration:
        """The cluster as if etcd were on its control planes: it has the same certificates then."""
        return self.want.cluster.model_copy(update={"etcd": Etcd(local=LocalEtcd())})


def _with_hosts(want: Desired, nodes: Sequence[Node], used: Sequence[str] = ()) -> Desired:
    """With the endpoints of etcd's hosts, in the file's order. One that cannot be reached keeps the one by which
    API servers have used it (`used`); without any it counts where its address is known."""
    if not nodes:
        return want
    known = {node.name: node.ip for node in nodes}
    wanted = []
    for host in want.spec.etcd_hosts:
        sure = known.get(host.name) or host.node_ip
        address = sure or host.address
        wanted.append((client_url(address) if is_address(address) else "", bool(sure)))
    return replace(want, cluster=with_endpoints(want.cluster, kept_endpoints(wanted, used)))
