"""What `check` tries, when it believes a result, and what it makes of failures."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from kubewright.cli.check_text import report_lines
from kubewright.clients.kube import ExecResult, KubeClient
from kubewright.clients.server import Server
from kubewright.errors import ApiError
from kubewright.events import Events
from kubewright.workflows import check_objects
from kubewright.workflows.check_diagnosis import diagnose
from kubewright.workflows.check_plan import (
    Check,
    Member,
    Place,
    Report,
    Result,
    Setting,
    Source,
    Topic,
    plan,
    url,
)
from kubewright.workflows.check_pods import started_pods
from kubewright.workflows.check_probe import Prober

SETTING = Setting("kubewright-check-abc", "cluster.local", "10.96.7.8", 30123, "10.96.0.1")


def members(count: int) -> list[Member]:
    return [Member(f"w{n}", f"10.0.0.{n}", f"10.244.{n}.5") for n in range(1, count + 1)]


def report(fails: Callable[[Check], bool], count: int = 3, **more: Any) -> Report:
    results = [
        Result(check, not fails(check), "no answer" if fails(check) else "")
        for check in plan(SETTING, members(count), computer=True)
    ]
    return Report(tuple(member.node for member in members(count)), tuple(results), **more)


def is_pods(check: Check, *, place: Place | None = None) -> bool:
    return check.topic is Topic.PODS and (place is None or check.source.place is place)


# -- the plan -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 3, 10])
def test_every_pair_every_service_and_every_node_port_is_tried(count: int) -> None:
    checks = plan(SETTING, members(count), computer=True)
    nodes = [member.node for member in members(count)]
    both = [Source(place, node) for place in (Place.POD, Place.NODE) for node in nodes]

    def pairs(topic: Topic) -> set[tuple[Source, str]]:
        return {(check.source, check.target) for check in checks if check.topic is topic}

    assert pairs(Topic.PODS) == {(source, node) for source in both for node in nodes}
    assert {source for source, _ in pairs(Topic.SERVICE)} == set(both)
    from_nodes = [source for source in both if source.place is Place.NODE] + [Source(Place.COMPUTER)]
    assert pairs(Topic.NODE_PORT) == {(source, node) for source in from_nodes for node in nodes}
    for topic in (Topic.DNS, Topic.API):
        assert {source for source, _ in pairs(topic)} == {Source(Place.POD, node) for node in nodes}
    assert len({check.id for check in checks}) == len(checks)


def test_names_are_asked_for_in_every_way() -> None:
    asked = [c.probe for c in plan(SETTING, members(1), computer=False) if c.topic is Topic.DNS]
    assert [(probe["name"], probe["type"], probe["expect"]) for probe in asked] == [
        ("kubernetes.default.svc.cluster.local.", "A", ["10.96.0.1"]),
        ("probe.kubewright-check-abc.svc.cluster.local.", "A", ["10.96.7.8"]),
        ("probe", "A", ["10.96.7.8"]),
        ("8.7.96.10.in-addr.arpa.", "PTR", ["probe.kubewright-check-abc.svc.cluster.local."]),
    ]


def test_ipv6_addresses_stand_in_brackets() -> None:
    assert url("fd00::1", 80) == "http://[fd00::1]:80/"


def test_pods_run_everywhere_and_nothing_listens_on_a_node() -> None:
    pod, node = (check_objects.daemon_set("n", place, "image:1") for place in (Place.POD, Place.NODE))
    specs = [item["spec"]["template"]["spec"] for item in (pod, node)]
    assert all(spec["tolerations"] == [{"operator": "Exists"}] for spec in specs)
    assert [spec["hostNetwork"] for spec in specs] == [False, True]
    assert "serve" in specs[0]["containers"][0]["command"]
    assert "serve" not in specs[1]["containers"][0]["command"]
    assert all(
        service["spec"]["selector"] == pod["spec"]["template"]["metadata"]["labels"]
        for service in check_objects.services("n")
    )


# -- believing a result -------------------------------------------------------------------------------------------


class FakeKube(KubeClient):
    """Answers exec like the probe; `verdict` gets a check's id and how often it was asked before."""

    def __init__(self, verdict: Callable[[str, int], bool]) -> None:
        super().__init__(Server("https://127.0.0.1:1"))
        self._verdict = verdict
        self.asked: dict[str, list[int]] = {}

    async def exec(
        self, namespace: str, pod: str, argv: Sequence[str], *, container: str = "", stdin: bytes | None = None,
        timeout: float = 60.0,
    ) -> ExecResult:  # fmt: skip
        if pod == "pod-w2-broken":
            raise ApiError("exec in x: no route to host")
        assert stdin is not None
        assert stdin.count(b"\n") == 1 and stdin.endswith(b"\n")
        rows = []
        for check in json.loads(stdin):
            before = self.asked.setdefault(check["id"], [])
            rows.append({"id": check["id"], "ok": self._verdict(check["id"], len(before)), "seconds": 0.01,
                         "tries": 1, "detail": "x"})  # fmt: skip
            before.append(check.get("tries", 0))
        return ExecResult(0, b"a warning\n" + json.dumps(rows).encode() + b"\n", b"")


