"""A further member of etcd, against a gateway of our own: a learner first, and taken back if it never starts."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, nullcontext
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from unittest.mock import AsyncMock

import pytest
from aiohttp import web
from tests.unit.phases.memory_host import MemoryHost
from tests.unit.phases.test_discovery_phase import serve

from kubewright.clients.cri import CriError, Sandbox
from kubewright.errors import HostError, WaitTimeoutError
from kubewright.events import Events
from kubewright.hosts import Completed, FileWrite, HostFacts
from kubewright.model import pki, x509
from kubewright.model.arguments import EtcdMember
from kubewright.model.config.cluster import HostSpec, Role
from kubewright.model.node import ControlPlaneNode
from kubewright.model.pki import CertSpec, KeyKind, Usage
from kubewright.phases import etcd
from kubewright.phases.node import Node

PEER = "https://192.0.2.2:2380"
MANIFEST = "/etc/kubernetes/manifests/etcd.yaml"
PKI = "/etc/kubernetes/pki/etcd"


@dataclass
class Gateway:
    """What etcd says over its JSON gateway, and what it is asked."""

    members: list[dict[str, Any]] = field(
        default_factory=lambda: [
            {
                "ID": "1",
                "name": "cp1",
                "peerURLs": ["https://192.0.2.1:2380"],
                "clientURLs": ["https://192.0.2.1:2379"],
            }
        ]
    )
    asked: list[str] = field(default_factory=list)
    starts: bool = True
    not_yet: int = 0
    """How often a promotion is refused first."""
    full: bool = False
    """Whether no further member is taken."""
    ill: tuple[str, ...] = ()
    """The addresses of members that do not serve."""

    async def answer(self, request: web.Request) -> web.Response:
        if request.path == "/health":
            return web.json_response({"health": str(request.host.partition(":")[0] not in self.ill).lower()})
        body = await request.json() if request.can_read_body else {}
        action = request.path.removeprefix("/v3/cluster/member/")
        self.asked.append(action)
        if action == "add" and self.full:
            text = "etcdserver: too many learner members in cluster"
            return web.json_response({"error": text, "code": 9}, status=400)
        if action == "add":
            self.members.append({"ID": "2", "peerURLs": body["peerURLs"], "isLearner": body["isLearner"]})
        elif action == "remove":
            self.members = [one for one in self.members if one["ID"] != body["ID"]]
        elif action == "promote":
            if self.not_yet:
                self.not_yet -= 1
                return web.json_response({"error": "not in sync", "code": 9}, status=412)
            self.mine.pop("isLearner")
        return web.json_response({"members": self.members})

    @property
    def mine(self) -> dict[str, Any]:
        return next(one for one in self.members if PEER in one["peerURLs"])

    def run(self) -> None:
        self.mine.update(name="cp2", clientURLs=["https://192.0.2.2:2379"])


class Machine(MemoryHost):
    """A control plane that is to be; where its manifest is written, etcd starts."""

    def __init__(self, gateway: Gateway, port: int) -> None:
        super().__init__()
        self.gateway, self.port = gateway, port
        self.removed: list[str] = []
        self.restarts = 0

    async def run(self, argv: Any, **options: Any) -> Completed:
        if argv[:2] == ["systemctl", "restart"]:
            self.restarts += 1
            self.gateway.run()
        elif "rm -f" in argv[2]:
            self.removed += [argv[4], argv[5]]
            self.files.pop(argv[4], None)
        return Completed(tuple(argv), 0)

    async def write_files(self, files: Any) -> None:
        wanted = list(files)
        await super().write_files(wanted)
        if self.gateway.starts and any(file.path == MANIFEST for file in wanted):
            self.gateway.run()

    @asynccontextmanager
    async def forward_tcp(self, address: str, port: int) -> AsyncIterator[tuple[str, int]]:
        yield "127.0.0.1", self.port


class Pods:
    """The API, of which only etcd's Pods are asked."""

    async def list(self, *_: object, **__: object) -> list[dict[str, Any]]:
        return [{"metadata": {"annotations": {etcd.CLIENT_URLS: "https://192.0.2.1:2379"}}}]


@pytest.fixture
async def machine(tmp_path: Path) -> AsyncIterator[Machine]:
    async with started(tmp_path, Gateway()) as host:
        yield host


