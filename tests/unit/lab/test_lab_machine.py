"""What a lab writes for a machine, and how it reads the kernel's words about one."""

from __future__ import annotations

from ipaddress import IPv4Network
from pathlib import Path

import pytest

from kubewright.lab import cgroups, limits
from kubewright.lab.computer import Computer
from kubewright.lab.disk import LabKeys, hosts_file, machine_files, write_disk
from kubewright.lab.keys import ensure_client_key, known_hosts, make_key
from kubewright.lab.network import attach_script, gateway_commands, machine_commands
from kubewright.lab.plan import LabPlan, plan_machines

SUBNET = IPv4Network("10.213.7.0/24")
PLAN = LabPlan("demo", SUBNET, plan_machines(SUBNET, 1, 1))
CP1, W1 = PLAN.machines
KEYS = LabKeys("ssh-ed25519 AAAA client", b"the host's private key", "ssh-ed25519 BBBB host")


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    directory = tmp_path / "machines" / "w1"
    directory.parent.mkdir()
    write_disk(directory, machine_files(PLAN, W1, "0" * 32, KEYS), tmp_path / "root")
    return directory


def test_a_disk_is_whole_or_not_there(disk: Path) -> None:
    assert [path.name for path in disk.parent.iterdir()] == ["w1"]
    assert (disk / "base").readlink() == disk.parent.parent / "root"
    assert (disk / "upper/etc/hostname").read_text() == "w1\n"
    # What a killed run left is no hindrance.
    other = disk.with_name("w2")
    (disk.with_name(".new-w2") / "upper/etc").mkdir(parents=True)
    write_disk(other, machine_files(PLAN, W1, "0" * 32, KEYS), disk)
    assert (other / "upper/etc/hostname").exists()


def test_private_files_are_private(disk: Path) -> None:
    modes = {
        name: (disk / "upper" / name).stat().st_mode & 0o777
        for name in ("root", "root/.ssh", "root/.ssh/authorized_keys", "etc/ssh/ssh_host_ed25519_key", "etc")
    }
    assert modes == {
        "root": 0o700, "root/.ssh": 0o700, "root/.ssh/authorized_keys": 0o600,
        "etc/ssh/ssh_host_ed25519_key": 0o600, "etc": 0o755,
    }  # fmt: skip
    assert "private" not in repr(KEYS)


def test_no_name_of_a_machine_is_a_loopback_address() -> None:
    """P14: a host name that resolves to 127.0.1.1 only makes nodes that nobody reaches."""
    lines = hosts_file(PLAN).content.decode().splitlines()
    assert [line for line in lines if line.split()[-1] in ("cp1", "w1")] == [
        "10.213.7.11\tcp1",
        "10.213.7.101\tw1",
    ]


def test_the_resolver_is_no_loopback_address(disk: Path) -> None:
    """P18: a resolv.conf that points at the host itself makes cluster DNS ask itself."""
    assert "nameserver 10.213.7.1\n" in (disk / "upper/etc/resolv.conf").read_text()


def test_the_network_of_a_machine() -> None:
    commands = machine_commands(PLAN, W1).splitlines()
    assert "address add 10.213.7.101/24 dev eth0" in commands
    assert "route add default via 10.213.7.1" in commands
    assert "route add unreachable 169.254.169.254" in commands
    assert commands.index("link set eth0 up") < commands.index("route add default via 10.213.7.1")
    assert "address add 10.213.7.1/24 dev br0" in gateway_commands(PLAN)
    assert f"address {W1.mac}" in attach_script(W1)
    assert W1.mac != CP1.mac, "P43"
    assert int(W1.mac[:2], 16) & 3 == 2, "locally administered and no group's"


def test_known_hosts_names_the_address_and_the_key() -> None:
    text = known_hosts([(CP1, "ssh-ed25519 AAAA root@cp1"), (W1, "ssh-ed25519 BBBB root@w1")])
    assert text == "10.213.7.11 ssh-ed25519 AAAA\n10.213.7.101 ssh-ed25519 BBBB\n"


def test_a_client_key_is_made_once_and_only_for_its_owner(tmp_path: Path) -> None:
    path = tmp_path / "id_ed25519"
    public = ensure_client_key(path, "demo")
    assert ensure_client_key(path, "demo") == public
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.read_bytes().startswith(b"-----BEGIN OPENSSH PRIVATE KEY-----")
    (tmp_path / "id_ed25519.pub").unlink()  # as after a kill between the two
    assert ensure_client_key(path, "demo") != public
    assert make_key("a")[1] != make_key("a")[1]


MOUNTS_V1 = """\
25 1 0:22 / /sys/fs/cgroup rw shared:9 - tmpfs tmpfs rw,mode=755
26 25 0:23 / /sys/fs/cgroup/cpu,cpuacct rw,nosuid shared:10 - cgroup cgroup rw,cpu,cpuacct
27 25 0:24 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory
28 25 0:25 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,release_agent=/lib/agent,name=systemd
29 25 0:26 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw,nsdelegate
30 25 0:24 /some/inner /mnt/other rw - cgroup cgroup rw,memory
31 25 0:24 / /mnt/again rw - cgroup cgroup rw,memory
"""
MOUNTS_V2 = "24 1 0:21 / /sys/fs/cgroup rw shared:4 - cgroup2 cgroup2 rw,nsdelegate,memory_recursiveprot\n"


