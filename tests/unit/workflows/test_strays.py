"""Nodes that a cluster.yaml names no more: who leaves when, and whom nobody touches."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from tests.unit.workflows.test_remove import Kube, World, live, machine

from kubewright.errors import KubewrightError
from kubewright.events import Event, Events, Kind
from kubewright.model.config.cluster import ClusterSpec, Role
from kubewright.model.loadbalancer import Backend
from kubewright.model.node_origin import HOST_ANNOTATION
from kubewright.model.objects import Object
from kubewright.phases.node import Node
from kubewright.workflows import strays
from kubewright.workflows.remove import Staying
from kubewright.workflows.strays import Strays, open_stray

SPEC = ClusterSpec.model_validate(
    {"hosts": [{"name": "cp1", "address": "192.0.2.1", "roles": ["control-plane"]}]}
)


def stray(name: str, *, ready: str = "True", plane: bool = False, where: str = "192.0.2.2") -> Object:
    node = live(name, ready=ready, plane=plane)
    node["metadata"]["annotations"] = {HOST_ANNOTATION: where} if where else {}
    return node


class Listed(Kube):
    async def list(self, _version: str, kind: str, *_: Any, **__: Any) -> list[Object]:
        return list(self.nodes.values()) if kind == "Node" else []


class Scene:
    """The Nodes of a cluster; hosts of those in `unreachable` cannot be reached, and where those in `foreign` were
    are another cluster's. `left` is who has left, how."""

    def __init__(
        self,
        monkeypatch: pytest.MonkeyPatch,
        *nodes: Object,
        unreachable: tuple[str, ...] = (),
        foreign: tuple[str, ...] = (),
    ) -> None:
        self.left: list[tuple[str, bool, bool]] = []
        self.said: list[Event] = []
        self.refuses: tuple[str, ...] = ()
        base = World(monkeypatch, Listed(live("cp1"), *nodes)).stay
        self.stay = Staying(
            base.kube, base.planes, base.cluster, Events(self.said.append), base.do, base.without
        )
        scene = self

        class Recorded:
            def __init__(self, _stay: object, name: str, host: Node | None, *, dead: bool = False) -> None:
                self.row = (name, host is not None, dead)

            async def run(self) -> None:
                await asyncio.sleep(0)
                if self.row[0] in scene.refuses:
                    raise KubewrightError(f"{self.row[0]} stays")
                await asyncio.sleep(0)
                scene.left.append(self.row)

        @asynccontextmanager
        async def opened(name: str, *_: Any) -> AsyncIterator[tuple[Node | None, str]]:
            ca = b"theirs" if name in foreign else b"ours"
            yield (None, "no answer") if name in unreachable else (machine(name, Role.WORKER, ca=ca), "")

        monkeypatch.setattr(strays, "Removal", Recorded)
        monkeypatch.setattr(strays, "_opened", opened)

    def strays(self, *gone: str) -> Strays:
        return Strays(self.stay, SPEC, lambda name: name in gone)


async def test_the_dead_leave_first(monkeypatch: pytest.MonkeyPatch) -> None:
    nodes = [stray("dead", ready="Unknown"), stray("gone"), stray("cut-off"), stray("lives"), live("theirs")]
    scene = Scene(monkeypatch, *nodes, unreachable=("dead", "gone", "cut-off"))
    await scene.strays("gone").remove_dead()
    assert scene.left == [("dead", False, True), ("gone", False, True)]


async def test_all_leave_in_the_end_workers_first_and_others_nodes_stay(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    nodes = [stray("cp2", plane=True), stray("cut-off"), stray("w9"), live("theirs", plane=False)]
    scene = Scene(monkeypatch, *nodes, unreachable=("cut-off",))
    found = scene.strays()
    await found.remove_all()
    assert scene.left == [("cut-off", False, False), ("w9", True, False), ("cp2", True, False)]
    notes = [event.message for event in scene.said if event.kind is Kind.NOTE]
    assert len(notes) == 1
    assert "Node theirs is not in the file and was not made by one" in notes[0]
    assert any("cut-off" in event.message and "no answer" in event.message for event in scene.said)


async def test_one_that_cannot_leave_keeps_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    nodes = [stray(name, plane=name.startswith("cp")) for name in ("cp2", "cp3", "w8", "w9")]
    scene = Scene(monkeypatch, *nodes)
    scene.refuses = ("w8", "cp2")
    with pytest.raises(ExceptionGroup) as caught:
        await scene.strays().remove_all()
    assert [str(one) for one in caught.value.exceptions] == ["w8 stays", "cp2 stays"]
    assert [row[0] for row in scene.left] == ["w9", "cp3"]


async def test_a_dead_one_that_cannot_leave_keeps_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    nodes = [stray(name, ready="Unknown") for name in ("w7", "w8", "w9")]
    scene = Scene(monkeypatch, *nodes, unreachable=("w7", "w8", "w9"))
    scene.refuses = ("w8",)
    with pytest.raises(KubewrightError, match=r"^w8 stays$"):
        await scene.strays().remove_dead()
    assert [row[0] for row in scene.left] == ["w7", "w9"]


async def test_where_another_clusters_host_is_now_nobody_is_reached(monkeypatch: pytest.MonkeyPatch) -> None:
    nodes = [stray("dead", ready="Unknown"), stray("lives")]
    scene = Scene(monkeypatch, *nodes, foreign=("dead", "lives"))
    await scene.strays().remove_dead()
    assert scene.left == [("dead", False, True)]
    scene.left.clear()
    await scene.strays().remove_all()
    assert sorted(scene.left) == [("dead", False, False), ("lives", False, False)]
    assert any("192.0.2.2 is in another cluster by now" in event.message for event in scene.said)


async def test_control_planes_serve_until_they_leave(monkeypatch: pytest.MonkeyPatch) -> None:
    scene = Scene(monkeypatch, stray("cp2", plane=True), stray("w9"))
    assert await scene.strays().serving() == {"cp2": Backend("cp2", "192.0.2.2", 6443)}


async def test_an_address_that_another_host_has_by_now_is_not_opened() -> None:
    async with open_stray(stray("old", where="root@192.0.2.1:22"), SPEC) as (host, why):
        assert host is None
        assert why == "192.0.2.1 is another host's address by now"
    async with open_stray(live("theirs"), SPEC) as (host, why):
        assert host is None
        assert "does not say where" in why
