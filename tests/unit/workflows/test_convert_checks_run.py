"""What `convert` finds out about a cluster before it begins, and that all that is wrong comes in one error."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from aiohttp import web
from tests.unit.phases.memory_host import MemoryHost
from tests.unit.phases.test_endpoint_services import FACTS

from kubewright.errors import ApiError, CommandError, ExitCode, HostError
from kubewright.events import Event, Events, Kind
from kubewright.hosts import Completed, FileWrite
from kubewright.model import pki, stored, x509
from kubewright.model.config.cluster import ClusterSpec
from kubewright.model.config.kubeadm import default_cluster_configuration, to_stored
from kubewright.model.conversion import Existing, Mode
from kubewright.model.convert_look import LOOK
from kubewright.model.objects import Object, to_yaml
from kubewright.model.pki import KeyKind
from kubewright.phases.endpoint import EndpointIsOurs
from kubewright.phases.node import Node
from kubewright.workflows import convert_checks as module
from kubewright.workflows.convert_checks import check

PKI = "/etc/kubernetes/pki"
ETCD, API_SERVER = (f"/etc/kubernetes/manifests/{name}.yaml" for name in ("etcd", "kube-apiserver"))
PLAIN = "http://127.0.0.1:2379"
_MEMBER = {"ID": "1", "name": "cp1", "peerURLs": ["http://10.0.0.11:2380"], "clientURLs": [PLAIN]}
_LEARNER = {"ID": "2", "name": "cp2", "peerURLs": ["http://10.0.0.12:2380"], "isLearner": True}


class Machine(MemoryHost):
    """A host with files, whose etcd is a server of ours."""

    def __init__(self, name: str, port: int) -> None:
        super().__init__()
        self.name = name
        self.port = port
        self.listening = ""
        self.resolved = "10.0.0.9"
        self.broken = False
        self.resolved_names: list[str] = []

    def put(self, path: str, content: bytes = b"x") -> None:
        self.files[path] = FileWrite(path, content, 0o600)

    async def run(self, argv: Any, **options: Any) -> Completed:
        assert argv[2] == LOOK
        if self.broken:
            raise CommandError(f"{self.name}: sh: cannot fork", host=self.name)
        name, paths = argv[4:6]
        self.resolved_names.append(name)
        present = "\n".join(path for path in paths.split("\n") if path in self.files)
        text = f"\n@@ listening\n{self.listening}\n\n@@ present\n{present}\n"
        text += f"\n@@ copied\n100\t/etc/kubernetes\n\n@@ resolved\n{self.resolved}\n\n@@ proxies\n"
        text += "\n@@ free\n/dev/vda1 1000000 1000 900000 1% /\n"
        return Completed(tuple(argv), 0, text.encode())

    @asynccontextmanager
    async def forward_tcp(self, address: str, port: int) -> AsyncIterator[tuple[str, int]]:
        yield "127.0.0.1", self.port


class Etcd:
    """What a member answers; the first is cp1's."""

    def __init__(self, number: str = "1") -> None:
        self.number = number
        self.members: list[Any] = [_MEMBER]
        self.health = "true"
        self.alarms: list[Any] = []

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[int]:
        header = {"header": {"member_id": self.number}}

        def answer(path: str, body: Any) -> web.RouteDef:
            async def handle(_: web.Request) -> web.Response:
                return web.json_response(body())

            return web.route("*", path, handle)

        app = web.Application()
        app.add_routes(
            [
                answer(
                    "/v3/maintenance/status",
                    lambda: {**header, "version": "3.4.13", "leader": "1", "dbSize": str(30 << 20)},
                ),
                answer("/v3/cluster/member/list", lambda: {**header, "members": self.members}),
                answer("/v3/maintenance/alarm", lambda: {"alarms": self.alarms}),
                answer("/health", lambda: {"health": self.health}),
            ]
        )
        runner = web.AppRunner(app)
        await runner.setup()
        try:
            site = web.TCPSite(runner, "127.0.0.1", 0)
            await site.start()
            yield runner.addresses[0][1]
        finally:
            await runner.cleanup()


