"""Uploading what all control planes share, encrypted, for two hours."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import ClassVar

from kubewright.clients.kube import KubeClient
from kubewright.errors import ExitCode, HostError
from kubewright.events import Activity
from kubewright.model import copy_certs, tokens
from kubewright.model.config.kubeadm_types import ClusterConfiguration
from kubewright.model.objects import SYSTEM
from kubewright.phases.node import Node
from kubewright.phases.objects import apply_when_possible, created, object_name
from kubewright.phases.phase import Action, Change, Phase
from kubewright.secret import Secret


class UploadCerts(Phase):
    """The Secret `kubeadm-certs`, always made anew: its two hours begin with each upload.

    `kube` may be None for a look alone, where there is no cluster yet.
    """

    name: ClassVar[str] = "upload-certs"
    title: ClassVar[str] = "upload the shared certificates"

    def __init__(
        self, kube: KubeClient | None, node: Node, cluster: ClusterConfiguration, key: Secret[str]
    ) -> None:
        self._kube = kube
        self._node = node
        self.host_name = node.name
        self._files = copy_certs.shared_files(cluster)
        self._key = copy_certs.parse_certificate_key(key)
        self._exists = False

    async def look(self) -> list[Change]:
        """The Secret, the token that ends it, and who may read it."""
        secret = {"kind": "Secret", "metadata": {"name": copy_certs.CERTS_SECRET, "namespace": SYSTEM}}
        readers = [created(obj) for obj in copy_certs.certs_readers()]
        if self._kube is not None:
            self._exists = await self._kube.get("v1", "Secret", copy_certs.CERTS_SECRET, SYSTEM) is not None
            readers = [
                created(obj)
                for obj in copy_certs.certs_readers()
                if await self._kube.get(obj["apiVersion"], obj["kind"], obj["metadata"]["name"], SYSTEM)
                is None
            ]
        action = Action.UPDATE if self._exists else Action.CREATE
        token = Change(Action.CREATE, f"Secret {SYSTEM}/{tokens.SECRET_PREFIX}… (it ends in two hours)")
        return [token, Change(action, object_name(secret)), *readers]

    async def act(self, changes: Sequence[Change], activity: Activity) -> None:
        """Encrypt the files and put them into the cluster under a new token, whose end is the Secret's."""
        assert self._kube is not None
        contents = await self._node.host.read_files([file.path for file in self._files])
        needed = [file for file in self._files if not file.name.endswith("ca.key")]
        missing = [file.path for file in needed if file.path not in contents]
        if missing:
            raise HostError(
                f"{self.host_name}: {', '.join(missing)} cannot be uploaded: not there",
                host=self.host_name, exit_code=ExitCode.HOST_NOT_FIT,
                hint="the phase certs makes what is missing: kubewright init phase certs all",
            )  # fmt: skip
        owner = await self._kube.create(tokens.token_secret(copy_certs.owner_token(datetime.now(UTC))))
        secret = copy_certs.certs_secret(self._files, contents, self._key, owner)
        if self._exists:
            # A merge patch, because it takes the place of the former owner and of files that are no more.
            live = await self._kube.get("v1", "Secret", copy_certs.CERTS_SECRET, SYSTEM) or {}
            gone = dict.fromkeys((live.get("data") or {}).keys() - secret["data"].keys())
            change = {"metadata": secret["metadata"], "data": secret["data"] | gone}
            await self._kube.merge("v1", "Secret", copy_certs.CERTS_SECRET, change, SYSTEM)
        else:
            await self._kube.create(secret)
        for obj in copy_certs.certs_readers():
            await apply_when_possible(self._kube, obj)
