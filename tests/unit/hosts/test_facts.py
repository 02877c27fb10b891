"""Facts out of what a host's shell printed."""

from __future__ import annotations

import subprocess

import pytest

from kubewright.hosts.facts import FACTS, RESOLVED, parse_facts

SERVER = r"""
@@ hostname
web1

@@ os
# comment
NAME="Debian GNU/Linux"
PRETTY_NAME="Debian GNU/Linux 12 (bookworm)"
VERSION_ID="12"
ID=debian
HOME_URL='https://example.org/a b'

@@ machine
aarch64

@@ kernel
6.1.0-18-arm64

@@ cpus
4

@@ memory
MemTotal:        8029004 kB

@@ swaps
Filename				Type		Size		Used		Priority
/dev/sda3                               partition	1048572		0		-2
/dev/zram0                              partition	524284		12		100

@@ uid
0

@@ init
systemd

@@ cgroup
2

@@ capabilities
CapBnd:	000001ffffffffff

@@ addresses
2: eth0    inet 10.0.0.11/24 brd 10.0.0.255 scope global eth0\       valid_lft forever preferred_lft forever
2: eth0    inet 10.0.0.200/32 scope global eth0\       valid_lft forever preferred_lft forever
2: eth0    inet6 2001:db8:0:1::11/64 scope global \       valid_lft forever preferred_lft forever
2: eth0    inet6 2001:db8:0:1::dead/64 scope global deprecated \       valid_lft 0sec preferred_lft 0sec
3: eth1@if9    inet 192.168.56.11/24 brd 192.168.56.255 scope global eth1\       valid_lft forever

@@ routes
default via 192.168.56.1 dev eth1 proto dhcp metric 200
default via 10.0.0.1 dev eth0 proto static metric 100
10.0.0.0/24 dev eth0 proto kernel scope link src 10.0.0.11
172.30.0.5 via 10.0.0.254 dev eth0
192.168.56.0/24 dev eth1 proto kernel scope link src 192.168.56.11 linkdown
unreachable 169.254.169.254
2001:db8:0:1::/64 dev eth0 proto kernel metric 256 pref medium
fe80::/64 dev eth0 proto kernel metric 256 pref medium
multicast ff00::/8 dev eth0 proto kernel metric 256 pref medium
default via fe80::1 dev eth0 proto ra metric 1024

@@ procroutes
Iface	Destination	Gateway 	Flags	RefCnt	Use	Metric	Mask		MTU	Window	IRTT
eth0	00000000	0100000A	0003	0	0	100	00000000	0	0	0

@@ fibtrie

@@ filesystems
/etc /dev/mapper/vg root 102880796 19508848 78099332      20% /
/var/lib /dev/sdb1 1000 1000 -5 101% /var
/usr/local /dev/sda1 102880796 19508848 100 20% /
/tmp tmpfs 100 50 50 50% /tmp

@@ resolv
nameserver 127.0.0.53
options edns0

@@ resolved
nameserver 10.0.0.2

@@ machineid
3d1219c7c4c5404aaa1f6d2a48adfda4

@@ product
4C4C4544-0042-3510-8052-B4C04F4E4D31

@@ links
cni0 bridge 0a:58:0a:f4:00:01
eth0 device 52:54:00:00:00:0a
eth1 device 52:54:00:00:00:0b
lo virtual 00:00:00:00:00:00
veth12 virtual aa:aa:aa:aa:aa:aa
"""


def test_a_server() -> None:
    facts = parse_facts(SERVER)
    assert (facts.hostname, facts.os_id, facts.os_version) == ("web1", "debian", "12")
    assert facts.os_name == "Debian GNU/Linux 12 (bookworm)"
    assert (facts.arch, facts.kernel, facts.cpus) == ("arm64", "6.1.0-18-arm64", 4)
    assert facts.memory == 8029004 * 1024
    assert facts.swap == (1048572 + 524284) * 1024
    assert facts.is_root
    assert (facts.init, facts.cgroup_version) == ("systemd", 2)
    assert facts.has_capability(24)
    assert facts.filesystems == {
        "/etc": 78099332 * 1024,
        "/var/lib": -5 * 1024,
        "/usr/local": 100 * 1024,
        "/tmp": 50 * 1024,
    }
    assert facts.machine_id == "3d1219c7c4c5404aaa1f6d2a48adfda4"
    assert facts.product_uuid == "4c4c4544-0042-3510-8052-b4c04f4e4d31"
    assert facts.macs == ("52:54:00:00:00:0a", "52:54:00:00:00:0b")


def test_default_address_is_the_preferred_default_routes_p08() -> None:
    facts = parse_facts(SERVER)
    assert facts.default_address == "10.0.0.11"
    assert facts.addresses == ("10.0.0.11", "10.0.0.200", "2001:db8:0:1::11", "192.168.56.11")


