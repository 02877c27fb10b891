"""What the network agent says of itself: when it is ready, why it is not, and its metrics."""

from __future__ import annotations

import json
import time
from ipaddress import IPv4Address, IPv4Network

import pytest
from aiohttp.test_utils import TestClient, TestServer

from kubewright.errors import KubewrightError
from kubewright.network import health
from kubewright.network.agent import pause
from kubewright.network.health import State, application, serve
from kubewright.network.plan import NodeInfo, Route, RoutePlan

OWN = NodeInfo("n1", IPv4Network("10.244.1.0/24"), IPv4Address("192.0.2.1"), True)
OTHER = NodeInfo("n2", IPv4Network("10.244.2.0/24"), IPv4Address("192.0.2.2"), True)


def working() -> State:
    state = State("n1", waiting="", own=OWN, nodes={"n1": OWN, "n2": OTHER}, done={"cni", "routes", "rules"})
    state.plan = RoutePlan(
        (Route(IPv4Network("10.244.1.0/24")), Route(IPv4Network("10.244.2.0/24"), OTHER.address, 2)), {}
    )
    return state


def test_ready_when_all_is_done() -> None:
    assert working().unready() == []


def test_waiting_is_the_only_reason_while_it_lasts() -> None:
    """P40."""
    state = State("n1")
    assert state.unready() == ["the API has not answered yet"]


def test_the_api_being_away_keeps_a_node_ready() -> None:
    state = working()
    state.problems["api"] = "connection refused"
    assert state.unready() == []
    state.problems["rules"] = "iptables: no"
    assert state.unready() == ["rules: iptables: no"]


@pytest.mark.parametrize("part", ["cni", "routes", "rules"])
def test_a_part_that_is_not_done_yet(part: str) -> None:
    state = working()
    state.done.remove(part)
    assert state.unready() == [f"{part}: not done yet"]


@pytest.mark.parametrize(
    ("ready", "problems", "reasons"),
    [
        (True, {}, ["node n3: not routed yet"]),
        (True, {"n3": "behind a router"}, ["node n3: behind a router"]),
        (False, {"n3": "behind a router"}, []),
    ],
)
def test_only_ready_nodes_without_a_route_count(
    ready: bool, problems: dict[str, str], reasons: list[str]
) -> None:
    state = working()
    state.nodes["n3"] = NodeInfo("n3", IPv4Network("10.244.3.0/24"), IPv4Address("198.51.100.3"), ready)
    state.plan = RoutePlan(state.plan.routes, problems)
    assert state.unready() == reasons


async def test_the_endpoints() -> None:
    state = working()
    state.counts["route_writes"] = 2
    async with TestClient(TestServer(application(state))) as client:
        for path in ("/healthz", "/readyz"):
            answer = await client.get(path)
            assert (answer.status, await answer.text()) == (200, "ok\n")
        status = json.loads(await (await client.get("/status")).text())
        assert status["routes"] == ["unreachable 10.244.1.0/24", "10.244.2.0/24 via 192.0.2.2"]
        assert [node["routed"] for node in status["nodes"]] == [False, True]
        metrics = await (await client.get("/metrics")).text()
        assert "kubewright_network_ready 1.0" in metrics
        assert "kubewright_network_route_writes_total 2.0" in metrics
        state.waiting = "Node n1 is not registered yet"
        state.beat = time.monotonic() - 1000
        answer = await client.get("/readyz")
        assert (answer.status, await answer.text()) == (503, "Node n1 is not registered yet\n")
        assert (await client.get("/healthz")).status == 503


async def test_a_taken_health_address_is_one_clear_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health, "BIND_DEADLINE", 0.1)
    async with TestServer(application(working())) as taken:
        assert taken.port is not None
        with pytest.raises(KubewrightError, match=f"--health-address 127.0.0.1:{taken.port}: .*in use"):
            await serve(working(), "127.0.0.1", taken.port)


@pytest.mark.parametrize(
    ("problems", "seconds"), [((), 30), (("api",), 30), (("cni",), 2), (("api", "forwarding"), 2)]
)
def test_what_is_wrong_on_the_node_is_looked_at_often(problems: tuple[str, ...], seconds: float) -> None:
    """Nothing tells when somebody mends it; that the API is back is told."""
    assert pause(problems, 30.0) == seconds
    assert pause(problems, 1.0) == 1.0
