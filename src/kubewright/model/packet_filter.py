"""Which rules of a host's packet filter may be what closes a port to another host.

A rule is left out where it needs what the first packet of a TCP connection to the port does not have: that
belongs to no connection yet, has the flag SYN alone, no mark, and comes from another host. A condition that is
not known here leaves no rule out.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

from kubewright.model.filter_rules import Rule

# Rules of nftables' own are only asked for where iptables knows none: its newer form shows them in both.
RULES = r"""
exec 2>/dev/null
found=$(iptables -S INPUT | grep -E -- '-j (DROP|REJECT)|^-P INPUT DROP')
if [ -n "$found" ]; then printf '%s\n' "$found"; else
  nft list ruleset | grep -E '(drop|reject)([ ,]|$)|hook input.*policy drop'
fi
true
"""
_MOST = 5

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


@dataclass(frozen=True, slots=True)
class _Packets:
    """The first packets of the connections that were tried."""

    ports: Collection[int]
    sources: tuple[Address, ...]
    target: tuple[Address, ...]
    """One address, or none where it is not known."""


def closing_rules(text: str, ports: Collection[int], sources: Collection[str], target: str) -> list[str]:
    """Of the lines that `RULES` printed those that can have kept one of these sources from one of these ports of
    the host, which they have tried at its address `target`."""
    tried = _Packets(
        ports,
        tuple(ipaddress.ip_address(source) for source in sources),
        (ipaddress.ip_address(target),) if target else (),
    )
    lines = (" ".join(line.split()) for line in text.splitlines())
    return [line for line in lines if line and _concerns(line, tried)][:_MOST]


def _concerns(line: str, tried: _Packets) -> bool:
    if line.startswith(("-P ", "type ")):  # a chain's policy
        return True
    return all(_iptables(line, tried) if line.startswith("-A ") else _nft(line, tried))


# Of which packets a condition is true, and of which not; both where that cannot be known. It is empty of what
# they do not have, and of a set that is not shown: then no packet meets it, negated or not.
_Meets = Collection[bool]
_UNKNOWN = (True, False)


def _met(meets: _Meets, negated: bool) -> bool:
    return any(one is not negated for one in meets)


# -- what conditions are about, in the words of both -------------------------------------------------------------


def _ports(values: Sequence[str], tried: _Packets) -> _Meets:
    """`22`, `1:9` of iptables and `1-9` of nftables."""
    ranges = []
    for value in values:
        said = re.fullmatch(r"(\d+)(?:[:-](\d+))?", value)
        if said is None:
            return ()
        ranges.append((int(said[1]), int(said[2] or said[1])))
    return [any(first <= port <= last for first, last in ranges) for port in tried.ports]


def _within(values: Sequence[str], addresses: Collection[Address]) -> _Meets:
    """Addresses, networks, and nftables' ranges."""
    spans: list[tuple[Address, Address]] = []
    for value in values:
        first, _, last = value.partition("-")
        try:
            network = ipaddress.ip_network(first, strict=False)
            spans.append((network[0], ipaddress.ip_address(last) if last else network[-1]))
        except ValueError:
            return ()
    return [
        any(int(first) <= int(one) <= int(last) for first, last in spans)
        for one in addresses
        if all(one.version == first.version for first, _ in spans)
    ]


def _sources(values: Sequence[str], tried: _Packets) -> _Meets:
    return _within(values, tried.sources)


def _target(values: Sequence[str], tried: _Packets) -> _Meets:
    return _within(values, tried.target)


def _protocol(values: Sequence[str], _: _Packets) -> _Meets:
    return [bool({"tcp", "6", "all"} & {*values})]


def _state(values: Sequence[str], _: _Packets) -> _Meets:
    said = {value.lower() for value in values}
    if "new" in said:
        return [True]
    # Rules may let a connection be untracked, or translated, from its first packet on.
    return _UNKNOWN if said - {"invalid", "established", "related"} else [False]


def _direction(values: Sequence[str], _: _Packets) -> _Meets:
    return ["original" in {value.lower() for value in values}]


def _mark(values: Sequence[str], _: _Packets) -> _Meets:
    """`0x8000/0x8000` of iptables; of nftables, which has the mask elsewhere, `0x8000`."""
    try:
        return [0 in {int(value.partition("/")[0], 0) for value in values}]
    except ValueError:
        return _UNKNOWN


def _interface(values: Sequence[str], _: _Packets) -> _Meets:
    """Through which one they have come is not known, but for that which leads nowhere else."""
    return [False] if {*values} == {"lo"} else _UNKNOWN


def _nowhere(_values: Sequence[str], _: _Packets) -> _Meets:
    """They have no interface by which they leave."""
    return ()


def _to_one(values: Sequence[str], _: _Packets) -> _Meets:
    """Packets to this host, and not to all of its network."""
    return [bool({"local", "unicast", "host"} & {value.lower() for value in values})]


# -- iptables ----------------------------------------------------------------------------------------------------

_Condition = Callable[[Sequence[str], _Packets], _Meets]

_OPTIONS: Mapping[str, _Condition] = {
    "-s": _sources, "-d": _target, "-p": _protocol, "-i": _interface, "-o": _nowhere,
    "--dport": _ports, "--dports": _ports, "--ports": _ports,
    "--ctstate": _state, "--state": _state, "--ctdir": _direction, "--mark": _mark,
    "--dst-type": _to_one, "--pkt-type": _to_one,
}  # fmt: skip


