"""The static Pods of a control plane, and waiting until its API server answers."""

from __future__ import annotations

import ssl
from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath
from typing import ClassVar

from kubewright.clients.kube import KubeClient
from kubewright.clients.paths import Object
from kubewright.errors import ApiError
from kubewright.events import Activity
from kubewright.hosts import FileWrite, Host
from kubewright.model import manifests
from kubewright.model.objects import to_yaml
from kubewright.model.pod_meaning import same_pod
from kubewright.phases.files import differing, file_changes, private_folders
from kubewright.phases.node import Node
from kubewright.phases.phase import Action, Change, Phase
from kubewright.phases.waiting import container_evidence, unit_evidence, wait_until

# Containers as lines of Pod and id, then tasks as lines of id, process and state. Another runtime than containerd
# is not asked: its old Pods are not waited for.
_CONTAINERS = r"""
command -v ctr >/dev/null || exit 0
for name; do
  ctr -n k8s.io containers ls -q \
    "labels.\"io.kubernetes.pod.namespace\"==kube-system,labels.\"io.kubernetes.container.name\"==$name" |
    sed "s/^/$name /"
done
ctr -n k8s.io tasks ls
"""


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
        self._replaced: dict[str, set[str]] = {}

    async def look(self) -> list[Change]:
        """Which manifests say something else. One that only looks otherwise stays: the kubelet takes a Pod with
        its volumes in another order for another one."""
        self._wanted = await differing(self._node.host, self._files, same=same_pod)
        return await file_changes(self._node.host, self._wanted)

    async def act(self, changes: Sequence[Change], activity: Activity) -> None:
        """Write them."""
        host = self._node.host
        before = await host.read_files([file.path for file in self._wanted])
        other = [
            PurePosixPath(file.path).stem
            for file in self._wanted
            if file.path in before and before[file.path] != file.data
        ]
        containers = await self._containers(*other) if other else {}
        # One that does not run (it fails again and again) has nothing that could be taken for the new one.
        self._replaced = {pod: ids for pod, ids in containers.items() if ids}
        await private_folders(host, manifests.MANIFESTS_DIR)
        await host.write_files(self._wanted)

    async def verify(self, activity: Activity) -> None:
        """Wait until containers of the new manifests run: until the kubelet notices, the old API server answers,
        and whoever takes that for the new one is cut off in the middle of what it does next.

        The old ones may end up to 30 s later: they serve those who are connected, and take nobody new.
        """

        async def missing() -> str | None:
            running = await self._containers(*self._replaced)
            waiting = [pod for pod, old in self._replaced.items() if not running[pod] - old]
            return f"the old {' and '.join(sorted(waiting))} still runs" if waiting else None

        if self._replaced:
            await wait_until(
                missing, f"{self.host_name}: the kubelet to replace static Pods", deadline=120, interval=0.2,
                diagnose=lambda: unit_evidence(self._node.host, "kubelet"), progress=activity.progress,
                hint="journalctl -u kubelet tells more",
            )  # fmt: skip

    async def _containers(self, *pods: str) -> dict[str, set[str]]:
        """The ids of each static Pod's containers that run on the host."""
        output = (await self._node.host.shell(_CONTAINERS, *pods)).text
        rows = [line.split() for line in output.splitlines()]
        running = {row[0] for row in rows if row[-1:] == ["RUNNING"]}
        return {pod: {row[1] for row in rows if row[:1] == [pod]} & running for pod in pods}


class DataDirectory(Phase):
    """The directory in which a program keeps its data, closed to all others from the start."""

    name: ClassVar[str] = "data-directory"
    title: ClassVar[str] = "make the data directory"

    def __init__(self, node: Node, path: str) -> None:
        self._node = node
        self.host_name = node.name
        self._path = path

    async def look(self) -> list[Change]:
        """Whether it is missing; one that is there is left as it is."""
        found = await self._node.host.stat_files([self._path], digest=False)
        return [] if found else [Change(Action.CREATE, f"{self._path}/", self.host_name)]

    async def act(self, changes: Sequence[Change], activity: Activity) -> None:
        """Make it, 0700."""
        await self._node.host.shell('mkdir -p "$(dirname "$1")" && mkdir -m 0700 "$1"', self._path)


class ApiServerUp(Phase):
    """The API server of one control plane answers an administrator."""

    name: ClassVar[str] = "wait-control-plane"
    title: ClassVar[str] = "wait for the API server"
    always_verify: ClassVar[bool] = True

    def __init__(self, node: Node, kube: KubeClient, deadline: float, *, interval: float = 0.05) -> None:
        self._node = node
        self.host_name = node.name
        self._kube = kube
        self._deadline = deadline
        self._interval = interval
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
            interval=self._interval, diagnose=self._diagnose, progress=activity.progress,
            hint="journalctl -u kubelet, and the logs under /var/log/pods, tell more",
        )  # fmt: skip

    async def missing(self) -> str | None:
        """Why requests are not served; None where they are."""
        try:
            await self._kube.request("GET", "/api/v1/namespaces/kube-system", timeout=2)
        except ApiError as error:
            # The namespace is made by the API server itself a moment after it has begun to serve.
            if isinstance(error.__cause__, ssl.SSLError):  # somebody answers, whom our CA did not sign
                return error.message
            return f"{error.status} {error.reason}" if error.status else "it does not answer yet"
        return None

    async def _diagnose(self) -> list[str]:
        host = self._node.host
        evidence = []
        for container in ("etcd", "kube-apiserver"):
            evidence += await container_evidence(host, container)
        return evidence + await unit_evidence(host, "kubelet", lines=5)


class ApiServerReady(ApiServerUp):
    """The API server says itself that it is ready, and so will be found by the checks of load balancers."""

    name: ClassVar[str] = "wait-ready"
    title: ClassVar[str] = "wait until the API server is ready"

    def __init__(self, node: Node, kube: KubeClient, deadline: float = 60.0) -> None:
        super().__init__(node, kube, deadline)

    async def missing(self) -> str | None:
        """What is not ready yet."""
        try:
            await self._kube.request("GET", "/readyz", timeout=2)
        except ApiError as error:
            # It lists what is ready, too.
            ill = [line.removeprefix("[-]") for line in error.message.splitlines() if line.startswith("[-]")]
            return ", ".join(ill) or error.message
        return None


async def ca_directories(host: Host) -> list[str]:
    """Where the host keeps the CAs that it trusts; the API server mounts those of them that exist."""
    found = await host.stat_files(manifests.OPTIONAL_CA_DIRS, digest=False)
    return [path for path in manifests.OPTIONAL_CA_DIRS if path in found]
