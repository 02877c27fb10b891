"""Each kind of endpoint: configured, reloaded under load without a failure, and with a server that dies."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any

import pytest
from cluster_fixtures import ENDPOINT, ON_MACHINES, Kubewright, start_on
from endpoint_fixtures import Client, Fleet, all_served, clients, fleet, new_ca, serve

from kubewright.errors import ExitCode, HostError
from kubewright.events import Events
from kubewright.lab import faults
from kubewright.lab.lab import Lab, down, open_lab
from kubewright.model.loadbalancer import Backend
from kubewright.model.node import split_endpoint
from kubewright.workflows.endpoint import Endpoint

pytestmark = ON_MACHINES

SERVERS = ("cp1", "w1", "w2")
CA = new_ca()
LONGEST_GAP = 5.0


@pytest.fixture(scope="module")
async def lab(kubewright: Kubewright) -> AsyncIterator[Lab]:
    """One machine a server, and two for proxies."""
    await down(ENDPOINT, events=Events())
    kubewright("lab", "up", "--name", ENDPOINT, "--workers", "4", "--machines-only")
    yield open_lab(ENDPOINT)
    await down(ENDPOINT, events=Events())


@dataclass
class Served:
    """An endpoint of one kind in front of all servers."""

    fleet: Fleet
    endpoint: Endpoint
    backends: list[Backend]

    @asynccontextmanager
    async def probes(self, *, patience: float = 10.0) -> AsyncIterator[list[Client]]:
        """Clients of the endpoint; of a local one they are on the last machine."""
        address, port = split_endpoint(self.endpoint.address)
        async with AsyncExitStack() as stack:
            if address == "127.0.0.1":
                address, port = await stack.enter_async_context(
                    self.fleet.node("w4").host.forward_tcp(address, port)
                )
            yield await stack.enter_async_context(clients(address, port, CA.cert, patience=patience))


def described(lab: Lab, kind: str) -> tuple[dict[str, list[str]], dict[str, Any]]:
    """The roles of the machines, and the endpoint."""
    planes = {name: ["control-plane"] for name in SERVERS}
    balancers = planes | {"w3": ["load-balancer"], "w4": ["load-balancer"]}
    one = str(lab.machine("w3").plan.address)
    match kind:
        case "keepalived":
            return balancers, {"type": kind, "address": str(lab.plan.subnet[250])}
        case "local, haproxy" | "local, nginx":
            return planes | {"w4": ["worker"]}, {"type": "local", "proxy": kind.partition(", ")[2]}
        case _:
            return balancers, {"type": kind, "address": one}


@asynccontextmanager
async def serving(lab: Lab, kind: str) -> AsyncIterator[Served]:
    """The endpoint, until the context ends; then nothing is left of it."""
    roles, endpoint = described(lab, kind)
    try:
        async with fleet(lab, roles, endpoint) as found:
            served = Served(found, Endpoint(found.spec, found.nodes, found.do), [])
            served.backends = [await serve(found.node(name), CA) for name in SERVERS]
            await served.endpoint.ensure(served.backends, CA.cert)
            yield served
    finally:
        await faults.start(ENDPOINT, [machine.name for machine in lab.machines], Events())
        async with fleet(lab, roles, endpoint) as found:
            for node in Endpoint(found.spec, found.nodes, found.do).hosts:
                await Endpoint(found.spec, found.nodes, found.do).forget(node)
                left = await node.host.shell(LEFT, check=False)
                assert left.text == "", f"{node.name}: {left.text}"


KINDS = ("haproxy", "nginx", "keepalived", "local, haproxy", "local, nginx")
LEFT = """
for name in haproxy nginx nginx-check keepalived; do
  ls -d "/etc/systemd/system/kubewright-$name.service" "/run/kubewright-$name" 2>/dev/null
