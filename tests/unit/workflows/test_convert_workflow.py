"""`convert`: its stages in order, what is kept before them, and how a run that was killed goes on."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tests.unit.phases.memory_host import MemoryHost
from tests.unit.phases.test_endpoint_services import FACTS

from kubewright.errors import ConfigError, HostError
from kubewright.events import Event, Events, Kind
from kubewright.hosts import FileWrite
from kubewright.model import pki, x509
from kubewright.model.config.cluster import ClusterSpec
from kubewright.model.conversion import RECORD, Existing, Mode, Record, parse_record
from kubewright.model.objects import to_yaml
from kubewright.model.pki import CertSpec, KeyKind, Usage
from kubewright.phases.node import Node
from kubewright.phases.phase import Action, Change, Phase
from kubewright.workflows import convert as module
from kubewright.workflows import endpoint as endpoint_module
from kubewright.workflows.convert import convert
from kubewright.workflows.convert_run import Report

OLD, NEW = "https://192.0.2.1:6443", "https://192.0.2.9:6443"
PKI = "/etc/kubernetes/pki"
ETCD, API_SERVER = (f"/etc/kubernetes/manifests/{name}.yaml" for name in ("etcd", "kube-apiserver"))
MOMENT = datetime.now(UTC) - timedelta(hours=1)
CLIENTS = ("KubeconfigServer", "KubeletServer", "ProxyMoved")
DUE = {
    "Backup", "BackupWhole", "EtcdSecured", "Certificates", "LoadBalancer", "EndpointTold", *CLIENTS
}  # fmt: skip
ADDRESSES = {
    "cp1": "192.0.2.1",
    "cp2": "192.0.2.2",
    "w1": "192.0.2.5",
    "w2": "192.0.2.6",
    "w3": "192.0.2.7",
    "lb": "192.0.2.9",
}


def hosts(*names: str) -> list[dict[str, Any]]:
    roles = {"cp": "control-plane", "w": "worker", "lb": "load-balancer"}
    return [
        {"name": name, "address": ADDRESSES[name], "roles": [roles[name.rstrip("0123456789")]]}
        for name in names
    ]


class World:
    """A cluster of cp1, w1 and w2, which is to have cp2 and an endpoint, and whose phases say what they do."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.done: list[str] = []
        """What was changed, in order; and who waited for what."""
        self.due = set(DUE)
        self.made: dict[str, list[tuple[Any, ...]]] = {}
        """What phases were made with."""
        self.options: dict[str, list[dict[str, Any]]] = {}
        self.fails = ""
        self.left_alone = ""
        self.has_proxy = True
        self.seen: list[Event] = []
        self.fields: dict[str, Any] = {"endpoint": {"type": "haproxy"}}
        self.names = ["cp1", "cp2", "w1", "w2", "lb"]
        self.planes: tuple[str, ...] = ("cp1",)
        self.members: tuple[str, ...] = ("cp1", "w1", "w2")
        self.plain = False
        self.resumed: bool | None = None
        self.woken: list[str] = []
        self.machines = {name: MemoryHost() for name in ADDRESSES}
        for name, machine in self.machines.items():
            machine.name = name
        self.put("cp1", f"{PKI}/ca.crt", b"the CA")
        for path, name in ((ETCD, "etcd"), (API_SERVER, "kube-apiserver")):
            self.put("cp1", path, pod(name, "registry.example.com/old:1"))
        phases = (
            "Backup", "BackupWhole", "EtcdSecured", "Authorities", "Certificates", "CertificateServed",
            "EndpointTold", "EndpointAnswers", "KubeconfigServer", "KubeletServer", "ProxyMoved", "Rollout",
        )  # fmt: skip
        for name in phases:
            patch.setattr(module, name, self.recording(name))
        patch.setattr(endpoint_module, "LoadBalancer", self.recording("LoadBalancer"))
        patch.setattr(module, "open_source", lambda _: Source())
        for name in ("open_fleet", "check", "apply", "api_over", "wake", "read_kubeconfig", "ca_directories"):
            patch.setattr(module, name, getattr(self, name))
        patch.setattr(module, "Server", SimpleNamespace(from_kubeconfig=lambda _: None))
        patch.setattr(module, "replace", lambda _server, url: url)
        patch.setattr(module, "KubeletTurns", lambda _events: self)

    def recording(self, name: str) -> Any:
        world = self

        class Recorded(Phase):
            title = "recorded"
            always_verify = name in ("CertificateServed", "EndpointAnswers", "Rollout")

            def __init__(self, *arguments: Any, **options: Any) -> None:
                first = arguments[0] if arguments else None
                self.host_name = first.name if isinstance(first, Node) else ""
                self.key = f"{name} {self.host_name}".strip()
                self.left_alone = world.left_alone if self.key == "KubeconfigServer cp1" else ""
                world.made.setdefault(name, []).append(arguments)
                world.options.setdefault(name, []).append(options)

            async def look(self) -> list[Change]:
                if world.fails == f"look {self.key}":
                    raise HostError(f"{self.key} is refused")
                due = name in world.due and self.key not in world.done
                return [Change(Action.UPDATE, name, self.host_name)] if due else []

            async def act(self, changes: Sequence[Change], activity: object) -> None:
                if world.fails == self.key:
                    raise HostError(f"{self.key} failed", hint="mend it")
                world.done.append(self.key)

            async def verify(self, activity: object) -> None:
                if self.always_verify:
                    world.done.append(self.key)

        Recorded.name = name.lower()
        return Recorded

    # -- in place of what other tests are for -----------------------------------------------------------------

    @asynccontextmanager
    async def open_fleet(self, spec: ClusterSpec, *_: object, **options: Any) -> AsyncIterator[list[Node]]:
        assert options["moves"]
        yield [Node(host, self.machines[host.name], FACTS, host.address) for host in spec.hosts]

    async def check(self, *_: object, resumed: bool, **__: object) -> Existing:
        self.resumed = resumed
        self.done.append("check")
        cluster: Any = None
        return Existing(
            self.planes, self.members, "192.0.2.1:6443", OLD, "/var/lib/etcd", self.plain, False, 1, cluster
        )

    async def wake(self, _nodes: object, record: Record, _events: object) -> None:
        self.woken.append(record.id)

    async def apply(self, *_: object, **__: object) -> Any:
        if self.fails == "apply":
            raise HostError("apply failed")
        self.done.append("apply")
        return SimpleNamespace(changes=[])

    @asynccontextmanager
    async def api_over(self, _host: object, url: str) -> AsyncIterator[Any]:
        assert url == OLD, "the first control plane's own, whatever its admin.conf says"
        yield self

    async def read_kubeconfig(self, *_: object) -> dict[str, Any]:
        return {}

    async def ca_directories(self, _host: object) -> tuple[str, ...]:
        return ()

    async def get(self, *_: object) -> Any:
        return {} if self.has_proxy else None

    @asynccontextmanager
    async def turn(self, node: Node, _kube: object) -> AsyncIterator[None]:
        self.done.append(f"turn of {node.name}")
        yield
        self.done.append(f"Ready again on {node.name}")

    # -- runs -------------------------------------------------------------------------------------------------

    def put(self, name: str, path: str, content: bytes) -> None:
        self.machines[name].files[path] = FileWrite(path, content, 0o600)

    def record(self, name: str = "cp1") -> Record:
        return parse_record(self.machines[name].files[RECORD].data, name)

    def recorded(self) -> bool:
        return any(RECORD in machine.files for machine in self.machines.values())

    async def convert(self, mode: Mode = Mode.TO_HA, **options: Any) -> Report:
        spec = ClusterSpec.model_validate({"hosts": hosts(*self.names)} | self.fields)
        return await convert(spec, mode, Events(self.seen.append), **options)

    async def killed(self, at: str) -> str:
        """A run that ends there; the id of its backup."""
        self.fails = at
        with pytest.raises((HostError, ExceptionGroup)):
            await self.convert()
        self.fails = ""
        self.done.clear()
        return self.record().id

    def told(self, kind: Kind = Kind.NOTE) -> list[str]:
        return [event.message for event in self.seen if event.kind is kind]