@asynccontextmanager
async def started(tmp_path: Path, gateway: Gateway) -> AsyncIterator[Machine]:
    """A gateway, and a machine whose files and connections lead to it."""
    now, kind = datetime.now(UTC), KeyKind.ECDSA_P256
    spec = CertSpec("ca", "ca", "etcd-ca", validity=pki.CA_VALIDITY, key_kind=kind)
    ca = x509.self_signed_ca(spec, x509.new_key(kind), now)
    both = (Usage.SERVER, Usage.CLIENT)
    addresses = tuple(f"192.0.2.{number}" for number in range(1, 6))
    leaf = CertSpec("s", "s", "s", usages=both, addresses=addresses, ca="ca", key_kind=kind)
    pair = x509.sign(leaf, x509.new_key(kind), ca, now)
    runner, port = await serve(tmp_path, gateway.answer, pair)
    host = Machine(gateway, port)
    await host.write_files(
        [
            FileWrite(f"{PKI}/ca.crt", ca.cert),
            FileWrite(f"{PKI}/healthcheck-client.crt", pair.cert),
            FileWrite(f"{PKI}/healthcheck-client.key", pair.key),
        ]
    )
    try:
        yield host
    finally:
        await runner.cleanup()


def member(host: Machine, **options: Any) -> etcd.NewEtcdMember:
    spec = HostSpec(name="cp2", address="192.0.2.2", roles=[Role.CONTROL_PLANE])
    facts = HostFacts(
        "cp2", "debian", "12", "", "amd64", "", 2, 4 << 30, 0, True, "systemd", 2, 0, "192.0.2.2", (), ()
    )

    def pod(members: Sequence[EtcdMember]) -> dict[str, Any]:
        return {"members": [f"{one.name}={one.peer_url}" for one in members]}

    return etcd.NewEtcdMember(
        Node(spec, host, facts, "192.0.2.2"), Pods(), ControlPlaneNode("cp2", "192.0.2.2"),  # type: ignore[arg-type]
        certificates_dir="/etc/kubernetes/pki", cri_socket="/run/x.sock", data_dir="/var/lib/etcd", pod=pod,
        **options,
    )  # fmt: skip


async def test_a_member_is_a_learner_until_it_has_all_data(machine: Machine) -> None:
    machine.gateway.not_yet = 2
    changes = await member(machine).run(Events())
    assert len(changes) == 2
    assert machine.gateway.asked.count("promote") == 3
    assert "isLearner" not in machine.gateway.mine
    text = machine.files[MANIFEST].data.decode()
    assert "cp1=https://192.0.2.1:2380" in text
    assert f"cp2={PEER}" in text
    assert await member(machine).run(Events()) == []


async def test_one_that_never_starts_is_taken_back(machine: Machine) -> None:
    machine.gateway.starts = False
    with pytest.raises(WaitTimeoutError, match="the new member of etcd to start"):
        await member(machine, start_deadline=0.2).run(Events())
    assert [one["name"] for one in machine.gateway.members] == ["cp1"]
    assert MANIFEST not in machine.files
    assert machine.removed == [MANIFEST, "/var/lib/etcd"]


@pytest.mark.parametrize(
    ("sandboxes", "restarts"),
    [
        pytest.param([Sandbox("a", "etcd-cp2", "kube-system", "", 0, True)], 0, id="it is on its way"),
        pytest.param([Sandbox("a", "etcd-cp2", "kube-system", "", 0, False)], 1, id="only an earlier one's"),
        pytest.param([Sandbox("a", "etcd-cp2", "web", "", 0, True)], 1, id="only somebody else's"),
        pytest.param([], 1, id="nothing"),
        pytest.param(None, 0, id="the runtime does not say"),
    ],
)
async def test_a_kubelet_that_has_refused_it_is_restarted(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, sandboxes: list[Sandbox] | None, restarts: int
) -> None:
    @asynccontextmanager
    async def opened(_host: Machine, _socket: str) -> AsyncIterator[Any]:
        if sandboxes is None:
            raise CriError("no container runtime listens on cp2")
        runtime = AsyncMock()
        runtime.sandboxes.return_value = sandboxes
        yield runtime

    monkeypatch.setattr(etcd, "open_cri", opened)
    monkeypatch.setattr(etcd, "_IGNORED", 0.0)
    machine.gateway.starts = False
    with nullcontext() if restarts else pytest.raises(WaitTimeoutError):
        await member(machine, start_deadline=0.3).run(Events())
    assert machine.restarts == restarts
    assert ("cp2" in [one.get("name") for one in machine.gateway.members]) is bool(restarts)


async def test_one_that_has_been_announced_is_not_announced_again(machine: Machine) -> None:
    machine.gateway.members.append({"ID": "2", "peerURLs": [PEER], "isLearner": True})
    await member(machine).run(Events())
    assert "add" not in machine.gateway.asked
    assert "isLearner" not in machine.gateway.mine


