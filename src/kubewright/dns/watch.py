"""Keeps the index true: lists what names are made of, then follows its changes (list and watch)."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from kubewright.clients.kube import KubeClient
from kubewright.clients.paths import object_path
from kubewright.dns import objects
from kubewright.dns.index import Index, Tag
from kubewright.dns.metrics import Metrics
from kubewright.errors import ApiError

log = logging.getLogger(__name__)

Object = Mapping[str, Any]
Key = tuple[str, str]

_PAGE = "500"
_WATCH = 240.0
"""Seconds that one watch lasts."""
_SHORT = 1.0
_FIRST_PAUSE, _LONGEST_PAUSE = 0.25, 5.0
_FIRST_PATIENCE, _LONGEST_PATIENCE = 2.0, 30.0
_DISCOVERY = "discovery.k8s.io"


@dataclass(frozen=True, slots=True)
class Source:
    """Where the objects of one sort come from."""

    api_version: str
    kind: str
    read: Callable[[Object], Iterable[Tag]]
    """Take an object into the index."""


@dataclass(frozen=True, slots=True)
class Sort:
    """One sort of object that the index holds: how it is kept there, and where it comes from."""

    name: str
    known: Callable[[], list[Key]]
    drop: Callable[[str, str], Iterable[Tag]]
    find: Callable[[float], Awaitable[Source]]
    """Which of the server's kinds to follow; the argument is a patience in seconds."""


