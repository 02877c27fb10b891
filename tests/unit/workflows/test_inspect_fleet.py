"""Preflight of a fleet: hosts on loopback addresses of this computer, with real listeners and connections."""

from __future__ import annotations

import dataclasses
import os
import shutil
import socket
from collections.abc import Mapping
from contextlib import closing
from typing import Any

import pytest
from tests.unit.model.test_fleet_checks import LOOKED
from tests.unit.test_preflight import FIT, NOTHING, OURS

from kubewright.events import Event, Events, Kind
from kubewright.hosts import Completed, HostFacts
from kubewright.hosts.local import LocalHost
from kubewright.model.config.cluster import ClusterSpec
from kubewright.model.node_look import NodeLook
from kubewright.model.port_probe import Answer, Reach
from kubewright.model.preflight import Belonging, Finding
from kubewright.phases import port_probe
from kubewright.phases.node import Node
from kubewright.workflows import fleet
from kubewright.workflows import inspect_fleet as module
from kubewright.workflows.inspect_fleet import inspect_fleet

pytestmark = pytest.mark.skipif(shutil.which("perl") is None, reason="hosts have Perl")
PREFIX = f"127.{1 + os.getpid() // 256 % 250}.{os.getpid() % 256}"
"""Addresses that no other process of these tests has."""


class Machine(LocalHost):
    """This computer by another name, with a clock that may be wrong. What it runs is counted."""

    def __init__(self, name: str, ahead: float = 0.0) -> None:
        super().__init__(name)
        self.ahead = ahead
        self.swap = 0
        self.ran: list[str] = []

    async def run(self, argv: Any, **options: Any) -> Completed:
        self.ran.append(argv[0])
        done = await super().run(argv, **options)
        if argv[0] == "date":
            return Completed(done.argv, 0, f"{float(done.text) + self.ahead}".encode())
        return done

    async def facts(self) -> HostFacts:
        number = self.name[-1]
        return dataclasses.replace(
            FIT, hostname=self.name, machine_id=self.name, macs=(f"02:00:00:00:00:0{number}",),
            default_address=f"{PREFIX}.{number}", addresses=(f"{PREFIX}.{number}",), swap=self.swap,
        )  # fmt: skip


