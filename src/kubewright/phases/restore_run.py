"""What a restore stops before it, and waits for after it: kubelets, static Pods, and Nodes' signs of life."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from kubewright.clients.cri import RuntimeContainer, open_cri, system_containers
from kubewright.clients.kube import KubeClient
from kubewright.errors import ExitCode, HostError
from kubewright.events import Activity
from kubewright.model.objects import SYSTEM
from kubewright.phases.alive import renewed
from kubewright.phases.containers import end_containers
from kubewright.phases.node import Node
from kubewright.phases.phase import Action, Change, Phase
from kubewright.phases.waiting import container_evidence, unit_evidence, wait_until

_UNIT = "kubelet.service"
_RUN_DEADLINE = 180.0
_REPORT_DEADLINE = 120.0


class KubeletStopped(Phase):
    """The kubelet does not run; the Pods that it has started do."""

    name: ClassVar[str] = "stop-kubelet"
    title: ClassVar[str] = "stop the kubelet"

    def __init__(self, node: Node) -> None:
        self._node = node
        self.host_name = node.name

    async def look(self) -> list[Change]:
        """Whether it runs, or is about to run again."""
        state = (await self._node.host.run(["systemctl", "is-active", _UNIT], check=False)).text
        up = state in ("active", "activating", "reloading")
        return [Change(Action.RUN, f"stop {_UNIT}", self.host_name)] if up else []

    async def act(self, changes: Sequence[Change], activity: Activity) -> None:
        """Stop it."""
        await self._node.host.run(["systemctl", "stop", _UNIT], timeout=90)


class KubeletStarted(Phase):
    """The kubelet runs with the unit and the files that are there now."""

    name: ClassVar[str] = "start-kubelet"
    title: ClassVar[str] = "start the kubelet"

    def __init__(self, node: Node) -> None:
        self._node = node
        self.host_name = node.name

    async def look(self) -> list[Change]:
        """Whether it does not run."""
        state = (await self._node.host.run(["systemctl", "is-active", _UNIT], check=False)).text
        return [] if state == "active" else [Change(Action.RUN, f"start {_UNIT}", self.host_name)]

    async def act(self, changes: Sequence[Change], activity: Activity) -> None:
        """Start it, by its unit as it is now."""
        done = await self._node.host.shell(
            'systemctl daemon-reload && systemctl start "$1"', _UNIT, timeout=90, check=False
        )
        if not done.ok:
            raise HostError(
                f"{self.host_name}: the kubelet does not start", host=self.host_name,
                evidence=[done.err, *await unit_evidence(self._node.host, "kubelet")],
                hint="journalctl -u kubelet tells more", exit_code=ExitCode.HOST_NOT_FIT,
            )  # fmt: skip


class StaticPodsRun(Phase):
    """The containers of a control plane's static Pods run."""

    name: ClassVar[str] = "wait-static-pods"
    title: ClassVar[str] = "wait for the static Pods"
    always_verify: ClassVar[bool] = True

    def __init__(self, node: Node, cri_socket: str, names: Sequence[str]) -> None:
        self._node = node
        self.host_name = node.name
        self._socket = cri_socket
        self._names = names

    async def look(self) -> list[Change]:
        """Nothing: the kubelet starts them."""
        return []

    async def act(self, changes: Sequence[Change], activity: Activity) -> None:
        """Nothing to do."""

    async def verify(self, activity: Activity) -> None:
        """Wait until each runs."""
        await wait_until(
            self._missing, f"{self.host_name}: the static Pods to run", deadline=_RUN_DEADLINE, interval=0.25,
            diagnose=self._diagnose, progress=activity.progress,
            hint="journalctl -u kubelet, and the logs under /var/log/pods, tell more",
        )  # fmt: skip

    async def _missing(self) -> str | None:
        async with open_cri(self._node.host, self._socket) as cri:
            found = await system_containers(cri, self._names)
        running = {one.name for one, _ in found if one.running}
        left = [name for name in self._names if name not in running]
        return f"{', '.join(left)} does not run yet" if left else None

    async def _diagnose(self) -> list[str]:
        host = self._node.host
        evidence = [line for name in self._names for line in await container_evidence(host, name, 3)]
        return evidence + await unit_evidence(host, "kubelet", lines=5)


