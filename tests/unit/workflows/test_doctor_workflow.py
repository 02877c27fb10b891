"""The two looks of `doctor`, its bundle, and its fixes."""

from __future__ import annotations

import json
import stat
import tarfile
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.unit.model.doctor.doctor_world import (
    NOW,
    asked,
    facts,
    node,
    objects,
    runtime,
    seen,
    server,
    unit,
    with_files,
    without,
)
from tests.unit.phases.memory_host import MemoryHost

from kubewright.errors import ConfigError, ExitCode, HostError
from kubewright.events import Activity, Event, Events, Kind
from kubewright.hosts import Host
from kubewright.model.doctor.facts import DoctorFacts, NodeFacts
from kubewright.model.doctor.finding import Finding, Fix, Severity
from kubewright.model.doctor.look import Look
from kubewright.model.doctor.plan import CONNECTIONS, Plan
from kubewright.model.doctor.probes import Probed, Question
from kubewright.model.kubelet import CONFIG_PATH
from kubewright.phases import doctor_fixes
from kubewright.phases.phase import Action, Change, Phase
from kubewright.workflows import doctor, doctor_fix
from kubewright.workflows.doctor import Doctor, Examination, examined, planned
from kubewright.workflows.doctor_bundle import contents, write_bundle
from kubewright.workflows.doctor_fix import offered, repair

STOPPED = {"kubelet": unit(active="inactive", sub="dead", up=None), "containerd": unit()}


class Looks(Doctor):
    """A doctor to whom each look shows the next of these facts."""

    def __init__(self, *all_facts: DoctorFacts, whole: bool = True) -> None:
        super().__init__([], whole=whole)
        self.facts: Iterator[DoctorFacts] = iter(all_facts)
        self.looks = 0

    async def ask(self, _activity: Activity, *, again: bool = False) -> DoctorFacts:
        self.looks += 1
        return next(self.facts)

    async def probe(self, facts: DoctorFacts) -> DoctorFacts:
        return facts


@pytest.fixture(autouse=True)
def no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "PAUSE", 0.0)


async def test_a_healthy_cluster_is_looked_at_once() -> None:
    one = Looks(facts())
    found = await one.examine(Events())
    assert (found.findings, found.exit_code, found.severity, one.looks) == ((), ExitCode.OK, None, 1)


async def test_what_has_passed_by_the_second_look_is_not_reported() -> None:
    one = Looks(facts([seen("w1", units=STOPPED)]), facts())
    assert (await one.examine(Events())).findings == ()
    assert one.looks == 2


async def test_what_only_the_second_look_finds_is_not_reported_yet() -> None:
    one = Looks(facts([seen("w1", units=STOPPED)]), facts([seen("cp1", units=STOPPED)]))
    assert (await one.examine(Events())).findings == ()


async def test_what_stays_is_reported_with_the_exit_code_of_the_worst() -> None:
    broken = facts([seen("w1", units=STOPPED)])
    found = await Looks(broken, broken).examine(Events())
    assert [one.kind for one in found.findings] == ["kubelet-stopped"]
    assert found.exit_code is ExitCode.DOCTOR_FOUND
    warned = facts([seen("w1", nameservers=("127.0.0.53",))])
    assert (await Looks(warned, warned).examine(Events())).exit_code is ExitCode.DOCTOR_WARNED


async def test_a_container_that_is_down_in_one_look_and_silent_in_the_other_is_reported() -> None:
    silent = [server("cp1", error="nothing listens there"), server("cp2"), server("cp3")]
    down = facts([seen("cp1", without("cp1", "kube-apiserver"))], servers=silent)
    runs = facts(servers=silent)
    for looks in ((down, runs), (runs, down)):
        assert [(one.kind, one.hosts) for one in (await Looks(*looks).examine(Events())).findings] == [
            ("api-silent", ("cp1",))
        ]


async def test_one_host_without_anything_of_a_cluster_is_refused() -> None:
    bare = replace(
        facts(), nodes=(NodeFacts("here", look=Look(complete=True)),), asked=replace(asked(), etcd=())
    )
    with pytest.raises(HostError, match="nothing of a cluster") as caught:
        await Looks(bare, whole=False).examine(Events())
    assert caught.value.exit_code is ExitCode.FAILURE


def phases(told: Sequence[Event], kind: Kind = Kind.PHASE_STARTED) -> list[str]:
    return [one.name for one in told if one.kind is kind]


async def test_each_stage_is_told() -> None:
    told: list[Event] = []
    await Looks(facts()).examine(Events(told.append))
    assert phases(told) == ["doctor-ask", "doctor-packets"]
    told.clear()
    broken = facts([seen("w1", units=STOPPED)])
    await Looks(broken, broken).examine(Events(told.append))
    assert phases(told) == ["doctor-ask", "doctor-packets", "doctor-again"]
    ends = (Kind.PHASE_DONE, Kind.PHASE_SKIPPED)
    assert [one.name for one in told if one.kind in ends] == phases(told)


