"""What users get wrong, on real machines: one clear error, its exit code, and nothing changed anywhere."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from cluster_fixtures import BAD, ON_MACHINES, Kubewright, Run, copied, lab_of, on, put, written

from kubewright.errors import ExitCode
from kubewright.lab.keys import make_key, write_private
from kubewright.lab.lab import Lab

pytestmark = ON_MACHINES

# Everything that `apply` would change, by its inode's change time, which cannot be set back; and what runs. The
# processes of logins come and go; a shell that is ending shows as [sh], and any program as defunct.
LOOK = r"""
find /etc /usr/local /opt /root /var/lib/kubelet /var/lib/cni /var/lib/etcd \
    -xdev -printf '%p %y %m %U:%G %s %C@\n' 2>/dev/null | sort
ls /var/lib /var/lib/containerd | sort
sysctl -n net.ipv4.ip_forward net.bridge.bridge-nf-call-iptables 2>/dev/null
ctr -n k8s.io images ls -q
ps -eo pid=,lstart=,args= | grep -Ev 'sshd|ps -eo|sh -c|\[sh\]|<defunct>|grep|sort|systemd --user|\(sd-pam\)' |
  sort
"""


@pytest.fixture(scope="module")
def lab(kubewright: Kubewright) -> Iterator[Lab]:
    """Two machines that nobody has made nodes."""
    with lab_of(kubewright, BAD, workers=1) as found:
        yield found


class Input:
    """A cluster.yaml of the lab's machines that a test spoils, and what is expected of `apply` with it."""

    def __init__(self, kubewright: Kubewright, lab: Lab, directory: Path) -> None:
        self.kubewright = kubewright
        self.lab = lab
        self.directory = directory
        self.file, self.document = copied(lab, directory / "cluster.yaml")

    def host(self, name: str) -> dict[str, Any]:
        """A host's entry, to be changed in place."""
        found: dict[str, Any] = next(host for host in self.document["hosts"] if host["name"] == name)
        return found

    def look(self) -> dict[str, list[str]]:
        """The machines' state, and the user's files here."""
        state = {machine.name: on(self.lab, machine.name, LOOK).splitlines() for machine in self.lab.machines}
        here = [path for path in self.kubewright.home.rglob("*") if path.is_file()]
        return state | {"here": [f"{path} {path.stat().st_mtime_ns}" for path in sorted(here)]}

    def refused(self, code: ExitCode, *words: str, unchanged: bool = True) -> Run:
        """Run `apply`: it fails with `code` and one error that holds `words`, and changes nothing."""
        written(self.file, self.document)
        before = self.look() if unchanged else {}
        run = self.kubewright("apply", "-f", self.file, code=int(code))
        errors = [line for line in run.err.splitlines() if line.startswith("error: ")]
        assert len(errors) == 1, run.err
        assert "Traceback" not in run.err
        assert not run.out, run.out
        text = run.err[run.err.index(errors[0]) :]
        assert all(word in text for word in words), run.err
        if unchanged:
            plan = self.kubewright("plan", "-f", self.file, "-o", "json", code=int(code))
            assert not plan.out, plan.out
            assert settled(self.look, before) == before
        return run


def settled(look: Any, expected: Any) -> Any:
    """What is seen at last: a program that was being waited for when we looked first may take a moment to end."""
    deadline = time.monotonic() + 5
    while (seen := look()) != expected and time.monotonic() < deadline:
        time.sleep(0.2)
    return seen


@pytest.fixture
def bad(kubewright: Kubewright, lab: Lab, tmp_path: Path) -> Input:
    return Input(kubewright, lab, tmp_path)


# -- what is wrong in the file itself -------------------------------------------------------------------------


def test_an_unknown_field(bad: Input) -> None:
    bad.host("w1")["adress"] = bad.host("w1").pop("address")
    run = bad.refused(ExitCode.CONFIG_UNKNOWN_FIELD, "hosts[1] (w1)", "'adress'", "did you mean 'address'?")
    assert re.search(r"cluster\.yaml: .*, line \d+", run.err)


def test_an_unknown_field_inside_a_kind_of_kubeadms(bad: Input) -> None:
    bad.document["kubeletConfiguration"] = {"maxPod": 50}
    bad.refused(ExitCode.CONFIG_UNKNOWN_FIELD, "kubeletConfiguration", "'maxPod'", "did you mean 'maxPods'?")


@pytest.mark.parametrize("field", ["name", "address"])
def test_a_host_that_stands_there_twice(bad: Input, field: str) -> None:
    bad.host("w1")[field] = bad.host("cp1")[field]
    bad.refused(ExitCode.CONFIG_DUPLICATE_HOST, f"hosts[1].{field}", bad.host("cp1")[field], "hosts[0]")


