"""What the pod network wants of a node, as pure functions: routes, CNI configuration, MTU, iptables text."""

from __future__ import annotations

import json
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kubewright.errors import ConfigError
from kubewright.network import files, plan, rules
from kubewright.network.follow import BACKOFF_MOST, backoff
from kubewright.network.options import parse
from kubewright.network.plan import DirectRoutes, FoundRoute, NodeInfo, Reach, Route, RoutePlan

PODS = IPv4Network("10.244.0.0/16")


def net(text: str) -> IPv4Network:
    return IPv4Network(text)


def node(number: int, **changes: Any) -> NodeInfo:
    values: dict[str, Any] = {
        "name": f"n{number}", "pod_cidr": net(f"10.244.{number}.0/24"), "ready": True,
        "address": IPv4Address(f"192.0.2.{number}"),
    }  # fmt: skip
    return NodeInfo(**(values | changes))


def wanted(*nodes: NodeInfo, reach: dict[str, Reach] | None = None) -> RoutePlan:
    ways = {n.address: Reach(link=2) for n in nodes if n.address}
    ways |= {IPv4Address(address): way for address, way in (reach or {}).items()}
    return DirectRoutes().wanted_routes(nodes, nodes[0], ways)


def test_a_route_to_each_other_node_and_an_unreachable_one_under_the_own_pods() -> None:
    assert wanted(node(1), node(3), node(2)) == RoutePlan(
        (
            Route(net("10.244.1.0/24")),
            Route(net("10.244.2.0/24"), IPv4Address("192.0.2.2"), 2),
            Route(net("10.244.3.0/24"), IPv4Address("192.0.2.3"), 2),
        ),
        {},
    )


@pytest.mark.parametrize("other", [node(2, pod_cidr=None), node(2, deleting=True)])
def test_a_node_without_range_or_on_its_way_out_gets_no_route_and_is_no_problem(other: NodeInfo) -> None:
    assert wanted(node(1), other) == RoutePlan((Route(net("10.244.1.0/24")),), {})


@pytest.mark.parametrize(
    ("other", "reach", "problem"),
    [
        (node(2, address=None), {}, "the Node has no InternalIP"),
        (node(2, pod_cidr=net("10.244.1.0/24")), {}, "podCIDR 10.244.1.0/24 overlaps 10.244.1.0/24"),
        (
            node(2),
            {"192.0.2.2": Reach(2, IPv4Address("192.0.2.254"))},
            "192.0.2.2 is behind the router 192.0.2.254: direct routes need nodes on one link",
        ),
        (node(2), {"192.0.2.2": Reach(1, local=True)}, "192.0.2.2 is an address of this node too"),
        (node(2), {"192.0.2.2": Reach(error="network is unreachable")}, "192.0.2.2: network is unreachable"),
    ],
)
def test_a_node_that_cannot_be_routed_to_is_named(
    other: NodeInfo, reach: dict[str, Reach], problem: str
) -> None:
    """P39. The other nodes keep their routes."""
    made = wanted(node(1), other, node(3), reach=reach)
    assert made.problems == {"n2": problem}
    assert net("10.244.3.0/24") in {route.destination for route in made.routes}


def ours(route: Route) -> FoundRoute:
    return FoundRoute(route, plan.ROUTE_PROTOCOL)


def test_route_change_touches_only_what_differs_and_nothing_of_others() -> None:
    keep, move = (
        wanted(node(1), node(2), node(3)).routes[:2],
        Route(net("10.244.3.0/24"), IPv4Address("192.0.2.3"), 2),
    )
    old = Route(move.destination, IPv4Address("192.0.2.33"), 2)
    gone = Route(net("10.244.9.0/24"), IPv4Address("192.0.2.9"), 2)
    foreign = FoundRoute(Route(net("10.0.0.0/8"), IPv4Address("192.0.2.1"), 2), 4)
    new = Route(net("10.244.4.0/24"), IPv4Address("192.0.2.4"), 2)
    change = plan.route_change([*keep, move, new], [*map(ours, (*keep, old, gone)), foreign])
    assert change == plan.RouteChange(add=(new,), replace=(move,), remove=(gone,))
    assert change


def test_a_foreign_route_in_the_place_of_ours_is_a_conflict_and_stays() -> None:
    """P38: an old bridge's kernel route, for one."""
    route = Route(net("10.244.1.0/24"))
    bridge = FoundRoute(Route(route.destination, None, 7), 2)
    change = plan.route_change([route], [bridge])
    assert change == plan.RouteChange(conflicts=(bridge,))
    assert not change


ROUTES = st.lists(
    st.builds(
        Route,
        st.integers(0, 8).map(lambda n: net(f"10.244.{n}.0/24")),
        st.sampled_from([IPv4Address("192.0.2.2"), IPv4Address("192.0.2.3"), None]),
        st.just(2),
    ),
    unique_by=lambda route: route.destination,
)


