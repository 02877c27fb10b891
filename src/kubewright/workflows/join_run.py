"""What the phases of one `join` share: the cluster that is joined, the ways to its API, and what is wanted."""

from __future__ import annotations

from collections.abc import Collection
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Self

from kubewright.clients.kube import KubeClient
from kubewright.clients.paths import Object
from kubewright.clients.server import Server
from kubewright.errors import ApiError, ConfigError, ExitCode, HostError
from kubewright.events import Events
from kubewright.model import pki, stored
from kubewright.model.config.duration import parse_duration
from kubewright.phases import discovery
from kubewright.phases.api import api_over
from kubewright.phases.copy_certs import require_shared
from kubewright.phases.discovery_file import has_credentials
from kubewright.phases.host_kubeconfig import read_kubeconfig
from kubewright.phases.node import Node
from kubewright.phases.phase import Action, Change
from kubewright.phases.pki import Authorities
from kubewright.phases.waiting import wait_until
from kubewright.workflows.join_desired import JoinDesired, cluster_configuration
from kubewright.workflows.join_settings import ADMIN_CONF, JoinSettings
from kubewright.workflows.tree import StepRun


@dataclass
class Outcome:
    """What a run did, or would do."""

    node: str
    control_plane: bool
    endpoint: str = ""
    etcd_member: bool = False
    changes: list[Change] = field(default_factory=list)
    steps: list[str] = field(default_factory=list)


class JoinRun(StepRun):
    """What the phases of one join share. The cluster is asked once, by whichever phase needs it first."""

    def __init__(
        self, node: Node, settings: JoinSettings, events: Events, *, ignore: Collection[str] = (), dry: bool
    ) -> None:
        super().__init__(events, dry=dry)
        self.node = node
        self.settings = settings
        self.outcome = Outcome(node.name, settings.is_control_plane)
        self._ignore = ignore
        self._stack = AsyncExitStack()
        self._server: Server | None = None
        self._kube: KubeClient | None = None
        self._admin: KubeClient | None = None
        self._desired: JoinDesired | None = None

    async def __aenter__(self) -> Self:
        await self._stack.__aenter__()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    # -- the cluster ----------------------------------------------------------------------------------------------

    async def _discovered(self) -> Server:
        """The cluster, with the credentials of the TLS bootstrap."""
        if self._server is None:
            async with self.events.phase(
                "discovery", "get to know the cluster", host=self.node.name
            ) as activity:
                self._server = await self._discover(activity.progress)
                activity.summary(f"the cluster at {self._server.url}")
            self.outcome.endpoint = self._server.url
        return self._server

    async def _discover(self, progress: discovery.Progress) -> Server:
        host, wanted = self.node.host, self.settings.join.discovery
        if self.settings.by_admin_conf:
            return Server.from_kubeconfig(await read_kubeconfig(host, ADMIN_CONF))
        deadline = parse_duration(self.settings.join.timeouts.discovery) / 1e9
        if (token := wanted.bootstrap_token) is not None:
            found = await discovery.by_token(
                host, token.api_server_endpoint, token.token, token.ca_cert_hashes,
                unsafe_skip_ca_verification=token.unsafe_skip_ca_verification, deadline=deadline,
                progress=progress,
            )  # fmt: skip
        else:
            assert wanted.file is not None
            found = await discovery.by_file(
                host, wanted.file.kube_config_path, deadline=deadline, progress=progress
            )
        if wanted.tls_bootstrap_token is not None:
            return await discovery.require_accepted(host, found, wanted.tls_bootstrap_token)
        if not has_credentials(found.server):
            raise ConfigError(
                "--discovery-file: the file has no credentials to ask for the kubelet's certificate with",
                hint="give --tls-bootstrap-token as well; on a control plane, `kubewright token create` makes one",
            )
        return found.server

    async def _bootstrap(self) -> KubeClient:
        """The API with the credentials of the TLS bootstrap."""
        if self._kube is None:
            server = await self._discovered()
            self._kube = await self._stack.enter_async_context(api_over(self.node.host, server))
        return self._kube

    async def _administrator(self) -> KubeClient:
        """The API with this control plane's own `admin.conf`."""
        if self._admin is None:
            server = Server.from_kubeconfig(await read_kubeconfig(self.node.host, ADMIN_CONF))
            self._admin = await self._stack.enter_async_context(api_over(self.node.host, server))
        return self._admin

    async def _wanted(self) -> JoinDesired:
        """What the node must be, by the cluster's own configuration."""
        if self._desired is None:
            config = await self._config_map(stored.KUBEADM_CONFIG)
            self._desired = JoinDesired(self.settings, self.node, cluster_configuration(config))
        return self._desired

    async def _config_map(self, name: str) -> Object | None:
        """A ConfigMap of kube-system. The API server learns what a token may read a little late."""
        kube = await self._bootstrap()
        found: Object | None = None

        async def missing() -> str | None:
            nonlocal found
            try:
                found = await kube.get("v1", "ConfigMap", name, "kube-system")
            except ApiError as error:
                if error.status in (401, 403):
                    return error.message
                raise
            return None

        await wait_until(
            missing, f"{self.node.name}: ConfigMap kube-system/{name}, read with the credentials of the join",
            deadline=20,
            hint="has the control plane's initialisation ended? `kubewright init phase upload-config` writes it",
        )  # fmt: skip
        return found

    # -- what they share ------------------------------------------------------------------------------------------

    @property
    def _pki(self) -> str:
        assert self._desired is not None
        return self._desired.cluster.certificates_dir

    def _for_control_plane(self) -> bool:
        return self.settings.is_control_plane

    async def _has_ca(self, want: JoinDesired) -> bool:
        path = pki.CA.cert_path(want.cluster.certificates_dir)
        return bool(await self.node.host.stat_files([path], digest=False))

    async def _authorities(self, want: JoinDesired) -> Authorities:
        """The cluster's authorities, which must be there: one of our own would be another cluster's."""
        await require_shared(self.node.host, want.cluster)
        found = Authorities(self.node, want.cluster.certificates_dir, pki.cluster_cas(want.cluster))
        for change in await found.look():
            raise HostError(
                f"{self.node.name}: {change.target} cannot be used: {', '.join(change.diff)}",
                host=self.node.name, exit_code=ExitCode.HOST_NOT_FIT,
                hint="copy it again from a control plane, with its key",
            )  # fmt: skip
        return found

    def _would(self, action: Action, *targets: str) -> None:
        self.changes += [Change(action, target, self.node.name) for target in targets]

    async def _no_admin_yet(self, action: Action, target: str) -> bool:
        """In a dry run before there is an `admin.conf`, the cluster cannot be asked: name what would be done."""
        if not self.dry or await self.node.host.stat_files([ADMIN_CONF], digest=False):
            return False
        self._would(action, target)
        return True
