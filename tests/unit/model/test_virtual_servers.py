"""Which virtual servers and sets are kube-proxy's."""

from __future__ import annotations

import pytest

from kubewright.model import virtual_servers as model

TABLE = """\
IP Virtual Server version 1.2.1 (size=4096)
Prot LocalAddress:Port Scheduler Flags
  -> RemoteAddress:Port Forward Weight ActiveConn InActConn
TCP  0A600001:01BB rr
  -> C000020B:192B      Masq    1      0          0
UDP  0A60000A:0035 rr persistent 10800 FFFFFFFF
TCP  C000020B:7530 rr
TCP  C000020B:0050 wlc
FWM  00000007 rr
TCP  [fd00:0000:0000:0000:0000:0000:0000:0001]:01BB rr
"""
SETS = """\
create KUBE-CLUSTER-IP hash:ip,port family inet hashsize 1024 maxelem 65536
add KUBE-CLUSTER-IP 10.96.0.1,tcp:443
create KUBE-NODE-PORT-TCP bitmap:port range 0-65535
add KUBE-NODE-PORT-TCP 30000
create KUBE-6-LOAD-BALANCER-SOURCE-CID hash:ip,port,net family inet6
create KUBE-NODE-PORT-SCTP-HASH hash:ip,port family inet
add KUBE-NODE-PORT-SCTP-HASH 192.0.2.11,sctp:30007
create kube-router-pod-subnets hash:net family inet
create KUBE-DST-ABC hash:ip family inet
create owners hash:ip family inet
"""


def test_the_kernels_table_is_read() -> None:
    assert [str(one) for one in model.virtual_servers(TABLE)] == [
        "TCP 10.96.0.1:443", "UDP 10.96.0.10:53", "TCP 192.0.2.11:30000", "TCP 192.0.2.11:80", "FWM 7",
        "TCP [fd00::1]:443",
    ]  # fmt: skip
    assert model.virtual_servers("") == []


def test_those_on_its_link_and_its_node_ports_are_kube_proxys() -> None:
    servers = model.virtual_servers(TABLE)
    ours, others = model.kube_proxys(servers, ["10.96.0.1", "10.96.0.10", "fd00::1"], model.parse_sets(SETS))
    assert [str(one) for one in ours] == [
        "TCP 10.96.0.1:443", "UDP 10.96.0.10:53", "TCP 192.0.2.11:30000", "TCP [fd00::1]:443",
    ]  # fmt: skip
    assert [str(one) for one in others] == ["TCP 192.0.2.11:80", "FWM 7"]


def test_without_its_marks_all_are_others() -> None:
    ours, others = model.kube_proxys(model.virtual_servers(TABLE), [], {"owners": ["30000"]})
    assert (ours, len(others)) == ([], 6)


def test_a_node_port_is_of_one_protocol() -> None:
    sets = model.parse_sets(SETS)
    [udp, sctp] = [
        model.VirtualServer(protocol, model.virtual_servers(TABLE)[2].address, port)
        for protocol, port in (("UDP", 30000), ("SCTP", 30007))
    ]
    assert model.kube_proxys([udp, sctp], [], sets) == ([sctp], [udp])


@pytest.mark.parametrize(
    ("name", "is_kubes"),
    [
        ("KUBE-CLUSTER-IP", True),
        ("KUBE-6-CLUSTER-IP", True),
        ("KUBE-6-LOAD-BALANCER-SOURCE-CID", True),
        ("KUBE-DST-ABC", False),
        ("kube-router-pod-subnets", False),
        ("KUBE-CLUSTER-IP-MINE", False),
    ],
)
def test_sets_are_known_by_their_whole_names(name: str, is_kubes: bool) -> None:
    assert model.is_kube_set(name) is is_kubes


def test_options_are_ipvsadms() -> None:
    servers = model.virtual_servers(TABLE)
    assert [one.option for one in (servers[0], servers[1], servers[5])] == [
        "-t 10.96.0.1:443", "-u 10.96.0.10:53", "-t [fd00::1]:443",
    ]  # fmt: skip
