"""The only member of etcd moves to TLS, against a gateway of our own, also where a run is killed on the way."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml
from aiohttp import web
from tests.free_ports import free_port
from tests.unit.model.test_etcd_secured import IP, PEER, loopback, plain, wanted
from tests.unit.phases.memory_host import KilledError, MemoryHost
from tests.unit.phases.test_discovery_phase import serve

from kubewright.clients.etcd import EtcdClient, EtcdError
from kubewright.errors import ApiError, HostError, WaitTimeoutError
from kubewright.events import Events
from kubewright.hosts import Completed, FileWrite, HostFacts
from kubewright.model import pki, x509
from kubewright.model.config.cluster import HostSpec
from kubewright.model.etcd_secured import asked_at, named_files
from kubewright.model.manifests import manifest_path
from kubewright.model.objects import to_yaml
from kubewright.model.pki import CertSpec, KeyKind, Usage
from kubewright.model.reset import container_flags
from kubewright.phases import etcd_secured
from kubewright.phases.etcd_secured import EtcdSecured
from kubewright.phases.node import Node
from kubewright.phases.phase import Change

PKI = "/etc/kubernetes/pki"
NAMES = ("etcd", "kube-apiserver")


@dataclass
class Etcd:
    """What etcd says, and in which order things happen to it."""

    peers: list[str] = field(default_factory=lambda: ["http://localhost:2380"])
    log: list[str] = field(default_factory=list)

    async def answer(self, request: web.Request) -> web.Response:
        if request.path == "/health":
            return web.json_response({"health": "true"})
        body = await request.json()
        if request.path.endswith("/update"):
            assert body["ID"] == "1"
            self.peers[0] = ",".join(body["peerURLs"])
            self.log.append(f"update over {request.scheme}")
        members = [
            {
                "ID": str(number),
                "name": f"cp{number}",
                "peerURLs": [url],
                "clientURLs": ["http://127.0.0.1:2379"],
            }
            for number, url in enumerate(self.peers, 1)
        ]
        return web.json_response({"members": members})


class Plane(MemoryHost):
    """A control plane whose kubelet runs what the manifests say, and a program that it has just started."""

    def __init__(self, etcd: Etcd, ports: dict[str, int]) -> None:
        super().__init__()
        self.etcd = etcd
        self.ports = ports
        self.running: dict[str, Any] = {}
        self.starts = dict.fromkeys(NAMES, 1)
        self.asleep = False
        """Whether the kubelet does not look."""
        self.writes: list[list[str]] = []
        self.asked = 0

    def has(self, pods: dict[str, Any]) -> None:
        for name in NAMES:
            path = manifest_path(name)
            self.files[path] = FileWrite(path, to_yaml(pods[name]), 0o600)
        self.running = {name: pods[name] for name in NAMES}

    def kubelet(self) -> None:
        for name in NAMES:
            pod = yaml.safe_load(self.files[manifest_path(name)].data)
            if pod != self.running[name]:
                self.running[name] = pod
                self.starts[name] += 1
                self.etcd.log.append(f"{name} starts")

    async def write_files(self, files: Iterable[FileWrite]) -> None:
        wanted = list(files)
        self.writes.append([file.path for file in wanted])
        try:
            await super().write_files(wanted)
        finally:
            if not self.asleep:
                self.kubelet()

    async def run(self, argv: Any, **options: Any) -> Completed:
        if "tasks kill" in argv[2]:
            self.etcd.log.append(f"{argv[5]} ends")
            return Completed(tuple(argv), 0)
        if "containers ls -q" in argv[2] and "pod.namespace" in argv[2]:
            return Completed(tuple(argv), 0, f"{argv[4]}-{self.starts[argv[4]]}\n".encode())
        if "ctr -n k8s.io" in argv[2]:
            made = "".join(f"{name} {name}-{self.starts[name]}\n" for name in argv[4:])
            tasks = "".join(f"{name}-{self.starts[name]} 7 RUNNING\n" for name in argv[4:])
            return Completed(tuple(argv), 0, (made + tasks).encode())
        if "mkdir" in argv[2]:
            return await super().run(argv)
        return Completed(tuple(argv), 0)

    @asynccontextmanager
    async def forward_tcp(self, address: str, port: int) -> AsyncIterator[tuple[str, int]]:
        self.asked += 1
        if self.asleep and self.asked > 3:
            self.asleep = False
            self.kubelet()
        listens = [url for url in asked_at(self.running["etcd"]) if f"//{address}:{port}" in url]
        scheme = listens[0].partition(":")[0] if listens else "nobody"
        yield "127.0.0.1", self.ports[scheme]

    async def request(self, method: str, path: str, **_: object) -> bytes:
        """The API server, which serves what it reads from etcd."""
        servers = container_flags(self.running["kube-apiserver"])["etcd-servers"]
        if servers not in asked_at(self.running["etcd"]):
            raise ApiError("etcd is away", status=500)
        return b"{}"

    @property
    def phase(self) -> EtcdSecured:
        node = Node(HostSpec(name="cp1", address=IP), self, HostFacts.__new__(HostFacts), IP)
        return EtcdSecured(node, self, wanted(), PKI, deadline=10.0)  # type: ignore[arg-type]


@pytest.fixture
async def plane(tmp_path: Path) -> AsyncIterator[Plane]:
    kind, now = KeyKind.ECDSA_P256, datetime.now(UTC)
    spec = CertSpec("ca", "ca", "etcd-ca", validity=pki.CA_VALIDITY, key_kind=kind)
    ca = x509.self_signed_ca(spec, x509.new_key(kind), now)
    leaf = CertSpec(
        "s", "s", "s", usages=(Usage.SERVER, Usage.CLIENT), dns_names=("localhost",), addresses=(IP, "127.0.0.1"),
        ca="ca", key_kind=kind,
    )  # fmt: skip
    pair = x509.sign(leaf, x509.new_key(kind), ca, now)
    etcd = Etcd()
    secure, secure_port = await serve(tmp_path, etcd.answer, pair)
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", etcd.answer)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    host = Plane(etcd, {"https": secure_port, "http": runner.addresses[0][1], "nobody": free_port()})
    for path in named_files(wanted()):
        host.files[path] = FileWrite(path, b"PEM")
    for name, content in (("ca.crt", ca.cert), ("healthcheck-client.crt", pair.cert)):
        host.files[f"{PKI}/etcd/{name}"] = FileWrite(f"{PKI}/etcd/{name}", content)
    key = f"{PKI}/etcd/healthcheck-client.key"
    host.files[key] = FileWrite(key, pair.key)
    yield host
    await runner.cleanup()
    await secure.cleanup()


async def targets(host: Plane) -> list[str]:
    return [change.target for change in await host.phase.look()]


def done(host: Plane) -> bool:
    return host.etcd.peers == [PEER] and host.running == wanted()


ALL = ["member of etcd", manifest_path("etcd"), manifest_path("kube-apiserver")]


async def test_one_without_tls_is_moved_and_the_api_is_away_once(plane: Plane) -> None:
    plane.has(plain())
    changes: Sequence[Change] = await plane.phase.run(Events())
    assert [change.target for change in changes] == ALL
    assert changes[0].diff == (f"# peer URL: http://localhost:2380 becomes {PEER}",)
    assert any("http://127.0.0.1:2379 becomes https://" in line for line in changes[1].diff)
    assert any(line.startswith("+") for line in changes[1].diff)  # whatever else a manifest changes is shown
    assert plane.etcd.log == [
        "update over http", "kube-apiserver-1 ends", "etcd starts", "kube-apiserver starts",
    ]  # fmt: skip
    assert plane.writes == [ALL[1:]]
    assert done(plane)
    assert await plane.phase.run(Events()) == []


async def test_one_on_loopback_is_moved_without_a_new_api_server(plane: Plane) -> None:
    plane.has(loopback())
    plane.etcd.peers = ["https://127.0.0.1:2380"]
    await plane.phase.run(Events())
    assert plane.etcd.log == ["update over https", "etcd starts"]
    assert done(plane)


@pytest.mark.parametrize(
    ("files", "left"), [(0, ALL[1:]), (1, ALL[2:])], ids=["before the manifests", "between the manifests"]
)
async def test_a_run_that_was_killed_is_finished(plane: Plane, files: int, left: list[str]) -> None:
    plane.has(plain())
    plane.dies_after = files
    with pytest.raises(KilledError):
        await plane.phase.run(Events())
    plane.dies_after = None
    assert await targets(plane) == left
    await plane.phase.run(Events())
    assert done(plane)
    assert plane.etcd.log.count("update over http") == 1


async def test_a_run_that_was_killed_before_the_kubelet_looked_is_waited_for(plane: Plane) -> None:
    plane.has(plain())
    plane.asleep = True
    plane.asked = -1000
    first = plane.phase
    async with Events().phase("x", "x") as activity:
        await first.act(await first.look(), activity)
    assert not done(plane)
    plane.asked = 0
    assert await plane.phase.run(Events()) == []
    assert done(plane)


async def test_a_member_that_is_known_wrongly_is_mended_alone(plane: Plane) -> None:
    plane.has(wanted())
    assert await targets(plane) == ALL[:1]
    await plane.phase.run(Events())
    assert plane.etcd.log == ["update over https"]
    assert plane.writes == []


async def test_several_members_are_refused_and_nothing_is_changed(plane: Plane) -> None:
    plane.has(plain())
    plane.etcd.peers.append("http://192.0.2.2:2380")
    with pytest.raises(HostError, match="has 2 members"):
        await plane.phase.run(Events())
    assert (plane.etcd.log, plane.writes) == ([], [])


async def test_no_manifest_is_written_that_names_a_missing_file(plane: Plane) -> None:
    plane.has(plain())
    del plane.files[f"{PKI}/apiserver-etcd-client.key"]
    with pytest.raises(HostError, match=r"apiserver-etcd-client\.key, which is not there"):
        await plane.phase.run(Events())
    assert (plane.etcd.log, plane.writes) == ([], [])


async def test_a_plan_needs_no_certificates(plane: Plane) -> None:
    plane.has(plain())
    del plane.files[f"{PKI}/etcd/healthcheck-client.key"]
    assert await targets(plane) == ALL
    assert plane.etcd.log == []


async def test_a_tls_etcd_is_not_asked_without_credentials(plane: Plane) -> None:
    plane.has(loopback())
    del plane.files[f"{PKI}/etcd/healthcheck-client.key"]
    with pytest.raises(HostError, match="healthcheck-client"):
        await plane.phase.look()


@pytest.mark.parametrize("content", [None, b"- no manifest"])
async def test_a_host_without_an_etcd_of_its_own_is_refused(plane: Plane, content: bytes | None) -> None:
    plane.has(plain())
    del plane.files[manifest_path("etcd")]
    if content is not None:
        plane.files[manifest_path("etcd")] = FileWrite(manifest_path("etcd"), content)
    with pytest.raises(HostError, match=r"etcd\.yaml is no"):
        await plane.phase.look()


async def test_an_etcd_that_does_not_answer_is_told(plane: Plane, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(etcd_secured, "_ANSWER", 0.0)
    plane.has(plain())
    plane.ports = dict.fromkeys(plane.ports, plane.ports["nobody"])
    with pytest.raises(WaitTimeoutError, match="cp1: etcd to answer") as caught:
        await plane.phase.look()
    assert "http://127.0.0.1:2379" in caught.value.evidence[0]


# -- the client ---------------------------------------------------------------------------------------------------


async def test_without_credentials_only_plain_http_is_spoken(plane: Plane) -> None:
    plane.has(plain())
    async with EtcdClient(["http://127.0.0.1:2379"], None, plane.forward_tcp) as etcd:
        assert [member.peer_urls for member in await etcd.members()] == [("http://localhost:2380",)]
        assert await etcd.health("http://127.0.0.1:2379") == ""
    before = plane.asked
    async with EtcdClient([f"https://{IP}:2379"], None, plane.forward_tcp) as etcd:
        with pytest.raises(EtcdError, match="not asked without credentials"):
            await etcd.members()
    assert plane.asked == before
