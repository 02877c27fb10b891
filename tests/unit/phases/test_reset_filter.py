"""The phase that removes packet filter rules, with stand-ins for the programs that it calls."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.unit.model import iptables_dumps as dumps
from tests.unit.phases.rooted_host import RootedHost, rooted, rooted_node

from kubewright.events import Events
from kubewright.phases.node import Node
from kubewright.phases.reset_filter import PacketFilterGone

SAVE = 'cat "$ROOT/dumps/${0##*/}" 2>/dev/null; true'
RESTORE = 'echo "${0##*/} $*" >>"$ROOT/log"; cat >"$ROOT/${0##*/}.stdin"'
LOG = 'echo "${0##*/} $*" >>"$ROOT/log"'
LINK = (
    r"7: kube-ipvs0: <BROADCAST,NOARP> mtu 1500\    link/ether 0a:00:00:00:00:01\    dummy addrgenmode eui64"
)
ADDRESS = r"7: kube-ipvs0    inet 10.96.0.1/32 scope global kube-ipvs0\       valid_lft forever"
IP = f"""case "$*" in *link\\ show*) echo '{LINK}';; *address*) echo '{ADDRESS}';; *) {LOG};; esac"""
SERVERS = "IP Virtual Server version 1.2.1\nTCP  0A600001:01BB rr\nTCP  C0000201:0050 wlc\n"
SETS = "create KUBE-CLUSTER-IP hash:ip,port\nadd KUBE-CLUSTER-IP 10.96.0.1,tcp:443\ncreate mine hash:ip\n"
KINDS = tuple(f"{family}-{kind}" for family in ("iptables", "ip6tables") for kind in ("nft", "legacy"))


@pytest.fixture
def node(tmp_path: Path) -> Node:
    """A host with both kinds of iptables, on which nothing is."""
    found = rooted_node(tmp_path, "n1")
    host = rooted(found)
    for kind in KINDS:
        host.program(f"{kind}-save", SAVE)
        host.program(f"{kind}-restore", RESTORE)
    for name in ("ipset", "ipvsadm", "nft", "ip"):
        host.program(name, f'case "$*" in "save"|"list tables"|*show*) {SAVE};; *) {LOG};; esac')
    return found


def log(host: RootedHost) -> list[str]:
    path = host.at("/log")
    return path.read_text().splitlines() if path.exists() else []


async def targets(phase: PacketFilterGone) -> list[str]:
    return [change.target for change in await phase.look()]


async def test_a_clean_host_has_nothing_to_do(node: Node) -> None:
    phase = PacketFilterGone(node)
    assert await targets(phase) == []
    await phase.run(Events())
    assert log(rooted(node)) == []
    assert (phase.kept, phase.warnings) == ([], [])


async def test_rules_go_by_the_program_that_has_them(node: Node) -> None:
    host = rooted(node)
    host.put("/dumps/iptables-nft-save", dumps.V120)
    host.put("/dumps/ip6tables-legacy-save", dumps.V128)
    host.put("/proc/net/ip6_tables_names", "nat\n")
    phase = PacketFilterGone(node)
    said = await targets(phase)
    assert (
        "rule -A INPUT -j KUBE-FIREWALL in table filter (iptables-nft)" in said
        and "chains KUBE-KUBELET-CANARY, KUBE-PROXY-CANARY in table mangle (iptables-nft)" in said
    )
    assert any("4 of Services in table nat (ip6tables-legacy)" in line for line in said)
    assert log(host) == []
    await phase.run(Events())
    assert log(host) == ["iptables-nft-restore -w 5 --noflush", "ip6tables-legacy-restore -w 5 --noflush"]
    script = host.at("/iptables-nft-restore.stdin").read_text()
    assert "-D INPUT -j KUBE-FIREWALL\n" in script
    assert "OWNER" not in script


async def test_the_old_iptables_is_not_asked_where_the_kernel_has_none_of_its_tables(node: Node) -> None:
    """It would load its modules to answer."""
    host = rooted(node)
    host.program("iptables-legacy-save", LOG)
    await PacketFilterGone(node).look()
    assert log(host) == []
    host.put("/proc/net/ip_tables_names", "filter\n")
    await PacketFilterGone(node).look()
    assert log(host) == ["iptables-legacy-save "]


async def test_rules_that_stay_are_said(node: Node) -> None:
    host = rooted(node)
    host.put("/dumps/iptables-nft-save", dumps.V120)
    host.program("iptables-nft-restore", 'cat >/dev/null; echo "line 7 failed" >&2; exit 1')
    phase = PacketFilterGone(node)
    await phase.run(Events())
    assert phase.warnings == ["rules stay: iptables-nft-restore: line 7 failed"]


async def test_virtual_servers_go_before_what_marks_them(node: Node) -> None:
    host = rooted(node)
    host.put("/proc/net/ip_vs", SERVERS)
    host.put("/dumps/ipset", SETS)
    host.program("ip", IP)
    host.program(
        "nft", f'case "$*" in list*) echo "table ip kube-proxy"; echo "table ip nat";; *) {LOG};; esac'
    )
    phase = PacketFilterGone(node)
    assert await targets(phase) == [
        "nftables table ip kube-proxy", "virtual server TCP 10.96.0.1:443", "address set KUBE-CLUSTER-IP",
        "link kube-ipvs0",
    ]  # fmt: skip
    assert [kept.what for kept in phase.kept] == ["virtual server TCP 192.0.2.1:80"]
    await phase.run(Events())
    assert log(host) == [
        "ipvsadm -D -t 10.96.0.1:443", "nft delete table ip kube-proxy", "ipset destroy KUBE-CLUSTER-IP",
        "ip link delete kube-ipvs0",
    ]  # fmt: skip


async def test_a_virtual_server_that_stays_keeps_its_marks(node: Node) -> None:
    host = rooted(node)
    host.put("/proc/net/ip_vs", SERVERS)
    host.put("/dumps/ipset", SETS)
    host.program("ip", IP)
    host.program("ipvsadm", 'echo "busy" >&2; exit 1')
    phase = PacketFilterGone(node)
    await phase.run(Events())
    assert log(host) == []
    assert phase.warnings == ["not removed: busy"]


async def test_without_ipvsadm_its_marks_stay_too(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    host = rooted(node)
    (host.bin / "ipvsadm").unlink()
    host.put("/proc/net/ip_vs", SERVERS)
    host.put("/dumps/ipset", SETS)
    host.program("ip", IP)
    phase = PacketFilterGone(node)
    assert await targets(phase) == []
    assert phase.kept[-1].mend == "install ipvsadm, then reset again"
    assert "TCP 10.96.0.1:443" in phase.kept[-1].what


async def test_a_link_of_that_name_that_is_no_dummy_stays(node: Node) -> None:
    host = rooted(node)
    host.program("ip", IP.replace("dummy", "bridge").replace(ADDRESS, ""))
    phase = PacketFilterGone(node)
    assert await targets(phase) == []
    assert [kept.what for kept in phase.kept] == ["link kube-ipvs0"]


@pytest.mark.parametrize("mark", ["/run/flannel/subnet.env", "/etc/cni/net.d/10-flannel.conflist"])
async def test_flannels_rules_go_where_it_was_the_pod_network(node: Node, mark: str) -> None:
    host = rooted(node)
    host.put("/dumps/iptables-nft-save", dumps.FLANNEL)
    phase = PacketFilterGone(node)
    assert await targets(phase) == []
    assert len(phase.kept) == 2
    host.put(mark)
    assert len(await targets(phase)) == 4
    assert phase.kept == []
