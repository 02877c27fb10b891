"""Which iptables chains and rules Kubernetes has made, told from everybody else's in iptables-save's output.

kube-proxy, the kubelet and pod networks know their chains by name, and hook them into the built-in ones with rules
of known form. A KUBE- name alone shows nothing: kube-router and people use such names, too.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from kubewright.model.kept import Kept
from kubewright.model.own_network import OWN_CHAINS, OWN_COMMENT

_KUBE_PROXY = (
    "SERVICES", "EXTERNAL-SERVICES", "NODEPORTS", "POSTROUTING", "MARK-MASQ", "MARK-DROP", "FORWARD",
    "PROXY-FIREWALL", "PROXY-CANARY",
    # in IPVS mode
    "NODE-PORT", "LOAD-BALANCER", "FIREWALL", "SOURCE-RANGES-FIREWALL", "IPVS-FILTER", "IPVS-OUT-FILTER",
    # in userspace mode, which ended with 1.25
    "PORTALS-CONTAINER", "PORTALS-HOST", "NODEPORT-CONTAINER", "NODEPORT-HOST", "NODEPORT-NON-LOCAL",
)  # fmt: skip
_KUBELET = ("FIREWALL", "KUBELET-CANARY", "IPTABLES-HINT")
_FLANNEL = ("FLANNEL-POSTRTG", "FLANNEL-FWD")
_NAMES = frozenset(
    [*(f"KUBE-{name}" for name in (*_KUBE_PROXY, *_KUBELET)), *(name for _, _, name in OWN_CHAINS)]
)
_SERVICE = re.compile(r"KUBE-(SVC|SEP|FW|XLB|SVL|EXT)-[A-Z2-7]{16}")
"""A Service's, an endpoint's: what follows is a hash in base 32."""

_COMMENTS = frozenset(
    {
        "kubernetes service portals",
        "kubernetes externally-visible service portals",
        "kubernetes health check service ports",
        "kubernetes forwarding rules",
        "kubernetes load balancer firewall",
        "kubernetes postrouting rules",
        # in IPVS mode
        "kubernetes health check rules",
        "kube-proxy firewall rules",
        "kubernetes ipvs access filter",
        # in userspace mode
        "handle ClusterIPs; NOTE: this must be before the NodePort rules",
        "handle service NodePorts; NOTE: this must be the last rule in the chain",
        "Ensure that non-local NodePort traffic can flow",
        OWN_COMMENT,
    }
)
_FLANNEL_COMMENTS = frozenset({"flanneld masq", "flanneld forward"})
_BARE = frozenset({"KUBE-FIREWALL"})
"""The kubelet hooks it in by `-j` alone, without a comment."""

_KUBE_TABLES = re.compile(r"table (ip|ip6) kube-proxy")


@dataclass(frozen=True, slots=True)
class Rule:
    """A rule as `iptables-save` writes it."""

    chain: str
    text: str
    """What stands behind the chain's name."""

    @property
    def target(self) -> str:
        """The chain that it jumps or goes to, or its other target; empty where it has none."""
        words = self.words
        return next(
            (words[at + 1] for at, word in enumerate(words[:-1]) if word in ("-j", "--jump", "-g", "--goto")),
            "",
        )

    @property
    def comments(self) -> frozenset[str]:
        """What it says of itself."""
        words = self.words
        return frozenset(words[at + 1] for at, word in enumerate(words[:-1]) if word == "--comment")

    @property
    def words(self) -> list[str]:
        """Its words without quotes; those of a text that no shell would take are its blanks' parts."""
        try:
            return shlex.split(self.text)
        except ValueError:
            return self.text.split()

    def __str__(self) -> str:
        return f"-A {self.chain} {self.text}"


@dataclass(frozen=True, slots=True)
class Table:
    """One table of a dump."""

    name: str
    chains: tuple[str, ...]
    rules: tuple[Rule, ...]


@dataclass(frozen=True, slots=True)
class FilterCut:
    """How a dump loses what is Kubernetes'."""

    restore: str
    """For `iptables-restore --noflush`, which takes a table as a whole or not at all; empty for nothing to do."""
    chains: tuple[tuple[str, str], ...]
    """Table and name of each chain that goes."""
    jumps: tuple[tuple[str, Rule], ...]
    """Table and rule of each jump into them that goes."""
    kept: tuple[Kept, ...]


