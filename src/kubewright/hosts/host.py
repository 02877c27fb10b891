"""The interface through which phases look at a host and act on it."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path

from kubewright.model.facts import HostFacts
from kubewright.secret import Secret

Progress = Callable[[int, int], None]
"""Called with the bytes sent so far and the bytes in all."""


@dataclass(frozen=True, slots=True)
class Completed:
    """A command that ended. Its output is kept as bytes; `text` and `err` decode it."""

    argv: tuple[str, ...]
    exit_code: int
    stdout: bytes = b""
    stderr: bytes = b""

    @property
    def ok(self) -> bool:
        """Whether the exit code is 0."""
        return self.exit_code == 0

    @property
    def text(self) -> str:
        """Standard output, decoded, without the white space at its end."""
        return self.stdout.decode(errors="replace").rstrip()

    @property
    def err(self) -> str:
        """Standard error, decoded, without the white space at its end."""
        return self.stderr.decode(errors="replace").rstrip()


@dataclass(frozen=True, slots=True)
class FileStat:
    """What a path holds: a regular file's digest, or the kind of thing that it is."""

    path: str
    kind: str
    """`file`, `directory`, `symlink` or `other`."""
    mode: int
    """Permission bits, as in 0o600."""
    owner: str
    group: str
    size: int
    """In bytes."""
    sha256: str = ""
    """Of a regular file, in hexadecimal; empty where it was not asked for."""


@dataclass(frozen=True, slots=True)
class FileWrite:
    """A file as it must be. A `Secret` content is never shown in a plan or a log."""

    path: str
    content: bytes | Secret[bytes]
    mode: int = 0o644
    owner: str = "root"
    group: str = "root"

    @property
    def data(self) -> bytes:
        """The bytes to write."""
        return self.content.reveal() if isinstance(self.content, Secret) else self.content

    @property
    def secret(self) -> bool:
        """Whether the content must not be shown."""
        return isinstance(self.content, Secret)


_HOSTNAME = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")


class Host(ABC):
    """A computer that commands can be run on, as root (directly or through sudo).

    An instance is good for the length of one workflow: it holds one connection, reused for everything, and
    caches its facts. All methods raise `HostError` (or a subclass) with the host's name when the host cannot
    be reached, refuses, or is out of disk; no other exception leaves them but `CancelledError`.
    """

    name: str
    """The name under which users know the host: the node name in `cluster.yaml`."""

    @abstractmethod
    async def run(
        self,
        argv: Sequence[str],
        *,
        stdin: bytes | Secret[bytes] | None = None,
        timeout: float = 60.0,
        check: bool = True,
        env: Mapping[str, str] | None = None,
    ) -> Completed:
        """Run a command as root, without a shell, and wait for it.

        `timeout` is in seconds; when it passes, the command is killed and `WaitTimeoutError` raised. With
        `check`, an exit code other than 0 raises `CommandError` with the last lines of standard error as
        evidence. Secrets go through `stdin`, never through `argv` or `env`, which other users can read.
        """

    async def shell(
        self, script: str, *args: str, stdin: bytes | Secret[bytes] | None = None, timeout: float = 60.0,
        check: bool = True,
    ) -> Completed:  # fmt: skip
        """Run a POSIX shell script as root; `args` become $1, $2, … and need no quoting."""
        return await self.run(["sh", "-c", script, "sh", *args], stdin=stdin, timeout=timeout, check=check)

    @abstractmethod
    async def read_file(self, path: str) -> bytes | None:
        """A regular file's content, or None where there is none."""

    @abstractmethod
    async def read_files(self, paths: Iterable[str]) -> dict[str, bytes]:
        """The content of those of `paths` that exist, in one round trip."""

    @abstractmethod
    async def stat_files(self, paths: Iterable[str], *, digest: bool = True) -> dict[str, FileStat]:
        """What stands at those of `paths` that exist, in one round trip; with `digest`, files' SHA-256 too."""

    @abstractmethod
    async def write_files(self, files: Iterable[FileWrite]) -> None:
        """Write files atomically, in the order given, in one round trip.

        Each is written beside its place with its owner and mode set before its content, flushed, and renamed.
        Missing directories are made 0755, root's. A full disk raises `HostError` with `HOST_DISK_FULL` and
        leaves what stood there before.
        """

    async def write_file(
        self, path: str, content: bytes | Secret[bytes], *, mode: int = 0o644, owner: str = "root",
        group: str = "root",
    ) -> None:  # fmt: skip
        """Write one file; see `write_files`."""
        await self.write_files([FileWrite(path, content, mode, owner, group)])

    @abstractmethod
    async def upload(
        self,
        local: Path,
        remote: str,
        *,
        mode: int = 0o644,
        sha256: str = "",
        progress: Progress | None = None,
    ) -> None:
        """Stream a large file to the host, verify its SHA-256 there if one is given, and rename it."""

    @abstractmethod
    async def run_with_file(
        self, argv: Sequence[str], local: Path, *, timeout: float = 300.0, progress: Progress | None = None
    ) -> Completed:
        """Run a command as root with a local file streamed to its standard input (`ctr images import -`)."""

    @abstractmethod
    def forward_tcp(self, address: str, port: int) -> AbstractAsyncContextManager[tuple[str, int]]:
        """A local address and port whose connections the *host* makes to `address`:`port`.

        What such a connection can reach is what the host can reach, which is what a join must know.
        """

    @abstractmethod
    def forward_unix(self, path: str) -> AbstractAsyncContextManager[Path]:
        """A local unix socket, in a directory that only we can enter, leading to the host's socket `path`."""

    @abstractmethod
    async def facts(self) -> HostFacts:
        """What the host is, looked up once and kept."""

    @abstractmethod
    async def close(self) -> None:
        """End the connection. Calling it twice does no harm."""

    async def __aenter__(self) -> Host:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()


def is_node_name(name: str) -> bool:
    """Whether `name` can be a Kubernetes node name: an RFC 1123 subdomain of at most 253 characters (P14)."""
    return len(name) <= 253 and _HOSTNAME.fullmatch(name) is not None