class Kube:
    """The cluster's API."""

    def __init__(self, spec: ClusterSpec) -> None:
        self.config: Object | None = stored.kubeadm_config(
            to_stored(default_cluster_configuration(spec)), None
        )[0]
        self.nodes = [live("cp1"), live("w1")]
        self.silent: list[str] = []
        self.error: ApiError | None = None

    async def get(self, *_: str) -> Object | None:
        if self.error is not None:
            raise self.error
        return self.config

    async def list(self, *_: str) -> list[Object]:
        return self.nodes

    @asynccontextmanager
    async def any_plane(self, planes: Sequence[Node]) -> AsyncIterator[Any]:
        yield (None, None, self.silent) if self.silent else (planes[0], self, [])


def live(name: str, ready: str = "True") -> Object:
    labels = {"node-role.kubernetes.io/master": ""} if name.startswith("cp") else {}
    return {
        "metadata": {"name": name, "labels": labels, "creationTimestamp": "2026-01-01T00:00:00Z"},
        "status": {
            "conditions": [{"type": "Ready", "status": ready}],
            "nodeInfo": {"kubeletVersion": "v1.20.2"},
        },
    }


def pod(*command: str, data: str = "") -> bytes:
    volumes = [{"name": "etcd-data", "hostPath": {"path": data}}] if data else []
    return to_yaml({"spec": {"containers": [{"command": list(command)}], "volumes": volumes}})


class Cluster:
    """cp1 with a worker, made by an old kubeadm; cp2 and cp3 are bare."""

    def __init__(self, port: int, **fields: Any) -> None:
        hosts = [
            {"name": f"cp{n}", "address": f"10.0.0.1{n}", "roles": ["control-plane"]} for n in range(1, 4)
        ]
        document = {"hosts": [*hosts, {"name": "w1", "address": "10.0.0.21"}], "endpoint": {"type": "local"}}
        self.spec = ClusterSpec.model_validate(document | fields)
        self.kube = Kube(self.spec)
        self.machines = {host.name: Machine(host.name, port) for host in self.spec.hosts}
        self.heard: list[Event] = []
        self.lost: dict[str, HostError] = {}
        cp1 = self.machines["cp1"]
        for name in ("ca.key", "front-proxy-ca.key", "sa.key"):
            cp1.put(f"{PKI}/{name}")
        cp1.put(API_SERVER, pod("kube-apiserver", "--advertise-address=10.0.0.11", f"--etcd-servers={PLAIN}"))
        cp1.put(ETCD, pod("etcd", f"--listen-client-urls={PLAIN}", data="/var/lib/old-etcd"))
        server = {"clusters": [{"name": "kubernetes", "cluster": {"server": "https://10.0.0.11:6443"}}]}
        cp1.put("/etc/kubernetes/admin.conf", to_yaml(server))
        for name in ("cp1", "w1"):
            self.machines[name].put("/etc/kubernetes/kubelet.conf")
        self.certificates = False

    async def check(self, mode: Mode = Mode.TO_HA, *, resumed: bool = False) -> Existing:
        nodes = [
            Node(host, self.machines[host.name], FACTS, host.address)
            for host in self.spec.hosts
            if host.name not in self.lost
        ]
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(module, "any_plane", self.kube.any_plane)
            if not self.certificates:  # admin.conf has none here
                patch.setattr(module, "_certificates", no_certificates)
            events = Events(self.heard.append)
            return await check(self.spec, nodes, mode=mode, lost=self.lost, events=events, resumed=resumed)

    async def refused(self, **options: Any) -> list[str]:
        with pytest.raises(HostError) as caught:
            await self.check(**options)
        return [caught.value.message, *caught.value.evidence]


async def no_certificates(*_: Any) -> tuple[tuple[()], tuple[()]]:
    return (), ()


@pytest.fixture
def etcd() -> Etcd:
    return Etcd()


@pytest.fixture
async def port(etcd: Etcd) -> AsyncIterator[int]:
    async with etcd.serving() as number:
        yield number


