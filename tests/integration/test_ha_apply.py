"""Several control planes by `apply`: at once from nothing, with a dead one among them, and added to another."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml
from cluster_fixtures import (
    GROWN,
    ON_MACHINES,
    THREE,
    Kubewright,
    Run,
    check_is_green,
    client,
    kill_machine,
    on,
    written,
)
from ha_cluster import HaCluster

from kubewright.clients.kube import KubeClient
from kubewright.errors import ExitCode
from kubewright.lab.lab import Lab, open_lab
from kubewright.model import x509
from kubewright.model.objects import SYSTEM

pytestmark = ON_MACHINES

PLANES, WORKERS = ["cp1", "cp2", "cp3"], ["w1", "w2"]
NODES = [*PLANES, *WORKERS]
ENDPOINT = "https://127.0.0.1:6444"
MANIFEST = "/etc/kubernetes/manifests/etcd.yaml"


def no_changes(kubewright: Kubewright, file: Path) -> None:
    """A further run would find nothing to do."""
    assert kubewright("plan", "-f", file, "-o", "json").document["changes"] == []


def whole(lab: Lab, planes: list[str], workers: list[str]) -> HaCluster:
    """The cluster, when all members, API servers, Nodes and Pods are well and none is left of others."""
    cluster = HaCluster(lab, lab.places.kubeconfig, planes, workers)
    cluster.healed()
    return cluster


def events_of(run: Run, name: str) -> list[dict[str, Any]]:
    return [event for event in run.events if event.get("name") == name]


# -- three at once ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def made(kubewright: Kubewright) -> Iterator[Run]:
    """The command that made three control planes and two workers of nothing."""
    kubewright("lab", "down", THREE)
    yield kubewright(
        "lab", "up", "--name", THREE, "--control-planes", "3", "--workers", "2", "-o", "json", timeout=600
    )
    kubewright("lab", "down", THREE, code=None)


@pytest.fixture(scope="module")
def three(made: Run) -> Lab:
    return open_lab(THREE)


async def test_all_serve_and_nobody_waited_for_another(kubewright: Kubewright, made: Run, three: Lab) -> None:
    check_is_green(kubewright, three, len(NODES))
    no_changes(kubewright, three.places.cluster_yaml)
    whole(three, PLANES, WORKERS)
    assert not [event for event in made.events if event["kind"] == "phase.failed"]
    # Nobody has joined etcd: each began it with the same others.
    assert not events_of(made, "etcd")
    clusters = {on(three, name, f"grep -e --initial-cluster {MANIFEST}") for name in PLANES}
    [said] = clusters
    assert said.count("=https://") == len(PLANES)
    assert "--initial-cluster-state=new" in said
    # The API servers were waited for at the same time.
    waits = events_of(made, "wait-control-plane")
    last_begun = max(event["at"] for event in waits if event["kind"] == "phase.started")
    assert last_begun < min(event["at"] for event in waits if event["kind"] == "phase.skipped")


async def test_all_hold_the_endpoint_and_no_single_api_server(three: Lab) -> None:
    """P30."""
    for name in NODES:
        files = ["kubelet.conf"] + (["admin.conf"] if name in PLANES else [])
        for file in files:
            assert server_of(on(three, name, f"cat /etc/kubernetes/{file}")) == ENDPOINT
    for name in PLANES:
        for file in (
            "controller-manager.conf",
            "scheduler.conf",
        ):  # their own node's, so that versions never mix
            own = f"https://{three.machine(name).plan.address}:6443"
            assert server_of(on(three, name, f"cat /etc/kubernetes/{file}")) == own
    async with client(three) as kube:
        assert server_of(await config_map(kube, SYSTEM, "kube-proxy", "kubeconfig.conf")) == ENDPOINT
        assert server_of(await config_map(kube, "kube-public", "cluster-info", "kubeconfig")) == ENDPOINT
        configuration = yaml.safe_load(
            await config_map(kube, SYSTEM, "kubeadm-config", "ClusterConfiguration")
        )
        assert configuration["controlPlaneEndpoint"] == ENDPOINT.removeprefix("https://")
        status = yaml.safe_load(await config_map(kube, SYSTEM, "kubeadm-config", "ClusterStatus"))
    assert {name: row["advertiseAddress"] for name, row in status["apiEndpoints"].items()} == {
        name: str(three.machine(name).plan.address) for name in PLANES
    }


def server_of(kubeconfig: str) -> str:
    return str(yaml.safe_load(kubeconfig)["clusters"][0]["cluster"]["server"])


async def config_map(kube: KubeClient, namespace: str, name: str, key: str) -> str:
    found = await kube.get("v1", "ConfigMap", name, namespace)
    assert found is not None
    return str(found["data"][key])


def test_each_certificate_has_its_own_names_and_the_endpoints(three: Lab) -> None:
    """P26."""
    keys = set()
    for name in PLANES:
        pem = on(three, name, "cat /etc/kubernetes/pki/apiserver.crt").encode()
        said = x509.description(pem)
        for wanted in (name, str(three.machine(name).plan.address), "127.0.0.1", "10.96.0.1"):
            assert wanted in said.replace(",", " ").split(), f"{name}: {wanted} is missing in {said}"
        keys.add(x509.ca_hash(pem))
    assert len(keys) == len(PLANES)
    shared = "cd /etc/kubernetes/pki && cat ca.* sa.* front-proxy-ca.* etcd/ca.* | sha256sum"
    assert len({on(three, name, shared) for name in PLANES}) == 1


async def test_control_planes_take_no_pods_of_users(three: Lab) -> None:
    """P29; and DNS is spread over nodes (P05), and one controller manager and scheduler lead."""
    async with client(three) as kube:
        nodes = {node["metadata"]["name"]: node for node in await kube.list("v1", "Node")}
        assert sorted(nodes) == NODES
        for name, node in nodes.items():
            roles = {key for key in node["metadata"]["labels"] if key.startswith("node-role.kubernetes.io/")}
            taints = [taint["effect"] for taint in node["spec"].get("taints") or []]
            if name in PLANES:
                assert roles == {"node-role.kubernetes.io/master", "node-role.kubernetes.io/control-plane"}
                assert taints == ["NoSchedule"]
            else:
                assert (roles, taints) == (set(), [])
            address = three.machine(name).plan.address
            assert node["metadata"]["annotations"]["kubewright.dev/host"] == f"root@{address}"
        servers = await kube.list("v1", "Pod", SYSTEM, labels="k8s-app=kube-dns")
        assert len({pod["spec"]["nodeName"] for pod in servers}) == 2
        for lease in ("kube-controller-manager", "kube-scheduler"):
            found = await kube.get("coordination.k8s.io/v1", "Lease", lease, SYSTEM)
            assert found is not None
            assert found["spec"]["holderIdentity"].partition("_")[0] in PLANES


async def test_the_first_host_is_dead_and_the_rest_is_done(
    kubewright: Kubewright, three: Lab, tmp_path: Path
) -> None:
    """The file's first host: the cluster is asked through another. What is asked for on the others is done."""
    document = yaml.safe_load(three.places.cluster_yaml.read_text())
    labelled = [
        host | ({"labels": {"disk": "fast"}} if host["name"] == "w1" else {}) for host in document["hosts"]
    ]
    file = written(tmp_path / "cluster.yaml", document | {"hosts": labelled})
    kill_machine(three, "cp1")
    run = kubewright(
        "apply", "-f", file, "--kubeconfig", tmp_path / "config", "--no-merge",
        code=ExitCode.HOST_UNREACHABLE,
    )  # fmt: skip
    errors = [line for line in run.err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1, run.err
    assert "cp1" in errors[0]
    kubeconfig = yaml.safe_load((tmp_path / "config").read_text())
    assert str(three.machine("cp1").plan.address) not in kubeconfig["clusters"][0]["cluster"]["server"]
    kubewright("lab", "up", "--name", THREE, "--workers", "2", timeout=600)
    whole(three, PLANES, WORKERS)
    no_changes(kubewright, three.places.cluster_yaml)
    async with client(three) as kube:
        node = await kube.get("v1", "Node", "w1")
    assert node is not None
    assert node["metadata"]["labels"]["disk"] == "fast"


@pytest.mark.soak
def test_a_flag_that_stops_one_api_server_stops_no_second(
    kubewright: Kubewright, three: Lab, tmp_path: Path
) -> None:
    """Nor does the next run with it; and without it the one that fell serves again."""
    document = yaml.safe_load(three.places.cluster_yaml.read_text())
    wrong = {"apiServer": {"extraArgs": {"no-such-flag": "1"}}}
    file = written(tmp_path / "cluster.yaml", document | {"clusterConfiguration": wrong})
    for _ in range(2):
        apply(kubewright, three, file, code=ExitCode.TIMED_OUT)
        manifests = {
            name: on(three, name, "cat /etc/kubernetes/manifests/kube-apiserver.yaml") for name in PLANES
        }
        [fallen] = [name for name, text in manifests.items() if "no-such-flag" in text]
        cluster = HaCluster(three, three.places.kubeconfig, PLANES, WORKERS)
        for name in set(PLANES) - {fallen}:
            cluster.api("/readyz", machine=name)
    apply(kubewright, three, three.places.cluster_yaml)
    whole(three, PLANES, WORKERS)
    no_changes(kubewright, three.places.cluster_yaml)


# -- interrupted, cut off, grown ----------------------------------------------------------------------------------


@pytest.fixture
def machines(kubewright: Kubewright) -> Iterator[Lab]:
    """Three machines for control planes, on which nothing has been done yet; those of the tests above are done."""
    kubewright("lab", "down", THREE)
    kubewright("lab", "down", GROWN)
    kubewright(
        "lab",
        "up",
        "--name",
        GROWN,
        "--control-planes",
        "3",
        "--workers",
        "0",
        "--machines-only",
        timeout=600,
    )
    yield open_lab(GROWN)
    kubewright("lab", "down", GROWN, code=None)


def test_an_interrupted_foundation_is_finished_by_the_next(kubewright: Kubewright, machines: Lab) -> None:
    """Killed when the first of three control planes had its manifests: it has begun a cluster of three."""
    process = kubewright.start("apply", "-f", machines.places.cluster_yaml, "--no-merge", "-o", "json")
    assert process.stdout is not None
    with process.stdout as stream:
        for line in stream:
            event = json.loads(line)
            if event.get("name") == "control-plane" and event["kind"] == "phase.done":
                break
        process.kill()
        process.wait()
    begun = [name for name in PLANES if on(machines, name, f"[ ! -e {MANIFEST} ] || echo yes")]
    print(f"\nbegun by {', '.join(begun)}")
    apply(kubewright, machines, machines.places.cluster_yaml)
    whole(machines, PLANES, [])
    no_changes(kubewright, machines.places.cluster_yaml)


def apply(kubewright: Kubewright, lab: Lab, file: Path, *options: str, code: int = 0) -> Run:
    """Its kubeconfig is where the lab's own is."""
    written_to = ("--kubeconfig", lab.places.kubeconfig, "--no-merge")
    return kubewright("apply", "-f", file, *written_to, *options, code=code, timeout=600)


@contextmanager
def etcd_refused(cluster: HaCluster, name: str) -> Iterator[None]:
    """Let a Node look as a new one may for its first seconds, without ephemeral storage, until its kubelet has not
    admitted etcd for it (kubernetes/kubernetes#99305); it would not try again."""
    no_storage = {"ephemeral-storage": None}
    change = {"status": {"capacity": no_storage, "allocatable": no_storage}}
    refusals = f"journalctl -u kubelet --no-pager | grep -c 'Failed to admit pod etcd-{name}_' || true"
    before = int(on(cluster.lab, name, refusals))
    ended = threading.Event()

    def refuse() -> None:
        while int(on(cluster.lab, name, refusals)) == before and not ended.is_set():
            cluster.api(f"/api/v1/nodes/{name}/status", method="PATCH", body=change)
            time.sleep(0.1)

    with ThreadPoolExecutor(1) as pool:
        thread = pool.submit(refuse)
        try:
            yield
        finally:
            ended.set()
        thread.result()
    assert int(on(cluster.lab, name, refusals)) > before


def test_one_grows_to_three_though_one_was_cut_off(
    kubewright: Kubewright, machines: Lab, tmp_path: Path
) -> None:
    """cp2 cannot reach etcd's members: that is refused before anything is done. Where this check is ignored, it is
    told before cp2 is announced, cp3 comes all the same, and when the network is mended the next run brings cp2,
    too, though its kubelet refuses etcd's Pod."""
    document = yaml.safe_load(machines.places.cluster_yaml.read_text())
    one = written(tmp_path / "one.yaml", document | {"hosts": document["hosts"][:1]})
    apply(kubewright, machines, one)
    whole(machines, ["cp1"], [])

    blocked = "OUTPUT -p tcp --dport 2380 -j DROP"
    on(machines, "cp2", f"iptables -I {blocked}")
    run = apply(kubewright, machines, machines.places.cluster_yaml, code=ExitCode.HOST_NOT_FIT)
    assert "PortReach" in run.err
    assert "2380" in run.err
    whole(machines, ["cp1"], [])

    ignored = "--ignore-preflight-errors=PortReach"
    run = apply(kubewright, machines, machines.places.cluster_yaml, ignored, code=ExitCode.HOST_NOT_FIT)
    assert "cp2 cannot reach members of etcd" in run.err
    assert f"https://{machines.machine('cp1').plan.address}:2380" in run.err.partition("cp2 cannot reach")[2]
    cluster = HaCluster(machines, machines.places.kubeconfig, ["cp1", "cp3"], [])
    names = [member["name"] for member in cluster.etcd("cp1", "cluster/member/list")["members"]]
    assert sorted(names) == ["cp1", "cp3"], "nothing was announced that did not come"

    on(machines, "cp2", f"iptables -D {blocked}")
    started = time.monotonic()
    with etcd_refused(cluster, "cp2"):
        apply(kubewright, machines, machines.places.cluster_yaml)
    print(f"\none more control plane, which is refused at first, in {time.monotonic() - started:.1f} s")
    whole(machines, PLANES, [])
    check_is_green(kubewright, machines, len(PLANES))
    no_changes(kubewright, machines.places.cluster_yaml)
    states = [
        on(machines, name, f"grep -c -e --initial-cluster-state=existing {MANIFEST} || true")
        for name in PLANES
    ]
    assert [int(state) for state in states] == [0, 1, 1]
