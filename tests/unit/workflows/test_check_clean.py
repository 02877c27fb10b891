"""A check leaves nothing behind, and says so where it could not help it."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from kubewright.clients.kube import KubeClient
from kubewright.clients.server import Server
from kubewright.errors import ApiError
from kubewright.events import Event, Events, Kind
from kubewright.workflows import check_clean

NOW = datetime(2026, 1, 1, 12, 0, tzinfo=UTC)


class FakeKube(KubeClient):
    """Holds namespaces; a deleted one is gone after `lives` more looks."""

    def __init__(self, namespaces: dict[str, dict[str, Any]], *, lives: int = 2) -> None:
        super().__init__(Server("https://127.0.0.1:1"))
        self.namespaces, self.lives = namespaces, lives
        self.deleted: list[str] = []
        self.requests: list[tuple[str, str, Any]] = []

    async def list(
        self, api_version: str, kind: str, namespace: str = "", *, labels: str = "", fields: str = ""
    ) -> list[dict[str, Any]]:
        assert labels == "kubewright.dev/check=true", "the namespaces of others are not even looked at"
        return [{"metadata": {"name": name} | meta} for name, meta in self.namespaces.items()]

    async def delete(
        self, api_version: str, kind: str, name: str, namespace: str = "", *, grace: int | None = None
    ) -> bool:
        self.deleted.append(name)
        return name in self.namespaces

    async def get(self, api_version: str, kind: str, name: str, namespace: str = "") -> dict[str, Any] | None:
        self.lives -= 1
        message = "pods has 1 resource instances"
        condition = {"type": "NamespaceContentRemaining", "status": "True", "message": message}
        return None if self.lives < 0 else {"status": {"conditions": [condition]}}

    async def request(self, method: str, path: str, **options: Any) -> bytes:
        self.requests.append((method, path, options.get("body")))
        return b"{}"


def listening() -> tuple[Events, list[Event]]:
    seen: list[Event] = []
    return Events(seen.append), seen


async def test_only_old_namespaces_of_ours_are_removed() -> None:
    kube = FakeKube({
        "old": {"creationTimestamp": "2026-01-01T11:49:00Z"},
        "young": {"creationTimestamp": "2026-01-01T11:51:00Z"},
        "going": {"creationTimestamp": "2026-01-01T11:00:00Z", "deletionTimestamp": "2026-01-01T11:59:00Z"},
    })  # fmt: skip
    events, seen = listening()
    await check_clean.remove_leftovers(kube, events, now=NOW)
    assert kube.deleted == ["old"]
    assert [event.message for event in seen] == ["removing old, which an earlier check left behind"]


async def test_pods_are_deleted_at_once_and_the_namespace_is_waited_for() -> None:
    kube = FakeKube({"n": {}})
    events, seen = listening()
    await check_clean.remove_namespace(kube, events, "n")
    assert kube.deleted == ["n"]
    assert kube.requests == [("DELETE", "/api/v1/namespaces/n/pods", {"gracePeriodSeconds": 0})]
    assert kube.lives < 0
    assert seen == []


async def test_a_namespace_that_does_not_go_is_a_warning_with_its_reason(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(check_clean, "_PATIENCE", 0.2)
    events, seen = listening()
    await check_clean.remove_namespace(FakeKube({"n": {}}, lives=1000), events, "n")
    (warning,) = seen
    assert warning.kind is Kind.WARNING
    assert warning.message.endswith("pods has 1 resource instances")


async def test_an_api_that_is_gone_does_not_hide_the_first_error() -> None:
    class Gone(FakeKube):
        async def delete(self, *_: Any, **__: Any) -> bool:
            raise ApiError("DELETE: connection refused")

    events, seen = listening()
    await check_clean.remove_namespace(Gone({}), events, "n")
    assert seen[0].message == "DELETE: connection refused; what is left goes with: kubectl delete namespace n"
