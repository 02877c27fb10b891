"""Which rules may close a port, out of what iptables and nftables print."""

from __future__ import annotations

import pytest

from kubewright.model.packet_filter import closing_rules


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        ("-P INPUT DROP", True),
        ("-A INPUT -p tcp -m tcp --dport 6443 -j DROP", True),
        ("-A INPUT -p tcp -m tcp --dport 443 -j DROP", False),
        ("-A INPUT -p tcp -m multiport --dports 22,6000:7000 -j REJECT", True),
        ("-A INPUT -s 192.0.2.2/32 -p tcp --dport 6443 -j DROP", True),
        ("-A INPUT -s 192.0.2.0/24 -j DROP", True),
        ("-A INPUT -s 198.51.100.7/32 -j DROP", False),
        ("-A INPUT -j REJECT --reject-with icmp-host-prohibited", True),
        ("\t\ttcp dport { 22, 6443 } drop", True),
        ("\t\ttcp dport 6000-7000 counter packets 0 bytes 0 reject", True),
        ("\t\ttcp dport @ours drop", False),
        ("\t\tip saddr @banned drop", False),
        ("\t\ttype filter hook input priority 0; policy drop;", True),
    ],
)
def test_what_concerns_the_port_and_the_host(line: str, shown: bool) -> None:
    assert closing_rules(line, [6443], ["192.0.2.2"]) == ([" ".join(line.split())] if shown else [])


def test_a_long_list_is_cut() -> None:
    assert len(closing_rules("-A INPUT -j DROP\n" * 50, [1], [])) == 5
    assert closing_rules("", [1], []) == []
