"""etcd's members on hosts of their own: founded all at once, and later taken in, replaced and taken out."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Sequence
from contextlib import suppress
from typing import ClassVar

from kubewright.clients.etcd import EtcdClient
from kubewright.errors import ExitCode, HostError, KubewrightError
from kubewright.events import Activity
from kubewright.model.arguments import EtcdMember
from kubewright.model.etcd_hosts import EtcdHostLook, SeenMember, Step, Task, founding, returned, tasks
from kubewright.model.etcd_unit import MEMBER_DIR, PERMIT_PATH, UNIT, Permit, StartState
from kubewright.model.preflight import refuse
from kubewright.model.reset import quorum_without
from kubewright.phases.etcd import until_granted
from kubewright.phases.etcd_hosts import HEALTH, EtcdHosts, enable, lead_away, look_at
from kubewright.phases.node import Node
from kubewright.phases.phase import Action, Change, Phase
from kubewright.phases.waiting import wait_until

# A member that comes to a large database takes its time, and says nothing until it has all of it.
_START = 300.0
_PATIENCE = 120.0
_ACTIONS = {Step.REMOVE: Action.DELETE, Step.ADD: Action.CREATE}
_WORDS = {Step.START: "start ", Step.PROMOTE: "give a vote to ", Step.SETTLE: "settle "}
_ENDLESS = 100
"""Steps after which something undoes what we do."""


class EtcdFounded(Phase):
    """A new etcd, begun by all of its hosts at once: nobody joins one by one.

    Killed anywhere, it is finished by the next run: who has a permit goes on, and the permits go when all serve.
    """

    name: ClassVar[str] = "etcd-found"
    title: ClassVar[str] = "start etcd as one new cluster"

    def __init__(self, hosts: EtcdHosts, cluster_name: str, *, deadline: float = HEALTH) -> None:
        self._hosts = hosts
        self._cluster_name = cluster_name
        self._deadline = deadline

    async def look(self) -> list[Change]:
        """Who has not started yet."""
        return [
            Change(Action.RUN, f"start etcd member {look.name} of a new cluster", look.name)
            for look in await self._hosts.looks()
        ]

    async def act(self, changes: Sequence[Change], activity: Activity) -> None:
        """Give all of them the same permit, and start them."""
        looks = await self._hosts.looks()
        permit = founding(looks)
        async with asyncio.TaskGroup() as group:
            for node, look in zip(self._hosts.nodes, looks, strict=True):
                group.create_task(start(node, look, None if look.has_data else permit, self._cluster_name))

    async def verify(self, activity: Activity) -> None:
        """Wait until all of them serve, and take the permits away."""
        async with self._hosts.client(timeout=3) as etcd:
            await wait_until(
                lambda: self._hosts.unhealthy(etcd), "all members of the new etcd to serve",
                deadline=self._deadline, diagnose=self._hosts.evidence, progress=activity.progress,
                hint=f"can they reach each other on port 2380? journalctl -u {UNIT} on their hosts tells more",
            )  # fmt: skip
        async with asyncio.TaskGroup() as group:
            for node in self._hosts.nodes:
                group.create_task(settle(node))


async def start(node: Node, look: EtcdHostLook, permit: Permit | None, cluster_name: str) -> None:
    """Start a host's member, which its unit must be there for; one that has not begun yet with a permit."""
    if permit is not None and look.active and not look.has_begun(permit):
        # A process would go on in what is moved away. It may also have begun since it was looked at.
        await node.host.run(["systemctl", "stop", UNIT], timeout=100)
        look = await look_at(node)
    if permit is not None and not look.has_begun(permit):
        # What is there is of no member, or of another; what etcd took for its own would spoil the new one.
        aside = '[ ! -e "$1" ] || mv "$1" "$1.$(date +%s)"'
        await node.host.shell(aside, MEMBER_DIR)
        await node.host.write_file(PERMIT_PATH, permit.text(cluster_name), mode=0o600)
    await enable(node, start=True)


async def settle(node: Node) -> None:
    """Take a host's permit away: from now on it starts with its data or not at all."""
    await node.host.run(["rm", "-f", PERMIT_PATH])


