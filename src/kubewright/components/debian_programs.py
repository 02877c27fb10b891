"""Programs for hosts out of Debian's binary packages, as they are in them."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kubewright.components.apt import Apt
from kubewright.components.cache import Cache, CachedFile, Entry, scratch
from kubewright.components.recipes import RECIPES
from kubewright.components.rootfs import Rootfs
from kubewright.events import Activity

PROGRAMS: Mapping[str, str] = {"etcd": "/usr/bin/etcd", "etcdctl": "/usr/bin/etcdctl"}
"""Each program and its place in its package. Both are linked to the C library alone, of version 2.34 or newer."""

_KIND = "programs-etcd"
_PACKAGES = RECIPES["etcd"].packages  # those of the image: one look at their versions does for both


class ProgramMaker:
    """Picks them out; all are one entry of the cache, keyed by the packages' versions."""

    def __init__(self, cache: Cache, apt: Apt) -> None:
        self._cache = cache
        self._apt = apt

    async def kept(self) -> Entry | None:
        """The programs if they are there: without apt, without the network, in milliseconds."""
        versions = self._apt.kept(_PACKAGES)
        return await self._cache.find(_KIND, _inputs(versions)) if versions is not None else None

    async def make(self, activity: Activity) -> Mapping[str, CachedFile]:
        """The programs by their names, downloaded where the cache does not have them. Raises `ComponentError`."""
        versions = await self._apt.resolve(
            _PACKAGES, activity=activity, enough=lambda found: self._cache.has(_KIND, _inputs(found))
        )

        async def build(target: Path) -> dict[str, Any]:
            async with scratch(target) as work:
                root = work / "root"
                await self._apt.make_root(_PACKAGES, versions, root, activity=activity)
                for name, path in PROGRAMS.items():
                    shutil.copyfile(Rootfs(root).find(path), target / name)
            return {"versions": {name: versions[name] for name in _PACKAGES}}

        entry = await self._cache.entry(_KIND, _inputs(versions), build, waiting=activity.progress)
        return entry.files


def _inputs(versions: Mapping[str, str]) -> dict[str, Any]:
    return {"versions": {name: versions[name] for name in _PACKAGES}, "programs": dict(PROGRAMS)}
