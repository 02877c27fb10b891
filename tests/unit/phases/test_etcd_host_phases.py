"""etcd on hosts of its own, against a gateway of our own and hosts whose units are rows in a table."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from tests.unit.phases.memory_host import MemoryHost
from tests.unit.phases.test_discovery_phase import serve

from kubewright.clients.etcd import Credentials
from kubewright.errors import ConfigError, HostError, WaitTimeoutError
from kubewright.events import Events
from kubewright.hosts import Completed, FileWrite, HostFacts
from kubewright.model import pki, x509
from kubewright.model.arguments import EtcdMember, peer_url
from kubewright.model.config.cluster import HostSpec, Role
from kubewright.model.config.kubeadm_types import ExternalEtcd
from kubewright.model.etcd_unit import (
    DATA_DIR,
    MEMBER_DIR,
    PERMIT_PATH,
    UNIT,
    UNIT_PATH,
    Permit,
    StartState,
    read_permit,
)
from kubewright.model.pki import CertSpec, KeyKind, Usage
from kubewright.phases.etcd_cluster import EtcdFounded, EtcdMembers
from kubewright.phases.etcd_hosts import EtcdHosts, EtcdRestart, EtcdUnit, look_at
from kubewright.phases.etcd_outside import ask, check_credentials, host_credentials
from kubewright.phases.node import Node

PKI = "/etc/kubernetes/pki/etcd"
FACTS = HostFacts("e", "debian", "12", "", "amd64", "", 2, 4 << 30, 0, True, "systemd", 2, 0, "", (), ())


@dataclass
class Etcd:
    """What etcd says over its JSON gateway, and what it insists on."""

    members: list[dict[str, Any]] = field(default_factory=list)
    ill: set[str] = field(default_factory=set)
    """The addresses of members that do not serve."""
    asked: list[str] = field(default_factory=list)
    permits: list[bytes] = field(default_factory=list)
    """With what members without data were started."""
    port: int = 0

    def add_voter(self, number: int) -> None:
        url = f"https://192.0.2.{number}"
        self.members.append(
            {
                "ID": str(number),
                "name": f"e{number}",
                "peerURLs": [f"{url}:2380"],
                "clientURLs": [f"{url}:2379"],
            }
        )

    def of(self, address: str) -> list[dict[str, Any]]:
        return [one for one in self.members if one["peerURLs"] == [f"https://{address}:2380"]]

    def announce(self, number: int) -> None:
        self.members.append(
            {"ID": str(number), "peerURLs": [f"https://192.0.2.{number}:2380"], "isLearner": True}
        )

    async def answer(self, request: web.Request) -> web.Response:
        address = request.host.partition(":")[0]
        if request.path == "/health":
            return web.json_response({"health": "false" if address in self.ill else "true"})
        if request.path == "/v3/maintenance/status":
            return web.json_response({"header": {"member_id": "7"}, "leader": "8", "version": "3.4.23"})
        if address in self.ill:
            return web.json_response({"error": "no leader", "code": 14}, status=503)
        body = await request.json() if request.can_read_body else {}
        action = request.path.removeprefix("/v3/cluster/member/")
        self.asked.append(action)
        voters = [one for one in self.members if not one.get("isLearner")]
        if action == "add":
            away = [one for one in voters if one["peerURLs"][0].split("/")[2].partition(":")[0] in self.ill]
            if away:
                return web.json_response({"error": "unhealthy cluster", "code": 14}, status=503)
            identity = str(100 + len(self.asked))
            self.members.append({"ID": identity, "peerURLs": body["peerURLs"], "isLearner": True})
        elif action == "remove":
            self.members = [one for one in self.members if one["ID"] != body["ID"]]
        elif action == "promote":
            next(one for one in self.members if one["ID"] == body["ID"]).pop("isLearner")
        return web.json_response({"members": self.members})


class Machine(MemoryHost):
    """A host of etcd. Its unit starts as systemd would start it: with data or a permit, or not at all."""

    def __init__(self, etcd: Etcd, number: int, *, starts: bool = True) -> None:
        super().__init__()
        self.name = f"e{number}"
        self.address = f"192.0.2.{number}"
        self.etcd = etcd
        self.starts = starts
        self.active = False
        self.enabled = False
        self.stale = False
        """Whether its process is older than its unit."""
        self.done: list[str] = []
        """What was done to its process and its data, in order."""

    async def run(self, argv: Any, **options: Any) -> Completed:
        words = tuple(argv)
        text = b""
        script = words[2] if words[:2] == ("sh", "-c") else ""
        if script.startswith("\nsystemctl is-active"):
            rows = ["active" if self.active else "inactive"]
            rows += ["unit"] if UNIT_PATH in self.files else []
            rows += ["data"] if MEMBER_DIR in self.files else []
            text = "\n".join(rows).encode()
        elif "daemon-reload" in script:
            self.enabled = True
            if "start --no-block" in script:
                self._start()
        elif script.startswith("since="):
            text = UNIT_PATH.encode() if self.stale else b""
        elif "mv " in script and MEMBER_DIR in self.files:
            self.done.append("move data away")
            self.files.pop(MEMBER_DIR)
        elif "rm -rf" in script:
            self.active = False
            self.files.pop(MEMBER_DIR, None)
            self.files.pop(PERMIT_PATH, None)
        elif words[:2] == ("systemctl", "stop"):
            self.done.append("stop")
            self.active = False
        elif words[:2] == ("systemctl", "restart"):
            self.done.append("restart")
            self.stale = False
        elif words[:2] == ("rm", "-f"):
            self.files.pop(words[2], None)
        elif words[:2] == ("systemctl", "is-enabled"):
            text = b"enabled" if self.enabled else b"disabled"
        return Completed(words, 0, text)

    def _start(self) -> None:
        permit = self.files.get(PERMIT_PATH)
        if permit is None and MEMBER_DIR not in self.files:
            return  # a condition of the unit
        self.active = True
        if not self.starts:
            return
        if MEMBER_DIR not in self.files and permit is not None:
            self.etcd.permits.append(permit.data)
        self.files[MEMBER_DIR] = FileWrite(MEMBER_DIR, b"")
        for member in self.etcd.of(self.address):
            member.update(name=self.name, clientURLs=[f"https://{self.address}:2379"])

    @asynccontextmanager
    async def forward_tcp(self, address: str, port: int) -> AsyncIterator[tuple[str, int]]:
        yield "127.0.0.1", self.etcd.port


@dataclass
class Lab:
    etcd: Etcd
    ca: x509.KeyPair
    pair: x509.KeyPair

    def machine(self, number: int, *, member: bool = True, starts: bool = True) -> Machine:
        host = Machine(self.etcd, number, starts=starts)
        written = [
            FileWrite(f"{PKI}/ca.crt", self.ca.cert),
            FileWrite(f"{PKI}/healthcheck-client.crt", self.pair.cert),
            FileWrite(f"{PKI}/healthcheck-client.key", self.pair.key),
            FileWrite(UNIT_PATH, b"unit"),
            *([FileWrite(MEMBER_DIR, b"")] if member else []),
        ]
        host.files = {file.path: file for file in written}
        host.active = member
        return host

    def hosts(self, *machines: Machine) -> EtcdHosts:
        nodes = [
            Node(HostSpec(name=one.name, address=one.address, roles=[Role.ETCD]), one, FACTS, one.address)
            for one in machines
        ]
        return EtcdHosts(nodes, "/etc/kubernetes/pki")


@pytest.fixture
async def lab(tmp_path: Path) -> AsyncIterator[Lab]:
    now, kind = datetime.now(UTC), KeyKind.ECDSA_P256
    spec = CertSpec("etcd-ca", "ca", "etcd-ca", validity=pki.CA_VALIDITY, key_kind=kind)
    ca = x509.self_signed_ca(spec, x509.new_key(kind), now)
    addresses = tuple(f"192.0.2.{number}" for number in range(1, 8))
    both = (Usage.SERVER, Usage.CLIENT)
    leaf = CertSpec("s", "s", "s", usages=both, addresses=addresses, ca="etcd-ca", key_kind=kind)
    pair = x509.sign(leaf, x509.new_key(kind), ca, now)
    etcd = Etcd()
    runner, etcd.port = await serve(tmp_path, etcd.answer, pair)
    yield Lab(etcd, ca, pair)
    await runner.cleanup()


def phase(hosts: EtcdHosts, absent: Sequence[str] = (), **options: Any) -> EtcdMembers:
    return EtcdMembers(hosts, "prod", absent, **options)


async def test_all_members_start_at_once_with_the_same_permit(lab: Lab) -> None:
    machines = [lab.machine(number, member=False) for number in (1, 2, 3)]
    await EtcdFounded(lab.hosts(*machines), "prod").run(Events())
    assert len(set(lab.etcd.permits)) == 1
    permit = read_permit(lab.etcd.permits[0])
    assert permit is not None
    assert [one.name for one in permit.members] == ["e1", "e2", "e3"]
    assert permit.state == "new"
    for machine in machines:
        assert (machine.active, machine.enabled, PERMIT_PATH in machine.files) == (True, True, False)


async def test_a_foundation_that_does_not_come_to_life_keeps_its_permits(lab: Lab) -> None:
    machines = [lab.machine(number, member=False) for number in (1, 2, 3)]
    lab.etcd.ill.add("192.0.2.3")
    with pytest.raises(WaitTimeoutError, match="all members of the new etcd") as caught:
        await EtcdFounded(lab.hosts(*machines), "prod", deadline=0.3).run(Events())
    assert any("e3: " in line for line in caught.value.evidence)
    assert all(PERMIT_PATH in machine.files for machine in machines)
    lab.etcd.ill.clear()
    await EtcdFounded(lab.hosts(*machines), "prod").run(Events())
    assert not any(PERMIT_PATH in machine.files for machine in machines)


async def test_a_dead_member_is_replaced_and_a_second_run_finds_nothing(lab: Lab) -> None:
    for number in (1, 2, 3):
        lab.etcd.add_voter(number)
    lab.etcd.ill.add("192.0.2.3")
    hosts = lab.hosts(lab.machine(1), lab.machine(2), lab.machine(4, member=False))
    changes = await phase(hosts).run(Events())
    assert [str(change.action) for change in changes] == ["delete", "create"]
    assert sorted(one["name"] for one in lab.etcd.members) == ["e1", "e2", "e4"]
    assert not any(one.get("isLearner") for one in lab.etcd.members)
    permit = read_permit(lab.etcd.permits[0])
    assert permit is not None
    assert (permit.state, [one.name for one in permit.members]) == ("existing", ["e1", "e2", "e4"])
    assert await phase(hosts).run(Events()) == []


async def test_a_member_that_the_majority_needs_stays(lab: Lab) -> None:
    for number in (1, 2, 3, 4):
        lab.etcd.add_voter(number)
    lab.etcd.ill |= {"192.0.2.3", "192.0.2.4"}
    hosts = lab.hosts(lab.machine(1), lab.machine(2), lab.machine(3))
    assert [str(change.target) for change in await phase(hosts).look()] == [
        "etcd member e4 (https://192.0.2.4:2380) (gone)"
    ]
    lab.etcd.ill.add("192.0.2.2")
    with pytest.raises(HostError, match=r"e4 .* cannot leave etcd: .* of which 1 are healthy; 2 are needed"):
        await phase(hosts).run(Events())
    assert "remove" not in lab.etcd.asked


async def test_one_that_never_starts_is_taken_back(lab: Lab) -> None:
    lab.etcd.add_voter(1)
    new = lab.machine(2, member=False, starts=False)
    with pytest.raises(WaitTimeoutError, match="e2: the new member of etcd to start"):
        await phase(lab.hosts(lab.machine(1), new), start_deadline=0.3).run(Events())
    assert [one["name"] for one in lab.etcd.members] == ["e1"]
    assert PERMIT_PATH not in new.files


def begun(machine: Machine, *others: str) -> bytes:
    """The permit that a killed run has left on a host whose member did not come to an end with its start."""
    named = [EtcdMember(machine.name, peer_url(machine.address)), *(EtcdMember(one, "x") for one in others)]
    text = Permit(StartState.EXISTING, tuple(named)).text("prod")
    machine.files[PERMIT_PATH] = FileWrite(PERMIT_PATH, text)
    return text


async def test_a_learner_that_receives_its_data_keeps_what_it_has(lab: Lab) -> None:
    """The run that started it was killed, and etcd does not know its name before it has everything."""
    lab.etcd.add_voter(1)
    lab.etcd.announce(2)
    learner = lab.machine(2)
    begun(learner)
    await phase(lab.hosts(lab.machine(1), learner)).run(Events())
    assert learner.done == []
    assert [one["name"] for one in lab.etcd.members if not one.get("isLearner")] == ["e1", "e2"]


async def test_one_that_never_began_is_stopped_before_it_has_another_permit(lab: Lab) -> None:
    """It starts again and again with the members of then, who are others now."""
    lab.etcd.add_voter(1)
    lab.etcd.announce(2)
    learner = lab.machine(2, member=False)
    learner.active = True
    old = begun(learner, "e7")
    await phase(lab.hosts(lab.machine(1), learner)).run(Events())
    assert learner.done == ["stop"]
    [permit] = lab.etcd.permits
    assert permit != old


async def test_one_that_begins_while_it_is_stopped_keeps_what_it_has(lab: Lab) -> None:
    lab.etcd.add_voter(1)
    lab.etcd.announce(2)

    class Beginning(Machine):
        async def run(self, argv: Any, **options: Any) -> Completed:
            if tuple(argv)[:2] == ("systemctl", "stop"):
                self.files[MEMBER_DIR] = FileWrite(MEMBER_DIR, b"")
            return await super().run(argv, **options)

    blank, learner = lab.machine(2, member=False), Beginning(lab.etcd, 2)
    learner.files, learner.active = blank.files, True
    begun(learner)
    await phase(lab.hosts(lab.machine(1), learner)).run(Events())
    assert learner.done == ["stop"]
    assert lab.etcd.permits == []


async def test_data_of_another_membership_goes_away_only_when_nothing_writes_it(lab: Lab) -> None:
    lab.etcd.add_voter(1)
    lab.etcd.announce(2)
    learner = lab.machine(2)
    await phase(lab.hosts(lab.machine(1), learner)).run(Events())
    assert learner.done == ["stop", "move data away"]
    assert len(lab.etcd.permits) == 1


async def test_a_member_without_its_data_is_a_new_one(lab: Lab) -> None:
    for number in (1, 2, 3):
        lab.etcd.add_voter(number)
    blank = lab.machine(3, member=False)
    lab.etcd.ill.add("192.0.2.3")

    class Healing(EtcdHosts):
        """etcd's third member serves when it has started anew."""

        async def looks(self) -> Any:
            if MEMBER_DIR in blank.files or not lab.etcd.of("192.0.2.3"):
                lab.etcd.ill.clear()
            return await super().looks()

    known = lab.hosts(lab.machine(1), lab.machine(2), blank)
    await phase(Healing(known.nodes, known.certificates_dir)).run(Events())
    [member] = lab.etcd.of("192.0.2.3")
    assert member["ID"] != "3"
    assert member["name"] == "e3"


