"""What the look's script prints, run for real on this computer, and how it is read."""

from __future__ import annotations

import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from kubewright.model.doctor.logs import log_text
from kubewright.model.doctor.look import KUBELET_CONF, LOOK, SWAPS, arguments, parse_look
from kubewright.model.doctor.reserved import RESERVED, dead_reservations, parse_reserved
from kubewright.model.kubeconfig import KUBELET_CLIENT_CURRENT
from kubewright.model.kubelet import CONFIG_PATH, FLAGS_PATH, KUBELET_DIR

EMPTY = ""
PRINTED = f"""
@@ time
 1780315200

@@ name
 W1

@@ units
 Id=kubelet.service
 LoadState=loaded
 UnitFileState=enabled
 ActiveState=active
 SubState=running
 Result=success
 MainPID=812
 NRestarts=2
 ExecMainStatus=0
 ActiveEnterTimestampMonotonic=40000000
 {EMPTY}
 Id=crio.service
 LoadState=not-found
 ActiveState=inactive
 SubState=dead
 Result=success
 {EMPTY}

@@ file:{KUBELET_CONF}
 apiVersion: v1
 @@ time

@@ file:/etc/kubernetes/manifests/etcd.yaml
 kind: Pod

@@ file:{CONFIG_PATH}
 failSwapOn: false

@@ file:{FLAGS_PATH}
 KUBELET_KUBEADM_ARGS="--node-ip=10.0.0.4 --hostname-override=blue"

@@ machine
 aarch64

@@ file:/proc/uptime
 100.00 180.00

@@ cert:{KUBELET_CLIENT_CURRENT}
 -----BEGIN CERTIFICATE-----
 MIIB
 -----END CERTIFICATE-----

@@ disks
 {KUBELET_DIR} /dev/vda 264212084 28889720 77501192 28% /mnt/a b

@@ inodes
 {KUBELET_DIR} /dev/vda 1000 100 900 10% /

@@ addresses
 1: lo    inet 127.0.0.1/8 scope host lo
 7: veth1@if2    inet 10.244.1.1/32 scope global veth1
 7: veth1@if2    inet6 fe80::1/64 scope link

@@ cgroup
 9:name=systemd:/system.slice/kubelet.service
 4:memory:/system.slice/kubelet.service
 2:cpu,cpuacct:/

@@ containerd
       SystemdCgroup = true

@@ resolv
 /run/systemd/resolve/resolv.conf
 nameserver 10.0.0.53
 nameserver ::1

@@ journal
 1780315000.5 kubelet[812]: E0601 first: of old

 1780315190.123456 kubelet[812]: E0601 last: of now
 -- Boot --

@@ log:/var/log/pods/kube-system_etcd-w1_0c9d/etcd/
 2026-06-01T11:59:59.123456789Z stderr F panic: no space

@@ end
"""


def test_everything_that_is_printed_is_read() -> None:
    look = parse_look(PRINTED)
    assert look.complete
    assert look.joined
    assert (look.now, look.hostname) == (datetime(2026, 6, 1, 12, 0, tzinfo=UTC), "W1")
    assert look.machine == "arm64"
    unit = look.kubelet
    assert unit is not None
    assert (unit.active, unit.pid, unit.restarts, unit.up) == ("active", 812, 2, timedelta(seconds=60))
    assert not look.units["crio"].exists
    assert look.manifests == {"etcd": "kind: Pod"}
    assert look.kubelet_config == {"failSwapOn": False}
    assert look.kubelet_flags == {"node-ip": "10.0.0.4", "hostname-override": "blue"}
    assert look.certs[KUBELET_CLIENT_CURRENT].startswith(b"-----BEGIN CERTIFICATE-----\nMIIB")
    disk = look.disks[KUBELET_DIR]
    assert (disk.mount, disk.size, disk.free) == ("/mnt/a b", 264212084, 77501192)
    assert look.inodes[KUBELET_DIR].percent_free == 90
    assert look.addresses == {"lo": ("127.0.0.1/8",), "veth1": ("10.244.1.1/32", "fe80::1/64")}
    assert look.cgroups["cpu"] == "/"
    assert look.cgroups["memory"] == look.cgroups["name=systemd"] == "/system.slice/kubelet.service"
    assert look.systemd_cgroup is True
    assert (look.resolv_path, look.nameservers) == ("/run/systemd/resolve/resolv.conf", ("10.0.0.53", "::1"))
    assert look.journal == ("E0601 first: of old", "E0601 last: of now", "-- Boot --")
    assert look.recent == ("E0601 last: of now",)
    assert look.log("etcd") == ("panic: no space",)
    assert look.log("etcd", "other") == ()


def test_no_content_is_taken_for_a_heading() -> None:
    assert "@@ time" in parse_look(PRINTED).files[KUBELET_CONF]


