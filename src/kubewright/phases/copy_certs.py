"""What all control planes share: downloaded from the Secret `kubeadm-certs`, or found in place."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from kubewright.clients.kube import KubeClient
from kubewright.errors import ApiError, ExitCode, HostError
from kubewright.events import Activity
from kubewright.hosts import FileWrite, Host
from kubewright.model import copy_certs, pki, x509
from kubewright.model.config.kubeadm_types import ClusterConfiguration
from kubewright.model.copy_certs import CertsExpiredError, SharedFile
from kubewright.phases.files import differing, file_changes
from kubewright.phases.node import Node
from kubewright.phases.phase import Change, Phase
from kubewright.secret import Secret


class DownloadCerts(Phase):
    """The authorities and the service accounts' keys, from the cluster to this control plane."""

    name: ClassVar[str] = "download-certs"
    title: ClassVar[str] = "download the shared certificates"

    def __init__(
        self, node: Node, kube: KubeClient, cluster: ClusterConfiguration, key: Secret[bytes]
    ) -> None:
        self._node = node
        self.host_name = node.name
        self._kube = kube
        self._cluster = cluster
        self._shared = copy_certs.shared_files(cluster)
        self._key = key
        self._wanted: list[FileWrite] = []

    async def look(self) -> list[Change]:
        """Which of them are not there, or are others. Raises as `copy_certs.files_of_secret`, but not where the
        Secret is gone and an earlier run, which was interrupted, has written all that it gave (P34)."""
        try:
            secret = await self._kube.get("v1", "Secret", copy_certs.CERTS_SECRET, "kube-system")
        except ApiError as error:
            if error.status != 403:
                raise
            # The Role that lets nodes read it is made by the upload.
            secret = None
        try:
            found = copy_certs.files_of_secret(secret, self._shared, self._key)
        except CertsExpiredError:
            if await self._all_here():
                return []
            raise
        files = [
            FileWrite(file.path, Secret(found[file.path]), file.mode)
            for file in sorted(self._shared, key=lambda one: not one.path.endswith(".key"))
            if file.path in found
        ]
        self._wanted = await differing(self._node.host, files)
        return await file_changes(self._node.host, self._wanted)

    async def _all_here(self) -> bool:
        """Whether all files are there, belong to each other and are of the cluster that is joined.

        An authority's key that is away was not in the Secret: keys are written first.
        """
        found = await self._node.host.read_files([file.path for file in self._shared])
        [ca] = [file.path for file in self._shared if file.name == f"{pki.CA.base}.crt"]
        ours = (self._kube.server.ca or b"").strip()
        if not ours or found.get(ca, b"").strip() != ours:
            return False
        if any(file.path not in found and not _optional(file) for file in self._shared):
            return False
        try:
            await require_shared(self._node.host, self._cluster)
        except HostError:
            return False
        return True

    async def act(self, changes: Sequence[Change], activity: Activity) -> None:
        """Write them, keys first: whoever finds a certificate finds its key."""
        await self._node.host.write_files(self._wanted)


async def require_shared(host: Host, cluster: ClusterConfiguration) -> None:
    """Raise `HostError` unless the files that all control planes share are in place, and belong to each other.

    An authority's key may be away (its certificates are then signed elsewhere), as may an external etcd's files,
    of which preflight speaks.
    """
    shared = [file for file in copy_certs.shared_files(cluster) if not file.name.startswith("external-etcd")]
    found = await host.read_files([file.path for file in shared])
    missing = [file.path for file in shared if file.path not in found and not _optional(file)]
    if missing:
        raise HostError(
            f"{host.name}: the certificates that control planes share are not there: {', '.join(missing)}",
            host=host.name, exit_code=ExitCode.HOST_NOT_FIT,
            hint="copy them from a control plane, or let them be downloaded: there, `kubewright init phase "
            "upload-certs --upload-certs` prints the --certificate-key to join with",
        )  # fmt: skip
    for file in shared:
        key = file.path.removesuffix(".crt") + ".key"
        if (
            file.path.endswith(".crt")
            and key in found
            and not x509.key_belongs(found[file.path], Secret(found[key]))
        ):
            raise HostError(
                f"{host.name}: {key} is not the key of {file.path}", host=host.name,
                exit_code=ExitCode.HOST_NOT_FIT, hint="copy both from the same control plane",
            )  # fmt: skip


def _optional(file: SharedFile) -> bool:
    return file.name.endswith("ca.key")