async def prove(
    verdict: Callable[[str, int], bool], *, broken: bool = False
) -> tuple[FakeKube, list[Result]]:
    kube = FakeKube(verdict)
    places = [Source(place, m.node) for m in members(2) for place in (Place.POD, Place.NODE)]
    names = {source: f"{source.place}-{source.node}" for source in places}
    if broken:
        names[Source(Place.POD, "w2")] = "pod-w2-broken"
    async with Events().phase("check", "check") as phase:
        results = await Prober(kube, "n", names, phase).run(
            plan(SETTING, members(2), computer=False), settle=0.6
        )
    return kube, results


@pytest.fixture
def short_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kubewright.workflows.check_probe._PAUSE", 0.01)


async def test_what_passes_at_once_is_asked_once() -> None:
    kube, results = await prove(lambda _id, _before: True)
    assert all(result.ok for result in results)
    assert set(map(len, kube.asked.values())) == {1}
    assert [result.check for result in results] == plan(SETTING, members(2), computer=False), (
        "in the plan's order"
    )


async def test_what_passes_late_must_pass_once_more_and_at_once(short_pause: None) -> None:
    kube, results = await prove(
        lambda identity, before: before > 0 or not identity.startswith("service|pod w1")
    )
    assert all(result.ok for result in results)
    assert [asked for identity, asked in kube.asked.items() if identity.startswith("service|pod w1")] == [
        [0, 0, 1]
    ] * 3
    assert {
        len(asked) for identity, asked in kube.asked.items() if not identity.startswith("service|pod w1")
    } == {1}


async def test_what_passes_now_and_then_has_failed(short_pause: None) -> None:
    _, results = await prove(
        lambda identity, before: before == 1 or not identity.startswith("service|pod w1")
    )
    assert {str(result.check.source) for result in results if not result.ok} == {"pod w1"}


async def test_a_busy_computer_gets_another_chance_to_pass_at_once(short_pause: None) -> None:
    _, results = await prove(
        lambda identity, before: before not in (0, 2) or not identity.startswith("dns|pod w1")
    )
    assert all(result.ok for result in results)
    assert max(result.tries for result in results) == 3


async def test_what_never_passes_ends_when_the_time_is_over() -> None:
    kube, results = await prove(lambda identity, _before: "dns" not in identity)
    assert {result.check.topic for result in results if not result.ok} == {Topic.DNS}
    assert 1 < max(map(len, kube.asked.values())) < 6


async def test_a_pod_in_which_nothing_can_be_run_is_named_once() -> None:
    _, results = await prove(lambda _id, _before: True, broken=True)
    lines = diagnose(Report(("w1", "w2"), tuple(results)))
    assert lines == ["pod w2: no command can be run there: exec in x: no route to host"]


