"""A cluster that kubeadm made without an endpoint becomes one with three control planes, while it serves."""

from __future__ import annotations

import random
import time
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import kubeadm_machines as machines
import pytest
import yaml
from cluster_fixtures import CONVERTED, ON_MACHINES, Kubewright, on, write, written
from conversions import PLANES, WORKERS, Converting
from init_configurations import SOCKET, TOKEN, joinable
from kubeadm_machines import KUBECTL, kubeadm, kubewright_on

from kubewright.errors import ExitCode
from kubewright.lab.lab import Lab, open_lab
from kubewright.model import x509
from kubewright.model.backup import BACKUPS
from kubewright.model.pki import PKI_DIR
from kubewright.secret import Secret

pytestmark = ON_MACHINES

BALANCER = "w3"
PROXY_CLIENT = f"{PKI_DIR}/front-proxy-client.crt"
MOMENTS = 20
"""Of a soak; `make test` has two, at chosen phases."""


@pytest.fixture(scope="module")
async def made(kubewright: Kubewright, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Converting]:
    """cp1 by kubeadm without --control-plane-endpoint, w1 and w2; five machines more."""
    kubewright("lab", "down", CONVERTED)
    try:
        kubewright(
            "lab", "up", "--name", CONVERTED, "--control-planes", "4", "--workers", "4", "--machines-only"
        )
        lab = open_lab(CONVERTED)
        directory = tmp_path_factory.mktemp("converted")
        yield await _by_kubeadm(lab, kubewright, directory)
    finally:
        kubewright("lab", "down", CONVERTED, code=None)


async def _by_kubeadm(lab: Lab, kubewright: Kubewright, directory: Path) -> Converting:
    # The lab's own file is for several control planes at once, behind an endpoint that kubeadm knows nothing of.
    ours = yaml.safe_load(lab.places.cluster_yaml.read_text())
    hosts = [host | {"roles": ["worker"]} if host["name"] != "cp1" else host for host in ours["hosts"]]
    alone = {key: value for key, value in ours.items() if key != "endpoint"} | {"hosts": hosts}
    written(lab.places.cluster_yaml, alone)
    await machines.prepare(lab, control_planes=["cp1", "cp4"])
    address = str(lab.machine("cp1").plan.address)
    config = joinable(address, controlPlaneEndpoint="", networking={"podSubnet": "10.244.0.0/16"})
    write(lab, "cp1", machines.CONFIG, config.encode())
    kubeadm(lab, "cp1", "init", "--config", machines.CONFIG, "--skip-phases=preflight")
    machines.until_signed(lab, "cp1")
    for worker in WORKERS:
        kubeadm(
            lab, worker, "join", f"{address}:6443", "--token", TOKEN, "--discovery-token-ca-cert-hash",
            machines.ca_hash(lab), "--cri-socket", SOCKET, "--skip-phases=preflight",
        )  # fmt: skip
    await machines.apply_network(lab)
    on(lab, "cp1", f"{KUBECTL} wait node --all --for=condition=Ready --timeout=90s")
    for workload in ("daemonset/kube-proxy", "deployment/coredns"):
        on(lab, "cp1", f"{KUBECTL} -n kube-system rollout status {workload} --timeout=90s")
    kubeconfig = directory / "kubeconfig"
    kubeconfig.write_text(on(lab, "cp1", "cat /etc/kubernetes/admin.conf"))
    file = directory / "cluster.yaml"
    kubewright_on(kubewright, lab, "cp1", "adopt", "-f", file)
    document = yaml.safe_load(file.read_text())
    every = {host["name"]: host for host in ours["hosts"]}
    more = [every["cp2"], every["cp3"], every[BALANCER] | {"roles": ["load-balancer"]}]
    written(file, document | {"hosts": [*document["hosts"], *more], "endpoint": {"type": "haproxy"}})
    made = Converting(lab, kubewright, file, kubeconfig, f"{lab.machine(BALANCER).plan.address}:6443")
    made.cluster(["cp1"]).healed()
    return made


# -- refused ------------------------------------------------------------------------------------------------------


def test_everything_that_is_wrong_is_said_at_once(made: Converting) -> None:
    """And nothing is changed."""
    before = made.state()
    on(made.lab, "cp1", f"mv {PKI_DIR}/ca.key {PROXY_CLIENT} /root/")
    write(made.lab, "cp1", PROXY_CLIENT, _expired(made.lab, "/root/front-proxy-client.crt"))
    document = yaml.safe_load(made.file.read_text())
    named = document | {"endpoint": {"type": "haproxy", "address": "api.example.test:6443"}}
    for name in ("cp1", "w1", "cp2", "cp3"):
        on(made.lab, name, f"echo '{made.address(BALANCER)} api.example.test' >>/etc/hosts")
    on(made.lab, "w2", 'mkdir -p "$1" && mount -t tmpfs -o size=32m tmpfs "$1"', BACKUPS)
    on(made.lab, "w1", "systemctl stop kubelet")
    # As the controller manager calls it 40 s later.
    unknown = {"type": "Ready", "status": "Unknown", "reason": "NodeStatusUnknown", "message": "it is silent"}
    status = {"status": {"conditions": [unknown]}}
    made.cluster(["cp1"]).api("/api/v1/nodes/w1/status", method="PATCH", body=status)
    try:
        file = written(made.file.with_name("named.yaml"), named)
        run = made.kubewright("convert", "--to-ha", "-f", file, "--no-merge", code=None)
    finally:
        on(made.lab, "cp1", f"mv /root/ca.key /root/front-proxy-client.crt {PKI_DIR}/")
        on(made.lab, "w2", 'umount "$1" && rmdir -p --ignore-fail-on-non-empty "$1"', BACKUPS)
        on(made.lab, "w1", "systemctl start kubelet")
        for name in ("cp1", "w1", "cp2", "cp3"):
            on(made.lab, name, "sed '/api.example.test/d' /etc/hosts >/tmp/hosts; cat /tmp/hosts >/etc/hosts")
    assert run.code == ExitCode.HOST_NOT_FIT, run.err
    for said in (
        f"cp1: there is no {PKI_DIR}/ca.key",
        f"cp1: {PROXY_CLIENT} ended on ",
        "w1: its Node is ",
        "w2: the endpoint's name api.example.test does not resolve there",
        f"w2: {BACKUPS} has 32 MiB free; the backup needs 64 MiB",
    ):
        assert said in run.err, run.err
    assert made.state() == before
    made.cluster(["cp1"]).healed()


