"""A host that is a dict of files: for our own logic alone; integration tests run the same phases on machines."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path

from kubewright.errors import HostError
from kubewright.hosts import Completed, FileStat, FileWrite, Host, HostFacts
from kubewright.hosts.host import Progress
from kubewright.secret import Secret


class KilledError(Exception):
    """Stands for SIGKILL."""


class MemoryHost(Host):
    """Files and links in memory. With `dies_after`, the run is killed after that many files were written."""

    def __init__(self) -> None:
        self.name = "cp1"
        self.files: dict[str, FileWrite] = {}
        self.links: dict[str, str] = {}
        self.dies_after: int | None = None
        self.commands: list[tuple[str, ...]] = []
        self.private_folders: set[str] = set()

    async def run(
        self, argv: Sequence[str], *, stdin: bytes | Secret[bytes] | None = None, timeout: float = 60.0,
        check: bool = True, env: Mapping[str, str] | None = None,
    ) -> Completed:  # fmt: skip
        if argv[:2] == ["sh", "-c"] and argv[2] == 'mkdir -p -m 700 "$@"':
            self.private_folders.update(argv[4:])
            return Completed(tuple(argv), 0)
        self.commands.append(tuple(argv))
        if argv[:2] == ["sh", "-c"] and argv[2].startswith("ln -s"):
            self._live()
            self.links[argv[5]] = argv[4]
            return Completed(tuple(argv), 0)
        raise HostError(f"unexpected command {argv}")

    def _resolve(self, path: str) -> FileWrite | None:
        return self.files.get(self.links.get(path, path))

    async def read_file(self, path: str) -> bytes | None:
        file = self._resolve(path)
        return None if file is None else file.data

    async def read_files(self, paths: Iterable[str]) -> dict[str, bytes]:
        return {path: file.data for path in paths if (file := self._resolve(path)) is not None}

    async def stat_files(self, paths: Iterable[str], *, digest: bool = True) -> dict[str, FileStat]:
        return {
            path: FileStat(
                path, "file", file.mode, file.owner, file.group, len(file.data),
                hashlib.sha256(file.data).hexdigest() if digest else "",
            )
            for path in paths
            if (file := self._resolve(path)) is not None
        }  # fmt: skip

    async def write_files(self, files: Iterable[FileWrite]) -> None:
        for file in files:
            self._live()
            self.files[file.path] = file

    def _live(self) -> None:
        if self.dies_after is not None:
            if self.dies_after == 0:
                raise KilledError
            self.dies_after -= 1

    async def upload(
        self,
        local: Path,
        remote: str,
        *,
        mode: int = 0o644,
        sha256: str = "",
        progress: Progress | None = None,
    ) -> None:
        raise NotImplementedError

    async def run_with_file(
        self, argv: Sequence[str], local: Path, *, timeout: float = 300.0, progress: Progress | None = None
    ) -> Completed:
        raise NotImplementedError

    def forward_tcp(self, address: str, port: int) -> AbstractAsyncContextManager[tuple[str, int]]:
        raise NotImplementedError

    def forward_unix(self, path: str) -> AbstractAsyncContextManager[Path]:
        raise NotImplementedError

    async def facts(self) -> HostFacts:
        raise NotImplementedError

    async def close(self) -> None:
        return
