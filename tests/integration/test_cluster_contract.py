"""The contract: what is on the hosts and in the cluster is what kubeadm would take for its own, and what the
pitfalls demand beyond that."""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from cluster_fixtures import ON_MACHINES, Kubewright, client, dns_servers, on, put, until_on
from kubeadm_machines import kubewright_on

from kubewright.lab.lab import Lab

pytestmark = ON_MACHINES

KUBEADM = "KUBECONFIG=/etc/kubernetes/admin.conf /run/kubeadm"
KUBELET_CERTIFICATE = "/var/lib/kubelet/pki/kubelet-client-current.pem"
MOST_VERBOSE = 2


@pytest.fixture(scope="module")
def kubeadm(cluster: Lab, real_kubeadm: Path) -> Lab:
    """The cluster, with the real kubeadm 1.20.2 on its control plane."""
    put(cluster, "cp1", real_kubeadm, "/run/kubeadm")
    return cluster


# -- the real kubeadm -----------------------------------------------------------------------------------------


def test_kubeadm_reads_the_tokens(kubeadm: Lab) -> None:
    """The token of the run that joined the workers is gone."""
    assert on(kubeadm, "cp1", f"{KUBEADM} token list").strip() == ""
    token = on(kubeadm, "cp1", f"{KUBEADM} token create --ttl 5m").strip()
    try:
        assert token in on(kubeadm, "cp1", f"{KUBEADM} token list")
    finally:
        on(kubeadm, "cp1", f"{KUBEADM} token delete {token.partition('.')[0]}")


def test_kubeadm_reads_the_certificates(kubeadm: Lab) -> None:
    said = on(kubeadm, "cp1", f"{KUBEADM} certs check-expiration 2>&1")
    assert "FYI: You can look at this config file" in said  # it took kubeadm-config out of the cluster
    assert said.count(" 364d ") == 10
    assert said.count(" 9y ") == 3
    assert "MISSING" not in said
    assert "externally managed" not in re.sub("EXTERNALLY MANAGED", "", said)


def test_kubeadm_reads_its_configuration(kubeadm: Lab, kubewright: Kubewright) -> None:
    text = on(kubeadm, "cp1", f"{KUBEADM} config view 2>/dev/null")
    assert kubewright_on(kubewright, kubeadm, "cp1", "config", "view").out == text
    config = yaml.safe_load(text)
    assert config["kind"] == "ClusterConfiguration"
    assert config["kubernetesVersion"] == "v1.20.2"
    assert config["networking"]["podSubnet"] == "10.244.0.0/16"


def test_kubeadm_would_join_a_node(kubeadm: Lab) -> None:
    """Its discovery takes our cluster-info, signature and CA hash; the dry run ends before the kubelet's part."""
    command = on(kubeadm, "cp1", f"{KUBEADM} token create --ttl 5m --print-join-command 2>/dev/null").split()
    token = command[command.index("--token") + 1]
    script = " ".join(
        ["/run/kubeadm join phase preflight", *command[2:], "--v=1 --ignore-preflight-errors=all"]
    )
    try:
        said = on(kubeadm, "cp1", f"timeout 30 {script} --cri-socket /run/containerd/containerd.sock 2>&1")
    finally:
        on(kubeadm, "cp1", f"{KUBEADM} token delete {token.partition('.')[0]}")
    assert "signature and contents are valid and TLS certificate validates against pinned roots" in said
    assert "Reading configuration from the cluster" in said


def test_kubeadm_plans_an_upgrade(kubeadm: Lab) -> None:
    """Whatever serves cluster DNS: it takes its version from the Deployment, and asks for a Corefile."""
    said = on(kubeadm, "cp1", f"{KUBEADM} upgrade plan v1.20.5 2>&1")
    assert re.findall(r"^[WE]\d{4} .*|.*(?:WARNING|ERROR).*", said, re.M) == []
    assert re.findall(r"^(CoreDNS|etcd) +(\S+)", said, re.M) == [("CoreDNS", "1.7.0"), ("etcd", "3.4.13-0")]