async def test_data_of_one_that_has_left_is_not_let_in(lab: Lab) -> None:
    lab.etcd.add_voter(1)
    with pytest.raises(HostError, match="data of a member that has left") as caught:
        await phase(lab.hosts(lab.machine(1), lab.machine(2))).look()
    assert f"mv {MEMBER_DIR}" in caught.value.hint
    assert "add" not in lab.etcd.asked


async def test_an_etcd_that_takes_nobody_in_is_explained(lab: Lab) -> None:
    """A voter is away whose host only cannot be reached just now."""
    lab.etcd.add_voter(1)
    lab.etcd.add_voter(2)
    lab.etcd.add_voter(3)
    lab.etcd.ill.add("192.0.2.3")
    hosts = lab.hosts(lab.machine(1), lab.machine(2), lab.machine(4, member=False))
    with pytest.raises(WaitTimeoutError) as caught:
        await phase(hosts, ["e3"], patience=0.3).run(Events())
    assert "while one of its members is away" in caught.value.hint


async def test_a_unit_is_started_with_data_and_only_enabled_without(lab: Lab) -> None:
    blank, stopped = lab.machine(1, member=False), lab.machine(2)
    stopped.active = False
    for machine in (blank, stopped):
        [node] = lab.hosts(machine).nodes
        assert await EtcdUnit(node, b"another unit").run(Events())
        assert machine.files[UNIT_PATH].data == b"another unit"
        assert await EtcdUnit(node, b"another unit").run(Events()) == []
    assert (blank.active, stopped.active) == (False, True)
    found = await look_at(lab.hosts(stopped).nodes[0])
    assert (found.has_unit, found.has_data, found.settled, found.active) == (True, True, True, True)
    assert DATA_DIR in MEMBER_DIR
    assert UNIT in UNIT_PATH