@given(ROUTES, ROUTES, st.sets(st.integers(0, 8)))
def test_applying_a_change_gives_what_was_wanted_and_a_second_look_finds_nothing(
    goal: list[Route], there: list[Route], theirs: set[int]
) -> None:
    foreign = [FoundRoute(Route(net(f"10.244.{n}.0/24"), None, 9), 4) for n in sorted(theirs)]
    taken = {f.route.destination for f in foreign}
    table = [ours(route) for route in there if route.destination not in taken]
    change = plan.route_change(goal, table + foreign)
    after = {f.route.destination: f.route for f in table}
    for route in change.remove:
        assert after.pop(route.destination) == route
    for route in change.add:
        assert route.destination not in after
    after |= {route.destination: route for route in (*change.add, *change.replace)}
    assert after == {route.destination: route for route in goal if route.destination not in taken}
    assert not plan.route_change(goal, [*map(ours, after.values()), *foreign])


def test_node_info_takes_the_ipv4_half_of_a_dual_stack_node() -> None:
    info = plan.node_info(
        {
            "metadata": {"name": "n1", "deletionTimestamp": "2026-01-01T00:00:00Z"},
            "spec": {"podCIDR": "fd00::/64", "podCIDRs": ["fd00::/64", "10.244.1.0/24"]},
            "status": {
                "addresses": [
                    {"type": "Hostname", "address": "n1"},
                    {"type": "InternalIP", "address": "fd00::1"},
                    {"type": "InternalIP", "address": "192.0.2.1"},
                ],
                "conditions": [{"type": "Ready", "status": "True"}],
            },
        }
    )
    assert info == node(1, deleting=True)


def test_node_info_of_a_node_that_has_just_registered() -> None:
    assert plan.node_info({"metadata": {"name": "n1"}}) == NodeInfo("n1")


@pytest.mark.parametrize(("status", "waits"), [("True", True), ("Unknown", True), ("False", False)])
def test_network_unavailable(status: str, waits: bool) -> None:
    marked = {"status": {"conditions": [{"type": "NetworkUnavailable", "status": status}]}}
    assert plan.network_unavailable(marked) is waits
    assert not plan.network_unavailable({})


def test_cni_config() -> None:
    config = json.loads(plan.cni_config(net("10.244.1.0/24"), 1450))
    ptp, portmap = config["plugins"]
    assert config["name"] == "kubewright"
    assert ptp == {
        "type": "ptp", "mtu": 1450, "ipMasq": False,
        "ipam": {
            "type": "host-local", "ranges": [[{"subnet": "10.244.1.0/24"}]], "routes": [{"dst": "0.0.0.0/0"}],
        },
    }  # fmt: skip
    assert portmap["capabilities"] == {"portMappings": True}
    elsewhere = json.loads(plan.cni_config(net("10.244.1.0/24"), 1450, ipam_dir="/srv"))
    assert elsewhere["plugins"][0]["ipam"]["dataDir"] == "/srv"


@pytest.mark.parametrize(
    ("names", "first"),
    [
        (["10-kubewright.conflist", "87-podman.conflist"], ""),
        (["10-kubewright.conflist", "10-flannel.conflist"], "10-flannel.conflist"),
        (["10-kubewright.conflist", "05-old.conf.bak", ".10-kubewright.conflist.new"], ""),
        (["20-a.conf"], ""),
        ([], ""),
    ],
)
def test_shadowing(names: list[str], first: str) -> None:
    assert plan.shadowing(names) == first


def test_the_cni_file_is_written_once_and_in_one_step(tmp_path: Path) -> None:
    directory = tmp_path / "cni" / "net.d"
    assert files.write_cni(directory, b"one")
    assert not files.write_cni(directory, b"one")
    assert files.write_cni(directory, b"two")
    assert [(path.name, path.read_bytes()) for path in directory.iterdir()] == [(plan.CNI_FILE, b"two")]
    (directory / "87-mine.conf").touch()
    (tmp_path / "networks" / "kubewright").mkdir(parents=True)
    assert len(files.remove_cni(directory, tmp_path / "networks")) == 2
    assert files.remove_cni(directory, tmp_path / "networks") == []
    assert [path.name for path in directory.iterdir()] == ["87-mine.conf"]


PROC_ROUTE = """\
Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT
wlan0\t00000000\t010200C0\t0003\t0\t0\t600\t00000000\t0\t0\t0
eth0\t00000000\t010200C0\t0003\t0\t0\t100\t00000000\t0\t0\t0
eth0\t000200C0\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0
eth1\t006433C6\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0
eth9\t0000F40A\t016433C6\t0003\t0\t0\t0\t0000FFFF\t0\t0\t0
"""


@pytest.mark.parametrize(
    ("own", "mtu"), [("192.0.2.7", 1500), ("198.51.100.7", 1400), ("203.0.113.1", 1500), (None, 1500)]
)
def test_the_mtu_is_the_smaller_of_the_two_links_that_pods_use(own: str | None, mtu: int) -> None:
    """P08, P39."""
    sizes = {"eth0": 1500, "eth1": 1400, "wlan0": 1280, "eth9": 576}
    assert files.pod_mtu(IPv4Address(own) if own else None, PROC_ROUTE, sizes.__getitem__) == mtu


