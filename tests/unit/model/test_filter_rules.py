"""What goes out of a packet filter with a cluster, down to the last rule, and what stays."""

from __future__ import annotations

import pytest
from tests.unit.model import iptables_dumps as dumps

from kubewright.model.filter_rules import FilterCut, Table, cut, kube_proxy_tables, parse_dump


def restored(dump: str, script: str) -> list[Table]:
    """The tables after `iptables-restore --noflush`, which refuses what the kernel would."""
    tables = {table.name: table for table in parse_dump(dump)}
    chains = {name: list(table.chains) for name, table in tables.items()}
    rules = {name: [str(rule) for rule in table.rules] for name, table in tables.items()}
    name = ""
    for line in script.splitlines():
        if line.startswith("*"):
            name = line[1:]
        elif line.startswith("-D "):
            rules[name].remove("-A " + line.removeprefix("-D "))
        elif line.startswith(":"):
            chain = line[1:].split()[0]
            assert chain in chains[name]
            rules[name] = [rule for rule in rules[name] if not rule.startswith(f"-A {chain} ")]
        elif line.startswith("-X "):
            chain = line.removeprefix("-X ")
            assert not any(f"-j {chain}" in rule or f"-A {chain} " in rule for rule in rules[name]), chain
            chains[name].remove(chain)
    text = ""
    for name in tables:
        text += "".join(
            f"{line}\n"
            for line in (f"*{name}", *(f":{one} - " for one in chains[name]), *rules[name], "COMMIT")
        )
    return parse_dump(text)


def test_what_the_owner_has_is_all_that_stays() -> None:
    found = cut(dumps.V120, "iptables-nft")
    assert restored(dumps.V120, found.restore) == parse_dump(dumps.OWNERS)
    assert found.kept == ()


def test_a_second_run_has_nothing_to_do() -> None:
    assert cut(dumps.OWNERS, "iptables-nft") == FilterCut("", (), (), ())


@pytest.mark.parametrize("dump", [dumps.V128, dumps.IPVS], ids=["1.28", "ipvs"])
def test_nothing_of_kubernetes_stays(dump: str) -> None:
    found = cut(dump, "iptables-legacy")
    left = restored(dump, found.restore)
    assert [rule for table in left for rule in table.rules] == []
    assert not any(chain.startswith("KUBE-") for table in left for chain in table.chains)
    assert found.kept == ()


@pytest.mark.parametrize(
    "jump",
    [
        "-A INPUT -i eth9 -j KUBE-SERVICES",
        "-A OWNER -g KUBE-SERVICES",
        '-A INPUT -m comment --comment "kubernetes service portals, and mine" -j KUBE-SERVICES',
    ],
)
def test_a_chain_that_an_owners_rule_leads_to_stays_with_what_it_leads_to(jump: str) -> None:
    dump = f"""
*nat
:INPUT ACCEPT [0:0]
:KUBE-SEP-ABCDEFGHIJKLMN23 - [0:0]
:KUBE-SERVICES - [0:0]
:KUBE-SVC-ABCDEFGHIJKLMN23 - [0:0]
:KUBE-SVC-ZZZZZZZZZZZZZZZZ - [0:0]
:OWNER - [0:0]
{jump}
-A INPUT -m comment --comment "kubernetes service portals" -j KUBE-SERVICES
-A KUBE-SERVICES -d 10.96.0.1/32 -j KUBE-SVC-ABCDEFGHIJKLMN23
-A KUBE-SVC-ABCDEFGHIJKLMN23 -j KUBE-SEP-ABCDEFGHIJKLMN23
COMMIT
"""
    found = cut(dump, "iptables")
    [left] = restored(dump, found.restore)
    assert left.chains == (
        "INPUT", "KUBE-SEP-ABCDEFGHIJKLMN23", "KUBE-SERVICES", "KUBE-SVC-ABCDEFGHIJKLMN23", "OWNER",
    )  # fmt: skip
    # kube-proxy's own jump goes all the same.
    assert [str(rule) for rule in left.rules if rule.target == "KUBE-SERVICES"] == [jump]
    [kept] = found.kept
    assert kept.what == "chain KUBE-SERVICES in table nat (iptables)"
    assert jump in kept.why
    assert kept.mend == f"iptables -t nat -D {jump.removeprefix('-A ')}, then reset again"


def test_a_jump_to_the_kubelets_chain_is_the_kubelets_only_without_conditions() -> None:
    dump = dumps.V120.replace("-A OUTPUT -j KUBE-FIREWALL", "-A OUTPUT -o eth9 -j KUBE-FIREWALL")
    found = cut(dump, "iptables")
    assert [kept.what for kept in found.kept] == ["chain KUBE-FIREWALL in table filter (iptables)"]
    assert ("filter", "KUBE-FIREWALL") not in found.chains


def test_chains_with_names_like_kubernetes_are_named_and_left() -> None:
    found = cut(dumps.ROUTER, "iptables")
    assert found.restore == ""
    [kept] = found.kept
    assert kept.what == "chain KUBE-NWPLCY-DEFAULT and 2 more in table filter (iptables)"


def test_flannels_chains_go_only_where_it_was_the_pod_network() -> None:
    kept = cut(dumps.FLANNEL, "iptables")
    assert kept.restore == ""
    assert [one.what for one in kept.kept] == [
        "chain FLANNEL-FWD in table filter (iptables)",
        "chain FLANNEL-POSTRTG in table nat (iptables)",
    ]
    gone = cut(dumps.FLANNEL, "iptables", flannel=True)
    assert [table.rules for table in restored(dumps.FLANNEL, gone.restore)] == [(), ()]
    assert gone.kept == ()


@pytest.mark.parametrize("chain", ["KUBE-SVC-abc", "KUBE-SVC-", "KUBE-SEP-ABCDEFGHIJKLMN234", "KUBE-MINE"])
def test_a_name_that_no_hash_ends_is_somebodys(chain: str) -> None:
    found = cut(f"*nat\n:{chain} - [0:0]\nCOMMIT\n", "iptables")
    assert (found.restore, len(found.kept)) == ("", 1)


def test_rules_with_counters_are_read_as_well() -> None:
    [table] = parse_dump("*filter\n:INPUT ACCEPT [1:2]\n[7:9] -A INPUT -j KUBE-FIREWALL\nCOMMIT\n")
    assert [str(rule) for rule in table.rules] == ["-A INPUT -j KUBE-FIREWALL"]


def test_half_a_dump_is_no_table() -> None:
    assert parse_dump("*filter\n:INPUT ACCEPT [1:2]\n-A INPUT -j KUBE-FIREWALL\n") == []


def test_kube_proxys_tables_of_nftables() -> None:
    names = ("ip kube-proxy", "ip6 kube-proxy", "inet kube-proxy", "ip kube-proxy-mine", "ip nat")
    listed = "".join(f"table {name}\n" for name in names)
    assert kube_proxy_tables(listed) == ["ip kube-proxy", "ip6 kube-proxy"]
