"""Making a host fit: what is changed in its files, and which commands are run."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.unit.phases.rooted_host import AS_ROOT, rooted, rooted_node

from kubewright.errors import HostError
from kubewright.events import Events
from kubewright.model.fleet_ports import Opening
from kubewright.model.make_fit import firewalld_rules, permissive, swap_units, ufw_rules, without_swap
from kubewright.phases.make_fit import FirewallOpen, SelinuxPermissive, SwapOff
from kubewright.phases.phase import Action
from kubewright.phases.prepare import Kernel

FSTAB = """\
# <file system> <mount point> <type> <options>
UUID=1 / ext4 errors=remount-ro 0 1
UUID=2\tnone\tswap\tsw\t0\t0
#/old none swap sw 0 0
/swapfile swap swap defaults 0 0
/srv/swap /mnt ext4 rw
"""
UNITS = """\
Id=dev-zram0.swap
SourcePath=
FragmentPath=/run/systemd/generator/dev-zram0.swap
LoadState=loaded

Id=dev-disk-by\\x2duuid-2.swap
SourcePath=/etc/fstab
FragmentPath=/run/systemd/generator/x.swap
LoadState=loaded

Id=dev-sda2.swap
SourcePath=
FragmentPath=
LoadState=loaded

Id=dev-sda5.swap
SourcePath=
FragmentPath=/etc/systemd/system/dev-sda5.swap
LoadState=masked
"""
OPENINGS = [Opening("cp2", "192.0.2.2", ("2379", "30000-32767")), Opening("w1", "192.0.2.3", ())]


def test_lines_of_swap_become_comments_and_nothing_else_changes() -> None:
    expected = FSTAB.replace("UUID=2\t", "# UUID=2\t").replace("/swapfile", "# /swapfile")
    assert without_swap(FSTAB) == expected
    assert without_swap(expected) == expected
    assert without_swap("/swapfile none swap sw") == "# /swapfile none swap sw"


def test_units_that_only_mirror_what_is_on_are_left() -> None:
    assert swap_units(UNITS) == ["dev-zram0.swap"]
    assert swap_units("") == []


def test_selinux_alone_is_changed() -> None:
    text = "# SELINUX=enforcing means\nSELINUX=enforcing\nSELINUXTYPE=targeted\n"
    assert permissive(text) == "# SELINUX=enforcing means\nSELINUX=permissive\nSELINUXTYPE=targeted\n"
    assert permissive("SELINUX=disabled\n") == "SELINUX=disabled\n"


def test_rules_are_for_one_host_each() -> None:
    (rule,) = ufw_rules(OPENINGS)
    assert " ".join(rule[:10]) == "ufw allow proto tcp from 192.0.2.2 to any port 2379,30000:32767"
    assert firewalld_rules(OPENINGS) == [
        'rule family="ipv4" source address="192.0.2.2" port port="2379" protocol="tcp" accept',
        'rule family="ipv4" source address="192.0.2.2" port port="30000-32767" protocol="tcp" accept',
    ]


@pytest.mark.skipif(not AS_ROOT, reason="files get their owner")
async def test_swap_is_turned_off_for_good(tmp_path: Path) -> None:
    node = rooted_node(tmp_path)
    host = rooted(node)
    fstab = host.put("/etc/fstab", FSTAB, 0o640)
    host.put("/units", UNITS)
    host.program("swapoff", 'echo "swapoff $*" >>"$ROOT/done"')
    host.program(
        "systemctl", '[ "$1" != show ] || exec cat "$ROOT/units"; echo "systemctl $*" >>"$ROOT/done"'
    )
    phase = SwapOff(node)
    changes = await phase.look()
    assert [change.target for change in changes] == [
        "/etc/fstab",
        "systemctl mask dev-zram0.swap",
        "swapoff -a",
    ]
    assert "-UUID=2\tnone\tswap\tsw\t0\t0" in changes[0].diff
    assert fstab.read_text() == FSTAB, "a look changes nothing"
    await phase.run(Events())
    assert fstab.read_text() == without_swap(FSTAB)
    assert fstab.stat().st_mode & 0o777 == 0o640
    assert host.at("/done").read_text().splitlines() == [
        "swapoff -a", "systemctl mask -q dev-zram0.swap", "systemctl daemon-reload",
    ]  # fmt: skip


@pytest.mark.skipif(not AS_ROOT, reason="files get their owner")
async def test_swap_that_cannot_be_turned_off_is_told(tmp_path: Path) -> None:
    node = rooted_node(tmp_path)
    host = rooted(node)
    host.put("/etc/fstab", FSTAB)
    host.program("systemctl", "true")
    host.program("swapoff", "echo 'swapoff: Cannot allocate memory' >&2; exit 1")
    with pytest.raises(HostError, match="cp1: turning swap off failed") as caught:
        await SwapOff(node).run(Events())
    assert "Cannot allocate memory" in caught.value.evidence[0]


@pytest.mark.skipif(not AS_ROOT, reason="files get their owner")
async def test_selinux_is_set_permissive_now_and_later(tmp_path: Path) -> None:
    node = rooted_node(tmp_path)
    host = rooted(node)
    config = host.put("/etc/selinux/config", "SELINUX=enforcing\n")
    enforce = host.put("/sys/fs/selinux/enforce", "1")
    host.program("setenforce", 'printf "$1" >"$ROOT/sys/fs/selinux/enforce"')
    changes = await SelinuxPermissive(node).run(Events())
    assert [(change.action, change.target) for change in changes] == [
        (Action.UPDATE, "/etc/selinux/config"), (Action.RUN, "setenforce 0"),
    ]  # fmt: skip
    assert (config.read_text(), enforce.read_text()) == ("SELINUX=permissive\n", "0")
    assert await SelinuxPermissive(node).look() == []


async def test_a_host_without_selinux_is_left_alone(tmp_path: Path) -> None:
    assert await SelinuxPermissive(rooted_node(tmp_path)).look() == []


async def test_ufw_gets_a_rule_for_each_host(tmp_path: Path) -> None:
    node = rooted_node(tmp_path)
    host = rooted(node)
    host.program("ufw", 'printf "<%s>" "$@" >>"$ROOT/done"; echo "Rule added"')
    (change,) = await FirewallOpen(node, "ufw", OPENINGS).run(Events())
    assert change.target.startswith("ufw allow proto tcp from 192.0.2.2 to any port 2379,30000:32767 comment")
    assert host.at("/done").read_text().endswith("<comment><Kubernetes: cp2>")


async def test_firewalld_gets_rules_in_the_zone_of_the_nodes_link(tmp_path: Path) -> None:
    node = rooted_node(tmp_path, ip="192.0.2.1")
    host = rooted(node)
    host.program(
        "ip", "echo '1: lo inet 127.0.0.1/8 x'; echo '2: eth1    inet 192.0.2.1/24 scope global eth1'"
    )
    host.program(
        "firewall-cmd",
        'case $1 in --get-zone-of-interface=eth1) echo internal ;; -q) echo "$*" >>"$ROOT/done" ;; *) false; esac',
    )
    changes = await FirewallOpen(node, "firewalld", OPENINGS).run(Events())
    assert len(changes) == 2
    done = host.at("/done").read_text().splitlines()
    assert len(done) == 4
    assert done[0].startswith(
        '-q --zone=internal --add-rich-rule=rule family="ipv4" source address="192.0.2.2"'
    )
    assert done[1].startswith("-q --permanent --zone=internal")


@pytest.mark.skipif(not AS_ROOT, reason="files get their owner")
async def test_p17_modules_that_the_cluster_wants_are_loaded_now_and_at_each_start(tmp_path: Path) -> None:
    node = rooted_node(tmp_path)
    host = rooted(node)
    told = (
        'case $3 in ours_file) echo /lib/ours_file.ko.zst ;; ours_built) echo "(builtin)" ;; *) false; esac'
    )
    host.program("modinfo", told)
    host.program("modprobe", 'echo "$*" >>"$ROOT/done"')
    host.program("sysctl", "true")
    wanted = ["ours_file", "ours_built", "nf_conntrack"]
    changes = await Kernel(node, wanted).run(Events())
    assert [change.target for change in changes if change.target.startswith("modprobe")] == [
        "modprobe ours_file"
    ]
    assert host.at("/etc/modules-load.d/kubernetes.conf").read_text().split()[2:] == wanted
    assert "-a ours_file" in host.at("/done").read_text().splitlines()


@pytest.mark.skipif(not AS_ROOT, reason="files get their owner")
async def test_what_somebody_has_set_besides_is_kept_where_asked(tmp_path: Path) -> None:
    node = rooted_node(tmp_path)
    host = rooted(node)
    host.program("modprobe", "true")
    host.program("sysctl", "true")
    modules = host.put("/etc/modules-load.d/kubernetes.conf", "ip_vs\n")
    sysctls = host.put("/etc/sysctl.d/99-kubernetes.conf", "vm.max_map_count = 262144\n")
    await Kernel(node, keep=True).run(Events())
    assert modules.read_text().split() == ["overlay", "br_netfilter", "ip_vs"]
    assert sysctls.read_text().startswith("vm.max_map_count = 262144\n")
    assert not [one for one in await Kernel(node, keep=True).look() if one.target.startswith("/etc/")]