def test_the_mtu_without_any_route() -> None:
    assert files.pod_mtu(None, PROC_ROUTE.splitlines()[0], lambda link: 0) == plan.DEFAULT_MTU


NAT, FORWARD = rules.own_chains(PODS)
JUMP = f"-A FORWARD {FORWARD.jump}"
RIGHT = [f"-N {FORWARD.name}", *FORWARD.rules]


def test_masquerading_spares_what_stays_in_the_cluster() -> None:
    assert NAT.rules == (
        "-A KUBEWRIGHT-POSTROUTING ! -s 10.244.0.0/16 -j RETURN",
        "-A KUBEWRIGHT-POSTROUTING -d 10.244.0.0/16 -j RETURN",
        "-A KUBEWRIGHT-POSTROUTING -d 224.0.0.0/4 -j RETURN",
        "-A KUBEWRIGHT-POSTROUTING -j MASQUERADE --random-fully",
    )


def test_rules_that_are_right_are_not_written_again() -> None:
    assert rules.restore_text(FORWARD, RIGHT, ["-P FORWARD DROP", "-A FORWARD -j DOCKER-USER", JUMP]) == ""


def test_rules_from_nothing() -> None:
    assert rules.restore_text(FORWARD, [], ["-P FORWARD DROP"]).splitlines() == [
        "*filter", ":KUBEWRIGHT-FORWARD - [0:0]", *FORWARD.rules, JUMP, "COMMIT",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("forward", "lines"),
    [
        ([], [JUMP]),
        (["-A FORWARD -s 192.0.2.1/32 -j DROP", JUMP], []),
        (
            ["-A FORWARD -s 192.0.2.1/32 -j DROP", "-A FORWARD -j REJECT --reject-with icmp-host-prohibited"],
            [f"-I FORWARD 2 {FORWARD.jump}"],
        ),
        (["-A FORWARD -j DROP", JUMP], [f"-D FORWARD {FORWARD.jump}", f"-I FORWARD 1 {FORWARD.jump}"]),
        ([JUMP, JUMP], [f"-D FORWARD {FORWARD.jump}"] * 2 + [JUMP]),
        ([f"-A FORWARD -j {FORWARD.name}"], [f"-D FORWARD -j {FORWARD.name}", JUMP]),
        ([JUMP, "-A FORWARD -j DROP"], []),
    ],
)
def test_the_jump_stands_behind_the_owners_rules_but_before_one_that_ends_all(
    forward: list[str], lines: list[str]
) -> None:
    text = rules.restore_text(FORWARD, RIGHT, ["-P FORWARD DROP", *forward])
    assert text.splitlines() == (["*filter", *lines, "COMMIT"] if lines else [])


def test_a_changed_chain_is_written_anew_and_its_jump_left() -> None:
    text = rules.restore_text(FORWARD, [*RIGHT, "-A KUBEWRIGHT-FORWARD -j DROP"], ["-P FORWARD ACCEPT", JUMP])
    assert text.splitlines() == ["*filter", ":KUBEWRIGHT-FORWARD - [0:0]", *FORWARD.rules, "COMMIT"]


def test_removal() -> None:
    text = rules.removal_text(FORWARD, RIGHT, ["-P FORWARD DROP", "-A FORWARD -j DOCKER-USER", JUMP])
    assert text.splitlines() == [
        "*filter", f"-D FORWARD {FORWARD.jump}", "-F KUBEWRIGHT-FORWARD", "-X KUBEWRIGHT-FORWARD", "COMMIT",
    ]  # fmt: skip
    assert rules.removal_text(FORWARD, [], ["-P FORWARD DROP", "-A FORWARD -j DOCKER-USER"]) == ""


def test_backoff_grows_to_its_limit_and_is_never_nothing() -> None:
    assert 0.1 <= backoff(1) <= 0.2
    assert BACKOFF_MOST / 2 <= backoff(99) <= BACKOFF_MOST


def test_options(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NODE_NAME", "n1")
    options = parse(["--pod-subnet", "10.244.0.0/16", "--health-address", "[::1]:9"])
    assert (options.pod_subnet, options.node_name, options.health_host, options.health_port) == (
        PODS,
        "n1",
        "::1",
        9,
    )
    for argv, message in (
        (["--pod-subnet", "fd00::/48"], "--pod-subnet fd00::/48: not an IPv4 network"),
        (
            ["--pod-subnet", "10.244.0.0/16", "--health-address", "here"],
            "--health-address here: not HOST:PORT",
        ),
        (["--pod-subnet", "10.244.0.0/16", "--node-name", ""], "NODE_NAME is not set"),
    ):
        with pytest.raises(ConfigError, match=message.replace("(", r"\(")):
            parse(argv)