class Source:
    async def require_version(self, _: str) -> None:
        return

    async def available(self, _: object) -> bool:
        return True


def pod(name: str, image: str, *flags: str) -> bytes:
    return to_yaml({"spec": {"containers": [{"name": name, "image": image, "command": [name, *flags]}]}})


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    return World(monkeypatch)


async def test_everything_in_order(world: World) -> None:
    world.plain = True
    report = await world.convert()
    backups = [f"Backup {name}" for name in ("cp1", "w1", "w2")]
    assert world.done[0] == "check"
    assert sorted(world.done[1:4]) == backups
    assert world.done[4:7] == ["BackupWhole cp1", "Certificates cp1", "EtcdSecured cp1"]
    assert world.done[7:9] == ["CertificateServed cp1", "LoadBalancer lb"]
    assert sorted(world.done[9:12]) == [f"EndpointAnswers {name}" for name in ("cp1", "w1", "w2")]
    assert world.done[12:14] == ["EndpointTold", "KubeconfigServer cp1"], "nobody is sent there before"
    moved = [
        said for name in ("cp1", "w1", "w2")
        for said in (f"turn of {name}", f"KubeletServer {name}", f"Ready again on {name}")
    ]  # fmt: skip
    assert world.done[14:23] == moved
    assert world.done[23:] == ["ProxyMoved", "Rollout", "apply"]
    assert [stage.name for stage in report.stages] == ["backup", "etcd", "endpoint", "config", "clients"]
    assert (report.before, report.after, report.backup) == (OLD, NEW, world.record().id)
    assert not world.record().unfinished


