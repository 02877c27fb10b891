"""etcd on hosts of its own: what is there, its unit, and the restart that its members do one after another."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from typing import ClassVar

from kubewright.clients.etcd import Credentials, EtcdClient, EtcdError, Member
from kubewright.errors import ExitCode, HostError, WaitTimeoutError
from kubewright.events import Activity
from kubewright.hosts import FileWrite
from kubewright.model.arguments import client_url, peer_url
from kubewright.model.etcd_hosts import EtcdHostLook, SeenMember, needed_for_restart
from kubewright.model.etcd_unit import DATA_DIR, PERMIT_PATH, UNIT, UNIT_PATH, WAL_DIR, read_permit
from kubewright.model.node_look import parse_listening
from kubewright.phases.etcd import credentials
from kubewright.phases.files import differing, file_changes, newer_than_unit
from kubewright.phases.install import PROGRAM_DIRECTORY
from kubewright.phases.node import Node
from kubewright.phases.phase import Action, Change, Phase
from kubewright.phases.waiting import unit_evidence, wait_until

PROGRAM = f"{PROGRAM_DIRECTORY}/etcd"

_LOOK = r"""
systemctl is-active "$1" || true
[ ! -e "$2" ] || echo unit
[ ! -d "$3" ] || echo data
ss -Hltnp 2>/dev/null || cat /proc/net/tcp /proc/net/tcp6
"""
_ACTIVE = ("active", "activating", "reloading", "deactivating")

HEALTH = 60.0
"""Seconds in which members that have started must serve."""


async def look_at(node: Node) -> EtcdHostLook:
    """What a host holds of etcd. Two round trips."""
    said = (await node.host.shell(_LOOK, UNIT, UNIT_PATH, WAL_DIR, timeout=20)).text.splitlines()
    permit = read_permit(await node.host.read_file(PERMIT_PATH))
    return EtcdHostLook(
        node.name, node.ip,
        has_unit="unit" in said[1:3], has_data="data" in said[1:3], permit=permit,
        active=said[:1] != [] and said[0] in _ACTIVE, listening=parse_listening("\n".join(said[1:])),
    )  # fmt: skip


class EtcdHosts:
    """The hosts of one etcd that can be reached, and the way to its members: each through its own host."""

    def __init__(self, nodes: Sequence[Node], certificates_dir: str) -> None:
        self.nodes = list(nodes)
        self.certificates_dir = certificates_dir

    @property
    def endpoints(self) -> list[str]:
        """Where their members serve clients."""
        return [client_url(node.ip) for node in self.nodes]

    async def looks(self) -> list[EtcdHostLook]:
        """All of them, in order."""
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(look_at(node)) for node in self.nodes]
        return [task.result() for task in tasks]

    def by_peer(self) -> dict[str, Node]:
        """The hosts by their members' peer URLs."""
        return {peer_url(node.ip): node for node in self.nodes}

    @asynccontextmanager
    async def client(self, *, timeout: float = 7.0) -> AsyncIterator[EtcdClient]:
        """A client with the certificate that lies on these hosts. Raises `HostError` where none has it."""
        keys = await self._credentials()
        async with EtcdClient(self.endpoints, keys, self._connect, timeout=timeout) as etcd:
            yield etcd

    async def _credentials(self) -> Credentials:
        """Those of the first host that has them: one that is new may not."""
        *others, last = self.nodes
        for node in others:
            with suppress(HostError):
                return await credentials(node.host, self.certificates_dir)
        return await credentials(last.host, self.certificates_dir)

    def _connect(self, address: str, port: int) -> AbstractAsyncContextManager[tuple[str, int]]:
        """A member is asked through its own host; one that is no host of ours, through the first."""
        through = next((node for node in self.nodes if node.ip == address), self.nodes[0])
        return through.host.forward_tcp(address, port)

    async def unhealthy(self, etcd: EtcdClient, nodes: Sequence[Node] | None = None) -> str | None:
        """Which members on these hosts do not serve, and why; None where all do."""
        chosen = self.nodes if nodes is None else list(nodes)
        async with asyncio.TaskGroup() as group:
            tasks = {node.name: group.create_task(etcd.health(client_url(node.ip))) for node in chosen}
        ill = [f"{name}: {task.result()}" for name, task in tasks.items() if task.result()]
        return "; ".join(ill) or None

    async def seen(self, etcd: EtcdClient) -> list[SeenMember]:
        """All members as the majority knows them, with the health of those that have started."""
        members = await etcd.members()
        async with asyncio.TaskGroup() as group:
            tasks = {
                one.id: group.create_task(etcd.health(one.client_urls[0]))
                for one in members
                if one.client_urls
            }
        return [_seen(one, one.id in tasks and not tasks[one.id].result()) for one in members]

    async def evidence(self, nodes: Sequence[Node] | None = None) -> list[str]:
        """The last lines of the units' journals, host by host."""
        chosen = self.nodes if nodes is None else nodes
        found = []
        for node in chosen:
            found += [f"{node.name}: {line}" for line in await unit_evidence(node.host, UNIT, lines=4)]
        return found


def _seen(member: Member, healthy: bool) -> SeenMember:
    return SeenMember(
        member.id,
        member.name,
        next(iter(member.peer_urls), ""),
        is_learner=member.is_learner,
        healthy=healthy,
    )


