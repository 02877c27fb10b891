"""A cluster that lives: other configuration, more and fewer nodes, machines that lose their power."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from cluster_fixtures import (
    CLUSTER,
    ON_MACHINES,
    OTHER,
    Kubewright,
    check_is_green,
    client,
    copied,
    dns_servers,
    kill_machine,
    lab_of,
    on,
    start_on,
    written,
)
from waiting import until

from kubewright.clients.kube import KubeClient
from kubewright.errors import ExitCode
from kubewright.lab.lab import Lab, open_lab

pytestmark = ON_MACHINES

NODES = ("cp1", "w1", "w2")


async def pods_of(kube: KubeClient, daemon_set: str) -> dict[str, Any]:
    """A DaemonSet's Pods by their nodes; those that are not on one yet are left out."""
    return {
        pod["spec"]["nodeName"]: pod
        for pod in await kube.list("v1", "Pod", "kube-system")
        if pod["metadata"].get("ownerReferences", [{}])[0].get("name") == daemon_set
        and "deletionTimestamp" not in pod["metadata"]
        and "nodeName" in pod["spec"]
    }


def is_ready(pod: dict[str, Any]) -> bool:
    return any(
        condition["type"] == "Ready" and condition["status"] == "True"
        for condition in pod["status"].get("conditions") or []
    )


# -- pod traffic ----------------------------------------------------------------------------------------------


@pytest.mark.quiet
async def test_pods_reach_each_other_while_the_network_agent_restarts(cluster: Lab) -> None:
    """From one DNS server's Pod to the other's, on another node, twenty times a second."""
    async with client(cluster) as kube:
        source, target = await dns_servers(kube)
        agents = await pods_of(kube, "kubewright-network")
        node = source["spec"]["nodeName"]
        ask = """
            for name in $(ip netns list | cut -d' ' -f1); do
                ip netns exec "$name" ip -o -4 address | grep -qF " $1/" && break
            done
            while :; do
                ip netns exec "$name" curl -s -o /dev/null -m 2 "http://$2:8080/health" && echo good || echo bad
                sleep 0.05
            done
        """
        with start_on(cluster, node, ask, source["status"]["podIP"], target["status"]["podIP"]) as answers:
            restarted = [agents[name]["metadata"] for name in (node, target["spec"]["nodeName"])]
            gone = {meta["uid"] for meta in restarted}
            for meta in restarted:
                # Without grace, for the API to forget them at once: a kubelet of 1.20 may call a Pod whose
                # containers have ended "Terminating" until its next look, a minute later.
                await kube.delete("v1", "Pod", meta["name"], "kube-system", grace=0)

            async def replaced() -> bool:
                now = await pods_of(kube, "kubewright-network")
                return now.keys() == agents.keys() and all(
                    is_ready(pod) and pod["metadata"]["uid"] not in gone for pod in now.values()
                )

            await until(replaced, "the agents to be replaced", 60, every=0.2)
            await asyncio.sleep(1)
    assert answers.count("good") > 20
    assert set(answers) == {"good"}, f"{answers.count('bad')} of {len(answers)} requests failed"


# -- configuration --------------------------------------------------------------------------------------------


def edit(lab: Lab, **fields: Any) -> None:
    """Change fields at the top of a lab's cluster.yaml, as its user may."""
    file = lab.places.cluster_yaml
    written(file, yaml.safe_load(file.read_text()) | fields)


async def test_the_kubelets_configuration_is_changed_on_every_node(
    kubewright: Kubewright, cluster: Lab
) -> None:
    edit(cluster, kubeletConfiguration={"maxPods": 77})
    plan = kubewright("plan", "-f", cluster.places.cluster_yaml, "-o", "json").document["changes"]
    diffs = {
        change["host"]: change["diff"]
        for change in plan
        if change["target"] == "/var/lib/kubelet/config.yaml"
    }
    assert {host: [line for line in diff if line[0] in "+-"] for host, diff in diffs.items()} == {
        name: ["+maxPods: 77"] for name in NODES
    }
    restarts = {change["host"] for change in plan if change["target"] == "restart kubelet.service"}
    assert restarts == set(NODES)
    others = {change["target"] for change in plan if not change.get("host")}
    assert others == {"ConfigMap kube-system/kubelet-config-1.20"}
    text = kubewright("plan", "-f", cluster.places.cluster_yaml).out
    assert text.count("+maxPods: 77") >= len(NODES)

    kubewright("apply", "-f", cluster.places.cluster_yaml)
    async with client(cluster) as kube:

        async def reported() -> bool:
            nodes = await kube.list("v1", "Node")
            return {node["status"]["capacity"]["pods"] for node in nodes} == {"77"}

        await until(reported, "the nodes to report their room for Pods", 30, every=0.2)
    assert kubewright("plan", "-f", cluster.places.cluster_yaml, "-o", "json").document["changes"] == []


