"""The cache of components: entries keyed by what they are made from, made once, whole or not at all."""

from __future__ import annotations

import asyncio
import fcntl
import hashlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kubewright.errors import ComponentError, ExitCode

KEEP = 3
"""Entries of one kind that are never pruned, the last used first."""
GRACE = 6 * 3600.0
"""Seconds after its last use in which an entry is not pruned: a run that holds its paths is long over."""
PATIENCE = 1800.0
"""Seconds to wait for another process that makes the same entry."""

_MANIFEST = "manifest.json"
_STAMPS = "stamps.json"


@dataclass(frozen=True, slots=True)
class CachedFile:
    """A file of an entry: its digest in hexadecimal and its size in bytes."""

    path: Path
    sha256: str
    size: int


@dataclass(frozen=True, slots=True)
class Entry:
    """A whole, verified entry. Files at its top are verified; directories in it are not."""

    path: Path
    files: Mapping[str, CachedFile]
    info: Mapping[str, Any] = field(default_factory=dict)
    """What its builder recorded."""


Builder = Callable[[Path], Awaitable[Mapping[str, Any] | None]]
"""Fills an empty directory and returns what is to be recorded about it."""


def cache_root() -> Path:
    """KUBEWRIGHT_CACHE, else `kubewright` under XDG_CACHE_HOME, else under `~/.cache`."""
    if own := os.environ.get("KUBEWRIGHT_CACHE"):
        return Path(own).absolute()
    base = os.environ.get("XDG_CACHE_HOME", "")
    # The XDG base directory specification: a relative path is invalid and must be ignored.
    return (Path(base) if base.startswith("/") else Path.home() / ".cache") / "kubewright"


class Cache:
    """A directory of entries that several processes may use at the same time.

    An entry is made in a directory beside its place, with a manifest of SHA-256 digests, and renamed when it is
    whole; so what is found under an entry's name is complete. Each entry has a lock (flock(2)): the kernel lets
    go of it when its holder dies, and whoever gets it next removes what the dead one left.
    """

    def __init__(self, root: Path | None = None) -> None:
        self.root = root or cache_root()

    def place(self, kind: str, inputs: Mapping[str, Any]) -> Path:
        """Where the entry of this kind, made from `inputs` (JSON values), is or will be."""
        text = json.dumps({"kind": kind, "inputs": inputs}, sort_keys=True)
        return self.root / kind / hashlib.sha256(text.encode()).hexdigest()[:16]

    def has(self, kind: str, inputs: Mapping[str, Any]) -> bool:
        """Whether the entry is there; nothing is verified."""
        return (self.place(kind, inputs) / _MANIFEST).is_file()

    async def find(self, kind: str, inputs: Mapping[str, Any]) -> Entry | None:
        """The entry if it is there and verified; takes milliseconds where its files were not touched."""
        return await asyncio.to_thread(self._open, self.place(kind, inputs))

    async def entry(
        self,
        kind: str,
        inputs: Mapping[str, Any],
        build: Builder,
        *,
        waiting: Callable[[str], None] | None = None,
    ) -> Entry:
        """The entry made from `inputs`, verified; made by `build` where it is missing or damaged.

        `waiting` is told when another process is making it. Raises `ComponentError` (`BUSY` when that process
        takes longer than `PATIENCE`) and whatever `build` raises.
        """
        place = self.place(kind, inputs)
        if found := await asyncio.to_thread(self._open, place):
            return found
        async with self.lock(f"{kind}-{place.name}", waiting=waiting):
            if found := await asyncio.to_thread(self._open, place):
                return found
            await asyncio.to_thread(_discard, place)
            entry = await self._make(place, kind, inputs, build)
        await asyncio.to_thread(self.prune, kind)
        return entry

    @asynccontextmanager
    async def lock(
        self, name: str, *, patience: float = PATIENCE, waiting: Callable[[str], None] | None = None
    ) -> AsyncIterator[None]:
        """Hold the lock `name` inside; `patience` is in seconds. Raises `ComponentError` (`BUSY`)."""
        path = self.root / "locks" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        deadline = time.monotonic() + patience
        told = False
        while (descriptor := _try_lock(path)) is None:
            holder = path.read_text(errors="replace").strip() or "unknown"
            if time.monotonic() > deadline:
                raise ComponentError(
                    f"the cache's lock {name} has been held by process {holder} for {patience:.0f} s",
                    hint=f"wait for it, or end it: kill {holder}", exit_code=ExitCode.BUSY,
                )  # fmt: skip
            if waiting is not None and not told:
                waiting(f"process {holder} is at it already: waiting for it")
                told = True
            await asyncio.sleep(0.1)
        try:
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, str(os.getpid()).encode(), 0)
            yield
        finally:
            os.close(descriptor)

    def prune(self, kind: str) -> None:
        """Remove entries of `kind` beyond the `KEEP` last used, unless used within `GRACE` or mounted from."""
        entries = [(_used(path), path) for path in (self.root / kind).glob("[!.]*")]
        for used, path in sorted(entries, reverse=True)[KEEP:]:
            if time.time() - used > GRACE and not _mounted(path):
                self._unless_locked(path, _discard)
        for left in (self.root / kind).glob(".*.*"):
            # Its name begins with its entry's key, whose lock its maker holds for as long as it lives.
            self._unless_locked(left.with_name(left.name.split(".")[1]), _sweep)

    def _unless_locked(self, place: Path, act: Callable[[Path], None]) -> None:
        if (descriptor := _try_lock(self._lock_of(place))) is not None:
            try:
                act(place)
            finally:
                os.close(descriptor)

    def _lock_of(self, place: Path) -> Path:
        return self.root / "locks" / f"{place.parent.name}-{place.name}"

    async def _make(self, place: Path, kind: str, inputs: Mapping[str, Any], build: Builder) -> Entry:
        place.parent.mkdir(parents=True, exist_ok=True)
        target = Path(tempfile.mkdtemp(prefix=f".{place.name}.", dir=place.parent))
        try:
            target.chmod(0o755)
            info = await build(target) or {}
            await asyncio.to_thread(_seal, target, {"kind": kind, "inputs": inputs, "info": info})
            target.rename(place)
        except BaseException:
            await asyncio.shield(asyncio.to_thread(remove_tree, target))
            raise
        found = self._open(place)
        assert found is not None
        return found

    def _open(self, place: Path) -> Entry | None:
        """The entry at `place`, or None where there is none or a file of it is not what its manifest says."""
        try:
            manifest = json.loads((place / _MANIFEST).read_text())
            stamps = json.loads((place / _STAMPS).read_text())
            files: dict[str, CachedFile] = {}
            changed = False
            for name, row in manifest["files"].items():
                file = CachedFile(place / name, row["sha256"], row["size"])
                stamp = _stamp(file.path)
                if stamps.get(name) != stamp:
                    if _digest(file.path) != file.sha256:
                        return None
                    stamps[name], changed = stamp, True
                files[name] = file
            with suppress(OSError):  # a cache on a read-only disk serves as well
                if changed:
                    _write_json(place / _STAMPS, stamps)
                os.utime(place / _MANIFEST)
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return None
        return Entry(place, files, manifest.get("info", {}))


