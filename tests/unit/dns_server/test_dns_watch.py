"""The watcher against an API server that pages, forgets, refuses and goes away."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, cast

import pytest
from tests.unit.dns_server.dns_kit import endpoint, service, slice_of, until

from kubewright.clients.kube import KubeClient
from kubewright.dns import watch
from kubewright.dns.index import Index
from kubewright.dns.metrics import Metrics
from kubewright.dns.watch import Watcher
from kubewright.errors import ApiError

SERVICES = "/api/v1/services"
SLICES = "/apis/discovery.k8s.io/v1/endpointslices"
BETA = "/apis/discovery.k8s.io/v1beta1/endpointslices"


class Api:
    """The part of a client that the watcher uses, over lists in memory."""

    def __init__(self) -> None:
        self.served = ["discovery.k8s.io/v1", "discovery.k8s.io/v1beta1"]
        self.lists: dict[str, list[dict[str, Any]]] = {
            SERVICES: [service("default", f"s{number}", {"clusterIP": "10.96.0.1"}) for number in range(7)],
            "/api/v1/namespaces": [{"metadata": {"name": "default"}}],
            "/api/v1/pods": [{"metadata": {"namespace": "default", "name": "p"}, "status": {"podIP": "10.1.1.1"}}],
            "/api/v1/endpoints": [{"metadata": {"namespace": "default", "name": "s1"}}],
            SLICES: [slice_of("default", "s1", [endpoint("10.244.0.1")], [])],
            BETA: [slice_of("default", "s1", [endpoint("10.244.0.1")], [])],
        }  # fmt: skip
        self.refused: dict[str, ApiError] = {}
        self.asked: list[str] = []
        self.events: dict[str, asyncio.Queue[Any]] = {}
        self.watched_from: list[tuple[str, str]] = []

    async def json(
        self, method: str, path: str, *, params: dict[str, str] | None = None, timeout: float = 0
    ) -> Any:
        self.asked.append(path)
        await asyncio.sleep(0)
        if path in self.refused:
            raise self.refused[path]
        if path == "/apis/discovery.k8s.io":
            if not self.served:
                raise ApiError("no such group", status=404)
            return {"versions": [{"groupVersion": version} for version in self.served]}
        given = params or {}
        start, size = int(given.get("continue", "0")), min(3, int(given["limit"]))
        items = self.lists[path]
        more = {"continue": str(start + size)} if start + size < len(items) else {}
        return {"items": items[start : start + size], "metadata": {"resourceVersion": "100"} | more}

    async def watch(
        self, api_version: str, kind: str, *, version: str, timeout: float
    ) -> AsyncIterator[tuple[str, dict[str, Any]]]:
        self.watched_from.append((kind, version))
        queue = self.events.setdefault(kind, asyncio.Queue())
        while True:
            event = await queue.get()
            if isinstance(event, Exception):
                raise event
            if event is None:
                return
            yield event

    def send(self, kind: str, *events: Any) -> None:
        queue = self.events.setdefault(kind, asyncio.Queue())
        for event in events:
            queue.put_nowait(event)


@asynccontextmanager
async def watching(api: Api, *, pods: bool = False) -> AsyncIterator[tuple[Index, Watcher]]:
    index = Index()
    watcher = Watcher(cast(KubeClient, api), index, lambda tags: None, Metrics(), pods=pods)
    task = asyncio.create_task(watcher.run())
    try:
        yield index, watcher
    finally:
        assert not task.done()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "_FIRST_PAUSE", 0.002)
    monkeypatch.setattr(watch, "_LONGEST_PAUSE", 0.01)


def at(version: str, obj: dict[str, Any]) -> dict[str, Any]:
    return obj | {"metadata": obj["metadata"] | {"resourceVersion": version}}


async def test_lists_by_pages_then_follows() -> None:
    api = Api()
    async with watching(api) as (index, watcher):
        assert watcher.missing == "endpoints, namespaces, services"
        await until(lambda: watcher.synced)
        assert len(index.services()) == 7
        assert index.slices() == [("default", "s1-x")]
        assert index.has_namespace("default")
        assert not index.pods()
        api.send("Service", ("ADDED", at("101", service("default", "new", {"clusterIP": "10.96.0.9"}))))
        api.send("Service", ("BOOKMARK", {"metadata": {"resourceVersion": "150"}}))
        api.send("Service", ("DELETED", at("151", service("default", "s0", {}))))
        await until(lambda: index.service("default", "new") and not index.service("default", "s0"))
        # The watch ends by itself: the next goes on where it was, without another list.
        api.send("Service", None)
        await until(lambda: ("Service", "151") in api.watched_from)
        assert api.asked.count(SERVICES) == 3


async def test_a_version_too_old_is_listed_again_and_what_went_is_dropped() -> None:
    api = Api()
    async with watching(api) as (index, watcher):
        await until(lambda: watcher.synced)
        del api.lists[SERVICES][2:]
        api.lists[SLICES] = []
        for kind in ("Service", "EndpointSlice"):
            api.send(kind, ApiError("too old", status=410))
        await until(lambda: len(index.services()) == 2 and not index.slices())


async def test_what_is_known_is_kept_while_the_api_is_away() -> None:
    api = Api()
    async with watching(api) as (index, watcher):
        await until(lambda: watcher.synced)
        away = ApiError("connection refused")
        api.refused = dict.fromkeys(api.lists, away)
        api.send("Service", *[away] * 5)
        await until(lambda: watcher._metrics.watch_errors["services"] >= 5)
        assert len(index.services()) == 7
        assert watcher.synced
        api.send("Service", ("ADDED", at("101", service("default", "new", {"clusterIP": "10.96.0.9"}))))
        await until(lambda: index.service("default", "new"))


async def test_not_known_before_everything_was_listed() -> None:
    api = Api()
    api.refused[SERVICES] = ApiError("connection refused")
    async with watching(api) as (_, watcher):
        await until(lambda: watcher._metrics.watch_errors["services"] >= 3)
        assert watcher.missing == "services"
        del api.refused[SERVICES]
        await until(lambda: watcher.synced)


@pytest.mark.parametrize(
    ("served", "refused", "path"),
    [
        (["discovery.k8s.io/v1", "discovery.k8s.io/v1beta1"], {}, SLICES),
        (["discovery.k8s.io/v1beta1"], {}, BETA),
        ([], {}, "/api/v1/endpoints"),
        (["discovery.k8s.io/v1beta1"], {BETA: ApiError("forbidden", status=403)}, "/api/v1/endpoints"),
    ],
)
async def test_endpoints_come_from_what_the_server_has(
    served: list[str], refused: dict[str, ApiError], path: str
) -> None:
    api = Api()
    api.served, api.refused = served, refused
    async with watching(api) as (index, watcher):
        await until(lambda: watcher.synced)
        assert api.asked[-1] == path or path in api.asked
        assert len(index.slices()) == 1
        assert {SLICES, BETA, "/api/v1/endpoints"} & set(api.asked) <= {path, *refused}


async def test_a_kind_that_goes_with_an_upgrade_is_found_again() -> None:
    api = Api()
    api.served = ["discovery.k8s.io/v1beta1"]
    async with watching(api) as (index, watcher):
        await until(lambda: watcher.synced)
        api.served = ["discovery.k8s.io/v1"]
        api.lists[SLICES] = [slice_of("default", "s2", [endpoint("10.244.0.2")], [])]
        api.send("EndpointSlice", ApiError("not found", status=404))
        await until(lambda: index.slices() == [("default", "s2-x")])


async def test_answers_that_are_no_kubernetes_do_not_end_it() -> None:
    api = Api()
    async with watching(api) as (index, watcher):
        await until(lambda: watcher.synced)
        api.send("Service", ValueError("<html>"), ("ADDED", {"metadata": 7}))
        await until(lambda: watcher._metrics.watch_errors["services"] >= 2)
        assert len(index.services()) == 7


async def test_pods_are_followed_only_when_they_are_to_be_verified() -> None:
    async with watching(Api(), pods=True) as (index, watcher):
        await until(lambda: watcher.synced)
        assert index.has_pod_at("default", "10.1.1.1")


async def test_watches_that_end_at_once_are_not_begun_again_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "_FIRST_PAUSE", 0.05)
    monkeypatch.setattr(watch, "_LONGEST_PAUSE", 0.2)
    api = Api()
    async with watching(api) as (_, watcher):
        await until(lambda: watcher.synced)
        api.send("Service", *[None] * 1000)
        await asyncio.sleep(0.3)
        assert len([kind for kind, _ in api.watched_from if kind == "Service"]) < 10
