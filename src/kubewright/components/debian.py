"""The source `debian`: Kubernetes out of Debian's source package, and images made on this computer."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from kubewright.components import agent_image, debian_programs
from kubewright.components.apt import Apt
from kubewright.components.cache import Cache, CachedFile, Entry
from kubewright.components.debian_build import KIND, PROGRAMS, VERSION, inputs, kubernetes
from kubewright.components.debian_images import ARCHIVE, ImageMaker, local_arch
from kubewright.components.recipes import RECIPES
from kubewright.components.source import Artifact, Form, Source, Want
from kubewright.errors import ComponentError, ExitCode, leaves
from kubewright.events import Activity, Events

_AT_ONCE = 2
"""Images made at the same time: compressing takes a core each."""


class DebianSource(Source):
    """Needs Debian 12 and its mirrors once; after that the cache serves without either."""

    name = "debian"

    def __init__(self, cache: Cache | None = None) -> None:
        self._cache = cache or Cache()
        self._apt = Apt(self._cache)

    async def versions(self) -> Sequence[str]:
        """The one version that Debian 12 has the source of."""
        return [VERSION]

    async def available(self, want: Want) -> bool:
        """Whether this computer can make it: its own architecture, and what recipes exist for."""
        return self._refusal(want) is None

    async def ready(self, wants: Sequence[Want]) -> bool:
        """Whether all of them are in the cache."""
        self._refuse(wants)
        programs: dict[str, CachedFile] = {}
        if any(_is_built(want) for want in wants):
            known = self._apt.kept_source("kubernetes")
            built = await self._cache.find(KIND, inputs(known)) if known else None
            if built is None:
                return False
            programs = dict(built.files)
        packaged = debian_programs.ProgramMaker(self._cache, self._apt)
        if any(_is_packaged(want) for want in wants) and await packaged.kept() is None:
            return False
        maker = ImageMaker(self._cache, self._apt, programs)
        agents = agent_image.AgentMaker(self._cache, self._apt)
        for want in wants:
            one = agents if want.name == agent_image.NAME else maker
            if want.form is Form.IMAGE and await one.kept(want) is None:
                return False
        return True

    async def fetch(self, wants: Sequence[Want], events: Events) -> list[Artifact]:
        """Bring components out of the cache, made first where they are missing."""
        self._refuse(wants)
        programs: dict[str, CachedFile] = {}
        if any(_is_built(want) for want in wants):
            programs = dict((await kubernetes(self._cache, self._apt, events)).files)
        packaged = await self._packaged(wants, events)
        images = await self._images([want for want in wants if want.form is Form.IMAGE], programs, events)
        return [
            _artifact(want, (packaged if _is_packaged(want) else programs)[want.name])
            if want.form is Form.BINARY
            else _artifact(want, images[want].files[ARCHIVE], images[want].info["image_id"])
            for want in wants
        ]

    async def _packaged(self, wants: Sequence[Want], events: Events) -> dict[str, CachedFile]:
        """The programs of those `wants` that stand in a package as they are."""
        if not any(_is_packaged(want) for want in wants):
            return {}
        maker = debian_programs.ProgramMaker(self._cache, self._apt)
        if found := await maker.kept():
            return dict(found.files)
        async with events.phase("programs-download", "download etcd") as activity:
            return dict(await maker.make(activity))

    async def _images(
        self, wants: Sequence[Want], programs: dict[str, CachedFile], events: Events
    ) -> dict[Want, Entry]:
        maker = ImageMaker(self._cache, self._apt, programs)
        agents = agent_image.AgentMaker(self._cache, self._apt)
        images: dict[Want, Entry] = {}
        missing: list[Want] = []
        for want in dict.fromkeys(wants):
            one = agents if want.name == agent_image.NAME else maker
            if found := await one.kept(want):
                images[want] = found
            else:
                missing.append(want)
        if missing:
            title = f"make {len(missing)} container image{'s' if len(missing) > 1 else ''}"
            async with events.phase("images-build", title) as activity:
                turns = asyncio.Semaphore(_AT_ONCE)

                async def make(want: Want, activity: Activity) -> None:
                    one = agents if want.name == agent_image.NAME else maker
                    async with turns:
                        images[want] = await one.make(want, activity)

                try:
                    async with asyncio.TaskGroup() as group:
                        for want in missing:
                            group.create_task(make(want, activity))
                except BaseExceptionGroup as several:
                    raise leaves(several)[0] from None
        return images

    def _refuse(self, wants: Sequence[Want]) -> None:
        """Raise `ComponentError` where this source cannot bring one of them."""
        for want in wants:
            if refusal := self._refusal(want):
                raise ComponentError(
                    f"source {self.name!r} does not have {want}: {refusal}",
                    hint="do without it, or choose another source (source.type)",
                    exit_code=ExitCode.VERSION_UNAVAILABLE,
                )

    def _refusal(self, want: Want) -> str | None:
        """Why this source cannot bring `want`, or None."""
        if want.arch != local_arch():
            return f"it builds for this computer's architecture, {local_arch()}"
        known = (
            (*PROGRAMS, *debian_programs.PROGRAMS)
            if want.form is Form.BINARY
            else (*RECIPES, agent_image.NAME)
        )
        if want.name not in known:
            return "it is not in Debian"
        if want.name in PROGRAMS and want.version != VERSION:
            return f"it has Kubernetes {VERSION}"
        return None


def _is_built(want: Want) -> bool:
    """Whether it is, or is made of, a program that is built out of Kubernetes' source."""
    return want.name in PROGRAMS


def _is_packaged(want: Want) -> bool:
    """Whether it is a program that stands in a package as it is. Whatever version of it Debian has will do."""
    return want.form is Form.BINARY and want.name in debian_programs.PROGRAMS


def _artifact(want: Want, file: CachedFile, image_id: str = "") -> Artifact:
    return Artifact(want, file.path, file.sha256, file.size, image_id)