async def test_nobody_is_said_to_have_sent_packets_where_none_were_sent() -> None:
    told: list[Event] = []
    await Looks(facts()).examine(Events(told.append))
    assert phases(told, Kind.PHASE_SKIPPED) == ["doctor-packets"]
    told.clear()
    sent = facts()
    sent = replace(sent, nodes=tuple(replace(one, probed=Probed()) for one in sent.nodes))
    await Looks(sent).examine(Events(told.append))
    [end] = [one for one in told if one.name == "doctor-packets" and one.kind is Kind.PHASE_DONE]
    assert end.message == "packets from 4 nodes"


async def test_hosts_are_let_go_within_the_workflow() -> None:
    """To end a connection to a frozen host takes seconds, in which a terminal must not be blank."""
    told: list[Event] = []
    events = Events(told.append)

    @asynccontextmanager
    async def opened() -> AsyncIterator[Doctor]:
        yield Looks(facts())
        events.note("closed")

    found = await examined(opened(), events)
    assert found.findings == ()
    order = [one.name or one.message for one in told]
    assert (order[0], order[-1]) == ("doctor", "doctor")
    assert order.index("doctor-close") < order.index("closed")
    assert told[-1].message == "nothing is wrong"


async def test_hosts_are_let_go_where_the_examination_fails() -> None:
    closed: list[bool] = []
    bare = replace(
        facts(), nodes=(NodeFacts("here", look=Look(complete=True)),), asked=replace(asked(), etcd=())
    )

    @asynccontextmanager
    async def opened() -> AsyncIterator[Doctor]:
        try:
            yield Looks(bare, whole=False)
        finally:
            closed.append(True)

    with pytest.raises(HostError, match="nothing of a cluster"):
        await examined(opened(), Events())
    assert closed == [True]


def test_the_document_says_who_was_asked() -> None:
    silent = NodeFacts("w1", error="no answer within 6 s")
    found = Examination((Finding("host-silent", Severity.ERROR, "it is silent", ("w1",)),), facts([silent]))
    document = json.loads(json.dumps(found.as_dict()))
    assert (document["healthy"], document["severity"], document["apiRead"]) == (False, "error", True)
    assert document["hosts"][3] == {
        "name": "w1", "answers": False, "controlPlane": False, "error": "no answer within 6 s",
    }  # fmt: skip
    assert document["findings"][0]["hosts"] == ["w1"]


# -- the bundle --------------------------------------------------------------------------------------------------


def test_a_bundle_holds_what_was_seen_and_no_secret(tmp_path: Path) -> None:
    secret = "abcdef.0123456789abcdef"
    pod = {"metadata": {"name": "x", "namespace": "kube-system"}, "spec": {"containers": [
        {"env": [{"name": "A", "value": "hunter2"}]}]}}  # fmt: skip
    maps = [
        {"metadata": {"name": "kubeadm-config"}, "data": {"ClusterConfiguration": f"token: {secret}"}},
        {"metadata": {"name": "somebodys"}, "data": {"x": "y"}},
    ]
    host = replace(node("w1"), raw=f"@@ journal\n join --token {secret}\n")
    found = Examination((), facts([host], objects=replace(objects(), pods=[pod]), config_maps=maps))
    path = tmp_path / "bundle.tar.gz"
    write_bundle(path, contents(found))
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    with tarfile.open(path) as archive:
        texts = {
            one.name: (archive.extractfile(one) or pytest.fail()).read().decode()
            for one in archive.getmembers()
        }
    names = {name.removeprefix("kubewright-doctor/") for name in texts}
    assert {
        "report.json",
        "status.json",
        "nodes.json",
        "hosts/w1/look.txt",
        "config-maps/kubeadm-config.json",
    } <= names
    assert "config-maps/somebodys.json" not in names
    everything = "".join(texts.values())
    assert "0123456789abcdef" not in everything
    assert "hunter2" not in everything
    assert "@@ journal" in everything


def test_a_file_that_exists_is_not_written_over(tmp_path: Path) -> None:
    path = tmp_path / "mine"
    path.write_text("mine")
    with pytest.raises(ConfigError, match="exists already"):
        write_bundle(path, {})
    assert path.read_text() == "mine"
    with pytest.raises(ConfigError, match="No such file"):
        write_bundle(tmp_path / "none" / "x", {})


# -- fixes --------------------------------------------------------------------------------------------------------