async def test_a_cluster_is_described_as_it_is(port: int) -> None:
    cluster = Cluster(port)
    found = await cluster.check()
    assert found == Existing(
        ("cp1",), ("cp1", "w1"), "10.0.0.11:6443", "https://10.0.0.11:6443", "/var/lib/old-etcd",
        etcd_plain=True, etcd_loopback=True, etcd_size=30 << 20, cluster=found.cluster,
    )  # fmt: skip
    assert found.cluster.networking.pod_subnet == "10.244.0.0/16"
    assert cluster.heard[-1].kind is Kind.PHASE_DONE


@pytest.mark.parametrize(
    ("url", "plain", "loopback"),
    [
        ("http://localhost:2380", True, True),
        ("https://127.0.0.1:2380", False, True),
        ("https://10.0.0.11:2380", False, False),
    ],
)
async def test_what_etcd_knows_of_its_members_counts(
    port: int, etcd: Etcd, url: str, *, plain: bool, loopback: bool
) -> None:
    """Clusters of kubeadm before 1.13 have a member at localhost still, whatever their manifest says since."""
    cluster = Cluster(port)
    listens = [f"--listen-{name}-urls=https://10.0.0.11:{port}" for name in ("client", "peer")]
    cluster.machines["cp1"].put(ETCD, pod("etcd", *listens, data="/var/lib/etcd"))
    etcd.members = [{**_MEMBER, "peerURLs": [url]}]
    found = await cluster.check()
    assert (found.etcd_plain, found.etcd_loopback) == (plain, loopback)


async def test_everything_that_is_wrong_is_listed_at_once_though_no_api_answers(
    port: int, etcd: Etcd
) -> None:
    """Certificates that have ended silence the API; they are named with all else."""
    cluster = Cluster(port)
    old = datetime.now(UTC) - timedelta(days=5000)
    ca = x509.self_signed_ca(pki.CA, x509.new_key(KeyKind.ECDSA_P256), old)
    cluster.certificates = True
    cluster.machines["cp1"].put(f"{PKI}/apiserver.crt", ca.cert)
    del cluster.machines["cp1"].files["/etc/kubernetes/admin.conf"]
    del cluster.machines["cp1"].files[f"{PKI}/sa.key"]
    cluster.kube.silent = ["cp1: its API server is not ready"]
    cluster.machines["cp2"].listening = 'LISTEN 0 9 *:6443 *:* users:(("python3",pid=7,fd=3))'
    cluster.machines["cp3"].broken = True
    cluster.lost["w1"] = HostError("w1: no route to host", host="w1")
    etcd.alarms = [{"memberID": "1", "alarm": "NOSPACE"}]
    said = "\n".join(await cluster.refused())
    for part in (
        "w1: no route to host", f"{PKI}/apiserver.crt ended on", "certs renew apiserver --host 10.0.0.11",
        f"there is no {PKI}/sa.key", "alarm NOSPACE", "cp2: port 6443", "cp3: sh: cannot fork",
        "no API server answers", "its API server is not ready",
    ):  # fmt: skip
        assert part in said
    assert len(said.splitlines()) == 7


async def test_etcds_certificates_count_where_etcd_has_any(port: int) -> None:
    cluster = Cluster(port)
    cluster.certificates = True
    cp1 = cluster.machines["cp1"]
    del cp1.files["/etc/kubernetes/admin.conf"]
    old = datetime.now(UTC) - timedelta(days=5000)
    ended = x509.self_signed_ca(pki.ETCD_CA, x509.new_key(KeyKind.ECDSA_P256), old).cert
    cp1.put(f"{PKI}/etcd/server.crt", ended)
    await cluster.check()  # a leftover: this etcd has no CA
    cp1.put(f"{PKI}/etcd/ca.crt", ended)
    cp1.put(f"{PKI}/etcd/ca.key")
    said = await cluster.refused()
    assert said[0].startswith(f"cp1: {PKI}/etcd/server.crt ended on")
    assert len(said) == 2, "and its CA"