@pytest.mark.parametrize(
    ("routes", "address"),
    [
        ("default via 10.0.0.1 dev eth0 src 10.0.0.200", "10.0.0.200"),
        ("default via 192.168.56.1 dev eth1", "192.168.56.11"),
        ("default dev eth1 scope link", "192.168.56.11"),
        (
            "default proto static metric 5 \\	nexthop via 10.0.0.1 dev eth0 weight 1 "
            "\\	nexthop via 192.168.56.1 dev eth1",
            "10.0.0.11",
        ),
        ("default via 2001:db8:0:1::1 dev eth0", "2001:db8:0:1::11"),
        ("10.0.0.0/24 dev eth0", ""),
    ],
)  # fmt: skip
def test_default_address(routes: str, address: str) -> None:
    head, rest = SERVER.split("@@ routes\n")
    facts = parse_facts(f"{head}@@ routes\n{routes}\n\n@@ procroutes\n{rest.split('@@ procroutes')[1]}")
    assert facts.default_address == address


def test_routes_of_pod_networks_are_known_as_such() -> None:
    head, rest = SERVER.split("@@ routes\n")
    routes = """10.0.0.0/24 dev eth0 proto kernel scope link
172.17.0.0/16 dev docker0 proto kernel scope link
10.244.0.0/24 dev cni0 proto kernel scope link
10.244.1.0/24 via 10.244.1.0 dev flannel.1 onlink
10.244.2.0/24 via 10.0.0.12 dev eth0 proto 107
unreachable 10.244.3.0/24 proto 107
192.168.7.192/26 via 10.0.0.13 dev tunl0 proto bird onlink"""
    facts = parse_facts(f"{head}@@ routes\n{routes}\n\n@@ procroutes\n{rest.split('@@ procroutes')[1]}")
    assert facts.pod_routes == (
        "10.244.0.0/24", "10.244.1.0/24", "10.244.2.0/24", "10.244.3.0/24", "192.168.7.192/26",
    )  # fmt: skip
    assert len(facts.routes) == 7
    assert parse_facts(SERVER).pod_routes == ()


def test_routes_are_those_that_a_pod_network_may_overlap_p32() -> None:
    assert parse_facts(SERVER).routes == (
        "10.0.0.0/24",
        "172.30.0.5/32",
        "192.168.56.0/24",
        "169.254.169.254/32",
        "2001:db8:0:1::/64",
    )


def test_without_ip_the_kernels_tables_are_read() -> None:
    facts = parse_facts(
        """
@@ procroutes
Iface	Destination	Gateway 	Flags	RefCnt	Use	Metric	Mask		MTU	Window	IRTT
eth1	00000000	0138A8C0	0003	0	0	0	00000000	0	0	0
eth0	0000000A	00000000	0001	0	0	0	00FFFFFF	0	0	0
eth1	0038A8C0	00000000	0001	0	0	0	00FFFFFF	0	0	0

@@ fibtrie
Main:
  +-- 0.0.0.0/0 3 0 5
     |-- 0.0.0.0
        /0 universe UNICAST
           |-- 10.0.0.11
              /32 host LOCAL
           |-- 10.0.0.255
              /32 link BROADCAST
        |-- 127.0.0.1
           /32 host LOCAL
           |-- 192.168.56.11
              /32 host LOCAL
"""
    )
    assert facts.addresses == ("10.0.0.11", "192.168.56.11")
    assert facts.routes == ("10.0.0.0/24", "192.168.56.0/24")
    assert facts.default_address == "192.168.56.11"


@pytest.mark.parametrize(
    ("etc", "resolved", "file"),
    [
        ("nameserver 127.0.0.53", "nameserver 10.0.0.2", RESOLVED),
        ("nameserver ::1", "nameserver 10.0.0.2", RESOLVED),
        ("nameserver 10.0.0.2", "nameserver 10.0.0.2", "/etc/resolv.conf"),
        ("nameserver 127.0.0.1", "", "/etc/resolv.conf"),
        ("nameserver 127.0.0.1", "nameserver 127.0.0.1", "/etc/resolv.conf"),
        ("", "", "/etc/resolv.conf"),
    ],
)
def test_resolv_conf_is_one_without_loopback_p18(etc: str, resolved: str, file: str) -> None:
    text = f"\n@@ resolv\n{etc}\n\n@@ resolved\n{resolved}\n"
    assert parse_facts(text).resolv_conf == file


def test_macs_of_a_container_are_those_of_its_own_links_p43() -> None:
    links = "host0 virtual 02:00:00:00:00:01\nveth1 virtual aa:aa:aa:aa:aa:aa\nlo virtual 00:00:00:00:00:00"
    assert parse_facts(f"\n@@ links\n{links}").macs == ("02:00:00:00:00:01",)


def test_a_host_that_says_nothing() -> None:
    facts = parse_facts("")
    assert (facts.hostname, facts.cpus, facts.capabilities, facts.is_root) == ("", 0, 0, False)
    assert facts.resolv_conf == "/etc/resolv.conf"


def test_the_script_prints_every_section_here() -> None:
    output = subprocess.run(["sh", "-c", FACTS], capture_output=True, check=True).stdout.decode()
    facts = parse_facts(output)
    assert facts.hostname
    assert facts.cpus >= 1
    assert facts.memory > 2**20
    assert facts.cgroup_version in (1, 2)
    assert set(facts.filesystems) == {"/etc", "/var/lib", "/usr/local", "/tmp"}
