"""Draining a Node against an API of our own: budgets are heeded, and nothing is lost unasked."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest

from kubewright.clients.objects import ObjectClient, refused
from kubewright.clients.server import Server
from kubewright.errors import ApiError, ExitCode, KubewrightError, WaitTimeoutError
from kubewright.events import Events
from kubewright.model.objects import Object
from kubewright.phases import drain
from kubewright.phases.drain import Cordon, Drain


class Api(ObjectClient):
    """Nodes, and Pods that end one list after they were evicted. `budget` evictions are refused first."""

    def __init__(self, *pods: Object) -> None:
        self.server = Server("")
        self.node: Object = {"metadata": {"name": "w1"}, "spec": {}}
        self.pods = {pod["metadata"]["name"]: pod for pod in pods}
        self.budget: dict[str, int] = {}
        self.asked: list[Object] = []
        self.version = {"group": "policy", "version": "v1beta1"}

    async def close(self) -> None:
        return

    async def request(
        self, method: str, path: str, *, body: Any = None, params: Mapping[str, str] | None = None,
        content_type: str = "application/json", timeout: float | None = None,
    ) -> bytes:  # fmt: skip
        return json.dumps(self.answer(method, path, body, params or {})).encode()

    def answer(self, method: str, path: str, body: Any, params: Mapping[str, str]) -> Object:
        if path == "/api/v1":
            return {"resources": [{"name": "pods"}, {"name": "pods/eviction", **self.version}]}
        if path.startswith("/api/v1/nodes"):
            if method == "PATCH":
                assert self.node is not None
                self.node["spec"].update(body["spec"])
            if path.endswith("/nodes"):
                return {"items": [self.node]}
            if not path.endswith("/w1"):
                raise ApiError("no", status=404)
            return self.node
        if path.endswith("/eviction"):
            return self.evict(body)
        assert params == {"fieldSelector": "spec.nodeName=w1"}
        listed = list(self.pods.values())
        self.pods = {
            name: pod for name, pod in self.pods.items() if "deletionTimestamp" not in pod["metadata"]
        }
        return {"items": listed}

    def evict(self, body: Object) -> Object:
        assert self.node["spec"]["unschedulable"]
        self.asked.append(body)
        name = body["metadata"]["name"]
        assert body["deleteOptions"]["preconditions"]["uid"] == self.pods[name]["metadata"]["uid"]
        if self.budget.get(name, 0):
            self.budget[name] -= 1
            cause = {"reason": "DisruptionBudget", "message": "The disruption budget web needs 2"}
            status = {"message": "Cannot evict pod.", "details": {"causes": [cause]}}
            raise refused("POST", f"/x/{name}/eviction", 429, json.dumps(status).encode())
        self.pods[name]["metadata"]["deletionTimestamp"] = "now"
        return {"status": "Success"}


def pod(name: str, owner: str = "ReplicaSet", *, phase: str = "Running", **meta: Any) -> Object:
    owners = [{"kind": owner, "controller": True}] if owner else []
    return {
        "metadata": {"name": name, "namespace": "d", "uid": f"u-{name}", "ownerReferences": owners, **meta},
        "status": {"phase": phase},
    }


MIRROR = pod("etcd-w1", "Node", annotations={"kubernetes.io/config.mirror": "x"})


async def test_all_pods_leave_but_the_nodes_own() -> None:
    api = Api(pod("web"), pod("proxy", "DaemonSet"), MIRROR, pod("job", "Job"))
    changes = await Drain(api, "w1").run(Events())
    assert [change.target for change in changes] == ["Node w1 unschedulable", "Pod d/web", "Pod d/job"]
    assert [body["metadata"]["name"] for body in api.asked] == ["web", "job"]
    assert {body["apiVersion"] for body in api.asked} == {"policy/v1beta1"}
    assert sorted(api.pods) == ["etcd-w1", "proxy"]
    assert await Drain(api, "w1").run(Events()) == []


async def test_evictions_are_asked_for_in_the_version_that_the_server_has() -> None:
    api = Api(pod("web"))
    api.version = {"group": "policy", "version": "v1"}
    await Drain(api, "w1", grace=3).run(Events())
    assert api.asked[0]["apiVersion"] == "policy/v1"
    assert api.asked[0]["deleteOptions"]["gracePeriodSeconds"] == 3


async def test_a_budget_is_asked_again_until_it_opens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drain, "_AGAIN", 0.01)
    api = Api(pod("web"))
    api.budget = {"web": 1}
    await Drain(api, "w1").run(Events())
    assert len(api.asked) == 2
    assert not api.pods


async def test_a_budget_that_stays_shut_is_named_and_nothing_is_forced() -> None:
    api = Api(pod("web"), pod("db"))
    api.budget = {"web": 1000}
    with pytest.raises(WaitTimeoutError) as caught:
        await Drain(api, "w1", deadline=0.2).run(Events())
    said = "Pod d/web: Cannot evict pod. The disruption budget web needs 2."
    assert said in caught.value.evidence
    assert sorted(api.pods) == ["web"]


async def test_a_pod_without_a_controller_stops_all_before_anything_is_done() -> None:
    api = Api(pod("web"), pod("alone", ""), pod("done", "", phase="Succeeded"))
    with pytest.raises(KubewrightError, match=r"anew elsewhere: d/alone$") as caught:
        await Drain(api, "w1").run(Events())
    assert caught.value.exit_code is ExitCode.HOST_NOT_FIT
    assert not api.node["spec"]
    await Drain(api, "w1", force=True).run(Events())
    assert not api.pods


async def test_a_node_is_closed_and_opened() -> None:
    api = Api()
    assert len(await Cordon(api, "w1").run(Events())) == 1
    assert await Cordon(api, "w1").run(Events()) == []
    assert len(await Cordon(api, "w1", closed=False).run(Events())) == 1
    assert api.node["spec"]["unschedulable"] is None


async def test_a_node_that_is_not_there_is_named_with_those_that_are() -> None:
    with pytest.raises(KubewrightError, match="no Node 'w2'") as caught:
        await Cordon(Api(), "w2").run(Events())
    assert caught.value.hint == "its Nodes: w1"
