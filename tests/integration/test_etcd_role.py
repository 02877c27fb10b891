"""etcd on hosts of its own: founded, hurt, replaced and shrunk under a cluster, and used as somebody's own."""

from __future__ import annotations

import itertools
import json
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from cluster_fixtures import ETCD, ON_MACHINES, Kubewright, copied, kill_machine, lab_of, on

from kubewright.errors import ExitCode
from kubewright.lab.lab import Lab
from kubewright.model.etcd_unit import DATA_DIR, MEMBER_DIR, PERMIT_PATH, UNIT

pytestmark = ON_MACHINES

ETCD_HOSTS = ("w1", "w2", "w3")
WORKER, SPARE, OTHER_PLANE = "w4", "w5", "w6"
GAP = 5.0
"""Seconds without a write that a lost member may cost."""
FILES = (
    "/etc/kubernetes/pki/etcd/ca.crt",
    *(f"/etc/kubernetes/pki/apiserver-etcd-client.{end}" for end in ("crt", "key")),
)


@pytest.fixture(scope="module")
def lab(kubewright: Kubewright) -> Iterator[Lab]:
    with lab_of(kubewright, ETCD, workers=6) as lab:
        yield lab


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("etcd")


def cluster_file(lab: Lab, target: Path, etcd: tuple[str, ...], **changes: Any) -> Path:
    """A cluster.yaml with one control plane, one worker, and these machines as etcd's hosts."""
    roles = {"cp1": "control-plane", WORKER: "worker"} | dict.fromkeys(etcd, "etcd")
    hosts = [
        {"name": name, "address": str(lab.machine(name).plan.address), "roles": [role]}
        for name, role in roles.items()
    ]
    return copied(lab, target / "cluster.yaml", hosts=hosts, **changes)[0]


def apply(kubewright: Kubewright, lab: Lab, file: Path, *, code: int = 0) -> list[dict[str, Any]]:
    run = kubewright(
        "apply", "-f", file, "-o", "json", "--kubeconfig", lab.places.kubeconfig, "--no-merge", code=code
    )
    return run.events


def changes(kubewright: Kubewright, file: Path) -> list[dict[str, Any]]:
    """What `apply` would still do."""
    found: list[dict[str, Any]] = kubewright("plan", "-f", file, "-o", "json").document["changes"]
    return found


def etcdctl(lab: Lab, machine: str, *arguments: str) -> Any:
    """Ask the member on a machine, as its operator would."""
    flags = "--cacert=$p/ca.crt --cert=$p/healthcheck-client.crt --key=$p/healthcheck-client.key -w json"
    script = f'p=/etc/kubernetes/pki/etcd; ETCDCTL_API=3 etcdctl {flags} "$@"'
    return json.loads(on(lab, machine, script, *arguments))


def members(lab: Lab, machine: str) -> dict[str, bool]:
    """The members' names, and whether each is a learner."""
    found = etcdctl(lab, machine, "member", "list")["members"]
    return {one.get("name", "?"): one.get("isLearner", False) for one in found}


def current(lab: Lab) -> tuple[str, ...]:
    """The machines that have a member now, whichever tests ran before."""
    for machine in (SPARE, *ETCD_HOSTS):
        try:
            return tuple(members(lab, machine))
        except AssertionError:
            continue
    raise AssertionError("no machine has a member that answers")


@pytest.fixture
def founded(kubewright: Kubewright, lab: Lab, home: Path) -> None:
    """A cluster with etcd on hosts of its own, whichever tests ran before."""
    try:
        current(lab)
    except AssertionError:
        apply(kubewright, lab, cluster_file(lab, home, ETCD_HOSTS))


def leader(lab: Lab, machines: tuple[str, ...]) -> str:
    """The machine whose member leads."""
    for machine in machines:
        [row] = etcdctl(lab, machine, "endpoint", "status")
        if row["Status"]["leader"] == row["Status"]["header"]["member_id"]:
            return machine
    raise AssertionError("no leader")


