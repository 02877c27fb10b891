"""A member leaves a stacked etcd, asked of the others: it may be dead, and must not be missed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import ClassVar
from urllib.parse import urlsplit

from kubewright.clients.etcd import EtcdClient, EtcdError, Member, Status
from kubewright.clients.kube import KubeClient
from kubewright.errors import ExitCode, KubewrightError
from kubewright.events import Activity
from kubewright.model import reset as model
from kubewright.phases.etcd import credentials, endpoints, until_granted
from kubewright.phases.node import Node
from kubewright.phases.phase import Action, Change, Phase
from kubewright.phases.waiting import wait_until

PATIENCE = 15.0
"""Seconds in which members must serve that the others need: one look says little of a busy computer."""


@dataclass(frozen=True, slots=True)
class Leaver:
    """Whose member leaves: a Node's name, which is its member's, and the Node's addresses."""

    name: str
    addresses: Collection[str] = ()
    dead: bool = False
    """Whether nobody answers there, so that it need not be asked."""

    def of(self, members: Sequence[Member]) -> list[Member]:
        """Its members. One that has never started has no name, and is known by its address; with any other an
        address says nothing, for a new host may have taken over an old one's."""
        return [
            one for one in members
            if (one.name == self.name if one.started else bool(self._hosts(one) & {*self.addresses}))
        ]  # fmt: skip

    def _hosts(self, member: Member) -> set[str]:
        return {urlsplit(url).hostname or "" for url in member.peer_urls}


@dataclass(frozen=True, slots=True)
class Standing:
    """All members, and what the started ones say of themselves."""

    members: tuple[Member, ...]
    statuses: dict[int, Status]
    """By the ids of those that serve."""
    ill: dict[int, str] = field(default_factory=dict)
    """Why the others that were asked do not serve, by their ids."""

    @property
    def voters(self) -> list[Member]:
        """The members that vote."""
        return [one for one in self.members if not one.is_learner]

    def leader(self) -> Member | None:
        """The member that most others follow."""
        said = [status.leader for status in self.statuses.values() if status.leader]
        chosen = max(set(said), key=said.count, default=0)
        return next((one for one in self.members if one.id == chosen), None)

    def heir(self, leaving: Collection[int]) -> Member | None:
        """Which voter may lead in place of one that leaves: the one that has most of the data."""
        able = [one for one in self.voters if one.id in self.statuses and one.id not in leaving]
        return max(able, key=lambda one: self.statuses[one.id].raft_index, default=None)

    def refusal(self, leaving: Sequence[Member]) -> str:
        """Why members cannot leave; empty where they can."""
        gone = {one.id for one in leaving}
        voters = self.voters
        if not any(one.id in gone for one in voters):
            return ""  # a learner that leaves is missed by nobody
        rest = [one for one in voters if one.id not in gone]
        if not rest:
            return "it is the last member that votes: with it all of the cluster's data would go"
        healthy = sum(one.id in self.statuses for one in rest)
        why = model.quorum_without(healthy, len(rest) + 1)
        ill = [f"{one.name}: {self.ill[one.id]}" for one in rest if one.id in self.ill]
        return f"{why} ({'; '.join(ill)})" if why and ill else why


