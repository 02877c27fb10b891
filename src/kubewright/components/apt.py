"""Debian's packages through a private apt: the user's mirrors and proxies, and none of the user's apt state."""

from __future__ import annotations

import hashlib
import json
import os
import shlex
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Literal
from urllib.parse import quote

from kubewright.components.apt_text import (
    SUITE,
    configuration,
    parse_simulation,
    parse_source_uris,
    parse_targets,
    source_list,
)
from kubewright.components.cache import Cache
from kubewright.components.tools import require, run_tool
from kubewright.errors import ComponentError
from kubewright.events import Activity

LOOK_AGAIN = 7 * 86400.0
"""Seconds for which versions once resolved are taken as they are, without apt and without the network."""
FRESH = 3600.0
"""Seconds for which the index is good enough to download by: superseded packages vanish from mirrors."""

Variant = Literal["extract", "minbase"]
"""`extract`: packages and their dependencies unpacked, not configured, as any user; to pick files out of.
`minbase`: a Debian root that can be booted, made by mmdebstrap."""

_MINBASE = ("?essential", "?priority(required)", "apt")
_DROPPED = ("/usr/share/doc/*", "/usr/share/man/*", "/usr/share/info/*", "/usr/share/locale/*")


class Apt:
    """apt with its own source list, index and archives under the cache, for Debian `SUITE`."""

    def __init__(self, cache: Cache) -> None:
        self._cache = cache
        self._root = cache.root / "apt"
        self._archives = self._root / "cache" / "archives"
        self._env = {"APT_CONFIG": str(self._root / "apt.conf"), "DEBIAN_FRONTEND": "noninteractive"}

    def kept(self, packages: Sequence[str], *, variant: Variant = "extract") -> dict[str, str] | None:
        """What `resolve` would return without apt and without the network, or None where it would need them."""
        return self._kept(_key(variant, *sorted(packages)))

    def kept_source(self, name: str) -> dict[str, str] | None:
        """What `source_version` would return without apt and without the network, or None."""
        return self._kept(_key("source", name))

    async def resolve(
        self,
        packages: Sequence[str],
        *,
        variant: Variant = "extract",
        enough: Callable[[Mapping[str, str]], bool] = lambda _: True,
        activity: Activity | None = None,
    ) -> dict[str, str]:
        """The version of each of `packages` and of all that they depend on, by name.

        Versions are looked up in an index at most `FRESH` old and then kept for `LOOK_AGAIN`, so that a warm run
        needs neither apt nor the network; within that time they are looked up anew where `enough` says that
        nothing was made of the kept ones. Without a network the kept ones serve. Raises `ComponentError`.
        """
        extra = _MINBASE if variant == "minbase" else ()

        async def look() -> dict[str, str]:
            return parse_simulation(
                await self._apt("resolving packages", "apt-get", "install", "--simulate", *extra, *packages)
            )

        return await self._keep(_key(variant, *sorted(packages)), look, enough, activity)

    async def source_version(
        self,
        name: str,
        *,
        enough: Callable[[Mapping[str, str]], bool] = lambda _: True,
        activity: Activity | None = None,
    ) -> dict[str, str]:
        """A source package's version and its .dsc file's SHA-256: {"version": …, "sha256": …}. See `resolve`."""

        async def look() -> dict[str, str]:
            text = await self._apt(f"looking up {name}", "apt-get", "source", "--print-uris", name)
            return parse_source_uris(text, name)

        return await self._keep(_key("source", name), look, enough, activity)

    async def fetch_source(
        self, name: str, version: str, target: Path, work: Path, activity: Activity | None = None
    ) -> None:
        """Unpack source package `name` into `target`, which must not exist; `work` is for its archives."""
        require(f"source package {name}", "dpkg-dev", "debian-archive-keyring")
        say = _downloads(activity)
        await self._apt(
            f"downloading source package {name}", "apt-get", "source", "--download-only", f"{name}={version}",
            cwd=work, on_line=say,
        )  # fmt: skip
        if activity:
            activity.progress(f"unpacking {name} {version}")
        (description,) = work.glob(f"{name}_*.dsc")
        # apt has compared its digests with the signed index; the uploader's own key need not be known here.
        target.parent.mkdir(parents=True, exist_ok=True)
        await run_tool(
            f"unpacking source package {name}",
            ["dpkg-source", "--no-check", "--extract", str(description), str(target)], cwd=work,
        )  # fmt: skip

    async def make_root(
        self,
        packages: Sequence[str],
        versions: Mapping[str, str],
        target: Path,
        *,
        variant: Variant = "extract",
        activity: Activity | None = None,
    ) -> None:
        """Make `target`, an empty or missing directory, a root with `packages` in the `versions` resolved.

        Documentation, manual pages and translations are left out of `minbase`, which needs root. Raises
        `ComponentError`.
        """
        target.mkdir(parents=True, exist_ok=True)
        archives = await self._download(versions, variant, activity)
        if variant == "minbase":
            await self._bootstrap(packages, archives, target, activity)
            return
        for number, archive in enumerate(archives):
            if activity:
                activity.progress(f"unpacking {archive.name.split('_')[0]}", number / len(archives))
            await _unpack(archive, target)

    async def _download(
        self, versions: Mapping[str, str], variant: Variant, activity: Activity | None
    ) -> list[Path]:
        pinned = [f"{name}={version}" for name, version in versions.items()]
        async with self._cache.lock("apt", waiting=activity.progress if activity else None):
            found = {name: self._archive(name, version) for name, version in versions.items()}
            if None in found.values():
                await self._apt(
                    "downloading packages", "apt-get", "install", "--download-only", *pinned,
                    on_line=_downloads(activity),
                )  # fmt: skip
                found = {name: self._archive(name, version) for name, version in versions.items()}
        missing = [name for name, path in found.items() if path is None]
        if missing:
            raise ComponentError(f"downloading packages: apt did not leave {', '.join(missing)} in its cache")
        return [path for path in found.values() if path is not None]

    def _archive(self, name: str, version: str) -> Path | None:
        # apt's file names: name_version_architecture.deb, an epoch's colon quoted.
        pattern = f"{name}_{quote(version, safe='+~-.')}_*.deb".replace("%3A", "%3a")
        return next(iter(self._archives.glob(pattern)), None)

    async def _bootstrap(
        self, packages: Sequence[str], archives: Sequence[Path], target: Path, activity: Activity | None
    ) -> None:
        require("a Debian root", "mmdebstrap", "debian-archive-keyring")
        if os.geteuid() != 0:
            raise ComponentError("making a Debian root needs root", hint="run this as root")
        packed = target.with_name(f"{target.name}.archives")
        packed.mkdir()
        for archive in archives:
            (packed / archive.name).hardlink_to(archive)
        # What apt has verified already is put where mmdebstrap's apt looks: nothing is downloaded twice.
        hook = (
            'mkdir -p "$1/var/cache/apt/archives" "$1/var/lib/apt/lists" && '
            f'cp -al {shlex.quote(str(packed))}/. "$1/var/cache/apt/archives/" && '
            f'cp -a {shlex.quote(str(self._root / "lists"))}/. "$1/var/lib/apt/lists/"'
        )
        lines = (self._root / "sources.list").read_text().splitlines()
        try:
            await run_tool(
                "making a Debian root",
                [
                    "mmdebstrap", "--mode=root", "--variant=minbase", f"--include={','.join(packages)}",
                    "--skip=update", f"--setup-hook={hook}", "--dpkgopt=force-unsafe-io",
                    *(f"--dpkgopt=path-exclude={path}" for path in _DROPPED),
                    SUITE, str(target), *(line for line in lines if line.startswith("deb ")),
                ],
                env={"TMPDIR": str(target.parent)},
                on_line=(lambda line: activity.progress(line.removeprefix("I: "))) if activity else None,
            )  # fmt: skip
        finally:
            for path in packed.iterdir():
                path.unlink()
            packed.rmdir()

    async def _keep(
        self,
        name: str,
        look: Callable[[], Awaitable[dict[str, str]]],
        enough: Callable[[Mapping[str, str]], bool],
        activity: Activity | None,
    ) -> dict[str, str]:
        if (known := self._kept(name)) is not None and enough(known):
            return known
        path = self._root / "resolved" / f"{name}.json"
        async with self._cache.lock("apt", waiting=activity.progress if activity else None):
            at, known = _read_kept(path)
            if known is not None and time.time() - at < FRESH:
                return known
            try:
                await self._refresh(activity)
                known = await look()
            except ComponentError as error:
                if known is None:
                    raise
                # Without a network the versions of the last look serve; in an hour it is tried again.
                if activity:
                    when = time.strftime("%Y-%m-%d", time.localtime(path.stat().st_mtime))
                    activity.progress(f"{error.message}: using the versions looked up on {when}")
                return known
            path.parent.mkdir(parents=True, exist_ok=True)
            beside = path.with_suffix(f".{os.getpid()}")
            beside.write_text(json.dumps({"at": time.time(), "versions": known}, indent=1))
            beside.rename(path)
            return known

    def _kept(self, name: str) -> dict[str, str] | None:
        at, known = _read_kept(self._root / "resolved" / f"{name}.json")
        return known if time.time() - at < LOOK_AGAIN else None

    async def _refresh(self, activity: Activity | None) -> None:
        """Download the package index again unless it is `FRESH`. The lock is held."""
        stamp = self._root / "refreshed"
        if stamp.exists() and time.time() - stamp.stat().st_mtime < FRESH:
            return
        require("Debian's packages", "debian-archive-keyring")
        if activity:
            activity.progress("downloading Debian's package index")
        await self._configure()
        await self._apt("downloading Debian's package index", "apt-get", "update", "--error-on=any")
        await self._apt("removing superseded packages from the cache", "apt-get", "autoclean")
        stamp.touch()

    async def _configure(self) -> None:
        """Write the private configuration: mirrors and transport settings (proxies) are the user's."""
        targets = await run_tool(
            "reading apt's sources",
            ["apt-get", "indextargets", "--format", "$(REPO_URI) $(CODENAME) $(RELEASE) $(COMPONENT)",
             "Created-By: Packages"],
        )  # fmt: skip
        mirrors = parse_targets(targets)
        if SUITE not in {mirror.suite for mirror in mirrors}:
            raise ComponentError(
                f"apt on this computer has no source for Debian {SUITE}, component main",
                hint="the source `debian` needs Debian 12; if this is one, run apt-get update",
            )
        settings = await run_tool("reading apt's settings", ["apt-config", "dump"])
        for directory in (self._root / "lists" / "partial", self._archives / "partial"):
            directory.mkdir(parents=True, exist_ok=True)
        (self._root / "sources.list").write_text(source_list(mirrors))
        (self._root / "apt.conf").write_text(configuration(self._root, settings))

    async def _apt(
        self, what: str, *argv: str, cwd: Path | None = None, on_line: Callable[[str], None] | None = None
    ) -> str:
        program, *rest = argv
        options = ["-q", "--yes", "--no-install-recommends"] if program == "apt-get" else []
        return await run_tool(what, [program, *options, *rest], cwd=cwd, env=self._env, on_line=on_line)


async def _unpack(archive: Path, target: Path) -> None:
    await run_tool(f"unpacking {archive.name}", ["dpkg-deb", "--extract", str(archive), str(target)])


def _read_kept(path: Path) -> tuple[float, dict[str, str] | None]:
    try:
        kept = json.loads(path.read_text())
        return float(kept["at"]), dict(kept["versions"])
    except (OSError, ValueError, KeyError, TypeError):
        return 0.0, None


def _key(*words: str) -> str:
    return hashlib.sha256("\0".join((SUITE, *words)).encode()).hexdigest()[:16]


def _downloads(activity: Activity | None) -> Callable[[str], None] | None:
    """Reports `Get:7 http://… bookworm/main amd64 libc6 …` as `downloading libc6`."""
    if activity is None:
        return None

    def say(line: str) -> None:
        words = line.split()
        if words and words[0].startswith("Get:"):
            activity.progress(f"downloading {words[4] if len(words) > 4 else words[-1]}")

    return say