# -- restarts -------------------------------------------------------------------------------------------------


def stale(lab: Lab, members: int, *, dead: Sequence[int] = (), absent: Sequence[int] = ()) -> list[Machine]:
    """Hosts whose members are to be restarted, of an etcd some of whose members or whole hosts are down."""
    for number in range(1, members + 1):
        lab.etcd.add_voter(number)
    lab.etcd.ill |= {f"192.0.2.{number}" for number in (*dead, *absent)}
    machines = [lab.machine(number) for number in range(1, members + 1) if number not in absent]
    for machine in machines:
        machine.stale = True
    return machines


async def restart(lab: Lab, machines: Sequence[Machine], which: int = 0) -> None:
    hosts = lab.hosts(*machines)
    await EtcdRestart(hosts, hosts.nodes[which], deadline=0.3).run(Events())


@pytest.mark.parametrize("members", [1, 2, 3])
async def test_a_member_restarts_when_all_others_serve(lab: Lab, members: int) -> None:
    machines = stale(lab, members)
    await restart(lab, machines)
    assert [machine.done for machine in machines] == [["restart"], *[[]] * (members - 1)]


async def test_no_member_restarts_that_the_majority_needs(lab: Lab) -> None:
    """Of three the host of one is gone: another one less, and the last would serve nobody."""
    machines = stale(lab, 3, absent=[3])
    with pytest.raises(HostError, match=r"e1: etcd cannot restart, .*: e3 does not serve") as caught:
        await restart(lab, machines)
    assert caught.value.hint.startswith("start e3, or replace it, first")
    assert [machine.done for machine in machines] == [[], []]