@pytest.mark.parametrize("at", ["Backup w1", "BackupWhole cp1"])
async def test_without_a_backup_nothing_is_on_record_and_nothing_is_changed(world: World, at: str) -> None:
    world.fails = at
    with pytest.raises(ExceptionGroup):
        await world.convert()
    assert not world.recorded()
    assert {said.split()[0] for said in world.done} <= {"check", "Backup"}
    assert world.told() == [], "there is nothing to be brought back"


async def test_what_a_phase_refuses_is_refused_before_anything_is_changed(world: World) -> None:
    world.fails = "look KubeletServer w2"
    with pytest.raises(HostError) as caught:
        await world.convert()
    assert world.done == ["check"]
    assert not world.recorded()
    assert "--restore" not in caught.value.hint


async def test_the_way_back_is_told_before_the_first_change(world: World) -> None:
    world.fails = "Certificates cp1"
    with pytest.raises(HostError) as caught:
        await world.convert(file=Path("my clusters/a.yaml"))
    record = world.record()
    assert record.unfinished
    command = f"kubewright convert --restore {record.id} -f 'my clusters/a.yaml'"
    assert command in world.told()[0]
    assert caught.value.hint.startswith("mend it; the same command goes on")
    assert command in caught.value.hint


@pytest.mark.parametrize("at", ["EndpointTold", "KubeletServer w1", "apply"])
async def test_a_failure_leaves_the_conversion_unfinished_and_the_next_run_goes_on(
    world: World, at: str
) -> None:
    first = await world.killed(at)
    assert world.record().unfinished
    world.members = ("cp1", "w1")  # w2 has left meanwhile, and its host went with it
    world.names.remove("w2")
    report = await world.convert()
    assert world.resumed
    assert world.woken == [first]
    assert (report.backup, report.before) == (first, OLD)
    assert not any(said.startswith("Backup") for said in world.done), "half a conversion is no backup"
    record = world.record()
    assert (record.id, record.nodes, record.control_planes) == (first, ("cp1", "w1", "w2"), ("cp1",))
    assert not record.unfinished


