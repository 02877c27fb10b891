"""`convert`: a cluster that runs gets an endpoint, and control planes behind it, while it serves."""

from __future__ import annotations

import asyncio
import shlex
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from kubewright.clients.kube import KubeClient
from kubewright.clients.server import Server
from kubewright.components.open import open_source
from kubewright.errors import ConfigError, ExitCode, HostError, KubewrightError, leaves
from kubewright.events import Events
from kubewright.model import backup, formation, kubeconfig, manifests, moving, pki
from kubewright.model.backup import BackedUp
from kubewright.model.config.cluster import ClusterSpec
from kubewright.model.conversion import Existing, Mode, Record
from kubewright.model.kept_names import with_names_of
from kubewright.model.loadbalancer import Backend
from kubewright.model.node import split_endpoint
from kubewright.model.objects import SYSTEM, Object, read_mapping
from kubewright.model.reset import container_flags
from kubewright.phases import conversion_record
from kubewright.phases.api import api_over
from kubewright.phases.backup import Backup, BackupWhole
from kubewright.phases.controlplane import ca_directories
from kubewright.phases.conversion_record import RecordEnded, RecordKept
from kubewright.phases.endpoint import EndpointAnswers
from kubewright.phases.etcd_secured import EtcdSecured
from kubewright.phases.host_kubeconfig import read_kubeconfig
from kubewright.phases.kubeconfig_server import KubeconfigServer
from kubewright.phases.kubelet_server import KubeletServer
from kubewright.phases.kubelet_turns import KubeletTurns
from kubewright.phases.moving import EndpointTold, ProxyMoved
from kubewright.phases.node import Node
from kubewright.phases.phase import Action, Change, Phase
from kubewright.phases.pki import Authorities, Certificates
from kubewright.phases.rollout import Rollout
from kubewright.phases.served import CertificateServed
from kubewright.workflows.apply import apply
from kubewright.workflows.convert_checks import check
from kubewright.workflows.convert_resume import wake
from kubewright.workflows.convert_run import ConversionRun, Report
from kubewright.workflows.desired import Desired
from kubewright.workflows.endpoint import Endpoint
from kubewright.workflows.fleet import open_fleet
from kubewright.workflows.inspect_fleet import LENIENT, inspect_fleet

_SERVED = 90.0
"""Seconds in which an API server shows its new certificate: those of 1.20 look at its file once a minute."""

_BACKUP = "backup"
_TLS = ("cert-file", "trusted-ca-file", "peer-cert-file", "peer-trusted-ca-file")
"""etcd's flags of which an etcd without TLS has none (etcd's documentation, "Transport security model")."""


async def convert(
    spec: ClusterSpec,
    mode: Mode,
    events: Events,
    *,
    file: Path = Path("cluster.yaml"),
    kubeconfig_out: Path | None = None,
    merge_kubeconfig: bool = True,
    dry: bool = False,
    kind: type[Conversion] | None = None,
) -> Report:
    """Let the cluster of `spec` have the endpoint that it says and, with `TO_HA`, all of its control planes.

    `kind` has other stages. Everything is looked at first, and backed up; a run that was killed is finished by the
    next. `file` is where `spec` is from, for the command that brings everything back, which is told before the
    first change. Raises `KubewrightError`, before anything is changed where the cluster or its hosts are not fit.
    """
    async with events.workflow("convert", f"convert cluster {spec.name}") as activity:
        want = await Desired.of(spec, open_source(spec.source))
        lost: dict[str, HostError] = {}
        inspect = partial(inspect_fleet, spec)
        async with open_fleet(
            spec, None, events, lost=lost, moves=True, inspect=inspect, ignored=LENIENT
        ) as nodes:
            record = await conversion_record.read(nodes)
            if record is not None and not dry:
                await wake(nodes, record, events)
            existing = await check(
                spec, nodes, mode=mode, lost=lost, events=events, resumed=record is not None
            )

            def conversion(*, dry: bool) -> Conversion:
                made = kind or Conversion
                return made(spec, mode, want, nodes, existing, record, events, file=file, dry=dry)

            planned = conversion(dry=True)
            # What a phase refuses when it looks is refused before anything is changed. A run that goes on may find
            # things half done, and looks when their turn comes.
            due = await planned.plan() if dry or record is None else True
            if dry:
                report = planned.report
            else:
                converting = conversion(dry=False)
                report = converting.report
                async with converting.way_back():
                    if due:
                        await converting.until_moved()
                    async with converting.run.stage("control-planes", "the rest, by `apply`") as stage:
                        report.outcome = await apply(
                            spec, events, kubeconfig_out=kubeconfig_out, merge_kubeconfig=merge_kubeconfig,
                            ignored=LENIENT,
                        )  # fmt: skip
                        stage.changes += report.outcome.changes
                    if due:
                        await converting.end()
        activity.data |= report.as_dict()
        activity.summary(f"cluster {spec.name} is reached at {report.after}: {len(report.changes)} changes")
        return report


