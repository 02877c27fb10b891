"""What a backup is called, what it needs, and what etcd's tools are told."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest

from kubewright.errors import ConfigError, ExitCode
from kubewright.model import backup
from kubewright.model.arguments import EtcdMember
from kubewright.model.backup import BackedUp

CERTS = "/etc/kubernetes/pki/etcd"


def etcd(**flags: str) -> dict[str, Any]:
    command = ["etcd", *(f"--{name.replace('_', '-')}={value}" for name, value in flags.items())]
    container = {"name": "etcd", "image": "registry.example.com/etcd:3.4.13-0", "command": command}
    return {"spec": {"containers": [container]}}


def test_a_name_is_the_time_in_utc() -> None:
    assert backup.new_id(datetime(2026, 11, 22, 0, 15, tzinfo=UTC)) == "20261122-001500"
    east = timezone(timedelta(hours=9))
    assert backup.new_id(datetime(2026, 11, 22, 9, 15, tzinfo=east)) == "20261122-001500"
    assert backup.check_id("20261122-001500") == "20261122-001500"
    assert backup.directory("20261122-001500") == "/var/lib/kubewright/backups/20261122-001500"


@pytest.mark.parametrize(
    "text",
    ["", "..", "/etc", "20261122-001500/../..", "20261122-001500\n", "20261122", "-r"],
)
def test_no_path_is_a_name(text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        backup.check_id(text)
    assert caught.value.exit_code is ExitCode.USAGE
    with pytest.raises(ConfigError):
        backup.directory(text)


def test_room_is_for_the_snapshot_and_for_what_a_restore_makes_of_it() -> None:
    spare = backup.room_needed(0)
    assert backup.room_needed(1000, 100) == 1200 + spare


def test_all_that_makes_a_node_is_kept() -> None:
    assert backup.KEPT == (
        "/etc/kubernetes",
        "/var/lib/kubelet/config.yaml",
        "/var/lib/kubelet/kubeadm-flags.env",
        "/var/lib/kubelet/instance-config.yaml",
        "/var/lib/kubelet/pki",
        "/etc/systemd/system/kubelet.service",
        "/etc/systemd/system/kubelet.service.d",
    )


def test_the_hosts_of_a_backup_are_read_as_they_were_written() -> None:
    hosts = [BackedUp("cp1", "192.0.2.1", True, True), BackedUp("w1", "192.0.2.9", False)]
    assert backup.read_whole(backup.whole_file(hosts)) == hosts


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"hosts": [{"name": "cp1"}]}', b'{"hosts": 3}'])
def test_a_damaged_list_names_nobody(content: bytes) -> None:
    assert backup.read_whole(content) == []


def test_a_snapshot_over_tls_is_asked_for_at_the_loopback() -> None:
    pod = etcd(
        listen_client_urls="https://192.0.2.1:2379,https://127.0.0.1:2379", trusted_ca_file=f"{CERTS}/ca.crt"
    )
    assert backup.snapshot_arguments(pod, "/var/lib/etcd/x.db") == [
        "--endpoints=https://127.0.0.1:2379",
        f"--cacert={CERTS}/ca.crt",
        f"--cert={CERTS}/healthcheck-client.crt",
        f"--key={CERTS}/healthcheck-client.key",
        "snapshot", "save", "/var/lib/etcd/x.db",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("listen", "asked"),
    [
        ("http://127.0.0.1:2379", "http://127.0.0.1:2379"),
        ("http://192.0.2.1:2379", "http://192.0.2.1:2379"),
        ("http://192.0.2.1:2379,http://[::1]:2379", "http://[::1]:2379"),
        ("http://0.0.0.0:2379", "http://127.0.0.1:2379"),
        ("", "http://localhost:2379"),
    ],
)
def test_plain_http_needs_no_certificates(listen: str, asked: str) -> None:
    arguments = backup.snapshot_arguments(etcd(listen_client_urls=listen), "/x.db")
    assert arguments == [f"--endpoints={asked}", "snapshot", "save", "/x.db"]


@pytest.mark.parametrize(
    ("status", "good"),
    [
        ('{"hash":3,"revision":812,"totalKey":700,"totalSize":2400000}', True),
        ('{"hash":0,"revision":0,"totalKey":0,"totalSize":20480}', False),
        ("", False),
        ("[]", False),
        ("Error: not a snapshot", False),
    ],
)
def test_a_good_snapshot_has_keys(status: str, good: bool) -> None:
    assert backup.good_snapshot(status) is good


def test_a_restored_member_knows_all_members() -> None:
    members = [EtcdMember("cp1", "https://192.0.2.1:2380"), EtcdMember("cp2", "https://192.0.2.2:2380")]
    arguments = backup.restore_arguments(
        members[1], members, snapshot="/b/etcd.db", data_dir="/var/lib/etcd/new", token="t"
    )
    assert arguments == [
        "snapshot", "restore", "/b/etcd.db", "--name=cp2", "--data-dir=/var/lib/etcd/new",
        "--initial-cluster=cp1=https://192.0.2.1:2380,cp2=https://192.0.2.2:2380",
        "--initial-advertise-peer-urls=https://192.0.2.2:2380", "--initial-cluster-token=t",
    ]  # fmt: skip
    bumped = backup.restore_arguments(
        members[1], members, snapshot="/b/etcd.db", data_dir="/var/lib/etcd/new", token="t", bump=True
    )
    assert bumped[: len(arguments)] == arguments
    assert bumped[len(arguments) :] == ["--bump-revision=1000000000", "--mark-compacted"]


def test_a_member_is_what_its_manifest_says() -> None:
    pod = etcd(name="cp1", initial_advertise_peer_urls="https://192.0.2.1:2380,https://[2001:db8::1]:2380")
    assert backup.member_in(pod) == EtcdMember("cp1", "https://192.0.2.1:2380")
    assert backup.member_in(etcd()) == EtcdMember("default", "http://localhost:2380")
    assert backup.etcd_image(pod) == "registry.example.com/etcd:3.4.13-0"
    assert backup.etcd_image({}) == ""


@pytest.mark.parametrize(
    ("image", "names"),
    [
        ("registry.example.com/etcd:3.4.13-0", ["registry.example.com/etcd:3.4.13-0"]),
        ("localhost:5000/etcd", ["localhost:5000/etcd", "localhost:5000/etcd:latest"]),
        ("etcd:3.4", ["etcd:3.4", "docker.io/library/etcd:3.4"]),
        ("bitnami/etcd:3.4", ["bitnami/etcd:3.4", "docker.io/bitnami/etcd:3.4"]),
        (
            "r.example.com/etcd:3.5@sha256:ab",
            ["r.example.com/etcd:3.5@sha256:ab", "r.example.com/etcd@sha256:ab", "r.example.com/etcd:3.5"],
        ),
    ],
)
def test_an_image_may_have_several_names(image: str, names: list[str]) -> None:
    assert backup.image_names(image) == names


def test_the_command_is_told_whole() -> None:
    command = backup.restore_command("20261122-001500", "cluster.yaml")
    assert command == "kubewright convert --restore 20261122-001500 -f cluster.yaml"