async def test_a_majority_that_is_left_is_enough(lab: Lab) -> None:
    machines = stale(lab, 5, absent=[5])
    await restart(lab, machines)
    assert machines[0].done == ["restart"]


async def test_one_that_does_not_come_back_stops_the_others_restart(lab: Lab) -> None:
    """What was wrong with it may be wrong with all of them."""
    machines = stale(lab, 5, dead=[1])
    with pytest.raises(WaitTimeoutError, match="e2: the other members of etcd to serve"):
        await restart(lab, machines, 1)
    assert machines[1].done == []


async def test_a_member_that_does_not_serve_is_missed_by_nobody(lab: Lab) -> None:
    machines = stale(lab, 3, dead=[1], absent=[3])
    with pytest.raises(WaitTimeoutError, match="e1: etcd to serve again"):
        await restart(lab, machines)
    assert machines[0].done == ["restart"]


# -- an etcd of the user's own --------------------------------------------------------------------------------


async def test_endpoints_are_asked_and_strangers_are_not_trusted(lab: Lab) -> None:
    lab.etcd.add_voter(1)
    [node] = lab.hosts(lab.machine(5)).nodes
    keys = Credentials(lab.ca.cert, lab.pair.cert, lab.pair.key)
    good = await ask(node, "https://192.0.2.1:2379", keys)
    assert (good.trouble, good.version, good.voters, good.members) == ("", "3.4.23", 1, frozenset({1}))
    unnamed = await ask(node, "https://192.0.2.99:2379", keys)
    assert unnamed.untrusted
    other = x509.self_signed_ca(CertSpec("o", "o", "o"), x509.new_key(), datetime.now(UTC))
    stranger = await ask(node, "https://192.0.2.1:2379", Credentials(other.cert, lab.pair.cert, lab.pair.key))
    assert stranger.untrusted
    lab.etcd.ill.add("192.0.2.1")
    ill = await ask(node, "https://192.0.2.1:2379", keys)
    assert ill.trouble
    assert not ill.untrusted