@asynccontextmanager
async def scratch(beside: Path) -> AsyncIterator[Path]:
    """A directory for intermediate work on the disk of `beside`, removed in the end; gigabytes are allowed."""
    path = Path(tempfile.mkdtemp(prefix=".scratch.", dir=beside))
    try:
        yield path
    finally:
        await asyncio.shield(asyncio.to_thread(remove_tree, path))


def remove_tree(path: Path) -> None:
    """Remove a directory whole. Raises `ComponentError` where something is mounted in it: that is not ours."""
    if _mounted(path):
        raise ComponentError(f"{path} is not removed: something is mounted in it or from it")
    shutil.rmtree(path, ignore_errors=True)


def _sweep(place: Path) -> None:
    """Remove what dead makers left of the entry at `place`; its lock is held."""
    for left in place.parent.glob(f".{place.name}.*"):
        remove_tree(left)


def _discard(place: Path) -> None:
    """Remove the entry at `place`, in one step as others see it; its lock is held."""
    if place.exists():
        aside = Path(tempfile.mkdtemp(prefix=f".{place.name}.", dir=place.parent))
        place.rename(aside / "old")
    _sweep(place)


def _try_lock(path: Path) -> int | None:
    """An open descriptor that holds the lock, or None where another holds it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    return descriptor


def _seal(target: Path, manifest: dict[str, Any]) -> None:
    """Write the manifest of the files at the top of `target`, all flushed to the disk."""
    files: dict[str, dict[str, Any]] = {}
    stamps: dict[str, list[int]] = {}
    for path in sorted(target.iterdir()):
        if path.is_file() and not path.is_symlink():
            with path.open("rb") as file:
                os.fsync(file.fileno())
            files[path.name] = {"sha256": _digest(path), "size": path.stat().st_size}
            stamps[path.name] = _stamp(path)
    _write_json(target / _STAMPS, stamps)
    _write_json(target / _MANIFEST, {**manifest, "files": files})


def _write_json(path: Path, value: Any) -> None:
    beside = path.with_suffix(f".{os.getpid()}")
    with beside.open("w") as file:
        json.dump(value, file, indent=1, sort_keys=True)
        file.flush()
        os.fsync(file.fileno())
    beside.rename(path)


def _stamp(path: Path) -> list[int]:
    """What changes when a file is written to: if it is as it was, the digest is too.

    This trusts the kernel's inode change time, which no program can set; a disk that rots in silence is left
    to the check of the digest on the host that the file is sent to.
    """
    stat = path.stat()
    return [stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino]


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _used(path: Path) -> float:
    """When an entry was last handed out, in seconds since the epoch."""
    try:
        return (path / _MANIFEST).stat().st_mtime
    except OSError:
        return 0.0


def _mounted(path: Path) -> bool:
    """Whether a mount of any process is in `path` or takes from it, as an overlay does."""
    seen: set[str] = set()
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it ended, or it is another user's
            namespace = str((process / "ns" / "mnt").readlink())
            if namespace not in seen:
                seen.add(namespace)
                if f"{path}/" in (process / "mountinfo").read_text().replace(",", "/,").replace(" ", "/ "):
                    return True
    return False
