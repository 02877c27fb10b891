"""Three control planes and two workers, made by one `apply` out of nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from cluster_fixtures import (
    ON_MACHINES,
    THREE,
    Kubewright,
    Run,
    check_is_green,
    client,
    kill_machine,
    no_changes,
    on,
    written,
)
from ha_cluster import HaCluster, apply, whole

from kubewright.clients.kube import KubeClient
from kubewright.errors import ExitCode
from kubewright.lab.lab import Lab
from kubewright.model import x509
from kubewright.model.objects import SYSTEM

pytestmark = ON_MACHINES

PLANES, WORKERS = ["cp1", "cp2", "cp3"], ["w1", "w2"]
NODES = [*PLANES, *WORKERS]
ENDPOINT = "https://127.0.0.1:6444"
MANIFEST = "/etc/kubernetes/manifests/etcd.yaml"


def events_of(run: Run, name: str) -> list[dict[str, Any]]:
    return [event for event in run.events if event.get("name") == name]


async def test_all_serve_and_nobody_waited_for_another(
    kubewright: Kubewright, made_at_once: Run, three: Lab
) -> None:
    check_is_green(kubewright, three, len(NODES))
    no_changes(kubewright, three.places.cluster_yaml)
    whole(three, PLANES, WORKERS)
    assert not [event for event in made_at_once.events if event["kind"] == "phase.failed"]
    # Nobody has joined etcd: each began it with the same others.
    assert not events_of(made_at_once, "etcd")
    clusters = {on(three, name, f"grep -e --initial-cluster {MANIFEST}") for name in PLANES}
    [said] = clusters
    assert said.count("=https://") == len(PLANES)
    assert "--initial-cluster-state=new" in said
    # The API servers were waited for at the same time.
    waits = events_of(made_at_once, "wait-control-plane")
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
