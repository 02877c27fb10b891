"""A host below a folder: commands and shell scripts are run for real, and each path of theirs is below it."""

from __future__ import annotations

import hashlib
import os
import secrets
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from kubewright.hosts import HostFacts
from kubewright.hosts.local import LocalHost
from kubewright.hosts.shell import Output, ShellHost
from kubewright.model.config.cluster import HostSpec, Role
from kubewright.phases.node import Node


class RootedHost(LocalHost):
    """Arguments that are absolute paths lead below `root`, and answers do not show it. `bin` has its programs.

    Each program that is added finds the root in $ROOT.
    """

    def __init__(self, root: Path, name: str = "cp1") -> None:
        super().__init__(name)
        self.root = root / "root"
        self.bin = root / "bin"
        for folder in (self.root, self.bin):
            folder.mkdir(parents=True)
        self._env |= {"ROOT": str(self.root), "PATH": f"{self.bin}:{self._env['PATH']}"}
        self.commands: list[list[str]] = []

    def program(self, name: str, script: str) -> None:
        """Add a program, or put another in its place."""
        path = self.bin / name
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)

    def put(self, path: str, content: str | bytes = b"x", mode: int = 0o644) -> Path:
        """Write a file."""
        real = self.at(path)
        real.parent.mkdir(parents=True, exist_ok=True)
        real.write_bytes(content.encode() if isinstance(content, str) else content)
        real.chmod(mode)
        return real

    def at(self, path: str) -> Path:
        """Where a path of the host is here."""
        return self.root / path.lstrip("/")

    def tree(self, path: str = "/") -> dict[str, Any]:
        """All that is below a path: links with what they lead to, files with mode, owner, time and content."""
        found: dict[str, Any] = {}
        for one in sorted(self.at(path).rglob("*")):
            name = "/" + str(one.relative_to(self.root))
            stat = one.lstat()
            if one.is_symlink():
                found[name] = str(one.readlink())
            elif one.is_dir():
                found[name] = oct(stat.st_mode)
            else:
                found[name] = (
                    oct(stat.st_mode), stat.st_uid, stat.st_gid, int(stat.st_mtime), one.read_bytes(),
                )  # fmt: skip
        return found

    async def _exec(self, argv: Sequence[str], stdin: Iterable[bytes], output: Output) -> int:
        first = 4 if list(argv[:2]) == ["sh", "-c"] else 1
        self.commands.append(list(argv))
        mapped = [*argv[:first], *(self._mapped(word) for word in argv[first:])]
        try:
            return await super()._exec(mapped, stdin, output)
        finally:
            for told in (output.stdout, output.stderr):
                told[:] = told.replace(str(self.root).encode(), b"")

    def _mapped(self, word: str) -> str:
        return f"{self.root}{word}" if word.startswith("/") else word

    async def read_files(self, paths: Iterable[str]) -> dict[str, bytes]:
        """As over SSH: by the shell."""
        return await ShellHost.read_files(self, paths)


def rooted_node(root: Path, name: str = "cp1", ip: str = "192.0.2.1", *, worker: bool = False) -> Node:
    """A node on such a host."""
    role = Role.WORKER if worker else Role.CONTROL_PLANE
    facts = HostFacts(name, "debian", "12", "", "amd64", "", 2, 4 << 30, 0, True, "systemd", 2, 0, ip, (), ())
    return Node(HostSpec(name=name, address=ip, roles=[role]), RootedHost(root / name, name), facts, ip)


def rooted(node: Node) -> RootedHost:
    """The host of such a node."""
    assert isinstance(node.host, RootedHost)
    return node.host


def snapshot_of(content: bytes) -> bytes:
    """A snapshot as etcd writes it: what it has, and the SHA-256 of that."""
    return content + hashlib.sha256(content).digest()


def big() -> bytes:
    """More than a pipe holds, and nothing that repeats."""
    return secrets.token_bytes(1 << 20)


AS_ROOT = os.geteuid() == 0
