"""Bringing components to a host: programs to their place, images into containerd."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from kubewright.components.source import Artifact
from kubewright.errors import CommandError, ExitCode, HostError
from kubewright.events import Activity
from kubewright.phases.node import Node
from kubewright.phases.phase import Action, Change, Phase

# Outside the package manager, so that no unattended upgrade moves a node's version (P51).
PROGRAM_DIRECTORY = "/usr/local/bin"


class Programs(Phase):
    """Programs under /usr/local/bin, with the content that the source has."""

    name: ClassVar[str] = "programs"
    title: ClassVar[str] = "install programs"

    def __init__(self, node: Node, artifacts: Sequence[Artifact]) -> None:
        self._node = node
        self.host_name = node.name
        self._artifacts = {f"{PROGRAM_DIRECTORY}/{a.want.name}": a for a in artifacts}
        self._wanted: dict[str, Artifact] = {}

    async def look(self) -> list[Change]:
        """Which programs differ from the source's."""
        found = await self._node.host.stat_files(self._artifacts)
        self._wanted = {
            path: artifact
            for path, artifact in self._artifacts.items()
            if (stat := found.get(path)) is None or stat.sha256 != artifact.sha256 or stat.mode != 0o755
        }
        return [
            Change(Action.UPDATE if path in found else Action.CREATE, path, self.host_name)
            for path in self._wanted
        ]

    async def act(self, changes: Sequence[Change], activity: Activity) -> None:
        """Upload them one after the other: the connection is the bottleneck."""
        for path, artifact in self._wanted.items():
            await self._node.host.upload(
                artifact.path, path, mode=0o755, sha256=artifact.sha256,
                progress=lambda sent, size, name=artifact.want.name: activity.progress(  # type: ignore[misc]
                    f"{name} {sent >> 20} of {size >> 20} MiB", sent / size if size else None
                ),
            )  # fmt: skip


class Images(Phase):
    """Images in containerd's `k8s.io` namespace, where the kubelet looks."""

    name: ClassVar[str] = "images"
    title: ClassVar[str] = "import images"

    def __init__(self, node: Node, artifacts: Sequence[Artifact], name: str = "images") -> None:
        self._node = node
        self.host_name = node.name
        self.name = name  # type: ignore[misc]  # a control plane imports in two steps
        self._artifacts = artifacts
        self._wanted: list[Artifact] = []
        self._aliases: dict[str, str] = {}
        self._others: list[str] = []

    async def look(self) -> list[Change]:
        """Which references and aliases are missing, or name another image.

        containerd's CRI plugin keeps each image under its reference and under its id (`sha256:…`), both with
        the same target digest; an image that was imported a moment ago may not have its id yet.
        """
        result = await self._node.host.run(["ctr", "-n", "k8s.io", "images", "ls"], timeout=30, check=False)
        digests: dict[str, str] = {}
        for line in result.text.splitlines()[1:]:
            if len(columns := line.split()) >= 3:
                digests[columns[0]] = columns[2]
        self._wanted = [
            artifact
            for artifact in self._artifacts
            if artifact.want.reference not in digests
            or digests.get(artifact.image_id) != digests[artifact.want.reference]
        ]
        self._aliases = {
            alias: artifact.want.reference
            for artifact in self._artifacts
            for alias in artifact.want.aliases
            if artifact in self._wanted or digests.get(alias) != digests[artifact.want.reference]
        }
        names = [*(artifact.want.reference for artifact in self._wanted), *self._aliases]
        self._others = [name for name in names if name in digests]
        return [
            Change(Action.UPDATE if name in self._others else Action.CREATE, f"image {name}", self.host_name)
            for name in names
        ]

    async def act(self, changes: Sequence[Change], activity: Activity) -> None:
        """Stream the archives into containerd, most needed first."""
        ctr = ["ctr", "-n", "k8s.io", "images"]
        if self._others:
            # containerd's CRI plugin does not notice that a reference which it knows leads elsewhere now. What
            # runs from the old image goes on: its containers hold its content.
            await self._node.host.run([*ctr, "rm", *self._others])
        for artifact in self._wanted:
            name = artifact.want.reference.rpartition("/")[2]
            try:
                await self._node.host.run_with_file(
                    [*ctr, "import", "-"], artifact.path, timeout=300,
                    progress=lambda sent, size, name=name: activity.progress(  # type: ignore[misc]
                        f"{name} {sent >> 20} of {size >> 20} MiB", sent / size if size else None
                    ),
                )  # fmt: skip
            except CommandError as error:
                full = error.exit_code is ExitCode.HOST_DISK_FULL
                raise HostError(
                    f"{self.host_name}: containerd refused image {artifact.want.reference}"
                    + (": its disk is full" if full else ""),
                    host=self.host_name, evidence=error.evidence[-1:],
                    hint="free space under /var/lib/containerd, then run the same command again"
                    if full else "is containerd healthy? journalctl -u containerd",
                    exit_code=ExitCode.HOST_DISK_FULL if full else ExitCode.HOST_NOT_FIT,
                ) from error  # fmt: skip
        for alias, reference in self._aliases.items():
            await self._node.host.run([*ctr, "tag", reference, alias])
