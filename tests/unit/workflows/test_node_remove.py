"""Whom `node remove` knows: the file's hosts, Nodes, and what is left of those whose Node somebody has deleted."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest
from tests.unit.workflows.test_remove import Kube, live, machine

from kubewright.errors import ExitCode, KubewrightError
from kubewright.events import Events
from kubewright.model.config.cluster import ClusterSpec, Role
from kubewright.model.objects import Object, to_yaml
from kubewright.phases.node import Node
from kubewright.workflows import node_remove
from kubewright.workflows.node_remove import remove_node

SPEC = ClusterSpec.model_validate(
    {"hosts": [{"name": "cp1", "address": "192.0.2.11", "roles": ["control-plane"]}]}
)
CONFIG = {
    "apiVersion": "kubeadm.k8s.io/v1beta2",
    "kind": "ClusterConfiguration",
    "kubernetesVersion": "v1.20.2",
}
OUTSIDE = {"etcd": {"external": {"endpoints": ["https://192.0.2.7:2379"]}}}


class Cluster(Kube):
    """One Node, cp1, and what `kubeadm-config` says beside."""

    def __init__(self, config: Object, endpoints: Sequence[str]) -> None:
        super().__init__(live("cp1"))
        status = {"apiEndpoints": {name: {"advertiseAddress": "192.0.2.3"} for name in endpoints}}
        self.config = {"ClusterConfiguration": config, "ClusterStatus": status}

    async def get(self, _version: str, kind: str, name: str, _namespace: str = "") -> Object | None:
        if kind == "ConfigMap":
            return {"data": {key: to_yaml(value).decode() for key, value in self.config.items()}}
        return await super().get(_version, kind, name, _namespace)

    async def list(self, *_: object, **__: object) -> list[Object]:
        return list(self.nodes.values())


@pytest.fixture
def left(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, bool]]:
    """Who has left, and whether as one that is gone."""
    found: list[tuple[str, bool]] = []

    class Recorded:
        kept = ()

        def __init__(self, _stay: object, name: str, host: object, _options: object, *, dead: bool) -> None:
            assert host is None
            self.row = (name, dead)

        async def run(self) -> None:
            found.append(self.row)

    async def opened(*_: object) -> dict[str, Node]:
        return {"cp1": machine("cp1", Role.CONTROL_PLANE)}

    async def members(*_: object) -> set[str]:
        return {"cp1", "cp3"}

    monkeypatch.setattr(node_remove, "Removal", Recorded)
    monkeypatch.setattr(node_remove, "_open", opened)
    monkeypatch.setattr(node_remove, "member_names", members)
    return found


def through(monkeypatch: pytest.MonkeyPatch, kube: Kube) -> None:
    @asynccontextmanager
    async def any_plane(planes: Sequence[Node]) -> AsyncIterator[Any]:
        yield planes[0], kube, []

    monkeypatch.setattr(node_remove, "any_plane", any_plane)


@pytest.mark.parametrize("name", ["cp3", "cp4"])
async def test_what_is_left_of_one_without_a_node_is_taken_out(
    monkeypatch: pytest.MonkeyPatch, left: list[tuple[str, bool]], name: str
) -> None:
    """cp3 is a member of etcd, cp4 has an API endpoint."""
    through(monkeypatch, Cluster(CONFIG, ["cp1", "cp4"]))
    await remove_node(SPEC, name, Events(), gone=True)
    assert left == [(name, True)]


@pytest.mark.parametrize(("name", "config"), [("cp5", CONFIG), ("cp3", CONFIG | OUTSIDE)])
async def test_whom_nothing_is_left_of_is_unknown(
    monkeypatch: pytest.MonkeyPatch, left: list[tuple[str, bool]], name: str, config: Object
) -> None:
    """Members of an etcd that is not the control planes' own are nobody's Nodes."""
    through(monkeypatch, Cluster(config, ["cp1"]))
    with pytest.raises(KubewrightError, match=f"no Node '{name}'") as caught:
        await remove_node(SPEC, name, Events())
    assert caught.value.exit_code is ExitCode.USAGE
    assert left == []
