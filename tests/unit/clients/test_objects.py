"""What every client of the API does with objects."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from kubewright.clients import objects
from kubewright.clients.objects import ObjectClient, refused
from kubewright.errors import ApiError

LEADER_CHANGED = b'{"kind": "Status", "message": "etcdserver: leader changed", "code": 500}'
TIMED_OUT = b'{"message": "etcdserver: request timed out, possibly due to previous leader failure"}'
LOST = b'{"message": "etcdserver: request timed out", "code": 500}'
DROPPED = b'{"message": "rpc error: code = Unknown desc = raft proposal dropped", "code": 500}'


class Api(ObjectClient):
    """Gives these answers, one after another, and then an empty object."""

    def __init__(self, *refusals: bytes) -> None:
        self.refusals = list(refusals)
        self.asked: list[str] = []
        self.takes = 0.0

    async def close(self) -> None: ...

    async def request(self, method: str, path: str, **_: Any) -> bytes:
        self.asked.append(method)
        if self.refusals:
            takes, self.takes = self.takes, 0.0
            await asyncio.sleep(takes)
            raise refused(method, path, 500, self.refusals.pop(0))
        return b"{}"


async def test_a_request_that_met_an_election_is_made_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """However long it took to be refused."""
    monkeypatch.setattr(objects, "_ELECTION_PATIENCE", 0.5)
    api = Api(LEADER_CHANGED, TIMED_OUT, LOST)
    api.takes = 0.6
    assert await api.get("v1", "ConfigMap", "kubeadm-config", "kube-system") == {}
    api.refusals = [DROPPED]
    assert await api.delete("v1", "Node", "cp3")
    assert api.asked == ["GET"] * 4 + ["DELETE"] * 2


@pytest.mark.parametrize(
    ("method", "refusal", "patience"),
    [
        pytest.param("POST", LEADER_CHANGED, 5.0, id="it may have been created"),
        pytest.param(
            "GET", b'{"message": "etcdserver: mvcc: database space exceeded"}', 5.0, id="it stays so"
        ),
        pytest.param("GET", LEADER_CHANGED, -1.0, id="no end of elections"),
    ],
)
async def test_others_are_told(
    monkeypatch: pytest.MonkeyPatch, method: str, refusal: bytes, patience: float
) -> None:
    monkeypatch.setattr(objects, "_ELECTION_PATIENCE", patience)
    api = Api(refusal)
    with pytest.raises(ApiError, match="etcdserver"):
        await api.json(method, "/api/v1/nodes")
    assert api.asked == [method]