class Conversion:
    """One run, up to the moment from which `apply` goes on."""

    def __init__(
        self, spec: ClusterSpec, mode: Mode, want: Desired, nodes: Sequence[Node], existing: Existing,
        record: Record | None, events: Events, *, file: Path, dry: bool,
    ) -> None:  # fmt: skip
        self._spec = spec
        self._nodes = {node.name: node for node in nodes}
        self._existing = existing
        self._endpoint = Endpoint(spec, nodes, self._do)
        self._address = self._endpoint.address
        self._url = f"https://{self._address or existing.address}"
        self._want = want.with_endpoint(self._address, self._endpoint.names)
        self._planes = [self._nodes[name] for name in existing.control_planes]
        self._lead = self._planes[0]
        self._resumed = record is not None
        self._record = record or Record(
            id=backup.new_id(datetime.now(UTC)), mode=mode, began=datetime.now(UTC), came_from=existing.server,
            to=self._to, control_planes=existing.control_planes, nodes=existing.nodes,
        )  # fmt: skip
        self._restore = backup.restore_command(self._record.id, shlex.quote(str(file)))
        self._kept = self._resumed
        self._record.refuse_mode(mode, self._restore)
        self._refuse_another()
        self.report = Report(mode, self._record.came_from, self._url, self._record.id if self._kept else "")
        self.run = ConversionRun(events, self.report, dry=dry)
        self._turns = KubeletTurns(events)

    @property
    def _to(self) -> str:
        """What the record says that it leads to."""
        return self._address

    def _refuse_another(self) -> None:
        """Raise `ConfigError` where a conversion to another endpoint is under way."""
        if self._record.to != self._address:
            raise ConfigError(
                f"a conversion to {self._record.to} is under way (backup {self._record.id}), and cluster.yaml "
                f"says {self._address}",
                exit_code=ExitCode.CONFIG_INVALID,
                hint=f"let endpoint be {self._record.to} and finish it, or bring back what was: {self._restore}",
            )  # fmt: skip

    async def until_moved(self) -> None:
        """Every stage before `apply`."""
        await self._keep()
        async with api_over(self._lead.host, await self._own_server(self._lead)) as kube:
            await self._secure_etcd(kube)
            await self._certificates()
            await self._proxies()
            await self._tell(kube)
            await self._move(kube)

    async def plan(self) -> bool:
        """In a dry run: what all stages would do. A backup alone would be for nothing: whether there is more."""
        await self.until_moved()
        await self._plan_rest()
        due = any(stage.name != _BACKUP for stage in self.report.stages)
        if not due:
            self.report.stages.clear()
        return due

    async def _plan_rest(self) -> None:
        """What `apply` will be for."""
        async with self.run.stage("control-planes", "the rest, by `apply`") as stage:
            stage.changes += [
                Change(Action.RUN, f"add {'control plane' if node.is_control_plane else 'worker'}", node.name)
                for node in self._nodes.values()
                if node.spec.is_node and node.name not in self._existing.nodes
            ]

    async def end(self) -> None:
        """The conversion is over: the next run would be another one."""
        everywhere = list(self._nodes.values())
        await RecordEnded(everywhere, self._record, datetime.now(UTC)).run(self.run.events)

    @asynccontextmanager
    async def way_back(self) -> AsyncIterator[None]:
        """Whatever fails inside says how to go on, and how to go back where there is a backup."""
        try:
            yield
        except (KubewrightError, ExceptionGroup) as error:
            again = f"the same command goes on where this one stopped; `{self._restore}` brings back what was"
            for leaf in leaves(error) if self._kept else ():
                if isinstance(leaf, KubewrightError):
                    leaf.hint = "; ".join(filter(None, (leaf.hint, again)))
            raise

    # -- how ----------------------------------------------------------------------------------------------------

    async def _do(self, phase: Phase) -> Sequence[Change]:
        return await self.run.do(phase)

    async def _on_all(self, phases: Iterable[Phase]) -> None:
        async with asyncio.TaskGroup() as group:
            for phase in phases:
                group.create_task(self.run.do(phase))

    async def _own_server(self, node: Node) -> Server:
        """A control plane's own API server, whatever its admin.conf names by now."""
        admin = await read_kubeconfig(node.host, f"{kubeconfig.KUBERNETES_DIR}/{kubeconfig.ADMIN}")
        return replace(Server.from_kubeconfig(admin), url=self._want.control_plane(node).url)

    @property
    def _directory(self) -> str:
        return self._want.cluster.certificates_dir

    @property
    def _members(self) -> list[Node]:
        """The hosts that are Nodes, control planes first. One that a run before has half added is `apply`'s."""
        planes, before = self._existing.control_planes, self._record.nodes
        coming = {host.name for host in self._spec.control_planes} - {*planes, *before}
        names = [*planes, *(name for name in self._existing.nodes if name not in coming)]
        return [self._nodes[name] for name in dict.fromkeys(names)]

    @property
    def _before(self) -> list[Node]:
        """The control planes that there were when the conversion began, but for those that have left since."""
        return [self._nodes[name] for name in self._record.control_planes if name in self._nodes]

    # -- the stages ---------------------------------------------------------------------------------------------

    async def _keep(self) -> None:
        """What was, so that it can be brought back; what an earlier run has kept is what was."""
        async with self.run.stage(_BACKUP, "keep what is there"):
            if not self._resumed:  # what is missing by now would be kept as it is now
                await self._back_up()
            if not self.run.dry:
                self._kept = True
                self.report.backup = self._record.id
                self.run.events.note(f"to have back what was: {self._restore}")
            # Last: a conversion that is on record has its backup.
            await self._do(RecordKept(self._before, self._record))

    async def _back_up(self) -> None:
        data, nodes = self._existing.etcd_data, [self._nodes[name] for name in self._record.nodes]
        await self._on_all(
            Backup(
                node, self._record.id, data_dir=data if node in self._before else "",
                snapshot=bool(data) and node is self._before[0],
            )
            for node in nodes
        )  # fmt: skip
        hosts = [
            BackedUp(node.name, node.ip, node in self._before, bool(data) and node in self._before)
            for node in nodes
        ]
        await self._on_all(BackupWhole(node, self._record.id, hosts) for node in self._before)

    async def _secure_etcd(self, kube: KubeClient) -> None:
        """An etcd that others could not join gets TLS, on an address that they reach."""
        if not (self._existing.etcd_plain or self._existing.etcd_loopback):
            return
        async with self.run.stage("etcd", "let etcd serve others, by TLS"):
            node = self._lead
            await self._leaves(node)
            await self._do(EtcdSecured(node, kube, await self._etcd_pods(node), self._directory))

    async def _etcd_pods(self, node: Node) -> dict[str, Object]:
        """Static Pods as they are to be, with the images that run now: another one may not be on the host."""
        paths = {name: manifests.manifest_path(name) for name in (manifests.ETCD, manifests.API_SERVER)}
        found = await node.host.read_files(paths.values())
        begun = formation.begun_in(found.get(paths[manifests.ETCD]))
        pods = manifests.static_pods(
            self._want.cluster, self._want.control_plane(node), self._want.facts,
            ca_dirs=await ca_directories(node.host),
            etcd_members=begun.members if begun else (), etcd_state=begun.state if begun else "",
        )  # fmt: skip
        for name, path in paths.items():
            if image := manifests.image_of(read_mapping(found.get(path, b"")) or {}, name):
                pods[name]["spec"]["containers"][0]["image"] = image
        return pods

    async def _leaves(self, node: Node) -> None:
        """The certificates of a control plane, for all names that it has from now on."""
        cluster, kind = self._want.cluster, pki.key_kind(self._want.cluster)
        cas, data = pki.cluster_cas(cluster), self._existing.etcd_data
        if data and await self._lacks_etcd_ca(node):
            # A new one cuts off nobody, for nobody trusts it yet. The others are not made anew under a cluster.
            rest = [ca for ca in cas if ca.name != pki.ETCD_CA.name]
            await self._do(Authorities(node, self._directory, rest, etcd_data=data, service_account=kind))
            data = ""
        authorities = Authorities(node, self._directory, cas, etcd_data=data, service_account=kind)
        await self._do(authorities)
        specs = pki.control_plane_certs(cluster, self._want.control_plane(node))
        paths = {spec.name: spec.cert_path(self._directory) for spec in specs}
        found = await node.host.read_files(paths.values())
        # Whoever uses a name that somebody has added goes on using it.
        specs = tuple(with_names_of(found.get(paths[spec.name]), spec) for spec in specs)
        await self._do(Certificates(node, self._directory, specs, authorities=authorities, etcd_data=data))

    async def _lacks_etcd_ca(self, node: Node) -> bool:
        """Whether a host's etcd has no CA and uses none: it speaks plain http."""
        manifest, ca = manifests.manifest_path(manifests.ETCD), pki.ETCD_CA.cert_path(self._directory)
        found = await node.host.read_files([manifest, ca])
        flags = container_flags(read_mapping(found.get(manifest, b"")) or {})
        return ca not in found and not any(name in flags for name in _TLS)

    async def _certificates(self) -> None:
        """P26: each API server's certificate is for the endpoint, before anybody goes there."""
        async with self.run.stage("certificates", "certificates for the endpoint's names"):
            for node in self._planes:
                await self._leaves(node)
            name = split_endpoint(self._address)[0]
            path = f"{self._directory}/apiserver.crt"
            for node, plane in [(node, self._want.control_plane(node)) for node in self._planes]:
                await self._do(
                    CertificateServed(
                        node, plane.advertise_address, plane.bind_port, [name], path=path, deadline=_SERVED
                    )
                )

    async def _tell(self, kube: KubeClient) -> None:
        async with self.run.stage("config", "tell whoever joins"):
            await self._do(EndpointTold(kube, self._address, self._want.cluster.api_server.cert_sans))

    async def _proxies(self) -> None:
        """The endpoint leads to the API servers that there are; `apply` puts the others behind it."""
        async with self.run.stage("endpoint", f"the endpoint {self._address}"):
            ca = await self._ca()
            planes = [self._want.control_plane(node) for node in self._planes]
            backends = [Backend(one.name, one.advertise_address, one.bind_port) for one in planes]
            await self._endpoint.ensure(backends, ca)
            await self._on_all(EndpointAnswers(node, self._address, ca) for node in self._members)

    async def _ca(self) -> bytes:
        path = pki.CA.cert_path(self._directory)
        found = await self._lead.host.read_file(path)
        assert found is not None, f"{path} was there when the conditions were checked"
        return found

    async def _move(self, kube: KubeClient) -> None:
        """All clients, node by node: what one of them makes fail shall not happen to the next (P30)."""
        async with self.run.stage("clients", "kubeconfigs, kubelets and kube-proxy use the endpoint"):
            configs = [KubeconfigServer(node, self._url) for node in self._planes]
            await self._on_all(configs)
            self.report.notes += [
                f"{one.host_name}: {one.left_alone} is no copy of admin.conf, and was left as it is: it does not "
                f"name {self._url}"
                for one in configs
                if one.left_alone
            ]
            local = self._want.facts.kubelet_local_mode(self._want.cluster.feature_gates)
            for node in self._members:
                own = local and node in self._planes
                server = self._want.control_plane(node).url if own else self._url
                await self._kubelet(KubeletServer(node, kube, server), node, kube)
            await self._do(ProxyMoved(kube, self._url))
            if await kube.get("apps/v1", "DaemonSet", moving.PROXY, SYSTEM) is not None and not self.run.dry:
                names = [node.name for node in self._members]
                await self._do(Rollout(kube, [("DaemonSet", moving.PROXY)], names))

    async def _kubelet(self, phase: KubeletServer, node: Node, kube: KubeClient) -> None:
        """One kubelet, whose Pods are Ready again before the next one's turn."""
        if self.run.dry or not await phase.look():
            await self._do(phase)
            return
        async with self._turns.turn(node, kube):
            await self._do(phase)