@pytest.mark.parametrize(
    ("learner", "mend"),
    [
        ({"ID": "26"}, "etcdctl member remove 1a"),
        (
            {"ID": "26", "name": "old", "clientURLs": ["https://192.0.2.9:2379"]},
            "kubewright node remove old --gone",
        ),
    ],
)
async def test_a_learner_that_is_in_the_way_is_named(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, learner: dict[str, Any], mend: str
) -> None:
    """etcd has one at a time, and says only that there are too many."""
    monkeypatch.setattr(etcd, "_PATIENCE", 0.0)
    machine.gateway.members.append({"peerURLs": ["https://192.0.2.9:2380"], "isLearner": True, **learner})
    machine.gateway.full = True
    with pytest.raises(WaitTimeoutError, match="cp2: the new member to be announced") as caught:
        await member(machine).run(Events())
    assert "https://192.0.2.9:2380" in caught.value.hint
    assert mend in caught.value.hint


async def test_a_run_that_was_killed_after_the_start_is_finished(machine: Machine) -> None:
    machine.gateway.members.append({"ID": "2", "peerURLs": [PEER], "isLearner": True})
    machine.gateway.run()
    for path in (MANIFEST, "/var/lib/etcd/member"):
        machine.files[path] = FileWrite(path, b"x")
    assert len(await member(machine).run(Events())) == 1
    assert "isLearner" not in machine.gateway.mine
    assert machine.files[MANIFEST].data == b"x"


async def test_one_whose_data_is_gone_is_a_new_one(machine: Machine) -> None:
    machine.gateway.members.append(
        {"ID": "7", "name": "cp2", "peerURLs": [PEER], "clientURLs": ["https://192.0.2.2:2379"]}
    )
    await member(machine).run(Events())
    assert machine.gateway.mine["ID"] == "2"


async def test_a_new_one_starts_with_the_members_of_now(machine: Machine) -> None:
    """The manifest of a member whose data is gone names those that were there when it joined."""
    machine.gateway.starts = False
    await machine.write_files([FileWrite(MANIFEST, b"cp2 alone")])
    machine.gateway.starts = True
    await member(machine, start_deadline=2).run(Events())
    assert "cp1=https://192.0.2.1:2380" in machine.files[MANIFEST].data.decode()


async def test_data_of_another_cluster_is_not_touched(machine: Machine) -> None:
    machine.files["/var/lib/etcd/member"] = FileWrite("/var/lib/etcd/member", b"x")
    with pytest.raises(HostError, match="no member of this cluster"):
        await member(machine).run(Events())
    assert "add" not in machine.gateway.asked
    assert not machine.removed


async def test_without_the_client_certificate_the_phase_that_makes_it_is_named(machine: Machine) -> None:
    del machine.files[f"{PKI}/healthcheck-client.key"]
    with pytest.raises(HostError, match=r"healthcheck-client\.key") as caught:
        await member(machine).run(Events())
    assert "control-plane-prepare/certs" in caught.value.hint


async def test_nothing_is_announced_by_a_host_that_cannot_reach_the_members(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A firewall between the peers: a learner would be there that never hears of its leader."""

    @asynccontextmanager
    async def forward(address: str, port: int) -> AsyncIterator[tuple[str, int]]:
        if port == 2380:
            raise HostError(f"cp2 cannot connect to {address}:{port}")
        yield "127.0.0.1", machine.port

    monkeypatch.setattr(machine, "forward_tcp", forward)
    with pytest.raises(HostError, match="cannot reach members of etcd") as caught:
        await member(machine).run(Events())
    assert caught.value.evidence == ("https://192.0.2.1:2380: cp2 cannot connect to 192.0.2.1:2380",)
    assert "add" not in machine.gateway.asked
    assert MANIFEST not in machine.files


async def test_a_founder_that_never_started_is_taken_up(machine: Machine) -> None:
    """It has a name from the start, for all founders have the same list; it has a vote, and has never voted."""
    machine.gateway.members.append({"ID": "2", "name": "cp2", "peerURLs": [PEER]})
    await member(machine).run(Events())
    assert not {"add", "promote", "remove"} & set(machine.gateway.asked)
    assert f"cp2={PEER}" in machine.files[MANIFEST].data.decode()


async def test_members_that_have_started_are_known_by_name(machine: Machine) -> None:
    machine.gateway.members.append({"ID": "2", "name": "cp2", "peerURLs": [PEER]})
    found = await etcd.member_names(machine, Pods(), "/etc/kubernetes/pki")  # type: ignore[arg-type]
    assert found == {"cp1"}


async def test_what_is_unfinished_is_known_by_its_address(machine: Machine) -> None:
    async def unfinished() -> set[str]:
        return await etcd.unfinished(machine, Pods(), "/etc/kubernetes/pki")  # type: ignore[arg-type]

    assert await unfinished() == set()
    machine.gateway.members.append({"ID": "2", "peerURLs": [PEER], "isLearner": True})
    assert await unfinished() == {PEER}
    machine.gateway.run()
    assert await unfinished() == {PEER}, "it has no vote yet"
    machine.gateway.mine.pop("isLearner")
    assert await unfinished() == set()
