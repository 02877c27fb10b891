"""The steps by which etcd leaves control planes, each alone, and what they refuse."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.unit.phases.rooted_host import AS_ROOT, rooted, rooted_node
from tests.unit.phases.test_discovery_phase import serve
from tests.unit.phases.test_etcd_host_phases import PKI, Lab, lab
from tests.unit.workflows.moving_world import API_POD, ETCD_POD, ID, World, populate

from kubewright.clients.cri import RuntimeContainer, Sandbox
from kubewright.errors import HostError, WaitTimeoutError
from kubewright.events import Events
from kubewright.hosts import Completed, FileWrite
from kubewright.hosts.local import LocalHost
from kubewright.model.etcd_moves import Stacked, stacked
from kubewright.model.etcd_unit import MEMBER_DIR, UNIT_PATH
from kubewright.model.objects import read_mapping, to_yaml
from kubewright.phases import stop_plane
from kubewright.phases.etcd_cluster import EtcdMembers
from kubewright.phases.etcd_move import (
    DataAside,
    EtcdLeads,
    EtcdPodGone,
    MovingEtcd,
    StackedMemberLeft,
    closed_ways,
)

__all__ = ["lab"]


class Moving:
    """Two control planes with members, and two hosts of etcd."""

    def __init__(self, world: World, lab: Lab) -> None:
        self.world = world
        nodes = populate(world, lab.ca, lab.pair, ["cp1", "cp2"])
        self.members: list[Stacked] = []
        for node, plane in zip(nodes, world.planes, strict=False):
            found = stacked(node.name, node.ip, read_mapping(plane.files[ETCD_POD].data))
            assert found is not None
            self.members.append(found)
        self.etcd = MovingEtcd(nodes[2:], nodes[:2], self.members, PKI.removesuffix("/etcd"))

    def joined(self, *numbers: int) -> None:
        """Let hosts be members for good."""
        for number in numbers:
            machine = self.world.machines[f"e{number}"]
            machine.active = True
            for path in (MEMBER_DIR, UNIT_PATH):
                machine.files[path] = FileWrite(path, b"")
            self.world.add_voter(number)
        urls = ",".join(f"https://192.0.2.{number}:2379" for number in numbers)
        for plane in self.world.planes:
            pod = {"spec": {"containers": [{"command": ["kube-apiserver", f"--etcd-servers={urls}"]}]}}
            plane.files[API_POD] = FileWrite(API_POD, to_yaml(pod))

    @property
    def names(self) -> list[str]:
        return sorted(one["name"] for one in self.world.voters)


@pytest.fixture
async def moving(lab: Lab, tmp_path: Path) -> AsyncIterator[Moving]:
    world = World(2, 2)
    folder = tmp_path / "gateway"
    folder.mkdir()
    runner, world.port = await serve(folder, world.answer, lab.pair)
    yield Moving(world, lab)
    await runner.cleanup()


async def test_members_of_control_planes_are_no_strays_while_hosts_join(moving: Moving) -> None:
    for machine in moving.world.machines.values():
        machine.files.setdefault(UNIT_PATH, FileWrite(UNIT_PATH, b"unit"))
    phase = EtcdMembers(moving.etcd, "prod", stay=["cp1", "cp2"])
    changes = await phase.run(Events())
    assert [change.target for change in changes] == ["etcd member e3", "etcd member e4"]
    assert moving.names == ["cp1", "cp2", "e3", "e4"]
    assert await phase.run(Events()) == []


async def test_a_member_on_a_host_leads_from_then_on(moving: Moving) -> None:
    moving.joined(3, 4)
    moving.world.away.add("192.0.2.3")
    await EtcdLeads(moving.etcd).run(Events())
    assert moving.world.log == ["lead e4"]
    assert await EtcdLeads(moving.etcd).run(Events()) == []


async def test_nobody_leads_from_a_host_that_is_no_member(moving: Moving) -> None:
    with pytest.raises(WaitTimeoutError, match="a member on the hosts to lead") as caught:
        await EtcdLeads(moving.etcd, deadline=0.1).run(Events())
    assert "no member on the hosts serves" in caught.value.evidence[0]
    assert moving.world.log == []


async def test_a_member_hands_over_before_it_leaves(moving: Moving) -> None:
    moving.joined(3, 4)
    await StackedMemberLeft(moving.etcd, moving.members[0]).run(Events())
    assert moving.world.log == ["lead e3", "remove cp1"]
    assert await StackedMemberLeft(moving.etcd, moving.members[0]).run(Events()) == []


@pytest.mark.parametrize(("joined", "why"), [((3,), "e4 is no member"), ((3, 4), "e4 does not serve")])
async def test_no_member_leaves_before_its_successors_serve(moving: Moving, joined: Any, why: str) -> None:
    moving.joined(*joined)
    moving.world.away.add("192.0.2.4")
    with pytest.raises(WaitTimeoutError, match="etcd to do without cp2") as caught:
        await StackedMemberLeft(moving.etcd, moving.members[1], deadline=0.1).run(Events())
    assert why in caught.value.evidence[0]
    assert "cp2" in moving.names


# -- the Pod and the data -----------------------------------------------------------------------------------------


class Runtime:
    """The kubelet ends the Pod a moment after its only container has ended by itself."""

    def __init__(self) -> None:
        self.looks = 0

    async def containers(self) -> list[RuntimeContainer]:
        self.looks += 1
        return [RuntimeContainer("1", "p", "etcd", 0, self.looks == 1, "")]

    async def sandboxes(self) -> list[Sandbox]:
        theirs = Sandbox("q", "etcd-operator", "users", "", 0, True)
        backup = Sandbox("r", "etcd-backup-1", "kube-system", "", 0, True)
        return [theirs, backup, Sandbox("p", "etcd-cp1", "kube-system", "", 0, self.looks < 3)]


async def test_the_pod_itself_must_be_gone_for_it_would_start_etcd_again(
    moving: Moving, monkeypatch: pytest.MonkeyPatch
) -> None:
    runtime = Runtime()

    @asynccontextmanager
    async def opened(*_: object) -> AsyncIterator[Runtime]:
        yield runtime

    monkeypatch.setattr(stop_plane, "open_cri", opened)
    plane = moving.world.planes[0]
    node = moving.etcd._planes[0]
    changes = await EtcdPodGone(node, "/run/x.sock").run(Events())
    assert [change.target for change in changes] == [ETCD_POD]
    assert ETCD_POD not in plane.files
    assert runtime.looks == 3


async def test_data_is_not_moved_under_a_member_that_may_run(moving: Moving) -> None:
    with pytest.raises(HostError, match="stays where it is"):
        await DataAside(moving.etcd._planes[0], "/var/lib/etcd", ID).run(Events())


@pytest.mark.skipif(not AS_ROOT, reason="files are given owners: root only")
async def test_data_is_kept_whatever_has_its_new_name(tmp_path: Path) -> None:
    node = rooted_node(tmp_path)
    host = rooted(node)
    for content in ("first", "second"):
        host.put("/data/member/wal/0", content)
        await DataAside(node, "/data", ID).run(Events())
        assert await DataAside(node, "/data", ID).run(Events()) == []
    assert host.at(f"/data/member.moved-{ID}/wal/0").read_text() == "first"
    assert host.at(f"/data/member.moved-{ID}-2/wal/0").read_text() == "second"


# -- the ways between hosts ---------------------------------------------------------------------------------------


async def test_a_port_on_which_nobody_listens_has_been_reached() -> None:
    server = await asyncio.start_server(lambda *_: None, "127.0.0.1", 0)
    async with server:
        open_port = server.sockets[0].getsockname()[1]
        said = await closed_ways(
            LocalHost("here"), [("127.0.0.1", open_port), ("127.0.0.1", 1), ("nowhere.invalid", 2379)]
        )  # fmt: skip
    assert len(said) == 1
    assert said[0].startswith("nowhere.invalid 2379: ")
    assert len(said[0]) > len("nowhere.invalid 2379: ")


async def test_a_host_without_bash_says_nothing(tmp_path: Path) -> None:
    class Bare(LocalHost):
        async def run(self, argv: Any, **options: Any) -> Completed:
            return await super().run([*argv[:2], f"PATH={tmp_path}\n{argv[2]}", *argv[3:]], **options)

    assert await closed_ways(Bare("here"), [("nowhere.invalid", 2379)]) == []
