"""A member that the others take out of etcd, against a gateway of our own: dead or alive, never one too many."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from tests.unit.phases.test_etcd_phase import Gateway, Machine, member, started

from kubewright.errors import ExitCode, KubewrightError
from kubewright.events import Events
from kubewright.phases import etcd, etcd_members
from kubewright.phases.etcd_members import EtcdLeaderAway, EtcdMemberOut, Leaver
from kubewright.phases.phase import Phase

Row = dict[str, Any]


def row(number: int) -> Row:
    where = f"https://192.0.2.{number}"
    return {
        "ID": str(number), "name": f"cp{number}", "peerURLs": [f"{where}:2380"], "clientURLs": [f"{where}:2379"],
    }  # fmt: skip


class Cluster(Gateway):
    """Members of whom one leads. Those that are `ill` do not answer."""

    leader = 1
    index = 100
    recovers = -1
    """How often those that are ill are asked before they answer again; negative for never."""
    refusals = 0
    """How often a change is refused first."""

    async def answer(self, request: web.Request) -> web.Response:
        address = request.host.partition(":")[0]
        number = int(address.rpartition(".")[2])
        if address in self.ill:
            self.recovers -= 1
            if not self.recovers:
                self.ill = ()
            return web.json_response({"error": "down"}, status=503)
        if request.path == "/v3/maintenance/status":
            return web.json_response(
                {
                    "header": {"member_id": str(number)},
                    "leader": str(self.leader),
                    "raftIndex": str(self.index + number),
                }
            )
        if request.path == "/v3/maintenance/transfer-leadership":
            if number != self.leader:
                return web.json_response({"error": "etcdserver: not leader", "code": 9}, status=400)
            self.leader = int((await request.json())["targetID"])
            self.asked.append(f"lead {self.leader}")
            return web.json_response({})
        if request.path.endswith("/remove"):
            self.asked.append(f"remove by {address}")
            if self.refusals:
                self.refusals -= 1
                return web.json_response({"error": "etcdserver: unhealthy cluster", "code": 14}, status=503)
        return await super().answer(request)

    @property
    def names(self) -> list[str]:
        return [str(one.get("name", "")) for one in self.members]


class Pods:
    """The API, of which only etcd's Pods are asked."""

    async def list(self, *_: object, **__: object) -> list[Row]:
        return [
            {"metadata": {"annotations": {etcd.CLIENT_URLS: f"https://192.0.2.{number}:2379"}}}
            for number in (1, 2, 3)
        ]


@pytest.fixture(autouse=True)
def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(etcd_members, "PATIENCE", 0.0)


@asynccontextmanager
async def of_three(tmp_path: Path) -> AsyncIterator[tuple[Machine, Cluster]]:
    gateway = Cluster(members=[row(1), row(2), row(3)])
    async with started(tmp_path, gateway) as machine:
        yield machine, gateway


@pytest.fixture
async def three(tmp_path: Path) -> AsyncIterator[tuple[Machine, Cluster]]:
    async with of_three(tmp_path) as found:
        yield found


def phase(kind: type[EtcdLeaderAway | EtcdMemberOut], machine: Machine, leaver: Leaver) -> Phase:
    return kind(member(machine)._node, Pods(), "/etc/kubernetes/pki", leaver)  # type: ignore[arg-type]


CP1 = Leaver("cp1", ["192.0.2.1"])
CP3 = Leaver("cp3", ["192.0.2.3"])


async def test_the_leader_hands_over_to_the_one_with_most_data_and_leaves(
    three: tuple[Machine, Cluster],
) -> None:
    machine, cluster = three
    [change] = await phase(EtcdLeaderAway, machine, CP1).run(Events())
    assert change.target == "let cp3 lead etcd instead of cp1"
    assert cluster.leader == 3
    assert await phase(EtcdLeaderAway, machine, CP1).look() == []
    cluster.refusals = 2
    [change] = await phase(EtcdMemberOut, machine, CP1).run(Events())
    assert change.target == "etcd member cp1 (https://192.0.2.1:2380)"
    assert cluster.names == ["cp2", "cp3"]
    assert not any(one.endswith("192.0.2.1") for one in cluster.asked)
    assert await phase(EtcdMemberOut, machine, CP1).look() == []


async def test_a_member_that_does_not_lead_changes_no_leader(three: tuple[Machine, Cluster]) -> None:
    machine, cluster = three
    assert await phase(EtcdLeaderAway, machine, CP3).run(Events()) == []
    assert cluster.leader == 1


async def test_a_dead_member_is_taken_out_and_not_asked(three: tuple[Machine, Cluster]) -> None:
    machine, cluster = three
    cluster.ill = ("192.0.2.3",)
    for kind in (EtcdLeaderAway, EtcdMemberOut):
        await phase(kind, machine, Leaver("cp3", ["192.0.2.3"], dead=True)).run(Events())
    assert cluster.names == ["cp1", "cp2"]


@pytest.mark.parametrize("kind", [EtcdLeaderAway, EtcdMemberOut])
async def test_one_that_the_others_need_stays(
    three: tuple[Machine, Cluster], kind: type[EtcdLeaderAway | EtcdMemberOut]
) -> None:
    machine, cluster = three
    cluster.ill = ("192.0.2.2",)
    with pytest.raises(
        KubewrightError,
        match=r"2 voting members are left, of which 1 are healthy; 2 are needed \(cp2: down\)",
    ) as caught:
        await phase(kind, machine, CP3).run(Events())
    assert caught.value.exit_code is ExitCode.HOST_NOT_FIT
    assert cluster.names == ["cp1", "cp2", "cp3"]


async def test_the_last_one_that_votes_stays(tmp_path: Path) -> None:
    gateway = Cluster(
        members=[row(1), {"ID": "2", "peerURLs": ["https://192.0.2.2:2380"], "isLearner": True}]
    )
    async with started(tmp_path, gateway) as machine:
        with pytest.raises(KubewrightError, match="it is the last member that votes"):
            await phase(EtcdMemberOut, machine, CP1).look()
        # A learner that never started is known by its address alone, and is missed by nobody.
        await phase(EtcdMemberOut, machine, Leaver("cp2", ["192.0.2.2"])).run(Events())
        assert gateway.names == ["cp1"]


async def test_a_new_host_with_an_old_ones_address_keeps_its_member(three: tuple[Machine, Cluster]) -> None:
    machine, _ = three
    assert await phase(EtcdMemberOut, machine, Leaver("old", ["192.0.2.3"])).look() == []


async def test_a_member_that_was_slow_once_is_asked_again(
    three: tuple[Machine, Cluster], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(etcd_members, "PATIENCE", 60.0)
    machine, cluster = three
    cluster.ill, cluster.recovers = ("192.0.2.1", "192.0.2.2"), 5
    await phase(EtcdMemberOut, machine, CP3).run(Events())
    assert cluster.names == ["cp1", "cp2"]
