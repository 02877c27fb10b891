"""A Node leaves its cluster: drained, out of the endpoint and of etcd, its host reset where it can be reached."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from kubewright.clients.kube import KubeClient
from kubewright.errors import ExitCode, HostError, KubewrightError
from kubewright.events import Events
from kubewright.model import stored
from kubewright.model.config.kubeadm import ClusterConfiguration
from kubewright.model.kept import Kept
from kubewright.model.node import split_endpoint
from kubewright.model.objects import SYSTEM, Object
from kubewright.model.pki import CA
from kubewright.model.reset import check_directory
from kubewright.model.status import internal_ip, is_plane
from kubewright.phases.alive import is_silent, reports
from kubewright.phases.drain import DEADLINE, Drain
from kubewright.phases.etcd_members import EtcdLeaderAway, EtcdMemberOut, Leaver
from kubewright.phases.gone import GoneNodes
from kubewright.phases.installed import Installed, read_installed, runtime_socket
from kubewright.phases.leave import EndpointGone, EtcdMemberGone
from kubewright.phases.left_behind import left_behind
from kubewright.phases.loadbalancer import ProxiesGone
from kubewright.phases.node import Node
from kubewright.phases.phase import Change, Phase
from kubewright.phases.reset import CleanUp
from kubewright.phases.reset_filter import PacketFilterGone
from kubewright.phases.reset_network import PodNetworkGone
from kubewright.phases.stop_plane import ServersGone


@dataclass(frozen=True)
class Staying:
    """The cluster that a Node leaves, and how work is done in it."""

    kube: KubeClient
    """Through a control plane that stays."""
    planes: Sequence[Node]
    """The control planes that stay and whose hosts are reached. etcd is asked through the first."""
    cluster: ClusterConfiguration
    events: Events
    do: Callable[[Phase], Awaitable[Sequence[Change]]]
    """Runs a phase, or only looks."""
    without: Callable[[str], Awaitable[None]]
    """Takes the control plane of this name from behind the endpoint, on all proxies."""

    @property
    def stacked(self) -> bool:
        """Whether control planes have members of etcd."""
        return self.cluster.etcd.external is None


@dataclass(frozen=True, slots=True)
class DrainOptions:
    """How a Node is drained; see `phases.drain.Drain`."""

    deadline: float = DEADLINE
    grace: int | None = None
    force: bool = False


class Removal:
    """One Node that leaves. Its Node object goes last, so that a run that was killed is finished by the next."""

    def __init__(
        self, stay: Staying, name: str, host: Node | None, options: DrainOptions | None = None, *,
        dead: bool = False,
    ) -> None:  # fmt: skip
        """`host` is None where it cannot be reached; `dead` says that it is known to be no more."""
        self._stay = stay
        self._name = name
        self._host = host
        self._options = options or DrainOptions()
        self._dead = dead
        self._live: Object = {}
        self._installed: Installed | None = None
        self._leaver = Leaver(name)
        self.kept: list[Kept] = []
        """What the host's reset leaves alone, or would."""

    async def run(self) -> None:
        """Every step. Raises `KubewrightError` before anything is changed where the Node must not leave."""
        stay, name = self._stay, self._name
        await self._look()
        plane = await self._is_plane()
        if plane:
            self._refuse_needed()
        drains = await self._drains()
        leader: EtcdLeaderAway | None = None
        member: EtcdMemberOut | None = None
        if plane and stay.stacked:
            way = (stay.planes[0], stay.kube, stay.cluster.certificates_dir, self._leaver)
            leader, member = EtcdLeaderAway(*way), EtcdMemberOut(*way)
            await leader.look()
        if drains is not None:
            await stay.do(drains)
        if leader is not None:
            await stay.do(leader)
        if plane:
            await stay.without(name)
            if self._host is not None:
                await stay.do(ServersGone(self._host, await self._socket(self._host)))
        if member is not None:
            await stay.do(member)
        if plane:
            await stay.do(EndpointGone(stay.kube, name))
        if self._host is not None:
            await self._reset(self._host)
        await stay.do(GoneNodes(stay.kube, lambda one: one == name))

    async def _look(self) -> None:
        """What the cluster and the host say of it."""
        self._live = await self._stay.kube.get("v1", "Node", self._name) or {}
        found = [address] if (address := internal_ip(self._live)) else []
        if self._host is not None:
            found.append(self._host.ip)
            self._installed = await read_installed(self._host.host)
            if foreign := await other_cluster(self._stay, self._host):
                raise self._taken(foreign)
            self._refuse_other_node(self._installed.node_name)
        self._leaver = Leaver(self._name, tuple(dict.fromkeys(found)), dead=self._dead)

    def _refuse_other_node(self, node_name: str) -> None:
        """An address that another Node has by now must not lead to that one's end."""
        if node_name and node_name != self._name:
            assert self._host is not None
            raise self._taken(f"the host at {self._host.spec.address} is Node {node_name} by now")

    def _taken(self, why: str) -> HostError:
        """The error for a host that has become another's, and is none of ours to reset."""
        return HostError(
            f"{self._name}: {why}", host=self._name, exit_code=ExitCode.HOST_IN_OTHER_CLUSTER,
            hint=f"kubewright node remove {self._name} --gone, if the host that was {self._name} is no more",
        )  # fmt: skip

    async def _is_plane(self) -> bool:
        """Whether it is a control plane. What an interrupted run has left of one is one, too."""
        if self._installed is not None and self._installed.is_control_plane:
            return True
        if not self._live or is_plane(self._live):
            return True
        config = await self._stay.kube.get("v1", "ConfigMap", stored.KUBEADM_CONFIG, SYSTEM)
        return self._name in (stored.cluster_status_in(config).get("apiEndpoints") or {})

    def _refuse_needed(self) -> None:
        """The only control plane, and the one whose address is the cluster's, cannot go."""
        if not self._stay.planes:
            raise KubewrightError(
                f"{self._name} is the only control plane that can be reached: without it there is no cluster",
                host=self._name, exit_code=ExitCode.HOST_NOT_FIT,
                hint="add another control plane first; `kubewright lab down` or `kubewright reset` on each host "
                "ends a whole cluster",
            )  # fmt: skip
        endpoint = self._stay.cluster.control_plane_endpoint
        if endpoint and split_endpoint(endpoint)[0] in self._leaver.addresses:
            raise KubewrightError(
                f"{self._name}: the cluster's endpoint {endpoint} is an address of this host, and all use it",
                host=self._name, exit_code=ExitCode.HOST_NOT_FIT,
                hint="a load balancer, or the endpoint type `local`, survives each of the control planes",
            )  # fmt: skip

    async def _drains(self) -> Drain | None:
        """How it is drained, after a look that refuses what would be lost; None where no kubelet ends Pods."""
        if not self._live:
            return None
        if not await self._has_kubelet():
            self._leaver = Leaver(self._leaver.name, self._leaver.addresses, dead=self._host is None)
            self._stay.events.note(
                f"Node {self._name} is not drained: its kubelet does not report"
                + ("" if self._host is None else ", though its host is up")
            )
            return None
        options = self._options
        drain = Drain(
            self._stay.kube, self._name, deadline=options.deadline, grace=options.grace, force=options.force
        )
        await drain.look()
        return drain

    async def _has_kubelet(self) -> bool:
        if self._dead:
            return False
        if self._host is None:
            return await reports(self._stay.kube, self._live)
        if is_silent(self._live):
            return False
        # One that was stopped a moment ago is not missed yet.
        active = await self._host.host.run(["systemctl", "is-active", "--quiet", "kubelet"], check=False)
        return active.ok

    async def _socket(self, host: Node) -> str:
        return await runtime_socket(host.host, "", self._installed or await read_installed(host.host))

    async def _reset(self, host: Node) -> None:
        """What `kubewright reset` does, and its proxy; its member has left etcd already."""
        directory = check_directory(self._stay.cluster.certificates_dir, "certificatesDir")
        member = EtcdMemberGone(host, directory)
        await member.read_data_dir()
        data = check_directory(member.data_dir, "etcd's data directory") if member.data_dir else ""
        clean = CleanUp(
            host, certificates_dir=directory, cri_socket=await self._socket(host), etcd_data=data,
            tmp_dir=False, lazy_unmount=False, force_unmount=False,
        )  # fmt: skip
        rules, network = PacketFilterGone(host), PodNetworkGone(host)
        for phase in (clean, rules, network):
            await self._stay.do(phase)
        await self._stay.do(ProxiesGone(host))  # the kubelet may have used it until now
        self.kept += [*clean.kept, *rules.kept, *network.kept, *await left_behind(host.host)]
        for warning in (*clean.warnings, *rules.warnings, *network.warnings):
            self._stay.events.warn(warning, host=host.name)


async def other_cluster(stay: Staying, host: Node) -> str:
    """Why a host is another cluster's, in words; empty where its CA is this one's, or where it has none any more:
    what an interrupted reset has left is still to be removed."""
    own = CA.cert_path(stay.cluster.certificates_dir)
    ca = await stay.planes[0].host.read_file(own) if stay.planes else None
    found = await host.host.read_files(dict.fromkeys((own, CA.cert_path())))
    if ca is None or not found or ca.strip() in (one.strip() for one in found.values()):
        return ""
    paths = " and ".join(found)
    return f"the host at {host.spec.address} is in another cluster by now: its {paths} is not this cluster's"
