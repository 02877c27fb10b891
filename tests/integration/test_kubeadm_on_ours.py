"""Our `init`, and then the real kubeadm: it joins a worker and two control planes, and keeps what we made."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import kubeadm_machines as machines
import pytest
from cluster_fixtures import MIXED, ON_MACHINES, Kubewright, lab_of, on
from init_configurations import KEY, SOCKET, TOKEN, joinable
from kubeadm_machines import KUBECTL, kubeadm
from parity_snapshot import differences, joined_snapshot
from tools.parity.differences import JOINED, Difference

from kubewright.lab.lab import Lab

pytestmark = ON_MACHINES

PLANES = ["cp1", "w1", "w2", "w5"]

seen_joined: set[Difference] = set()


@pytest.fixture(scope="module")
async def mixed(kubewright: Kubewright, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Lab]:
    """cp1 made by us; w1 (with the certificate key), w2 (with copied certificates) and w3 joined by kubeadm; w4
    and w5 (with the certificate key) by us, too.

    Ours is the second control plane: where kubeadm 1.20 brings the second member of etcd, there is no majority for
    seconds, and watches that the API server opens just then may stay deaf until they end, minutes later: also in a
    cluster that kubeadm alone has made."""
    with lab_of(kubewright, MIXED, workers=5) as lab:
        await machines.prepare(lab, control_planes=PLANES)
        address = str(lab.machine("cp1").plan.address)
        config = tmp_path_factory.mktemp("config") / "kubeadm.yaml"
        config.write_text(joinable(address, networking={"podSubnet": "10.244.0.0/16"}))
        machines.kubewright_on(
            kubewright, lab, "cp1", "init", "--config", config, "--upload-certs", "--skip-phases=preflight"
        )
        join = ["join", f"{address}:6443", "--token", TOKEN]
        join += ["--discovery-token-ca-cert-hash", machines.ca_hash(lab)]
        join += ["--cri-socket", SOCKET, "--skip-phases=preflight"]
        machines.until_signed(lab, "cp1")
        machines.kubewright_on(kubewright, lab, "w5", *join, "--control-plane", "--certificate-key", KEY)
        with ThreadPoolExecutor(2) as pool:
            worker = pool.submit(kubeadm, lab, "w3", *join)
            other = pool.submit(machines.kubewright_on, kubewright, lab, "w4", *join)
            kubeadm(lab, "w1", *join, "--control-plane", "--certificate-key", KEY)
            machines.copy_tree(lab, "cp1", "w2", "/etc/kubernetes", machines.SHARED)
            kubeadm(lab, "w2", *join, "--control-plane")
            worker.result()
            other.result()
        await machines.apply_network(lab, dns=False)
        yield lab


def test_all_nodes_are_ready(mixed: Lab) -> None:
    """With the pod network applied; the control planes carry kubeadm's marks whoever made them."""
    said = on(mixed, "cp1", f"{KUBECTL} wait node --all --for=condition=Ready --timeout=60s")
    assert said.count("condition met") == 6
    planes = on(mixed, "cp1", f"{KUBECTL} get node -l node-role.kubernetes.io/master -o name").split()
    assert planes == [f"node/{name}" for name in PLANES]


def test_kubeadm_knows_all_control_planes(mixed: Lab) -> None:
    assert sorted(machines.api_endpoints(mixed)) == PLANES
    assert sorted(re.findall(r"started, (\w+)", on(mixed, "cp1", _MEMBERS))) == PLANES


_PKI = "/etc/kubernetes/pki/etcd"
_MEMBERS = (
    f"ctr -n k8s.io run --rm --net-host --mount type=bind,src={_PKI},dst={_PKI},options=rbind:ro "
    "$(ctr -n k8s.io images ls -q | grep -m1 ^k8s.gcr.io/etcd:) members etcdctl "
    f"--endpoints=https://127.0.0.1:2379 --cacert={_PKI}/ca.crt --cert={_PKI}/server.crt "
    f"--key={_PKI}/server.key member list"
)
"""Not by `kubectl exec`: a kubelet may be late with the Pod that stands for a static one."""


@pytest.mark.parametrize(("theirs", "ours"), [("w3", "w4"), ("w1", "w5")], ids=["worker", "control-plane"])
def test_a_node_that_we_joined_is_as_one_that_kubeadm_joined(mixed: Lab, theirs: str, ours: str) -> None:
    found = differences(*(joined_snapshot(mixed, machine, "cp1") for machine in (theirs, ours)))
    assert [line for line in found if not any(item.covers(line) for item in JOINED)] == []
    seen_joined.update(item for item in JOINED for line in found if item.covers(line))


def test_every_listed_difference_of_joined_nodes_is_seen(mixed: Lab) -> None:
    assert [item.where for item in JOINED if item not in seen_joined] == []


def test_kubeadm_renews_certificates(mixed: Lab) -> None:
    """On our control plane and on one that it joined itself."""
    for machine in PLANES[:2]:
        said = kubeadm(mixed, machine, "certs", "renew", "all")
        assert said.count("renewed") == 10, said
        assert "MISSING" not in said


def test_kubeadm_plans_an_upgrade(mixed: Lab) -> None:
    """It finds the cluster sound (a Job of it runs), and knows each component by its version."""
    said = kubeadm(mixed, "cp1", "upgrade", "plan", "v1.20.5")
    assert re.findall(r"^[WE]\d{4} .*|.*(?:WARNING|ERROR).*", said, re.M) == []
    rows = dict(re.findall(r"^(\S+) +(\S.*?) +v?[\d.-]+(?: +no)?$", said, re.M))
    assert rows["kubelet"] == "6 x v1.20.2"
    assert rows["kube-apiserver"] == rows["kube-proxy"] == "v1.20.2"
    assert (rows["CoreDNS"], rows["etcd"]) == ("1.7.0", "3.4.13-0")
    assert re.findall(r"^(\S+\.config\.k8s\.io) .* (yes|no)$", said, re.M) == [
        ("kubeproxy.config.k8s.io", "no"), ("kubelet.config.k8s.io", "no"),
    ]  # fmt: skip
    # Without a version it asks the internet for the newest one, and says of its own cluster, too, that it cannot.
    warned = re.findall(
        r"^[WE]\d{4} .*|.*(?:WARNING|ERROR).*", kubeadm(mixed, "cp1", "upgrade", "plan"), re.M
    )
    assert [line for line in warned if "version.go" not in line] == []


async def test_check_is_green(mixed: Lab, kubewright: Kubewright, tmp_path: Path) -> None:
    await machines.apply_dns(mixed)
    for workload in ("daemonset/kube-proxy", "daemonset/kubewright-network", "deployment/coredns"):
        on(mixed, "cp1", f"{KUBECTL} -n kube-system rollout status {workload} --timeout=60s")
    config = tmp_path / "kubeconfig"
    config.write_text(on(mixed, "cp1", "cat /etc/kubernetes/admin.conf"))
    document: dict[str, Any] = kubewright("check", "--kubeconfig", config, "-o", "json").document
    assert document["ok"]
    assert len(document["nodes"]) == 6
