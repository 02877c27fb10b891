"""A cluster that real kubeadm has made: `adopt` describes it, and what is there is what the file asks for."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import kubeadm_machines as machines
import pytest
import yaml
from cluster_fixtures import ADOPTED, ON_MACHINES, Kubewright, lab_of, on, write
from init_configurations import KUBELET, SOCKET, TOKEN, joinable
from kubeadm_machines import KUBECTL, kubeadm, kubewright_on

from kubewright.errors import ExitCode
from kubewright.lab.lab import Lab

pytestmark = ON_MACHINES

NAMES = ["api.example.test", "192.0.2.7"]


class Adopted(NamedTuple):
    lab: Lab
    file: Path

    def address(self, machine: str) -> str:
        return str(self.lab.machine(machine).plan.address)


@pytest.fixture(scope="module")
async def adopted(kubewright: Kubewright, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Adopted]:
    """cp1 and w1 made by kubeadm, without an endpoint and with what nobody has by default; and the file for them.

    The pod network and DNS server are ours: no registry can be reached from the machines."""
    with lab_of(kubewright, ADOPTED, workers=1) as lab:
        await machines.prepare(lab, control_planes=["cp1"])
        address = str(lab.machine("cp1").plan.address)
        config = joinable(
            address, controlPlaneEndpoint="", networking={"podSubnet": "10.244.0.0/16"},
            apiServer={"extraArgs": {"profiling": "false"}, "certSANs": NAMES},
        )  # fmt: skip
        write(lab, "cp1", machines.CONFIG, f"{config}---\n{yaml.safe_dump(KUBELET)}".encode())
        kubeadm(lab, "cp1", "init", "--config", machines.CONFIG, "--skip-phases=preflight")
        machines.until_signed(lab, "cp1")
        kubeadm(
            lab, "w1", "join", f"{address}:6443", "--token", TOKEN, "--discovery-token-ca-cert-hash",
            machines.ca_hash(lab), "--cri-socket", SOCKET, "--skip-phases=preflight",
        )  # fmt: skip
        await machines.apply_network(lab)
        on(lab, "cp1", f"{KUBECTL} wait node --all --for=condition=Ready --timeout=90s")
        on(lab, "cp1", f"{KUBECTL} label node w1 disk=ssd")
        for workload in ("daemonset/kube-proxy", "deployment/coredns"):
            on(lab, "cp1", f"{KUBECTL} -n kube-system rollout status {workload} --timeout=90s")
        file = tmp_path_factory.mktemp("adopted") / "cluster.yaml"
        kubewright_on(kubewright, lab, "cp1", "adopt", "-f", file)
        yield Adopted(lab, file)


def test_the_file_says_what_kubeadm_was_told_and_nothing_else(adopted: Adopted) -> None:
    assert yaml.safe_load(adopted.file.read_text()) == {
        "apiVersion": "kubewright.dev/v1alpha1",
        "kind": "Cluster",
        "name": "kubernetes",
        "kubernetesVersion": "v1.20.2",
        "ssh": {
            "user": "root", "keyFiles": [str(adopted.lab.places.key)],
            "knownHosts": str(adopted.lab.places.known_hosts),
        },
        "hosts": [
            {"name": "cp1", "address": adopted.address("cp1"), "roles": ["control-plane"]},
            {"name": "w1", "address": adopted.address("w1"), "roles": ["worker"], "labels": {"disk": "ssd"}},
        ],
        "network": {
            "plugin": "builtin", "podSubnet": "10.244.0.0/16", "serviceSubnet": "10.96.0.0/12",
            "dnsDomain": "cluster.local",
        },
        "dns": {"provider": "builtin", "replicas": 2},
        "clusterConfiguration": {"apiServer": {"certSANs": NAMES, "extraArgs": {"profiling": "false"}}},
        "kubeletConfiguration": {"maxPods": 77, "serializeImagePulls": False},
        "kubeProxyConfiguration": {"conntrack": {"maxPerCore": 0, "min": 0}, "mode": "iptables"},
    }  # fmt: skip


def test_adopting_changes_nothing(adopted: Adopted, kubewright: Kubewright) -> None:
    """A second time: no object of the cluster's and no file of the host's is another afterwards."""
    get = f"{KUBECTL} -n kube-system get"
    script = (
        f"{get} configmaps -o custom-columns=:.metadata.name,:.metadata.annotations,:.data; "
        f"{get} daemonsets,deployments -o custom-columns=:.metadata.name,:.spec; "
        f"{get} nodes -o custom-columns=:.metadata.name,:.metadata.annotations,:.metadata.labels,:.spec; "
        "find /etc/kubernetes /var/lib/kubelet/*.* -type f -printf '%p %T@ %s %m\\n' | sort"
    )
    before = on(adopted.lab, "cp1", script)
    run = kubewright_on(kubewright, adopted.lab, "cp1", "adopt", "-f", "-")
    assert on(adopted.lab, "cp1", script) == before
    assert yaml.safe_load(run.out) == yaml.safe_load(adopted.file.read_text())
    assert "warning" not in run.err
    assert "w1: that SSH leads there" in run.err


def test_status_reads_the_cluster_by_it(adopted: Adopted, kubewright: Kubewright) -> None:
    document = kubewright("status", "-f", adopted.file, "-o", "json").document
    assert [(node["name"], node["ready"]) for node in document["nodes"]] == [("cp1", True), ("w1", True)]
    assert [(server["name"], server["ready"]) for server in document["apiServers"]] == [("cp1", True)]
    assert (document["etcd"]["external"], document["etcd"]["voters"]) == (False, 1)


# -- the plan ----------------------------------------------------------------------------------------------------


class Allowed(NamedTuple):
    """A change that the first plan may list, and why nobody minds it.

    `lost` and `gained` are regular expressions of what the lines mean, as JSON, that are on one side only.
    """

    target: str
    why: str
    lost: tuple[str, ...] = ()
    gained: tuple[str, ...] = ()


_DEFAULTS = (
    r'\{"containerLogMaxFiles": 5\}',
    r'\{"containerLogMaxSize": "10Mi"\}',
    r'\{"resolvConf": "/etc/resolv.conf"\}',
)
_TEMPLATE = r'\{"deprecated.daemonset.template.generation": "\d+"\}'

ALLOWED = (
    Allowed(
        r"ConfigMap (kube-system/(kubeadm-config|kube-proxy)|kube-public/cluster-info)",
        "kubeadm quotes text otherwise, and writes the fields of a kubeconfig in another order: the same is said",
    ),
    Allowed(
        r"/var/lib/kubelet/config\.yaml|ConfigMap kube-system/kubelet-config-1\.20",
        "what a kubelet does by default is always said (P03, P18)",
        gained=_DEFAULTS,
    ),
    Allowed(r"restart kubelet\.service", "it reads its configuration when it starts; Pods go on meanwhile"),
    Allowed(
        r"DaemonSet kube-system/kube-proxy",
        "its Pods follow their configuration from now on (P52)",
        lost=(_TEMPLATE,),
        gained=(_TEMPLATE, r'\{"annotations": null\}', r'\{"kubewright.dev/config-digest": .*\}'),
    ),
    Allowed(
        r"Node (cp1|w1) annotation kubewright\.dev/host=root@[\d.]+",
        "where the host is, for the day on which the file does not name it any more",
    ),
)
"""Whatever else a plan lists is a difference between the cluster and the file that was made of it: certificates,
kubeconfigs, static Pods' arguments and volumes, programs, images, containerd, labels and taints, RBAC objects."""