@contextmanager
def writing(lab: Lab) -> Iterator[list[float]]:
    """Write a ConfigMap ten times a second meanwhile; the moments of the writes that were acknowledged."""
    moments: list[float] = []
    over = threading.Event()
    kubectl = (
        "export KUBECONFIG=/etc/kubernetes/admin.conf; kubectl -n default patch configmap writes --type merge "
        '--request-timeout 2s -p "{\\"data\\":{\\"n\\":\\"$1\\"}}" >/dev/null'
    )
    on(lab, "cp1", "KUBECONFIG=/etc/kubernetes/admin.conf kubectl -n default create configmap writes || true")

    def write() -> None:
        number = 0
        while not over.is_set():
            number += 1
            try:
                on(lab, "cp1", kubectl, str(number))
                moments.append(time.monotonic())
            except AssertionError:
                time.sleep(0.05)

    thread = threading.Thread(target=write)
    thread.start()
    try:
        yield moments
    finally:
        over.set()
        thread.join()


def longest_gap(moments: list[float]) -> float:
    return max(after - before for before, after in itertools.pairwise(moments))


def test_a_killed_foundation_is_finished_and_the_cluster_is_whole(
    kubewright: Kubewright, lab: Lab, home: Path
) -> None:
    file = cluster_file(lab, home, ETCD_HOSTS)
    command = ("apply", "-f", file, "-o", "json", "--kubeconfig", lab.places.kubeconfig, "--no-merge")
    process = kubewright.start(*command)
    assert process.stdout is not None
    for line in process.stdout:
        event = json.loads(line)
        if event.get("name") == "etcd-found" and event["kind"] == "phase.progress":
            break  # it is being waited for: they start
    process.send_signal(signal.SIGKILL)
    process.wait()
    apply(kubewright, lab, file)
    assert members(lab, "w1") == dict.fromkeys(ETCD_HOSTS, False)
    document = kubewright("check", "-f", file, "-o", "json").document
    assert document["ok"]
    assert len(document["nodes"]) == 2
    assert changes(kubewright, file) == []


def test_the_hosts_hold_what_they_should_and_no_more(lab: Lab) -> None:
    for machine in ETCD_HOSTS:
        assert on(lab, machine, f"stat -c '%a %U' {DATA_DIR}").split() == ["700", "root"]
        assert on(lab, machine, f"systemctl is-active {UNIT}; systemctl is-enabled {UNIT}").split() == [
            "active", "enabled"
        ]  # fmt: skip
        assert on(lab, machine, "stat -c %a /etc/kubernetes/pki/etcd/*.key").split() == ["600"] * 4
        assert on(lab, machine, f"ls {PERMIT_PATH} 2>/dev/null || echo none").split() == ["none"]
        assert on(lab, machine, "pgrep -x kubelet || echo none").split() == ["none"]
    assert on(lab, "cp1", "ls /var/lib/etcd /etc/kubernetes/manifests/etcd.yaml 2>/dev/null; true") == ""
    assert on(lab, "cp1", f"stat -c %a {FILES[2]}").split() == ["600"]
    said = on(lab, "cp1", "grep etcd-servers /etc/kubernetes/manifests/kube-apiserver.yaml")
    assert said.count("https://") == 3
    one = len({on(lab, machine, "sha256sum </etc/kubernetes/pki/etcd/ca.key") for machine in ETCD_HOSTS})
    assert one == 1, "the CA is the same everywhere, for whichever host is lost"