def test_files_that_prove_nothing_are_named(lab: Lab) -> None:
    check_credentials(Credentials(lab.ca.cert, lab.pair.cert, lab.pair.key), "a", "b")
    with pytest.raises(ConfigError, match="b: the key is not this certificate's"):
        check_credentials(Credentials(lab.ca.cert, lab.pair.cert, lab.ca.key), "a", "b")
    with pytest.raises(ConfigError, match="a: not a PEM certificate"):
        check_credentials(Credentials(b"x", lab.pair.cert, lab.pair.key), "a", "b")


async def test_a_control_plane_keeps_its_own_files_or_gets_those_of_another(lab: Lab) -> None:
    external = ExternalEtcd(ca_file="/e/ca.crt", cert_file="/e/c.crt", key_file="/e/c.key")
    first, second, third = (lab.machine(number) for number in (1, 2, 3))
    nodes = lab.hosts(first, second, third).nodes
    with pytest.raises(HostError, match=r"e1: /e/ca.crt, /e/c.crt, /e/c.key missing"):
        await host_credentials(nodes, external)
    for path, content in (("/e/ca.crt", b"ca"), ("/e/c.crt", b"2"), ("/e/c.key", b"key")):
        second.files[path] = FileWrite(path, content)
    found = await host_credentials(nodes, external)
    assert [found[name].cert for name in ("e1", "e2", "e3")] == [b"2", b"2", b"2"]
    third.files["/e/c.crt"] = FileWrite("/e/c.crt", b"3")
    with pytest.raises(HostError, match=r"e3: /e/ca.crt, /e/c.key missing"):
        await host_credentials(nodes, external)