class FakePods(KubeClient):
    """Lists the same pods for ever."""

    def __init__(self, pods: list[dict[str, Any]]) -> None:
        super().__init__(Server("https://127.0.0.1:1"))
        self._pods = pods
        self.nodes: list[dict[str, Any]] = []

    async def list(
        self, api_version: str, kind: str, namespace: str = "", *, labels: str = "", fields: str = ""
    ) -> list[dict[str, Any]]:
        if kind in ("Pod", "Node"):
            return self._pods if kind == "Pod" else self.nodes
        return [
            {
                "involvedObject": {"name": "pod-w2"},
                "reason": "FailedCreatePodSandBox",
                "message": "no IP\naddresses",
            }
        ]


async def test_a_node_whose_pods_do_not_start_is_absent_and_the_others_take_part() -> None:
    def pod(place: str, node: str, ready: bool) -> dict[str, Any]:
        return {
            "metadata": {"name": f"{place}-{node}", "labels": {check_objects.LABEL: place}},
            "spec": {"nodeName": node},
            "status": {"phase": "Running" if ready else "Pending", "podIP": "10.244.1.5",
                       "conditions": [{"type": "Ready", "status": str(ready)}]},
        }  # fmt: skip

    kube = FakePods(
        [pod("pod", "w1", True), pod("node", "w1", True), pod("pod", "w2", False), pod("node", "w2", True)]
    )
    async with Events().phase("check", "check") as phase:
        found = await started_pods(
            kube, "n", {"w1": "10.0.0.1", "w2": "10.0.0.2", "w3": "10.0.0.3"}, phase, 0.2
        )
    assert found.members == (Member("w1", "10.0.0.1", "10.244.1.5"),)
    assert found.absent["w2"].startswith("pod pod-w2: Pending, 0 s after its start")
    assert found.absent["w2"].endswith("; FailedCreatePodSandBox: no IP addresses")
    assert found.absent["w3"].startswith("no pod of DaemonSet pod has been made for it")


async def test_a_node_that_stops_being_ready_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kubewright.workflows.check_pods._LOOK_AT_NODES", 0.1)
    kube = FakePods([])
    gone = {"type": "Ready", "status": "Unknown", "message": "Kubelet stopped posting"}
    kube.nodes = [{"metadata": {"name": "w1"}, "status": {"conditions": [gone]}}]
    async with Events().phase("check", "check") as phase:
        found = await started_pods(kube, "n", {"w1": "10.0.0.1"}, phase, 60)
    assert found.absent == {"w1": "not Ready: Kubelet stopped posting"}


# -- diagnosis ----------------------------------------------------------------------------------------------------


def test_nothing_wrong_nothing_said() -> None:
    good = report(lambda check: False)
    assert good.ok
    assert diagnose(good) == []
    assert report_lines(good)[-1].startswith("All 63 checks passed.")


def test_p42_a_node_whose_pods_are_out_of_reach() -> None:
    lines = diagnose(report(lambda c: is_pods(c) and c.target == "w2" and c.source.node != "w2"))
    assert lines == ["pods on w2 cannot be reached from any other node (no answer)"]


def test_a_node_that_is_cut_off_both_ways() -> None:
    cut = report(lambda c: is_pods(c) and "w2" in (c.target, c.source.node) and c.target != c.source.node)
    assert diagnose(cut) == [
        "pods on w2 cannot be reached from any other node, and reach no other node (no answer)"
    ]


def test_no_routes_at_all() -> None:
    lines = diagnose(report(lambda c: is_pods(c) and c.target != c.source.node))
    assert len(lines) == 1
    assert lines[0].startswith("no pod reaches a pod on another node")


def test_p39_one_direction_of_one_pair() -> None:
    one_way = report(lambda c: is_pods(c, place=Place.POD) and (c.source.node, c.target) == ("w1", "w3"))
    assert diagnose(one_way) == [
        "pods on w1 cannot reach the pod on w3; the other way round works (no answer)"
    ]
    two = report(lambda c: is_pods(c, place=Place.POD) and (c.source.node, c.target) == ("w1", "w2"), count=2)
    assert diagnose(two) == ["pods on w1 cannot reach the pod on w2; the other way round works (no answer)"]
    text = "\n".join(report_lines(one_way))
    assert "POD ON, TO POD ON" in text
    assert [line.split() for line in text.splitlines() if line.startswith("w1 ")][-1] == [
        "w1",
        "ok",
        "ok",
        "FAIL",
    ]