class Fleet:
    """cp1, w2 and w3, bare unless a test says otherwise."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.spec = ClusterSpec.model_validate(
            {
                "hosts": [
                    {"name": "cp1", "address": f"{PREFIX}.1", "roles": ["control-plane"]},
                    {"name": "w2", "address": f"{PREFIX}.2"},
                    {"name": "w3", "address": f"{PREFIX}.3"},
                ]
            }
        )
        self.machines = {host.name: Machine(host.name) for host in self.spec.hosts}
        self.belonging = dict.fromkeys(self.machines, NOTHING)
        self.looks: dict[str, NodeLook] = {}

        async def look_at(host: Machine, _: object) -> NodeLook:
            return self.looks.get(host.name, LOOKED)

        monkeypatch.setattr(module, "look_at", look_at)
        monkeypatch.setattr(fleet, "open_host", lambda item, _: self.machines[item.name])

        async def belongs(host: Machine, _: object) -> Belonging:
            return self.belonging[host.name]

        monkeypatch.setattr(fleet, "_belonging", belongs)
        self._monkeypatch = monkeypatch

    def firewall(self, target: str, *ports: int, users: tuple[str, ...] = ("cp1", "w2", "w3")) -> None:
        """Answer connections of these users to these ports as a firewall does that drops."""
        real, address = port_probe.connect, f"{PREFIX}.{target[-1]}"

        async def connect(wanted: Any) -> dict[str, Mapping[tuple[str, int], Answer]]:
            found = await real(wanted)
            return {
                user: {
                    way: Answer(Reach.SILENT)
                    if user in users and way[0] == address and way[1] in ports
                    else one
                    for way, one in answers.items()
                }
                for user, answers in found.items()
            }

        self._monkeypatch.setattr(module, "connect", connect)

    async def inspect(self, **options: Any) -> list[Finding]:
        nodes = [
            Node(host, self.machines[host.name], await self.machines[host.name].facts(), host.address)
            for host in self.spec.hosts
        ]
        return await inspect_fleet(self.spec, nodes, self.belonging, **options)


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> Fleet:
    return Fleet(monkeypatch)


def known(world: Fleet) -> None:
    """All hosts are in the cluster."""
    world.belonging = dict.fromkeys(world.machines, OURS)


async def test_bare_hosts_that_reach_each_other_give_no_finding(world: Fleet) -> None:
    assert await world.inspect() == []


async def test_a_cluster_is_not_looked_at_by_apply(world: Fleet) -> None:
    known(world)
    assert await world.inspect() == []
    assert not any(machine.ran for machine in world.machines.values())


async def test_a_cluster_whose_programs_do_not_run_just_then_gives_no_finding(world: Fleet) -> None:
    """Nobody listens, and we never do on a host of a cluster: its own programs may start."""
    known(world)
    found = await world.inspect(whole=True)
    assert {one.check for one in found} <= {
        f"FileContent--proc-sys-net-{name}"
        for name in ("ipv4-ip_forward", "bridge-bridge-nf-call-iptables", "bridge-bridge-nf-call-ip6tables")
    }
    assert all(machine.ran.count("env") <= 1 for machine in world.machines.values())


async def test_a_firewall_is_found_before_anybody_listens(world: Fleet) -> None:
    world.firewall("cp1", 6443, users=("w2",))
    (found,) = await world.inspect()
    assert found.host == "cp1"
    assert found.message == "w2 cannot reach it on TCP 6443 (P44)"


async def test_a_host_behind_a_closed_firewall_is_one_finding(world: Fleet) -> None:
    world.firewall("w3", 10250, 30000, 32767)
    (found,) = await world.inspect()
    assert found.host == "w3"
    assert found.message.startswith("none of its ports can be reached from cp1")


async def test_a_node_that_joins_is_probed_both_ways(world: Fleet) -> None:
    """w3 joins: from it to the API server that runs, and to it from the control plane."""
    world.belonging |= dict.fromkeys(("cp1", "w2"), OURS)
    with closing(socket.create_server((f"{PREFIX}.1", 6443))):
        assert await world.inspect() == []
        world.firewall("cp1", 6443)
        (found,) = await world.inspect()
    assert (found.host, *found.about) == ("cp1", "w3")
    assert world.machines["w2"].ran.count("env") == 0, "no way of w2 concerns w3"


async def test_a_port_that_is_taken_is_named_with_its_process_and_not_probed(world: Fleet) -> None:
    world.looks["w2"] = dataclasses.replace(LOOKED, listening={10250: "nginx"})
    (found,) = await world.inspect()
    assert (found.host, found.check) == ("w2", "Port-10250")
    assert "nginx" in found.message


async def test_a_clock_that_is_wrong_is_found(world: Fleet) -> None:
    world.machines["w2"].ahead = 3600
    (found,) = await world.inspect()
    assert (found.host, found.check, found.error) == ("w2", "Clock", True)
    world.machines["w2"].ahead = -12
    (found,) = await world.inspect()
    assert (found.check, found.error) == ("Clock", False)


async def test_only_what_concerns_a_host_is_probed(world: Fleet) -> None:
    await world.inspect(whole=True, only={"w3"})
    assert world.machines["w2"].ran.count("env") == 0


async def test_a_host_without_perl_is_a_warning(world: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    real = Machine.run

    async def run(self: Machine, argv: Any, **options: Any) -> Completed:
        if self.name == "w3" and "perl" in argv:
            return Completed(tuple(argv), 127, b"", b"env: 'perl': No such file or directory\n")
        return await real(self, argv, **options)

    monkeypatch.setattr(Machine, "run", run)
    found = await world.inspect()
    assert {(one.host, one.error) for one in found} == {("w3", False)}
    assert "env: 'perl': No such file or directory" in found[0].evidence


# -- together with what is known from the facts ---------------------------------------------------------------


async def opened(world: Fleet, ignored: frozenset[str] = frozenset()) -> list[str]:
    """Open the fleet as `apply` does; the warnings."""
    seen: list[Event] = []

    async def inspect(nodes: Any, belonging: Any) -> list[Finding]:
        return await inspect_fleet(world.spec, nodes, belonging)

    async with fleet.open_fleet(world.spec, None, Events(seen.append), inspect=inspect, ignored=ignored):
        pass
    return [event.message for event in seen if event.kind is Kind.WARNING]


async def test_all_findings_are_one_error_which_says_how_to_ignore_them(world: Fleet) -> None:
    world.firewall("w3", 10250)
    world.looks["cp1"] = dataclasses.replace(LOOKED, listening={2379: "etcd"}, name_addresses=())
    with pytest.raises(Exception, match="cp1: port 2379 is in use by etcd") as caught:
        await opened(world)
    told = "\n".join(caught.value.evidence)  # type: ignore[attr-defined]
    assert "also w3: cp1 cannot reach it on TCP 10250 (P44)" in told
    assert "--ignore-preflight-errors=Port-2379,PortReach" in told
    assert "does not resolve" not in told


async def test_what_is_ignored_is_warned_of(world: Fleet) -> None:
    world.firewall("w3", 10250)
    (warning,) = await opened(world, frozenset({"portreach"}))
    assert warning.startswith("w3: cp1 cannot reach it on TCP 10250 (P44) (open TCP 10250 of w3 for cp1")