class EtcdMembers(Phase):
    """The members of an etcd that runs are those of cluster.yaml: what was begun is finished, who is gone leaves,
    who has lost its data comes anew, and who is new comes as a learner. Never at the cost of the majority.

    `absent` are names of hosts of the cluster that cannot be reached now; their members stay. So do those of
    `stay`, which are on none of these hosts, and have their own way to leave.
    """

    name: ClassVar[str] = "etcd-members"
    title: ClassVar[str] = "let etcd have the members of cluster.yaml"

    def __init__(
        self,
        hosts: EtcdHosts,
        cluster_name: str,
        absent: Collection[str] = (),
        *,
        stay: Collection[str] = (),
        start_deadline: float = _START,
        patience: float = _PATIENCE,
    ) -> None:
        self._hosts = hosts
        self._cluster_name = cluster_name
        self._absent = {*absent, *stay}
        self._start_deadline = start_deadline
        self._patience = patience
        self._looks: dict[str, EtcdHostLook] = {}
        self._seen: list[SeenMember] = []

    async def look(self) -> list[Change]:
        """What is left to do. Raises `KubewrightError` where the majority does not serve."""
        async with self._hosts.client() as etcd:
            await self._until_it_serves(etcd)
            found = await self._tasks(etcd)
        return [
            Change(_ACTIONS.get(task.step, Action.RUN), f"{_WORDS.get(task.step, '')}{task}", task.host)
            for task in found
        ]

    async def _until_it_serves(self, etcd: EtcdClient) -> None:
        async def missing() -> str | None:
            # A member that has no leader may still say who the members are, but is not healthy.
            seen = await self._hosts.seen(etcd)
            ill = [str(one) for one in seen if one.started and not one.healthy]
            return None if any(one.healthy for one in seen) else f"{', '.join(ill)} not healthy"

        await wait_until(
            missing, "the majority of etcd's members to serve", deadline=HEALTH, interval=0.25,
            diagnose=self._hosts.evidence,
            hint=f"start those that are down: systemctl start {UNIT} on their hosts; docs/etcd.md tells what to "
            "do where the majority is lost for good",
        )  # fmt: skip

    async def _tasks(self, etcd: EtcdClient) -> list[Task]:
        looks = await self._hosts.looks()
        self._looks = {look.member.peer_url: look for look in looks}
        self._seen = await self._hosts.seen(etcd)
        found = tasks(self._seen, looks, self._absent)
        refuse([why for one in found if one.host and (why := returned(one, self._looks[one.peer_url]))])
        for task in found:
            if task.step is Step.REMOVE and task.member is not None:
                self._check_quorum(task.member, task.why)
        return found

    def _check_quorum(self, leaving: SeenMember, why: str) -> None:
        """Raise `HostError` where the others do not do without a member."""
        voters = [one for one in self._seen if not one.is_learner]
        if leaving.is_learner or len(voters) <= 1:
            return
        healthy = sum(one.healthy for one in voters if one.id != leaving.id)
        if trouble := quorum_without(healthy, len(voters)):
            raise HostError(
                f"{leaving} ({why}) cannot leave etcd: {trouble}", host=leaving.name,
                exit_code=ExitCode.HOST_NOT_FIT, hint="start the other members first",
            )  # fmt: skip

    async def act(self, changes: Sequence[Change], activity: Activity) -> None:
        """One step after the other, and a new look after each."""
        async with self._hosts.client() as etcd:
            for _ in range(_ENDLESS):
                found = await self._tasks(etcd)
                if not found:
                    return
                task = found[0]
                activity.progress(f"{task.step} {task}")
                await self._do(etcd, task, activity)
        raise HostError("etcd's members do not become those of cluster.yaml", evidence=[str(found[0])])

    async def _do(self, etcd: EtcdClient, task: Task, activity: Activity) -> None:
        node = self._hosts.by_peer().get(task.peer_url)
        member = task.member
        if task.step is Step.REMOVE and member is not None:
            await self._remove(etcd, member, activity)
        elif task.step is Step.ADD and node is not None:
            if self._looks[task.peer_url].has_data:  # of an attempt that has been taken back
                await self._clear(node)
            await self._patiently(
                lambda: etcd.add(task.peer_url, learner=True), f"{task.host} to be announced", activity
            )
        elif task.step is Step.START and node is not None and member is not None:
            await self._start(etcd, node, member, activity)
        elif task.step is Step.PROMOTE and member is not None:
            await self._patiently(lambda: etcd.promote(member.id), f"{task.host} to have all data", activity)
        elif task.step is Step.SETTLE and node is not None:
            await settle(node)

    async def _remove(self, etcd: EtcdClient, member: SeenMember, activity: Activity) -> None:
        if member.healthy:
            urls = [one.client_urls[0] for one in await etcd.members() if one.id == member.id]
            await lead_away(etcd, urls[0])
        await self._patiently(lambda: etcd.remove(member.id), f"{member} to leave", activity)

    async def _patiently(self, ask: Callable[[], Awaitable[object]], what: str, activity: Activity) -> None:
        await until_granted(
            ask, f"etcd: {what}", deadline=self._patience, progress=activity.progress,
            hint="etcd takes nobody in while one of its members is away: start it, or take its host out of "
            "cluster.yaml",
        )  # fmt: skip

    async def _start(self, etcd: EtcdClient, node: Node, member: SeenMember, activity: Activity) -> None:
        """Start an announced member, or let it go on; one that never starts is taken back, so that etcd is whole
        again."""
        url = member.peer_url
        named = [
            EtcdMember(node.name if one.peer_url == url else one.name or f"{one.id:x}", one.peer_url)
            for one in self._seen
        ]
        try:
            permit = Permit(StartState.EXISTING, tuple(named))
            await start(node, self._looks[url], permit, self._cluster_name)

            async def missing() -> str | None:
                found = [one for one in await etcd.members() if one.id == member.id]
                return None if found and found[0].started else "it has not reached the other members yet"

            await wait_until(
                missing, f"{node.name}: the new member of etcd to start", deadline=self._start_deadline,
                diagnose=lambda: self._hosts.evidence([node]), progress=activity.progress,
                hint=f"can it reach the other members, and they {url}?",
            )  # fmt: skip
        except (KubewrightError, asyncio.CancelledError):
            await asyncio.shield(self._take_back(etcd, node, member))
            raise

    async def _take_back(self, etcd: EtcdClient, node: Node, member: SeenMember) -> None:
        """Undo an announcement; a member that has started is the cluster's."""
        with suppress(KubewrightError):
            if any(one.id == member.id and one.started for one in await etcd.members()):
                return
            await self._clear(node)
            await etcd.remove(member.id)

    async def _clear(self, node: Node) -> None:
        """Stop a member that has never been one, and remove what it has written."""
        script = 'systemctl stop "$1"; rm -rf -- "$2" "$3"'
        await node.host.shell(script, UNIT, MEMBER_DIR, PERMIT_PATH, check=False, timeout=100)


class EtcdServes(Phase):
    """All members on hosts that can be reached serve."""

    name: ClassVar[str] = "etcd-health"
    title: ClassVar[str] = "check that etcd is healthy"
    always_verify: ClassVar[bool] = True

    def __init__(self, hosts: EtcdHosts, *, deadline: float = HEALTH) -> None:
        self._hosts = hosts
        self._deadline = deadline

    async def look(self) -> list[Change]:
        """Nothing is changed."""
        return []

    async def act(self, changes: Sequence[Change], activity: Activity) -> None:
        """Nothing to do."""

    async def verify(self, activity: Activity) -> None:
        """Ask each of them."""
        async with self._hosts.client() as etcd:
            await wait_until(
                lambda: self._hosts.unhealthy(etcd), "all members of etcd to be healthy",
                deadline=self._deadline, diagnose=self._hosts.evidence, progress=activity.progress,
                hint=f"systemctl status {UNIT} on their hosts tells more; one that is gone for good is replaced "
                "in cluster.yaml, or taken out",
            )  # fmt: skip
