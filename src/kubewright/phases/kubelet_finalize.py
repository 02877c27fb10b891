"""The last steps of a new node's kubelet: it names the certificate that it renews, and tells what has come up."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import ClassVar

from kubewright.clients.kube import KubeClient
from kubewright.errors import ConfigError, WaitTimeoutError
from kubewright.events import Activity
from kubewright.hosts import FileWrite
from kubewright.model import kubeconfig, manifests
from kubewright.model.objects import Object
from kubewright.phases.node import Node
from kubewright.phases.nodes import ready_reason
from kubewright.phases.phase import Action, Change, Phase
from kubewright.phases.waiting import wait_until


class KubeletFinalize(Phase):
    """`kubelet.conf` with a certificate inside is pointed at the kubelet's own file, once there is one (P23).

    `directory` is where the kubelet keeps its certificates (its flag --cert-dir).
    """

    name: ClassVar[str] = "kubelet-finalize"
    title: ClassVar[str] = "let the kubelet use the certificate that it renews"

    def __init__(self, node: Node, *, directory: str = kubeconfig.KUBELET_PKI_DIR) -> None:
        self._node = node
        self.host_name = node.name
        self._pem = f"{directory}/kubelet-client-current.pem"
        self._path = f"{kubeconfig.KUBERNETES_DIR}/{kubeconfig.KUBELET}"
        self._document: Object = {}

    async def look(self) -> list[Change]:
        """Whether the kubeconfig holds a certificate although the kubelet has a file of its own."""
        found = await self._node.host.read_files([self._path, self._pem])
        if len(found) < 2:
            return []
        document = kubeconfig.load(found[self._path], self._path)
        user = f"system:node:{self._node.name}"
        for entry in document.get("users") or []:
            if entry.get("name") != user:
                continue
            credentials = entry.get("user") or {}
            if credentials.get("client-certificate") == credentials.get("client-key") == self._pem:
                return []
            entry["user"] = {"client-certificate": self._pem, "client-key": self._pem}
            self._document = document
            return [
                Change(Action.UPDATE, self._path, self.host_name, (f"# names {self._pem}",)),
                Change(Action.RUN, "restart kubelet.service", self.host_name),
            ]
        raise ConfigError(
            f"{self.host_name}: {self._path} has no user {user!r}",
            hint="is it another node's? name the node with --node-name, or write the file anew: "
            "kubewright init phase kubeconfig kubelet",
        )

    async def act(self, changes: Sequence[Change], activity: Activity) -> None:
        """Write the kubeconfig, and restart the kubelet, which reads it only when it starts."""
        content = kubeconfig.dump(self._document)
        await self._node.host.write_files([FileWrite(self._path, content, kubeconfig.KUBECONFIG_MODE)])
        await self._node.host.run(["systemctl", "restart", "kubelet.service"])


class StaticPodsReported(Phase):
    """The API shows the node's static Pods. A kubelet that was started before the API server tells of them again a
    minute after its first try; kubeadm's, which is restarted here for another reason, tells of them at once.

    `network` is the file by which the container runtime knows the pod network, where there will be one: a kubelet
    that finds it when it starts says at once that its node is Ready, and one that is running says it every 10 s.
    """

    name: ClassVar[str] = "kubelet-finalize"
    title: ClassVar[str] = "let the kubelet report its static Pods"

    def __init__(self, node: Node, kube: KubeClient, *, network: str = "") -> None:
        self._node = node
        self._kube = kube
        self._network = network
        self.host_name = node.name

    async def look(self) -> list[Change]:
        """Whether the API server's own Pod is missing."""
        name = f"{manifests.API_SERVER}-{self._node.name}"
        if await self._kube.get("v1", "Pod", name, "kube-system") is not None:
            return []
        return [Change(Action.RUN, "restart kubelet.service", self.host_name)]

    async def act(self, changes: Sequence[Change], activity: Activity) -> None:
        """Restart the kubelet; the pods on the node go on running."""
        if self._network:
            await _network_up(self._node, self._network, activity)
        await self._node.host.run(["systemctl", "restart", "kubelet.service"])


class NetworkReported(Phase):
    """A node that has just joined is Ready as soon as its pod network has come up, and not up to 10 s later.

    `network` is the file by which the container runtime knows the pod network.
    """

    name: ClassVar[str] = "kubelet-finalize"
    title: ClassVar[str] = "let the kubelet report the pod network"

    def __init__(self, node: Node, kube: KubeClient, *, network: str) -> None:
        self._node = node
        self._kube = kube
        self._network = network
        self.host_name = node.name

    async def look(self) -> list[Change]:
        """Whether the Node is not Ready yet."""
        live = await self._kube.get("v1", "Node", self._node.name)
        if live is not None and not ready_reason(live):
            return []
        return [Change(Action.RUN, "restart kubelet.service", self.host_name)]

    async def act(self, changes: Sequence[Change], activity: Activity) -> None:
        """Restart the kubelet when there is a network; the pods on the node go on running."""
        await _network_up(self._node, self._network, activity)
        if await self.look():
            await self._node.host.run(["systemctl", "restart", "kubelet.service"])


async def _network_up(node: Node, file: str, activity: Activity) -> None:
    """Wait for a node's pod network, and not for ever: whoever waits for the nodes next says what is wrong."""

    async def missing() -> str | None:
        found = await node.host.stat_files([file], digest=False)
        return None if found else "the pod network has not come up yet"

    with suppress(WaitTimeoutError):
        await wait_until(missing, f"{node.name}: the pod network", deadline=60, progress=activity.progress)
