"""Which rules may close a port, out of what iptables and nftables print."""

from __future__ import annotations

from collections.abc import Collection

import pytest

from kubewright.model.packet_filter import closing_rules


def shown(line: str, *, ports: Collection[int] = (6443,), source: str = "192.0.2.2") -> bool:
    target = "fd00::9" if ":" in source else "192.0.2.9"
    found = closing_rules(line, ports, [source], target)
    assert found in ([], [" ".join(line.split())])  # as it was printed
    return bool(found)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("-P INPUT DROP", True),
        ("-A INPUT -j REJECT --reject-with icmp-host-prohibited", True),
        # ports
        ("-A INPUT -p tcp -m tcp --dport 6443 -j DROP", True),
        ("-A INPUT -p tcp -m tcp --dport 443 -j DROP", False),
        ("-A INPUT -p tcp -m tcp ! --dport 443 -j DROP", True),
        ("-A INPUT -p tcp -m tcp ! --dport 6443 -j DROP", False),
        ("-A INPUT -p tcp -m multiport --dports 22,6000:7000 -j REJECT", True),
        ("-A INPUT -p tcp -m multiport --dports 22,80 -j REJECT", False),
        ("-A INPUT -p tcp -m multiport ! --dports 22,80 -j REJECT", True),
        ("-A INPUT -p tcp -m multiport ! --dports 22,6443 -j REJECT", False),
        ("-A INPUT -p tcp -m multiport --ports 22,80 -j REJECT", False),
        # sources, and to whom
        ("-A INPUT -s 192.0.2.2/32 -p tcp --dport 6443 -j DROP", True),
        ("-A INPUT -s 192.0.2.0/24 -j DROP", True),
        ("-A INPUT -s 198.51.100.7/32 -j DROP", False),
        ("-A INPUT ! -s 198.51.100.0/24 -j DROP", True),
        ("-A INPUT ! -s 192.0.2.0/24 -j DROP", False),
        ("-A INPUT -d 192.0.2.9/32 -j DROP", True),
        ("-A INPUT -d 192.0.2.8/32 -j DROP", False),
        ("-A INPUT ! -s 127.0.0.0/8 -d 127.0.0.0/8 -m conntrack ! --ctstate RELATED,DNAT -j DROP", False),
        # protocols
        ("-A INPUT -p tcp -j DROP", True),
        ("-A INPUT -p udp -m udp --dport 6443 -j DROP", False),
        ("-A INPUT -p icmp -m icmp --icmp-type 8 -j DROP", False),
        ("-A INPUT ! -p tcp -j DROP", False),
        ("-A INPUT ! -p udp -j DROP", True),
        # states
        ("-A INPUT -m conntrack --ctstate INVALID -j DROP", False),
        ("-A INPUT -m state --state INVALID -j DROP", False),
        ("-A INPUT -m conntrack --ctstate RELATED,ESTABLISHED -j REJECT", False),
        ("-A INPUT -m conntrack --ctstate INVALID,NEW -j DROP", True),
        ("-A INPUT -m conntrack ! --ctstate RELATED,ESTABLISHED -j DROP", True),
        ("-A INPUT -m conntrack ! --ctstate NEW,RELATED,ESTABLISHED -j DROP", False),
        ("-A INPUT -m conntrack --ctstate UNTRACKED -j DROP", True),
        # marks
        ('-A INPUT -m comment --comment "marked" -m mark --mark 0x8000/0x8000 -j DROP', False),
        ("-A INPUT -m mark ! --mark 0x8000/0x8000 -j DROP", True),
        ("-A INPUT -m mark --mark 0x0/0x8000 -j DROP", True),
        ("-A INPUT -m connmark --mark 0x1 -j DROP", False),
        # interfaces
        ("-A INPUT -i lo -j DROP", False),
        ("-A INPUT ! -i lo -j DROP", True),
        ("-A INPUT -i eth0 -j DROP", True),
        ("-A INPUT ! -i eth0 -j DROP", True),
        # flags
        ("-A INPUT -p tcp -m tcp ! --tcp-flags FIN,SYN,RST,ACK SYN -m conntrack --ctstate NEW -j DROP", False),
        ("-A INPUT -p tcp -m tcp --tcp-flags FIN,SYN,RST,ACK SYN -j DROP", True),
        ("-A INPUT -p tcp -m tcp --tcp-flags FIN,SYN FIN,SYN -j DROP", False),
        ("-A INPUT -p tcp -m tcp --tcp-flags FIN,SYN,RST,PSH,ACK,URG NONE -j DROP", False),
        # packets to everybody
        ("-A INPUT -m addrtype --dst-type BROADCAST -j DROP", False),
        ("-A INPUT -m addrtype ! --dst-type LOCAL -j DROP", False),
        ("-A INPUT -m addrtype --dst-type LOCAL -j DROP", True),
        ("-A INPUT -m pkttype --pkt-type multicast -j DROP", False),
        # what is said of a rule is no part of it
        ('-A INPUT -m comment --comment "but --dport 22 -i lo" -j DROP', True),
        ('-A INPUT -m comment --comment "--ctstate" -m comment --comment "it\'s INVALID" -j DROP', True),
    ],
)  # fmt: skip
def test_rules_of_iptables(line: str, expected: bool) -> None:
    assert shown(line) is expected


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("\t\ttype filter hook input priority 0; policy drop;", True),
        ("\t\tcounter packets 0 bytes 0 drop", True),
        ("\t\treject with icmp type admin-prohibited", True),
        ("\t\treject with icmpx port-unreachable", True),
        # ports
        ("\t\ttcp dport 6443 drop", True),
        ("\t\ttcp dport 443 drop", False),
        ("\t\ttcp dport { 22, 6443 } drop", True),
        ("\t\ttcp dport { 22, 80 } drop", False),
        ("\t\ttcp dport 6000-7000 counter packets 0 bytes 0 reject", True),
        ("\t\ttcp dport != 22 drop", True),
        ("\t\ttcp dport != { 22, 6000-7000 } drop", False),
        ("\t\ttcp dport @ours drop", False),
        ("\t\tmeta l4proto { tcp, udp } th dport 6443 drop", True),
        ("\t\ttcp dport vmap { 22 : accept, 6443 : drop }", True),
        ("\t\ttcp dport vmap { 22 : drop, 6443 : accept }", False),
        # sources, and to whom
        ("\t\tip saddr 192.0.2.2 drop", True),
        ("\t\tip saddr 192.0.2.3 drop", False),
        ("\t\tip saddr { 198.51.100.0/24, 192.0.2.1-192.0.2.5 } drop", True),
        ("\t\tip saddr { 198.51.100.0/24, 192.0.2.3-192.0.2.5 } drop", False),
        ("\t\tip saddr != 198.51.100.0/24 drop", True),
        ("\t\tip saddr != { 198.51.100.0/24, 192.0.2.0/24 } drop", False),
        ("\t\tip saddr @banned drop", False),
        ("\t\tip6 saddr != fd00::/8 drop", False),
        ("\t\tip daddr 192.0.2.9 drop", True),
        ("\t\tip saddr != 127.0.0.0/8 ip daddr 127.0.0.0/8 ct status dnat drop", False),
        ("\t\tmeta nfproto ipv6 drop", False),
        ("\t\tmeta nfproto ipv4 drop", True),
        # protocols
        ("\t\tudp dport 6443 drop", False),
        ("\t\tip protocol icmp drop", False),
        ("\t\tip protocol != icmp drop", True),
        ("\t\tip protocol tcp drop", True),
        ("\t\tmeta l4proto { icmp, ipv6-icmp } drop", False),
        ("\t\tmeta l4proto != tcp drop", False),
        ("\t\ticmp type echo-request limit rate over 10/second drop", False),
        ("\t\ticmpv6 type { nd-router-advert } reject", False),
        # states
        ("\t\tct state invalid drop", False),
        ("\t\tct state invalid counter packets 0 bytes 0 drop comment \"new ones too\"", False),
        ("\t\tct state established,related drop", False),
        ("\t\tct state { established, related } drop", False),
        ("\t\tct state invalid,new drop", True),
        ("\t\tct state new drop", True),
        ("\t\tct state != new drop", False),
        ("\t\tct state != established,related drop", True),
        ("\t\tct state vmap { established : accept, related : accept, invalid : drop }", False),
        ("\t\tct state vmap { invalid : drop, established : accept, new : drop }", True),
        ("\t\tctstate INVALID counter packets 0 bytes 0 drop", False),
        # marks: the kubelet's, as versions of nft have printed it
        ("\t\tmeta mark & 0x00008000 == 0x00008000 counter packets 0 bytes 0 drop", False),
        ("\t\tmark and 0x8000 == 0x8000 counter packets 0 bytes 0 drop", False),
        ("\t\t# mark match 0x8000/0x8000 counter packets 0 bytes 0 drop", False),
        ("\t\tmeta mark & 0x00008000 != 0x00008000 drop", True),
        ("\t\tmeta mark & 0x00008000 == 0x00000000 drop", True),
        ("\t\tmeta mark { 0x00000001, 0x00000002 } drop", False),
        ("\t\tct mark 0x00000001 drop", False),
        ("\t\ttcp dport 6443 meta mark set 0x00000001 drop", True),
        # interfaces
        ('\t\tiifname "lo" drop', False),
        ('\t\tiif != "lo" drop', True),
        ('\t\tiifname "eth0" drop', True),
        ('\t\tiifname != { "lo", "eth1" } drop', True),
        ('\t\toifname "eth0" drop', False),
        ("\t\tfib saddr . iif oif missing drop", True),
        # flags
        ("\t\ttcp flags & (fin | syn) == fin | syn drop", False),
        ("\t\ttcp flags & (fin|syn|rst|psh|ack|urg) == 0x0 drop", False),
        ("\t\ttcp flags & (fin | syn | rst | ack) != syn ct state new drop", False),
        ("\t\ttcp flags & (fin | syn | rst | ack) == syn drop", True),
        ("\t\ttcp flags != syn / fin,syn,rst,ack ct state new drop", False),
        ("\t\ttcp flags syn / fin,syn,rst,ack drop", True),
        ("\t\ttcp flags syn tcp dport 6443 drop", True),
        ("\t\ttcp flags rst drop", False),
        # packets to everybody
        ("\t\tmeta pkttype broadcast drop", False),
        ("\t\tfib daddr type { broadcast, multicast } drop", False),
        ("\t\tfib daddr type local drop", True),
        # what is said of a rule is no part of it
        ('\t\tlog prefix "ct state invalid: " drop comment "udp dport 53"', True),
    ],
)  # fmt: skip
def test_rules_of_nftables(line: str, expected: bool) -> None:
    assert shown(line) is expected


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("\t\tip6 saddr fd00::/64 drop", True),
        ("\t\tip6 saddr != fd00::/64 drop", False),
        ("\t\tip6 daddr ::1 drop", False),
        ("\t\tip saddr != 192.0.2.0/24 drop", False),
        ("\t\tip protocol tcp drop", False),
        ("\t\tip6 nexthdr tcp drop", True),
        ("\t\tip6 saddr vmap { fd00::2 : drop, fd00::3 : accept }", True),
    ],
)
def test_rules_for_hosts_with_ipv6(line: str, expected: bool) -> None:
    assert shown(line, source="fd00::2") is expected


def test_one_port_or_one_source_is_enough() -> None:
    assert shown("-A INPUT -p tcp --dport 2379 -j DROP", ports=(2379, 2380))
    assert shown("-A INPUT -p tcp ! --dport 2379 -j DROP", ports=(2379, 2380))
    sources = ["192.0.2.2", "192.0.2.3"]
    assert closing_rules("-A INPUT -s 192.0.2.3/32 -j DROP", [1], sources, "192.0.2.9")
    assert closing_rules("-A INPUT ! -s 192.0.2.2/32 -j DROP", [1], sources, "192.0.2.9")


def test_a_long_list_is_cut() -> None:
    assert len(closing_rules("-A INPUT -j DROP\n" * 50, [1], [], "")) == 5
    assert closing_rules("", [1], [], "") == []


def test_what_nobody_understands_is_no_error() -> None:
    """Rules are somebody else's, and of programs of any version."""
    odd = [
        "-A INPUT -s",
        "-A INPUT -m mark --mark x -j DROP",
        '-A INPUT -m x --comment "open',
        "tcp flags & drop",
    ]
    assert closing_rules("\n".join(odd), [1], ["192.0.2.2"], "192.0.2.9") == odd
