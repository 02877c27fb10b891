"""What the phases of one run of `init` share: authorities, the way to the API, and how objects are applied."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from contextlib import AsyncExitStack
from dataclasses import replace
from typing import Self

import yaml

from kubewright.clients.kube import KubeClient
from kubewright.clients.paths import Object
from kubewright.clients.server import Server
from kubewright.errors import ConfigError, ExitCode, HostError, KubewrightError
from kubewright.events import Events
from kubewright.model import kubeconfig, stored
from kubewright.model.objects import SYSTEM
from kubewright.phases.api import api_over
from kubewright.phases.controlplane import ApiServerUp
from kubewright.phases.host_kubeconfig import read_kubeconfig
from kubewright.phases.node import Node
from kubewright.phases.nodes import NodeMarks
from kubewright.phases.objects import Objects, created
from kubewright.phases.phase import Action, Change, Phase
from kubewright.phases.pki import Authorities
from kubewright.secret import Secret
from kubewright.workflows.external_ca import ExternalAuthorities, external_authorities
from kubewright.workflows.init_desired import InitDesired
from kubewright.workflows.init_settings import InitSettings
from kubewright.workflows.tree import StepRun


class InitRun(StepRun):
    """The state of one run. `alone` says that a single phase is run, rather than the whole of `init`."""

    def __init__(
        self,
        node: Node,
        settings: InitSettings,
        events: Events,
        *,
        dry: bool = False,
        ignore: Collection[str] = (),
        alone: bool = False,
    ) -> None:
        super().__init__(events, dry=dry)
        self._node = node
        self._settings = settings
        self._want = InitDesired(settings, node)
        self._ignore = ignore
        self._alone = alone
        self._external = ExternalAuthorities()
        self._authorities: dict[str, Authorities] = {}
        self._stack = AsyncExitStack()
        self._kube: KubeClient | None = None
        self._certificate_key: Secret[str] | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    async def do(self, phase: Phase, name: str = "") -> Sequence[Change]:
        """Run a phase. A dry run names the keys, too, that come with new certificates."""
        changes = await super().do(phase, name)
        if self.dry:
            of_run = [beside for change in changes for beside in (change, *_keys_of(change))]
            self.changes[len(self.changes) - len(changes) :] = of_run
        return changes

    async def begin(self) -> None:
        """Find out which authorities sign elsewhere; what they have signed must be there."""
        if self._settings.csr_dir:  # what the requests are for is yet to be signed
            return
        self._external = await external_authorities(self._node, self._want)
        if self._external.any and self._settings.upload_certs:
            raise ConfigError(
                "--upload-certs: the key of an authority is not on this host, so that it cannot be uploaded",
                hint="leave it out, and copy the certificates to further control planes yourself",
                exit_code=ExitCode.USAGE,
            )

    @property
    def _directory(self) -> str:
        return self._settings.cluster.certificates_dir

    async def _signer(self, name: str) -> Authorities:
        """The authority of a certificate; one that was not made in this run must be there."""
        if name not in self._authorities:
            spec = self._want.certificates[name]
            certs = Authorities(self._node, self._directory, [spec])
            if await certs.look() and not self.dry:
                raise HostError(
                    f"{self._node.name}: {spec.cert_path(self._directory)} is missing or unusable, which signs",
                    host=self._node.name, exit_code=ExitCode.HOST_NOT_FIT,
                    hint=f"make it: kubewright init phase certs {name}",
                )  # fmt: skip
            self._authorities[name] = certs
        return self._authorities[name]

    async def _api(self) -> KubeClient | None:
        """The cluster's API; None in a dry run where nobody answers.

        The whole of `init` goes to the node's own API server, which is there before any load balancer knows it. A
        single phase goes where its kubeconfig says.
        """
        if self._kube is not None:
            return self._kube
        path = self._settings.kubeconfig or f"{self._settings.kubeconfig_dir}/{kubeconfig.ADMIN}"
        try:
            kube = await self._connected(path)
        except KubewrightError:
            if self.dry:
                return None
            raise
        if self.dry and await ApiServerUp(self._node, kube, 0).missing():
            return None
        self._kube = kube
        return kube

    async def _first_api(self) -> KubeClient:
        """The API for the first requests: by super-admin.conf where admin.conf has no rights until it is given
        them, else as ever."""
        path = f"{self._settings.kubeconfig_dir}/{kubeconfig.SUPER_ADMIN}"
        if self._settings.facts.super_admin and await self._node.host.stat_files([path], digest=False):
            return await self._connected(path)
        kube = await self._api()
        assert kube is not None  # only a dry run does without
        return kube

    async def _connected(self, path: str) -> KubeClient:
        server = Server.from_kubeconfig(await read_kubeconfig(self._node.host, path))
        if not self._alone:
            server = replace(server, url=self._want.control_plane.url)
        return await self._stack.enter_async_context(api_over(self._node.host, server))

    async def _objects(self, objects: Sequence[Object], step: str, title: str) -> None:
        kube = await self._api()
        if kube is None:
            self.changes += [created(obj) for obj in objects]
        else:
            await self.do(Objects(kube, objects, step, title))

    async def _mark(
        self,
        step: str,
        *,
        labels: dict[str, str] | None = None,
        taints: Sequence[dict[str, str]] = (),
        cri_socket: str = "",
    ) -> None:
        if not labels and not taints and not cri_socket:
            return
        kube = await self._api()
        if kube is not None:
            await self.do(
                NodeMarks(kube, self._node, labels=labels or {}, taints=taints, cri_socket=cri_socket), step
            )
            return
        patch = stored.node_patch({}, labels=labels, taints=taints, cri_socket=cri_socket)
        lines = yaml.safe_dump(patch, sort_keys=True).splitlines()
        target = f"Node {self._node.name}"
        self.changes.append(
            Change(Action.UPDATE, target, self._node.name, tuple(f"+{line}" for line in lines))
        )

    async def _other_endpoints(self) -> dict[str, tuple[str, int]]:
        """The API endpoints of the cluster's other control planes, where the cluster keeps them."""
        kube = await self._api()
        if kube is None or not self._settings.facts.cluster_status_kept:
            return {}
        status = stored.cluster_status_in(await kube.get("v1", "ConfigMap", stored.KUBEADM_CONFIG, SYSTEM))
        return {
            name: (row["advertiseAddress"], row["bindPort"])
            for name, row in (status.get("apiEndpoints") or {}).items()
            if name != self._node.name
        }


def _keys_of(change: Change) -> list[Change]:
    """The key that is made together with a certificate, or the public half of one."""
    if change.action is not Action.CREATE:
        return []
    for made, beside in ((".crt", ".key"), ("/sa.key", "/sa.pub")):
        if change.target.endswith(made):
            return [Change(Action.CREATE, change.target.removesuffix(made) + beside, change.host)]
    return []