async def test_a_member_under_another_name_is_asked_once(port: int, etcd: Etcd) -> None:
    etcd.members = [{**_MEMBER, "name": "host-7"}]
    etcd.health = "false"
    assert len(await Cluster(port).refused()) == 1


async def test_what_the_api_refuses_is_a_finding(port: int) -> None:
    cluster = Cluster(port)
    cluster.kube.error = ApiError("GET /api/v1: 401 Unauthorized", status=401)
    cluster.machines["cp2"].listening = 'LISTEN 0 9 *:6443 *:* users:(("python3",pid=7,fd=3))'
    said = await cluster.refused()
    assert len(said) == 2
    assert "401 Unauthorized" in said[1]


async def test_a_cluster_without_its_configuration(port: int) -> None:
    cluster = Cluster(port)
    cluster.kube.config = None
    assert "kubeadm-config is missing" in (await cluster.refused())[0]


async def test_a_run_that_goes_on_bears_what_is_half_added(port: int, etcd: Etcd) -> None:
    cluster = Cluster(port)
    etcd.members = [_MEMBER, _LEARNER]
    cp2 = cluster.machines["cp2"]
    cp2.put(ETCD, pod("etcd"))
    cp2.put("/etc/kubernetes/kubelet.conf")
    cp2.listening = 'LISTEN 0 9 *:2379 *:* users:(("etcd",pid=7,fd=3))'
    cluster.kube.nodes.append(live("cp2", ready="False"))
    found = await cluster.check(resumed=True)
    assert (found.control_planes, found.nodes) == (("cp1",), ("cp1", "w1", "cp2"))
    assert len(await cluster.refused()) == 3