async def test_a_control_plane_that_was_half_added_is_left_to_apply(world: World) -> None:
    await world.killed("apply")
    world.members = ("cp1", "cp2", "w1", "w2")
    world.done.clear()
    await world.convert()
    assert "KubeletServer cp2" not in world.done
    assert not any("cp2" in said for said in world.done)


async def test_a_node_that_came_meanwhile_moves_too(world: World) -> None:
    await world.killed("EndpointTold")
    world.names.append("w3")
    world.members += ("w3",)
    await world.convert()
    assert "KubeletServer w3" in world.done


async def test_another_endpoint_is_refused_as_long_as_one_is_unfinished(world: World) -> None:
    first = await world.killed("EndpointTold")
    before = world.machines["cp1"].files[RECORD]
    world.fields = {"endpoint": {"type": "external", "address": "api.example.com"}}
    with pytest.raises(ConfigError, match=r"conversion to 192.0.2.9:6443 is under way") as caught:
        await world.convert(file=Path("x.yaml"))
    assert f"kubewright convert --restore {first} -f x.yaml" in caught.value.hint
    assert world.done == ["check"]
    assert world.machines["cp1"].files[RECORD] == before


async def test_a_dry_run_changes_nothing_and_lists_what_apply_adds(world: World) -> None:
    report = await world.convert(dry=True)
    assert world.done == ["check"]
    assert not world.recorded()
    assert world.told() == []
    assert report.stages[0].name == "backup"
    assert [(one.target, one.host) for one in report.stages[-1].changes] == [("add control plane", "cp2")]
    assert report.backup == "", "there is none"
    assert report.outcome is None


async def test_a_dry_run_starts_no_kubelets_of_a_run_that_was_killed(world: World) -> None:
    await world.killed("KubeletServer w1")
    report = await world.convert(dry=True)
    assert world.woken == []
    assert world.done == ["check"]
    assert [one.host for one in report.stages[-2].changes][-1] == ""
    assert world.record().unfinished


async def test_a_second_conversion_finds_nothing_to_do_and_keeps_nothing(world: World) -> None:
    await world.convert()
    first = world.record()
    world.due = {"Backup", "BackupWhole"}
    world.planes, world.members = ("cp1", "cp2"), ("cp1", "cp2", "w1", "w2")
    world.put("cp2", f"{PKI}/ca.crt", b"the CA")
    assert (await world.convert(dry=True)).stages == []
    world.done.clear()
    report = await world.convert()
    assert report.stages == []
    assert world.done == ["check", "apply"]
    assert world.record() == first
    assert not any(RECORD in world.machines[name].files for name in ("cp2", "w1"))


async def test_kube_proxy_only_where_it_is(world: World) -> None:
    world.has_proxy = False
    world.due.discard("ProxyMoved")
    await world.convert()
    assert not {"ProxyMoved", "Rollout"} & {*world.done}


async def test_a_kubelet_that_has_moved_takes_no_turn(world: World) -> None:
    world.due.discard("KubeletServer")
    await world.convert()
    assert not any(said.startswith("turn") for said in world.done)


@pytest.mark.parametrize(("version", "own"), [("1.31.0", True), ("1.30.0", False)])
async def test_a_control_planes_kubelet_asks_its_own_api_server_where_kubeadm_has_it_so(
    world: World, version: str, own: bool
) -> None:
    world.fields["kubernetesVersion"] = version
    if own:
        gates = {"ControlPlaneKubeletLocalMode": True}
        world.fields["clusterConfiguration"] = {"featureGates": gates}
    await world.convert()
    servers = {arguments[0].name: arguments[2] for arguments in world.made["KubeletServer"]}
    assert servers == {"cp1": OLD if own else NEW, "w1": NEW, "w2": NEW}


