"""Control planes that leave, dead and alive, and new hosts in the place of dead ones."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from cluster_fixtures import HA, ON_MACHINES, Kubewright, Run, on, written
from ha_cluster import BALANCER, Factory, HaCluster
from kubeadm_machines import host_options

from kubewright.errors import ExitCode

pytestmark = ON_MACHINES

TWO, THREE, FOURTH = ["cp1", "cp2"], ["cp1", "cp2", "cp3"], ["cp1", "cp2", "cp4"]


class Cluster:
    """The machines cp1 to cp4, of which some are control planes behind a proxy of its own."""

    def __init__(self, factory: Factory, kubewright: Kubewright) -> None:
        self.factory = factory
        self.kubewright = kubewright
        self.lab = factory.lab
        self.seconds = 6.0
        """That a removal takes; measured by the first."""

    def remove(self, name: str, file: Path, *more: str, code: int = 0) -> Run:
        return self.kubewright("node", "remove", name, "-f", file, "--yes", *more, code=code)

    def clear(self, machine: str) -> None:
        """Bring back a machine that has died, and let nothing be left on it of what it was."""
        self.kubewright("lab", "start", HA, machine)
        self.kubewright("reset", "--force", *host_options(self.lab, machine))

    def names(self, cluster: HaCluster) -> tuple[list[str], list[str], list[str]]:
        """etcd's members, the control planes among the Nodes, and those in ClusterStatus."""
        members = cluster.etcd("cp1", "cluster/member/list")["members"]
        nodes = cluster.api("/api/v1/nodes?labelSelector=node-role.kubernetes.io/master")["items"]
        config = cluster.api("/api/v1/namespaces/kube-system/configmaps/kubeadm-config")["data"]
        return (
            sorted(str(one.get("name", "unstarted")) for one in members),
            sorted(node["metadata"]["name"] for node in nodes),
            sorted(yaml.safe_load(config["ClusterStatus"])["apiEndpoints"]),
        )

    def behind(self) -> set[str]:
        """The control planes whose addresses are in the proxy's configuration."""
        text = on(self.lab, BALANCER, "cat /etc/kubewright/endpoint/backends")
        names = [machine.name for machine in self.lab.machines if machine.name.startswith("cp")]
        return {name for name in names if f" {self.lab.machine(name).plan.address} 6443" in text}


