"""A cluster whose etcd speaks plain http gets an endpoint, and etcd moves to hosts of its own, while it serves."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import yaml
from cluster_fixtures import MOVED, ON_MACHINES, Kubewright, lab_of, on, written
from conversions import Converting, not_of_one_gap
from plain_etcd import PLAIN, plain_urls, without_tls

pytestmark = ON_MACHINES

HOSTS = ("w2", "w3", "w4")


@pytest.fixture(scope="module")
def made(kubewright: Kubewright, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Converting]:
    """cp1, whose etcd speaks plain http on the loopback address, and w1; the file has an endpoint, too."""
    directory = tmp_path_factory.mktemp("moved")
    with lab_of(kubewright, MOVED, workers=4) as lab:
        document = yaml.safe_load(lab.places.cluster_yaml.read_text())
        document["hosts"] = [host for host in document["hosts"] if host["name"] not in HOSTS]
        config = directory / "kubeconfig"
        kubewright(
            "apply", "-f", written(directory / "before.yaml", document), "--no-merge", "--kubeconfig", config
        )
        file = written(directory / "cluster.yaml", document | {"endpoint": {"type": "local"}})
        made = Converting(lab, kubewright, file, config, "127.0.0.1:6444", ["w1"])
        made.cluster(["cp1"]).healed()
        without_tls(lab)
        yield made


# -- an endpoint --------------------------------------------------------------------------------------------------


def test_plain_http_is_brought_back(made: Converting) -> None:
    """Killed when etcd gets its certificates."""
    before = made.state()
    assert plain_urls(made.lab) == [*PLAIN.values()]
    made.killed("etcd-secured", "--endpoint")
    made.restore()
    assert made.state() == before


def test_it_gets_an_endpoint(made: Converting, tmp_path: Path) -> None:
    """And no further control plane. Not a request fails there; at the old address, the API is away once, when etcd
    gets its certificates."""
    old, new = made.cluster(["cp1"]), made.cluster(["cp1"])
    old.endpoint, new.endpoint = f"{made.address('cp1')}:6443", made.endpoint
    with ExitStack() as stack:
        loads = [stack.enter_context(old.load("write", tmp_path, prefix="old"))]
        made.run("--endpoint", serving=lambda: loads.append(stack.enter_context(new.load("probe", tmp_path))))
    assert len(loads) == 2
    before, after = (load.book for load in loads)
    print(before, after, sep="\n")
    assert after.failures == []
    assert not_of_one_gap(before) == []
    stored = old.stored("cp1")
    assert [name for name in before.acknowledged if name not in stored] == []
    assert plain_urls(made.lab) == []
    for name in ("cp1", "w1"):
        used = on(made.lab, name, "grep -h server: /etc/kubernetes/kubelet.conf").split()[-1]
        assert used == f"https://{made.endpoint}", name
    assert made.kubewright("plan", "-f", made.file, "-o", "json").document["changes"] == []


# -- hosts of etcd ------------------------------------------------------------------------------------------------


def test_what_was_is_brought_back_from_a_killed_move(made: Converting) -> None:
    """Killed when the hosts' members come; nothing of them is left."""
    document = yaml.safe_load(made.file.read_text())
    every = yaml.safe_load(made.lab.places.cluster_yaml.read_text())["hosts"]
    hosts = [host | {"roles": ["etcd"]} for host in every if host["name"] in HOSTS]
    written(made.file, document | {"hosts": [*document["hosts"], *hosts]})
    before = made.state()
    made.killed("etcd-members", "--to-external-etcd")
    made.restore()
    assert made.state() == before
    made.cluster(["cp1"]).healed()
    for name in HOSTS:
        assert on(made.lab, name, "systemctl is-active kubewright-etcd || true").split() == ["inactive"]


def test_no_acknowledged_write_is_lost(made: Converting, tmp_path: Path) -> None:
    """One run is killed when members come, and the next finishes it. The only API server is away when it is told
    where etcd is now."""
    cluster = made.cluster(["cp1"])
    cluster.endpoint = made.endpoint
    with cluster.load("write", tmp_path, prefix="moving") as writer:
        made.killed("etcd-members", "--to-external-etcd")
        made.run("--to-external-etcd")
    print(writer.book)
    stored = cluster.stored("cp1")
    assert [name for name in writer.book.acknowledged if name not in stored] == []
    assert len(writer.book.acknowledged) > 100
    manifests = on(made.lab, "cp1", "ls /etc/kubernetes/manifests").split()
    assert "etcd.yaml" not in manifests
    for name in HOSTS:
        assert on(made.lab, name, "systemctl is-active kubewright-etcd").split() == ["active"]


def test_the_cluster_is_whole_and_nothing_is_left_to_do(made: Converting) -> None:
    made.kubewright("doctor", "-f", made.file)  # first: just after a conversion
    made.kubewright("check", "-f", made.file)
    document = made.kubewright("status", "-f", made.file, "-o", "json").document
    assert (document["etcd"]["external"], document["etcd"]["voters"]) == (True, 3)
    assert made.kubewright("plan", "-f", made.file, "-o", "json").document["changes"] == []