class EtcdUnit(Phase):
    """The unit of a host's member, started where it has data. A unit that runs goes on as it is: see
    `EtcdRestart`."""

    name: ClassVar[str] = "etcd-unit"
    title: ClassVar[str] = "write etcd's unit"

    def __init__(self, node: Node, unit: bytes) -> None:
        self._node = node
        self.host_name = node.name
        self._files = [FileWrite(UNIT_PATH, unit)]
        self._wanted: list[FileWrite] = []

    async def look(self) -> list[Change]:
        """Whether the file differs, whether the unit starts with the host, and whether it runs where it can."""
        host = self._node.host
        self._wanted = await differing(host, self._files)
        changes = await file_changes(host, self._wanted)
        enabled = await host.run(["systemctl", "is-enabled", UNIT], check=False)
        look = await look_at(self._node)
        if look.has_data and not look.active:
            changes.append(Change(Action.RUN, f"start {UNIT}", self.host_name))
        elif enabled.text != "enabled":
            changes.append(Change(Action.RUN, f"enable {UNIT}", self.host_name))
        return changes

    async def act(self, changes: Sequence[Change], activity: Activity) -> None:
        """Write it, and let systemd read it. Nobody waits: a member alone may be waiting for the others."""
        host = self._node.host
        await host.write_files(self._wanted)
        start = any(change.target == f"start {UNIT}" for change in changes)
        await enable(self._node, start=start)


async def enable(node: Node, *, start: bool) -> None:
    """Let the unit start with the host, and now where `start` says so. Raises `HostError`."""
    script = (
        'mkdir -p -m 700 "$2" && chmod 700 "$2" && systemctl daemon-reload && systemctl enable -q "$1"'
        + (' && systemctl start --no-block "$1"' if start else "")
    )
    done = await node.host.shell(script, UNIT, DATA_DIR, check=False, timeout=60)
    if not done.ok:
        raise HostError(
            f"{node.name}: {UNIT} cannot be {'started' if start else 'enabled'}",
            host=node.name, evidence=done.err.splitlines()[-3:], exit_code=ExitCode.HOST_NOT_FIT,
            hint=f"systemctl status {UNIT} on the host tells more",
        )  # fmt: skip


class EtcdRestart(Phase):
    """A member whose program or unit is newer than its process starts again, when all others on hosts that can be
    reached serve, and those that serve are a majority without it."""

    name: ClassVar[str] = "etcd-restart"
    title: ClassVar[str] = "restart etcd"

    def __init__(self, hosts: EtcdHosts, node: Node, *, deadline: float = HEALTH) -> None:
        self._hosts = hosts
        self._node = node
        self.host_name = node.name
        self._deadline = deadline

    async def look(self) -> list[Change]:
        """Whether it runs what is no longer there."""
        if not await newer_than_unit(self._node.host, UNIT, [PROGRAM, UNIT_PATH]):
            return []
        return [Change(Action.RUN, f"restart {UNIT}", self.host_name)]

    async def act(self, changes: Sequence[Change], activity: Activity) -> None:
        """Wait for the others, let one of them lead, and restart."""
        async with self._hosts.client() as etcd:
            await self._until_spared(etcd, activity)
            await lead_away(etcd, client_url(self._node.ip))
        await self._node.host.run(["systemctl", "restart", "--no-block", UNIT])

    async def _until_spared(self, etcd: EtcdClient, activity: Activity) -> None:
        """Wait until etcd can do without this member; one that serves nobody in all that time is not missed."""
        url, peer = client_url(self._node.ip), peer_url(self._node.ip)
        others = [node for node in self._hosts.nodes if node is not self._node]
        served = False
        down: list[str] = []

        async def missing() -> str | None:
            nonlocal served, down
            served = served or not await etcd.health(url)
            needed = needed_for_restart(await self._hosts.seen(etcd), peer)
            down = [one.name or f"{one.id:x}" for one in needed]
            ill = await self._hosts.unhealthy(etcd, others)
            return ill or (f"{', '.join(down)} not healthy" if down else None)

        try:
            await wait_until(
                missing, f"{self.host_name}: the other members of etcd to serve before this one restarts",
                deadline=self._deadline, diagnose=lambda: self._hosts.evidence(others),
                progress=activity.progress, hint=f"journalctl -u {UNIT} on their hosts tells more",
            )  # fmt: skip
        except WaitTimeoutError as error:
            if not served:
                activity.progress("it does not serve either: restart it")
            elif not down:
                raise
            else:
                one = len(down) == 1
                raise HostError(
                    f"{self.host_name}: etcd cannot restart, for too few of its members would be left: "
                    f"{', '.join(down)} {'does' if one else 'do'} not serve", host=self.host_name,
                    evidence=error.evidence, exit_code=ExitCode.HOST_NOT_FIT,
                    hint=f"start {', '.join(down)}, or replace {'it' if one else 'them'}, first; then apply again",
                ) from error  # fmt: skip

    async def verify(self, activity: Activity) -> None:
        """Wait until it serves with what it was restarted for."""
        async with self._hosts.client() as etcd:

            async def missing() -> str | None:
                if await self.look():
                    return "it has not ended yet"
                return await self._hosts.unhealthy(etcd, [self._node])

            await wait_until(
                missing, f"{self.host_name}: etcd to serve again", deadline=self._deadline,
                diagnose=lambda: self._hosts.evidence([self._node]), progress=activity.progress,
                hint=f"journalctl -u {UNIT} tells more",
            )  # fmt: skip


async def lead_away(etcd: EtcdClient, url: str) -> None:
    """Let another voter lead where the member at `url` does: by surprise, none would lead for a second."""
    try:
        status = await etcd.status(url)
        if not status.is_leader:
            return
        heirs = [one for one in await etcd.members() if one.id != status.member_id and not one.is_learner]
        for heir in heirs:
            if heir.client_urls and not await etcd.health(heir.client_urls[0]):
                await etcd.move_leader(url, heir.id)
                return
    except EtcdError:
        return  # it has no leader, or will elect one a second later: that is no reason to stop
