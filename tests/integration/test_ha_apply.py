"""Three control planes by an `apply` that is interrupted, and by one to which a host is cut off."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest
import yaml
from cluster_fixtures import GROWN, ON_MACHINES, Kubewright, check_is_green, no_changes, on, written
from ha_cluster import HaCluster, apply, whole

from kubewright.errors import ExitCode
from kubewright.lab.lab import Lab, open_lab

pytestmark = ON_MACHINES

PLANES = ["cp1", "cp2", "cp3"]
MANIFEST = "/etc/kubernetes/manifests/etcd.yaml"


@pytest.fixture
def machines(kubewright: Kubewright) -> Iterator[Lab]:
    """Three machines for control planes, on which nothing has been done yet."""
    kubewright("lab", "down", GROWN)
    kubewright("lab", "up", "--name", GROWN, "--control-planes", "3", "--workers", "0", "--machines-only")
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
