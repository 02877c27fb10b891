"""A cluster behind a virtual IP: everything uses it, its load balancers are no Nodes, and no other may have it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from cluster_fixtures import ENDPOINT, ON_MACHINES, Kubewright, check_is_green, client, lab_of, on, written

from kubewright.errors import ExitCode
from kubewright.lab.lab import Lab
from kubewright.model.node import split_endpoint

pytestmark = ON_MACHINES

ROLES = {"cp1": ["control-plane"], "w1": ["worker"], "w2": ["load-balancer"], "w3": ["load-balancer"]}
PORTS = "ss -Hltn 'sport = :6443'"


@pytest.fixture(scope="module")
def lab(kubewright: Kubewright) -> Iterator[Lab]:
    """The cluster, and a machine that is in none."""
    with lab_of(kubewright, ENDPOINT, workers=4) as found:
        document = yaml.safe_load(found.places.cluster_yaml.read_text())
        document["hosts"] = [
            host | {"roles": ROLES[host["name"]]} for host in document["hosts"] if host["name"] in ROLES
        ]
        document["endpoint"] = {
            "type": "keepalived",
            "address": str(found.plan.subnet[250]),
            "proxy": "nginx",
        }
        written(found.places.cluster_yaml, document)
        kubewright("apply", "-f", found.places.cluster_yaml, "--kubeconfig", found.places.kubeconfig)
        yield found


def address(lab: Lab) -> str:
    return f"{lab.plan.subnet[250]}:6443"


def changed(lab: Lab, target: Path, **fields: Any) -> Path:
    document = yaml.safe_load(lab.places.cluster_yaml.read_text())
    return written(target, document | fields)


async def test_load_balancers_are_no_nodes(lab: Lab) -> None:
    async with client(lab) as kube:
        assert {node["metadata"]["name"] for node in await kube.list("v1", "Node")} == {"cp1", "w1"}
    assert on(lab, "w2", "systemctl is-active kubelet || true").strip() == "inactive"


def test_everything_uses_the_endpoint(lab: Lab) -> None:
    url = f"https://{address(lab)}"
    assert yaml.safe_load(lab.places.kubeconfig.read_text())["clusters"][0]["cluster"]["server"] == url
    for machine in ("cp1", "w1"):
        assert f"server: {url}" in on(lab, machine, "cat /etc/kubernetes/kubelet.conf")
    names = on(lab, "cp1", "openssl x509 -noout -ext subjectAltName -in /etc/kubernetes/pki/apiserver.crt")
    for name in (split_endpoint(address(lab))[0], "w2", "w3", str(lab.machine("w3").plan.address)):
        assert f":{name}" in names.replace(",", "\n"), f"{name} is not in the certificate (P26): {names}"


def test_the_cluster_is_green_and_a_second_run_changes_nothing(kubewright: Kubewright, lab: Lab) -> None:
    check_is_green(kubewright, lab, 2)
    assert kubewright("plan", "-f", lab.places.cluster_yaml, "-o", "json").document["changes"] == []


def test_status_shows_the_load_balancers(kubewright: Kubewright, lab: Lab) -> None:
    document = kubewright("status", "-f", lab.places.cluster_yaml, "-o", "json").document
    rows = document["loadBalancers"]
    assert {(row["host"], row["kind"]) for row in rows} == {
        (host, kind) for host in ("w2", "w3") for kind in ("nginx", "keepalived")
    }
    assert all(row["runs"] and not row["problem"] for row in rows)
    assert [row["backends"][0]["up"] for row in rows if row["kind"] == "nginx"] == [True, True]
    assert sorted(row["hasAddress"] for row in rows if row["kind"] == "keepalived") == [False, True]


def test_another_cluster_may_not_have_its_endpoint(kubewright: Kubewright, lab: Lab, tmp_path: Path) -> None:
    hosts = [{"name": "w4", "address": str(lab.machine("w4").plan.address), "roles": ["control-plane"]}]
    file = changed(lab, tmp_path / "cluster.yaml", name="other", hosts=hosts, endpoint=address(lab))
    refused = kubewright("apply", "-f", file, code=ExitCode.HOST_IN_OTHER_CLUSTER)
    assert "answers with another cluster's certificate" in refused.err
    assert "issued by CN=kubernetes" in refused.err
    assert on(lab, "w4", "ls /etc/kubernetes/pki 2>/dev/null || true") == "", "nothing has been changed"


def test_another_endpoint_is_refused(kubewright: Kubewright, lab: Lab, tmp_path: Path) -> None:
    file = changed(lab, tmp_path / "cluster.yaml", endpoint={"type": "local"})
    document = yaml.safe_load(file.read_text())
    document["hosts"] = [host for host in document["hosts"] if "load-balancer" not in host["roles"]]
    refused = kubewright("plan", "-f", written(file, document), code=ExitCode.CONFIG_INVALID)
    assert f"its cluster is reached at https://{address(lab)}" in refused.err


def test_a_host_that_loses_its_role_has_nothing_left(kubewright: Kubewright, lab: Lab) -> None:
    before = lab.places.cluster_yaml.read_text()
    document = yaml.safe_load(before)
    for host in document["hosts"]:
        if host["name"] == "w3":
            host["roles"] = ["worker"]
    written(lab.places.cluster_yaml, document)
    kubewright("apply", "-f", lab.places.cluster_yaml)
    assert on(lab, "w3", f"ls /etc/kubewright 2>/dev/null; {PORTS}") == ""
    # A watch over the host that has left is only listened to: client-go finds out by its ping, after 45 s at most.
    end = time.monotonic() + 60
    while (run := kubewright("check", "-f", lab.places.cluster_yaml, code=None)).code:
        assert time.monotonic() < end, str(run)
    check_is_green(kubewright, lab, 3)