def test_p11_services_that_do_not_work_on_one_node_or_on_any() -> None:
    one = report(lambda c: c.topic is Topic.SERVICE and c.source.node == "w3")
    assert diagnose(one) == [
        "pods and processes on w3 get no answer from service addresses: look at kube-proxy there (no answer)"
    ]
    every = report(lambda c: c.topic is Topic.SERVICE)
    assert diagnose(every)[0].startswith("the service address 10.96.7.8 answers nobody")
    some = report(
        lambda c: c.topic is Topic.SERVICE and c.source == Source(Place.POD, "w1") and c.number == 0
    )
    assert diagnose(some) == ["pod w1: 1 of 3 requests to the service address failed (no answer)"]


def test_what_builds_on_the_pod_network_is_one_line() -> None:
    lines = diagnose(report(lambda c: (is_pods(c) and c.target == "w2" and c.source.node != "w2")
                            or (c.topic is Topic.NODE_PORT and c.target == "w2")
                            or (c.topic is Topic.API and c.source.node == "w1")))  # fmt: skip
    assert lines == [
        "pods on w2 cannot be reached from any other node (no answer)",
        "this may be why 4 of 12 NodePort checks, 1 of 3 API checks failed, too",
    ]


def test_dns_and_api_are_behind_service_addresses() -> None:
    topics = (Topic.SERVICE, Topic.DNS, Topic.API)
    lines = diagnose(report(lambda c: c.topic in topics and c.source == Source(Place.POD, "w1")))
    assert lines == ["pods on w1 get no answer from service addresses: look at kube-proxy there (no answer)"]


def test_the_same_reason_with_other_addresses_is_given_once() -> None:
    results = [
        Result(check, False, f"10.0.0.{number}:80: no answer ({number} tries)") if check.topic is Topic.API
        else Result(check, True)
        for number, check in enumerate(plan(SETTING, members(3), computer=False))
    ]  # fmt: skip
    (line,) = diagnose(Report(("w1", "w2", "w3"), tuple(results)))
    assert line.count("no answer") == 1
    assert "tries" not in line


def test_node_ports_dns_and_api() -> None:
    assert diagnose(
        report(lambda c: c.topic is Topic.NODE_PORT and c.source.place is Place.COMPUTER and c.target == "w1")
    ) == ["the NodePort on w1 does not answer this computer (no answer)"]
    assert diagnose(report(lambda c: c.topic is Topic.DNS))[0].startswith("cluster DNS answers nobody")
    assert diagnose(report(lambda c: c.topic is Topic.DNS and c.source.node == "w2")) == [
        "pods on w2 get no answer from cluster DNS (no answer)"
    ]
    assert diagnose(report(lambda c: c.topic is Topic.DNS and c.target == "probe")) == [
        "DNS: probe is not answered as it should be, asked from w1, w2, w3 (no answer)"
    ]
    assert diagnose(report(lambda c: c.topic is Topic.API and c.source.node == "w1")) == [
        "pods on w1 cannot use the API by its service address (no answer)"
    ]


def test_an_absent_node_is_a_failure_of_its_own() -> None:
    missing = report(lambda check: False, absent={"w9": "not Ready for 5m"})
    assert not missing.ok
    assert diagnose(missing) == ["node w9 took no part: not Ready for 5m"]
    assert missing.as_dict(diagnose(missing))["ok"] is False


@pytest.mark.parametrize("seed", range(40))
def test_no_failure_goes_without_a_word(seed: int) -> None:
    import random

    chance = random.Random(seed)
    share = chance.choice((0.01, 0.1, 0.5, 1.0))
    failing = {check.id for check in plan(SETTING, members(4), computer=True) if chance.random() < share}
    broken = report(lambda check: check.id in failing, count=4)
    assert bool(diagnose(broken)) == bool(failing)
    assert report_lines(broken)
    for topic, word in ((Topic.DNS, "DNS"), (Topic.API, "API"), (Topic.NODE_PORT, "NodePort")):
        if any(result.check.topic is topic for result in broken.failures):
            assert any(word in line for line in diagnose(broken))
