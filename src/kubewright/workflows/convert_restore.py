"""`convert --restore`: a cluster becomes again what it was when its backup was made."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from kubewright.clients.server import Server
from kubewright.errors import ExitCode, KubewrightError, leaves
from kubewright.events import Events
from kubewright.model import backup as model
from kubewright.model import kubeconfig
from kubewright.model.arguments import EtcdMember
from kubewright.model.backup import BackedUp
from kubewright.model.config.cluster import ClusterSpec, Role
from kubewright.model.config.kubeadm_nodes import ResetConfiguration
from kubewright.model.manifests import API_SERVER, CONTROLLER, ETCD, SCHEDULER_POD, manifest_path
from kubewright.model.pki import CA, ETCD_CA, certificates_dir
from kubewright.model.reset import CONFIG_FILES, check_directory, etcd_data_dir
from kubewright.phases.api import api_over
from kubewright.phases.backup import backed_up, copy_snapshot, etcd_pod
from kubewright.phases.controlplane import ApiServerUp
from kubewright.phases.etcd_host_reset import EtcdHostReset
from kubewright.phases.host_kubeconfig import read_kubeconfig
from kubewright.phases.installed import read_installed, runtime_socket
from kubewright.phases.leave import EtcdMemberGone
from kubewright.phases.loadbalancer import ProxiesGone
from kubewright.phases.node import Node
from kubewright.phases.phase import Action, Change
from kubewright.phases.restore import TOKEN, EtcdRestored, FilesKept, FilesRestored, RestoreBegun, RestoreOver
from kubewright.phases.restore_run import (
    KubeletStarted,
    KubeletStopped,
    NodesReport,
    StaticPodsRun,
    WatchersRestarted,
)
from kubewright.phases.stop_plane import StaticPodsGone
from kubewright.workflows.fleet import on_all, open_fleet
from kubewright.workflows.reset import ADMIN_CONF, Reset
from kubewright.workflows.tree import StepRun

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from kubewright.clients.kube import KubeClient

_PODS = (ETCD, API_SERVER, CONTROLLER, SCHEDULER_POD)
_API_DEADLINE = 300.0
_LIST = 'for path in "$1"/*; do if [ -d "$path" ]; then echo "${path##*/}"; fi; done'


@dataclass
class RestoreResult:
    """What a restore did or, where it was dry, would do."""

    changes: list[Change] = field(default_factory=list)
    server: str = ""
    """The URL of the API in the administrator's kubeconfig that is back."""
    restored: list[str] = field(default_factory=list)
    """The names of the hosts that have their files back."""
    reset: list[str] = field(default_factory=list)
    """The names of the hosts that were in the cluster, and were not when the backup was made."""


@dataclass(frozen=True, slots=True)
class _Plane:
    """A control plane of the backup, by what the backup has of it."""

    node: Node
    socket: str
    pods: tuple[str, ...]
    """Its static Pods."""
    member: EtcdMember | None
    """None where etcd is elsewhere."""
    data_dir: str
    image: str


class _Leaving(Reset):
    """The reset of a host whose cluster is about to forget it: no API and no etcd are asked."""

    records = ()  # the conversion is under way until all hosts are back

    async def remove_etcd_member(self) -> None:
        """Only its data goes: the cluster whose member it was is no more."""
        phase = EtcdMemberGone(self.node, self._certificates_dir)
        await phase.read_data_dir()
        self._etcd_data = check_directory(phase.data_dir, "etcd's data directory") if phase.data_dir else ""


