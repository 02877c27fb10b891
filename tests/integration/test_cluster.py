"""One control plane and two workers out of one command, as whoever types it finds them."""

from __future__ import annotations

import stat
import time
from typing import Any

import yaml
from cluster_fixtures import CLUSTER, ON_MACHINES, Kubewright, Run, check_is_green, client, on
from conftest import USERS_KUBECONFIG
from waiting import until

from kubewright.lab.lab import Lab
from kubewright.model.upgrade import CONTROL_PLANE

pytestmark = ON_MACHINES

MIRROR = "kubernetes.io/config.mirror"
NODES = ("cp1", "w1", "w2")

# Whatever `apply` writes on a host, by its inode's change time.
FILES = r"""
find /etc/kubernetes /etc/systemd /etc/containerd /etc/sysctl.d /etc/modules-load.d /usr/local/bin \
    /var/lib/kubelet/config.yaml /var/lib/kubelet/kubeadm-flags.env -printf '%p %m %s %C@\n' | sort
systemctl show -P MainPID kubelet containerd
ctr -n k8s.io images ls
"""

OBJECTS = [
    *(("v1", kind) for kind in ("ConfigMap", "Secret", "Service", "ServiceAccount", "Endpoints")),
    *(("apps/v1", kind) for kind in ("DaemonSet", "Deployment", "ReplicaSet")),
    *(("rbac.authorization.k8s.io/v1", kind)
      for kind in ("Role", "RoleBinding", "ClusterRole", "ClusterRoleBinding")),
]  # fmt: skip


async def objects(lab: Lab) -> dict[str, str]:
    """The version of each object that nobody but a user of the cluster changes; of Pods, which they are."""
    async with client(lab) as kube:
        found = {
            f"{kind} {item['metadata'].get('namespace', '')}/{item['metadata']['name']}": item["metadata"][
                "resourceVersion"
            ]
            for api, kind in OBJECTS
            for item in await kube.list(api, kind)
        }
        return found | {
            f"Pod {pod['metadata']['name']}": pod["metadata"]["uid"]
            for pod in await kube.list("v1", "Pod")
            if MIRROR not in (pod["metadata"].get("annotations") or {})
        }


