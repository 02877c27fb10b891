"""Container images made on this computer out of Kubernetes' programs and Debian's packages."""

from __future__ import annotations

import asyncio
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kubewright.components.apt import Apt
from kubewright.components.cache import Cache, CachedFile, Entry, scratch
from kubewright.components.image import FORMAT, write_archive, write_layer
from kubewright.components.recipes import RECIPES, Recipe, base_tree, config, upstream
from kubewright.components.rootfs import Rootfs
from kubewright.components.source import Want
from kubewright.components.tools import require, run_tool
from kubewright.events import Activity

ARCHIVE = "image.tar"
"""The archive's name in an entry; the entry's info holds `image_id`."""

_PAUSE_SOURCE = Path(__file__).with_name("pause.c")
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}


def local_arch() -> str:
    """This computer's architecture in Go's words; what is made here runs on no other (P13)."""
    return _ARCHITECTURES.get(platform.machine(), platform.machine())


def kind(name: str) -> str:
    """The kind of an image's entries in the cache."""
    return f"image-{name}"


class ImageMaker:
    """Makes the images of `RECIPES`; each is an entry of the cache, keyed by all that goes into it."""

    def __init__(self, cache: Cache, apt: Apt, programs: Mapping[str, CachedFile]) -> None:
        self._cache = cache
        self._apt = apt
        self._programs = programs

    async def kept(self, want: Want) -> Entry | None:
        """The image if it is there: without apt, without the network, in milliseconds."""
        recipe = RECIPES[want.name]
        versions = self._apt.kept(recipe.packages) if recipe.packages else {}
        if versions is None:
            return None
        return await self._cache.find(kind(want.name), self._inputs(want, recipe, versions))

    async def make(self, want: Want, activity: Activity) -> Entry:
        """The image, made where the cache does not have it."""
        recipe = RECIPES[want.name]
        versions: dict[str, str] = {}
        if recipe.packages:
            versions = await self._apt.resolve(
                recipe.packages, activity=activity,
                enough=lambda found: self._cache.has(kind(want.name), self._inputs(want, recipe, found)),
            )  # fmt: skip

        async def build(target: Path) -> dict[str, Any]:
            activity.progress(f"making {want.reference}")
            return await self._build(want, recipe, versions, target, activity)

        return await self._cache.entry(
            kind(want.name), self._inputs(want, recipe, versions), build, waiting=activity.progress
        )

    def _inputs(self, want: Want, recipe: Recipe, versions: Mapping[str, str]) -> dict[str, Any]:
        made_from = self._programs[want.name].sha256 if recipe.program else ""
        if want.name == "pause":
            made_from = _PAUSE_SOURCE.read_text()
        return {
            "format": FORMAT,
            "recipe": recipe.as_inputs(),
            "made from": made_from,
            "versions": dict(versions),
            "reference": want.reference,
            "version": want.version,
            "arch": want.arch,
        }

    async def _build(
        self, want: Want, recipe: Recipe, versions: Mapping[str, str], target: Path, activity: Activity
    ) -> dict[str, Any]:
        tree = base_tree()
        async with scratch(target) as work:
            if recipe.packages:
                root = work / "root"
                await self._apt.make_root(recipe.packages, versions, root, activity=activity)
                await Rootfs(root).copy_programs(tree, *recipe.files)
            if recipe.program:
                tree.file(f"/usr/local/bin/{want.name}", self._programs[want.name].path, 0o755)
            if want.name == "pause":
                tree.file("/pause", await compile_pause(work / "pause"), 0o755)
            for path, to in recipe.links.items():
                tree.link(path, to)
            layer = await write_layer(tree, work / "layer")
            version = upstream(versions[recipe.version_of]) if recipe.version_of else want.version
            image_id = await asyncio.to_thread(
                write_archive, target / ARCHIVE, want.reference, want.arch, config(recipe, version), [layer]
            )
        return {"image_id": image_id, "version": version}


async def compile_pause(target: Path) -> Path:
    """Compile the program that holds a pod's namespaces, with nothing to link to in its image."""
    require("compiling pause", "gcc", "libc6-dev")
    await run_tool("compiling pause", ["gcc", "-Os", "-s", "-static", "-o", str(target), str(_PAUSE_SOURCE)])
    return target