async def test_apply_takes_the_addons_back_that_kubeadm_wrote_over_it(
    kubeadm: Lab, kubewright: Kubewright
) -> None:
    """`init phase addon all` replaces what serves cluster DNS by CoreDNS, which has no image here."""
    view, phase = f"{KUBEADM} config view 2>/dev/null", f"{KUBEADM} init phase addon all"
    script = f"{view} > /run/cluster.yaml; {phase} --config /run/cluster.yaml"
    async with client(kubeadm) as kube:
        before = await kube.get("apps/v1", "Deployment", "coredns", "kube-system")
        assert on(kubeadm, "cp1", f"{script} 2>&1").count("Applied essential addon") == 2
        kubewright("apply", "-f", kubeadm.places.cluster_yaml)
        after = await kube.get("apps/v1", "Deployment", "coredns", "kube-system")
    assert before is not None
    assert after is not None
    [ours], [again] = (obj["spec"]["template"]["spec"]["containers"] for obj in (before, after))
    assert again.pop("volumeMounts")  # which harms nobody
    ours.pop("volumeMounts", None)
    assert again == ours


# -- certificates and requests --------------------------------------------------------------------------------


def test_each_kubelets_own_certificate_rotates(cluster: Lab) -> None:
    """P23: the file that the kubelet replaces is the one that its kubeconfig names."""
    for machine in cluster.machines:
        config = yaml.safe_load(on(cluster, machine.name, "cat /etc/kubernetes/kubelet.conf"))
        [user] = config["users"]
        assert user["user"] == {"client-certificate": KUBELET_CERTIFICATE, "client-key": KUBELET_CERTIFICATE}
        subject = on(cluster, machine.name, f"openssl x509 -noout -subject -in {KUBELET_CERTIFICATE}")
        assert f"CN = system:node:{machine.name}" in subject
        kubelet = yaml.safe_load(on(cluster, machine.name, "cat /var/lib/kubelet/config.yaml"))
        assert kubelet["rotateCertificates"] is True


async def test_all_certificate_requests_are_approved(cluster: Lab) -> None:
    async with client(cluster) as kube:
        requests = await kube.list("certificates.k8s.io/v1", "CertificateSigningRequest")
    assert len(requests) >= len(cluster.machines) - 1
    for request in requests:
        status = request["status"]
        assert [condition["type"] for condition in status["conditions"]] == ["Approved"]
        assert b"BEGIN CERTIFICATE" in base64.b64decode(status["certificate"])


async def test_the_token_of_the_run_is_gone(cluster: Lab) -> None:
    async with client(cluster) as kube:
        secrets = await kube.list("v1", "Secret", "kube-system")
        info = await kube.get("v1", "ConfigMap", "cluster-info", "kube-public")
    assert [item["metadata"]["name"] for item in secrets if item["type"].startswith("bootstrap")] == []
    assert info is not None
    assert [name for name in info["data"] if name.startswith("jws-")] == []


def test_nothing_secret_is_readable_by_others(cluster: Lab) -> None:
    names = r"\( -name '*.key' -o -name '*.conf' -o -name '*.pem' \)"
    script = f"find /etc/kubernetes /var/lib/kubelet/pki -type f {names}"
    for machine in cluster.machines:
        rows = on(cluster, machine.name, rf"{script} -printf '%m %U %p\n'").splitlines()
        assert rows
        assert [row for row in rows if not row.startswith("600 0 ")] == []
    assert on(cluster, "w1", "ls -A /etc/kubernetes | grep -i bootstrap || true") == ""


# -- the add-ons ----------------------------------------------------------------------------------------------


async def test_dns_servers_are_on_different_nodes(cluster: Lab) -> None:
    """P05."""
    async with client(cluster) as kube:
        pods = await dns_servers(kube)
    assert len(pods) == 2
    assert len({pod["spec"]["nodeName"] for pod in pods}) == 2


async def test_kube_proxy_knows_the_pods_network(cluster: Lab) -> None:
    """P11, and P30: it holds the endpoint."""
    async with client(cluster) as kube:
        config = await kube.get("v1", "ConfigMap", "kube-proxy", "kube-system")
    assert config is not None
    assert yaml.safe_load(config["data"]["config.conf"])["clusterCIDR"] == "10.244.0.0/16"
    server = yaml.safe_load(config["data"]["kubeconfig.conf"])["clusters"][0]["cluster"]["server"]
    assert server == f"https://{cluster.plan.machines[0].address}:6443"