async def test_an_administrators_own_kubeconfig_is_spoken_of(world: World) -> None:
    world.left_alone = "/root/.kube/config"
    for dry in (True, False):
        report = await world.convert(dry=dry)
        assert len(report.notes) == 1
        assert "cp1: /root/.kube/config" in report.notes[0]
        assert report.as_dict()["notes"] == report.notes


async def test_the_endpoint_of_a_cluster_with_several_control_planes(world: World) -> None:
    world.planes, world.members = ("cp1", "cp2"), ("cp1", "cp2", "w1", "w2")
    await world.convert(Mode.ENDPOINT)
    for phase in ("Certificates", "CertificateServed", "KubeconfigServer", "KubeletServer", "BackupWhole"):
        assert {f"{phase} cp1", f"{phase} cp2"} <= {*world.done}
    assert world.record("cp1") == world.record("cp2")
    snapshots = {
        arguments[0].name: options["snapshot"]
        for arguments, options in zip(world.made["Backup"], world.options["Backup"], strict=True)
    }
    assert snapshots == {"cp1": True, "cp2": False, "w1": False, "w2": False}
    backends = world.made["LoadBalancer"][-1][2]
    assert [one.name for one in backends] == ["cp1", "cp2"]


# -- certificates and etcd ----------------------------------------------------------------------------------------


async def test_etcd_keeps_the_image_that_it_runs(world: World) -> None:
    world.plain = True
    await world.convert()
    pods = world.made["EtcdSecured"][-1][2]
    for name in ("etcd", "kube-apiserver"):
        assert pods[name]["spec"]["containers"][0]["image"] == "registry.example.com/old:1"


async def test_an_etcd_without_tls_gets_a_ca_of_its_own_and_no_other_is_made(world: World) -> None:
    world.plain = True
    await world.convert()
    made = list(zip(world.made["Authorities"], world.options["Authorities"], strict=True))
    guarded = [arguments for arguments, options in made if options["etcd_data"]]
    free = [arguments for arguments, options in made if not options["etcd_data"]]
    assert [[ca.name for ca in arguments[2]] for arguments in guarded] == [["ca", "front-proxy-ca"]] * len(
        free
    )
    assert {ca.name for arguments in free for ca in arguments[2]} == {"ca", "front-proxy-ca", "etcd-ca"}


@pytest.mark.parametrize("flag", ["--cert-file=/x", "--peer-trusted-ca-file=/x"])
async def test_an_etcd_with_tls_gets_no_other_ca(world: World, flag: str) -> None:
    """One that is missing there would be trusted by nobody."""
    world.plain = True
    world.put("cp1", ETCD, pod("etcd", "old", flag))
    await world.convert()
    assert all(options["etcd_data"] for options in world.options["Authorities"])


async def test_names_that_somebody_has_added_to_a_certificate_stay(world: World) -> None:
    ca = x509.self_signed_ca(pki.CA, x509.new_key(KeyKind.ECDSA_P256), MOMENT)
    spec = CertSpec(
        "apiserver", "apiserver", "kube-apiserver", dns_names=("cp1", "added.example.com"),
        addresses=("198.51.100.7",), usages=(Usage.SERVER,), ca="ca",
    )  # fmt: skip
    pair = x509.sign(spec, x509.new_key(KeyKind.ECDSA_P256), ca, MOMENT)
    world.put("cp1", f"{PKI}/apiserver.crt", pair.cert)
    await world.convert()
    specs = {one.name: one for one in world.made["Certificates"][-1][2]}
    assert "added.example.com" in specs["apiserver"].dns_names
    assert specs["apiserver"].dns_names.count("cp1") == 1
    assert {"198.51.100.7", "192.0.2.9"} <= {*specs["apiserver"].addresses}
