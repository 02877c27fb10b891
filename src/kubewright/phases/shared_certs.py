"""What all control planes share, brought from one of them to another in memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

from kubewright.errors import ExitCode, HostError
from kubewright.events import Activity
from kubewright.hosts import FileWrite
from kubewright.model import copy_certs, manifests
from kubewright.model.config.kubeadm_types import ClusterConfiguration
from kubewright.phases.files import differing, file_changes
from kubewright.phases.node import Node
from kubewright.phases.phase import Change, Phase
from kubewright.secret import Secret


async def read_shared(node: Node, cluster: ClusterConfiguration) -> dict[str, Secret[bytes]]:
    """The authorities and the service accounts' keys that a control plane has, by path. An external etcd's files
    are not among them: each control plane may have its own."""
    files = [file for file in copy_certs.shared_files(cluster) if not file.name.startswith("external-etcd")]
    found = await node.host.read_files([file.path for file in files])
    return {path: Secret(content) for path, content in found.items()}


class SharedCerts(Phase):
    """The authorities and the service accounts' keys of another control plane; `files` are `read_shared`."""

    name: ClassVar[str] = "certs-shared"
    title: ClassVar[str] = "bring the certificates that control planes share"

    def __init__(self, node: Node, cluster: ClusterConfiguration, files: Mapping[str, Secret[bytes]]) -> None:
        self._node = node
        self.host_name = node.name
        # Keys first: whoever finds a certificate finds its key.
        shared = sorted(copy_certs.shared_files(cluster), key=lambda one: not one.path.endswith(".key"))
        self._files = [
            FileWrite(file.path, files[file.path], file.mode) for file in shared if file.path in files
        ]
        self._wanted: list[FileWrite] = []

    async def look(self) -> list[Change]:
        """Which of them are not there, or are others."""
        self._wanted = await differing(self._node.host, self._files, same=copy_certs.same_pem)
        await self._refuse_replacing()
        return await file_changes(self._node.host, self._wanted)

    async def _refuse_replacing(self) -> None:
        """Raise `HostError` where an authority of a running control plane would be replaced."""
        manifest = manifests.manifest_path(manifests.API_SERVER)
        there = await self._node.host.read_files([manifest, *(file.path for file in self._wanted)])
        others = [file.path for file in self._wanted if file.path in there and file.data != there[file.path]]
        if manifest in there and others:
            raise HostError(
                f"{self.host_name}: {others[0]} is another one than that of the other control planes",
                host=self.host_name, exit_code=ExitCode.HOST_IN_OTHER_CLUSTER,
                hint="is it a control plane of another cluster? `kubewright reset` clears a host; where it is the "
                "other control planes that have the wrong ones, restore theirs from a copy",
            )  # fmt: skip

    async def act(self, changes: Sequence[Change], activity: Activity) -> None:
        """Write them."""
        await self._node.host.write_files(self._wanted)
