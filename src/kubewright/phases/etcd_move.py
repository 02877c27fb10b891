"""etcd moves to hosts of its own: a member there leads, and those of control planes leave and are put aside."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager, suppress
from typing import Any, ClassVar

from kubewright.clients.etcd import Credentials, EtcdClient, EtcdError
from kubewright.clients.kube import KubeClient
from kubewright.errors import ExitCode, HostError
from kubewright.events import Activity
from kubewright.hosts import Host
from kubewright.model import etcd_moves as model
from kubewright.model import moving, stored
from kubewright.model.etcd_hosts import EtcdHostLook, SeenMember
from kubewright.model.etcd_moves import Stacked
from kubewright.model.manifests import ETCD, manifest_path
from kubewright.model.objects import SYSTEM
from kubewright.phases.etcd import credentials, until_granted
from kubewright.phases.etcd_hosts import HEALTH, EtcdHosts
from kubewright.phases.node import Node
from kubewright.phases.phase import Action, Change, Phase
from kubewright.phases.stop_plane import ServersGone
from kubewright.phases.waiting import wait_until

_PATIENCE = 120.0
_MANIFEST = manifest_path(ETCD)

# Who refuses a connection has been reached. Without bash nothing is said.
_CLOSED = r"""
command -v bash >/dev/null && command -v timeout >/dev/null || exit 0
for place; do
  said=$(LC_ALL=C timeout 5 bash -c 'exec 3<>"/dev/tcp/$1/$2"' bash "${place% *}" "${place##* }" 2>&1)
  case $? in 0) continue ;; 124) said='no answer in 5 s' ;; esac
  case $said in *refused*) continue ;; esac
  printf '%s: %s\n' "$place" "$(printf '%s\n' "$said" | sed -n '$s/.*: //;$p')"