async def test_every_node_has_its_proxy_and_network(cluster: Lab) -> None:
    """P12: the control plane, too."""
    async with client(cluster) as kube:
        pods = await kube.list("v1", "Pod", "kube-system")
    for name in ("kube-proxy", "kubewright-network"):
        nodes = sorted(
            pod["spec"]["nodeName"]
            for pod in pods
            if _owner(pod) == f"DaemonSet {name}" and pod["status"]["phase"] == "Running"
        )
        assert nodes == sorted(machine.name for machine in cluster.machines), name


def _owner(pod: Mapping[str, Any]) -> str:
    owners = pod["metadata"].get("ownerReferences") or [{"kind": "", "name": ""}]
    return f"{owners[0]['kind']} {owners[0]['name']}"


def test_nothing_logs_more_than_it_should(cluster: Lab) -> None:
    """P03: no component is more verbose than 2, and containers' logs are rotated."""
    seen = set()
    for machine in cluster.machines:
        for line in on(cluster, machine.name, "ps -eo args=").splitlines():
            program = line.split()[0].rpartition("/")[2]
            if program.startswith(("kube", "etcd", "containerd")):
                seen.add(program)
                levels = re.findall(r" --?v[= ](\d+)", line)
                assert [level for level in levels if int(level) > MOST_VERBOSE] == [], line
        kubelet = yaml.safe_load(on(cluster, machine.name, "cat /var/lib/kubelet/config.yaml"))
        assert (kubelet["containerLogMaxSize"], kubelet["containerLogMaxFiles"]) == ("10Mi", 5)
    expected = {
        "etcd",
        "kube-apiserver",
        "kube-controller-manager",
        "kube-scheduler",
        "kube-proxy",
        "kubelet",
    }
    assert expected <= seen


PACKAGE = r"""
set -e
cd /run && mkdir -p newer/DEBIAN newer/usr/bin newer/lib/systemd/system
printf 'Package: kubelet\nVersion: 9.9.9\nArchitecture: all\nMaintainer: nobody\nDescription: newer\n' \
  >newer/DEBIAN/control
printf '#!/bin/sh\necho Kubernetes v9.9.9\n' >newer/usr/bin/kubelet && chmod 755 newer/usr/bin/kubelet
printf '[Service]\nExecStart=/usr/bin/kubelet\n' >newer/lib/systemd/system/kubelet.service
dpkg-deb --build newer newer.deb >/dev/null && dpkg -i newer.deb >/dev/null
systemctl daemon-reload && systemctl restart kubelet
"""


def test_p51_a_package_that_brings_a_newer_kubelet_changes_nothing(
    cluster: Lab, kubewright: Kubewright
) -> None:
    """The kubelet and its unit are where no package manager has its own, and before what it brings."""
    on(cluster, "w2", PACKAGE)
    try:
        assert on(cluster, "w2", "kubelet --version").split() == ["Kubernetes", "v1.20.2"]
        assert on(cluster, "w2", "readlink /proc/$(pidof kubelet)/exe").strip() == "/usr/local/bin/kubelet"
        for path in ("/usr/local/bin/kubelet", "/etc/systemd/system/kubelet.service"):
            on(cluster, "w2", f"dpkg -S {path}", code=1)
    finally:
        on(cluster, "w2", "dpkg -P kubelet >/dev/null; rm -rf /run/newer*; systemctl daemon-reload")
    until_on(cluster, "w2", '[ "$(curl -s http://127.0.0.1:10248/healthz)" = ok ]')
    assert kubewright("plan", "-f", cluster.places.cluster_yaml, "-o", "json").document["changes"] == []


async def test_no_container_has_died(cluster: Lab) -> None:
    """What had to be started twice was started too early."""
    async with client(cluster) as kube:
        pods = await kube.list("v1", "Pod", "kube-system")
    restarts = {
        pod["metadata"]["name"]: status["restartCount"]
        for pod in pods
        for status in pod["status"].get("containerStatuses") or []
    }
    assert [name for name, count in restarts.items() if count] == [], [
        pod["status"] for pod in pods if restarts.get(pod["metadata"]["name"])
    ]
