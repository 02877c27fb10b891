"""Joining a worker: discovery with a token and the CA's hash, then the kubelet's TLS bootstrap."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime
from typing import ClassVar

from kubewright.clients.kube import KubeClient
from kubewright.clients.server import Server
from kubewright.errors import ApiError, ConfigError
from kubewright.events import Activity
from kubewright.hosts import FileWrite
from kubewright.model import kubeconfig, x509
from kubewright.model.kubeconfig import KUBELET_CLIENT_CURRENT
from kubewright.model.pki import CA
from kubewright.model.versions import VersionFacts
from kubewright.phases import discovery
from kubewright.phases.api import api_over
from kubewright.phases.bootstrap import Issuer, client_certificate, write_client_certificate
from kubewright.phases.kubelet import Kubelet
from kubewright.phases.kubelet_join import BOOTSTRAP_CONF, KUBELET_CONF, refuse_taken_name
from kubewright.phases.node import Node
from kubewright.phases.phase import Action, Change, Phase
from kubewright.phases.waiting import unit_evidence, wait_until
from kubewright.secret import Secret

# Of the kubelet's file the certificate alone: its key is nobody else's business.
_LOOK = """
[ ! -s "$1" ] || echo joined
[ ! -e "$2" ] || echo leftover
[ ! -r "$3" ] || sed -n '/-----BEGIN CERTIFICATE/,/-----END CERTIFICATE/p' "$3"
"""


def _ended(cert: str) -> str:
    """That a kubelet's certificate has ended; empty where it has not, or is none that can be read."""
    try:
        end = x509.ends(cert.encode())
    except ConfigError:
        return ""
    return f"the kubelet's certificate ended on {end:%Y-%m-%d}" if end <= datetime.now(UTC) else ""


class Join(Phase):
    """Make a host a node, as `kubeadm join` does: all it is given is an address, a token and a hash."""

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
        issuer: Issuer | None,
        ca_path: str = CA.cert_path(),
    ) -> None:
        """`issuer` grants the kubelet's request; None leaves that to the cluster. `ca_path` is where the cluster's
        configuration of the kubelets says that the CA is (`clientCAFile`)."""
        self._node = node
        self.host_name = node.name
        self._endpoint = endpoint
        self._token = token
        self._ca_hashes = ca_hashes
        self._facts = facts
        self._kubelet_files = kubelet_files
        self._admin = admin
        self._issuer = issuer
        self._ca_path = ca_path

    async def look(self) -> list[Change]:
        """Whether the kubelet has its own credentials, which last: a host that was away for longer than they did
        cannot renew them by itself (P22)."""
        seen = (await self._node.host.shell(_LOOK, KUBELET_CONF, BOOTSTRAP_CONF, KUBELET_CLIENT_CURRENT)).text
        words, begin, rest = seen.partition("-----BEGIN")
        if "joined" not in words.split():
            return [Change(Action.RUN, "join the cluster", self.host_name)]
        if ended := _ended(f"{begin}{rest}"):
            return [Change(Action.RUN, "join the cluster", self.host_name, (f"# {ended}",))]
        if "leftover" in words.split():
            return [Change(Action.DELETE, BOOTSTRAP_CONF, self.host_name)]
        return []

    async def act(self, changes: Sequence[Change], activity: Activity) -> None:
        """Discover, get the kubelet its certificate, start it with what the cluster says of its configuration."""
        if all(change.action is Action.DELETE for change in changes):
            await self._node.host.run(["rm", "-f", BOOTSTRAP_CONF])
            return
        activity.progress("discovery")
        token = await self._token()
        host = self._node.host
        found = await discovery.by_token(
            host, self._endpoint, token, self._ca_hashes, deadline=120, progress=activity.progress
        )
        ca = found.ca
        server = Server(self._endpoint, ca, token=token.reveal())
        async with api_over(host, server) as kube:
            config = await self._kubelet_config(kube)
            activity.progress("TLS bootstrap")
            pair = await client_certificate(
                kube, self._node.name, self._facts.csr_api_version, issuer=self._issuer,
                diagnose=self._diagnose,
            )  # fmt: skip
        await host.write_files([FileWrite(self._ca_path, ca)])
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

    async def _kubelet_config(self, kube: KubeClient) -> str:
        """The cluster's KubeletConfiguration as YAML, read with the token. The API server learns of a token and
        of what it may read a moment after they were written."""
        name = self._facts.kubelet_config_map
        config = ""

        async def missing() -> str | None:
            nonlocal config
            try:
                await refuse_taken_name(kube, self._node)
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
