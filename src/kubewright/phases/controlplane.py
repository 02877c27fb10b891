"""The static Pods of a control plane, and waiting until its API server answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

from kubewright.clients.kube import KubeClient, Object
from kubewright.errors import ApiError
from kubewright.events import Activity
from kubewright.hosts import FileWrite, Host
from kubewright.model import manifests
from kubewright.model.objects import to_yaml
from kubewright.phases.files import differing, file_changes
from kubewright.phases.node import Node
from kubewright.phases.phase import Change, Phase
from kubewright.phases.waiting import container_evidence, unit_evidence, wait_until


class StaticPods(Phase):
    """The manifests under /etc/kubernetes/manifests; the kubelet runs what stands there."""

    name: ClassVar[str] = "control-plane"
    title: ClassVar[str] = "write static Pods"

    def __init__(self, node: Node, pods: Mapping[str, Object], name: str = "control-plane") -> None:
        self._node = node
        self.host_name = node.name
        self.name = name  # type: ignore[misc]  # etcd and API server come before the others
        self._files = [
            FileWrite(manifests.manifest_path(pod), to_yaml(body), 0o600) for pod, body in pods.items()
        ]
        self._wanted: list[FileWrite] = []

    async def look(self) -> list[Change]:
        """Which manifests differ."""
        self._wanted = await differing(self._node.host, self._files)
        return await file_changes(self._node.host, self._wanted)

    async def act(self, changes: Sequence[Change], activity: Activity) -> None:
        """Write them."""
        await self._node.host.write_files(self._wanted)


class ApiServerUp(Phase):
    """The API server of one control plane answers an administrator."""

    name: ClassVar[str] = "wait-control-plane"
    title: ClassVar[str] = "wait for the API server"
    always_verify: ClassVar[bool] = True

    def __init__(self, node: Node, kube: KubeClient, deadline: float) -> None:
        self._node = node
        self.host_name = node.name
        self._kube = kube
        self._deadline = deadline
        self._last = ""

    async def look(self) -> list[Change]:
        """Nothing: the kubelet starts it."""
        return []

    async def act(self, changes: Sequence[Change], activity: Activity) -> None:
        """Nothing to do."""

    async def verify(self, activity: Activity) -> None:
        """Wait until requests are served; the API server's own late start-up hooks need not have ended."""
        await wait_until(
            self.missing, f"{self.host_name}: the API server to answer", deadline=self._deadline,
            interval=0.05, diagnose=self._diagnose, progress=activity.progress,
            hint="journalctl -u kubelet, and the logs under /var/log/pods, tell more",
        )  # fmt: skip

    async def missing(self) -> str | None:
        """Why requests are not served; None where they are."""
        try:
            await self._kube.request("GET", "/api/v1/namespaces/kube-system", timeout=2)
        except ApiError as error:
            # The namespace is made by the API server itself a moment after it has begun to serve.
            return f"{error.status} {error.reason}" if error.status else "it does not answer yet"
        return None

    async def _diagnose(self) -> list[str]:
        host = self._node.host
        evidence = []
        for container in ("etcd", "kube-apiserver"):
            evidence += await container_evidence(host, container)
        return evidence + await unit_evidence(host, "kubelet", lines=5)


async def ca_directories(host: Host) -> list[str]:
    """Where the host keeps the CAs that it trusts; the API server mounts those of them that exist."""
    found = await host.stat_files(manifests.OPTIONAL_CA_DIRS, digest=False)
    return [path for path in manifests.OPTIONAL_CA_DIRS if path in found]