class Restore(StepRun):
    """One run on the hosts of cluster.yaml, all of which are connected."""

    def __init__(
        self, spec: ClusterSpec, nodes: Sequence[Node], backup_id: str, events: Events, *, dry: bool
    ) -> None:
        super().__init__(events, dry=dry)
        self._certificates_dir = certificates_dir(spec.cluster_configuration)
        self._nodes = list(nodes)
        self._id = model.check_id(backup_id)
        self._folder = model.directory(backup_id)
        self._mine: list[Node] = []
        self._planes: list[_Plane] = []
        self._source: Node | None = None
        """The host that has etcd's snapshot."""
        self._server = ""
        self._ca = b""
        self._bumped: list[bool] = []
        self.result = RestoreResult(self.changes)

    async def run(self) -> RestoreResult:
        """All of it. Raises `KubewrightError` before anything is changed where the backup is not whole."""
        await self.find()
        strays, etcd_hosts = await self._strays(), await self._etcd_hosts()
        self.result.restored = [node.name for node in self._mine]
        self.result.reset = [node.name for node in (*strays, *etcd_hosts)]
        self.result.server = self._server
        try:
            await self._restore(strays, etcd_hosts)
        except (KubewrightError, ExceptionGroup) as error:
            for leaf in leaves(error):
                if isinstance(leaf, KubewrightError):
                    again = "the same command goes on where this one stopped"
                    leaf.hint = "; ".join(filter(None, (leaf.hint, again)))
            raise
        return self.result

    # -- what there is ----------------------------------------------------------------------------------------

    async def find(self) -> None:
        """Which hosts have the backup, and what it says of them; raises where it is not whole."""
        paths = [f"{self._folder}/{name}" for name in (model.WHOLE, model.FILES, model.SNAPSHOT)]
        whole, files, snapshot = paths
        found = await asyncio.gather(*(node.host.stat_files(paths, digest=False) for node in self._nodes))
        has = {node.name: stats for node, stats in zip(self._nodes, found, strict=True)}
        lists = [
            model.read_whole(await node.host.read_file(whole) or b"")
            for node in self._nodes
            if whole in has[node.name]
        ]
        hosts = next((one for one in lists if one), [])
        if not hosts:
            raise await self._none([name for name, stats in has.items() if files in stats])
        self._refuse_missing(hosts, {name for name, stats in has.items() if files in stats})
        names = {host.name: host for host in hosts}
        self._mine = [node for node in self._nodes if node.name in names]
        planes = [node for node in self._mine if names[node.name].control_plane]
        self._source = next((node for node in planes if snapshot in has[node.name]), None)
        if self._source is None and any(host.etcd for host in hosts):
            raise KubewrightError(
                f"no control plane has etcd's snapshot of backup {self._id} any more",
                hint=f"put it back as {snapshot} on one of {', '.join(node.name for node in planes)}",
                exit_code=ExitCode.HOST_NOT_FIT,
            )  # fmt: skip
        self._planes = [await self._plane(node) for node in planes]
        kept = await backed_up(planes[0].host, self._id, [ADMIN_CONF, CA.cert_path()])
        self._ca = kept.get(CA.cert_path(), b"")
        document = kubeconfig.load(kept.get(ADMIN_CONF, b""), f"{ADMIN_CONF} in backup {self._id}")
        self._server = kubeconfig.first_server(document)

    async def _none(self, parts: Sequence[str]) -> KubewrightError:
        known: dict[str, None] = {}
        for node in self._nodes:
            said = (await node.host.shell(_LIST, model.BACKUPS, check=False)).text.splitlines()
            known |= dict.fromkeys(f"{node.name}: {name}" for name in said)
        why = "it was never finished: nothing had been changed by then" if parts else "is its name right?"
        return KubewrightError(
            f"no host of cluster.yaml has backup {self._id}" + (" whole" if parts else ""),
            hint=why, evidence=list(known), exit_code=ExitCode.USAGE,
        )  # fmt: skip

    def _refuse_missing(self, hosts: Sequence[BackedUp], having: set[str]) -> None:
        there = {node.name for node in self._nodes}
        gone = [host for host in hosts if host.name not in there]
        missing = [
            f"{host.name} is a control plane of it, and is not in cluster.yaml"
            for host in gone
            if host.control_plane
        ]
        missing += [
            f"{host.name} has no {self._folder}/{model.FILES} any more"
            for host in hosts
            if host.name in there and host.name not in having
        ]
        if missing:
            raise KubewrightError(
                f"backup {self._id} cannot be restored: {'; '.join(missing)}", exit_code=ExitCode.HOST_NOT_FIT,
                hint="all control planes of a backup come back together: bring back what is missing",
            )  # fmt: skip
        for host in gone:
            self.events.warn(f"{host.name} is in the backup and not in cluster.yaml, and stays as it is")

    async def _plane(self, node: Node) -> _Plane:
        host = node.host
        socket = await runtime_socket(host, "", await read_installed(host))
        paths = {name: manifest_path(name) for name in _PODS}
        kept = await backed_up(host, self._id, list(paths.values()))
        pods = tuple(name for name, path in paths.items() if path in kept)
        pod = await etcd_pod(host, self._id) if ETCD in pods else None
        if pod is None:
            return _Plane(node, socket, pods, None, "", "")
        data = check_directory(etcd_data_dir(pod), "etcd's data directory in the backup")
        return _Plane(node, socket, pods, model.member_in(pod), data, model.etcd_image(pod))

    async def _strays(self) -> list[Node]:
        """The hosts that are not in the backup, and carry something of this cluster."""
        others = [node for node in self._nodes if node not in self._mine]
        carry = await asyncio.gather(*(self._carries(node) for node in others))
        return [node for node, does in zip(others, carry, strict=True) if does]

    async def _etcd_hosts(self) -> list[Node]:
        """The hosts of an etcd that came after the backup: it has the cluster's CA of etcd, and in the backup etcd
        is on the control planes."""
        others = [node for node in self._nodes if node not in self._mine and Role.ETCD in node.spec.roles]
        if self._source is None or not others:
            return []
        path = ETCD_CA.cert_path(self._certificates_dir)
        known = [(await backed_up(self._source.host, self._id, [path])).get(path)]
        known += [await plane.node.host.read_file(path) for plane in self._planes]
        found = [(node, await node.host.read_file(path)) for node in others]
        return [node for node, ca in found if ca is not None and ca in known]

    async def _carries(self, node: Node) -> bool:
        path = CA.cert_path()
        found = await node.host.read_files([path, *CONFIG_FILES, *map(manifest_path, _PODS)])
        if path in found:
            return found[path].strip() == self._ca.strip()
        return bool(found)  # a reset that was killed has left it; other clusters' hosts were refused before

    # -- what is done -----------------------------------------------------------------------------------------

    async def _restore(self, strays: Sequence[Node], etcd_hosts: Sequence[Node]) -> None:
        planes = [plane.node for plane in self._planes]
        workers = [node for node in self._mine if node not in planes]
        token = await self._begin()
        await on_all({node.name: self._keep(node) for node in self._mine})
        await on_all(
            {plane.node.name: self._stop(plane) for plane in self._planes}
            | {node.name: self._stop_kubelet(node) for node in workers}
            | {node.name: self._reset(node) for node in strays}
            | {node.name: self._reset_etcd(node) for node in etcd_hosts}
        )
        if not self.dry:
            await on_all({node.name: self._files(node, manifests=False) for node in planes})
        await on_all({plane.node.name: self._etcd(plane, token) for plane in self._planes if plane.member})
        if self._source is None:
            self.events.warn(
                "etcd is elsewhere, and its data stays as it is: Nodes that came later are still there"
            )
        await on_all({node.name: self._files(node, manifests=True) for node in self._mine})
        await self._proxies()
        await on_all({node.name: self._start(node) for node in self._mine})
        if not self.dry:
            await self._settle()
        await on_all({node.name: self._over(node) for node in self._nodes})

    async def _begin(self) -> str:
        """The restore's name: that of one which was killed, or a new one."""
        path = f"{self._folder}/{TOKEN}"
        said = [await plane.node.host.read_file(path) for plane in self._planes]
        before = next((one.decode(errors="replace").strip() for one in said if one), "")
        token = before if before.isalnum() else secrets.token_hex(8)
        for plane in self._planes:
            await self.do(RestoreBegun(plane.node, self._id, token))
        return token

    async def _keep(self, node: Node) -> None:
        await self.do(FilesKept(node, self._id))

    async def _stop(self, plane: _Plane) -> None:
        await self.do(KubeletStopped(plane.node))
        await self.do(StaticPodsGone(plane.node, plane.socket))

    async def _stop_kubelet(self, node: Node) -> None:
        await self.do(KubeletStopped(node))

    async def _reset(self, node: Node) -> None:
        run = _Leaving(node, ResetConfiguration(), self.events, kubeconfig_path="", dry=self.dry)
        installed = await run.installed()
        socket = await runtime_socket(node.host, "", installed)
        await run.remove_etcd_member()
        await run.cleanup_node()
        self.changes += run.changes
        if installed.is_control_plane and not self.dry:
            # A reset only warns of what it cannot end, and members that went on would be the old cluster still.
            await self.do(StaticPodsGone(node, socket))

    async def _reset_etcd(self, node: Node) -> None:
        await self.do(EtcdHostReset(node, self._certificates_dir, self._id))

    async def _files(self, node: Node, *, manifests: bool) -> None:
        await self.do(FilesRestored(node, self._id, manifests=manifests))

    async def _etcd(self, plane: _Plane, token: str) -> None:
        assert self._source is not None
        path = f"{self._folder}/{model.SNAPSHOT}"
        if path not in await plane.node.host.stat_files([path], digest=False):
            if self.dry:
                self.changes.append(Change(Action.CREATE, path, plane.node.name))
            else:
                async with self.events.phase("copy-snapshot", "bring etcd's snapshot", host=plane.node.name):
                    await copy_snapshot(self._source, plane.node, self._id)
        members = [one.member for one in self._planes if one.member is not None]
        phase = EtcdRestored(plane.node, self._id, members, plane.data_dir, plane.image, token)
        await self.do(phase)
        self._bumped.append(phase.bumped)

    async def _proxies(self) -> None:
        """Proxies go where the API is at a control plane's own address again. Where the backup has an endpoint,
        nobody knows whether it is one of them that serves it."""
        own = {plane.node.ip for plane in self._planes}
        if urlsplit(self._server).hostname not in own:
            self.events.note(f"the endpoint's proxies stay: the API was at {self._server}")
            return
        await on_all({node.name: self._proxy(node) for node in self._nodes})

    async def _proxy(self, node: Node) -> None:
        phase = ProxiesGone(node)
        if await phase.look():  # most hosts have none, and nothing is said of them
            await self.do(phase)

    async def _start(self, node: Node) -> None:
        await self.do(KubeletStarted(node))

    async def _settle(self) -> None:
        """Wait until all that was there runs and reports, and let nobody go on with what was later."""
        first = self._planes[0].node
        async with self._api(first) as kube:
            await self.do(ApiServerUp(first, kube, _API_DEADLINE))
            await self.do(NodesReport(kube, [node.name for node in self._mine if node.spec.is_node]))
        await on_all({plane.node.name: self._pods_run(plane) for plane in self._planes})
        if self._source is not None and not all(self._bumped):
            await on_all({node.name: self._watchers(node) for node in self._mine if node.spec.is_node})
            self.events.warn(
                "Pods outside kube-system that watch the API (operators, ingress controllers) may hold what was "
                "there before the restore: restart them (kubectl -n NAMESPACE rollout restart deployment NAME)"
            )

    @asynccontextmanager
    async def _api(self, plane: Node) -> AsyncIterator[KubeClient]:
        """The API where the administrator's kubeconfig that is back says it is."""
        server = Server.from_kubeconfig(await read_kubeconfig(plane.host, ADMIN_CONF))
        async with api_over(plane.host, server) as kube:
            yield kube

    async def _pods_run(self, plane: _Plane) -> None:
        await self.do(StaticPodsRun(plane.node, plane.socket, plane.pods))

    async def _watchers(self, node: Node) -> None:
        socket = await runtime_socket(node.host, "", await read_installed(node.host))
        await self.do(WatchersRestarted(node, socket, _PODS))

    async def _over(self, node: Node) -> None:
        await self.do(RestoreOver(node, self._id))


async def restore(spec: ClusterSpec, backup_id: str, events: Events, *, dry: bool = False) -> RestoreResult:
    """Bring a cluster back to a backup; with `dry`, only look what would be done.

    Hosts that came to the cluster after the backup are reset. What etcd has stored since is lost to the cluster,
    and stays beside it on the control planes. Raises `ConfigError` for an id that is none, `KubewrightError`
    before anything is changed where no host has the backup, or a host that is needed cannot be reached.
    """
    model.check_id(backup_id)
    async with events.workflow("convert", f"restore backup {backup_id}") as activity:
        async with open_fleet(spec, None, events, moves=True) as nodes:
            result = await Restore(spec, nodes, backup_id, events, dry=dry).run()
        activity.summary(f"{len(result.changes)} changes; the API is at {result.server}")
        return result
