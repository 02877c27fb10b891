"""What a control plane takes back from its cluster before it goes: its API endpoint, and its member of etcd."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, ClassVar
from urllib.parse import urlsplit

from kubewright.clients.etcd import EtcdClient, EtcdError, Member
from kubewright.clients.objects import ObjectClient
from kubewright.errors import ExitCode, KubewrightError
from kubewright.events import Activity
from kubewright.model import reset as model
from kubewright.model import stored
from kubewright.model.manifests import ETCD, manifest_path
from kubewright.model.objects import SYSTEM, Object, read_mapping
from kubewright.phases.cluster_status import write_cluster_status
from kubewright.phases.etcd import credentials, until_granted
from kubewright.phases.node import Node
from kubewright.phases.phase import Action, Change, Phase
from kubewright.phases.waiting import wait_until

_BY_HAND = (
    "if other members are left, take this one out there: etcdctl member list, then etcdctl member remove ID"
)


class EndpointGone(Phase):
    """A node's API endpoint is not in `kubeadm-config` any more, where that lists them (until 1.21)."""

    name: ClassVar[str] = "update-cluster-status"
    title: ClassVar[str] = "take the API endpoint out of kubeadm-config"

    def __init__(self, kube: ObjectClient, node_name: str, *, host: str = "") -> None:
        self.host_name = host
        self._kube = kube
        self._node_name = node_name

    async def look(self) -> list[Change]:
        """Whether it stands there."""
        _, rest = await self._read()
        if rest is None:
            return []
        where = f"{stored.CLUSTER_STATUS} in ConfigMap {SYSTEM}/{stored.KUBEADM_CONFIG}"
        return [Change(Action.UPDATE, f"{where}: without {self._node_name}")]

    async def _read(self) -> tuple[Object, str | None]:
        """The ConfigMap, and its ClusterStatus without this node; None where it is not in it."""
        config = await self._kube.get("v1", "ConfigMap", stored.KUBEADM_CONFIG, SYSTEM) or {}
        return config, model.without_endpoint(stored.cluster_status_in(config), self._node_name)

    async def act(self, changes: Sequence[Change], activity: Activity) -> None:
        """Write it. Another control plane may do the same at this moment; a lost race is run again."""
        what = f"{stored.KUBEADM_CONFIG} to forget {self._node_name}"
        await wait_until(self._written, what, deadline=30, progress=activity.progress)

    async def _written(self) -> str | None:
        config, rest = await self._read()
        return None if rest is None else await write_cluster_status(self._kube, config, rest)


class EtcdMemberGone(Phase):
    """This node's member of a stacked etcd leaves it, unless that would cost the others their majority.

    The node's own files lead to etcd, so that it works with an API server that is down.
    """

    name: ClassVar[str] = "remove-etcd-member"
    title: ClassVar[str] = "take this node's member out of etcd"

    def __init__(self, node: Node, certificates_dir: str) -> None:
        self._node = node
        self.host_name = node.name
        self._certificates_dir = certificates_dir
        self._peers: tuple[str, ...] = ()
        self.data_dir = ""
        """Where the member's data is, found by `look`; empty on a node without etcd."""
        self.note = ""
        """What a user should know about a member that is not taken out."""

    async def look(self) -> list[Change]:
        """Whether there is a member, and the others do without it."""
        pod = await self._pod()
        self.data_dir = model.etcd_data_dir(pod)
        if not self.data_dir:
            self.note = "there is no etcd on this node: where it is elsewhere, its data stays"
            return []
        flags = model.container_flags(pod)
        self._peers = tuple(filter(None, flags.get("initial-advertise-peer-urls", "").split(",")))
        if not self._peers:
            self.note = (
                f"{manifest_path(ETCD)} does not say which member of etcd is this node's "
                f"(--initial-advertise-peer-urls=URL): {_BY_HAND}"
            )
            return []
        try:
            async with await self._client(flags) as etcd:
                own = etcd.endpoints[0] if etcd.endpoints else ""
                try:
                    mine, why = await self._standing(etcd)
                except EtcdError:
                    # A member that has lost its majority still answers for itself, and must not go: if the others
                    # come back, they need it.
                    mine, why = None, await _without_leader(etcd, own)
                    if not why:
                        raise
        except KubewrightError as error:
            self.note = f"etcd cannot be asked ({error.message}): {_BY_HAND}"
            return []
        if why:
            raise KubewrightError(
                f"{self.host_name}: its member cannot leave etcd: {why}", host=self.host_name,
                exit_code=ExitCode.HOST_NOT_FIT,
                hint="start the other control planes, or take out their members that are gone for good (etcdctl "
                "member remove); --skip-phases=remove-etcd-member goes on without, and leaves etcd as it is",
            )  # fmt: skip
        return [Change(Action.DELETE, f"etcd {mine}", self.host_name)] if mine is not None else []

    async def read_data_dir(self) -> None:
        """Find where the member's data is, without asking etcd."""
        self.data_dir = model.etcd_data_dir(await self._pod())

    async def _pod(self) -> dict[str, Any]:
        content = await self._node.host.read_file(manifest_path(ETCD))
        return read_mapping(content or b"") or {}

    async def _client(self, flags: dict[str, str]) -> EtcdClient:
        """By this member, or where it is down by those that it started with."""
        # The cluster's certificates may be elsewhere than kubeadm's default, and then its etcd tells where.
        ca = flags.get("trusted-ca-file", "")
        directory = ca.removesuffix("/etcd/ca.crt") if ca.endswith("/etcd/ca.crt") else self._certificates_dir
        keys = await credentials(self._node.host, directory)
        own = [url for url in flags.get("advertise-client-urls", "").split(",") if url]
        others = []
        for pair in flags.get("initial-cluster", "").split(","):
            host = urlsplit(pair.partition("=")[2]).hostname
            if host:
                others.append(f"https://{f'[{host}]' if ':' in host else host}:2379")
        return EtcdClient([*own, *others], keys, self._node.host.forward_tcp)

    async def _standing(self, etcd: EtcdClient) -> tuple[Member | None, str]:
        """This node's member, None where it need not leave, and why it cannot."""
        members = await etcd.sync()
        mine = next((one for one in members if set(one.peer_urls) & set(self._peers)), None)
        voters = [one for one in members if not one.is_learner]
        others = [one for one in voters if mine is None or one.id != mine.id]
        if mine is None or not others:
            # etcd never lets its last voter go, and a learner that is left is none without it.
            return None, ""
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(_health(etcd, one)) for one in others]
        healthy = sum(not task.result() for task in tasks)
        return mine, "" if mine.is_learner else model.quorum_without(healthy, len(voters))

    async def act(self, changes: Sequence[Change], activity: Activity) -> None:
        """Take it out, through another member: this one ends when it learns of it."""
        flags = model.container_flags(await self._pod())
        async with await self._client(flags) as etcd:
            mine, why = await self._standing(etcd)
            if mine is None or why:
                return
            etcd.endpoints = [url for url in etcd.endpoints if url not in mine.client_urls]
            found = mine
            await until_granted(
                lambda: etcd.remove(found.id),
                f"{mine} to leave etcd",
                deadline=60,
                progress=activity.progress,
            )


async def _without_leader(etcd: EtcdClient, endpoint: str) -> str:
    """Why the member at an endpoint serves nobody, if it runs; empty where it does not run."""
    try:
        status = await etcd.status(endpoint)
    except EtcdError:
        return ""
    return "" if status.leader else "it has no leader: too few of the other members run"


async def _health(etcd: EtcdClient, member: Member) -> str:
    return await etcd.health(member.client_urls[0]) if member.client_urls else "it has never started"
