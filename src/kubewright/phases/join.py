"""Joining a worker: discovery with a token and the CA's hash, then the kubelet's TLS bootstrap."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import ClassVar

from kubewright.clients.kube import KubeClient
from kubewright.clients.server import Server
from kubewright.errors import ApiError, ConfigError, ExitCode, HostError, KubewrightError
from kubewright.events import Activity
from kubewright.hosts import FileWrite
from kubewright.model import discovery, kubeconfig, stored, x509
from kubewright.model.versions import VersionFacts
from kubewright.phases.api import api_over
from kubewright.phases.bootstrap import client_certificate, write_client_certificate
from kubewright.phases.kubelet import Kubelet
from kubewright.phases.node import Node
from kubewright.phases.nodes import ready_reason
from kubewright.phases.phase import Action, Change, Phase
from kubewright.phases.waiting import unit_evidence, wait_until
from kubewright.secret import Secret

KUBELET_CONF = "/etc/kubernetes/kubelet.conf"
BOOTSTRAP_CONF = "/etc/kubernetes/bootstrap-kubelet.conf"
CA_PATH = "/etc/kubernetes/pki/ca.crt"


class Join(Phase):
    """Make a host a node, as `kubeadm join` does: all it is given is an address, a token and a hash.

    Discovery (kubeadm's design of the bootstrap token): `cluster-info` is read without verifying the server,
    its signature is checked with the token, the CA inside against the hash; then it is read once more, now
    verified against that CA, and must be the same.
    """

    name: ClassVar[str] = "join"
    title: ClassVar[str] = "join the cluster"

    def __init__(
        self,
        node: Node,
        *,
        endpoint: str,
        token: Callable[[], Awaitable[Secret[str]]],
        ca_hashes: Sequence[str],
        facts: VersionFacts,
        kubelet_files: Callable[[str], Sequence[FileWrite]],
        admin: KubeClient,
    ) -> None:
        self._node = node
        self.host_name = node.name
        self._endpoint = endpoint
        self._token = token
        self._ca_hashes = set(ca_hashes)
        self._facts = facts
        self._kubelet_files = kubelet_files
        self._admin = admin

    async def look(self) -> list[Change]:
        """Whether the kubelet has its own credentials yet."""
        script = 'if [ -s "$1" ]; then echo joined; fi; [ ! -e "$2" ] || echo leftover'
        seen = (await self._node.host.shell(script, KUBELET_CONF, BOOTSTRAP_CONF)).text.split()
        if "joined" not in seen:
            return [Change(Action.RUN, "join the cluster", self.host_name)]
        if "leftover" in seen:
            return [Change(Action.DELETE, BOOTSTRAP_CONF, self.host_name)]
        return []

    async def act(self, changes: Sequence[Change], activity: Activity) -> None:
        """Discover, get the kubelet its certificate, start it with what the cluster says of its configuration."""
        if all(change.action is Action.DELETE for change in changes):
            await self._node.host.run(["rm", "-f", BOOTSTRAP_CONF])
            return
        activity.progress("discovery")
        token = await self._token()
        ca = await self._discover(token, activity)
        server = Server(self._endpoint, ca, token=token.reveal())
        host = self._node.host
        async with api_over(host, server) as kube:
            config = await self._kubelet_config(kube)
            activity.progress("TLS bootstrap")
            pair = await client_certificate(
                kube, self._node.name, self._facts.csr_api_version, diagnose=self._diagnose
            )
        await host.write_files([FileWrite(CA_PATH, ca)])
        conf = kubeconfig.dump(kubeconfig.after_bootstrap(self._endpoint, ca))
        await write_client_certificate(host, pair, FileWrite(KUBELET_CONF, conf, kubeconfig.KUBECONFIG_MODE))
        activity.progress("start the kubelet")
        # One that kubeadm's join has left waiting for its own certificate must start again to take this one.
        kubelet = Kubelet(self._node, self._kubelet_files(config), program_changed=True)
        await kubelet.act(await kubelet.look(), activity)
        await host.run(["rm", "-f", BOOTSTRAP_CONF])
        await wait_until(
            self._registered, f"Node {self.host_name} to be registered", deadline=60, interval=0.05,
            diagnose=lambda: unit_evidence(host, "kubelet"),
        )  # fmt: skip

    async def _discover(self, token: Secret[str], activity: Activity) -> bytes:
        """The CA of the cluster at the endpoint, trusted by token and hash."""
        ca = b""

        async def missing() -> str | None:
            nonlocal ca
            async with api_over(self._node.host, Server(self._endpoint), timeout=10) as kube:
                try:
                    info = await kube.get("v1", "ConfigMap", stored.CLUSTER_INFO, "kube-public")
                except ApiError as error:
                    return error.message
            if info is None:
                return "the cluster has no cluster-info yet"
            try:
                ca = discovery.verified_ca(info, token)
            except discovery.UnsignedError:
                return "waiting for kube-controller-manager to sign cluster-info"
            except ConfigError as error:
                return error.message
            return None

        await wait_until(
            missing, f"{self.host_name}: a signed cluster-info at {self._endpoint}", deadline=120,
            interval=0.05, progress=activity.progress,
            hint="can the host reach the endpoint? is kube-controller-manager up to sign it (P10)?",
        )  # fmt: skip
        found = x509.ca_hash(ca)
        if found not in self._ca_hashes:
            raise HostError(
                f"{self.host_name}: the cluster at {self._endpoint} has another CA: {found}",
                host=self.host_name, exit_code=ExitCode.HOST_IN_OTHER_CLUSTER,
                hint="the endpoint leads to another cluster, or somebody stands between",
            )  # fmt: skip
        async with api_over(self._node.host, Server(self._endpoint, ca), timeout=10) as kube:
            again = await kube.get("v1", "ConfigMap", stored.CLUSTER_INFO, "kube-public")
        if again is None or discovery.verified_ca(again, token) != ca:
            raise KubewrightError(f"{self.host_name}: cluster-info changed while it was verified")
        return ca

    async def _refuse_taken_name(self, kube: KubeClient) -> None:
        live = await kube.get("v1", "Node", self._node.name)
        if live is not None and not ready_reason(live):
            raise HostError(
                f"{self.host_name}: another host is in the cluster as Node {self.host_name}, and is Ready",
                host=self.host_name, exit_code=ExitCode.HOST_NOT_FIT,
                hint=f"name this host otherwise, or delete that Node first: kubectl delete node {self.host_name}",
            )  # fmt: skip

    async def _kubelet_config(self, kube: KubeClient) -> str:
        """The cluster's KubeletConfiguration as YAML, read with the token. The API server learns of a token and
        of what it may read a moment after they were written."""
        name = self._facts.kubelet_config_map
        config = ""

        async def missing() -> str | None:
            nonlocal config
            try:
                await self._refuse_taken_name(kube)
                found = await kube.get("v1", "ConfigMap", name, "kube-system")
            except ApiError as error:
                if error.status in (401, 403):
                    return error.message
                raise
            config = ((found or {}).get("data") or {}).get("kubelet") or ""
            return None if config else f"ConfigMap kube-system/{name} is missing or empty"

        await wait_until(
            missing, f"{self.host_name}: the kubelets' configuration, read with a bootstrap token", deadline=20,
            hint="has the control plane's initialisation ended? run apply again",
        )  # fmt: skip
        return config

    async def _registered(self) -> str | None:
        live = await self._admin.get("v1", "Node", self._node.name)
        return None if live is not None else "the kubelet has not registered the Node yet"

    async def _diagnose(self) -> list[str]:
        requests = [
            f"{item['metadata']['name']}: {', '.join(c['type'] for c in conditions) or 'pending'}"
            for item in await self._admin.list(self._facts.csr_api_version, "CertificateSigningRequest")
            for conditions in [(item.get("status") or {}).get("conditions") or []]
        ]
        return [*requests[-5:], *await unit_evidence(self._node.host, "kubelet")]
