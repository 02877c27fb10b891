"""The phase that removes what a pod network left, on files, with a stand-in for `ip`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.unit.phases.rooted_host import RootedHost, rooted, rooted_node

from kubewright.events import Events
from kubewright.phases.node import Node
from kubewright.phases.reset_network import PodNetworkGone

POD = "ab" * 32
IP = """
case "$*" in
  "-d -j link show") cat "$ROOT/links" ;;
  "route show proto 107") cat "$ROOT/routes" 2>/dev/null ;;
  "link show dev"*) grep -q "\\"$4\\"" "$ROOT/links" ;;
  *) echo "ip $*" >>"$ROOT/log" ;;
esac
"""
LINKS = [
    {"ifname": "eth0"},
    {"ifname": "cni0", "linkinfo": {"info_kind": "bridge"}},
    {"ifname": "br0", "linkinfo": {"info_kind": "bridge"}},
    {"ifname": "veth1", "master": "cni0", "linkinfo": {"info_kind": "veth"}},
    {"ifname": "flannel.1", "linkinfo": {"info_kind": "vxlan"}},
]
FLANNEL = {"name": "cbr0", "plugins": [{"type": "flannel", "delegate": {}}]}
RESULT = {
    "kind": "cniCacheV1", "containerId": POD, "networkName": "cbr0",
    "result": {"interfaces": [{"name": "veth1"}]},
}  # fmt: skip


@pytest.fixture
def node(tmp_path: Path) -> Node:
    found = rooted_node(tmp_path, "n1")
    host = rooted(found)
    host.program("ip", IP)
    host.put("/links", json.dumps(LINKS))
    return found


def log(host: RootedHost) -> list[str]:
    path = host.at("/log")
    return path.read_text().splitlines() if path.exists() else []


def files(host: RootedHost) -> set[str]:
    own = {"/links", "/routes", "/log"}
    return {path for path, what in host.tree("/").items() if isinstance(what, tuple)} - own


async def test_our_network_goes_with_its_state_and_routes(node: Node) -> None:
    host = rooted(node)
    host.put("/routes", "10.244.1.0/24 via 192.0.2.2 dev eth0\n")
    host.put("/etc/cni/net.d/10-kubewright.conflist", '{"name": "kubewright", "plugins": [{"type": "ptp"}]}')
    host.put("/etc/cni/net.d/.10-kubewright.conflist.new", "{")
    host.put("/etc/cni/net.d/50-mine.conf", '{"name": "mine", "type": "bridge", "bridge": "br0"}')
    host.put("/var/lib/cni/networks/kubewright/10.244.0.2", f"{POD}\r\neth0")
    host.put("/var/lib/cni/networks/kubewright/lock", "")
    host.put("/var/lib/cni/networks/mine/10.9.0.2", f"{POD}\r\neth0")
    phase = PodNetworkGone(node)
    assert [change.target for change in await phase.look()] == [
        "route 10.244.1.0/24 via 192.0.2.2 dev eth0", "the pod network's state in /var/lib/cni",
        "/etc/cni/net.d/10-kubewright.conflist",
    ]  # fmt: skip
    assert log(host) == []
    await phase.run(Events())
    assert files(host) == {"/etc/cni/net.d/50-mine.conf", "/var/lib/cni/networks/mine/10.9.0.2"}
    assert not host.at("/var/lib/cni/networks/kubewright").exists()
    assert log(host) == ["ip route flush proto 107"]
    assert [kept.what for kept in phase.kept] == [
        "/etc/cni/net.d/50-mine.conf", "link cni0", "link flannel.1", "/var/lib/cni/networks/mine",
    ]  # fmt: skip


async def test_flannel_goes_and_a_second_run_has_nothing_to_do(node: Node) -> None:
    host = rooted(node)
    host.put("/etc/cni/net.d/10-flannel.conflist", json.dumps(FLANNEL))
    host.put("/run/flannel/subnet.env", "FLANNEL_MTU=1450\n")
    host.put("/var/lib/cni/results/cbr0-x-eth0", json.dumps(RESULT))
    host.put(f"/var/lib/cni/flannel/{POD}", "{}")
    phase = PodNetworkGone(node)
    await phase.run(Events())
    assert log(host) == [
        "ip link delete dev veth1",
        "ip link delete dev cni0",
        "ip link delete dev flannel.1",
    ]
    assert files(host) == set()
    assert not host.at("/run/flannel").exists()
    host.put("/links", json.dumps(LINKS[:1]))
    assert await phase.look() == []
    assert phase.kept == []


async def test_a_run_that_was_killed_after_the_links_is_finished(node: Node) -> None:
    host = rooted(node)
    host.put("/run/flannel/subnet.env", "")
    host.put("/links", json.dumps([LINKS[4]]))
    phase = PodNetworkGone(node)
    await phase.run(Events())
    assert log(host) == ["ip link delete dev flannel.1"]
    assert files(host) == set()


async def test_thousands_of_leaked_reservations(node: Node) -> None:
    """P37."""
    host = rooted(node)
    folder = host.at("/var/lib/cni/networks/kubewright")
    folder.mkdir(parents=True)
    for number in range(1100):
        (folder / f"10.244.{number // 250}.{number % 250}").write_text(POD)
    await PodNetworkGone(node).run(Events())
    assert not folder.exists()


async def test_a_link_that_the_kernel_keeps_is_said(node: Node) -> None:
    host = rooted(node)
    host.put("/run/flannel/subnet.env", "")
    host.put("/links", json.dumps([LINKS[4]]))
    host.program("ip", IP.replace('echo "ip $*"', 'echo "RTNETLINK answers: busy" >&2; echo "ip $*"'))
    phase = PodNetworkGone(node)
    await phase.run(Events())
    assert phase.warnings == ["not removed: RTNETLINK answers: busy"]