def test_the_first_plan_changes_nothing_that_means_something(
    adopted: Adopted, kubewright: Kubewright
) -> None:
    run = kubewright("plan", "-f", adopted.file, "-o", "json")
    assert "leaves out" not in run.err, "all of the plan is there"
    changes = run.document["changes"]
    unexplained = [change for change in changes if not any(allows(one, change) for one in ALLOWED)]
    assert unexplained == [], json.dumps(unexplained, indent=1)
    targets = {change["target"] for change in changes}
    assert {"/var/lib/kubelet/config.yaml", "DaemonSet kube-system/kube-proxy"} <= targets, (
        "this is no empty plan"
    )


def allows(one: Allowed, change: Mapping[str, Any]) -> bool:
    """Whether a change is to an allowed target, and nothing of its difference means something else."""
    if change["action"] not in ("update", "run") or not re.fullmatch(one.target, change["target"]):
        return False
    old, new = (meanings(change.get("diff", ()), mark) for mark in "-+")
    return covered(one.lost, old - new) and covered(one.gained, new - old)


def meanings(diff: Iterable[str], mark: str) -> Counter[str]:
    """What the lines on one side of a difference mean, whatever their quotation marks, order and place."""
    lines = [line[1:].strip() for line in diff if line.startswith(mark)]
    return Counter(json.dumps(yaml.safe_load(line), sort_keys=True) for line in lines)


def covered(patterns: Iterable[str], lines: Iterable[str]) -> bool:
    return all(any(re.fullmatch(pattern, line) for pattern in patterns) for line in lines)


# -- errors ------------------------------------------------------------------------------------------------------


def test_a_worker_cannot_be_asked(adopted: Adopted, kubewright: Kubewright, tmp_path: Path) -> None:
    run = kubewright_on(
        kubewright, adopted.lab, "w1", "adopt", "-f", tmp_path / "new.yaml", code=ExitCode.FAILURE
    )
    assert "there is no /etc/kubernetes/admin.conf" in run.err
    assert "is this a control plane?" in run.err
    assert list(tmp_path.iterdir()) == []
