"""Which rules of a host's packet filter may be what closes a port to another host."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Collection, Iterator

# Rules of nftables' own are only asked for where iptables knows none: its newer form shows them in both.
RULES = r"""
exec 2>/dev/null
found=$(iptables -S INPUT | grep -E -- '-j (DROP|REJECT)|^-P INPUT DROP')
if [ -n "$found" ]; then printf '%s\n' "$found"; else
  nft list ruleset | grep -E '(drop|reject)( |$)|hook input.*policy drop'
fi
true
"""
_MOST = 5


def closing_rules(text: str, ports: Collection[int], sources: Collection[str]) -> list[str]:
    """Of the lines that `RULES` printed those that name one of the ports, or none, and none but these sources."""
    lines = (" ".join(line.split()) for line in text.splitlines())
    found = [line for line in lines if line and _of_ports(line, ports) and _of_sources(line, sources)]
    return found[:_MOST]


def _of_ports(line: str, ports: Collection[int]) -> bool:
    said = re.search(r"dports? \{?\s*(\d[\d:,\- ]*)", line)
    if said is None:
        return "dport" not in line
    return any(first <= port <= last for first, last in _ranges(said[1]) for port in ports)


def _ranges(text: str) -> Iterator[tuple[int, int]]:
    """`22`, `22,80`, `1:9` of iptables and `1-9` of nftables as ranges."""
    for part in re.findall(r"\d+(?:[:-]\d+)?", text):
        first, _, last = part.replace("-", ":").partition(":")
        yield int(first), int(last or first)


def _of_sources(line: str, sources: Collection[str]) -> bool:
    said = re.search(r"(?:-s|saddr) (\S+)", line)
    if said is None:
        return True
    try:
        network = ipaddress.ip_network(said[1], strict=False)
    except ValueError:  # a set
        return False
    return any(ipaddress.ip_address(source) in network for source in sources)