def test_a_lost_machine_costs_the_api_a_moment_and_another_replaces_it(
    kubewright: Kubewright, lab: Lab, home: Path
) -> None:
    lost = leader(lab, ETCD_HOSTS)
    rest = tuple(machine for machine in ETCD_HOSTS if machine != lost)
    with writing(lab) as moments:
        time.sleep(3)
        kill_machine(lab, lost)
        time.sleep(12)
    assert longest_gap(moments) <= GAP
    assert moments[-1] - moments[0] > 12
    # As long as the file names it, the rest is done, and its absence is the run's failure.
    apply(kubewright, lab, cluster_file(lab, home, ETCD_HOSTS), code=ExitCode.HOST_UNREACHABLE)
    assert set(members(lab, rest[0])) == set(ETCD_HOSTS)
    file = cluster_file(lab, home, (*rest, SPARE))
    apply(kubewright, lab, file)
    assert members(lab, rest[0]) == dict.fromkeys((*rest, SPARE), False)
    assert kubewright("check", "-f", file, "-o", "json").document["ok"]
    assert changes(kubewright, file) == []


def test_a_member_whose_data_is_gone_comes_anew(kubewright: Kubewright, lab: Lab, home: Path) -> None:
    *_, broken, whole = machines = current(lab)
    before = {one["name"]: one["ID"] for one in etcdctl(lab, whole, "member", "list")["members"]}
    on(lab, broken, f"systemctl kill -s KILL {UNIT}; rm -rf {MEMBER_DIR}")
    time.sleep(3)
    state = on(lab, broken, f"systemctl is-active {UNIT} || true").strip()
    assert state in ("inactive", "failed"), (
        "with its old name and an empty disk it would have forgotten its votes"
    )
    apply(kubewright, lab, cluster_file(lab, home, machines))
    after = {one["name"]: one["ID"] for one in etcdctl(lab, whole, "member", "list")["members"]}
    assert after.keys() == before.keys()
    assert after[broken] != before[broken]
    assert not any(members(lab, whole).values())


def test_certificates_are_made_anew_before_they_end(kubewright: Kubewright, lab: Lab, home: Path) -> None:
    machine, *_ = machines = current(lab)
    path = "/etc/kubernetes/pki/etcd/server"
    script = (
        "cd /etc/kubernetes/pki/etcd; openssl x509 -in server.crt -noout -serial; "
        "openssl x509 -x509toreq -in server.crt -signkey server.key -copy_extensions copyall 2>/dev/null | "
        "openssl x509 -req -days 9 -copy_extensions copyall -CA ca.crt -CAkey ca.key 2>/dev/null >new.crt && "
        "mv new.crt server.crt"
    )
    on(lab, machine, script)
    soon = on(lab, machine, f"openssl x509 -in {path}.crt -noout -enddate")
    file = cluster_file(lab, home, machines)
    apply(kubewright, lab, file)
    assert on(lab, machine, f"openssl x509 -in {path}.crt -noout -enddate") != soon
    on(lab, machine, f"openssl x509 -in {path}.crt -noout -checkend {300 * 86400}")
    assert changes(kubewright, file) == []


