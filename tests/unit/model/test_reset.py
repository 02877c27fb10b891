"""What `reset` empties, and what it stays away from."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from kubewright.errors import ConfigError
from kubewright.model import reset
from kubewright.model.reset import Emptying

MOUNTINFO = """\
22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
30 22 8:2 / /var/lib/kubelet rw shared:2 - ext4 /dev/sda2 rw
41 30 0:40 / /var/lib/kubelet/pods/a/volumes/kubernetes.io~projected/token rw shared:3 - tmpfs tmpfs rw
42 30 8:1 /srv/my\\040data /var/lib/kubelet/pods/a/volume-subpaths/x/0 rw shared:1 - ext4 /dev/sda1 rw
43 30 0:41 / /var/lib/kubelet/plugins/kubernetes.io/csi/disk\\040one rw - ext4 /dev/sdb rw
44 30 8:3 / /var/lib/kubelet/backup rw - ext4 /dev/sdc rw
45 22 8:4 / /var/lib/kubelet-other/pods/b rw - ext4 /dev/sdd rw
"""


def test_mount_points_are_read_with_their_blanks() -> None:
    found = reset.mount_points(MOUNTINFO)
    assert found[0] == "/"
    assert "/var/lib/kubelet/plugins/kubernetes.io/csi/disk one" in found


def test_only_the_kubelets_own_mounts_are_unmounted() -> None:
    found = reset.kubelet_mounts(reset.mount_points(MOUNTINFO), "/var/lib/kubelet")
    assert set(found) == {
        "/var/lib/kubelet/pods/a/volumes/kubernetes.io~projected/token",
        "/var/lib/kubelet/pods/a/volume-subpaths/x/0",
        "/var/lib/kubelet/plugins/kubernetes.io/csi/disk one",
    }


def test_what_lies_on_another_mount_is_unmounted_first() -> None:
    mounts = ["/k/pods/a", "/k/pods/a/b/c", "/k/pods/a/b", "/k/pods/a/b"]
    assert reset.kubelet_mounts(mounts, "/k") == ["/k/pods/a/b/c", "/k/pods/a/b", "/k/pods/a/b", "/k/pods/a"]


def test_emptying_without_mounts_is_one_step() -> None:
    assert reset.emptying("/var/lib/kubelet", ["/", "/var/lib/kubelet", "/var/lib/kubelet-2/x"]) == [
        Emptying("/var/lib/kubelet")
    ]


def test_emptying_keeps_mounts_and_what_leads_to_them() -> None:
    assert reset.emptying("/k", ["/k/a/b", "/k/a/b/inner", "/k/c"]) == [
        Emptying("/k", ("/k/a", "/k/c")),
        Emptying("/k/a", ("/k/a/b",)),
    ]


def test_nothing_is_deleted_through_a_mount_point(tmp_path: Path) -> None:
    """The lines that the phase runs, on real files; the mount is played by a directory that is listed as one."""
    from kubewright.phases.reset import empty_command

    for name in ("pods/a/file", "pods/a/user data*/precious", "pods/b/file", "config.yaml"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("x")
    (tmp_path / "pods/a/user dataX").mkdir()
    for item in reset.emptying(str(tmp_path), [f"{tmp_path}/pods/a/user data*"]):
        subprocess.run(empty_command(item), check=True)
    left = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*"))
    assert left == ["pods", "pods/a", "pods/a/user data*", "pods/a/user data*/precious"]


@pytest.mark.parametrize(
    "path", ["/", "//", "/etc", "/etc/", "/var//lib", "/root", "/usr/local", "etc/x", "/a/../etc"]
)
def test_directories_of_the_system_are_refused(path: str) -> None:
    with pytest.raises(ConfigError, match="--cert-dir"):
        reset.check_directory(path, "--cert-dir")


@pytest.mark.parametrize("path", ["/etc/kubernetes/pki", "/etc/kubernetes/pki/", "/etcd", "/srv/pki"])
def test_other_directories_may_be_emptied(path: str) -> None:
    assert reset.check_directory(path, "--cert-dir") == path.rstrip("/")


def test_a_name_that_would_be_read_as_two_is_refused() -> None:
    with pytest.raises(ConfigError, match="--cert-dir"):
        reset.check_directory("/srv/pki\n/home/me", "--cert-dir")


def test_mounts_of_others_are_named_once() -> None:
    mounts = ["/", "/k/pods/a/v", "/k/mine", "/k/mine", "/k2/x"]
    assert [kept.what for kept in reset.others_mounts("/k", mounts, ["/k/pods/a/v"])] == ["/k/mine"]


def test_what_kubeadm_has_not_put_into_etc_kubernetes_is_named() -> None:
    entries = [
        "/etc/kubernetes/admin.conf", "/etc/kubernetes/manifests", "/etc/kubernetes/pki", "/etc/kubernetes/tmp",
        "/etc/kubernetes/encryption.yaml",
    ]  # fmt: skip
    emptied = ["/etc/kubernetes/pki", "/etc/kubernetes/manifests"]
    kept = reset.others_in_kubernetes(entries, emptied)
    assert [one.what for one in kept] == ["/etc/kubernetes/tmp", "/etc/kubernetes/encryption.yaml"]
    assert "--cleanup-tmp-dir" in kept[0].why
    assert len(reset.others_in_kubernetes(entries, [*emptied, "/etc/kubernetes/tmp"])) == 1


NODE = {
    "status": {"nodeInfo": {"machineID": "a1"}, "addresses": [{"type": "InternalIP", "address": "192.0.2.1"}]}
}


@pytest.mark.parametrize(
    ("node", "machine_id", "addresses", "said"),
    [
        (NODE, "a1", ["192.0.2.1", "198.51.100.1"], ""),
        (NODE, "b2", ["192.0.2.1"], "its machine ID is a1, and this host's is b2"),
        (NODE, "a1", ["192.0.2.2"], "its address is 192.0.2.1, which this host has not"),
        (NODE, "", ["192.0.2.1"], ""),
        ({}, "a1", ["192.0.2.1"], ""),
    ],
)
def test_a_node_may_be_another_hosts_by_now(
    node: dict[str, object], machine_id: str, addresses: list[str], said: str
) -> None:
    assert reset.why_not_this_node(node, machine_id=machine_id, addresses=addresses) == said


def test_the_data_directory_of_etcd_is_the_pods() -> None:
    pod = {"spec": {"volumes": [{"name": "etcd-certs", "hostPath": {"path": "/c"}},
                                {"name": "etcd-data", "hostPath": {"path": "/srv/etcd"}}]}}  # fmt: skip
    assert reset.etcd_data_dir(pod) == "/srv/etcd"
    assert reset.etcd_data_dir({}) == ""


@pytest.mark.parametrize(
    "spec", [None, "text", [1], {"containers": "a", "volumes": 1}, {"containers": [None]}]
)
def test_a_damaged_manifest_says_nothing(spec: object) -> None:
    assert reset.container_flags({"spec": spec}) == {}
    assert reset.etcd_data_dir({"spec": spec}) == ""


def test_the_flags_of_a_static_pod() -> None:
    pod = {
        "spec": {
            "containers": [{"command": ["etcd", "--name=cp1", "--initial-cluster=cp1=https://10.0.0.1:2380"]}]
        }
    }
    assert reset.container_flags(pod) == {"name": "cp1", "initial-cluster": "cp1=https://10.0.0.1:2380"}


def test_an_endpoint_leaves_cluster_status() -> None:
    status = {"apiEndpoints": {"cp1": {"bindPort": 6443}, "cp2": {"bindPort": 6443}}, "kind": "ClusterStatus"}
    text = reset.without_endpoint(status, "cp1")
    assert text is not None and "cp2" in text and "cp1" not in text and "kind: ClusterStatus" in text
    assert reset.without_endpoint(status, "cp3") is None


@pytest.mark.parametrize(
    ("healthy_others", "voters", "may"),
    [
        (0, 1, True),
        (1, 2, True),
        (0, 2, False),
        (2, 3, True),
        (1, 3, False),
        (2, 4, True),
        (3, 5, True),
        (2, 5, False),
    ],
)
def test_a_member_leaves_only_where_a_majority_stays(healthy_others: int, voters: int, may: bool) -> None:
    assert (reset.quorum_without(healthy_others, voters) == "") is may