def parse_dump(text: str) -> list[Table]:
    """The tables of `iptables-save`; what is no chain and no rule is left out."""
    tables: list[Table] = []
    chains: list[str] = []
    rules: list[Rule] = []
    name = ""
    for line in map(str.strip, text.splitlines()):
        if line.startswith("*"):
            name, chains, rules = line[1:], [], []
        elif line.startswith(":"):
            chains.append(line[1:].split(" ")[0])
        elif line.startswith(("-A ", "[")):
            _, _, rest = line.partition("-A ")
            chain, _, words = rest.partition(" ")
            rules.append(Rule(chain, words))
        elif line == "COMMIT":
            tables.append(Table(name, tuple(chains), tuple(rules)))
    return tables


def cut(text: str, program: str, *, flannel: bool = False) -> FilterCut:
    """What goes and what stays of one program's dump (`iptables-nft`, `ip6tables-legacy`, …).

    With `flannel`, which is the caller's knowledge of the host, flannel's chains go, too.
    """
    lines: list[str] = []
    gone: list[tuple[str, str]] = []
    jumps: list[tuple[str, Rule]] = []
    kept: list[Kept] = []
    for table in parse_dump(text):
        ours = {chain for chain in table.chains if _is_ours(chain, flannel)}
        hooks = [rule for rule in table.rules if rule.chain not in ours and rule.target in ours]
        own = [rule for rule in hooks if _is_own(rule, flannel)]
        foreign = [rule for rule in hooks if not _is_own(rule, flannel)]
        stay = _reached({rule.target for rule in foreign}, ours, table.rules)
        go = [chain for chain in table.chains if chain in ours - stay]
        kept += _foreign_jumps(foreign, table.name, program)
        kept += _others(table, ours, program)
        if own or go:
            lines += [
                f"*{table.name}",
                *(f"-D {rule.chain} {rule.text}" for rule in own),
                *(f":{chain} - [0:0]" for chain in go),  # empties it
                *(f"-X {chain}" for chain in go),
                "COMMIT",
            ]
        gone += [(table.name, chain) for chain in go]
        jumps += [(table.name, rule) for rule in own]
    return FilterCut("\n".join([*lines, ""]) if lines else "", tuple(gone), tuple(jumps), tuple(kept))


def kube_proxy_tables(listed: str) -> list[str]:
    """kube-proxy's own tables (since 1.29) in what `nft list tables` prints, as `ip kube-proxy`."""
    rows = (line.strip() for line in listed.splitlines())
    return [row.removeprefix("table ") for row in rows if _KUBE_TABLES.fullmatch(row)]


def is_services(chain: str) -> bool:
    """Whether kube-proxy has made a chain for one Service or one of its endpoints."""
    return bool(_SERVICE.fullmatch(chain))


def _is_ours(chain: str, flannel: bool) -> bool:
    return chain in _NAMES or is_services(chain) or (flannel and chain in _FLANNEL)


def _is_own(rule: Rule, flannel: bool) -> bool:
    """Whether a jump into one of the chains was made by whoever made the chain."""
    if rule.comments & (_COMMENTS | (_FLANNEL_COMMENTS if flannel else frozenset())):
        return True
    return rule.target in _BARE and rule.words == ["-j", rule.target]


def _reached(start: Iterable[str], ours: set[str], rules: Iterable[Rule]) -> set[str]:
    """The chains of ours that are reached from these, which are of ours, too: none can go without the others."""
    leads: dict[str, set[str]] = {}
    for rule in rules:
        if rule.chain in ours and rule.target in ours:
            leads.setdefault(rule.chain, set()).add(rule.target)
    found, rest = set(start), list(start)
    while rest:
        new = leads.get(rest.pop(), set()) - found
        found |= new
        rest += new
    return found


def _foreign_jumps(foreign: Iterable[Rule], table: str, program: str) -> Iterator[Kept]:
    for rule in foreign:
        yield Kept(
            f"chain {rule.target} in table {table} ({program})",
            f"a rule that is not Kubernetes' leads there: {rule}",
            f"{program} -t {table} -D {rule.chain} {rule.text}, then reset again",
        )


def _others(table: Table, ours: set[str], program: str) -> Iterator[Kept]:
    """Chains that look like a cluster's, and are no part of Kubernetes."""
    makers: Mapping[str, str] = {
        "KUBE-": "no chain of kube-proxy or the kubelet has such a name",
        "FLANNEL-": "it is flannel's, and nothing else here shows that flannel was this cluster's pod network",
        "CNI-": "CNI plugins have made it, for pods or for containers of others",
        "cali-": "it is Calico's",
        "CILIUM_": "it is Cilium's",
    }
    for prefix, why in makers.items():
        found = [chain for chain in table.chains if chain.startswith(prefix) and chain not in ours]
        if found:
            more = f" and {len(found) - 1} more" if len(found) > 1 else ""
            yield Kept(f"chain {found[0]}{more} in table {table.name} ({program})", why)