class Watcher:
    """Follows the API server. `changed` gets the tags of the answers that each change makes stale.

    While the API server is away the index stays as it was: old answers are better than none.
    """

    def __init__(
        self, client: KubeClient, index: Index, changed: Callable[[Iterable[Tag]], None], metrics: Metrics,
        *, pods: bool = False,
    ) -> None:  # fmt: skip
        self._client = client
        self._index = index
        self._changed = changed
        self._metrics = metrics
        self._pods = pods
        self._waiting: set[str] = {"services", "endpoints", "namespaces"} | ({"pods"} if pods else set())

    @property
    def synced(self) -> bool:
        """Whether everything was listed once."""
        return not self._waiting

    @property
    def missing(self) -> str:
        """What was not listed yet, for whoever waits."""
        return ", ".join(sorted(self._waiting))

    async def run(self) -> None:
        """Follow all sorts until cancelled."""
        index = self._index

        def service(obj: Object) -> Iterable[Tag]:
            return index.put_service(objects.service(obj))

        def namespace(obj: Object) -> Iterable[Tag]:
            return index.put_namespace(_key(obj)[1])

        def pod(obj: Object) -> Iterable[Tag]:
            return index.put_pod(objects.pod(obj))

        sorts = [
            Sort("services", index.services, index.drop_service, _always(Source("v1", "Service", service))),
            Sort("endpoints", index.slices, index.drop_slice, self._endpoints),
            Sort(
                "namespaces",
                lambda: [("", name) for name in index.namespaces()],
                lambda _, name: index.drop_namespace(name),
                _always(Source("v1", "Namespace", namespace)),
            ),
        ]
        if self._pods:
            sorts.append(Sort("pods", index.pods, index.drop_pod, _always(Source("v1", "Pod", pod))))
        async with asyncio.TaskGroup() as group:
            for sort in sorts:
                group.create_task(self._follow(sort))

    async def _endpoints(self, patience: float) -> Source:
        """EndpointSlices in the newest version that the server has, or Endpoints where it has none."""

        def put(read: Callable[[Object], objects.Slice]) -> Callable[[Object], Iterable[Tag]]:
            return lambda obj: self._index.put_slice(read(obj))

        try:
            group = await self._client.json("GET", f"/apis/{_DISCOVERY}", timeout=patience)
            served = {version["groupVersion"] for version in group.get("versions") or []}
        except ApiError as error:
            if error.status != 404:
                raise
            served = set()
        for version in (f"{_DISCOVERY}/v1", f"{_DISCOVERY}/v1beta1"):
            if version in served and await self._may_list(version, patience):
                return Source(version, "EndpointSlice", put(objects.endpoint_slice))
        return Source("v1", "Endpoints", put(objects.endpoints))

    async def _may_list(self, version: str, patience: float) -> bool:
        """Kubeadm's role for CoreDNS had no EndpointSlices at first: whoever runs with that gets Endpoints."""
        path = object_path(version, "EndpointSlice")
        try:
            await self._client.json("GET", path, params={"limit": "1"}, timeout=patience)
        except ApiError as error:
            if error.status not in (403, 404):
                raise
            log.warning("%s; using Endpoints instead", error.message)
            return False
        return True

    async def _follow(self, sort: Sort) -> None:
        """List, then watch for as long as the server can go on from where we are; again and again."""
        version, source, failures = "", None, 0
        loop = asyncio.get_running_loop()
        while True:
            # At a cluster's start kube-proxy may not have made the API's Service address work yet, and packets to
            # it vanish: a short first patience and new connections get through the moment it has.
            patience = min(_LONGEST_PATIENCE, _FIRST_PATIENCE * 2 ** min(failures, 10))
            try:
                if source is None or not version:
                    source = await sort.find(patience)
                    version = await self._list(sort, source, patience)
                    self._waiting.discard(sort.name)
                    log.info("%s: %d known (%s)", sort.name, len(sort.known()), source.api_version)
                began, heard = loop.time(), False
                async for kind, obj in self._client.watch(
                    source.api_version, source.kind, version=version,
                    timeout=_WATCH * random.uniform(0.8, 1.2),  # noqa: S311 - spreads load, guards nothing
                ):  # fmt: skip
                    heard = True
                    if failures:
                        log.info("%s: the API server answers again", sort.name)
                        failures = 0
                    version = (obj.get("metadata") or {}).get("resourceVersion") or version
                    self._take(sort, source, kind, obj)
                # Whatever stands before an API server may end watches at once: that is no reason to spin.
                failures = 0 if heard or loop.time() - began > _SHORT else failures + 1
            except ApiError as error:
                # It no longer knows our version (410) or serves this kind (404): from the start, then.
                if error.status in (404, 410):
                    version = ""
                self._failed(sort, error.message, failures)
                failures += 1
            except Exception as error:  # an answer that is no Kubernetes: what we know is still worth serving
                version = ""
                self._failed(sort, repr(error), failures)
                failures += 1
            if failures:
                # Jitter: when a server comes back, not everybody shall ask it in the same moment.
                pause = min(_LONGEST_PAUSE, _FIRST_PAUSE * 2 ** min(failures - 1, 10))
                await asyncio.sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311 - spreads load, guards nothing

    def _failed(self, sort: Sort, why: str, before: int) -> None:
        self._metrics.watch_errors[sort.name] += 1
        if not before:
            log.warning("%s: %s", sort.name, why)

    def _take(self, sort: Sort, source: Source, kind: str, obj: Object) -> None:
        if kind in ("ADDED", "MODIFIED"):
            self._changed(source.read(obj))
        elif kind == "DELETED":
            self._changed(sort.drop(*_key(obj)))

    async def _list(self, sort: Sort, source: Source, patience: float) -> str:
        """Take everything into the index, page by page, and out of it what is no longer there."""
        gone = set(sort.known())
        path, params = object_path(source.api_version, source.kind), {"limit": _PAGE}
        while True:
            page = await self._client.json("GET", path, params=params, timeout=patience)
            for obj in page.get("items") or []:
                gone.discard(_key(obj))
                self._changed(source.read(obj))
            meta = page.get("metadata") or {}
            if not meta.get("continue"):
                break
            params["continue"] = meta["continue"]
        for key in gone:
            self._changed(sort.drop(*key))
        version: str = meta.get("resourceVersion", "")
        return version


def _key(obj: Object) -> Key:
    meta = obj.get("metadata") or {}
    return meta.get("namespace", ""), meta.get("name", "")


def _always(source: Source) -> Callable[[float], Awaitable[Source]]:
    async def find(_: float) -> Source:
        return source

    return find
