"""A cluster whose etcd moves: a gateway that insists on what etcd insists on, and runs that can be killed."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

import yaml
from aiohttp import web
from tests.unit.phases.memory_host import KilledError
from tests.unit.phases.test_etcd_host_phases import FACTS, PKI, Etcd, Machine

from kubewright.clients.cri import RuntimeContainer, Sandbox
from kubewright.errors import ApiError
from kubewright.hosts import Completed, FileWrite
from kubewright.model import x509
from kubewright.model.config.cluster import ClusterSpec
from kubewright.model.config.load import parse_cluster
from kubewright.model.etcd_unit import MEMBER_DIR
from kubewright.model.kubelet import FLAGS_PATH
from kubewright.model.manifests import API_SERVER, ETCD, manifest_path
from kubewright.model.objects import read_mapping, to_yaml
from kubewright.model.reset import container_flags
from kubewright.phases.node import Node

ID = "20261122-101500"
ETCD_POD, API_POD = manifest_path(ETCD), manifest_path(API_SERVER)
_MUTATING = ("daemon-reload", "mv -- ", "rm -f", "restart")


class World(Etcd):
    """etcd, which says no where a step would cost its majority, its leader or its order."""

    def __init__(self, planes: int, hosts: int) -> None:
        super().__init__()
        rows = [
            f"- {{name: cp{n}, address: 192.0.2.{n}, roles: [control-plane]}}" for n in range(1, planes + 1)
        ]
        rows += [
            f"- {{name: e{n}, address: 192.0.2.{n}, roles: [etcd]}}"
            for n in range(planes + 1, planes + hosts + 1)
        ]
        self.spec: ClusterSpec = parse_cluster(
            "kubernetesVersion: v1.31.12\nhosts:\n" + "\n".join(rows) + "\nendpoint: {type: local}\n"
        )
        self.machines: dict[str, Live] = {}
        self.leader = "1"
        self.budget: int | None = None
        self.dead = False
        self.steps = 0
        self.log: list[str] = []
        self.config: dict[str, Any] = {}
        self.away: set[str] = set()
        """Addresses of members that do not serve, whatever runs there."""

    def change(self, what: str) -> None:
        """Something was changed; with a budget, the run is killed after as many changes."""
        self.steps += 1
        self.log.append(what)
        self.dead = self.budget is not None and self.steps >= self.budget

    def alive(self) -> None:
        if self.dead:
            raise KilledError

    def at(self, address: str) -> Live:
        return next(one for one in self.machines.values() if one.address == address)

    def serves(self, address: str) -> bool:
        return bool(self.of(address)) and self.at(address).runs and address not in self.away

    @property
    def voters(self) -> list[dict[str, Any]]:
        return [one for one in self.members if not one.get("isLearner")]

    async def answer(self, request: web.Request) -> web.Response:
        """What must not be asked is refused for good, so that nobody waits for it."""
        try:
            return await self._answer(request)
        except AssertionError as error:
            return web.json_response({"error": f"forbidden: {error}", "code": 3}, status=400)

    async def _answer(self, request: web.Request) -> web.Response:
        address = request.host.partition(":")[0]
        no = web.json_response({"error": "no", "code": 14}, status=503)
        if request.path == "/health":
            return web.json_response({"health": "true" if self.serves(address) else "false"})
        if not self.serves(address):
            return no
        [mine] = self.of(address)
        if request.path == "/v3/maintenance/status":
            said = {"header": {"member_id": mine["ID"]}, "leader": self.leader, "version": "3.5.15"}
            return web.json_response(said)
        if mine.get("isLearner"):
            return no
        body = await request.json() if request.can_read_body else {}
        if request.path == "/v3/maintenance/transfer-leadership":
            assert mine["ID"] == self.leader, "only the leader hands over"
            assert any(one["ID"] == body["targetID"] for one in self.voters)
            self.leader = body["targetID"]
            self.change("lead " + next(one["name"] for one in self.members if one["ID"] == self.leader))
            return web.json_response({})
        action = request.path.removeprefix("/v3/cluster/member/")
        if action == "add":
            assert not any(one.get("isLearner") for one in self.members), "one learner at a time"
            self.members.append(
                {"ID": str(100 + self.steps), "peerURLs": body["peerURLs"], "isLearner": True}
            )
            self.change(f"add {body['peerURLs'][0]}")
        elif action == "promote":
            next(one for one in self.members if one["ID"] == body["ID"]).pop("isLearner")
            self.change("promote")
        elif action == "remove":
            self._remove(body["ID"])
        return web.json_response({"members": self.members})

    def _remove(self, number: str) -> None:
        leaving = next(one for one in self.members if one["ID"] == number)
        assert number != self.leader, "a leader leaves"
        rest = [one for one in self.voters if one["ID"] != number]
        well = [one for one in rest if self.serves(one["peerURLs"][0].split("/")[2].partition(":")[0])]
        assert len(well) > len(rest) // 2, "no majority"
        used = {url for plane in self.planes for url in plane.etcd_servers}
        assert not used & {*leaving["clientURLs"], "https://127.0.0.1:2379"}, "an API server uses it"
        self.members = [one for one in self.members if one["ID"] != number]
        self.change(f"remove {leaving['name']}")

    @property
    def planes(self) -> list[Plane]:
        return [one for one in self.machines.values() if isinstance(one, Plane)]

    # -- one API server, by its plane's name --------------------------------------------------------------------

    def reads(self, plane: Plane) -> bool:
        """Whether an API server gets at etcd."""
        places = [url.split("/")[2].partition(":")[0] for url in plane.etcd_servers]
        return any(self.serves(plane.address if one == "127.0.0.1" else one) for one in places)


class Live(Machine):
    """A machine that stops a run which was killed."""

    world: World

    @property
    def runs(self) -> bool:
        """Whether etcd runs there, with data."""
        return self.active and MEMBER_DIR in self.files

    async def run(self, argv: Any, **options: Any) -> Completed:
        self.world.alive()
        words = tuple(argv)
        text = words[2] if words[:2] == ("sh", "-c") else " ".join(words)
        done = await self.execute(words, text)
        done = done or await super().run(argv, **options)
        if any(part in text for part in _MUTATING):
            self.world.change(f"{self.name}: {text.strip().splitlines()[0][:40]}")
        return done

    async def execute(self, words: tuple[str, ...], text: str) -> Completed | None:
        return None

    async def read_file(self, path: str) -> bytes | None:
        self.world.alive()
        return await super().read_file(path)

    async def read_files(self, paths: Iterable[str]) -> dict[str, bytes]:
        self.world.alive()
        return await super().read_files(paths)

    async def write_files(self, files: Iterable[FileWrite]) -> None:
        self.world.alive()
        wanted = list(files)
        await super().write_files(wanted)
        if wanted:
            self.world.change(f"{self.name}: write {wanted[0].path}")

    @asynccontextmanager
    async def forward_tcp(self, address: str, port: int) -> AsyncIterator[tuple[str, int]]:
        self.world.alive()
        yield "127.0.0.1", self.etcd.port


class Plane(Live):
    """A control plane; its kubelet runs what stands in its folder."""

    backup = b""

    @property
    def runs(self) -> bool:
        return ETCD_POD in self.files and MEMBER_DIR in self.files

    @property
    def etcd_servers(self) -> list[str]:
        return container_flags(read_mapping(self.files[API_POD].data) or {})["etcd-servers"].split(",")

    async def execute(self, words: tuple[str, ...], text: str) -> Completed | None:
        if text.startswith("\n[ -e") and "mv -- " in text:
            assert ETCD_POD not in self.files, "its data is moved under a member that runs"
            self.files[words[5]] = self.files.pop(words[4])
            return Completed(words, 0)
        if text.startswith("[ -f"):
            kept = self.backup if words[5] == ETCD_POD.lstrip("/") else b""
            return Completed(words, 0 if kept else 1, kept)
        return None

    # -- its runtime --------------------------------------------------------------------------------------------

    async def containers(self) -> list[RuntimeContainer]:
        return [RuntimeContainer("1", "pod", ETCD, 0, True, "")] if ETCD_POD in self.files else []

    async def sandboxes(self) -> list[Sandbox]:
        return (
            [Sandbox("pod", f"etcd-{self.name}", "kube-system", "", 0, True)]
            if ETCD_POD in self.files
            else []
        )


class Api:
    """One API server, which serves as long as it gets at etcd."""

    def __init__(self, world: World, plane: Plane) -> None:
        self.world = world
        self.plane = plane

    async def request(self, *_: object, **__: object) -> None:
        self.world.alive()
        if not self.world.reads(self.plane):
            raise ApiError("no etcd", status=500)

    async def get(self, *_: object) -> Mapping[str, Any]:
        await self.request()
        return {"data": dict(self.world.config)}

    async def merge(self, _version: str, _kind: str, _name: str, patch: Any, _namespace: str) -> None:
        self.world.config |= patch["data"]
        self.world.change("told")


def populate(world: World, ca: x509.KeyPair, client: x509.KeyPair, planes: Sequence[str]) -> list[Node]:
    """The machines, with etcd on the control planes, and the nodes of a run."""
    nodes = []
    for number, host in enumerate(world.spec.hosts, 1):
        machine = (Plane if host.name in planes else Live)(world, number)
        machine.name, machine.world = host.name, world
        world.machines[host.name] = machine
        if isinstance(machine, Plane):
            _stacked(world, machine, number, ca, client)
        nodes.append(Node(host, machine, FACTS, machine.address))
    text = yaml.safe_dump({"kind": "ClusterConfiguration", "etcd": {"local": {"dataDir": "/var/lib/etcd"}}})
    world.config = {"ClusterConfiguration": text, "ClusterStatus": "apiEndpoints: {}\n"}
    return nodes


def _stacked(world: World, machine: Plane, number: int, ca: x509.KeyPair, client: x509.KeyPair) -> None:
    url = f"https://{machine.address}"
    flags = [
        f"--name={machine.name}",
        f"--initial-advertise-peer-urls={url}:2380",
        f"--advertise-client-urls={url}:2379",
    ]
    volume = {"name": "etcd-data", "hostPath": {"path": "/var/lib/etcd"}}
    pod = {"spec": {"containers": [{"name": "etcd", "command": ["etcd", *flags]}], "volumes": [volume]}}
    server = {
        "spec": {"containers": [{"command": ["kube-apiserver", "--etcd-servers=https://127.0.0.1:2379"]}]}
    }
    entry = {"name": "x", "cluster": {"server": "https://127.0.0.1:6444", "insecure-skip-tls-verify": True}}
    admin = {
        "kind": "Config", "clusters": [entry], "users": [{"name": "x", "user": {"token": "t"}}],
        "contexts": [{"name": "x", "context": {"cluster": "x", "user": "x"}}], "current-context": "x",
    }  # fmt: skip
    socket = 'KUBELET_KUBEADM_ARGS="--container-runtime-endpoint=/run/containerd/containerd.sock"\n'
    content: dict[str, Any] = {
        f"{PKI}/ca.crt": ca.cert, f"{PKI}/ca.key": ca.key, f"{PKI}/healthcheck-client.crt": client.cert,
        f"{PKI}/healthcheck-client.key": client.key, ETCD_POD: to_yaml(pod), API_POD: to_yaml(server),
        "/etc/kubernetes/admin.conf": to_yaml(admin), FLAGS_PATH: socket.encode(), MEMBER_DIR: b"all writes",
    }  # fmt: skip
    machine.files = {path: FileWrite(path, data, 0o600) for path, data in content.items()}
    machine.backup = to_yaml(pod)
    world.add_voter(number)
    world.members[-1]["name"] = machine.name
