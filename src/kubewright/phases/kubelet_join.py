"""A joining node's kubelet: its certificate by TLS bootstrap, its files, and its start."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from kubewright.clients.kube import KubeClient
from kubewright.clients.server import Server
from kubewright.errors import ApiError, ExitCode, HostError
from kubewright.events import Activity
from kubewright.hosts import FileWrite
from kubewright.model import kubeconfig
from kubewright.model.versions import VersionFacts
from kubewright.phases.api import api_over
from kubewright.phases.bootstrap import client_certificate, write_client_certificate
from kubewright.phases.kubelet import Kubelet
from kubewright.phases.node import Node
from kubewright.phases.nodes import NodeMarks, ready_reason
from kubewright.phases.phase import Action, Change, Phase
from kubewright.phases.waiting import unit_evidence, wait_until

KUBELET_CONF = f"{kubeconfig.KUBERNETES_DIR}/{kubeconfig.KUBELET}"
BOOTSTRAP_CONF = f"{kubeconfig.KUBERNETES_DIR}/{kubeconfig.BOOTSTRAP_KUBELET}"


async def refuse_taken_name(kube: KubeClient, node: Node) -> None:
    """Raise `HostError` where the cluster has a Node of this name that is Ready: two hosts would be one Node."""
    live = await kube.get("v1", "Node", node.name)
    if live is not None and not ready_reason(live):
        raise HostError(
            f"{node.name}: another host is in the cluster as Node {node.name}, and is Ready",
            host=node.name, exit_code=ExitCode.HOST_NOT_FIT,
            hint=f"name this host otherwise, or delete that Node first: kubectl delete node {node.name}",
        )  # fmt: skip


class JoinKubelet(Phase):
    """A host becomes a node: what `kubeadm join phase kubelet-start` leaves behind, without its restarts."""

    name: ClassVar[str] = "kubelet-start"
    title: ClassVar[str] = "get the kubelet its certificate and start it"
    always_verify: ClassVar[bool] = True

    def __init__(
        self,
        node: Node,
        server: Server,
        facts: VersionFacts,
        files: Sequence[FileWrite],
        *,
        ca_path: str,
        kubelet_server: str,
        cri_socket: str,
        wait_for_node: bool = True,
        deadline: float = 300.0,
    ) -> None:
        """`server` is the cluster with the credentials of the TLS bootstrap; `kubelet_server` the URL that the
        kubelet is to use; `cri_socket` the annotation, empty for none. Without `wait_for_node` the Node may
        register later: the kubelet's own API server does not run yet."""
        self._node = node
        self.host_name = node.name
        self._server = server
        self._facts = facts
        self._files = files
        self._ca_path = ca_path
        self._kubelet_server = kubelet_server
        self._cri_socket = cri_socket
        self._wait_for_node = wait_for_node
        self._deadline = deadline

    async def look(self) -> list[Change]:
        """The kubelet's credentials, its files and its start."""
        host = self._node.host
        found = await host.stat_files([KUBELET_CONF, self._ca_path], digest=False)
        changes = []
        if KUBELET_CONF not in found:
            changes.append(Change(Action.CREATE, kubeconfig.KUBELET_CLIENT_CURRENT, self.host_name))
            changes.append(Change(Action.CREATE, KUBELET_CONF, self.host_name))
        if self._ca_path not in found:
            changes.append(Change(Action.CREATE, self._ca_path, self.host_name))
        return changes + await Kubelet(self._node, self._files, enable=False).look()

    async def act(self, changes: Sequence[Change], activity: Activity) -> None:
        """Ask for the certificate, write it and the files, start the kubelet, and wait for its Node."""
        host, ca = self._node.host, self._server.ca or b""
        targets = {change.target for change in changes}
        if self._ca_path in targets:
            await host.write_files([FileWrite(self._ca_path, ca)])
        if KUBELET_CONF in targets:
            async with api_over(host, self._server) as kube:
                await refuse_taken_name(kube, self._node)
                activity.progress("TLS bootstrap")
                pair = await client_certificate(kube, self._node.name, self._facts.csr_api_version)
            conf = kubeconfig.dump(kubeconfig.after_bootstrap(self._kubelet_server, ca))
            await write_client_certificate(
                host, pair, FileWrite(KUBELET_CONF, conf, kubeconfig.KUBECONFIG_MODE)
            )
        activity.progress("start the kubelet")
        kubelet = Kubelet(self._node, self._files, program_changed=True, enable=False)
        await kubelet.act(await kubelet.look(), activity)
        await host.run(["rm", "-f", BOOTSTRAP_CONF])

    async def verify(self, activity: Activity) -> None:
        """Wait for the Node as the kubelet itself, and note its CRI socket, which it may do."""
        if not self._wait_for_node:
            return
        host = self._node.host
        pem = await host.read_file(kubeconfig.KUBELET_CLIENT_CURRENT) or b""
        server = Server(self._server.url, self._server.ca, pem)
        async with api_over(host, server) as kube:

            async def missing() -> str | None:
                try:
                    live = await kube.get("v1", "Node", self._node.name)
                except ApiError as error:
                    if error.status in (
                        401,
                        403,
                    ):  # the authorizer learns of a Node a moment after it was made
                        return error.message
                    raise
                return None if live is not None else "the kubelet has not registered the Node yet"

            await wait_until(
                missing, f"Node {self.host_name} to be registered", deadline=self._deadline, interval=0.05,
                diagnose=lambda: unit_evidence(host, "kubelet"), progress=activity.progress,
                hint="journalctl -u kubelet tells more",
            )  # fmt: skip
            if self._cri_socket:
                marks = NodeMarks(kube, self._node, labels={}, taints=[], cri_socket=self._cri_socket)
                if found := await marks.look():
                    await marks.act(found, activity)