done
ls -d /etc/kubewright 2>/dev/null
pgrep -a 'nginx|keepalived|check-backends'; pgrep -a haproxy | grep -v /etc/server; ss -Hltn 'sport = :6444'
"""


@pytest.mark.parametrize("kind", KINDS)
async def test_it_serves_reloads_without_a_failure_and_bears_a_dead_server(lab: Lab, kind: str) -> None:
    async with serving(lab, kind) as served:
        async with served.probes() as probes:
            await all_served(probes, 20)
        assert not [one.failures for one in probes if one.failures]
        assert {who for one in probes for _, who in one.successes} == set(SERVERS)

        served.fleet.changes.clear()
        await served.endpoint.ensure(served.backends, CA.cert)
        assert served.fleet.changes == [], "a second run changes nothing"

        async with served.probes() as probes:
            await all_served(probes, 5)
            for turn in range(6):
                await served.endpoint.ensure(served.backends[: 2 + turn % 2], CA.cert)
                await all_served(probes, 5)
        assert any(change.target.startswith("reload") for change in served.fleet.changes)
        assert not [one.failures for one in probes if one.failures]

        async with served.probes() as probes:
            await all_served(probes, 20)
            assert "w1" in {one.successes[-1][1] for one in probes}, "somebody talks to the one that dies"
            killed = time.monotonic()
            await faults.kill(ENDPOINT, ["w1"], Events())
            await asyncio.sleep(8)  # longer than the longest gap that is allowed
        longest = max(one.gap(killed) for one in probes)
        print(f"{kind}: the longest gap is {longest:.1f} s, when a server's machine is killed")
        assert longest <= LONGEST_GAP


async def holder(served: Served) -> str:
    """Which host has the virtual IP."""
    address = split_endpoint(served.endpoint.address)[0]
    found = []
    for node in served.endpoint.hosts:
        rows = await node.host.shell('ip -o addr show to "$1"', address, check=False)
        found += [node.name] if rows.text else []
    assert len(found) == 1, found
    return found[0]


@pytest.mark.quiet
async def test_a_virtual_ip_moves_once_and_stays(lab: Lab) -> None:
    async with serving(lab, "keepalived") as served:
        first = await holder(served)
        async with served.probes() as probes:
            await all_served(probes, 10)
            stopped = time.monotonic()
            await served.fleet.node(first).host.run(["systemctl", "stop", "kubewright-haproxy"])
            await asyncio.sleep(7)
            second = await holder(served)
            assert second != first, "a host whose proxy does not run has no virtual IP"
            await served.fleet.node(first).host.run(["systemctl", "start", "kubewright-haproxy"])
            await asyncio.sleep(4)
            assert await holder(served) == second, "whoever has it keeps it"
        gap = max(one.gap(stopped) for one in probes)
        # A machine may die with a request that it has received and not answered. Whoever has its address then is
        # sent nothing of that, and cannot say that it is lost: it takes a client that gives up.
        async with served.probes(patience=3.0) as probes:
            await all_served(probes, 10)
            killed = time.monotonic()
            await faults.kill(ENDPOINT, [second], Events())
            await asyncio.sleep(7)
        dead = max(one.gap(killed) for one in probes)
        print(f"keepalived: {gap:.1f} s when its proxy stops, {dead:.1f} s when its machine is killed")
        assert max(gap, dead) <= LONGEST_GAP


async def test_a_server_of_another_cluster_is_never_served(lab: Lab) -> None:
    async with serving(lab, "haproxy") as served:
        await serve(served.fleet.node("w1"), new_ca())
        await asyncio.sleep(3)
        async with served.probes() as probes:
            await all_served(probes, 20)
        assert {who for one in probes for _, who in one.successes} == {"cp1", "w2"}


async def test_one_proxy_takes_the_others_place(lab: Lab) -> None:
    async with serving(lab, "haproxy") as served:
        roles, endpoint = described(lab, "nginx")
        async with fleet(lab, roles, endpoint) as found:
            await Endpoint(found.spec, found.nodes, found.do).ensure(served.backends, CA.cert)
            assert "stop kubewright-haproxy.service" in {change.target for change in found.changes}
            state = await found.node("w3").host.run(
                ["systemctl", "is-active", "kubewright-haproxy"], check=False
            )
            assert state.text == "inactive"
        async with served.probes() as probes:
            await all_served(probes, 10)


async def test_a_taken_port_is_refused_with_who_has_it(lab: Lab) -> None:
    roles, endpoint = described(lab, "haproxy")
    with start_on(lab, "w3", "exec socat TCP-LISTEN:6443,fork,reuseaddr /dev/null"):
        async with fleet(lab, roles, endpoint) as found:
            with pytest.raises(HostError) as caught:
                await Endpoint(found.spec, found.nodes, found.do).ensure([], CA.cert)
            assert re.search(
                r"w3: port 6443, where haproxy is to listen, is taken by socat \(process \d+\)",
                caught.value.message,
            )
            await Endpoint(found.spec, found.nodes, found.do).forget(found.node("w4"))


async def test_an_endpoint_of_the_users_own_is_looked_at_and_not_touched(lab: Lab) -> None:
    address = str(lab.machine("w1").plan.address)
    planes = {name: ["control-plane"] for name in SERVERS}
    async with fleet(lab, planes, {"type": "external", "address": address}) as found:
        endpoint = Endpoint(found.spec, found.nodes, found.do)
        through = found.node("cp1")
        await serve(found.node("w1"), CA)
        await endpoint.check(through, CA.cert, must_answer=True)
        with pytest.raises(HostError, match="another cluster's certificate") as caught:
            await endpoint.check(through, new_ca().cert, must_answer=False)
        assert caught.value.exit_code is ExitCode.HOST_IN_OTHER_CLUSTER
        assert "issued by CN=kubernetes" in caught.value.evidence[0]
        with pytest.raises(HostError, match="yet to be made"):
            await endpoint.check(through, None, must_answer=False)
        await found.node("w1").host.shell('kill "$(cat /run/server.pid)"')
        await endpoint.check(through, None, must_answer=False)
        assert found.changes == []