def test_one_machine_under_two_names(bad: Input) -> None:
    """The file cannot tell: w1 stands there by a second address of cp1."""
    second, first = str(bad.lab.plan.subnet[50]), bad.host("cp1")["address"]
    rows = bad.lab.places.known_hosts.read_text().splitlines()
    known_hosts = bad.directory / "known_hosts"
    known_hosts.write_text("\n".join([*rows, *(row.replace(first, second) for row in rows)]) + "\n")
    bad.document["ssh"]["knownHosts"] = str(known_hosts)
    bad.host("w1")["address"] = second
    change = 'ip address "$1" "$2/32" dev "$(ip -o -4 route show default | sed "s/.* dev //; s/ .*//")"'
    on(bad.lab, "cp1", change, "add", second)
    try:
        bad.refused(ExitCode.CONFIG_DUPLICATE_HOST, "w1: has the same machine-id as cp1")
    finally:
        on(bad.lab, "cp1", change, "delete", second)


def test_overlapping_subnets(bad: Input) -> None:
    bad.document["network"] = {"podSubnet": "10.96.128.0/18"}
    bad.refused(ExitCode.CONFIG_OVERLAPPING_SUBNETS, "network.podSubnet", "10.96.128.0/18", "10.96.0.0/12")


def test_a_pod_subnet_over_the_hosts_own(bad: Input) -> None:
    bad.document["network"] = {"podSubnet": str(bad.lab.plan.subnet.supernet(new_prefix=16))}
    bad.refused(ExitCode.CONFIG_OVERLAPPING_SUBNETS, "podSubnet", bad.host("cp1")["address"])


@pytest.mark.parametrize("version", ["v1.99.0", "v1.19.0", "v1.20.15"])
def test_a_version_that_no_source_has(bad: Input, version: str) -> None:
    bad.document["kubernetesVersion"] = version
    bad.refused(ExitCode.VERSION_UNAVAILABLE, "kubernetesVersion", version, "v1.20.")


# -- hosts that cannot be entered -----------------------------------------------------------------------------


def test_an_address_where_nobody_is(bad: Input) -> None:
    bad.host("w1")["address"] = str(bad.lab.plan.subnet[200])
    bad.refused(ExitCode.HOST_UNREACHABLE, "w1", str(bad.lab.plan.subnet[200]))


def test_a_key_that_is_refused(bad: Input) -> None:
    private, _ = make_key("somebody else")
    key = bad.directory / "other_key"
    write_private(key, private)
    bad.host("w1")["ssh"] = {"keyFiles": [str(key)]}
    bad.refused(ExitCode.HOST_AUTH_REFUSED, "w1", "'root'", str(key))


def test_a_host_key_that_has_changed(bad: Input) -> None:
    _, public = make_key("another host")
    address = bad.host("w1")["address"]
    rows = [line for line in bad.lab.places.known_hosts.read_text().splitlines() if address not in line]
    known_hosts = bad.directory / "known_hosts"
    known_hosts.write_text("\n".join([*rows, f"{address} {' '.join(public.split()[:2])}"]) + "\n")
    bad.document["ssh"]["knownHosts"] = str(known_hosts)
    bad.refused(ExitCode.HOST_KEY_MISMATCH, "w1", address, "has changed", "ssh-keygen", str(known_hosts))


def test_a_user_without_root(bad: Input) -> None:
    on(bad.lab, "w1", "id plain 2>/dev/null || useradd --create-home --shell /bin/sh plain;"
                                 "cp -r /root/.ssh /home/plain && chown -R plain: /home/plain")  # fmt: skip
    bad.host("w1")["ssh"] = {"user": "plain"}
    bad.refused(ExitCode.HOST_NO_PRIVILEGE, "'plain' on w1", "sudo")


def test_several_bad_hosts_are_all_named(bad: Input) -> None:
    """One whose packets are dropped, one that is not there, one that takes no key of ours."""
    private, _ = make_key("somebody else")
    key = bad.directory / "other_key"
    write_private(key, private)
    bad.host("cp1")["ssh"] = {"keyFiles": [str(key)]}
    bad.document["hosts"].append({"name": "w2", "address": str(bad.lab.plan.subnet[200])})
    drop = "iptables -{} INPUT -p tcp --dport 22 -j DROP"
    written(bad.file, bad.document)
    on(bad.lab, "w1", drop.format("I"))
    try:
        run = bad.kubewright("apply", "-f", bad.file, code=None)
    finally:
        on(bad.lab, "w1", drop.format("D"))
    assert run.code in (ExitCode.HOST_UNREACHABLE, ExitCode.HOST_AUTH_REFUSED), str(run)
    errors = [line for line in run.err.splitlines() if line.startswith("error: ")]
    assert sorted(line.split()[1] for line in errors) == ["cp1", "w1", "w2"], run.err
    assert "Traceback" not in run.err


