"""The real kubeadm's cluster, and nodes that we join to it: a worker and two control planes."""

from __future__ import annotations

import base64
import json
import re
import signal
import subprocess
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import kubeadm_machines as machines
import pytest
import yaml
from cluster_fixtures import JOINED, ON_MACHINES, Kubewright, Run, lab_of, on, start_on, until_on, write
from init_configurations import KEY, SOCKET, TOKEN, joinable
from kubeadm_machines import KUBECTL

from kubewright.errors import ExitCode
from kubewright.lab.lab import Lab

pytestmark = ON_MACHINES

# No registry can be reached, and nobody has CoreDNS' image; all else of preflight holds.
NO_REGISTRY = ("--ignore-preflight-errors", "ImagePull")


class Joiner:
    """The cluster, and how to join it."""

    def __init__(self, lab: Lab, kubewright: Kubewright) -> None:
        self.lab = lab
        self._kubewright = kubewright
        self.address = str(lab.machine("cp1").plan.address)
        self.hash = machines.ca_hash(lab)

    def __call__(self, machine: str, *arguments: str | Path, code: int | None = 0) -> Run:
        return machines.kubewright_on(self._kubewright, self.lab, machine, "join", *arguments, code=code)

    def start(self, machine: str, *arguments: str | Path) -> subprocess.Popen[str]:
        """A join that is for the caller to end."""
        return self._kubewright.start("join", *arguments, *machines.host_options(self.lab, machine))

    def kill(self, machine: str, *arguments: str | Path) -> None:
        """A join that dies when the kubelet has been given its kubeconfig."""
        run = self.start(machine, *arguments)
        until_on(self.lab, machine, "[ -e /etc/kubernetes/kubelet.conf ]")
        run.kill()
        run.wait()

    def known(self, *, endpoint: str = "", token: str = TOKEN, digest: str = "") -> list[str]:
        """How a cluster is named: its address, a token, its CA's hash."""
        where = endpoint or f"{self.address}:6443"
        return [where, "--token", token, "--discovery-token-ca-cert-hash", digest or self.hash]

    def refused(self, *arguments: str | Path, code: ExitCode) -> str:
        """What a join of w1 is refused with, on standard error."""
        return self("w1", *arguments, "--skip-phases", "preflight", code=code).err


@pytest.fixture(scope="module")
async def join(kubewright: Kubewright) -> AsyncIterator[Joiner]:
    """cp1 made by kubeadm; w1, w2 (a control plane, with the certificate key) and w3 (one with copied
    certificates) joined by us. The first join of w3 is killed on its way."""
    with lab_of(kubewright, JOINED, workers=3) as lab:
        await machines.prepare(lab, control_planes=["cp1", "w2", "w3"])
        address = str(lab.machine("cp1").plan.address)
        config = joinable(address, networking={"podSubnet": "10.244.0.0/16"})
        write(lab, "cp1", machines.CONFIG, config.encode())
        machines.kubeadm(
            lab, "cp1", "init", "--config", machines.CONFIG, "--upload-certs", "--skip-phases=preflight"
        )
        await machines.apply_network(lab)
        join = Joiner(lab, kubewright)
        with ThreadPoolExecutor(1) as pool:
            worker = pool.submit(join, "w1", *join.known())
            join("w2", *join.known(), "--control-plane", "--certificate-key", KEY, *NO_REGISTRY)
            machines.copy_tree(lab, "cp1", "w3", "/etc/kubernetes", machines.SHARED)
            join.kill("w3", *join.known(), "--control-plane", *NO_REGISTRY)
            join("w3", *join.known(), "--control-plane", *NO_REGISTRY)
            worker.result()
        yield join


# -- what has been joined -----------------------------------------------------------------------------------------


def test_all_nodes_are_ready_and_marked(join: Joiner) -> None:
    said = on(join.lab, "cp1", f"{KUBECTL} wait node --all --for=condition=Ready --timeout=60s")
    assert said.count("condition met") == 4
    nodes = json.loads(on(join.lab, "cp1", f"{KUBECTL} get nodes -o json"))["items"]
    marks = {node["metadata"]["name"]: _marks(node) for node in nodes}
    # cp1 is kubeadm's own.
    assert marks["w2"] == marks["w3"] == marks["cp1"]
    assert marks["w1"] == ([], [], SOCKET)


def _marks(node: dict[str, Any]) -> tuple[list[str], list[str], str]:
    roles = [name for name in node["metadata"]["labels"] if name.startswith("node-role.kubernetes.io/")]
    taints = [f"{taint['key']}:{taint['effect']}" for taint in node["spec"].get("taints", [])]
    return (
        sorted(roles),
        sorted(taints),
        node["metadata"]["annotations"]["kubeadm.alpha.kubernetes.io/cri-socket"],
    )


