"""etcd moves from control planes to hosts of its own: never without a majority, and wherever a run is killed."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.unit.phases.memory_host import KilledError
from tests.unit.phases.test_discovery_phase import serve
from tests.unit.phases.test_etcd_host_phases import PKI, Lab, lab
from tests.unit.workflows.moving_world import API_POD, ETCD_POD, ID, Api, Plane, World, populate

from kubewright.clients.etcd import EtcdClient
from kubewright.errors import ApiError, ConfigError, HostError, WaitTimeoutError, leaves
from kubewright.events import Events
from kubewright.hosts import FileWrite
from kubewright.model import x509
from kubewright.model.config.kubeadm import default_cluster_configuration
from kubewright.model.conversion import Existing, Mode, Record
from kubewright.model.etcd_hosts import is_formed
from kubewright.model.etcd_unit import MEMBER_DIR, PERMIT_PATH
from kubewright.model.versions import facts_for
from kubewright.phases import stop_plane
from kubewright.phases.etcd_hosts import EtcdHosts
from kubewright.phases.node import Node
from kubewright.workflows import convert, convert_etcd
from kubewright.workflows.convert_etcd import EtcdConversion
from kubewright.workflows.desired import Desired
from kubewright.workflows.etcd_hosts import OutsideEtcd

__all__ = ["lab"]


class Scene:
    """A cluster, and runs on it."""

    def __init__(self, world: World, nodes: list[Node]) -> None:
        self.world = world
        self.nodes = nodes
        self.planes = tuple(host.name for host in world.spec.control_planes)

    def conversion(self, *, dry: bool = False, mode: Mode = Mode.EXTERNAL_ETCD) -> EtcdConversion:
        cluster = default_cluster_configuration(self.world.spec)
        want = Desired(self.world.spec, cluster, facts_for(cluster.kubernetes_version), {}, False)
        lead = self.world.planes[0]
        data = "/var/lib/etcd" if ETCD_POD in lead.files else ""
        url = "https://127.0.0.1:6444"
        existing = Existing(self.planes, self.planes, url[8:], url, data, False, False, 0, cluster)
        record = Record(ID, mode, datetime.now(UTC), url, "e", self.planes, self.planes)
        return EtcdConversion(
            self.world.spec,
            Mode.EXTERNAL_ETCD,
            want,
            self.nodes,
            existing,
            record,
            Events(),
            file=Path("cluster.yaml"),
            dry=dry,
        )

    async def run(self, *, dry: bool = False) -> list[str]:
        self.world.steps, self.world.dead = 0, False
        conversion = self.conversion(dry=dry)
        await conversion.until_moved()
        return [stage.name for stage in conversion.report.stages]

    async def killed_after(self, changes: int) -> bool:
        """Whether a run had so many changes to make, after which it was killed."""
        self.world.budget = changes
        try:
            await self.run()
        except (KilledError, ExceptionGroup) as error:
            assert all(isinstance(leaf, KilledError) for leaf in leaves(error))
        killed, self.world.budget, self.world.dead = self.world.dead, None, False
        return killed

    async def apply_may(self) -> bool:
        """Whether `apply` would go on with what there is, which it must not before all of it has moved."""

        async def do(_: object) -> list[Any]:
            return []

        cluster = default_cluster_configuration(self.world.spec)
        want = Desired(self.world.spec, cluster, facts_for(cluster.kubernetes_version), {}, False)
        try:
            await OutsideEtcd(want, self.nodes, do, Events(), dry=True).check()
        except HostError:
            return False
        return True

    def check(self) -> None:
        """It has moved, whole."""
        world = self.world
        hosts = [one for one in world.machines.values() if not isinstance(one, Plane)]
        assert sorted(one["name"] for one in world.voters) == sorted(one.name for one in hosts)
        assert len(world.members) == len(hosts)
        urls = [f"https://{one.address}:2379" for one in hosts]
        for one in hosts:
            assert one.files[f"{PKI}/ca.crt"].data == world.planes[0].files[f"{PKI}/ca.crt"].data
            assert (one.runs, one.enabled, PERMIT_PATH in one.files) == (True, True, False)
        for plane in world.planes:
            assert plane.etcd_servers == urls
            assert ETCD_POD not in plane.files
            assert MEMBER_DIR not in plane.files
            assert plane.files[f"{MEMBER_DIR}.moved-{ID}"].data == b"all writes"
            assert world.reads(plane)
        stored = yaml.safe_load(world.config["ClusterConfiguration"])
        assert stored["etcd"]["external"]["endpoints"] == urls
        assert "local" not in stored["etcd"]
        assert world.config["ClusterStatus"] == "apiEndpoints: {}\n"


@pytest.fixture
async def begin(lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Any]:
    """Makes scenes of so many control planes and hosts of etcd."""
    runners: list[Any] = []
    key: Any = None
    current: list[World] = []

    async def keys(kinds: list[Any]) -> list[Any]:
        nonlocal key
        key = key or x509.new_key(kinds[0])
        return [key] * len(kinds)

    @asynccontextmanager
    async def api(host: Plane, _server: object, **_: object) -> AsyncIterator[Api]:
        yield Api(host.world, host)

    @asynccontextmanager
    async def cri(host: Plane, _socket: str) -> AsyncIterator[Plane]:
        yield host

    asked = EtcdClient._request

    async def request(self: EtcdClient, *words: Any) -> Any:
        current[-1].alive()
        answer = await asked(self, *words)
        current[-1].alive()
        return answer

    async def nothing(*_: object) -> None:
        return None

    class NoPrograms:
        def __init__(self, *_: object) -> None:
            pass

        async def fetch(self, _: object) -> None:
            return None

        async def fetch_ready(self, _: object) -> bool:
            return True

        def of(self, _: object) -> list[Any]:
            return []

    monkeypatch.setattr(x509, "new_keys", keys)
    monkeypatch.setattr(EtcdClient, "_request", request)
    monkeypatch.setattr(convert_etcd, "api_over", api)
    monkeypatch.setattr(convert_etcd, "Artifacts", NoPrograms)
    monkeypatch.setattr(convert, "api_over", api)
    monkeypatch.setattr(convert.Conversion, "_keep", nothing)
    monkeypatch.setattr(stop_plane, "open_cri", cri)
    monkeypatch.setattr(convert_etcd, "_READY", 0.5)

    async def make(planes: int, hosts: int) -> Scene:
        world = World(planes, hosts)
        current.append(world)
        folder = tmp_path / str(len(current))
        folder.mkdir()
        runner, world.port = await serve(folder, world.answer, lab.pair)
        runners.append(runner)
        names = [host.name for host in world.spec.control_planes]
        return Scene(world, populate(world, lab.ca, lab.pair, names))

    yield make
    for runner in runners:
        await runner.cleanup()


@pytest.mark.parametrize(("planes", "hosts"), [(1, 3), (3, 3), (2, 1)])
async def test_it_moves_and_a_second_run_finds_nothing(begin: Any, planes: int, hosts: int) -> None:
    scene = await begin(planes, hosts)
    names = ["etcd-hosts", "etcd-members", "api-servers", "config", "stacked-etcd"]
    assert await scene.run() == names
    scene.check()
    assert await scene.run() == []
    assert await scene.apply_may()
    assert is_formed(await EtcdHosts(scene.nodes[planes:], "/etc/kubernetes/pki").looks())


@pytest.mark.parametrize(("planes", "hosts"), [(1, 2), (2, 1)])
async def test_every_point_of_death_is_survived(begin: Any, planes: int, hosts: int) -> None:
    for changes in range(1, 200):
        scene = await begin(planes, hosts)
        if not await scene.killed_after(changes):
            break
        assert all(scene.world.reads(plane) for plane in scene.world.planes), scene.world.log[-1]
        left = [plane for plane in scene.world.planes if ETCD_POD not in plane.files]
        assert await scene.apply_may() == (len(left) == planes), scene.world.log[-1]
        await scene.run()
        scene.check()
    assert changes > 20


async def test_a_dry_run_says_who_comes_and_leaves_and_changes_nothing(begin: Any) -> None:
    scene = await begin(2, 1)
    before = {name: dict(one.files) for name, one in scene.world.machines.items()}
    conversion = scene.conversion(dry=True)
    await conversion.until_moved()
    assert scene.world.log == []
    assert {name: one.files for name, one in scene.world.machines.items()} == before
    told = [change.target for change in conversion.report.changes]
    assert "etcd member e3" in told
    assert f"move {MEMBER_DIR} to {MEMBER_DIR}.moved-{ID}" in told
    assert sum("etcd member cp" in target for target in told) == 2
    assert told.count(API_POD) == 2
    assert told.count(ETCD_POD) == 2


async def test_members_of_another_ca_could_not_meet(begin: Any) -> None:
    scene = await begin(1, 2)
    host = scene.world.machines["e2"]
    host.files[f"{PKI}/ca.crt"] = FileWrite(f"{PKI}/ca.crt", b"another")
    with pytest.raises(HostError, match="is another CA than the cluster's"):
        await scene.run()
    assert host.files[f"{PKI}/ca.crt"].data == b"another"
    assert len(scene.world.members) == 1


async def test_an_etcd_whose_ca_is_kept_elsewhere_does_not_move(begin: Any) -> None:
    scene = await begin(1, 2)
    del scene.world.planes[0].files[f"{PKI}/ca.key"]
    with pytest.raises(HostError, match="with its key on any control plane"):
        await scene.run()
    assert scene.world.log == []


async def test_an_api_server_that_does_not_come_back_stops_it(
    begin: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The others go on with what they have, and nobody has left."""
    scene = await begin(3, 3)
    asked = Api.request

    async def request(self: Api, *words: object, **options: object) -> None:
        if self.plane.name == "cp2" and "127.0.0.1" not in self.plane.etcd_servers[0]:
            raise ApiError("no", status=500)
        await asked(self, *words, **options)

    monkeypatch.setattr(Api, "request", request)
    with pytest.raises(WaitTimeoutError):
        await scene.run()
    assert scene.world.planes[2].etcd_servers == ["https://127.0.0.1:2379"]
    assert len(scene.world.voters) == 6
    assert all(ETCD_POD in plane.files for plane in scene.world.planes)
    monkeypatch.setattr(Api, "request", asked)
    await scene.run()
    scene.check()


async def test_another_conversion_is_finished_first(begin: Any) -> None:
    scene = await begin(1, 1)
    with pytest.raises(ConfigError, match="a conversion --to-ha is under way") as caught:
        scene.conversion(mode=Mode.TO_HA)
    assert f"--restore {ID}" in caught.value.hint