def test_each_fix_is_offered_once() -> None:
    fix = Fix("free-addresses", "free", "w1", ("cbr0",))
    found = [Finding("x-y", Severity.ERROR, "it is broken", fixes=(fix,))] * 2
    assert offered(found) == [fix]


class Noted(Phase):
    """Writes down where it was run."""

    name, title = "noted", "Note it"

    def __init__(self, host: Host, done: list[str]) -> None:
        self.host_name = host.name
        self._done = done

    async def look(self) -> Sequence[Change]:
        return [Change(Action.RUN, "x", self.host_name)]

    async def act(self, changes: Sequence[Change], activity: Any) -> None:
        if self.host_name == "cp2":
            raise HostError("cp2 is away", host="cp2")
        self._done.append(self.host_name)


async def test_fixes_are_done_on_their_hosts_and_one_failure_stops_no_other(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    done: list[str] = []
    sockets: list[str] = []

    async def phase_of(_fix: Fix, host: Host, socket: str) -> Phase:
        sockets.append(socket)
        return Noted(host, done)

    monkeypatch.setattr(doctor_fix, "phase_of", phase_of)

    def opener(name: str) -> Callable[[], Host]:
        def open_() -> Host:
            host = MemoryHost()
            host.name = name
            return host

        return open_

    command = ("kubelet", "--container-runtime-endpoint=unix:///run/crio.sock")
    known = facts([seen(name, command=command) for name in ("cp1", "cp2", "w1")])
    fixes = [Fix("free-addresses", "x", name, ("cbr0",)) for name in ("cp1", "cp2", "w1")]
    told: list[Event] = []
    await repair(fixes, {name: opener(name) for name in ("cp1", "cp2", "w1")}, known, Events(told.append))
    assert (told[0].kind, told[0].message) == (Kind.WORKFLOW_STARTED, "mend 3 things")
    [warning] = [event for event in told if event.kind is Kind.WARNING]
    assert (warning.host, warning.message) == ("cp2", "not done: x: cp2 is away")
    assert sorted(done) == ["cp1", "w1"]
    assert set(sockets) == {"/run/crio.sock"}


def test_the_world_is_at_rest() -> None:
    assert facts().now == NOW
    assert runtime("w1").answers
    assert doctor_fixes.ACCOUNTING_DROP_IN.startswith(b"[Service]")


# -- packets ------------------------------------------------------------------------------------------------------


def test_packets_are_sent_to_whom_the_api_lists_in_the_kubelets_domain() -> None:
    meta = {"name": "kube-dns", "namespace": "kube-system"}
    services = [{"metadata": meta, "spec": {"clusterIP": "10.96.0.10", "ports": [{"port": 53}]}}]
    assert planned(facts()) == Plan()
    assert planned(facts(objects=None, services=services)) == Plan()
    config = {CONFIG_PATH: "clusterDomain: example.org\n"}
    found = planned(facts([with_files("cp1", config)], services=services))
    assert [one.name for one in found.services] == ["kube-system/kube-dns"]
    assert found.name == "kubernetes.default.svc.example.org"


def test_a_host_that_was_named_by_its_address_is_the_node_of_its_hostname() -> None:
    world = facts([replace(seen("w1"), name="192.168.7.11"), replace(seen("w1", hostname="lb"), name="lb")])
    assert [world.node_name(one) for one in world.nodes] == ["cp1", "cp2", "cp3", "w1", "w1", ""]


class Asked:
    """A host that notes what it is asked to send."""

    def __init__(self, name: str) -> None:
        self.name, self.source = name, None
        self.asked: list[str] = []
        self.probed: Probed | None = None

    async def probe(self, asked: Sequence[Question]) -> None:
        self.asked = [one.kind for one in asked]
        self.probed = Probed(dns=("answer 0",))


async def test_nodes_that_answer_send_and_others_are_not_asked_to() -> None:
    meta = {"name": "kube-dns", "namespace": "kube-system"}
    ports, ways = [{"port": 53}], [{"port": 53}]
    service = {"metadata": meta, "spec": {"clusterIP": "10.96.0.10", "ports": ports}}
    behind = {"metadata": meta, "subsets": [{"addresses": [{"ip": "10.244.0.2"}], "ports": ways}]}
    world = facts(
        [NodeFacts("w1", error="silent"), replace(seen("w1", hostname="lb"), name="lb")],
        services=[service],
        endpoints=[behind],
    )
    hosts = [Asked(one.name) for one in world.nodes]
    found = await Doctor(hosts).probe(world)  # type: ignore[arg-type]
    assert [one.asked for one in hosts] == [["tcp", *["tcp"] * CONNECTIONS, *["dns"] * 3]] * 3 + [[], []]
    assert [one.probed is not None for one in found.nodes] == [True] * 3 + [False] * 2
    assert found.plan.dns == "10.96.0.10"