def test_etcd_has_three_voters_and_kubeadm_knows_all_control_planes(join: Joiner) -> None:
    members = machines.etcd_members(join.lab)
    assert sorted(re.findall(r"started, (\w+), .*false", members)) == ["cp1", "w2", "w3"]
    assert machines.api_endpoints(join.lab) == {
        name: {"advertiseAddress": str(join.lab.machine(name).plan.address), "bindPort": 6443}
        for name in ("cp1", "w2", "w3")
    }


def test_the_files_are_those_of_kubeadms_own_control_plane(join: Joiner) -> None:
    """But for what only the first one has; and nothing of the join is left."""
    listing = "cd /etc/kubernetes && find . -type f -printf '%P %m\n' | sort"
    first, keyed, copied = (on(join.lab, name, listing).split("\n") for name in ("cp1", "w2", "w3"))
    assert keyed == first
    assert [line.split()[0] for line in copied if line] == [line.split()[0] for line in first if line]
    assert on(join.lab, "w1", listing).split("\n")[:-1] == ["kubelet.conf 600", "pki/ca.crt 644"]


def test_a_second_join_finds_nothing_to_do(join: Joiner) -> None:
    for machine, more in (("w1", ()), ("w2", ("--control-plane", *NO_REGISTRY))):
        run = join(machine, *join.known(), *more, "-o", "json")
        assert run.events[-1]["changes"] == 0, run


def test_check_is_green(join: Joiner, kubewright: Kubewright, tmp_path: Path) -> None:
    config = tmp_path / "kubeconfig"
    config.write_text(on(join.lab, "cp1", "cat /etc/kubernetes/admin.conf"))
    document: dict[str, Any] = kubewright("check", "--kubeconfig", config, "-o", "json").document
    assert document["ok"]
    assert len(document["nodes"]) == 4


# -- discovery: P10 -----------------------------------------------------------------------------------------------


def test_p10_a_token_that_the_cluster_does_not_know(join: Joiner) -> None:
    said = join.refused(*join.known(token="222222.0123456789abcdef"), code=ExitCode.API_ERROR)
    assert "does not know token 222222" in said
    assert "tokens that sign cluster-info: abcdef" in said
    assert "kubewright token create --print-join-command" in said


def test_p10_a_token_that_has_expired(join: Joiner) -> None:
    """cluster-info still bears its signature: what an expired token is until the controllers clear it away, and
    what one stays that may sign and not authenticate."""
    data = {"token-id": "333333", "token-secret": "0123456789abcdef", "usage-bootstrap-signing": "true"}
    secret = {
        "apiVersion": "v1",
        "kind": "Secret",
        "type": "bootstrap.kubernetes.io/token",
        "metadata": {"name": "bootstrap-token-333333", "namespace": "kube-system"},
        "data": {name: base64.b64encode(value.encode()).decode() for name, value in data.items()},
    }
    write(join.lab, "cp1", "/root/token.json", json.dumps(secret).encode())
    on(join.lab, "cp1", f"{KUBECTL} create -f /root/token.json")
    said = join.refused(*join.known(token="333333.0123456789abcdef"), code=ExitCode.API_ERROR)
    assert "token 333333 has expired" in said
    assert "kubewright token create --print-join-command" in said


def test_p10_another_ca_and_another_secret(join: Joiner) -> None:
    said = join.refused(*join.known(digest="sha256:" + "0" * 64), code=ExitCode.HOST_IN_OTHER_CLUSTER)
    assert f"has another CA than the hash says: {join.hash}" in said
    said = join.refused(*join.known(token="abcdef.ffffffffffffffff"), code=ExitCode.API_ERROR)
    assert "its second half is wrong" in said


def test_p10_clocks_apart(join: Joiner) -> None:
    shifted = '#!/bin/sh\nexec /usr/bin/date -d "-2 days" "$@"\n'
    write(join.lab, "w1", "/usr/local/bin/date", shifted.encode(), 0o755)
    try:
        said = join.refused(*join.known(), code=ExitCode.HOST_NOT_FIT)
    finally:
        on(join.lab, "w1", "rm /usr/local/bin/date")
    assert "the cluster's CA is not valid before" in said
    assert "timedatectl set-ntp true" in said


@pytest.mark.parametrize(
    ("endpoint", "why"),
    [
        ("{}:6440", "Connection refused"),
        ("{}:22", "it speaks no TLS"),
        ("{}:2379", "it wants a client certificate, as etcd does"),
        ("no-such-name.test:6443", "name resolution|not known"),
    ],
)
def test_p10_nothing_or_something_else_answers(join: Joiner, tmp_path: Path, endpoint: str, why: str) -> None:
    document = {
        "apiVersion": "kubeadm.k8s.io/v1beta2",
        "kind": "JoinConfiguration",
        "discovery": {
            "timeout": "1s",
            "bootstrapToken": {
                "token": TOKEN,
                "apiServerEndpoint": endpoint.format(join.address),
                "caCertHashes": [join.hash],
            },
        },
    }
    config = tmp_path / "join.yaml"
    config.write_text(yaml.safe_dump(document))
    said = join.refused("--config", config, code=ExitCode.API_ERROR)
    assert re.search(why, said), said
    assert "kubewright token create --print-join-command" in said


