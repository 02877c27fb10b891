"""A further member of a stacked etcd: announced, started, given its vote, and taken back where it never starts."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import ClassVar
from urllib.parse import urlsplit

from kubewright.clients.cri import CriError, open_cri
from kubewright.clients.etcd import Credentials, EtcdClient, EtcdError, Member
from kubewright.clients.kube import KubeClient
from kubewright.clients.paths import Object
from kubewright.errors import ExitCode, HostError, KubewrightError
from kubewright.events import Activity
from kubewright.hosts import Host
from kubewright.model import manifests, stored
from kubewright.model.arguments import EtcdMember, client_url, peer_url
from kubewright.model.node import ControlPlaneNode
from kubewright.model.objects import SYSTEM
from kubewright.phases.controlplane import StaticPods
from kubewright.phases.etcd_reach import out_of_reach
from kubewright.phases.node import Node
from kubewright.phases.phase import Action, Change, Phase
from kubewright.phases.waiting import container_evidence, unit_evidence, wait_until
from kubewright.secret import Secret

CLIENT_URLS = "kubeadm.kubernetes.io/etcd.advertise-client-urls"
_PODS = "component=etcd,tier=control-plane"
# A member that comes to a large database takes its time, and says nothing until it has all of it.
_START = 300.0
_PATIENCE = 120.0
# The kubelet reads its manifests every 20 s even where it was not told of a new one.
_IGNORED = 20.0
# As long as the program runs, it may make the folder anew.
_CLEAR = """
rm -f "$1"
n=0
while grep -sqx etcd /proc/[0-9]*/comm && [ $((n += 1)) -lt 150 ]; do sleep 0.2; done
rm -rf "$2/member"
"""


async def credentials(host: Host, certificates_dir: str) -> Credentials:
    """The client certificate by which kubeadm's own tools use etcd. Raises `HostError` where it is not there."""
    directory = f"{certificates_dir}/etcd"
    paths = [f"{directory}/{name}" for name in ("ca.crt", "healthcheck-client.crt", "healthcheck-client.key")]
    found = await host.read_files(paths)
    for path in paths:
        if path not in found:
            raise HostError(
                f"{host.name}: there is no {path}, by which etcd is used", host=host.name,
                exit_code=ExitCode.HOST_NOT_FIT,
                hint="the phase control-plane-prepare/certs makes it",
            )  # fmt: skip
    return Credentials(found[paths[0]], found[paths[1]], Secret(found[paths[2]]))


async def endpoints(kube: KubeClient) -> list[str]:
    """Where the members of a stacked etcd serve clients, as their Pods say, or else `kubeadm-config`."""
    pods = await kube.list("v1", "Pod", "kube-system", labels=_PODS)
    said = [str((pod["metadata"].get("annotations") or {}).get(CLIENT_URLS) or "") for pod in pods]
    urls = [url for text in said for url in text.split(",") if url]
    if urls:
        return urls
    config = await kube.get("v1", "ConfigMap", stored.KUBEADM_CONFIG, "kube-system")
    rows = stored.cluster_status_in(config).get("apiEndpoints") or {}
    return [client_url(row["advertiseAddress"]) for row in rows.values() if row.get("advertiseAddress")]


async def unfinished(host: Host, kube: KubeClient, certificates_dir: str) -> set[str]:
    """The peer URLs of those members that were announced and have not started or have no vote yet."""
    members = await _members(host, kube, certificates_dir)
    return {url for one in members if one.is_learner or not one.started for url in one.peer_urls}


async def member_names(host: Host, kube: KubeClient, certificates_dir: str) -> set[str]:
    """The names of all members that have started; others are known by their addresses."""
    return {one.name for one in await _members(host, kube, certificates_dir) if one.started}


async def _members(host: Host, kube: KubeClient, certificates_dir: str) -> list[Member]:
    keys = await credentials(host, certificates_dir)
    async with EtcdClient(await endpoints(kube), keys, host.forward_tcp) as etcd:
        return await etcd.members()


async def until_granted(
    ask: Callable[[], Awaitable[object]],
    what: str,
    *,
    deadline: float,
    progress: Callable[[str], None],
    hint: str = "",
) -> None:
    """Ask etcd for a change until it is in a state for it: it may elect a leader, another member may be joining,
    or one has been back for less than 5 s. `deadline` is in seconds. Raises as `wait_until`, and `EtcdError`."""

    async def missing() -> str | None:
        try:
            await ask()
        except EtcdError as error:
            if not error.not_now:
                raise
            return error.message
        return None

    await wait_until(missing, what, deadline=deadline, interval=0.2, progress=progress, hint=hint)


