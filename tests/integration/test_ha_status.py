"""`kubewright status` of three control planes: whole, and with parts of them taken away for real."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cluster_fixtures import ON_MACHINES, THREE, Kubewright, on, write
from ha_cluster import HaCluster

from kubewright.errors import ExitCode
from kubewright.lab.lab import Lab
from kubewright.model import x509
from kubewright.secret import Secret

pytestmark = ON_MACHINES

PLANES, WORKERS = ("cp1", "cp2", "cp3"), ("w1", "w2")
NODES = (*PLANES, *WORKERS)
MANIFEST, AWAY = "/etc/kubernetes/manifests/kube-apiserver.yaml", "/root/kube-apiserver.yaml"
PKI = "/etc/kubernetes/pki"
SOON = 60.0
"""Seconds after which `status` must have noticed."""
HEAL = 180.0
"""Seconds after which a machine that was started must be of use again."""
LONGEST = 60.0
"""Seconds that a look may take, whoever is silent. The deadlines add up to half of it at most; one at which nobody
was silent has taken 37 s on two cores with 70 processes waiting for them."""


class Seen:
    """A cluster, and what `status` says of it."""

    def __init__(self, kubewright: Kubewright, cluster: HaCluster) -> None:
        self.kubewright = kubewright
        self.cluster = cluster
        self.lab = cluster.lab
        self._file = cluster.lab.places.cluster_yaml

    def text(self) -> str:
        return self.kubewright("status", "-f", self._file).out

    def now(self, *, code: int = 0) -> dict[str, Any]:
        run = self.kubewright("status", "-f", self._file, "-o", "json", code=code)
        assert run.seconds < LONGEST, str(run)
        document: dict[str, Any] = run.document
        return document

    def until(self, holds: Callable[[dict[str, Any]], bool], deadline: float = SOON) -> dict[str, Any]:
        """The first look of which this holds."""
        end = time.monotonic() + deadline
        while not holds(found := self.now()):
            assert time.monotonic() < end, json.dumps(found, indent=1)[-6000:]
        return found

    def healthy(self) -> dict[str, Any]:
        return self.until(lambda found: bool(found["healthy"]), HEAL)

    def settled(self) -> dict[str, Any]:
        """All hosts, API servers, members and backends are there; kubelets may tell of their Pods later."""
        return self.until(_is_settled, HEAL)

    @contextmanager
    def without_api_servers(self, *names: str) -> Iterator[None]:
        """Take static Pods away, and give them back."""
        for name in names:
            on(self.lab, name, f"mv {MANIFEST} {AWAY}")
        try:
            yield
        finally:
            for name in names:
                # A kubelet waits before it starts a static Pod that it has ended; a new one does not.
                on(self.lab, name, f"mv {AWAY} {MANIFEST} && systemctl restart kubelet")

    @contextmanager
    def fault(self, kind: str, mend: str, *names: str) -> Iterator[None]:
        """Do something to machines, and undo it."""
        self.kubewright("lab", kind, THREE, *names)
        try:
            yield
        finally:
            self.kubewright("lab", mend, THREE, *names)


@pytest.fixture(scope="module")
def whole(kubewright: Kubewright, three: Lab) -> Iterator[Seen]:
    """Three control planes and two workers, with the lab's own endpoint: a proxy on every node."""
    try:
        yield Seen(kubewright, HaCluster(three, three.places.kubeconfig, PLANES, WORKERS))
    finally:
        kubewright("lab", "down", THREE, code=None)


@pytest.fixture
def seen(whole: Seen) -> Seen:
    """The cluster, with all that was taken away back in its place."""
    whole.settled()
    return whole


def _is_settled(look: dict[str, Any]) -> bool:
    backends = [row for proxy in look["loadBalancers"] for row in proxy["backends"]]
    return (
        all(row["ready"] for row in (*look["apiServers"], *look["endpoint"]))
        and all(host["answers"] for host in look["hosts"])
        and look["etcd"]["answering"] == 3
        and len(backends) == len(NODES) * len(PLANES)
        and all(row["up"] for row in backends)
    )


