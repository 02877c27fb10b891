"""What a cluster's objects add up to in `kubewright status`."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from kubewright.model.status import Seen, digest, failed_checks, pod_trouble, span

NOW = datetime(2026, 1, 1, 12, 0, tzinfo=UTC)


def at(minutes: float) -> str:
    return (NOW - timedelta(minutes=minutes)).strftime("%Y-%m-%dT%H:%M:%SZ")


def node(name: str, *, ready: str = "True", roles: tuple[str, ...] = (), **spec: Any) -> dict[str, Any]:
    return {
        "metadata": {"name": name, "labels": {f"node-role.kubernetes.io/{role}": "" for role in roles}},
        "spec": {"podCIDR": "10.244.0.0/24", "podCIDRs": ["10.244.0.0/24"]} | spec,
        "status": {
            "nodeInfo": {"kubeletVersion": "v1.20.2"},
            "addresses": [{"type": "Hostname", "address": name}, {"type": "InternalIP", "address": "10.0.0.1"}],
            "conditions": [
                {"type": "MemoryPressure", "status": "False", "lastTransitionTime": at(9)},
                {"type": "Ready", "status": ready, "lastTransitionTime": at(9),
                 "message": "Kubelet stopped posting node status." if ready != "True" else "ok"},
            ],
        },
    }  # fmt: skip


def pod(name: str, on: str = "", *, component: str = "", ready: bool = True, state: Any = None,
        namespace: str = "kube-system", phase: str = "Running", age: float = 9.0) -> dict[str, Any]:  # fmt: skip
    return {
        "metadata": {"name": name, "namespace": namespace, "creationTimestamp": at(age),
                     "labels": {"component": component} if component else {}},
        "spec": {"nodeName": on},
        "status": {
            "phase": phase, "conditions": [{"type": "Ready", "status": str(ready)}],
            "containerStatuses": [{"name": "main", "ready": ready, "restartCount": 5 if state else 0,
                                   "state": state or {"running": {}}}],
        },
    }  # fmt: skip


def control_plane(on: str, *, without: str = "") -> list[dict[str, Any]]:
    parts = ("kube-apiserver", "kube-controller-manager", "kube-scheduler", "etcd")
    return [pod(f"{part}-{on}", on, component=part) for part in parts if part != without]


def daemon_set(name: str, ready: int, wanted: int) -> dict[str, Any]:
    return {"metadata": {"name": name, "namespace": "kube-system"},
            "status": {"numberReady": ready, "desiredNumberScheduled": wanted}}  # fmt: skip


def seen(**more: Any) -> Seen:
    return Seen("https://a:6443", "v1.20.2", NOW, **more)


def test_a_healthy_cluster_has_no_problems() -> None:
    status = digest(
        seen(
            nodes=[node("w1"), node("cp1", roles=("control-plane", "master"))],
            pods=control_plane("cp1"),
            daemon_sets=[daemon_set("kube-proxy", 2, 2)],
            readyz="[+]ping ok\n[+]etcd ok\nreadyz check passed",
        )
    )
    assert status.healthy
    assert [item.name for item in status.nodes] == ["cp1", "w1"], "control planes first"
    assert status.nodes[0].address == "10.0.0.1"
    assert {part.name: (part.ready, part.wanted) for part in status.parts} == {
        "API server": (1, 1), "controller manager": (1, 1), "scheduler": (1, 1), "etcd": (1, 1),
        "kube-proxy": (2, 2),
    }  # fmt: skip


def test_the_document_is_in_camel_case() -> None:
    document = digest(
        seen(nodes=[node("w1", taints=[{"key": "a", "value": "b", "effect": "NoSchedule"}])])
    ).as_dict()
    assert document["nodes"][0] == {
        "name": "w1", "ready": True, "roles": [], "version": "v1.20.2", "address": "10.0.0.1",
        "podCIDR": "10.244.0.0/24", "taints": ["a=b:NoSchedule"], "schedulable": True, "problems": [],
    }  # fmt: skip


def test_p53_pods_of_a_node_that_is_shut_off_are_named() -> None:
    pods = [pod("a", "w1", namespace="web"), pod("b", "w1"), pod("c", "cp1")]
    status = digest(seen(nodes=[node("w1", ready="Unknown")], pods=pods))
    assert status.problems[0] == "node w1: not Ready for 9m: Kubelet stopped posting node status."
    assert status.problems[1].startswith("node w1: 2 pods there still say Running")


def test_p21_a_missing_or_dead_controller_manager_is_named() -> None:
    nodes = [node("cp1", roles=("master",))]
    status = digest(seen(nodes=nodes, pods=control_plane("cp1", without="kube-controller-manager")))
    assert status.problems == ("controller manager: 0 of 1 ready: cp1: no Pod",)
    dead = pod("m", "cp1", component="kube-controller-manager", ready=False,
               state={"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 5m0s"}})  # fmt: skip
    status = digest(seen(nodes=nodes, pods=[*control_plane("cp1", without="kube-controller-manager"), dead]))
    assert status.problems == (
        "controller manager: 0 of 1 ready: cp1: container main: CrashLoopBackOff: back-off 5m0s (5 restarts)",
    )


def test_a_control_plane_that_has_just_joined_has_not_reported_its_pods() -> None:
    new, old = node("cp1", roles=("master",)), node("cp2", roles=("master",))
    new["metadata"]["creationTimestamp"], old["metadata"]["creationTimestamp"] = at(1), at(5)
    assert digest(seen(nodes=[new])).healthy
    assert digest(seen(nodes=[new, old])).problems[0] == "API server: 0 of 1 ready: cp2: no Pod"


def test_parts_of_a_control_plane_that_has_just_started_are_no_problem_until_one_fails() -> None:
    new = node("cp1", roles=("master",))
    new["metadata"]["creationTimestamp"] = at(1)
    others = control_plane("cp1", without="kube-scheduler")
    scheduler = pod("s", "cp1", component="kube-scheduler", ready=False)
    status = digest(seen(nodes=[new], pods=[*others, scheduler]))
    assert status.healthy
    assert [(part.ready, part.wanted, part.detail) for part in status.parts if part.name == "scheduler"] == [
        (0, 1, "cp1: starting")
    ]
    scheduler["status"]["containerStatuses"][0]["restartCount"] = 1
    assert not digest(seen(nodes=[new], pods=[*others, scheduler])).healthy
    scheduler["status"]["containerStatuses"][0]["restartCount"] = 0
    new["metadata"]["creationTimestamp"] = at(5)
    assert not digest(seen(nodes=[new], pods=[*others, scheduler])).healthy


def test_external_etcd_is_not_missed() -> None:
    status = digest(seen(nodes=[node("cp1", roles=("master",))], pods=control_plane("cp1", without="etcd")))
    assert status.healthy
    assert "external" in [part.detail for part in status.parts]


def test_p12_a_node_without_its_daemon_pod_counts() -> None:
    assert digest(seen(daemon_sets=[daemon_set("kube-proxy", 2, 3)])).problems == (
        "kube-proxy: 2 of 3 ready",
    )


def test_a_pod_that_is_new_or_on_a_dead_node_is_no_problem_of_its_own() -> None:
    young = pod("young", "w1", ready=False, age=0.1)
    there = pod("there", "w2", ready=False, phase="Pending")
    old = pod("old", "w1", ready=False, state={"waiting": {"reason": "ImagePullBackOff"}})
    status = digest(seen(nodes=[node("w1"), node("w2", ready="False")], pods=[young, there, old]))
    assert [line for line in status.problems if line.startswith("pod ")] == [
        "pod kube-system/old on w1: container main: ImagePullBackOff (5 restarts)"
    ]


@pytest.mark.parametrize(
    ("status", "says"),
    [
        ({"phase": "Succeeded"}, ""),
        ({"phase": "Pending", "conditions": [{"type": "PodScheduled", "status": "False", "message": "0/3 nodes"}]},
         "not scheduled: 0/3 nodes"),
        ({"phase": "Failed", "reason": "Evicted", "message": "disk pressure"}, "Failed: disk pressure"),
        ({"phase": "Pending", "containerStatuses": [
            {"name": "c", "state": {"waiting": {"reason": "ContainerCreating"}}}]}, "Pending"),
        ({"phase": "Running", "containerStatuses": [{"name": "c", "ready": True, "state": {"running": {}}}]},
         "container c runs and is not ready"),
        ({}, "Unknown"),
    ],
)  # fmt: skip
def test_why_a_pod_is_not_ready(status: dict[str, Any], says: str) -> None:
    assert pod_trouble({"metadata": {"name": "p"}, "status": status}) == says


def test_failed_checks_of_readyz() -> None:
    text = "[+]ping ok\n[-]etcd failed: reason withheld\n[-]poststarthook/rbac/bootstrap-roles failed\n[-]\nfailed"
    assert failed_checks(text) == ("etcd", "poststarthook/rbac/bootstrap-roles")
    assert not digest(seen(readyz=text)).healthy


@pytest.mark.parametrize(("seconds", "text"), [(-3, "0s"), (59, "59s"), (119, "119s"), (120, "2m"), (7200, "2h"),
                                               (86400 * 12.5, "12d")])  # fmt: skip
def test_spans_are_short(seconds: float, text: str) -> None:
    assert span(timedelta(seconds=seconds)) == text