def changed(events: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The phases that found something to do."""
    return [event for event in events if (event.get("data") or {}).get("changes")]


def test_the_first_up_makes_a_cluster(first_up: Run) -> None:
    last = first_up.events[-1]
    assert last["kind"] == "workflow.done"
    hosts = {event["host"] for event in changed(first_up.events) if "host" in event}
    assert hosts == set(NODES)
    # A phase that has started ends, whatever else happens.
    ends = {
        (event["name"], event.get("host", "")): event["kind"] for event in first_up.events if "name" in event
    }
    assert set(ends.values()) <= {"phase.done", "phase.skipped", "workflow.done"}


async def test_three_nodes_are_ready(cluster: Lab) -> None:
    async with client(cluster) as kube:
        nodes = {node["metadata"]["name"]: node for node in await kube.list("v1", "Node")}
    assert set(nodes) == set(NODES)
    for node in nodes.values():
        conditions = {item["type"]: item["status"] for item in node["status"]["conditions"]}
        assert conditions["Ready"] == "True"
        assert node["status"]["nodeInfo"]["kubeletVersion"] == "v1.20.2"
    taints = {
        name: [taint["key"] for taint in node["spec"].get("taints", [])] for name, node in nodes.items()
    }
    assert taints == {"cp1": ["node-role.kubernetes.io/master"], "w1": [], "w2": []}


async def test_the_static_pods_are_shown_at_once(cluster: Lab) -> None:
    """Not a minute later, when a kubelet that was there before its API server tells of them again."""
    pods = {f"{name}-cp1" for name in (*CONTROL_PLANE, "etcd")}
    async with client(cluster) as kube:

        async def shown() -> bool:
            return pods <= {pod["metadata"]["name"] for pod in await kube.list("v1", "Pod", "kube-system")}

        await until(shown, f"{', '.join(sorted(pods))} to be shown", every=0.2)


async def test_check_is_green_and_leaves_nothing_behind(kubewright: Kubewright, cluster: Lab) -> None:
    async def names() -> set[str]:
        async with client(cluster) as kube:
            return {
                f"{kind} {item['metadata']['name']}"
                for kind in ("Namespace", "Pod")
                for item in await kube.list("v1", kind)
                # The kubelet may report its static Pods only now.
                if MIRROR not in (item["metadata"].get("annotations") or {})
            }

    before = await names()
    document = check_is_green(kubewright, cluster, len(NODES))
    assert await names() == before
    tried = {(row["topic"], row["from"], row["fromNode"]) for row in document["results"]}
    for node in NODES:
        assert {("pods", "pod", node), ("service", "node", node), ("nodePort", "node", node)} <= tried
        assert {("dns", "pod", node), ("api", "pod", node)} <= tried
    pairs = {
        (row["fromNode"], row["target"])
        for row in document["results"]
        if row["topic"] == "pods" and row["from"] == "pod"
    }
    assert pairs == {(one, other) for one in NODES for other in NODES}


async def test_a_second_up_changes_nothing(kubewright: Kubewright, cluster: Lab) -> None:
    async def state() -> dict[str, Any]:
        return await objects(cluster) | {name: on(cluster, name, FILES) for name in NODES}

    before = await state()
    here = {path: path.stat().st_mtime_ns for path in cluster.places.directory.iterdir() if path.is_file()}
    config = kubewright.kubeconfig.read_bytes()
    again = kubewright("lab", "up", "--name", CLUSTER, "-o", "json")
    assert changed(again.events) == []
    assert f"cluster {cluster.context}: nothing to do" in [event["message"] for event in again.events]
    assert await state() == before
    assert here == {
        path: path.stat().st_mtime_ns for path in cluster.places.directory.iterdir() if path.is_file()
    }
    assert kubewright.kubeconfig.read_bytes() == config


def test_a_plan_finds_nothing_to_do(kubewright: Kubewright, cluster: Lab) -> None:
    said = kubewright("plan", "-f", cluster.places.cluster_yaml)
    assert said.out == f"cluster {cluster.context}: nothing to do\n"
    assert kubewright("plan", "-f", cluster.places.cluster_yaml, "-o", "json").document["changes"] == []


def test_the_users_kubeconfig_has_one_context_more(kubewright: Kubewright, cluster: Lab) -> None:
    """P24."""
    config = yaml.safe_load(kubewright.kubeconfig.read_text())
    assert stat.S_IMODE(kubewright.kubeconfig.stat().st_mode) == 0o600
    assert config["current-context"] == "work"
    for section in ("clusters", "contexts", "users"):
        ours = [entry for entry in config[section] if entry not in USERS_KUBECONFIG[section]]
        assert len(ours) == 1
        assert [entry for entry in config[section] if entry not in ours] == USERS_KUBECONFIG[section]
    assert cluster.context in [context["name"] for context in config["contexts"]]
    assert stat.S_IMODE(cluster.places.kubeconfig.stat().st_mode) == 0o600


def test_status_finds_the_cluster_by_its_context(kubewright: Kubewright, cluster: Lab) -> None:
    deadline = time.monotonic() + 90  # kubelets report what runs in their static Pods within a minute or so
    while not (found := kubewright("status", "--context", cluster.context, "-o", "json").document)["healthy"]:
        assert time.monotonic() < deadline, found
        time.sleep(1)
    assert [node["name"] for node in found["nodes"]] == list(NODES)


def test_kubectl_works_on_the_control_plane(cluster: Lab) -> None:
    """The real one, with the configuration that kubeadm's users export."""
    kubectl = "KUBECONFIG=/etc/kubernetes/admin.conf /usr/local/bin/kubectl"
    rows = on(cluster, "cp1", f"{kubectl} get nodes --no-headers").splitlines()
    assert [row.split()[:2] for row in rows] == [[name, "Ready"] for name in NODES]
    assert "v1.20.2" in on(cluster, "cp1", f"{kubectl} version --short")
    # Logs and commands go through the API server to a kubelet, and so need its certificate and RBAC.
    for name in NODES:
        where = f"-l k8s-app=kubewright-network --field-selector spec.nodeName={name}"
        pod = on(cluster, "cp1", f"{kubectl} -n kube-system get pod {where} -o name").strip()
        assert on(cluster, "cp1", f"{kubectl} -n kube-system logs {pod}")
        command = "python3 -c 'import socket; print(socket.gethostname())'"
        assert on(cluster, "cp1", f"{kubectl} -n kube-system exec {pod} -- {command}").strip() == name
