"""Packets that nodes send: the program on real local sockets, whom it asks, and what follows from the answers."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from tests.free_ports import free_port
from tests.unit.model.doctor.doctor_world import (
    ADDRESSES,
    NAMES,
    NOW,
    facts,
    kinds,
    node_object,
    objects,
    only,
    pod,
    seen,
    without,
)

from kubewright.model.doctor.diagnose import symptoms
from kubewright.model.doctor.facts import DoctorFacts, Ended, NodeFacts
from kubewright.model.doctor.logs import reasons
from kubewright.model.doctor.look import FORWARD, LOOK, arguments, parse_look
from kubewright.model.doctor.plan import TARGETS, Plan, PodTarget, ServiceTarget, large, plan, questions
from kubewright.model.doctor.pods import last_words
from kubewright.model.doctor.probes import (
    SMALL,
    Probed,
    Question,
    parse_probed,
    probe_command,
    probe_input,
)
from kubewright.model.port_probe import Answer, Reach

HERE = "127.0.0.1"
NAME = "kubernetes.default.svc.cluster.local"
OPEN, SILENT, REFUSED = Answer(Reach.OPEN), Answer(Reach.SILENT, "no answer in 2 s"), Answer(Reach.REFUSED)
HAS_PERL = pytest.mark.skipif(shutil.which("perl") is None, reason="hosts have Perl")

# -- the program ------------------------------------------------------------------------------------------------


def run(*questions: Question, port: int = 53, path: str = "") -> Probed | None:
    env = {**os.environ, "PATH": f"{path}:{os.environ['PATH']}"} if path else None
    done = subprocess.run(
        probe_command(port),
        input=probe_input(questions),
        capture_output=True,
        check=True,
        env=env,
        timeout=60,
    )
    return parse_probed(done.stdout.decode())


@pytest.fixture
def nameserver() -> Iterator[tuple[int, list[bytes]]]:
    """One that loses the first of every question, and knows one name."""
    server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    server.bind((HERE, 0))
    asked: list[bytes] = []

    def serve() -> None:
        while True:
            data, who = server.recvfrom(512)
            if data == b"end":
                return
            again = data in asked
            asked.append(data)
            known = data[12:].startswith(
                b"\x0akubernetes\x07default\x03svc\x07cluster\x05local\x00\x00\x01\x00\x01"
            )
            if again:
                server.sendto(data[:2] + (b"\x81\x80" if known else b"\x81\x82") + data[4:], who)

    thread = threading.Thread(target=serve)
    thread.start()
    yield server.getsockname()[1], asked
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as last:
        last.sendto(b"end", (HERE, server.getsockname()[1]))
    thread.join()
    server.close()


@HAS_PERL
def test_connections_are_open_or_refused() -> None:
    with socket.create_server((HERE, 0)) as server:
        port, nobody = server.getsockname()[1], free_port()
        found = run(Question("tcp", HERE, str(port)), Question("tcp", HERE, str(nobody)))
    assert found is not None
    assert found.tcp == {(HERE, port): OPEN, (HERE, nobody): REFUSED}
    assert (found.reaches(HERE, port), found.reaches(HERE, nobody), found.reaches(HERE, 1)) == (
        True,
        False,
        None,
    )


@HAS_PERL
def test_a_lost_question_to_dns_is_asked_again_and_the_answers_code_is_told(
    nameserver: tuple[int, list[bytes]],
) -> None:
    port, asked = nameserver
    known, other = Question("dns", HERE, NAME), Question("dns", HERE, "elsewhere.example")
    found = run(known, known, other, port=port)
    assert found is not None
    assert sorted(found.dns) == ["answer 0", "answer 0", "answer 2"]
    assert len(set(asked)) == 3


@HAS_PERL
def test_a_name_server_that_says_nothing_is_silent() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind((HERE, 0))
        found = run(Question("dns", HERE, NAME), port=server.getsockname()[1])
    assert found is not None
    assert found.dns == ("silent",)


@HAS_PERL
@pytest.mark.parametrize(
    ("printed", "said"),
    [
        ("1408 bytes from 10.244.1.2: icmp_seq=1 ttl=63 time=0.4 ms", {("10.244.1.2", 1400): "open"}),
        ("1 packets transmitted, 0 received, 100% packet loss", {("10.244.1.2", 1400): "silent"}),
        ("ping: local error: message too long, mtu=1400\n1 packets transmitted, 0 received, +1 errors", None),
        ("From 10.0.0.1 Frag needed and DF set (mtu = 1400)\n2 packets transmitted, 0 received", None),
        ("ping: invalid option -- 'M'", {}),
    ],
)
def test_what_ping_says(tmp_path: Path, printed: str, said: Mapping[tuple[str, int], str] | None) -> None:
    fake = tmp_path / "ping"
    fake.write_text(
        f'#!/bin/sh\n[ "$*" = \'-n -c 1 -i 0.5 -M do -w 2 -s 1400 10.244.1.2\' ] || exit 3\necho "{printed}"\n'
    )
    fake.chmod(0o755)
    found = run(Question("ping", "10.244.1.2", "1400"), path=str(tmp_path))
    assert found is not None
    assert found.pings == ({("10.244.1.2", 1400): "told"} if said is None else said)


def test_a_program_that_did_not_end_has_said_nothing() -> None:
    assert parse_probed("tcp 10.0.0.1 53 open\n") is None
    assert parse_probed("") is None
    assert parse_probed("end\n") == Probed()


def test_a_failure_keeps_the_systems_words() -> None:
    found = parse_probed("tcp 10.0.0.1 53 failed No route to host\nend\n")
    assert found is not None
    assert found.tcp == {("10.0.0.1", 53): Answer(Reach.FAILED, "No route to host")}


# -- whom it asks -----------------------------------------------------------------------------------------------


def running(
    name: str, where: str, address: str, *ports: int, protocol: str = "TCP", **spec: Any
) -> dict[str, Any]:
    one = pod(name, where)
    container = {"ports": [{"containerPort": port, "protocol": protocol} for port in ports]}
    one["spec"] |= {"containers": [container | spec.pop("container", {})], **spec}
    one["status"]["podIP"] = address
    return one


def service(name: str, namespace: str, address: str, port: int, *behind: str) -> tuple[Any, Any]:
    meta = {"name": name, "namespace": namespace}
    found = {"metadata": meta, "spec": {"clusterIP": address, "ports": [{"name": "x", "port": port}]}}
    ways = {
        "addresses": [{"ip": ip} for ip in behind],
        "ports": [{"name": "x", "port": 6443}, {"name": "y", "port": 1}],
    }
    return found, {"metadata": meta, "subsets": [ways]}


def test_a_pod_with_a_readiness_probe_is_asked_for_its_node_before_others() -> None:
    probe: dict[str, Any] = {"readinessProbe": {"httpGet": {}}}
    pods = [
        running("a", "w1", "10.244.1.2", 9153, 53),
        running("b", "w1", "10.244.1.3", 8080, 9090, container=probe),
        running("host", "cp1", "10.0.0.1", 80, hostNetwork=True),
        running("udp", "cp1", "10.244.2.2", 53, protocol="UDP"),
        running("away", "gone", "10.244.9.2", 53),
    ]
    leaving = running("leaving", "cp2", "10.244.3.2", 53)
    leaving["metadata"]["deletionTimestamp"] = "2026-06-01T11:59:00Z"
    found = plan(replace(objects(), pods=[*pods, leaving]), (), (), (), "")
    assert found.pods == {"w1": PodTarget("w1", "kube-system/b", "10.244.1.3", 8080, proven=True)}
    assert found.name == NAME


def test_pods_are_left_out_where_a_network_policy_may_keep_us_off_or_the_node_is_away() -> None:
    world = replace(objects(), pods=[running("a", "w1", "10.244.1.2", 53)])
    assert plan(world, (), (), ({"metadata": {"name": "deny", "namespace": "kube-system"}},), "").pods == {}
    away = replace(world, nodes=[node_object("w1", ready=False)])
    assert plan(away, (), (), (), "").pods == {}


def test_services_are_asked_with_all_that_is_behind_them() -> None:
    api = service("kubernetes", "default", "10.96.0.1", 443, "10.0.0.1", "10.0.0.2")
    headless = service("kube-dns", "kube-system", "None", 53)
    found = plan(objects(), (api[0], headless[0]), (api[1], headless[1]), (), "example.org.")
    assert found.services == (
        ServiceTarget("default/kubernetes", "10.96.0.1", 443, (("10.0.0.1", 6443), ("10.0.0.2", 6443))),
    )
    assert (found.dns, found.name) == ("", "kubernetes.default.svc.example.org")


def test_the_number_of_questions_grows_with_the_nodes_and_each_is_asked_by_as_many() -> None:
    names = [f"n{number:02}" for number in range(60)]
    whole = Plan({name: PodTarget(name, name, f"10.1.0.{at}", 53) for at, name in enumerate(names)})
    asked = [one.node for name in names for one in whole.others(name)]
    assert {asked.count(name) for name in names} == {TARGETS}
    assert len(questions(whole, "n00", {})) == 2 * TARGETS + 1


def test_the_large_packet_is_that_of_the_smaller_end() -> None:
    assert (large("10.1.0.1", 9000, 1450), large("fd00::1", 1450, 1500), large("10.1.0.1", 0, 1500)) == (
        1422,
        1402,
        0,
    )
    whole = Plan({"b": PodTarget("b", "p", "10.1.0.2", 53)})
    assert questions(whole, "a", {"a": 9000, "b": 1450})[1:] == [
        Question("ping", "10.1.0.2", "56"),
        Question("ping", "10.1.0.2", "1422"),
    ]


def test_the_smallest_mtu_of_links_that_are_up_is_read() -> None:
    printed = (
        "\n@@ links\n 1: lo: <LOOPBACK,UP,LOWER_UP> mtu 65536 qdisc noqueue\n"
        " 2: eth0: <BROADCAST,MULTICAST,UP,LOWER_UP> mtu 1500 qdisc fq\n 3: off: <BROADCAST> mtu 1280 qdisc noop\n"
        " 4: flannel.1: <BROADCAST,UP> mtu 1450 qdisc noqueue\n\n@@ end\n"
    )
    assert parse_look(printed).mtu == 1450
    assert parse_look("\n@@ end\n").mtu == 0


# -- what follows -----------------------------------------------------------------------------------------------

PODS = {
    name: PodTarget(name, f"kube-system/p-{name}", f"10.244.{at}.2", 53, proven=True)
    for at, name in enumerate(NAMES)
}
API = ServiceTarget("default/kubernetes", "10.96.0.1", 443, ((ADDRESSES["cp1"], 6443),))
DNS = ServiceTarget("kube-system/kube-dns", "10.96.0.10", 53, (("10.244.0.2", 53),))
WHOLE = Plan(PODS, (API, DNS), NAME)
WAY = Mapping[tuple[str, str], Answer]


def sent(
    name: str,
    bad: WAY | None = None,
    *,
    large_lost: Sequence[tuple[str, str]] = (),
    pinged: bool | None = None,
    services: Mapping[str, Answer] | None = None,
    dns: tuple[str, ...] = ("answer 0",) * 3,
    **changes: Any,
) -> NodeFacts:
    """A node whose questions to these were lost: pairs of itself and another; `pinged` is what ping said."""
    tcp, pings = {}, {}
    for other, target in PODS.items():
        answer = (bad or {}).get((name, other), OPEN)
        tcp[target.address, target.port] = answer
        if pinged is not None and other != name:
            pings[target.address, SMALL] = "open" if answer is OPEN or pinged else "silent"
            pings[target.address, 1472] = "silent" if (name, other) in large_lost else "open"
    for one in WHOLE.services:
        tcp[one.address, one.port] = (services or {}).get(one.address, OPEN)
        tcp.update({endpoint: tcp.get(endpoint, OPEN) for endpoint in one.endpoints})
    return replace(seen(name, **{"mtu": 1500, **changes}), probed=Probed(tcp, pings, dns))


def world(*nodes: NodeFacts, bad: WAY | None = None, whole: bool = True, **more: Any) -> DoctorFacts:
    mine = {one.name: one for one in nodes}
    all_nodes = [mine.get(name) or sent(name, bad, **more) for name in NAMES]
    return replace(facts(all_nodes), plan=WHOLE, whole=whole)


def lost(*pairs: tuple[str, str], how: Answer = SILENT) -> dict[tuple[str, str], Answer]:
    return dict.fromkeys(pairs, how)


def others(name: str) -> list[str]:
    return [one for one in NAMES if one != name]


def test_where_all_packets_arrive_nothing_is_found() -> None:
    assert kinds(world()) == []
    assert kinds(world(pinged=True)) == []


def test_one_pair_is_named_with_its_direction_and_port() -> None:
    one = only(world(bad=lost(("w1", "cp2"))))
    assert (one.kind, one.hosts, one.pitfall) == ("packets-dropped", ("w1",), "P39")
    assert one.cause == "the pod network loses packets from w1 to Pods on cp2"
    assert one.evidence == ("from w1 to kube-system/p-cp2 on cp2: 10.244.1.2 port 53: no answer in 2 s",)


@pytest.mark.parametrize("how", [SILENT, REFUSED, Answer(Reach.FAILED, "No route to host")])
def test_a_node_that_nobody_reaches_is_one_finding(how: Answer) -> None:
    one = only(world(bad=lost(*((other, "w1") for other in others("w1")), how=how)))
    assert (one.hosts, one.cause) == (("w1",), "the pod network loses packets to this node's Pods")
    assert len(one.evidence) == 3


def test_a_node_that_reaches_nobody_is_one_finding() -> None:
    one = only(world(bad=lost(*(("w1", other) for other in others("w1")))))
    assert (one.hosts, one.cause) == (
        ("w1",),
        "the pod network loses packets from this node to Pods on others",
    )


def test_a_node_that_is_cut_off_is_one_finding_and_so_is_a_network_of_which_nothing_works() -> None:
    cut = [(other, "w1") for other in others("w1")] + [("w1", other) for other in others("w1")]
    one = only(world(bad=lost(*cut)))
    assert (one.hosts, one.cause) == (
        ("w1",),
        "the pod network loses packets to this node's Pods and from it",
    )
    everything = only(world(bad=lost(*((a, b) for a in NAMES for b in others(a)))))
    assert set(everything.hosts) == set(NAMES)


def test_a_pod_that_answers_nobody_says_nothing_of_the_network() -> None:
    assert kinds(world(bad=lost(*((other, "w1") for other in NAMES)))) == []


def test_a_port_that_somebody_keeps_off_while_ping_comes_through_is_no_lost_packet() -> None:
    assert kinds(world(bad=lost(("w1", "cp2")), pinged=True)) == []
    one = only(world(bad=lost(("w1", "cp2")), pinged=False))
    assert one.evidence[0].endswith("no answer in 2 s, nor to ping")


def test_large_packets_that_are_lost_where_small_ones_pass() -> None:
    one = only(world(sent("w1", pinged=True, large_lost=[("w1", "cp1")]), pinged=True))
    assert (one.kind, one.hosts, one.pitfall) == ("packets-too-large", ("w1",), "P39")
    assert one.evidence[0].endswith("10.244.0.2 answers a ping of 56 bytes, and none in a packet of 1500")


def test_a_network_that_tells_its_mtu_loses_nothing() -> None:
    node = sent("w1", pinged=True)
    assert node.probed is not None
    told = replace(
        node.probed,
        pings={way: "told" if way[1] > SMALL else said for way, said in node.probed.pings.items()},
    )
    assert kinds(world(replace(node, probed=told), pinged=True)) == []


def test_a_service_that_is_silent_on_one_node_is_its_kube_proxy() -> None:
    one = only(world(sent("w1", services={"10.96.0.1": SILENT})))
    assert (one.kind, one.hosts, one.pitfall) == ("service-silent", ("w1",), "P11")
    assert one.evidence == (
        "Service default/kubernetes from w1, 10.96.0.1 port 443: no answer in 2 s; all behind it answer",
    )


@pytest.mark.parametrize(("away", "count"), [(1, 1), (2, 0)])
def test_a_service_is_judged_while_most_of_those_behind_it_answer(away: int, count: int) -> None:
    """It is asked several times, and has met one of them by then."""
    behind = (("192.0.2.1", 6443), ("192.0.2.2", 6443), ("192.0.2.3", 6443))
    node = sent("w1", services={"10.96.0.1": SILENT})
    assert node.probed is not None
    answers = dict.fromkeys(behind, OPEN) | dict.fromkeys(behind[:away], REFUSED)
    found = world(replace(node, probed=replace(node.probed, tcp={**node.probed.tcp, **answers})))
    api = ServiceTarget("default/kubernetes", "10.96.0.1", 443, behind)
    found = replace(found, plan=replace(found.plan, services=(api,)))
    silent = [one for one in symptoms(found) if one.hosts == ("w1",) and one.kind == "service-silent"]
    assert len(silent) == count
    assert all(one.evidence[0].endswith("2 of 3 behind it answer") for one in silent)


def test_a_question_that_is_asked_several_times_has_its_best_answer() -> None:
    lines = ["silent", "open", "refused"]
    found = parse_probed("".join(f"tcp 10.96.0.1 443 {line}\n" for line in lines) + "end\n")
    assert found is not None
    assert found.reaches("10.96.0.1", 443)


def test_a_service_is_not_judged_while_somebody_behind_it_is_silent() -> None:
    node = sent("w1", lost(("w1", "cp1")), services={"10.96.0.10": SILENT})
    assert kinds(world(node)) == [("packets-dropped", ("w1",))]


def test_without_kube_proxy_a_service_that_serves_no_host_is_not_judged() -> None:
    found = world(services={"10.96.0.1": SILENT})
    assert [one.kind for one in symptoms(found)] == ["service-silent"] * 4
    seen_objects = replace(objects(), daemon_sets=())
    assert kinds(replace(found, asked=replace(found.asked, objects=seen_objects))) == []


@pytest.mark.parametrize(
    ("said", "words"), [(("silent",) * 3, "no answer in 2 s"), (("answer 2",) * 3, "the answer is SERVFAIL")]
)
def test_dns_that_a_node_does_not_get(said: tuple[str, ...], words: str) -> None:
    one = only(world(sent("w1", dns=said)))
    assert (one.kind, one.hosts, one.pitfall) == ("dns-silent", ("w1",), "P04")
    assert one.evidence[0].endswith(words)


@pytest.mark.parametrize("said", [("silent", "answer 0", "silent"), ("answer 3",) * 3, ()])
def test_dns_that_answers_once_or_was_not_asked_is_no_finding(said: tuple[str, ...]) -> None:
    assert kinds(world(sent("w1", dns=said))) == []


def test_what_is_wrong_on_a_node_explains_its_lost_packets() -> None:
    bad = lost(*((other, "w1") for other in others("w1")))
    files = {**(sent("w1").look.files), FORWARD: "0"}  # type: ignore[union-attr]
    found = world(sent("w1", bad, services={"10.96.0.1": SILENT}, dns=("silent",), files=files), bad=bad)
    assert kinds(found) == [("ip-forward-off", ("w1",))]


def test_one_node_that_is_asked_alone_needs_a_pod_whose_kubelet_finds_it_ready() -> None:
    bad = lost(("w1", "cp2"))
    alone = replace(world(), nodes=(sent("w1", bad),), whole=False)
    assert [one.kind for one in symptoms(alone)] == ["packets-dropped"]
    unproven = {name: replace(one, proven=False) for name, one in PODS.items()}
    assert symptoms(replace(alone, plan=replace(WHOLE, pods=unproven))) == []


def test_a_node_that_could_send_nothing_is_not_judged() -> None:
    assert kinds(world(replace(sent("w1"), probed=None))) == []


# -- logs -------------------------------------------------------------------------------------------------------


def test_the_line_by_which_a_program_ends_comes_before_others() -> None:
    lines = ["E0601 12:00:00 error: it is late", "flag provided but not defined: -no-such", "panic: it ends"]
    assert reasons(lines, short=False) == lines[1:]
    assert reasons(lines[:1], short=True) == lines[:1]
    assert reasons(lines[:1], short=False) == []


def test_of_an_ended_etcd_its_bad_flag_is_shown_and_not_the_usage() -> None:
    key = ("etcd-cp1", "etcd")
    shown: dict[str, Any] = {
        "told": {key: ("flag provided but not defined: -no-such",)},
        "logs": {key: ("  --error-usage", "  --v")},
    }
    gone = without("cp1", "etcd", ended={"etcd": Ended(2, at=NOW, lasted=timedelta(seconds=1))})
    assert (
        last_words(seen("cp1", gone, **shown), "etcd")[-1] == "etcd: flag provided but not defined: -no-such"
    )
    assert "flag provided" not in " ".join(last_words(seen("cp1", **shown), "etcd"))


def test_the_look_finds_telling_lines_in_the_first_lines_of_a_log(tmp_path: Path) -> None:
    folder = tmp_path / "kube-system_etcd-cp1_1" / "etcd"
    folder.mkdir(parents=True)
    stamp = "2026-06-01T11:59:59.1Z stderr F "
    told = ["flag provided but not defined: -no-such", "F0601 12:00:00 main.go:1] it ends"]
    lines = [told[0], "Usage:", *(f"  --flag-{number}" for number in range(40)), told[1]]
    stack = ["goroutine 1 [running]:", "main.main()", "\t/go/src/main.go:46 +0x1e", "created by main.main"]
    (folder / "0.log").write_text("".join(f"{stamp}{line}\n" for line in [*lines, *(stack * 9)]))
    script = LOOK.replace("/var/log/pods", str(tmp_path))
    words = ["sh", "-c", script, "sh", *arguments(str(tmp_path))]
    look = parse_look(subprocess.run(words, capture_output=True, text=True, check=True, timeout=60).stdout)
    assert look.told == {("etcd-cp1", "etcd"): tuple(told)}
    assert look.log("etcd")[-1] == told[1]