done
"""
# A name that is taken is kept, too: nobody knows whose data that is.
_ASIDE = r"""
[ -e "$1" ] || exit 0
place=$2; n=1
while [ -e "$place" ] || [ -L "$place" ]; do n=$((n + 1)); place=$2-$n; done
mv -- "$1" "$place" && sync
"""


async def closed_ways(host: Host, places: Sequence[tuple[str, int]]) -> list[str]:
    """Those addresses and ports that a host's packets do not get to, each with what was seen. A port on which
    nobody listens yet has been reached."""
    asked = [f"{address} {port}" for address, port in places]
    said = await host.shell(_CLOSED, *asked, timeout=20 + 6 * len(asked), check=False)
    return said.text.splitlines()


class MovingEtcd(EtcdHosts):
    """One etcd whose members are on control planes, on the hosts to which it moves, or on both."""

    def __init__(
        self, nodes: Sequence[Node], planes: Sequence[Node], members: Sequence[Stacked], certificates_dir: str
    ) -> None:
        """`nodes` are the hosts, `members` those of the control planes `planes`."""
        super().__init__(nodes, certificates_dir)
        self._planes = list(planes)
        self.stacked = list(members)

    @property
    def endpoints(self) -> list[str]:
        """Where members serve clients, those on the hosts first: they stay."""
        return [*super().endpoints, *(url for one in self.stacked for url in one.client_urls)]

    async def _credentials(self) -> Credentials:
        """Those of the first host that has them, be it a control plane: the hosts may be bare."""
        *others, last = [*self.nodes, *self._planes]
        for node in others:
            with suppress(HostError):
                return await credentials(node.host, self.certificates_dir)
        return await credentials(last.host, self.certificates_dir)

    def _connect(self, address: str, port: int) -> AbstractAsyncContextManager[tuple[str, int]]:
        """Each member is asked through its own host."""
        known = [*self.nodes, *self._planes]
        through = next((node for node in known if node.ip == address), known[-1])
        return through.host.forward_tcp(address, port)

    async def standing(self, etcd: EtcdClient) -> tuple[list[SeenMember], list[EtcdHostLook]]:
        """All members, and what the hosts hold."""
        return await self.seen(etcd), await self.looks()

    async def leader(self, etcd: EtcdClient) -> tuple[SeenMember | None, str]:
        """Who leads, and where it is asked; nobody where none of them says so itself."""
        members = await etcd.members()
        seen = {one.id: one for one in await self.seen(etcd)}
        for one in members:
            if one.client_urls and one.id in seen:
                with suppress(EtcdError):
                    if (await etcd.status(one.client_urls[0])).is_leader:
                        return seen[one.id], one.client_urls[0]
        return None, ""


class EtcdLeads(Phase):
    """A member on the hosts leads: were the leader to leave, there would be none for a second or more."""

    name: ClassVar[str] = "etcd-leader"
    title: ClassVar[str] = "let a member on the hosts lead etcd"

    def __init__(self, hosts: MovingEtcd, *, deadline: float = HEALTH) -> None:
        self._hosts = hosts
        self._deadline = deadline

    async def look(self) -> list[Change]:
        """Whether another one leads, or nobody."""
        async with self._hosts.client() as etcd:
            return [] if await self._led(etcd) is None else [Change(Action.RUN, self.title)]

    async def _led(self, etcd: EtcdClient) -> str | None:
        """Why etcd is not led from the hosts; None where it is."""
        leader, _ = await self._hosts.leader(etcd)
        if leader is None:
            return "nobody leads etcd"
        return None if leader.peer_url in self._hosts.by_peer() else f"{leader} leads"

    async def act(self, changes: Sequence[Change], activity: Activity) -> None:
        """Hand it over; where there is no leader, one is waited for."""
        async with self._hosts.client() as etcd:
            await wait_until(
                lambda: self._hand_over(etcd), "a member on the hosts to lead etcd", deadline=self._deadline,
                interval=0.5, diagnose=self._hosts.evidence, progress=activity.progress,
                hint="are all of etcd's hosts up?",
            )  # fmt: skip

    async def _hand_over(self, etcd: EtcdClient) -> str | None:
        if (why := await self._led(etcd)) is None:
            return None
        leader, url = await self._hosts.leader(etcd)
        heirs = model.heirs(*await self._hosts.standing(etcd))
        if leader is None or not heirs:
            return why if heirs else "no member on the hosts serves"
        if leader.peer_url not in self._hosts.by_peer():
            await etcd.move_leader(url, heirs[0].id)
        return await self._led(etcd)


class StackedMemberLeft(Phase):
    """A control plane's member leaves, when all members on the hosts have their votes and serve; never at the cost
    of the majority, and never as the leader."""

    name: ClassVar[str] = "etcd-member-left"
    title: ClassVar[str] = "take the control plane's member out of etcd"

    def __init__(
        self, hosts: MovingEtcd, member: Stacked, *, patience: float = _PATIENCE, deadline: float = HEALTH
    ) -> None:
        self._hosts = hosts
        self._member = member
        self.host_name = member.host
        self._patience = patience
        self._deadline = deadline

    async def look(self) -> list[Change]:
        """Whether it is a member."""
        async with self._hosts.client() as etcd:
            mine = self._member.is_in(await self._hosts.seen(etcd))
        return [] if mine is None else [Change(Action.DELETE, f"etcd {mine}", self.host_name)]

    async def act(self, changes: Sequence[Change], activity: Activity) -> None:
        """Take it out. Whether the others do without it is looked at in this very moment."""
        async with self._hosts.client() as etcd:
            leaving: SeenMember | None = None

            async def missing() -> str | None:
                nonlocal leaving
                members, looks = await self._hosts.standing(etcd)
                leaving = self._member.is_in(members)
                return None if leaving is None else model.refusal(members, looks, leaving) or None

            await wait_until(
                missing, f"etcd to do without {self._member.name}", deadline=self._deadline, interval=0.5,
                diagnose=self._hosts.evidence, progress=activity.progress,
                hint="start the members that do not serve; nothing has been taken out that they need",
            )  # fmt: skip
            if leaving is None:
                return
            await EtcdLeads(self._hosts, deadline=self._deadline).act((), activity)
            number = leaving.id
            await until_granted(
                lambda: etcd.remove(number), f"etcd: {leaving} to leave", deadline=self._patience,
                progress=activity.progress, hint="are all other members up?",
            )  # fmt: skip


class EtcdPodGone(ServersGone):
    """A control plane has no static Pod of etcd any more, and none that the kubelet would start again: without its
    data it would begin another etcd."""

    name: ClassVar[str] = "etcd-pod-gone"
    title: ClassVar[str] = "end etcd on the control plane"
    servers: ClassVar[tuple[str, ...]] = (ETCD,)

    @property
    def _hint(self) -> str:
        return "then run the same command again"

    async def _running(self) -> str | None:
        async with self._runtime() as cri:
            if left := await self._left(cri):
                return f"{left[0][0]} still runs"
            pod = f"{ETCD}-{self.host_name}"
            pods = [one for one in await cri.sandboxes() if one.namespace == SYSTEM and one.ready]
        return f"Pod {pod} is still there" if any(one.name == pod for one in pods) else None


class DataAside(Phase):
    """The data of a member that has left is kept beside its place, under a name that says when it was moved."""

    name: ClassVar[str] = "etcd-data-aside"
    title: ClassVar[str] = "put etcd's data aside"

    def __init__(self, node: Node, data_dir: str, backup_id: str) -> None:
        self._node = node
        self.host_name = node.name
        self._from, self._to = model.aside(data_dir, backup_id)

    async def look(self) -> list[Change]:
        """Whether it is in its place."""
        found = await self._node.host.stat_files([self._from], digest=False)
        return [Change(Action.RUN, f"move {self._from} to {self._to}", self.host_name)] if found else []

    async def act(self, changes: Sequence[Change], activity: Activity) -> None:
        """Move it. Raises `HostError` where etcd's manifest is there, for then it may run."""
        if await self._node.host.stat_files([_MANIFEST], digest=False):
            raise HostError(
                f"{self.host_name}: {_MANIFEST} is there, and etcd's data stays where it is", host=self.host_name,
                exit_code=ExitCode.HOST_NOT_FIT, hint="who has put it back? run the same command again",
            )  # fmt: skip
        await self._node.host.shell(_ASIDE, self._from, self._to)


class EtcdTold(Phase):
    """`kubeadm-config` names the etcd that the cluster has now; nothing else in it changes."""

    name: ClassVar[str] = "upload-config"
    title: ClassVar[str] = "tell joining control planes where etcd is"

    def __init__(self, kube: KubeClient, etcd: Mapping[str, Any]) -> None:
        """`etcd` is the field of ClusterConfiguration, as this version's kubeadm writes it."""
        self._kube = kube
        self._etcd = etcd
        self._wanted: dict[str, str] = {}

    async def look(self) -> list[Change]:
        """Whether it names another."""
        config = await self._kube.get("v1", "ConfigMap", stored.KUBEADM_CONFIG, SYSTEM)
        self._wanted = moving.kubeadm_config_etcd(config, self._etcd)
        what = f"ConfigMap {SYSTEM}/{stored.KUBEADM_CONFIG}"
        return [Change(Action.UPDATE, what, "", ("# etcd",))] if self._wanted else []

    async def act(self, changes: Sequence[Change], activity: Activity) -> None:
        """Write it."""
        await self._kube.merge("v1", "ConfigMap", stored.KUBEADM_CONFIG, {"data": self._wanted}, SYSTEM)