async def test_a_run_that_goes_on_waits_for_what_was_just_restarted(
    port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A kubelet's Node is not Ready for a moment when it has started."""
    cluster, looks = Cluster(port), 0
    ready, starting = [live("cp1"), live("w1")], [live("cp1"), live("w1", ready="False")]

    async def listed(*_: str) -> list[Object]:
        nonlocal looks
        looks += 1
        return starting if looks < 3 else ready

    monkeypatch.setattr(cluster.kube, "list", listed)
    monkeypatch.setattr(module, "_INTERVAL", 0.0)
    assert (await cluster.check(resumed=True)).nodes == ("cp1", "w1")
    looks = 0
    assert "w1: its Node is not Ready" in (await cluster.refused())[0]
    assert looks == 1, "a run that begins does not wait"


async def test_one_that_was_added_before_is_a_control_plane(port: int, etcd: Etcd) -> None:
    cluster = Cluster(port)
    cp1, cp2 = cluster.machines["cp1"], cluster.machines["cp2"]
    cp2.files.update(cp1.files)
    cp2.listening = 'LISTEN 0 9 *:6443 *:* users:(("kube-apiserver",pid=7,fd=3))'
    cluster.kube.nodes.append(live("cp2"))
    second = Etcd("2")
    async with second.serving() as cp2.port:
        second.members = etcd.members = [_MEMBER, {**_LEARNER, "isLearner": False, "clientURLs": [PLAIN]}]
        assert (await cluster.check(resumed=True)).control_planes == ("cp1", "cp2")
        second.members = etcd.members = [_MEMBER, _LEARNER]
        assert (await cluster.check(resumed=True)).control_planes == ("cp1",)


async def test_a_member_that_only_etcd_knows_is_asked_through_a_control_plane(port: int, etcd: Etcd) -> None:
    """Here nobody else answers at its address than cp1's own."""
    etcd.members = [_MEMBER, {**_LEARNER, "isLearner": False, "clientURLs": ["http://10.0.0.99:2379"]}]
    assert "etcd has a member cp2, which is not heard of" in (await Cluster(port).refused())[0]
    etcd.members[1]["clientURLs"] = ["https://10.0.0.99:2379"]
    assert (await Cluster(port).refused())[0].startswith("cp2: etcd does not answer: there is no etcd-cafile")


async def test_a_learner_hinders_who_begins(port: int, etcd: Etcd) -> None:
    etcd.members = [_MEMBER, _LEARNER]
    assert "etcd has a learner, cp2" in (await Cluster(port).refused())[0]


async def test_etcd_is_asked_as_the_api_server_asks_it(port: int) -> None:
    cluster = Cluster(port)
    flags = (
        "--etcd-servers=https://127.0.0.1:2379",
        "--etcd-cafile=/a",
        "--etcd-certfile=/b",
        "--etcd-keyfile=/c",
    )
    cp1 = cluster.machines["cp1"]
    cp1.put(API_SERVER, pod("kube-apiserver", *flags))
    cp1.put("/a")
    assert "there is no /b, by which etcd is asked" in (await cluster.refused())[0]
    cp1.put("/b")
    cp1.put("/c")
    assert "/b or its key or CA cannot be used" in (await cluster.refused())[0]


async def test_a_name_is_looked_up_on_the_nodes_and_an_address_is_not(port: int) -> None:
    endpoint = {"type": "external", "address": "api.example.com"}
    cluster = Cluster(port, endpoint=endpoint)
    cluster.machines["w1"].resolved = ""
    assert (await cluster.refused())[0].startswith("w1: the endpoint's name api.example.com does not resolve")
    assert cluster.machines["w1"].resolved_names == ["api.example.com"]
    cluster = Cluster(port, endpoint={"type": "external", "address": "10.0.0.9"})
    cluster.machines["w1"].resolved = ""
    await cluster.check()
    assert cluster.machines["w1"].resolved_names == [""]


@pytest.mark.parametrize(
    ("code", "hinders"), [(ExitCode.HOST_IN_OTHER_CLUSTER, True), (ExitCode.HOST_NOT_FIT, False)]
)
async def test_an_external_endpoint_leads_here_or_nowhere(
    port: int, monkeypatch: pytest.MonkeyPatch, code: ExitCode, hinders: bool
) -> None:
    """A certificate of this cluster without the endpoint's name is what a conversion is for."""

    async def answers(_: EndpointIsOurs) -> None:
        raise HostError("the endpoint answers", exit_code=code)

    monkeypatch.setattr(EndpointIsOurs, "_silent", answers)
    cluster = Cluster(port, endpoint={"type": "external", "address": "10.0.0.9"})
    cluster.machines["cp1"].put(f"{PKI}/ca.crt")
    if hinders:
        assert await cluster.refused() == ["cp1: the endpoint answers"]
    else:
        await cluster.check()


async def test_the_way_between_control_planes(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """etcd on a loopback address alone is not looked for: it moves first."""
    asked: dict[str, list[str]] = {}

    async def reach(host: MemoryHost, urls: list[str]) -> list[str]:
        asked[host.name] = urls
        return [f"{urls[0]}: no answer"] if host.name == "cp3" else []

    monkeypatch.setattr(module, "out_of_reach", reach)
    cluster = Cluster(port)
    assert (await cluster.refused())[0] == (
        "cp3: it cannot reach a control plane: https://10.0.0.11:6443: no answer"
    )
    assert asked == {name: ["https://10.0.0.11:6443"] for name in ("cp2", "cp3")}
    urls = ("--listen-client-urls=https://10.0.0.11:2379", "--listen-peer-urls=https://10.0.0.11:2380")
    cluster.machines["cp1"].put(ETCD, pod("etcd", *urls))
    await cluster.refused()
    assert asked["cp2"] == [f"https://10.0.0.11:{number}" for number in (6443, 2379, 2380)]


async def test_an_even_number_is_warned_about(port: int) -> None:
    cluster = Cluster(port)
    cluster.spec = cluster.spec.model_copy(
        update={"hosts": [host for host in cluster.spec.hosts if host.name != "cp3"]}
    )
    await cluster.check()
    assert ["even number" in event.message for event in cluster.heard if event.kind is Kind.WARNING] == [True]


async def test_nothing_is_written(port: int) -> None:
    cluster = Cluster(port)
    before = {name: dict(machine.files) for name, machine in cluster.machines.items()}
    await cluster.check()
    assert {name: machine.files for name, machine in cluster.machines.items()} == before
