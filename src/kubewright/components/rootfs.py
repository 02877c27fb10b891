"""Files picked out of an unpacked root, with the libraries that they need, into an image's tree."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable
from pathlib import Path

from kubewright.components.image import Tree
from kubewright.components.tools import run_tool
from kubewright.errors import ComponentError

LOADER = "/lib64/ld-linux-x86-64.so.2"
"""The dynamic loader that x86-64 programs name (System V ABI, AMD64 supplement)."""
_LIBRARIES = ("/lib/x86_64-linux-gnu", "/usr/lib/x86_64-linux-gnu")
_LINKS = 40  # as many links as Linux follows in one path (path_resolution(7))


class Rootfs:
    """An unpacked root that is not entered: its links are followed inside it, its loader is run from outside."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def find(self, path: str) -> Path:
        """The file at `path` as seen from inside, links followed. Raises `ComponentError`."""
        rest = [part for part in path.split("/") if part]
        at: list[str] = []
        links = 0
        while rest:
            part = rest.pop(0)
            if part in (".", ".."):
                at = at[:-1] if part == ".." else at
                continue
            here = self.root.joinpath(*at, part)
            if here.is_symlink():
                links += 1
                target = here.readlink().as_posix()
                at = [] if target.startswith("/") else at
                rest = [part for part in target.split("/") if part] + rest
            else:
                at.append(part)
            if links > _LINKS:
                break
        found = self.root.joinpath(*at)
        if links > _LINKS or not found.exists():
            raise ComponentError(f"an unpacked package lacks {path}")
        return found

    def copy(self, tree: Tree, *paths: str) -> list[Path]:
        """Put files and whole directories under their own paths; returns the files that the loader must read.

        A link at one of `paths` is followed; links inside a directory are kept.
        """
        copied: list[Path] = []
        for path in paths:
            source = self.find(path)
            if not source.is_dir():
                tree.file(path, source)
                copied.append(source)
                continue
            for folder, names, files in os.walk(source):
                names.sort()
                inside = Path(path) / Path(folder).relative_to(source)
                tree.directory(str(inside))
                linked = [name for name in names if Path(folder, name).is_symlink()]
                for name in sorted(files + linked):
                    file = Path(folder, name)
                    if file.is_symlink():
                        tree.link(str(inside / name), file.readlink().as_posix())
                    else:
                        tree.file(str(inside / name), file)
                        copied.append(file)
        return copied

    async def copy_programs(self, tree: Tree, *paths: str) -> None:
        """`copy`, and with it every library that the files copied are linked to, and the loader."""
        wanted = [file for file in self.copy(tree, *paths) if _is_elf(file)]
        for library in await self.libraries(wanted):
            tree.file(library, self.find(library), 0o755)
        if wanted:
            tree.file(LOADER, self.find(LOADER), 0o755)

    async def libraries(self, files: Iterable[Path]) -> list[str]:
        """The libraries that the loader would load for `files`, as paths inside the root.

        Raises `ComponentError` where one is found on this computer instead: a package is missing in the root.
        """
        found: set[str] = set()
        for file in files:
            output = await run_tool(
                f"finding the libraries of {file.name}", [*self.run_prefix(), "--list", str(file)]
            )
            found.update(parse_loader_list(output, self.root, file.name))
        return sorted(found)

    def run_prefix(self) -> list[str]:
        """What to put before a program of the root to run it here with the root's own libraries."""
        path = ":".join(f"{self.root}{directory}" for directory in _LIBRARIES)
        return [str(self.find(LOADER)), "--inhibit-cache", "--library-path", path]


def parse_loader_list(text: str, root: Path, name: str) -> list[str]:
    """Paths inside `root` out of the loader's lines of `libc.so.6 => /root/lib/libc.so.6 (0x7f…)`."""
    paths: list[str] = []
    for line in text.splitlines():
        soname, arrow, rest = line.strip().partition(" => ")
        if not arrow or soname.startswith("/"):
            continue  # the loader itself, the kernel's vDSO, or a program without libraries
        path = rest.rpartition(" (")[0] or rest
        if not path.startswith(f"{root}/"):
            raise ComponentError(f"{name} needs the library {soname}, which no unpacked package has")
        paths.append(path.removeprefix(str(root)))
    return paths


def _is_elf(path: Path) -> bool:
    """Whether a file is a program or library; those that come out of Debian's packages are linked dynamically."""
    if not stat.S_ISREG(path.stat().st_mode):
        return False
    with path.open("rb") as file:
        return file.read(4) == b"\x7fELF"