def test_the_process_counts_more_than_the_files() -> None:
    look = parse_look(PRINTED + "\n@@ command\n /usr/bin/kubelet\n --node-ip=10.0.0.5\n")
    assert look.kubelet_flags == {"node-ip": "10.0.0.5"}


@pytest.mark.parametrize("text", ["", "garbage", "\n@@ time\n x\n", PRINTED[:200]])
def test_a_look_that_was_cut_off_is_not_complete(text: str) -> None:
    assert not parse_look(text).complete


def shell(script: str, *words: str) -> str:
    return subprocess.run(
        ["sh", "-c", script, "sh", *words], capture_output=True, text=True, check=True, timeout=60
    ).stdout


def test_the_script_runs_here_and_its_words_are_read() -> None:
    look = parse_look(shell(LOOK, *arguments("/etc/kubernetes/pki")))
    assert look.complete
    assert look.now is not None
    assert look.hostname
    assert SWAPS in look.files
    assert "lo" in look.addresses or not look.addresses


def test_keys_and_tokens_do_not_leave_the_host(tmp_path: Path) -> None:
    conf, pem = tmp_path / "kubelet.conf", tmp_path / "apiserver.crt"
    conf.write_text(
        "users:\n- user:\n    client-key-data: SEKRIT1\n    token: SEKRIT2\n    client-certificate-data: LEGIBLE\n"
    )
    pem.write_text(
        "-----BEGIN CERTIFICATE-----\nLEGIBLE\n-----END CERTIFICATE-----\n"
        "-----BEGIN EC PRIVATE KEY-----\nSEKRIT3\n-----END EC PRIVATE KEY-----\n"
    )
    printed = shell(LOOK, str(conf), "", "", str(tmp_path), "", str(pem))
    assert "SEKRIT" not in printed
    assert printed.count("LEGIBLE") == 3


@pytest.mark.parametrize(
    ("line", "text"),
    [
        ("2026-06-01T11:59:59.1Z stdout F {}", "{}"),
        ("2026-06-01T11:59:59.1+02:00 stderr P half of", "half of"),
        ('{"log":"it said \\"no\\"\\n","stream":"stderr","time":"2026-06-01T11:59:59Z"}', 'it said "no"'),
        ("plain", "plain"),
    ],
)
def test_a_line_of_a_log_is_without_what_the_runtime_has_put_before_it(line: str, text: str) -> None:
    assert log_text(line) == text


# -- reservations ---------------------------------------------------------------------------------------------


def test_reservations_are_read_with_their_age_and_sandbox() -> None:
    text = "1000\n400 10.244.1.2\n990 10.244.1.3\n100 fd00::3\n1 lock\n@@\n10.244.1.2:abc\nfd00::3:def\r\n"
    found = parse_reserved(text, "cbr0")
    assert [(one.address, one.container, one.age.total_seconds()) for one in found] == [
        ("10.244.1.2", "abc", 600), ("10.244.1.3", "", 10), ("fd00::3", "def", 900),
    ]  # fmt: skip
    assert found[0].path == "/var/lib/cni/networks/cbr0/10.244.1.2"


def test_only_old_reservations_without_a_sandbox_are_dead() -> None:
    text = "1000\n400 10.1.1.2\n400 10.1.1.3\n990 10.1.1.4\n400 10.1.1.5\n@@\n10.1.1.2:live\n10.1.1.3:gone\n"
    found = parse_reserved(text, "cbr0")
    assert [one.address for one in dead_reservations(found, {"live"}, "cbr0")] == ["10.1.1.3", "10.1.1.5"]
    assert dead_reservations(found, {"live"}, "other") == []


def test_the_script_reads_host_locals_own_files(tmp_path: Path) -> None:
    (tmp_path / "cbr0").mkdir()
    for name, text in (
        ("10.244.1.2", "abc\r\neth0"), ("10.244.1.3", ""), ("lock", ""), ("last_reserved_ip.0", "10.244.1.3"),
    ):  # fmt: skip
        (tmp_path / "cbr0" / name).write_text(text)
    found = parse_reserved(shell(RESERVED.replace("/var/lib/cni/networks", str(tmp_path)), "cbr0"), "cbr0")
    assert [(one.address, one.container) for one in found] == [("10.244.1.2", "abc"), ("10.244.1.3", "")]


def test_a_network_without_reservations_has_none(tmp_path: Path) -> None:
    assert (
        parse_reserved(shell(RESERVED.replace("/var/lib/cni/networks", str(tmp_path)), "cbr0"), "cbr0") == ()
    )


def test_a_runtime_without_any_sandbox_is_not_believed() -> None:
    found = parse_reserved("1000\n400 10.1.1.3\n@@\n10.1.1.3:gone\n", "cbr0")
    assert dead_reservations(found, set(), "cbr0") == []
