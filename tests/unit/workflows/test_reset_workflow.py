"""What a reset does not stumble over: the broken node is the one that is reset."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest
from tests.unit.phases.memory_host import MemoryHost
from tests.unit.workflows.test_join import node

from kubewright.errors import ApiError, KubewrightError
from kubewright.events import Event, Events
from kubewright.hosts import FileWrite
from kubewright.model.config.kubeadm_nodes import ResetConfiguration
from kubewright.model.objects import Object
from kubewright.phases.installed import Installed
from kubewright.phases.node import Node
from kubewright.workflows import reset as workflow
from kubewright.workflows.reset import Reset


@pytest.mark.parametrize("content", [b"", b"{half", b"kind: Config\n"])
async def test_a_damaged_kubeconfig_does_not_stop_it(content: bytes) -> None:
    here = node(control_plane=True)
    assert isinstance(here.host, MemoryHost)
    await here.host.write_files(
        [
            FileWrite("/etc/kubernetes/manifests/kube-apiserver.yaml", b"{}"),
            FileWrite("/etc/kubernetes/admin.conf", content),
        ]
    )
    seen: list[Event] = []
    run = Reset(here, ResetConfiguration(), Events(seen.append), kubeconfig_path="", dry=False)
    await run.update_cluster_status()
    assert any("keeps this node's endpoint" in str(one) for one in seen)


# -- the Node -----------------------------------------------------------------------------------------------

OTHER_ADDRESS = {"type": "InternalIP", "address": "192.0.2.9"}
LIVE: Object = {
    "metadata": {"name": "n1"},
    "status": {
        "nodeInfo": {"machineID": "a1"},
        "addresses": [{"type": "InternalIP", "address": "192.0.2.1"}],
    },
}


class Api:
    """An API server with a Node and its Pod; with `fails`, it answers so."""

    def __init__(self, live: Object | None = LIVE, fails: Exception | None = None) -> None:
        self.live = live
        self.fails = fails
        self.hangs = False
        self.asked = 0
        self.deleted: list[str] = []

    async def get(self, _version: str, kind: str, _name: str, _namespace: str = "") -> Object | None:
        self.asked += 1
        if self.hangs:
            await asyncio.Event().wait()
        if self.fails:
            raise self.fails
        return self.live if kind == "Node" else None

    async def list(self, *_: str, fields: str) -> list[Object]:
        assert fields == "spec.nodeName=n1"
        return [{"metadata": {"name": "web", "namespace": "default"}}]

    async def delete(self, _version: str, kind: str, name: str, *_: str, **__: Any) -> None:
        self.deleted.append(f"{kind} {name}")


class Run(Reset):
    """A reset of Node n1 whose API is `api`; where that is None, the host has no kubeconfig."""

    def __init__(
        self, api: Api | None, *, dry: bool = False, here: Node | None = None, **options: Any
    ) -> None:
        self.seen: list[Event] = []
        here = here or replace_facts(node(control_plane=True), machine_id="a1")
        events = Events(self.seen.append)
        super().__init__(here, ResetConfiguration(), events, kubeconfig_path="", dry=dry, **options)
        self._installed = Installed("n1", "", True, {})
        self.api = api

    @asynccontextmanager
    async def _api(self, _host: Any) -> AsyncIterator[Any]:
        yield self.api


def replace_facts(here: Node, **facts: Any) -> Node:
    return replace(here, facts=replace(here.facts, **facts))


async def test_the_node_goes_with_its_pods() -> None:
    api = Api()
    run = Run(api)
    await run.remove_node()
    assert api.deleted == ["Node n1", "Pod web"]
    assert [change.as_dict() for change in run.changes] == [{"action": "delete", "target": "Node n1"}]
    assert run.kept == []


async def test_a_plan_says_so_and_changes_nothing() -> None:
    api = Api()
    run = Run(api, dry=True)
    await run.remove_node()
    assert (api.deleted, len(run.changes)) == ([], 1)


async def test_a_node_that_is_gone_is_nothing_to_do() -> None:
    run = Run(Api(None))
    await run.remove_node()
    assert (list(run.changes), run.kept) == ([], [])


@pytest.mark.parametrize("facts", [{"machine_id": "b2"}, {"machine_id": ""}])
async def test_another_host_that_has_taken_the_name_keeps_its_node(facts: dict[str, str]) -> None:
    """A dead host comes back after one of the same name has taken its place."""
    api = Api(LIVE | {"status": {"nodeInfo": {"machineID": "a1"}, "addresses": [OTHER_ADDRESS]}})
    run = Run(api, here=replace_facts(node(control_plane=True), **facts))
    await run.remove_node()
    assert api.deleted == []
    [kept] = run.kept
    assert "another host's by now" in kept.why
    assert kept.mend == ""


@pytest.mark.parametrize(
    ("api", "options", "said"),
    [
        (None, {}, "no /etc/kubernetes/admin.conf"),
        (Api(), {"keep_node": True}, "--keep-node"),
        (Api(fails=ApiError("connection refused")), {}, "connection refused"),
    ],
)
async def test_a_node_that_stays_is_named_with_the_command(api: Api | None, options: Any, said: str) -> None:
    run = Run(api, **options)
    await run.remove_node()
    [kept] = run.kept
    assert (kept.what, kept.mend) == ("Node n1", "kubectl delete node n1")
    assert said in kept.why


async def test_an_api_that_does_not_answer_is_waited_for_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workflow, "_API_DEADLINE", 0.01)
    api = Api()
    api.hangs = True
    run = Run(api)
    await run.update_cluster_status()
    await run.remove_node()
    assert api.asked == 1
    assert [kept.what for kept in run.kept] == ["Node n1"]


@pytest.mark.parametrize("step", ["update_cluster_status", "remove_node"])
@pytest.mark.parametrize("asks", [True, False])
async def test_nothing_of_the_cluster_is_changed_before_etcd_agrees(
    monkeypatch: pytest.MonkeyPatch, step: str, asks: bool
) -> None:
    async def refuses(_: object) -> None:
        raise KubewrightError("its member cannot leave etcd")

    monkeypatch.setattr("kubewright.workflows.reset.EtcdMemberGone.look", refuses)
    api = Api()
    run = Run(api, asks_etcd=asks)
    if asks:
        with pytest.raises(KubewrightError, match="cannot leave etcd"):
            await getattr(run, step)()
    else:
        await getattr(run, step)()
    assert bool(api.asked) is not asks


async def test_a_worker_whose_name_is_unknown_has_no_node_to_remove() -> None:
    run = Run(Api())
    run._installed = Installed("", "", False, {})
    await run.remove_node()
    assert (list(run.changes), run.kept) == ([], [])
