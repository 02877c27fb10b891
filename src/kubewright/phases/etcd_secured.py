"""The only member of a stacked etcd moves to TLS on its host's own address, so that others can join it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

from kubewright.clients.etcd import Credentials, EtcdClient, EtcdError, Member
from kubewright.clients.kube import KubeClient
from kubewright.errors import ExitCode, HostError
from kubewright.events import Activity
from kubewright.model import etcd_secured as model
from kubewright.model.manifests import API_SERVER, ETCD, manifest_path
from kubewright.model.objects import Object, read_mapping
from kubewright.phases.containers import end_containers, running_container
from kubewright.phases.controlplane import ApiServerUp, StaticPods
from kubewright.phases.etcd import credentials
from kubewright.phases.node import Node
from kubewright.phases.phase import Action, Change, Phase
from kubewright.phases.waiting import container_evidence, unit_evidence, wait_until

_ANSWER = 60.0
"""Seconds in which etcd answers: an earlier run may have just changed its manifest."""
_SERVES = 180.0
_REQUEST = 3.0
_LAST_ANSWERS = 1.0
"""Seconds for the requests that an API server has when it ends. It takes no others from then on, and would wait a
minute for its watches, which nobody ends."""


class EtcdSecured(Phase):
    """etcd and its API server as `pods` have them, where etcd is without TLS or on loopback only.

    etcd first learns its member's peer URL, which it reads from its own data from then on. Both manifests are
    written together then, so that the API is away once. A run that was killed between the two finds an API server
    that reaches no etcd, and asks nobody but etcd itself. The certificates must have been made before.
    """

    name: ClassVar[str] = "etcd-secured"
    title: ClassVar[str] = "let etcd listen on the host's own address, with TLS"
    always_verify: ClassVar[bool] = True

    def __init__(
        self, node: Node, kube: KubeClient, pods: Mapping[str, Object], certificates_dir: str, *,
        deadline: float = _SERVES,
    ) -> None:  # fmt: skip
        """`pods` are the node's static Pods, of which `etcd` and `kube-apiserver` are used; `kube` asks this
        node's API server. `deadline` is for each to serve, in seconds."""
        self._node = node
        self.host_name = node.name
        self._kube = kube
        self._wanted = {name: pods[name] for name in (ETCD, API_SERVER)}
        self._certificates_dir = certificates_dir
        self._deadline = deadline
        self._present: dict[str, Object] = {}
        self._only: Member | None = None
        self._due = model.Due()
        self._pods: StaticPods | None = None

    async def look(self) -> list[Change]:
        """Which steps are due. Raises `HostError` where etcd has several members, or is not on this host."""
        self._present = await self._read()
        members = await self._members()
        self._due = model.due(
            self.host_name, self._present, self._wanted, [member.peer_urls for member in members]
        )
        self._only = members[0] if members else None
        self._pods = None
        changes = []
        if self._due.member:
            changes.append(Change(Action.UPDATE, "member of etcd", self.host_name, self._due.member))
        lines = {ETCD: self._due.etcd, API_SERVER: self._due.api_server}
        if late := {name: self._wanted[name] for name, why in lines.items() if why}:
            self._pods = StaticPods(self._node, late)
            reasons = {manifest_path(name): why for name, why in lines.items()}
            changes += [
                Change(one.action, one.target, one.host, (*reasons[one.target], *one.diff))
                for one in await self._pods.look()
            ]
        return changes

    async def act(self, changes: Sequence[Change], activity: Activity) -> None:
        """Tell etcd, then write the manifests."""
        if self._pods is not None:
            await self._check_files()
        if self._due.member and self._only is not None:
            activity.progress("give the member its peer URL")
            async with await self._client() as etcd:
                await etcd.update(self._only.id, self._due.peer_urls)
        if self._pods is not None:
            activity.progress("restart etcd and the API server")
            if self._due.etcd and self._due.api_server:
                await self._end_api_server()
            await self._pods.act(changes, activity)

    async def _end_api_server(self) -> None:
        """One that ends while etcd is away answers nobody for 20 s, in which it tries to take its address off the
        Service `kubernetes` (twice the interval of its endpoint reconciler). A run that is killed here leaves an
        API server that its kubelet starts again."""
        if container := await running_container(self._node.host, API_SERVER):
            await end_containers(self._node.host, [container], patience=_LAST_ANSWERS)

    async def verify(self, activity: Activity) -> None:
        """Wait until etcd serves by TLS, under its peer URL, and the API server answers from it."""
        if self._pods is not None:
            await self._pods.verify(activity)
        host = self._node.host
        keys = await credentials(host, self._certificates_dir)
        # What is not due stays as it is, and may be at another address than the wanted.
        served = self._wanted[ETCD] if self._due.etcd else self._present[ETCD]
        urls = [url for url in model.asked_at(served) if url.startswith("https:")]
        async with EtcdClient(urls, keys, host.forward_tcp, timeout=_REQUEST) as etcd:

            async def missing() -> str | None:
                for url in urls:
                    if why := await etcd.health(url):
                        return f"{url}: {why}"
                hidden = [one for one in await etcd.members() if not model.is_reached(one.peer_urls)]
                return f"etcd still has {hidden[0]}" if hidden else None

            await wait_until(
                missing, f"{self.host_name}: etcd to serve by TLS", deadline=self._deadline, interval=0.2,
                diagnose=self._diagnose, progress=activity.progress,
                hint="the logs under /var/log/pods tell more; do its certificates name the host's address?",
            )  # fmt: skip
        await ApiServerUp(self._node, self._kube, self._deadline).verify(activity)

    async def _read(self) -> dict[str, Object]:
        paths = {name: manifest_path(name) for name in self._wanted}
        found = await self._node.host.read_files(paths.values())
        pods = {name: read_mapping(found[path]) for name, path in paths.items() if path in found}
        for name, path in paths.items():
            if pods.get(name) is None:
                raise HostError(
                    f"{self.host_name}: {path} is {'no manifest' if path in found else 'not there'}",
                    host=self.host_name, exit_code=ExitCode.HOST_NOT_FIT,
                    hint="is this a control plane with an etcd of its own?",
                )  # fmt: skip
        return {name: pod for name, pod in pods.items() if pod is not None}

    async def _check_files(self) -> None:
        """Raise `HostError` where a certificate is missing, without which the cluster would not come back."""
        files = model.named_files(self._wanted)
        found = await self._node.host.stat_files(files, digest=False)
        if missing := [path for path in files if path not in found]:
            raise HostError(
                f"{self.host_name}: etcd is to use {missing[0]}, which is not there", host=self.host_name,
                exit_code=ExitCode.HOST_NOT_FIT, evidence=missing, hint="its certificates are made before",
            )  # fmt: skip

    async def _members(self) -> list[Member]:
        async with await self._client() as etcd:
            return await etcd.members()

    async def _client(self) -> EtcdClient:
        """A client of etcd in the way in which it answers now: by its manifest, or as it is to be."""
        host = self._node.host
        present = model.asked_at(self._present[ETCD])
        urls = list(dict.fromkeys([*model.asked_at(self._wanted[ETCD]), *present]))
        ways: list[tuple[str, Credentials | None]] = []
        try:
            keys = await credentials(host, self._certificates_dir)
            ways += [(url, keys) for url in urls if url.startswith("https:")]
        except HostError:  # a plan is made before the certificates are
            if not any(url.startswith("http:") for url in present):
                raise
        ways += [(url, None) for url in present if url.startswith("http:")]
        found: EtcdClient | None = None

        async def missing() -> str | None:
            nonlocal found
            failures = []
            for url, keys in ways:
                etcd = EtcdClient([url], keys, host.forward_tcp, timeout=_REQUEST)
                try:
                    await etcd.members()
                except EtcdError as error:
                    await etcd.close()
                    failures.append(error.message)
                except BaseException:
                    await etcd.close()
                    raise
                else:
                    found = etcd
                    return None
            return "; ".join(failures)

        await wait_until(
            missing, f"{self.host_name}: etcd to answer", deadline=_ANSWER, interval=0.5,
            diagnose=self._diagnose, hint="the logs under /var/log/pods tell more",
        )  # fmt: skip
        assert found is not None
        return found

    async def _diagnose(self) -> list[str]:
        host = self._node.host
        return [*await container_evidence(host, ETCD), *await unit_evidence(host, "kubelet", lines=5)]
