"""The interface of sources: whatever can say which components it has and bring one to this computer."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from kubewright.errors import ComponentError, ExitCode
from kubewright.events import Events


class Form(StrEnum):
    """What an artifact is: a program to put on a host, or a container image to import."""

    BINARY = "binary"
    IMAGE = "image"


@dataclass(frozen=True, slots=True)
class Want:
    """A component that is asked for: `Want("kubelet", "v1.20.2", "amd64", Form.BINARY)`.

    For an image, `reference` is the name under which it must be known on the host
    (`k8s.gcr.io/kube-apiserver:v1.20.2`).
    """

    name: str
    version: str
    arch: str
    form: Form
    reference: str = ""
    aliases: tuple[str, ...] = ()
    """Further names of an image on the host; they have no part in how it is made."""

    def __str__(self) -> str:
        return f"{self.reference or self.name + ' ' + self.version} ({self.arch})"


@dataclass(frozen=True, slots=True)
class Artifact:
    """A component on this computer: a program, or an image as an archive that `ctr images import` takes."""

    want: Want
    path: Path
    sha256: str
    """Of the file at `path`, in hexadecimal; verified before the artifact is handed out."""
    size: int
    """In bytes."""
    image_id: str = ""
    """For an image: its config digest, `sha256:…`, by which a host that has it already is known."""


class Source(ABC):
    """Where components come from. An instance may be asked from several tasks, and several processes may use
    one cache at the same time."""

    name: str

    @abstractmethod
    async def versions(self) -> Sequence[str]:
        """The Kubernetes versions that this source has, newest first (`v1.20.2`)."""

    @abstractmethod
    async def available(self, want: Want) -> bool:
        """Whether `fetch` can bring this component; cheap, and free of side effects."""

    @abstractmethod
    async def ready(self, wants: Sequence[Want]) -> bool:
        """Whether `fetch` would bring these at once, with nothing to build or to download first. It may raise
        `ComponentError`, as `fetch` would, where this source does not have one of them."""

    @abstractmethod
    async def fetch(self, wants: Sequence[Want], events: Events) -> list[Artifact]:
        """Bring components to this computer, in the order of `wants`, out of the cache where they are there.

        Anything that takes over a second emits phases with progress. Raises `ComponentError`.
        """

    async def require_version(self, version: str) -> None:
        """Raise `ComponentError` (VERSION_UNAVAILABLE) where this source does not have Kubernetes `version`."""
        known = await self.versions()
        if version not in known:
            raise ComponentError(
                f"kubernetesVersion: source {self.name!r} does not have Kubernetes {version}",
                hint=f"versions it has: {', '.join(known) or 'none'}",
                exit_code=ExitCode.VERSION_UNAVAILABLE,
            )
