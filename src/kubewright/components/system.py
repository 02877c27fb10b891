"""The source `system`: programs that are installed on this computer, and image archives in a directory."""

from __future__ import annotations

import asyncio
import hashlib
import os
import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from kubewright.components.archive import Held, read_archive
from kubewright.components.debian_images import local_arch
from kubewright.components.source import Artifact, Form, Source, Want
from kubewright.components.tools import run_tool
from kubewright.errors import ComponentError, ExitCode
from kubewright.events import Events

IMAGES = "/var/lib/kubewright/images"
"""Where image archives (`*.tar`) are looked for, unless KUBEWRIGHT_IMAGES names another directory."""

# How each program says its version; what it prints holds one such as v1.20.2.
_ASK: Mapping[str, tuple[str, ...]] = {
    "kubelet": ("--version",),
    "kubeadm": ("version", "-o", "short"),
    "kubectl": ("version", "--client", "-o", "json"),
    "crictl": ("--version",),
    "etcd": ("--version",),
    "etcdctl": ("version",),
}
_VERSION = re.compile(r"\bv\d+\.\d+\.\d+[-+.\w]*")
_OWN_VERSIONS: Mapping[str, re.Pattern[str]] = {
    "crictl": _VERSION,
    "etcd": re.compile(r"(?<=etcd Version: )\S+"),
    "etcdctl": re.compile(r"(?<=etcdctl version: )\S+"),
}
"""Programs with versions of their own, of which any will do."""


class SystemSource(Source):
    """Takes what is there and makes nothing."""

    name = "system"

    def __init__(self, images: Path | None = None) -> None:
        self._images = images or Path(os.environ.get("KUBEWRIGHT_IMAGES") or IMAGES)
        self._said: dict[str, str] = {}
        self._held: dict[str, tuple[Path, Held]] | None = None

    async def versions(self) -> Sequence[str]:
        """The version of the kubelet on PATH, or none."""
        version = await self._version("kubelet")
        return [version] if version else []

    async def available(self, want: Want) -> bool:
        """Whether the program on PATH, or an image of that name in the directory, is the one asked for."""
        return await self._refusal(want) is None

    async def ready(self, wants: Sequence[Want]) -> bool:
        """Always: what is installed needs no making."""
        return True

    async def fetch(self, wants: Sequence[Want], events: Events) -> list[Artifact]:
        """Say where each component lies, with its digest as it is now."""
        artifacts: list[Artifact] = []
        for want in wants:
            if refusal := await self._refusal(want):
                raise ComponentError(
                    f"source {self.name!r} does not have {want}: {refusal}",
                    hint="install it, put its archive there, or choose another source (source.type)",
                    exit_code=ExitCode.VERSION_UNAVAILABLE,
                )
            if want.form is Form.BINARY:
                path, image_id = Path(shutil.which(want.name) or "").resolve(), ""
            else:
                path, held = self._archives()[want.reference]
                image_id = held.image_id
            digest = await asyncio.to_thread(_digest, path)
            artifacts.append(Artifact(want, path, digest, path.stat().st_size, image_id))
        return artifacts

    async def _refusal(self, want: Want) -> str | None:
        if want.form is Form.IMAGE:
            found = (await asyncio.to_thread(self._archives)).get(want.reference)
            if found is None:
                return f"no archive in {self._images} has it"
            _, held = found
            return None if held.arch == want.arch else f"the archive's is for {held.arch}"
        if want.arch != local_arch():
            return f"this computer is {local_arch()}"
        version = await self._version(want.name)
        if not version:
            return "it is not on this computer's PATH"
        fit = want.name in _OWN_VERSIONS or version == want.version
        return None if fit else f"the one on PATH is {version}"

    async def _version(self, name: str) -> str:
        path = shutil.which(name) if name in _ASK else None
        if path is None:
            return ""
        if path not in self._said:
            output = await run_tool(f"asking {name} for its version", [path, *_ASK[name]], timeout=20)
            match = _OWN_VERSIONS.get(name, _VERSION).search(output)
            self._said[path] = match[0] if match else ""
        return self._said[path]

    def _archives(self) -> dict[str, tuple[Path, Held]]:
        if self._held is None:
            found: dict[str, tuple[Path, Held]] = {}
            for path in sorted(self._images.glob("*.tar")):
                try:
                    found.update({held.reference: (path, held) for held in read_archive(path)})
                except ValueError as error:
                    raise ComponentError(f"{path}: {error}", hint="remove it from there") from error
            self._held = found
        return self._held


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