# -- hosts that are unfit -------------------------------------------------------------------------------------


@contextmanager
def mounted(bad: Input, machine: str, path: str, size: str) -> Iterator[None]:
    """A small file system at `path` of a machine."""
    on(bad.lab, machine, 'mkdir -p "$1" && mount -t tmpfs -o "size=$2" tmpfs "$1"', path, size)
    try:
        yield
    finally:
        on(bad.lab, machine, 'umount --lazy "$1"', path)


def test_a_full_disk_is_found_before_anything_is_written(bad: Input) -> None:
    with mounted(bad, "w1", "/var/lib", "48m"):
        bad.refused(ExitCode.HOST_DISK_FULL, "w1", "/var/lib has 48 MiB free", "1024 MiB are needed")


def test_a_system_that_is_not_supported(bad: Input) -> None:
    release = 'ID=plan9\\nVERSION_ID=4\\nPRETTY_NAME="Plan 9 from Bell Labs"\\n'
    on(bad.lab, "w1", f"printf '{release}' >/run/os && mount --bind /run/os /etc/os-release")
    try:
        bad.refused(ExitCode.HOST_UNSUPPORTED_OS, "w1", "Plan 9 from Bell Labs", "debian 12")
    finally:
        on(bad.lab, "w1", "umount /etc/os-release; rm /run/os")


def test_a_node_that_kubeadm_has_made(bad: Input, real_kubeadm: Path) -> None:
    """The files are the real kubeadm's: those that it leaves on a node of its cluster."""
    put(bad.lab, "w1", real_kubeadm, "/run/kubeadm")
    make = """
        set -e
        /run/kubeadm init phase certs ca >/dev/null
        /run/kubeadm init phase kubeconfig kubelet --control-plane-endpoint theirs.example.test:6443 >/dev/null
        rm /run/kubeadm /etc/kubernetes/pki/ca.key
    """
    try:
        on(bad.lab, "w1", make)
        bad.refused(
            ExitCode.HOST_IN_OTHER_CLUSTER, "w1", "/etc/kubernetes/kubelet.conf", "theirs.example.test:6443"
        )
    finally:
        on(bad.lab, "w1", "rm -rf /etc/kubernetes")


# -- a disk that fills up while it is written -----------------------------------------------------------------


def test_a_disk_that_fills_up_while_a_program_is_written(bad: Input) -> None:
    """The kubelet does not fit. Nothing half-written stays, and what else is there stays as it is."""
    bad.document["hosts"] = [bad.host("cp1")]
    with mounted(bad, "cp1", "/usr/local/bin", "20m"):
        on(bad.lab, "cp1", "echo mine >/usr/local/bin/kubelet")
        words = ("/usr/local/bin/kubelet", "the disk of cp1 is full")
        bad.refused(ExitCode.HOST_DISK_FULL, *words, unchanged=False)
        assert on(bad.lab, "cp1", "cd /usr/local/bin; ls -A; cat kubelet").split() == [
            "kubelet", "mine",
        ]  # fmt: skip


def test_a_disk_that_fills_up_while_an_image_is_imported(bad: Input) -> None:
    bad.document["hosts"] = [bad.host("cp1")]
    restart = "systemctl restart containerd"
    with mounted(bad, "cp1", "/var/lib/containerd", "30m"):
        on(bad.lab, "cp1", restart)
        words = ("cp1", "image k8s.gcr.io/", "disk is full", "/var/lib/containerd")
        bad.refused(ExitCode.HOST_DISK_FULL, *words, unchanged=False)
    on(bad.lab, "cp1", restart)


def test_a_plan_for_a_control_plane_that_is_half_made(bad: Input) -> None:
    """The full disks have left one without an API server. A plan says what is missing, and does not fail."""
    plan = bad.kubewright("plan", "-f", bad.lab.places.cluster_yaml, "-o", "json")
    targets = {(change["host"], change["target"]) for change in plan.document["changes"]}
    assert {("cp1", "/etc/kubernetes/manifests/etcd.yaml"), ("w1", "join the cluster")} <= targets
    assert ("cp1", "/etc/kubernetes/pki/ca.crt") not in targets
    assert "this plan leaves out what is in the cluster" in plan.err
