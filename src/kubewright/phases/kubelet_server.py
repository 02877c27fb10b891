"""A node's kubelet moves to another address of its cluster's API."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from kubewright.clients.kube import KubeClient
from kubewright.errors import ExitCode, HostError
from kubewright.events import Activity
from kubewright.hosts import FileWrite
from kubewright.model import kubeconfig
from kubewright.model.objects import Object
from kubewright.phases.alive import renewed
from kubewright.phases.files import newer_than_unit
from kubewright.phases.kubelet_join import KUBELET_CONF
from kubewright.phases.node import Node
from kubewright.phases.phase import Action, Change, Phase
from kubewright.phases.waiting import unit_evidence, wait_until

_UNIT = "kubelet.service"
_DEADLINE = 120.0


class KubeletServer(Phase):
    """`kubelet.conf` names the API's address `server`, and the kubelet reports by it. Pods go on running (P30)."""

    name: ClassVar[str] = "kubelet-server"
    title: ClassVar[str] = "let the kubelet use the endpoint"

    def __init__(self, node: Node, kube: KubeClient, server: str) -> None:
        """`server` is a URL; `kube` asks the cluster, whichever way it takes."""
        self._node = node
        self._kube = kube
        self._server = server
        self.host_name = node.name
        self._document: Object = {}
        self._before = ""

    async def look(self) -> list[Change]:
        """Whether it names another. Raises `HostError` where the host has no such file: it is no node."""
        content = await self._node.host.read_file(KUBELET_CONF)
        if content is None:
            raise HostError(
                f"{self.host_name}: there is no {KUBELET_CONF}: it is no node of a cluster",
                host=self.host_name, exit_code=ExitCode.HOST_NOT_FIT,
                hint="join it first, or take it out of cluster.yaml",
            )  # fmt: skip
        self._document = kubeconfig.load(content, KUBELET_CONF)
        old = kubeconfig.first_server(self._document)
        restart = Change(Action.RUN, f"restart {_UNIT}", self.host_name)
        if old != self._server:
            why = f"# {old} becomes {self._server}"
            return [Change(Action.UPDATE, KUBELET_CONF, self.host_name, (why,)), restart]
        active = await self._node.host.run(["systemctl", "is-active", "--quiet", _UNIT], check=False)
        # A run was killed between the file and the restart.
        if not active.ok or await newer_than_unit(self._node.host, _UNIT, [KUBELET_CONF]):
            return [restart]
        return []

    async def act(self, changes: Sequence[Change], activity: Activity) -> None:
        """Write it, and restart the kubelet, which reads it only when it starts."""
        host = self._node.host
        if any(change.action is Action.UPDATE for change in changes):
            content = kubeconfig.dump(kubeconfig.with_server(self._document, self._server))
            await host.write_files([FileWrite(KUBELET_CONF, content, kubeconfig.KUBECONFIG_MODE)])
        # Stopped first: what the old one does at its end would be taken for the new one's sign of life.
        await host.run(["systemctl", "stop", _UNIT])
        self._before = await renewed(self._kube, self.host_name)
        await host.run(["systemctl", "start", _UNIT])

    async def verify(self, activity: Activity) -> None:
        """Wait until it has renewed its Lease."""

        async def missing() -> str | None:
            same = await renewed(self._kube, self.host_name) == self._before
            return "the kubelet has not renewed its Lease yet" if same else None

        await wait_until(
            missing, f"{self.host_name}: the kubelet to report at {self._server}", deadline=_DEADLINE,
            interval=0.2, diagnose=lambda: unit_evidence(self._node.host, "kubelet"),
            progress=activity.progress, hint=f"can {self.host_name} reach {self._server}?",
        )  # fmt: skip