async def test_kube_proxys_configuration_replaces_its_pods(kubewright: Kubewright, cluster: Lab) -> None:
    """P52: nobody has to delete Pods by hand."""
    proxy = yaml.safe_load(cluster.places.cluster_yaml.read_text()).get("kubeProxyConfiguration") or {}
    edit(cluster, kubeProxyConfiguration=proxy | {"iptables": {"minSyncPeriod": "2s"}})
    async with client(cluster) as kube:
        before = await pods_of(kube, "kube-proxy")
        kubewright("apply", "-f", cluster.places.cluster_yaml)
        after = await pods_of(kube, "kube-proxy")
    assert after.keys() == before.keys()
    for name, pod in after.items():
        assert is_ready(pod)
        assert pod["metadata"]["uid"] != before[name]["metadata"]["uid"]
    assert kubewright("plan", "-f", cluster.places.cluster_yaml, "-o", "json").document["changes"] == []


# -- machines -------------------------------------------------------------------------------------------------


def test_machines_come_back_after_a_power_cut_and_a_worker_is_added(
    kubewright: Kubewright, cluster: Lab
) -> None:
    """The only control plane and a worker lose their power, and come back to a cluster that grows."""
    kill_machine(cluster, "cp1")
    kill_machine(cluster, "w1")
    others = cluster.machine("w2").pid()
    kubewright("lab", "up", "--name", CLUSTER, "--workers", "3")
    more = open_lab(CLUSTER)
    assert [machine.name for machine in more.machines] == [*NODES, "w3"]
    assert more.machine("w2").pid() == others
    check_is_green(kubewright, more, len(NODES) + 1)
    assert kubewright("plan", "-f", more.places.cluster_yaml, "-o", "json").document["changes"] == []


async def test_a_worker_is_removed(kubewright: Kubewright, cluster: Lab) -> None:
    """Its machine is gone, and so is its Node: nothing waits for a kubelet that will never answer again."""
    kubewright("lab", "up", "--name", CLUSTER, "--workers", "2")
    async with client(cluster) as kube:
        assert sorted(node["metadata"]["name"] for node in await kube.list("v1", "Node")) == sorted(NODES)
        assert {pod["spec"].get("nodeName") for pod in await kube.list("v1", "Pod")} <= set(NODES)
    check_is_green(kubewright, cluster, len(NODES))


# -- other clusters -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def other(kubewright: Kubewright, cluster: Lab) -> Iterator[Lab]:
    """Machines without a cluster, beside the cluster."""
    with lab_of(kubewright, OTHER, workers=0) as found:
        yield found


@pytest.mark.parametrize("name", ["w1", "cp1"])
def test_a_node_of_another_cluster_is_refused(
    kubewright: Kubewright, cluster: Lab, other: Lab, tmp_path: Path, name: str
) -> None:
    """A worker of ours, and a control plane taken for a worker."""
    file, document = copied(other, tmp_path / "cluster.yaml")
    theirs, _ = copied(cluster, tmp_path / "theirs.yaml")
    stranger = next(host for host in yaml.safe_load(theirs.read_text())["hosts"] if host["name"] == name)
    reached_by = {"keyFiles": [str(cluster.places.key)], "knownHosts": str(cluster.places.known_hosts)}
    document["hosts"].append(stranger | {"name": "w9", "roles": ["worker"], "ssh": reached_by})
    written(file, document)
    look = "find /etc /usr/local /var/lib/kubelet/config.yaml -xdev -printf '%p %m %s %C@\n' | sort"
    before = on(cluster, name, look), on(other, "cp1", look)
    run = kubewright("apply", "-f", file, code=int(ExitCode.HOST_IN_OTHER_CLUSTER))
    errors = [line for line in run.err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert "w9: is in another cluster already: /etc/kubernetes/" in errors[0]
    assert (on(cluster, name, look), on(other, "cp1", look)) == before