def test_an_etcd_of_ones_own_is_looked_at_before_anything_is_changed(
    kubewright: Kubewright, lab: Lab, tmp_path: Path
) -> None:
    """The same etcd, as if somebody else kept it, for a second cluster."""
    machines = current(lab)
    for name, path in zip(("ca.crt", "client.crt", "client.key"), FILES, strict=True):
        (tmp_path / name).write_text(on(lab, "cp1", f"cat {path}"))
    host = {
        "name": OTHER_PLANE,
        "address": str(lab.machine(OTHER_PLANE).plan.address),
        "roles": ["control-plane"],
    }
    own = {
        "endpoints": [f"https://{lab.machine(machine).plan.address}:2379" for machine in machines],
        "caFile": "ca.crt", "certFile": "client.crt", "keyFile": "client.key",
    }  # fmt: skip

    def file(**fields: Any) -> Path:
        return copied(lab, tmp_path / "cluster.yaml", hosts=[host], name="second", etcd=own | fields)[0]

    taken = kubewright("plan", "-f", file(), code=ExitCode.HOST_IN_OTHER_CLUSTER)
    assert "holds the objects of a cluster below /registry/" in taken.err
    (tmp_path / "other.crt").write_text(on(lab, "cp1", "cat /etc/kubernetes/pki/ca.crt"))
    untrusted = kubewright("plan", "-f", file(caFile="other.crt"), code=ExitCode.HOST_NOT_FIT)
    assert "certificate verify failed" in untrusted.err
    nobody = [f"https://{lab.machine(OTHER_PLANE).plan.address}:{port}" for port in (2379, 2380)]
    away = kubewright(
        "plan", "-f", file(endpoints=[own["endpoints"][0], *nobody]), code=ExitCode.HOST_NOT_FIT
    )
    assert "2 of etcd's 3 endpoints do not serve it" in away.err
    assert on(lab, OTHER_PLANE, "ls /etc/kubernetes 2>/dev/null; true").split() == []

    other = {"apiServer": {"extraArgs": {"etcd-prefix": "/second"}}}
    target, _ = copied(
        lab, tmp_path / "cluster.yaml", hosts=[host], name="second", etcd=own, clusterConfiguration=other
    )
    kubewright("apply", "-f", target, "--no-merge")
    assert on(lab, OTHER_PLANE, f"stat -c %a {FILES[2]}").split() == ["600"]
    nodes = on(lab, OTHER_PLANE, "KUBECONFIG=/etc/kubernetes/admin.conf kubectl get nodes -o name")
    assert nodes.split() == [f"node/{OTHER_PLANE}"]
    assert changes(kubewright, target) == []


def test_an_etcd_is_not_switched_under_a_cluster(kubewright: Kubewright, lab: Lab, tmp_path: Path) -> None:
    """Without etcd's hosts in the file the control plane would begin an empty one of its own."""
    stacked = kubewright("plan", "-f", cluster_file(lab, tmp_path, ()), code=ExitCode.HOST_IN_OTHER_CLUSTER)
    assert "cluster.yaml has another one" in stacked.err


@pytest.mark.soak
@pytest.mark.usefixtures("founded")
def test_the_majority_is_not_given_away(kubewright: Kubewright, lab: Lab, home: Path) -> None:
    """Two of three members lost at once: nothing is taken out, and the way back is to start them."""
    *_, stays = machines = current(lab)
    down = [machine for machine in machines if machine != stays]
    for machine in down:
        on(lab, machine, f"systemctl stop {UNIT}; mv {MEMBER_DIR} {DATA_DIR}/kept")
    failed = kubewright(
        "apply", "-f", cluster_file(lab, home, (stays,)), "--no-merge", code=ExitCode.TIMED_OUT, timeout=200
    )
    assert "the majority of etcd's members" in failed.err
    for machine in down:
        on(lab, machine, f"mv {DATA_DIR}/kept {MEMBER_DIR}; systemctl start --no-block {UNIT}")
    apply(kubewright, lab, cluster_file(lab, home, machines))
    assert members(lab, stays) == dict.fromkeys(machines, False)


@pytest.mark.soak
@pytest.mark.usefixtures("founded")
def test_hosts_that_have_left_come_back_without_their_old_data(
    kubewright: Kubewright, lab: Lab, home: Path
) -> None:
    *_, stays = machines = current(lab)
    alone = cluster_file(lab, home, (stays,))
    shrunk = apply(kubewright, lab, alone)
    assert any("one member" in event["message"] for event in shrunk if event["kind"] == "warning")
    assert members(lab, stays) == {stays: False}
    assert changes(kubewright, alone) == []
    whole = cluster_file(lab, home, machines)
    refused = kubewright("apply", "-f", whole, "--no-merge", code=ExitCode.HOST_NOT_FIT)
    assert "the data of a member that has left" in refused.err
    for machine in machines:
        if machine != stays:
            on(lab, machine, f"systemctl stop {UNIT}; mv {MEMBER_DIR} {DATA_DIR}/member.old")
    apply(kubewright, lab, whole)
    assert members(lab, stays) == dict.fromkeys(machines, False)
    assert changes(kubewright, whole) == []