class _Members(Phase):
    """What both phases share: the way to etcd through a control plane that stays."""

    def __init__(self, through: Node, kube: KubeClient, certificates_dir: str, leaver: Leaver) -> None:
        self._through = through
        self._kube = kube
        self._certificates_dir = certificates_dir
        self._leaver = leaver

    @asynccontextmanager
    async def _etcd(self) -> AsyncIterator[EtcdClient]:
        """etcd without the leaver's own endpoints: what is asked of all is asked of the others."""
        host = self._through.host
        keys = await credentials(host, self._certificates_dir)
        others = [
            url for url in await endpoints(self._kube)
            if urlsplit(url).hostname not in self._leaver.addresses
        ]  # fmt: skip
        async with EtcdClient(others, keys, host.forward_tcp) as etcd:
            yield etcd

    async def _standing(self, etcd: EtcdClient) -> tuple[Standing, list[Member]]:
        """How all members stand, and which of them are the leaver's. Asks the others from now on."""
        members = await etcd.sync()
        mine = self._leaver.of(members)
        dead = mine if self._leaver.dead else []
        started = [one for one in members if one.client_urls and one not in dead]
        async with asyncio.TaskGroup() as group:
            tasks = {one.id: group.create_task(_status(etcd, one)) for one in started}
        seen = {number: task.result() for number, task in tasks.items()}
        found = {number: status for number, status in seen.items() if isinstance(status, Status)}
        ill = {number: why for number, why in seen.items() if isinstance(why, str)}
        gone = {url for one in mine for url in one.client_urls}
        etcd.endpoints = [url for url in etcd.endpoints if url not in gone]
        return Standing(tuple(members), found, ill), mine

    async def _require(self, etcd: EtcdClient) -> tuple[Standing, list[Member]]:
        """`_standing`, where the leaver may leave. Members that were slow once are asked again for a while; raises
        `KubewrightError` where it still may not."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        while True:
            waited = loop.time() - began
            try:
                standing, mine = await self._standing(etcd)
            except EtcdError as error:
                if not error.passes or waited >= 2 * PATIENCE:
                    raise
            else:
                why = standing.refusal(mine)
                if not why:
                    return standing, mine
                if not standing.ill or waited >= PATIENCE:
                    raise refused(self._leaver.name, why)
            await asyncio.sleep(0.5)


class EtcdLeaderAway(_Members):
    """Another member leads etcd than the one that leaves: where the leader is taken, there is none for a second or
    more. A member that the others cannot do without is refused, before anything is done."""

    name: ClassVar[str] = "etcd-leader"
    title: ClassVar[str] = "let another member lead etcd"

    async def look(self) -> list[Change]:
        """Whether it leads. Raises `KubewrightError` where it must not leave."""
        async with self._etcd() as etcd:
            standing, mine = await self._require(etcd)
            leader, heir = standing.leader(), standing.heir([one.id for one in mine])
        if leader is None or heir is None or leader not in mine:
            return []
        return [Change(Action.RUN, f"let {heir.name} lead etcd instead of {leader.name}")]

    async def act(self, changes: Sequence[Change], activity: Activity) -> None:
        """Ask the leader itself, which hands over when the other has all data, and see that it has."""
        async with self._etcd() as etcd:

            async def missing() -> str | None:
                standing, mine = await self._standing(etcd)
                leader, heir = standing.leader(), standing.heir([one.id for one in mine])
                if leader is None:
                    return "etcd elects a leader"
                if leader not in mine or heir is None:
                    return None
                try:
                    await etcd.move_leader(leader.client_urls[0], heir.id)
                except EtcdError as error:
                    return error.message
                return f"{leader.name} leads etcd"

            await wait_until(
                missing, f"another member than {self._leaver.name} to lead etcd", deadline=30, interval=0.2,
                progress=activity.progress,
            )  # fmt: skip


class EtcdMemberOut(_Members):
    """A Node's member is none any more. Never at the cost of the others' majority."""

    name: ClassVar[str] = "etcd-member"
    title: ClassVar[str] = "take the member out of etcd"

    async def look(self) -> list[Change]:
        """Whether there is one. Raises `KubewrightError` where it must not leave."""
        async with self._etcd() as etcd:
            _, mine = await self._require(etcd)
        return [Change(Action.DELETE, f"etcd {one}") for one in mine]

    async def act(self, changes: Sequence[Change], activity: Activity) -> None:
        """Take it out, through the others. Whether they do without it is looked at again at this moment."""
        async with self._etcd() as etcd:
            _, mine = await self._require(etcd)
            for member in mine:
                number = member.id
                await until_granted(
                    lambda number=number: etcd.remove(number),  # type: ignore[misc]
                    f"{member} to leave etcd", deadline=60, progress=activity.progress,
                    hint="are the other members up? `kubectl -n kube-system get pods -l component=etcd -o wide`",
                )  # fmt: skip


async def _status(etcd: EtcdClient, member: Member) -> Status | str:
    """What a member says of itself, if it serves: it answers and follows a leader, or is one; else why not."""
    url = member.client_urls[0]
    if why := await etcd.health(url):
        return why.removeprefix(f"etcd at {url}: ")
    try:
        return await etcd.status(url)
    except EtcdError as error:
        return error.message.removeprefix(f"etcd at {url}: ")


def refused(name: str, why: str) -> KubewrightError:
    """The error for a member that must stay."""
    return KubewrightError(
        f"{name}: its member cannot leave etcd: {why}", host=name, exit_code=ExitCode.HOST_NOT_FIT,
        hint="start the other control planes, or remove those that are gone for good before it",
    )  # fmt: skip