def _iptables(line: str, tried: _Packets) -> Iterator[bool]:
    """Whether packets meet each of the conditions of a rule as `iptables -S` prints it."""
    words = Rule("", line).words
    said = ""
    for before, word, after, last in zip(
        ["", *words], words, [*words[1:], ""], [*words[2:], "", ""], strict=False
    ):
        if said == "--comment":  # what is said of a rule is no part of it
            said = ""
            continue
        said = word
        if word in _OPTIONS and after:
            yield _met(_OPTIONS[word](after.split(","), tried), before == "!")
        elif word == "--tcp-flags":
            yield _met(_flags(after, last), before == "!")


def _flags(mask: str, value: str) -> _Meets:
    """Of the flags that are looked at those must be there that are named: of ours, SYN is."""
    every = {"fin", "syn", "rst", "psh", "ack", "urg"}
    looked, there = _names(mask, every), _names(value, every)
    return _UNKNOWN if looked is None or there is None else [looked & {"syn"} == there]


def _names(text: str, every: Collection[str]) -> set[str] | None:
    """Flags by name, or as nftables' number; None where it is another."""
    found = {*re.split(r"[\s,|()]+", text.lower())} - {""}
    if found == {"all"}:
        return {*every}
    if found <= {"none", "0x0", "0x00"}:
        return set()
    return found if all(name.isalpha() for name in found) else None


# -- nftables ----------------------------------------------------------------------------------------------------

_VALUE = r"(?P<value>\{[^}]*\}|[^\s{}]+)"
_SELECTORS: Sequence[tuple[str, _Condition]] = (
    (r"dports?", _ports),
    (r"(?:ip|ip6) saddr", _sources),
    (r"(?:ip|ip6) daddr", _target),
    (r"(?:meta )?l4proto|ip protocol|ip6 nexthdr", _protocol),
    (r"ct state", _state),
    (r"ct direction", _direction),
    (r"(?:meta )?iif(?:name)?", _interface),
    (r"(?:meta )?oif(?:name)?(?! missing| exists)", _nowhere),
    (r"(?:meta )?pkttype|fib daddr type", _to_one),
)
_CONDITIONS = tuple(
    (re.compile(rf"(?:^|\s)(?:{words}) (?:(?:==|(?P<not>!=)) )?{_VALUE}"), condition)
    for words, condition in _SELECTORS
)
_OTHER_PROTOCOL = re.compile(
    r"(?:^|\s)(?:udp|udplite|sctp|dccp|icmp|icmpv6|igmp|esp|ah|comp) "
    r"(?:[ds]port|type|code|id|sequence|mtu|spi|length|vtag|cpi|group) "
)
_MARK = re.compile(
    rf"(?:^|\s)mark (?!set |match )(?:(?:&|and) \S+ )?(?:(?:==|(?P<not>!=)) )?{_VALUE}"
    r"|(?:^|\s)mark match (?P<printed>! ?)?(?P<masked>\S+)"
)
_STATE = re.compile(r"(?:^|\s)(?P<not>! ?)?(?:ct)?state (?P<value>[A-Z,]+)(?=\s|$)")
_SOME_FLAGS = r"\([^)]*\)|[\w|]+(?: \| \w+)*"
_FLAGS = re.compile(
    rf"(?:^|\s)tcp flags & (?P<mask>{_SOME_FLAGS}) (?:==|(?P<not>!=)) (?P<value>{_SOME_FLAGS})"
    r"|(?:^|\s)tcp flags (?P<unlike>!= )?(?P<these>[\w,]+) / (?P<of>[\w,]+)"
    r"|(?:^|\s)tcp flags (?:(?:==|(?P<other>!=)) )?(?P<any>\{[^}]*\}|[\w,]+)(?=\s|$)"
)


def _nft(line: str, tried: _Packets) -> Iterator[bool]:
    """Whether packets meet each of the conditions of a rule as `nft list ruleset` prints it.

    Rules of iptables are among them, of which older versions of nft print some conditions in iptables' words.
    """
    text = re.sub(r'\b(?:comment|prefix) "[^"]*"|/\*.*?\*/', "", line).replace('"', "")
    text = re.sub(r"vmap \{([^}]*)\}", _dropped, text)
    text = re.split(r"(?:^|\s)(?:drop|reject)(?=\s|$)", text, maxsplit=1)[0]  # how is told behind it
    yield _OTHER_PROTOCOL.search(text) is None
    for pattern, condition in (*_CONDITIONS, (_STATE, _state)):
        for said in pattern.finditer(text):
            yield _met(condition(_values(said["value"]), tried), bool(said["not"]))
    for said in _MARK.finditer(text):
        values = _values(said["value"] or said["masked"])
        yield _met(_mark(values, tried), bool(said["not"] or said["printed"]))
    for said in _FLAGS.finditer(text):
        if said["any"]:
            yield _met(["syn" in _values(said["any"])], bool(said["other"]))
        else:
            meets = _flags(said["mask"] or said["of"], said["value"] or said["these"])
            yield _met(meets, bool(said["not"] or said["unlike"]))
    yield from _families(text, tried)


def _families(text: str, tried: _Packets) -> Iterator[bool]:
    """Whether there is a packet of the IP version that the rule's words are about."""
    for pattern, version in (
        (r"(?:^|\s)(?:ip protocol|(?:meta )?nfproto ipv4|meta protocol ip)(?=\s|$)", 4),
        (r"(?:^|\s)(?:ip6 nexthdr|(?:meta )?nfproto ipv6|meta protocol ip6)(?=\s|$)", 6),
    ):
        if re.search(pattern, text):
            yield any(source.version == version for source in tried.sources)


def _dropped(vmap: re.Match[str]) -> str:
    """A map to verdicts as the set of what it drops."""
    rows = (row.rpartition(" : ") for row in vmap[1].split(","))
    return f"{{ {', '.join(key.strip() for key, _, verdict in rows if verdict.strip() == 'drop')} }} drop"


def _values(text: str) -> list[str]:
    return [value for value in re.split(r"[\s,]+", text.strip("{}")) if value]