# -- discovery: file and URL --------------------------------------------------------------------------------------


def test_discovery_by_file_by_url_and_without_a_hash(join: Joiner) -> None:
    """With cluster-info's own kubeconfig, which has no credentials. w1 is a node already: what is left to do is
    nothing."""
    text = on(
        join.lab, "cp1", f"{KUBECTL} -n kube-public get cm cluster-info -o jsonpath={{.data.kubeconfig}}"
    )
    for machine in ("cp1", "w1"):
        write(join.lab, machine, "/root/cluster.conf", text.encode())
    said = join.refused("--discovery-file", "/root/cluster.conf", code=ExitCode.CONFIG_INVALID)
    assert "no credentials" in said
    token = ("--tls-bootstrap-token", TOKEN, "--skip-phases", "preflight", "--dry-run")
    assert "nothing to do" in join("w1", "--discovery-file", "/root/cluster.conf", *token).out
    unsafe = (
        f"{join.address}:6443",
        "--discovery-token",
        TOKEN,
        "--discovery-token-unsafe-skip-ca-verification",
    )
    assert "nothing to do" in join("w1", *unsafe, *token).out
    on(join.lab, "w1", "cat /etc/kubernetes/pki/ca.crt >>/etc/ssl/certs/ca-certificates.crt")
    server = "cd /root && exec openssl s_server -accept 8443 -WWW -cert $1.crt -key $1.key"
    with start_on(join.lab, "cp1", server, "/etc/kubernetes/pki/apiserver"):
        until_on(join.lab, "cp1", "ss -ltn | grep :8443")
        url = f"https://{join.address}:8443/cluster.conf"
        assert "nothing to do" in join("w1", "--discovery-file", url, *token).out
    on(join.lab, "cp1", "pkill -x openssl || true")


# -- a control plane that is not to be ----------------------------------------------------------------------------


def test_a_member_of_etcd_that_is_interrupted_is_taken_back(join: Joiner, tmp_path: Path) -> None:
    """w1 is made ready to be a control plane, phase by phase, and its etcd has an image that does not exist."""
    known = [*join.known(), "--control-plane"]
    prepare = ("phase", "control-plane-prepare")
    said = join("w1", *prepare, "download-certs", *known, "--certificate-key", KEY[:-2] + "00", code=10).err
    assert "--certificate-key does not open ca.crt" in said
    said = join("w1", *prepare, "certs", *known, code=ExitCode.HOST_NOT_FIT).err
    assert "the certificates that control planes share are not there" in said
    join("w1", *prepare, "download-certs", *known, "--certificate-key", KEY)
    for phase in ("certs", "kubeconfig"):
        join("w1", *prepare, phase, *known)
    (tmp_path / "etcd.yaml").write_text("spec: {containers: [{name: etcd, image: 'no.test/etcd:1'}]}")
    run = join.start("w1", "phase", "control-plane-join", "etcd", "--control-plane", "--patches", tmp_path)
    until_on(join.lab, "w1", f"[ -e {_MANIFEST} ]")
    assert "true" in machines.etcd_members(join.lab)  # a learner
    run.send_signal(signal.SIGINT)
    assert run.wait(60) == ExitCode.INTERRUPTED
    assert len(machines.etcd_members(join.lab).split("\n")[:-1]) == 3
    on(join.lab, "w1", '[ ! -e "$1" ] && [ ! -e /var/lib/etcd/member ]', _MANIFEST)


_MANIFEST = "/etc/kubernetes/manifests/etcd.yaml"


def test_uploaded_certificates_that_are_gone_are_named(join: Joiner) -> None:
    """Where not all that they gave is on the disk."""
    on(join.lab, "w1", "rm -f /etc/kubernetes/pki/sa.key")
    on(join.lab, "cp1", f"{KUBECTL} -n kube-system delete secret kubeadm-certs")
    said = join(
        "w1", "phase", "control-plane-prepare", "download-certs", *join.known(), "--control-plane",
        "--certificate-key", KEY, code=ExitCode.CONFIG_INVALID,
    ).err  # fmt: skip
    assert "it is kept for two hours" in said
    assert "kubewright init phase upload-certs --upload-certs" in said


def test_a_join_goes_on_with_the_certificates_that_it_has_downloaded(join: Joiner) -> None:
    """Also when what they came from is no more."""
    on(join.lab, "cp1", f"{KUBECTL} -n kube-system delete secret kubeadm-certs --ignore-not-found")
    more = ("--control-plane", "--certificate-key", KEY, *NO_REGISTRY)
    run = join("w2", *join.known(), *more, "-o", "json")
    assert run.events[-1]["changes"] == 0, run