class EtcdHealthy(Phase):
    """All members of etcd serve: before that no further one may be announced."""

    name: ClassVar[str] = "check-etcd"
    title: ClassVar[str] = "check that etcd is healthy"
    always_verify: ClassVar[bool] = True

    def __init__(
        self, node: Node, kube: KubeClient, certificates_dir: str, *, deadline: float = 60.0
    ) -> None:
        self._node = node
        self.host_name = node.name
        self._kube = kube
        self._certificates_dir = certificates_dir
        self._deadline = deadline

    async def look(self) -> list[Change]:
        """Nothing is changed."""
        return []

    async def act(self, changes: Sequence[Change], activity: Activity) -> None:
        """Nothing to do."""

    async def verify(self, activity: Activity) -> None:
        """Ask each of them."""
        host = self._node.host
        keys = await credentials(host, self._certificates_dir)
        async with EtcdClient(await endpoints(self._kube), keys, host.forward_tcp) as etcd:

            async def missing() -> str | None:
                members = await etcd.sync()
                urls = [member.client_urls[0] for member in members if member.client_urls]
                async with asyncio.TaskGroup() as group:
                    tasks = {url: group.create_task(etcd.health(url)) for url in urls}
                ill = [f"{url}: {task.result()}" for url, task in tasks.items() if task.result()]
                return "; ".join(ill) or None

            await wait_until(
                missing, "all members of etcd to be healthy", deadline=self._deadline, progress=activity.progress,
                hint="on a control plane, `kubectl -n kube-system get pods -l component=etcd -o wide` shows them; "
                "one that is gone for good must be taken out: `kubewright node remove NAME --gone`, or `etcdctl "
                "member remove`",
            )  # fmt: skip


