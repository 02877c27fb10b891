"""Which findings explain which, how they are merged, and that a healthy cluster has none."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
from tests.unit.model.doctor.doctor_world import (
    PLANES,
    facts,
    kinds,
    member,
    node,
    node_object,
    objects,
    pod,
    server,
)

from kubewright.model.doctor import (
    certs,
    controlplane,
    dns,
    etcd,
    host,
    kubelet,
    network,
    packets,
    runtime,
    selinux,
    service,
)
from kubewright.model.doctor.causes import RULES, Rule, causes_only, circles
from kubewright.model.doctor.diagnose import DIAGNOSES, confirmed, diagnose
from kubewright.model.doctor.facts import NodeFacts
from kubewright.model.doctor.finding import Finding, Fix, Severity, merged, worst

MODULES = (certs, controlplane, dns, etcd, host, kubelet, network, packets, runtime, selinux, service)


def finding(kind: str, *hosts: str, cause: str = "it is broken", **more: object) -> Finding:
    return Finding(kind, Severity.ERROR, cause, hosts, **more)  # type: ignore[arg-type]


def test_a_healthy_cluster_has_no_finding() -> None:
    assert kinds(facts()) == []


def test_no_finding_explains_itself_by_way_of_others() -> None:
    assert circles() == []


def test_a_circle_would_be_seen() -> None:
    assert circles([Rule("a", ("b",)), Rule("b", ("c",)), Rule("c", ("a",)), Rule("d", ("a",))]) == [
        "a",
        "b",
        "c",
    ]


def test_rules_name_only_what_some_diagnosis_finds() -> None:
    """A name that is misspelt would explain nothing, silently."""
    known: set[str] = set()
    for module in MODULES:
        known.update(re.findall(r'"([a-z]+(?:-[a-z]+)+)"', Path(str(module.__file__)).read_text()))
    named = {kind for rule in RULES for kind in (rule.cause, *rule.effects)}
    assert named - known == set()


def test_every_diagnosis_is_registered() -> None:
    assert len(set(DIAGNOSES)) == len(DIAGNOSES) == sum(len(module.DIAGNOSES) for module in MODULES)


def test_a_cause_explains_on_its_own_host_alone() -> None:
    found = [finding("runtime-dead", "a"), finding("kubelet-dead", "a"), finding("kubelet-dead", "b")]
    assert [(one.kind, one.hosts) for one in causes_only(found)] == [
        ("runtime-dead", ("a",)),
        ("kubelet-dead", ("b",)),
    ]


def test_a_cause_anywhere_explains_on_other_hosts_and_in_the_cluster() -> None:
    found = [finding("etcd-no-quorum"), finding("apiserver-down", "a"), finding("no-leader")]
    assert [one.kind for one in causes_only(found)] == ["etcd-no-quorum"]


def test_a_chain_has_one_end() -> None:
    """What is explained explains on: a dead host, hence no member, hence no majority, hence no API."""
    found = [
        finding("host-silent", "a"), finding("etcd-member-down", "a"), finding("etcd-no-quorum"),
        finding("api-silent", "b"), finding("controller-manager-down", "b"), finding("node-not-ready", "c"),
    ]  # fmt: skip
    assert [one.kind for one in causes_only(found)] == ["host-silent"]


def test_one_of_several_api_servers_explains_nothing_elsewhere_while_the_others_serve() -> None:
    found = [finding("api-silent", "a"), finding("controller-manager-down", "a"), finding("proxy-down", "b")]
    assert [one.kind for one in causes_only(found)] == ["api-silent"]
    assert [one.kind for one in causes_only(found, api_served=True)] == ["api-silent", "proxy-down"]


def test_a_network_pod_that_waits_for_one_api_server_hides_nothing_on_its_node() -> None:
    found = [finding("api-silent", "a"), finding("network-pod-down", "b"), finding("subnet-env", "b")]
    assert [one.kind for one in causes_only(found)] == ["api-silent"]
    assert [one.kind for one in causes_only(found, api_served=True)] == ["api-silent", "subnet-env"]
    down = found[1:]
    assert [one.kind for one in causes_only(down, api_served=True)] == ["network-pod-down"]


def test_only_hosts_that_cluster_dns_depends_on_explain_that_it_is_silent() -> None:
    found = [finding("proxy-down", "a"), finding("dns-silent", "b")]
    assert [one.kind for one in causes_only(found)] == ["proxy-down"], "who knows?"
    assert [one.kind for one in causes_only(found, dns_hosts=frozenset("a"))] == ["proxy-down"]
    assert [one.kind for one in causes_only(found, dns_hosts=frozenset("c"))] == ["proxy-down", "dns-silent"]
    found[1] = finding("dns-silent", "a")
    assert [one.kind for one in causes_only(found, dns_hosts=frozenset("c"))] == ["proxy-down"]


def test_a_balancer_explains_what_does_not_run_on_hosts_that_do_not_reach_the_api_by_it() -> None:
    own = [finding("balancer-down", "a"), finding("endpoint-silent", "a")]
    agents = finding("proxy-down", "a"), finding("proxy-down", "b")
    assert [(one.kind, one.hosts) for one in causes_only([*own, *agents])] == [
        ("balancer-down", ("a",)), ("proxy-down", ("b",))
    ]  # fmt: skip
    shared = [finding("balancer-down", "lb"), *(finding("endpoint-silent", host) for host in "ab")]
    assert [one.kind for one in causes_only([*shared, *agents])] == ["balancer-down"]


@pytest.mark.parametrize("kind", ["api-silent", "apiserver-down", "apiserver-removed"])
def test_one_api_server_of_several_explains_nothing_of_cluster_dns(kind: str) -> None:
    found = [finding(kind, "a"), finding("dns-silent", "b")]
    hosts = frozenset("a")
    assert [one.kind for one in causes_only(found, dns_hosts=hosts)] == [kind]
    assert [one.kind for one in causes_only(found, dns_hosts=hosts, api_served=True)] == [kind, "dns-silent"]


def test_a_cause_at_the_far_end_of_a_pair_explains_it_and_one_at_a_third_host_does_not() -> None:
    lost = replace(finding("packets-dropped", "a"), about=("b",))
    for where, left in (("a", 1), ("b", 1), ("c", 2)):
        assert len(causes_only([finding("ip-forward-off", where), lost])) == left, where


def test_a_scheduler_that_is_down_explains_what_waits_only_where_no_other_leads() -> None:
    found = [finding("scheduler-down", "a"), finding("dns-down")]
    assert len(causes_only(found)) == 2
    assert [one.kind for one in causes_only([*found, finding("no-leader")])] == ["scheduler-down"]


def test_a_warning_that_something_may_break_explains_nothing_that_is_broken() -> None:
    pinned = finding("proxy-server")
    found = [pinned, finding("service-silent", "b")]
    assert [one.kind for one in causes_only(found)] == ["proxy-server"]
    found[0] = replace(pinned, severity=Severity.WARNING)
    assert [one.kind for one in causes_only(found)] == ["proxy-server", "service-silent"]


def test_the_api_serves_where_the_endpoint_does_from_every_host_and_else_where_all_servers_do() -> None:
    whole = facts()
    assert whole.api_served
    status = whole.status
    lost = replace(status.endpoint[0], answers=False, ready=False)
    assert not replace(whole, status=replace(status, endpoint=(lost, *status.endpoint[1:]))).api_served
    assert replace(whole, status=replace(status, servers=(lost,))).api_served
    assert not replace(whole, status=replace(status, endpoint=(), servers=(lost,))).api_served
    assert not replace(whole, status=replace(status, endpoint=(), servers=())).api_served


def test_cluster_dns_depends_on_the_nodes_of_its_pods_and_on_those_where_one_waits_for() -> None:
    def dns(name: str, node: str) -> dict[str, object]:
        return pod(name, node) | {
            "metadata": {"name": name, "namespace": "kube-system", "labels": {"k8s-app": "kube-dns"}}
        }

    def of(*pods: dict[str, object], **nodes: bool) -> object:
        objects_ = replace(
            objects(), pods=pods, nodes=[node_object(name, ready=up) for name, up in nodes.items()]
        )
        return facts(objects=objects_).dns_hosts

    assert of(dns("a", "w1"), dns("b", "cp1"), cp1=True, w1=True, cp2=False) == {"w1", "cp1"}
    assert of(dns("a", "w1"), dns("b", ""), cp1=True, w1=True, cp2=False) == {"w1", "cp2"}
    assert of(pod("kube-proxy-x", "w1"), w1=True) is None
    assert facts(objects=None).dns_hosts is None


def test_hosts_where_nothing_explains_it_stay() -> None:
    found = [finding("swap-on", "a"), finding("kubelet-dead", "a", "b")]
    assert causes_only(found)[1].hosts == ("b",)


def test_one_cause_on_several_hosts_is_one_finding() -> None:
    [one] = merged([
        finding("swap-on", "a", evidence=("/dev/sda2",), fixes=(Fix("x", "x", "a"),)),
        finding("swap-on", "b", evidence=("/dev/sdb2",), fixes=(Fix("x", "x", "b"),)),
    ])  # fmt: skip
    assert one.hosts == ("a", "b")
    assert one.evidence == ("a: /dev/sda2", "b: /dev/sdb2")
    assert [fix.host for fix in one.fixes] == ["a", "b"]


def test_different_causes_of_one_kind_stay_apart() -> None:
    assert len(merged([finding("x-y", "a"), finding("x-y", "a", cause="otherwise broken")])) == 2


def test_the_worst_severity_counts() -> None:
    warning = replace(finding("x-y"), severity=Severity.WARNING)
    assert worst([warning, finding("x-y"), warning]) is Severity.ERROR
    assert worst([]) is None


def test_only_what_both_looks_found_is_confirmed() -> None:
    first = [finding("kubelet-dead", "a"), finding("no-leader"), finding("swap-on", "a")]
    second = [
        finding("kubelet-dead", "a", "b"),
        finding("no-leader"),
        finding("dns-down"),
        finding("swap-on", "b"),
    ]
    assert [(one.kind, one.hosts) for one in confirmed(first, second)] == [
        ("kubelet-dead", ("a",)),
        ("no-leader", ()),
    ]


def test_errors_come_before_warnings() -> None:
    def both(_: object) -> object:
        return iter([replace(finding("x-y", "a"), severity=Severity.WARNING), finding("y-z", "a")])

    assert [one.kind for one in diagnose(facts(), [both])] == ["y-z", "x-y"]  # type: ignore[list-item]


def test_evidence_is_shown_without_secrets() -> None:
    def one(_: object) -> object:
        return iter([finding("x-y", evidence=("join --token abcdef.0123456789abcdef",))])

    assert "0123456789abcdef" not in str(diagnose(facts(), [one]))  # type: ignore[list-item]


def test_one_dead_host_of_three_is_one_finding() -> None:
    dead = NodeFacts("cp2", control_plane=True, error="no answer within 6 s")
    seen = objects()
    nodes = [node_object(name, ready=name != "cp2") for name in (*PLANES, "w1")]
    found = facts(
        [dead],
        objects=replace(seen, nodes=nodes),
        servers=[server("cp1"), server("cp2", error="no answer"), server("cp3")],
        etcd=[member("cp1"), member("cp2", error="no answer"), member("cp3")],
    )
    assert kinds(found) == [("host-silent", ("cp2",))]


def test_a_dead_host_and_a_dead_kubelet_elsewhere_are_two() -> None:
    dead = NodeFacts("cp2", control_plane=True, error="no answer within 6 s")
    other = node("w1")
    assert other.look is not None
    units = dict(other.look.units)
    units["kubelet"] = replace(units["kubelet"], active="inactive", sub="dead", up=None)
    stopped = replace(other, look=replace(other.look, units=units))
    nodes = [node_object(name, ready=name in ("cp1", "cp3")) for name in (*PLANES, "w1")]
    found = facts(
        [dead, stopped], objects=replace(objects(), nodes=nodes), etcd=[member("cp1"), member("cp3")]
    )
    assert sorted(kinds(found)) == [("host-silent", ("cp2",)), ("kubelet-stopped", ("w1",))]


@pytest.mark.parametrize("module", MODULES)
def test_every_area_says_what_it_is(module: object) -> None:
    assert module.__doc__ is not None
    assert re.search(r"\(.*P\d\d", module.__doc__)


def test_the_documentation_lists_every_kind_with_its_pitfalls() -> None:
    text = (Path(__file__).parents[4] / "docs" / "doctor.md").read_text()
    listed = set(re.findall(r"^\| `([a-z-]+)` \| (?:P\d\d ?)+\|", text, re.MULTILINE))
    known = {rule.cause for rule in RULES} | {kind for rule in RULES for kind in rule.effects} | {"loud"}
    assert known - listed == set()
    sources = "".join(Path(str(module.__file__)).read_text() for module in MODULES)
    assert {kind for kind in listed if f'"{kind}"' not in sources} == set()