class NodesReport(Phase):
    """The kubelets of these Nodes report to the cluster, each by what it was given."""

    name: ClassVar[str] = "wait-nodes"
    title: ClassVar[str] = "wait until all nodes report"
    always_verify: ClassVar[bool] = True

    def __init__(self, kube: KubeClient, names: Sequence[str]) -> None:
        self._kube = kube
        self._names = names

    async def look(self) -> list[Change]:
        """Nothing is changed."""
        return []

    async def act(self, changes: Sequence[Change], activity: Activity) -> None:
        """Nothing to do."""

    async def verify(self, activity: Activity) -> None:
        """Wait until each has renewed its Lease: what stands there at first may be as old as the snapshot."""
        before: dict[str, str] = {}
        silent = dict.fromkeys(self._names)

        async def missing() -> str | None:
            for name in list(silent):
                now = await renewed(self._kube, name)
                if before.setdefault(name, now) != now:
                    del silent[name]
            return f"{', '.join(silent)} does not report yet" if silent else None

        await wait_until(
            missing, f"{', '.join(self._names)} to report", deadline=_REPORT_DEADLINE, interval=0.5,
            progress=activity.progress, hint="journalctl -u kubelet on that host tells more",
        )  # fmt: skip


class WatchersRestarted(Phase):
    """The containers of kube-system's Pods run anew, but for static Pods.

    After a restore revisions begin again at an earlier number. Who goes on watching after a later one is told
    nothing until that comes again, and kube-proxy, for example, would keep API servers that are gone (Kubernetes'
    documentation, "Restoring an etcd cluster"). The Pods themselves stay, with their addresses and rules.
    """

    name: ClassVar[str] = "restart-watchers"
    title: ClassVar[str] = "restart what watches the API"

    def __init__(self, node: Node, cri_socket: str, static: Sequence[str]) -> None:
        """`static` are the names of the containers that are spared."""
        self._node = node
        self.host_name = node.name
        self._socket = cri_socket
        self._static = frozenset(static)
        self._before: list[RuntimeContainer] = []

    async def look(self) -> list[Change]:
        """Which run."""
        self._before = await self._running()
        return [Change(Action.RUN, f"restart container {one.name}", self.host_name) for one in self._before]

    async def _running(self) -> list[RuntimeContainer]:
        return (await self._seen())[0]

    async def _seen(self) -> tuple[list[RuntimeContainer], set[str]]:
        """Which of them run, and the sandboxes that the kubelet keeps."""
        async with open_cri(self._node.host, self._socket) as cri:
            pods = {pod.id for pod in await cri.sandboxes() if pod.namespace == SYSTEM and pod.ready}
            found = [
                one
                for one in await cri.containers()
                if one.running and one.sandbox in pods and one.name not in self._static
            ]
        return found, pods

    async def act(self, changes: Sequence[Change], activity: Activity) -> None:
        """End them; the kubelet starts them again."""
        await end_containers(self._node.host, [one.id for one in self._before])

    async def verify(self, activity: Activity) -> None:
        """Wait until each has a successor, or its sandbox is gone: a Pod that is younger than the backup is no
        Pod of the cluster any more, and the kubelet starts the one that was there before."""
        old = {one.id for one in self._before}

        async def missing() -> str | None:
            running, pods = await self._seen()
            new = {(one.sandbox, one.name) for one in running if one.id not in old}
            left = sorted(
                {
                    one.name
                    for one in self._before
                    if one.sandbox in pods and (one.sandbox, one.name) not in new
                }
            )
            return f"{', '.join(left)} does not run again yet" if left else None

        await wait_until(
            missing, f"{self.host_name}: the kubelet to start containers again", deadline=_RUN_DEADLINE,
            interval=0.25, diagnose=lambda: unit_evidence(self._node.host, "kubelet"),
            progress=activity.progress, hint="journalctl -u kubelet tells more",
        )  # fmt: skip