class NewEtcdMember(Phase):
    """This control plane's own member of the cluster's etcd.

    It is announced as a learner, which gets all data and has no vote, runs, and is promoted then: etcd serves all
    the time, and a member that never starts can be taken back, which a second voter could not (two voters of whom
    one does not run decide nothing).
    """

    name: ClassVar[str] = "etcd"
    title: ClassVar[str] = "add a member to etcd"

    def __init__(
        self,
        node: Node,
        kube: KubeClient,
        api: ControlPlaneNode,
        *,
        certificates_dir: str,
        cri_socket: str,
        data_dir: str,
        pod: Callable[[Sequence[EtcdMember]], Object],
        start_deadline: float = _START,
    ) -> None:
        self._node = node
        self.host_name = node.name
        self._kube = kube
        self._api = api
        self._certificates_dir = certificates_dir
        self._socket = cri_socket
        self._data_dir = data_dir
        self._pod = pod
        self._start_deadline = start_deadline
        self._path = manifests.manifest_path(manifests.ETCD)
        self._peer = peer_url(api.advertise_address)

    async def look(self) -> list[Change]:
        """Whether the manifest is there, and the member has its vote."""
        host = self._node.host
        if not await host.stat_files([self._path], digest=False):
            return [
                Change(Action.RUN, f"announce etcd member {self._api.name} ({self._peer})", self.host_name),
                Change(Action.CREATE, self._path, self.host_name),
            ]
        async with await self._client() as etcd:
            mine = self._mine(await etcd.sync())
        if mine is None or not mine.started or mine.is_learner:
            return [Change(Action.RUN, f"wait for etcd member {self._api.name}", self.host_name)]
        return []

    async def _client(self) -> EtcdClient:
        host = self._node.host
        keys = await credentials(host, self._certificates_dir)
        others = [
            url
            for url in await endpoints(self._kube)
            if urlsplit(url).hostname != self._api.advertise_address
        ]
        return EtcdClient(others, keys, host.forward_tcp)

    def _mine(self, members: Sequence[Member]) -> Member | None:
        return next((member for member in members if self._peer in member.peer_urls), None)

    async def act(self, changes: Sequence[Change], activity: Activity) -> None:
        """Announce, write the manifest, wait, promote."""
        async with await self._client() as etcd:
            await etcd.sync()
            members = await self._announced(etcd, activity)
            try:
                await self._start(members, activity)
                await self._wait_for_start(etcd, activity)
            except (KubewrightError, asyncio.CancelledError):
                await asyncio.shield(self._take_back(etcd, activity))
                raise
            await self._promote(etcd, activity)

    async def _announced(self, etcd: EtcdClient, activity: Activity) -> list[Member]:
        """All members, ours among them. One that an earlier run has announced is taken up."""
        # In this order: one that starts just now has data before the others know that it has started.
        mine = self._mine(await etcd.members())
        has_data = bool(await self._node.host.stat_files([f"{self._data_dir}/member"], digest=False))
        if mine is not None and mine.started and not has_data:
            # Its data is gone: with its old id and an empty disk it would have forgotten what it voted for.
            activity.progress(f"take out {mine}, whose data is gone")
            old = mine.id
            await self._patiently(lambda: etcd.remove(old), "the old member to be taken out", activity)
            mine = None
        if mine is None and has_data:
            raise HostError(
                f"{self.host_name}: {self._data_dir} holds the data of an etcd that is no member of this cluster",
                host=self.host_name, exit_code=ExitCode.HOST_IN_OTHER_CLUSTER,
                hint=f"move {self._data_dir}/member away, or let `kubewright reset` clear the host",
            )  # fmt: skip
        if mine is not None:
            return await etcd.members()
        members = await etcd.members()
        await self._reach(members)
        found: list[Member] = []

        async def add() -> None:
            nonlocal found
            found = await etcd.add(self._peer, learner=True)

        await self._patiently(add, "the new member to be announced", activity, _in_the_way(members))
        return found

    async def _reach(self, members: Sequence[Member]) -> None:
        """Raise `HostError` where members cannot be reached from here: a learner would not hear of its leader."""
        urls = [member.peer_urls[0] for member in members if member.started]
        if failures := await out_of_reach(self._node.host, urls):
            raise HostError(
                f"{self.host_name} cannot reach members of etcd, and would never learn what they know",
                host=self.host_name, evidence=failures, exit_code=ExitCode.HOST_NOT_FIT,
                hint="let control planes reach each other on TCP ports 2379 and 2380; a member that is gone for "
                "good must be taken out first",
            )  # fmt: skip

    async def _patiently(
        self, ask: Callable[[], Awaitable[object]], what: str, activity: Activity, hint: str = ""
    ) -> None:
        await until_granted(
            ask, f"{self.host_name}: {what}", deadline=_PATIENCE, progress=activity.progress,
            hint=hint or "are all members up? `kubectl -n kube-system get pods -l component=etcd -o wide`",
        )  # fmt: skip

    async def _start(self, members: Sequence[Member], activity: Activity) -> None:
        activity.progress("start it")
        named = [
            EtcdMember(
                self._api.name if self._peer in member.peer_urls else member.name or member.hex_id,
                member.peer_urls[0],
            )
            for member in members
        ]
        # 0700: etcd 3.4.10 and newer refuse a directory that others can read.
        await self._node.host.shell('[ -d "$1" ] || mkdir -p -m 700 "$1"', self._data_dir)
        kept = [self._path, f"{self._data_dir}/member"]
        if len(await self._node.host.stat_files(kept, digest=False)) == len(kept):
            return  # an earlier run's: with data, nobody reads the members in it, which may be others by now
        pods = StaticPods(self._node, {manifests.ETCD: self._pod(named)})
        await pods.act(await pods.look(), activity)

    async def _wait_for_start(self, etcd: EtcdClient, activity: Activity) -> None:
        """Until the others know it. Where the kubelet makes nothing of the manifest, it is restarted.

        A static Pod that it has not admitted once it never looks at again (kubernetes/kubernetes#138391). So it
        goes where the Node is too new to tell its ephemeral storage, which etcd's Pod requests in versions below
        1.20.8 and 1.21.2 (kubernetes/kubernetes#99305).
        """
        loop = asyncio.get_running_loop()
        patience = loop.time() + _IGNORED

        async def missing() -> str | None:
            nonlocal patience
            mine = self._mine(await etcd.members())
            if mine is not None and mine.started:
                return None
            if loop.time() > patience:
                patience = loop.time() + _IGNORED
                if not await self._begun():
                    activity.progress("restart the kubelet, which has made no Pod of the manifest")
                    await self._node.host.run(["systemctl", "restart", "kubelet.service"])
            return "it has not reached the other members yet"

        await wait_until(
            missing, f"{self.host_name}: the new member of etcd to start", deadline=self._start_deadline,
            diagnose=self._diagnose, progress=activity.progress,
            hint=f"can it reach the other members, and they {self._peer}?",
        )  # fmt: skip

    async def _begun(self) -> bool:
        """Whether the kubelet has at least made a sandbox for it; also where the runtime does not say."""
        try:
            async with open_cri(self._node.host, self._socket) as cri:
                sandboxes = await cri.sandboxes()
        except CriError:
            return True
        pod = f"{manifests.ETCD}-{self._api.name}"
        return any(one.ready and (one.namespace, one.name) == (SYSTEM, pod) for one in sandboxes)

    async def _diagnose(self) -> list[str]:
        host = self._node.host
        return [*await container_evidence(host, "etcd"), *await unit_evidence(host, "kubelet", lines=5)]

    async def _promote(self, etcd: EtcdClient, activity: Activity) -> None:
        mine = self._mine(await etcd.members())
        if mine is None or not mine.is_learner:
            return
        activity.progress("wait until it has all data")
        await self._patiently(lambda: etcd.promote(mine.id), "the new member to have all data", activity)
        etcd.endpoints = [*etcd.endpoints, client_url(self._api.advertise_address)]

    async def _take_back(self, etcd: EtcdClient, activity: Activity) -> None:
        """Undo the announcement of a member that has never started; one that has is the cluster's now."""
        with suppress(KubewrightError):
            mine = self._mine(await etcd.members())
            if mine is None or mine.started:
                return
            activity.progress("take back the member that did not start")
            await self._node.host.shell(_CLEAR, self._path, self._data_dir, timeout=90, check=False)
            await etcd.remove(mine.id)


def _in_the_way(members: Sequence[Member]) -> str:
    """What helps where etcd has too many learners already, which it does not name; empty where it has none."""
    learner = next((one for one in members if one.is_learner), None)
    if learner is None:
        return ""
    ways = [f"`kubewright node remove {learner.name} --gone`"] if learner.name else []
    ways.append(f"`etcdctl member remove {learner.hex_id}` on a control plane")
    return (
        f"etcd takes one learner at a time, and {learner} has no vote yet: let its host finish, or, if that is "
        f"gone for good, take it out: {' or '.join(ways)}"
    )
