"""A cluster of ours whose etcd speaks plain http on the loopback address becomes one with three control planes."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import kubeadm_machines as machines
import pytest
import yaml
from cluster_fixtures import CONVERTED_OURS, ON_MACHINES, Kubewright, written
from conversions import PLANES, WORKERS, Converting
from plain_etcd import plain_urls, without_tls

from kubewright.lab.lab import Lab, open_lab

pytestmark = [*ON_MACHINES, pytest.mark.soak]

BALANCER, JOINED = "w3", ("cp4", "w4")


@pytest.fixture(scope="module")
async def made(kubewright: Kubewright, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Converting]:
    """cp1, w1 and w2 by `apply` without an endpoint, and an etcd as it was in the days of kubeadm 1.4."""
    kubewright("lab", "down", CONVERTED_OURS)
    try:
        names = ("--control-planes", "4", "--workers", "4")
        kubewright("lab", "up", "--name", CONVERTED_OURS, *names, "--machines-only")
        yield await _by_us(open_lab(CONVERTED_OURS), kubewright, tmp_path_factory.mktemp("ours"))
    finally:
        kubewright("lab", "down", CONVERTED_OURS, code=None)


async def _by_us(lab: Lab, kubewright: Kubewright, directory: Path) -> Converting:
    later = yaml.safe_load(lab.places.cluster_yaml.read_text())
    hosts = [host for host in later["hosts"] if host["name"] in (*PLANES, *WORKERS)]
    balancer = [host | {"roles": ["load-balancer"]} for host in later["hosts"] if host["name"] == BALANCER]
    proxied = later | {"hosts": [*hosts, *balancer], "endpoint": {"type": "haproxy"}}
    file = written(directory / "cluster.yaml", proxied)
    alone: dict[str, Any] = {key: value for key, value in later.items() if key != "endpoint"}
    # kubeadm is on those two that it is to join, and on cp1, which tells them how.
    others = [host | {"roles": ["worker"]} for host in later["hosts"] if host["name"] in JOINED]
    first = [host for host in hosts if host["name"] == "cp1"]
    written(lab.places.cluster_yaml, alone | {"hosts": [*first, *others]})
    await machines.prepare(lab, control_planes=["cp1", "cp4"])
    before = [host for host in hosts if host["name"] in ("cp1", *WORKERS)]
    config = directory / "kubeconfig"
    kubewright(
        "apply", "-f", written(directory / "before.yaml", alone | {"hosts": before}), "--no-merge",
        "--kubeconfig", config,
    )  # fmt: skip
    made = Converting(lab, kubewright, file, config, f"{lab.machine(BALANCER).plan.address}:6443")
    made.cluster(["cp1"]).healed()
    without_tls(lab)
    return made


def test_the_api_is_away_once(made: Converting, tmp_path: Path) -> None:
    """When etcd gets its certificates; nobody notices anything else."""
    with made.clients(tmp_path) as serving:
        made.run(serving=serving)
        made.cluster(PLANES).healed()
    made.nobody_noticed(restarted=True)
    assert plain_urls(made.lab) == []


def test_the_cluster_is_whole_and_nothing_is_left_to_do(made: Converting) -> None:
    made.kubewright("check", "-f", made.file)
    assert made.kubewright("plan", "-f", made.file, "-o", "json").document["changes"] == []


@pytest.mark.parametrize("victim", PLANES)
def test_any_control_plane_may_die(made: Converting, tmp_path: Path, victim: str) -> None:
    """The first, too."""
    made.killed_plane(victim, tmp_path)


def test_kubeadm_joins_more(made: Converting) -> None:
    made.joined_by_kubeadm(*JOINED)


def test_the_endpoint_becomes_another(made: Converting, tmp_path: Path) -> None:
    """From a proxy on a host of its own to one on every node; also of the nodes that kubeadm has joined."""
    document = yaml.safe_load(made.file.read_text())
    every = yaml.safe_load(made.lab.places.cluster_yaml.read_text())["hosts"]
    roles = dict(zip(JOINED, (["control-plane"], ["worker"]), strict=True))
    more = [host | {"roles": roles[host["name"]]} for host in every if host["name"] in JOINED]
    hosts = [host for host in document["hosts"] if host["name"] != BALANCER]
    written(made.file, document | {"hosts": [*hosts, *more], "endpoint": {"type": "local"}})
    made.endpoint = "127.0.0.1:6444"
    with made.clients(tmp_path) as serving:
        made.run("--endpoint", serving=serving)
        made.cluster([*PLANES, "cp4"], [*WORKERS, "w4"]).healed()
    made.nobody_noticed([*PLANES, "cp4"])
    assert made.kubewright("plan", "-f", made.file, "-o", "json").document["changes"] == []