@pytest.fixture(scope="module")
def made(kubewright: Kubewright, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Three control planes, two workers, and a fourth machine in reserve."""
    factory = Factory(kubewright, "haproxy", tmp_path_factory.mktemp("remove"), control_planes=4)
    try:
        factory.apply(THREE).healed()
        yield Cluster(factory, kubewright)
    finally:
        factory.down()


def test_a_member_that_the_others_need_stays(made: Cluster) -> None:
    """cp3, which has led them, is dead, and does not count."""
    cluster = made.factory.cluster(THREE)
    cluster.lead("cp3")
    made.kubewright("lab", "kill", HA, "cp3")
    file = made.factory.file(THREE)
    said = made.remove("cp2", file, code=ExitCode.HOST_NOT_FIT).err
    assert "2 voting members are left, of which 1 are healthy; 2 are needed" in said
    # The same by apply, with the file that names it no more.
    run = made.kubewright("apply", "-f", made.factory.file(["cp1", "cp3"]), "--no-merge", code=None)
    assert run.code != 0
    assert made.names(cluster) == (THREE, THREE, THREE)
    node = cluster.api("/api/v1/nodes/cp2", machine="cp1")
    assert "unschedulable" not in node["spec"]
    assert "cp2" in made.behind()


def test_a_dead_control_plane_is_taken_out_by_the_others(made: Cluster) -> None:
    """cp3 again."""
    run = made.remove("cp3", made.factory.file(TWO))
    assert "its host is not reset" in run.err
    assert "2 control planes are left" in run.out
    cluster = made.factory.cluster(TWO)
    assert made.names(cluster) == (TWO, TWO, TWO)
    assert made.behind() == set(TWO)
    cluster.healed()
    again = made.remove("cp3", made.factory.file(TWO), code=ExitCode.USAGE)
    assert "no Node 'cp3'" in again.err


def test_another_takes_its_place(made: Cluster) -> None:
    made.factory.apply(FOURTH).healed()


@pytest.mark.quiet
def test_nobody_notices_how_the_leader_leaves(made: Cluster, tmp_path: Path) -> None:
    cluster = made.factory.cluster(FOURTH)
    cluster.lead("cp4")
    file = made.factory.file(FOURTH)
    planned = made.kubewright("node", "remove", "cp4", "-f", file, "--dry-run").out
    for shown in ("Node cp4 unschedulable", "lead etcd instead of cp4", "etcd member cp4", "delete Node cp4"):
        assert shown in " ".join(planned.split())
    with (
        cluster.load("probe", tmp_path) as probe,
        cluster.load("write", tmp_path, prefix="leader-leaves") as writer,
    ):
        started = time.monotonic()
        run = made.remove("cp4", file)
        made.seconds = time.monotonic() - started
        print(f"\nremoved in {made.seconds:.1f} s")
        made.factory.cluster(TWO).healed()
    assert "still names it" in run.out
    print(probe.book)
    assert not probe.book.failures, "\n".join(probe.book.failures)
    left = made.factory.cluster(TWO)
    left.verify(writer.book.acknowledged)
    assert made.names(left) == (TWO, TWO, TWO)
    assert made.behind() == set(TWO)
    gone = "ls /etc/kubernetes/manifests /var/lib/etcd; systemctl is-active kubelet; true"
    assert on(made.lab, "cp4", gone).split() == ["/etc/kubernetes/manifests:", "/var/lib/etcd:", "inactive"]


@pytest.mark.parametrize(("early", "late"), [(0.1, 0.95), pytest.param(0.1, 0.5, marks=pytest.mark.soak)])
def test_a_removal_that_was_killed_is_finished_by_the_next(made: Cluster, early: float, late: float) -> None:
    made.factory.apply(FOURTH).healed()
    file = made.factory.file(FOURTH)
    process = made.kubewright.start("node", "remove", "cp4", "-f", file, "--yes")
    seconds = random.uniform(early, late) * made.seconds
    time.sleep(seconds)
    running = process.poll() is None
    process.kill()
    process.wait()
    print(f"\nkilled after {seconds:.1f} s" + ("" if running else ", too late"))
    # Where the first run has got to its end, nothing is left to remove.
    made.remove("cp4", file)
    cluster = made.factory.cluster(TWO)
    cluster.healed()
    assert made.names(cluster) == (TWO, TWO, TWO)


def test_a_dead_host_is_replaced_by_one_of_another_name(made: Cluster) -> None:
    """cp4 dies, and cp3, which died long ago, comes in its place."""
    made.factory.apply(FOURTH).healed()
    made.kubewright("lab", "kill", HA, "cp4")
    made.clear("cp3")
    cluster = made.factory.apply(THREE)
    cluster.healed()
    assert made.names(cluster) == (THREE, THREE, THREE)
    assert made.behind() == set(THREE)


def test_a_dead_host_is_replaced_by_one_of_the_same_name(made: Cluster, tmp_path: Path) -> None:
    """cp3 dies, and the machine cp4 becomes cp3."""
    made.kubewright("lab", "kill", HA, "cp3")
    made.clear("cp4")
    document: dict[str, Any] = yaml.safe_load(made.factory.file(THREE).read_text())
    new = str(made.lab.machine("cp4").plan.address)
    for host in document["hosts"]:
        if host["name"] == "cp3":
            host["address"] = new
    made.kubewright("apply", "-f", written(tmp_path / "cluster.yaml", document), "--no-merge")
    cluster = made.factory.cluster(TWO)
    assert made.names(cluster) == (THREE, THREE, THREE)
    [member] = [
        one for one in cluster.etcd("cp1", "cluster/member/list")["members"] if one.get("name") == "cp3"
    ]
    assert member["peerURLs"] == [f"https://{new}:2380"]
    assert made.behind() == {"cp1", "cp2", "cp4"}