def test_hierarchies_of_version_1() -> None:
    found = {str(one.mount): (one.version, set(one.controllers)) for one in cgroups.hierarchies(MOUNTS_V1)}
    assert found == {
        "/sys/fs/cgroup/cpu,cpuacct": (1, {"cpu", "cpuacct"}),
        "/sys/fs/cgroup/memory": (1, {"memory"}),
        "/sys/fs/cgroup/systemd": (1, {"name=systemd"}),
        "/sys/fs/cgroup/unified": (2, set()),
    }


def test_the_one_hierarchy_of_version_2() -> None:
    (only,) = cgroups.hierarchies(MOUNTS_V2)
    assert (only.version, only.mount) == (2, Path("/sys/fs/cgroup"))


def test_where_a_process_is_in_each_hierarchy() -> None:
    proc = "5:name=systemd:/user.slice\n4:memory:/session/abc\n3:cpu,cpuacct:/\n0::/user.slice/x.scope\n"
    found = {str(one.mount): cgroups.own_path(one, proc) for one in cgroups.hierarchies(MOUNTS_V1)}
    assert found == {
        "/sys/fs/cgroup/cpu,cpuacct": "",
        "/sys/fs/cgroup/memory": "session/abc",
        "/sys/fs/cgroup/systemd": "user.slice",
        "/sys/fs/cgroup/unified": "user.slice/x.scope",
    }


def able(**changes: object) -> Computer:
    facts: dict[str, object] = {
        "is_root": True, "arch": "amd64", "init": "systemd", "capabilities": (1 << 41) - 1, "cgroup_version": 2,
        "controllers": frozenset({"cpu", "cpuset", "memory", "pids", "io"}), "filesystems": frozenset({"overlay"}),
        "link_kinds": frozenset({"bridge", "veth"}), "kmsg": True, "missing_packages": (),
    }  # fmt: skip
    return Computer(**(facts | changes))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"is_root": False}, "root"),
        ({"missing_packages": ("systemd-container",)}, "apt-get install systemd-container"),
        ({"capabilities": 0}, "CAP_SYS_ADMIN"),
        ({"filesystems": frozenset()}, "modprobe overlay"),
        ({"link_kinds": frozenset({"veth"})}, "type bridge"),
        ({"controllers": frozenset({"cpu"})}, "cpuset, memory, pids"),
        ({"kmsg": False}, "/dev/kmsg"),
    ],
)
def test_what_rules_a_lab_out_is_named_with_its_mend(changes: dict[str, object], named: str) -> None:
    (obstacle,) = [pair for pair in able(**changes).obstacles() if named in " ".join(pair)]
    assert all(obstacle)


def test_a_usual_computer_can_run_a_lab() -> None:
    able().require_lab()


def test_a_setting_is_raised_and_comes_back(tmp_path: Path) -> None:
    setting, former = tmp_path / "max_user_instances", tmp_path / "run" / "lab" / "former"
    former.parent.mkdir(parents=True)
    setting.write_text("128\n")
    assert not limits.raise_for(3, setting, former), "three machines need no more than the default"
    assert limits.raise_for(10, setting, former)
    assert limits.raise_for(20, setting, former), "a second raise must not forget what was before the first"
    assert setting.read_text() == str(20 * limits.A_MACHINE + limits.SPARE)
    assert limits.restore(setting, former)
    assert setting.read_text() == "128"
    assert not former.parent.exists()


def test_a_setting_that_somebody_else_has_changed_since_is_left_alone(tmp_path: Path) -> None:
    setting, former = tmp_path / "max_user_instances", tmp_path / "run" / "lab" / "former"
    former.parent.mkdir(parents=True)
    setting.write_text("128\n")
    limits.raise_for(10, setting, former)
    setting.write_text("8192\n")
    assert not limits.restore(setting, former)
    assert setting.read_text() == "8192\n"


@pytest.mark.parametrize(
    ("version", "switch", "stopped", "going", "stopping"),
    [
        (1, "freezer.state", "FROZEN", "THAWED", "FREEZING"),
        (2, "cgroup.freeze", "1", "0", "1"),
    ],
)
def test_a_machine_is_frozen_by_the_hierarchy_that_can(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    version: int,
    switch: str,
    stopped: str,
    going: str,
    stopping: str,
) -> None:
    for name in ("w1", "w2"):
        directory = tmp_path / "demo" / name
        directory.mkdir(parents=True)
        (directory / switch).write_text(f"{going}\n")
        (directory / "cgroup.events").write_text("populated 1\nfrozen 0\n")
    monkeypatch.setattr(cgroups, "_tops", lambda wanted=None: iter([tmp_path] if wanted == version else []))
    cgroups.freeze("demo", "w1", frozen=True)
    assert (tmp_path / "demo/w1" / switch).read_text() == stopped
    assert cgroups.is_frozen("demo", "w1")
    assert not cgroups.is_frozen("demo", "w2")
    (tmp_path / "demo/w1" / switch).write_text(stopping)
    assert cgroups.is_frozen("demo", "w1"), "one that is still being stopped is not going on"
    assert cgroups.not_frozen_yet("demo", "w1")
    (tmp_path / "demo/w1" / switch).write_text(stopped)
    (tmp_path / "demo/w1/cgroup.events").write_text("populated 1\nfrozen 1\n")
    assert not cgroups.not_frozen_yet("demo", "w1")
    cgroups.freeze("demo", frozen=False)
    assert not cgroups.is_frozen("demo", "w1")


def test_a_computer_that_cannot_freeze_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "demo/w1").mkdir(parents=True)
    monkeypatch.setattr(cgroups, "_tops", lambda _=None: iter([tmp_path]))
    with pytest.raises(OSError, match="no cgroup that freezes"):
        cgroups.freeze("demo", "w1", frozen=True)
    cgroups.freeze("demo", "w1", frozen=False)
