"""The cluster.yaml that a lab writes."""

from __future__ import annotations

from ipaddress import IPv4Network
from typing import Any

import yaml

from kubewright.lab.description import cluster_document, cluster_yaml, read_document
from kubewright.lab.places import Places
from kubewright.lab.plan import LabPlan, plan_machines
from kubewright.model.config.load import parse_cluster

SUBNET = IPv4Network("10.213.7.0/24")


def document(
    workers: int = 2, existing: dict[str, Any] | None = None, *, control_planes: int = 1
) -> dict[str, Any]:
    plan = LabPlan("demo", SUBNET, plan_machines(SUBNET, control_planes, workers))
    return cluster_document(plan, Places("demo"), existing)


def test_it_is_a_cluster_that_apply_takes() -> None:
    spec = parse_cluster(cluster_yaml(document()))
    assert spec.name == "kubewright-demo"
    assert [(host.name, host.address, list(host.roles)) for host in spec.hosts] == [
        ("cp1", "10.213.7.11", ["control-plane"]),
        ("w1", "10.213.7.101", ["worker"]),
        ("w2", "10.213.7.102", ["worker"]),
    ]
    assert spec.ssh.user == "root"
    assert spec.ssh.key_files == ["/var/lib/kubewright/lab/demo/id_ed25519"]
    assert spec.ssh.known_hosts == "/var/lib/kubewright/lab/demo/known_hosts"
    assert spec.kube_proxy_configuration == {"conntrack": {"maxPerCore": 0, "min": 0}}


def test_a_lab_that_begins_with_several_control_planes_has_an_endpoint() -> None:
    three = document(control_planes=3)
    spec = parse_cluster(cluster_yaml(three))
    assert spec.endpoint is not None
    assert spec.endpoint.type == "local"
    # What the user has made of it stays, with any number of machines; one that has a cluster keeps its endpoint.
    mine = three | {"endpoint": {"type": "haproxy"}}
    assert document(existing=mine, control_planes=5)["endpoint"] == {"type": "haproxy"}
    assert "endpoint" not in document(existing=document(), control_planes=3)


def test_writing_it_again_changes_nothing() -> None:
    once = cluster_yaml(document())
    assert cluster_yaml(document(existing=read_document(once))) == once


def test_what_a_user_added_stays() -> None:
    mine = document()
    mine["kubernetesVersion"] = "v1.20.2"
    mine["dns"] = {"replicas": 3}
    mine["kubeProxyConfiguration"] = {"mode": "iptables"}
    mine["hosts"][1]["labels"] = {"disk": "fast"}
    mine["hosts"][0]["address"] = "10.0.0.1"
    mine["hosts"].append({"name": "other", "address": "192.0.2.7"})
    after = document(workers=1, existing=mine)
    assert after["kubernetesVersion"] == "v1.20.2"
    assert after["dns"] == {"replicas": 3}
    assert after["kubeProxyConfiguration"] == {"mode": "iptables"}
    assert [host["name"] for host in after["hosts"]] == ["cp1", "w1", "other"]
    assert after["hosts"][1]["labels"] == {"disk": "fast"}
    assert after["hosts"][0]["address"] == "10.213.7.11", "addresses are the lab's to say"


def test_a_file_that_is_no_document_is_written_anew() -> None:
    for text in ("", "just text", "a: [", "- 1"):
        assert document(existing=read_document(text)) == document()
    assert document(existing={"hosts": "no list"}) == document()
    assert yaml.safe_load(cluster_yaml(document())) == document()