def _expired(lab: Lab, path: str) -> bytes:
    """What signs the API server's requests, as it was when its CA was a second old."""
    rest = (
        f"{PKI_DIR}/{name}" for name in ("front-proxy-client.key", "front-proxy-ca.crt", "front-proxy-ca.key")
    )
    cert, key, ca, ca_key = (on(lab, "cp1", 'cat "$1"', file).encode() for file in (path, *rest))
    began = x509.load_cert(ca).not_valid_before_utc
    issuer = x509.KeyPair(ca, Secret(ca_key))
    return x509.sign_again(cert, Secret(key), issuer, began, timedelta(seconds=1)).cert


# -- killed, and brought back -------------------------------------------------------------------------------------


@pytest.mark.parametrize("phase", ["certificate-served", pytest.param("etcd", marks=pytest.mark.soak)])
def test_what_was_is_brought_back_from_a_killed_conversion(made: Converting, phase: str) -> None:
    """Killed before the cluster knows of an endpoint, and when a second control plane comes."""
    before = made.state()
    made.killed(phase)
    made.restore()
    assert made.state() == before
    made.cluster(["cp1"]).healed()


@pytest.mark.soak
@pytest.mark.timeout(6 * 3600)
def test_conversions_are_killed_across_their_whole_length(made: Converting) -> None:
    """From each moment what was is brought back; from another one near it the next run completes, and what was is
    brought back after that."""
    before = made.state()
    whole = made.run()
    made.restore()
    assert made.state() == before
    for number in range(MOMENTS):
        first = _killed_in(made, number, whole)
        made.restore()
        assert made.state() == before
        second = _killed_in(made, number, whole)
        started = time.monotonic()
        made.run()
        finished = time.monotonic() - started
        assert made.kubewright("plan", "-f", made.file, "-o", "json").document["changes"] == []
        made.restore()
        assert made.state() == before
        print(
            f"{number + 1:2}. killed after {first:.1f} s: brought back; after {second:.1f} s: finished in "
            f"{finished:.1f} s and brought back",
            flush=True,
        )


def _killed_in(made: Converting, part: int, whole: int) -> float:
    """Kill a conversion somewhere in one of its parts, of which there are `MOMENTS`; after how many seconds."""
    at = int((part + random.random()) / MOMENTS * whole)
    while not (seconds := made.killed_at(at)):  # the last lines are not always as many
        made.restore()
        at = at * 9 // 10
    return seconds


# -- converted ----------------------------------------------------------------------------------------------------


def test_nobody_notices(made: Converting, tmp_path: Path) -> None:
    """One run is killed when kubelets move, and the next finishes it."""
    with made.clients(tmp_path) as serving:
        made.killed("kubelet-server", serving=serving)
        made.run()
        made.cluster(PLANES).healed()
    made.nobody_noticed()


def test_the_cluster_is_whole_and_nothing_is_left_to_do(made: Converting) -> None:
    assert made.cluster(PLANES).endpoint == made.endpoint
    for name in (*PLANES, *WORKERS):
        used = on(made.lab, name, "grep -h server: /etc/kubernetes/kubelet.conf").split()[-1]
        assert used == f"https://{made.endpoint}", name
    made.kubewright("check", "-f", made.file)
    assert made.kubewright("plan", "-f", made.file, "-o", "json").document["changes"] == []
    planned = made.kubewright("convert", "--to-ha", "-f", made.file, "--dry-run", "-o", "json").document
    kept = {"backup"}  # the next conversion would be another one
    assert {stage["name"] for stage in planned["stages"]} <= kept


def test_the_first_control_plane_may_die(made: Converting, tmp_path: Path) -> None:
    """To which all led before. The others die in the soak."""
    made.killed_plane(PLANES[0], tmp_path)


@pytest.mark.soak
@pytest.mark.parametrize("victim", PLANES[1:])
def test_any_other_control_plane_may_die(made: Converting, tmp_path: Path, victim: str) -> None:
    made.run()  # finds nothing to do where it has been done
    made.killed_plane(victim, tmp_path)


def test_kubeadm_joins_more(made: Converting) -> None:
    made.joined_by_kubeadm("cp4", "w4")