def _by_name(rows: Sequence[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    return {row["name"]: row for row in rows}


def _answering(rows: Sequence[dict[str, Any]]) -> list[str]:
    return sorted(row["name"] for row in rows if row["answers"])


# -- all is well --------------------------------------------------------------------------------------------------


def test_all_is_up(seen: Seen) -> None:
    found = seen.healthy()
    assert [node["name"] for node in found["nodes"]] == [*NODES]
    assert found["version"] == "v1.20.2"
    assert all(server["ready"] for server in found["apiServers"])
    assert _answering(found["apiServers"]) == [*PLANES]
    assert {row["from"] for row in found["endpoint"]} == {*NODES}, "each node has a proxy of its own"
    assert {row["url"] for row in found["endpoint"]} == {f"https://{seen.cluster.endpoint}"}
    assert all(row["ready"] for row in found["endpoint"])
    etcd = found["etcd"]
    assert (etcd["external"], etcd["voters"], etcd["answering"], etcd["mayFail"]) == (False, 3, 3, 1)
    assert etcd["leader"] == seen.cluster.leader()
    assert [member["name"] for member in etcd["members"] if member["leader"]] == [etcd["leader"]]
    assert all(member["databaseBytes"] >= member["databaseInUseBytes"] > 0 for member in etcd["members"])
    assert all(member["lag"] < 100 and not member["alarms"] for member in etcd["members"])
    assert {one["name"] for one in found["leaders"]} == {"kube-controller-manager", "kube-scheduler"}
    assert {one["holder"] for one in found["leaders"]} <= {*PLANES}
    for proxy in found["loadBalancers"]:
        assert (proxy["kind"], proxy["runs"]) == ("haproxy", True)
        assert sorted(row["name"] for row in proxy["backends"] if row["up"]) == [*PLANES]
    assert {proxy["host"] for proxy in found["loadBalancers"]} == {*NODES}
    certificates = found["certificates"]
    assert certificates["ending"] == []
    # 10 that kubeadm looks after, 3 authorities and the kubelet's, on each of three.
    assert certificates["read"] == 3 * (10 + 3 + 1)
    assert certificates["firstEnd"] > datetime.now(UTC).strftime("%Y-%m-%d")
    for host in found["hosts"]:
        ran = {one["name"] for one in host["containers"] or () if one["running"]}
        assert len(ran) == (4 if host["controlPlane"] else 0)


def test_the_same_as_text(seen: Seen) -> None:
    seen.healthy()
    end = time.monotonic() + SOON
    while not (lines := (text := seen.text()).splitlines())[-1].startswith("Nothing is wrong"):
        assert time.monotonic() < end, text
    assert lines[0].startswith("Kubernetes v1.20.2 at https://")
    for head in ("NODE ", "PART ", "API ", "ETCD ", "LOAD BALANCER "):
        assert any(line.startswith(head) for line in lines), text
    assert "3 of 3 voters answer; 1 more may fail" in text
    assert "leader: cp" in text
    assert "PRIVATE KEY" not in text


def test_a_mere_kubeconfig_asks_the_api_alone(seen: Seen) -> None:
    config = seen.lab.places.kubeconfig
    found = seen.kubewright("status", "--kubeconfig", config, "-o", "json").document
    assert found["healthy"]
    assert len(found["nodes"]) == len(NODES)
    assert [row["from"] for row in found["endpoint"]] == ["here"]
    assert len(found["leaders"]) == 2
    assert (found["apiServers"], found["etcd"], found["certificates"], found["hosts"]) == ([], None, None, [])


def test_watching_gives_a_document_a_look_and_ends_without_an_error(seen: Seen) -> None:
    process = seen.kubewright.start(
        "status", "-f", seen.lab.places.cluster_yaml, "--watch", "--interval", "0.5", "-o", "json"
    )
    assert process.stdout is not None
    looks = [json.loads(process.stdout.readline())]
    while len(looks) < 3 or looks[-1]["etcd"]["answering"] < 3:
        assert len(looks) < 12, looks[-1]["problems"]
        looks.append(json.loads(process.stdout.readline()))
    process.send_signal(signal.SIGINT)
    assert process.wait(20) == ExitCode.OK
    assert looks[0]["time"] < looks[-1]["time"]


# -- what is wrong with parts that answer -------------------------------------------------------------------------


def test_p22_a_certificate_that_ends_soon(seen: Seen) -> None:
    """The API server of cp3 gets one for some days, as `certs renew` would write it."""
    kept = _read(seen, "apiserver.crt"), _read(seen, "apiserver.key")
    ca = x509.KeyPair(_read(seen, "ca.crt"), Secret(_read(seen, "ca.key")))
    key = x509.new_key()
    pair = x509.sign_again(kept[0], key, ca, datetime.now(UTC), timedelta(days=4, hours=12))
    _write(seen, pair.cert, key.reveal())
    try:
        # Until the API server has read it, it serves the one before: two lines for a while.
        found = seen.until(
            lambda look: [row["name"] for row in look["certificates"]["ending"]] == ["apiserver"]
        )
        [ending] = found["certificates"]["ending"]
        assert (ending["hosts"], ending["ended"]) == (["cp3"], False)
        assert "certificate apiserver of cp3 ends in 4d" in found["problems"]
    finally:
        _write(seen, *kept)


def _read(seen: Seen, name: str) -> bytes:
    return on(seen.lab, "cp3", f"cat {PKI}/{name}").encode()


def _write(seen: Seen, cert: bytes, key: bytes) -> None:
    write(seen.lab, "cp3", f"{PKI}/apiserver.key", key, 0o600)
    write(seen.lab, "cp3", f"{PKI}/apiserver.crt", cert, 0o644)


def test_an_alarm(seen: Seen) -> None:
    member = {"memberID": seen.cluster.member("cp2").id, "alarm": "NOSPACE"}
    seen.cluster.etcd("cp1", "maintenance/alarm", {"action": "ACTIVATE", **member})
    try:
        found = seen.until(lambda look: look["etcd"]["answering"] == 3)
    finally:
        seen.cluster.etcd("cp1", "maintenance/alarm", {"action": "DEACTIVATE", **member})
    assert _by_name(found["etcd"]["members"])["cp2"]["alarms"] == ["NOSPACE"]
    assert "etcd member cp2: alarm NOSPACE" in found["problems"]


def test_a_member_that_was_announced_and_never_starts(seen: Seen) -> None:
    peer = "https://192.0.2.9:2380"
    added = seen.cluster.etcd("cp1", "cluster/member/add", {"peerURLs": [peer], "isLearner": True})
    try:
        found = seen.until(lambda look: look["etcd"]["voters"] > 0)
    finally:
        seen.cluster.etcd("cp1", "cluster/member/remove", {"ID": added["member"]["ID"]})
    assert found["etcd"]["voters"] == 3
    stray = _by_name(found["etcd"]["members"])[peer]
    assert (stray["learner"], stray["answers"]) == (True, False)
    assert any(line.startswith(f"etcd member {peer}: it has never started") for line in found["problems"])


def test_a_proxy_that_is_stopped(seen: Seen) -> None:
    on(seen.lab, "w1", "systemctl stop kubewright-haproxy")
    try:
        found = seen.until(lambda look: "haproxy on w1: its unit is inactive" in look["problems"])
    finally:
        on(seen.lab, "w1", "systemctl start kubewright-haproxy")
    problems = "\n".join(found["problems"])
    assert f"endpoint https://{seen.cluster.endpoint}, from w1: does not answer" in problems


# -- API servers go -----------------------------------------------------------------------------------------------


def test_api_servers_go_one_after_another(seen: Seen) -> None:
    with ExitStack() as away:
        away.enter_context(seen.without_api_servers("cp1"))
        _one_is_down(seen)
        away.enter_context(seen.without_api_servers("cp3"))
        found = seen.until(lambda look: _answering(look["apiServers"]) == ["cp2"] and bool(look["server"]))
        assert len(found["nodes"]) == len(NODES)
        assert {one["holder"] for one in found["leaders"]} <= {*PLANES, ""}
        away.enter_context(seen.without_api_servers("cp2"))
        _all_are_down(seen)


def _one_is_down(seen: Seen) -> None:
    found = seen.until(
        lambda look: _answering(look["apiServers"]) == ["cp2", "cp3"] and _backend(look, "cp1")
    )
    assert found["server"]
    assert len(found["nodes"]) == len(NODES)
    assert found["etcd"]["answering"] == 3
    down = _by_name(found["apiServers"])["cp1"]
    assert "nothing listens there" in down["detail"]
    assert "API server cp1: does not answer" in "\n".join(found["problems"])
    assert all(row["ready"] for row in found["endpoint"]), "the endpoint leads to the others"


def _backend(look: dict[str, Any], name: str) -> bool:
    """Whether every load balancer has found an API server to be down."""
    return all(
        not row["up"] for proxy in look["loadBalancers"] for row in proxy["backends"] if row["name"] == name
    )


def _all_are_down(seen: Seen) -> None:
    """Then the hosts speak: etcd by its own certificate, and the containers' runtime."""
    found = seen.until(lambda look: not _answering(look["apiServers"]) and _no_container(look))
    assert (found["server"], found["nodes"], found["healthy"]) == ("", [], False)
    etcd = found["etcd"]
    assert (etcd["voters"], etcd["answering"], bool(etcd["leader"])) == (3, 3, True)
    parts = {part["name"]: (part["ready"], part["wanted"]) for part in found["parts"]}
    # The controllers end where they cannot renew their Leases, and are started anew: their count is not known.
    assert set(parts) == {"API server", "controller manager", "scheduler", "etcd"}
    assert (parts["API server"], parts["etcd"]) == ((0, 3), (3, 3))
    assert found["certificates"]["read"] == 3 * 14
    assert "no API server can be asked for the cluster's objects" in found["problems"]
    assert "No API server can be asked" in seen.text().splitlines()[0]
    said = seen.kubewright("status", "--kubeconfig", seen.lab.places.kubeconfig, code=ExitCode.API_ERROR)
    assert "mend:" in said.err


def _no_container(look: dict[str, Any]) -> bool:
    return not any(
        one["running"]
        for host in look["hosts"]
        for one in host["containers"] or ()
        if one["name"] == "kube-apiserver"
    )


# -- machines go --------------------------------------------------------------------------------------------------


def test_a_frozen_machine_costs_no_more_than_its_deadlines(seen: Seen) -> None:
    """It accepts connections, and says nothing more."""
    with seen.fault("freeze", "thaw", "cp3"):
        found = seen.until(lambda look: not _by_name(look["hosts"])["cp3"]["answers"])
        assert "host cp3: does not answer over SSH" in "\n".join(found["problems"])


def test_machines_are_killed_one_after_another(seen: Seen) -> None:
    victim = seen.cluster.leader()
    second, last = (name for name in PLANES if name != victim)
    with ExitStack() as killed:
        killed.enter_context(seen.fault("kill", "start", victim))
        _the_leader_is_killed(seen, victim)
        killed.enter_context(seen.fault("kill", "start", second))
        found = seen.until(lambda look: not look["etcd"]["leader"])
        assert (found["etcd"]["voters"], found["etcd"]["answering"]) == (3, 1)
        assert "etcd has no leader: 1 of 3 voters answers, 2 are needed" in found["problems"]
        assert (found["server"], found["nodes"]) == ("", [])
        killed.enter_context(seen.fault("kill", "start", last))
        _nobody_answers(seen)


def _the_leader_is_killed(seen: Seen, victim: str) -> None:
    found = seen.until(lambda look: bool(look["etcd"]["leader"]) and bool(look["server"]))
    assert found["etcd"]["leader"] not in ("", victim)
    assert (found["etcd"]["answering"], found["etcd"]["mayFail"]) == (2, 0)
    assert not _by_name(found["etcd"]["members"])[victim]["answers"]
    assert not _by_name(found["hosts"])[victim]["answers"]
    problems = "\n".join(found["problems"])
    assert f"host {victim}: " in problems
    assert f"etcd member {victim}: does not answer" in problems


def _nobody_answers(seen: Seen) -> None:
    """That is an error, with its host and its exit code; a watch shows it and goes on."""
    file = seen.lab.places.cluster_yaml
    run = seen.kubewright("status", "-f", file, code=ExitCode.HOST_UNREACHABLE)
    for name in PLANES:
        assert f"host {name}: " in run.err
    assert run.seconds < LONGEST
    first = _first_look(seen.kubewright, file)
    assert first["healthy"] is False
    assert first["error"]


def _first_look(kubewright: Kubewright, file: Path) -> dict[str, Any]:
    process: subprocess.Popen[str] = kubewright.start("status", "-f", file, "--watch", "-o", "json")
    assert process.stdout is not None
    line = process.stdout.readline()
    process.send_signal(signal.SIGINT)
    assert process.wait(20) == ExitCode.OK
    document: dict[str, Any] = json.loads(line)
    return document
