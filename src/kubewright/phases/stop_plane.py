"""A control plane stops serving, all but its etcd: that one leaves its cluster afterwards."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from typing import ClassVar

from kubewright.clients.cri import CriClient, CriError, Sandbox, open_cri, system_containers
from kubewright.events import Activity
from kubewright.model.manifests import API_SERVER, CONTROLLER, ETCD, SCHEDULER_POD, manifest_path
from kubewright.phases.node import Node
from kubewright.phases.phase import Action, Change, Phase
from kubewright.phases.waiting import unit_evidence, wait_until

_SERVERS = (API_SERVER, CONTROLLER, SCHEDULER_POD)
# The kubelet gives them 30 s to end, and the API server uses them for requests that are under way.
_DEADLINE = 90.0


class ServersGone(Phase):
    """The API server and the controllers of a control plane end, as the kubelet ends a Pod: what they are asked at
    this moment they still answer."""

    name: ClassVar[str] = "stop-control-plane"
    title: ClassVar[str] = "stop the API server and the controllers"
    always_verify: ClassVar[bool] = True
    servers: ClassVar[tuple[str, ...]] = _SERVERS
    """The names of the containers that end."""

    def __init__(self, node: Node, cri_socket: str) -> None:
        self._node = node
        self.host_name = node.name
        self._socket = cri_socket
        self._paths = [manifest_path(name) for name in self.servers]

    async def look(self) -> list[Change]:
        """Which manifests are there; without any, which Pods are left that a kubelet that does not run will never
        end: a run was killed after it had removed the manifests."""
        found = await self._node.host.stat_files(self._paths, digest=False)
        changes = [Change(Action.DELETE, path, self.host_name) for path in self._paths if path in found]
        if not changes and not await self._has_kubelet():
            with suppress(CriError):  # `verify` says it
                async with self._runtime() as cri:
                    left = await self._left(cri)
                changes = [Change(Action.DELETE, f"Pod {pod}", self.host_name) for _, pod in left]
        return changes

    async def act(self, changes: Sequence[Change], activity: Activity) -> None:
        """Remove them. A kubelet that does not run would notice nothing, and its Pods are ended for it."""
        await self._node.host.run(["rm", "-f", *self._paths])
        if not await self._has_kubelet():
            async with self._runtime() as cri:
                for _, pod in await self._left(cri):
                    await cri.remove_sandbox(pod.id)

    async def _has_kubelet(self) -> bool:
        state = await self._node.host.run(["systemctl", "is-active", "--quiet", "kubelet"], check=False)
        return state.ok

    @asynccontextmanager
    async def _runtime(self) -> AsyncIterator[CriClient]:
        """The runtime; where that is broken, nobody can tell what still runs, nor end it."""
        try:
            async with open_cri(self._node.host, self._socket) as cri:
                yield cri
        except CriError as error:
            error.hint = "; ".join(filter(None, (error.hint, self._hint)))
            raise

    @property
    def _hint(self) -> str:
        return (
            f"or give the host up: `kubewright node remove {self.host_name} --gone` takes the Node out, and does "
            "not reset it"
        )

    async def _left(self, cri: CriClient) -> list[tuple[str, Sandbox]]:
        """The containers that still run, by name, each with its Pod."""
        return [(one.name, pod) for one, pod in await system_containers(cri, self.servers) if one.running]

    async def verify(self, activity: Activity) -> None:
        """Wait until none of them runs: whom an API server still serves would miss its etcd."""
        await wait_until(
            self._running, f"{self.host_name}: the API server and the controllers to end", deadline=_DEADLINE,
            interval=0.25, progress=activity.progress, hint=f"journalctl -u kubelet tells more; {self._hint}",
            diagnose=lambda: unit_evidence(self._node.host, "kubelet"),
        )  # fmt: skip

    async def _running(self) -> str | None:
        async with self._runtime() as cri:
            names = {name for name, _ in await self._left(cri)}
        return f"{', '.join(sorted(names))} still runs" if names else None


class StaticPodsGone(ServersGone):
    """All programs of a control plane end, etcd too: what is to run is put back from a backup."""

    title: ClassVar[str] = "stop the static Pods"
    servers: ClassVar[tuple[str, ...]] = (*_SERVERS, ETCD)

    @property
    def _hint(self) -> str:
        return "then run the same command again"
