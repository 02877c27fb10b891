"""Who serves the endpoint, at which address, and what each host is given."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, cast

import pytest

from kubewright.hosts import Host, HostFacts
from kubewright.model.config.cluster import ClusterSpec
from kubewright.model.loadbalancer import Backend
from kubewright.phases.endpoint import EndpointIsOurs
from kubewright.phases.loadbalancer import LoadBalancer
from kubewright.phases.node import Node
from kubewright.phases.phase import Action, Change, Phase
from kubewright.phases.virtual_ip import VirtualAddress, VirtualIpHeld
from kubewright.workflows.endpoint import Endpoint

BACKENDS = [Backend("cp1", "10.0.0.1", 6443)]
HOSTS = [
    {"name": "cp1", "address": "10.0.0.1", "roles": ["control-plane"]},
    {"name": "cp2", "address": "cp2.example.com", "roles": ["control-plane"], "nodeIP": "10.0.0.2"},
    {"name": "lb1", "address": "10.0.0.5", "roles": ["load-balancer"]},
    {"name": "lb2", "address": "10.0.0.6", "roles": ["load-balancer"]},
]
IPS = {"cp1": "10.0.0.1", "cp2": "10.0.0.2", "lb1": "10.0.0.5", "lb2": "10.0.0.6"}


class Noted:
    """An endpoint of which nothing is run; its phases are noted."""

    def __init__(self, endpoint: dict[str, Any], reached: Sequence[str] = tuple(IPS)) -> None:
        spec = ClusterSpec.model_validate({"hosts": HOSTS, "endpoint": endpoint})
        host, facts = cast(Host, None), cast(HostFacts, None)  # nothing is asked here
        self.nodes = [Node(one, host, facts, IPS[one.name]) for one in spec.hosts if one.name in reached]
        self.phases: list[Phase] = []
        self.changes: Sequence[Change] = []
        self.endpoint = Endpoint(spec, self.nodes, self._do)

    async def _do(self, phase: Phase) -> Sequence[Change]:
        self.phases.append(phase)
        return self.changes

    def of(self, kind: type[Phase]) -> list[Any]:
        return [phase for phase in self.phases if isinstance(phase, kind)]


async def test_load_balancers_get_the_backends() -> None:
    noted = Noted({"type": "haproxy", "address": "api.example.com"})
    await noted.endpoint.ensure(BACKENDS, b"ca")
    assert noted.endpoint.address == "api.example.com:6443"
    assert [phase.host_name for phase in noted.of(LoadBalancer)] == ["lb1", "lb2"]
    assert len(noted.phases) == 2
    assert noted.endpoint.admin_url(noted.nodes[0]) == "https://api.example.com:6443"


async def test_a_virtual_ip_is_waited_for_and_knows_hosts_that_are_dead() -> None:
    noted = Noted({"type": "keepalived", "address": "10.0.0.9"}, ["cp1", "lb1"])
    await noted.endpoint.ensure(BACKENDS, b"ca")
    assert [type(phase) for phase in noted.phases] == [LoadBalancer, VirtualAddress, VirtualIpHeld]
    [virtual] = noted.of(VirtualAddress)
    assert virtual._peers == {"lb2": "10.0.0.6"}


async def test_the_holder_is_asked_for_again_when_an_election_is_over() -> None:
    noted = Noted({"type": "keepalived", "address": "10.0.0.9"})
    await noted.endpoint.ensure(BACKENDS, b"ca")
    await noted.endpoint.settled()
    noted.changes = [Change(Action.RUN, "start keepalived")]
    await noted.endpoint.ensure(BACKENDS, b"ca")
    await noted.endpoint.settled()
    now = asyncio.get_running_loop().time()
    waits = [phase._after - now > 3 for phase in noted.of(VirtualIpHeld)]
    assert waits == [False, False, False, True], "nobody waits where nothing has changed"


@pytest.mark.parametrize(("kind", "virtual"), [("haproxy", False), ("keepalived", True)])
async def test_a_proxy_alone_gives_a_virtual_ip_of_before_up(kind: str, virtual: bool) -> None:
    noted = Noted({"type": kind, "address": "10.0.0.9"})
    await noted.endpoint.ensure(BACKENDS, b"ca")
    assert {phase._virtual for phase in noted.of(LoadBalancer)} == {virtual}


async def test_a_control_plane_that_cannot_be_asked_stays_behind_the_endpoint() -> None:
    noted = Noted({"type": "haproxy", "address": "api.example.com"}, ["cp1", "lb1", "lb2"])
    await noted.endpoint.ensure(BACKENDS, b"ca")
    assert {phase._keep for phase in noted.of(LoadBalancer)} == {frozenset({"cp2"})}


async def test_a_local_proxy_is_on_every_node_and_no_address_for_the_user() -> None:
    noted = Noted({"type": "local"})
    assert [node.name for node in noted.endpoint.hosts] == ["cp1", "cp2"]
    assert noted.endpoint.address == "127.0.0.1:6444"
    assert noted.endpoint.admin_url(noted.nodes[1]) == "https://10.0.0.2:6443"
    await noted.endpoint.ensure_on(noted.nodes[1], BACKENDS, b"ca")
    assert [(phase.host_name, phase._listen) for phase in noted.of(LoadBalancer)] == [
        ("cp2", ("127.0.0.1", 6444))
    ]


@pytest.mark.parametrize(("kind", "asked"), [("external", 1), ("haproxy", 0)])
async def test_only_an_address_of_the_users_own_is_asked(kind: str, asked: int) -> None:
    noted = Noted({"type": kind, "address": "api.example.com:6443"})
    await noted.endpoint.check(noted.nodes[0], b"ca", must_answer=True)
    assert len(noted.of(EndpointIsOurs)) == asked
    if kind == "external":
        await noted.endpoint.ensure(BACKENDS, b"ca")
        assert len(noted.phases) == 1, "it is never touched"


def test_certificates_have_the_load_balancers_names() -> None:
    assert Noted({"type": "haproxy", "address": "api.example.com"}).endpoint.names == [
        "lb1", "10.0.0.5", "lb2", "10.0.0.6",
    ]  # fmt: skip
    assert Noted({"type": "haproxy", "address": "10.0.0.6"}).endpoint.names == ["lb1", "10.0.0.5", "lb2"]
