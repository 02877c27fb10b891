"""Whom `status` asks, what it takes for an answer, and when it gives up."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest

from kubewright.clients.etcd import Alarm, EtcdError, Member, Status
from kubewright.clients.server import Server
from kubewright.errors import ApiError, ExitCode, HostError, KubewrightError
from kubewright.model.node import ControlPlaneNode
from kubewright.model.status_api import ApiAnswer
from kubewright.model.status_etcd import ListedMember, MemberAnswer, MemberWords
from kubewright.model.status_hosts import HostStatus
from kubewright.model.status_look import EtcdWay, HostLook
from kubewright.workflows import status, status_ask
from kubewright.workflows.status import StatusReader
from kubewright.workflows.status_ask import ask_api, ask_member, bounded, reason
from kubewright.workflows.status_host import HostRead

READY = "[+]ping ok\nreadyz check passed"
NODE = {
    "metadata": {"name": "cp1", "labels": {}},
    "status": {"conditions": [{"type": "Ready", "status": "True"}]},
}
WAY = EtcdWay(("https://127.0.0.1:2379",), "ca", "cert", "key", external=False)


class Api:
    """An API server: it answers, refuses, or is silent."""

    def __init__(
        self, url: str, *, readyz: str = READY, error: KubewrightError | None = None, silent: bool = False,
        lists: Callable[[], Any] | None = None,
    ) -> None:  # fmt: skip
        self.server = Server(url, b"ca", b"cert", b"key")
        self._readyz, self._error, self._silent, self._lists = readyz, error, silent, lists
        self.listed = 0
        self.said_at: datetime | None = None
        self.leases: list[Any] = []
        self.forbidden = ""

    async def __aenter__(self) -> Api:
        return self

    async def __aexit__(self, *_: object) -> None: ...

    async def json(self, *_: Any, **__: Any) -> Any:
        await self._speak()
        return {"gitVersion": "v1.20.2"}

    async def readyz(self, **_: Any) -> str:
        await self._speak()
        return self._readyz

    async def list(self, _version: str, kind: str, *_: Any) -> list[Any]:
        self.listed += 1
        if self._lists is not None:
            await self._lists()
        if kind == self.forbidden:
            raise ApiError("forbidden", status=403)
        return {"Node": [NODE], "Lease": self.leases}.get(kind, [])

    async def get(self, _version: str, kind: str, name: str, _namespace: str = "") -> Any:
        return {"kind": kind, "metadata": {"name": name}}

    async def _speak(self) -> None:
        if self._silent:
            await asyncio.sleep(60)
        if self._error is not None:
            raise self._error


class Source:
    """A host that says what it is told to say."""

    is_control_plane, is_etcd_host = True, False
    address = "10.0.0.9"

    def __init__(self, read: HostRead, kube: Api | None = None) -> None:
        self.name = read.status.name
        self._result, self._kube = read, kube
        self.others: list[ListedMember] = []
        self.closed = False

    async def read(self, entry: Callable[..., None], *, again: bool = False) -> HostRead:
        entry(self._kube, self._result.server if self._kube else None)
        return self._result

    async def ask_others(self, members: list[ListedMember]) -> list[MemberAnswer]:
        self.others = members
        return [MemberAnswer(one.name, MemberWords(one.id, leader=1)) for one in members]

    async def close(self) -> None:
        self.closed = True


def up(name: str, *, etcd: MemberAnswer | None = None) -> HostRead:
    url = f"https://{name}:6443"
    return HostRead(
        HostStatus(name, answers=True, control_plane=True, joined=True, containers=()),
        look=HostLook(True, ControlPlaneNode(name, name), "", WAY),
        server=ApiAnswer(name, url, 2.0, "v1.20.2", READY),
        etcd=[etcd] if etcd else [],
    )


def down(name: str) -> HostRead:
    problems = ("does not answer over SSH within 6 s",)
    error = HostError(f"{name} does not answer over SSH within 6 s", host=name)
    return HostRead(HostStatus(name, answers=False, control_plane=True, problems=problems), error)


def reader(
    monkeypatch: pytest.MonkeyPatch, here: list[Api] | None = None, sources: list[Source] | None = None
) -> StatusReader:
    apis = here or []
    monkeypatch.setattr(
        status, "KubeClient", lambda server: next(one for one in apis if one.server is server)
    )
    monkeypatch.setattr(status, "_sources", lambda _spec: sources or [])
    spec: Any = object() if sources else None
    return StatusReader([api.server for api in apis], spec)


# -- who is asked for the objects ---------------------------------------------------------------------------------


async def test_a_server_that_is_ready_is_asked_rather_than_one_that_is_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ill, well = Api("https://cp1:6443", readyz="[-]etcd failed"), Api("https://cp2:6443")
    async with reader(monkeypatch, [ill], [Source(up("cp2"), well)]) as found:
        report = await found.read()
    assert (ill.listed, report.cluster.server) == (0, "https://cp2:6443")


async def test_one_that_is_not_ready_is_better_than_none(monkeypatch: pytest.MonkeyPatch) -> None:
    ill = Api("https://cp1:6443", readyz="[-]poststarthook/x failed")
    async with reader(monkeypatch, [ill]) as found:
        report = await found.read()
    assert report.has_objects
    assert [node.name for node in report.cluster.nodes] == ["cp1"]
    assert not report.healthy


async def test_a_silent_server_does_not_hold_up_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(status_ask, "ASK", 0.2)
    silent, well = Api("https://lb:6443", silent=True), Api("https://cp1:6443")
    async with asyncio.timeout(5), reader(monkeypatch, [silent], [Source(up("cp1"), well)]) as found:
        report = await found.read()
    assert report.has_objects
    assert report.endpoint[0].detail == "no answer within 0.2 s"


async def test_objects_that_do_not_come_are_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(status, "_OBJECTS", 0.1)
    stuck = Api("https://cp1:6443", lists=lambda: asyncio.sleep(60))
    async with asyncio.timeout(5), reader(monkeypatch, [], [Source(up("cp1"), stuck)]) as found:
        report = await found.read()
    assert not report.has_objects
    assert any("has not listed nodes and pods within 0.1 s" in line for line in report.problems)


async def test_two_kubeconfigs_with_one_address_are_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    old = Api("https://lb:6443", error=ApiError("GET /version: 401 Unauthorized", status=401))
    async with reader(monkeypatch, [Api("https://lb:6443"), old]) as found:
        report = await found.read()
    assert [(one.url, one.detail) for one in report.endpoint] == [("https://lb:6443", "")]
    assert report.has_objects


async def test_leases_are_as_old_as_the_cluster_says(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the operator's own clock is wrong."""
    spec = {"holderIdentity": "cp1_0", "renewTime": "2020-01-01T00:00:00.000000Z", "leaseDurationSeconds": 15}
    api = Api("https://cp1:6443")
    api.leases = [{"metadata": {"name": "kube-scheduler"}, "spec": spec}]
    for said, leader in ((None, ""), (datetime(2020, 1, 1, 0, 0, 3, tzinfo=UTC), "cp1")):
        api.said_at = said
        async with reader(monkeypatch, [api]) as found:
            [row] = (await found.read()).leaders
        assert row.holder == leader


# -- what hosts cannot say ----------------------------------------------------------------------------------------


async def test_the_member_of_a_dead_host_is_asked_over_another(monkeypatch: pytest.MonkeyPatch) -> None:
    listed = (ListedMember(1, "cp1"), ListedMember(2, "cp2", client_urls=("https://10.0.0.9:2379",)))
    alive = Source(
        up("cp1", etcd=MemberAnswer("cp1", MemberWords(1, leader=1), listed=listed)), Api("https://cp1:6443")
    )
    monkeypatch.setattr(StatusReader, "_ask_from_here", _nobody)
    async with reader(monkeypatch, [], [Source(down("cp2")), alive]) as found:
        report = await found.read()
    assert [one.name for one in alive.others] == ["cp2"]
    assert report.etcd is not None
    assert report.etcd.answering == 2
    assert report.problems[0] == "host cp2: does not answer over SSH within 6 s"
    assert alive.closed


async def test_who_is_asked_for_a_dead_host_is_not_asked_after_the_objects(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked = asyncio.Event()

    async def from_here(_self: StatusReader, source: Any, _reads: Any) -> ApiAnswer:
        asked.set()
        return ApiAnswer(source.name, "https://10.0.0.9:6443", error="no connection can be made")

    monkeypatch.setattr(StatusReader, "_ask_from_here", from_here)
    # Its lists come only when the dead host's server has been asked about.
    alive = Source(up("cp1"), Api("https://cp1:6443", lists=asked.wait))
    async with asyncio.timeout(10), reader(monkeypatch, [], [Source(down("cp2")), alive]) as found:
        report = await found.read()
    assert report.has_objects


async def test_a_member_that_its_own_host_could_not_reach_is_not_asked_twice(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    listed = (ListedMember(1, "cp1"), ListedMember(2, "cp2", client_urls=("https://10.0.0.9:2379",)))
    one = Source(
        up("cp1", etcd=MemberAnswer("cp1", MemberWords(1, leader=1), listed=listed)), Api("https://cp1:6443")
    )
    two = Source(up("cp2", etcd=MemberAnswer("cp2", error="nothing listens there")))
    async with reader(monkeypatch, [], [one, two]) as found:
        report = await found.read()
    assert one.others == []
    assert "etcd member cp2: does not answer: nothing listens there" in report.problems


async def test_etcd_on_hosts_of_its_own_is_asked_there(monkeypatch: pytest.MonkeyPatch) -> None:
    url = "https://10.0.0.7:2379"
    listed = (ListedMember(1, "e1", client_urls=(url,)),)
    words = MemberWords(1, leader=1)
    plane, etcd = up("cp1", etcd=MemberAnswer(url, words, listed=listed)), up("e1")
    etcd.server, etcd.etcd = None, [MemberAnswer("e1", words, listed=listed)]
    host = Source(etcd)
    host.is_control_plane, host.is_etcd_host = False, True
    async with reader(monkeypatch, [], [Source(plane, Api("https://cp1:6443")), host]) as found:
        report = await found.read()
    assert report.etcd is not None
    assert (report.etcd.external, [row.name for row in report.etcd.members]) == (True, ["e1"])
    host._result = down("e1")
    async with reader(monkeypatch, [], [Source(plane, Api("https://cp1:6443")), host]) as found:
        report = await found.read()
    assert report.etcd is not None
    assert report.etcd.answering == 1, "a control plane has asked it, too"


async def _nobody(_self: StatusReader, source: Any, _reads: Any) -> ApiAnswer:
    return ApiAnswer(source.name, "https://10.0.0.9:6443", error="no connection can be made")


# -- where nobody says anything -----------------------------------------------------------------------------------


async def test_a_kubeconfig_whose_server_is_silent_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    gone = ApiError("GET https://cp1:6443/version: refused")
    async with reader(monkeypatch, [Api("https://cp1:6443", error=gone)]) as found:
        with pytest.raises(ApiError) as caught:
            await found.read()
    assert caught.value is gone


async def test_a_user_who_may_not_see_nodes_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    async def forbidden() -> None:
        raise ApiError("GET /api/v1/nodes: 403 forbidden", status=403)

    async with reader(monkeypatch, [Api("https://cp1:6443", lists=forbidden)]) as found:
        with pytest.raises(ApiError, match="403"):
            await found.read()


async def test_hosts_that_are_all_silent_are_an_error_of_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    async with reader(monkeypatch, [], [Source(down("cp1")), Source(down("cp2"))]) as found:
        with pytest.raises(HostError, match="cp1 does not answer") as caught:
            await found.read()
    assert caught.value.evidence == (
        "host cp1: does not answer over SSH within 6 s",
        "host cp2: does not answer over SSH within 6 s",
    )


async def test_a_worker_alone_cannot_say_how_the_cluster_is(monkeypatch: pytest.MonkeyPatch) -> None:
    worker = HostRead(
        HostStatus("w1", answers=True, joined=True), look=HostLook(True, None, "https://lb:6443", None)
    )
    async with reader(monkeypatch, [], [Source(down("cp1")), Source(worker)]) as found:
        with pytest.raises(HostError, match="cp1 does not answer"):
            await found.read()


async def test_hosts_without_a_cluster_say_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    bare = HostRead(HostStatus("cp1", answers=True, control_plane=True))
    async with reader(monkeypatch, [], [Source(bare)]) as found:
        with pytest.raises(HostError, match="no cluster has been made here yet") as caught:
            await found.read()
    assert caught.value.exit_code is ExitCode.FAILURE


async def test_one_host_with_a_cluster_is_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    read = up("cp1")
    read.server = ApiAnswer("cp1", "https://cp1:6443", error="nothing listens there")
    monkeypatch.setattr(StatusReader, "_ask_from_here", _nobody)
    async with reader(monkeypatch, [], [Source(read), Source(down("cp2"))]) as found:
        report = await found.read()
    assert not report.has_objects
    assert [one.detail for one in report.servers] == [
        "nothing listens there; there is no container of it", "no connection can be made",
    ]  # fmt: skip


# -- single questions ---------------------------------------------------------------------------------------------


class Etcd:
    """One member, and what it does without a majority."""

    def __init__(self, *, majority: bool = True, error: str = "") -> None:
        self._majority, self._error = majority, error

    async def status(self, url: str) -> Status:
        if self._error:
            raise EtcdError(f"etcd at {url}: {self._error}")
        return Status(url, 1, "3.4.23", 1 if self._majority else 0, False, 100, 50, 2, 10, 10, ())

    async def health(self, _url: str) -> str:
        return "" if self._majority else "etcd at u: RAFT NO LEADER"

    async def members(self, *, linearizable: bool = True) -> list[Member]:
        assert not linearizable, "without a majority nobody answers that"
        return [Member(1, "cp1", ("p",), ("c",), False)]

    async def alarms(self) -> list[Alarm]:
        if not self._majority:
            await asyncio.sleep(60)
        return [Alarm(1, "NOSPACE")]


async def test_a_member_answers_with_and_without_a_majority(monkeypatch: pytest.MonkeyPatch) -> None:
    etcd: Any = Etcd()
    found = await ask_member(etcd, "u", "cp1")
    assert found.words is not None
    assert (found.words.leader, found.alarms, found.ill) == (1, {1: ("NOSPACE",)}, "")
    monkeypatch.setattr(bounded, "__defaults__", (0.1,))
    alone: Any = Etcd(majority=False)
    found = await ask_member(alone, "u", "cp1")
    assert found.words is not None
    assert (found.words.leader, found.alarms, found.ill) == (0, {}, "RAFT NO LEADER")
    assert [one.name for one in found.listed] == ["cp1"]


async def test_a_silent_member_says_why() -> None:
    etcd: Any = Etcd(error="Cannot connect to host 127.0.0.1:4711 ssl:default [None]")
    assert (await ask_member(etcd, "u", "cp1")).error == "nothing listens there"


async def test_a_server_that_does_not_know_us_answers() -> None:
    api: Any = Api("https://cp1:6443", error=ApiError("GET /version: 401 Unauthorized", status=401))
    answer, error = await ask_api(api, "cp1")
    assert answer.milliseconds is not None
    assert error is not None
    assert answer.error == "401 Unauthorized"


@pytest.mark.parametrize(
    ("message", "says"),
    [
        ("Cannot connect to host 127.0.0.1:4711 ssl:<ssl.SSLContext object> [None]", "nothing listens there"),
        ("Server disconnected", "nothing listens there"),
        ("Connection timeout to host https://127.0.0.1:43379/v3/maintenance/status", "no answer within 4 s"),
        ("Cannot connect to host 10.0.0.1:6443 ssl:default [Connect call failed ('10.0.0.1', 6443)]",
         "no connection can be made"),
        ("Cannot connect to host a:1 ssl:True [SSLCertVerificationError: certificate has expired]",
         "SSLCertVerificationError: certificate has expired"),
        ("Cannot connect to host 10.0.0.5:6443 ssl:True [SSLCertVerificationError: (1, '[SSL: CERTIFICATE_VERIFY_"
         "FAILED] certificate verify failed: self-signed certificate in certificate chain (_ssl.c:992)')]",
         "its certificate is not accepted: self-signed certificate in certificate chain"),
        ("503 Service Unavailable", "503 Service Unavailable"),
    ],
)  # fmt: skip
def test_reasons_are_without_our_own_addresses(message: str, says: str) -> None:
    assert reason(message) == says


# -- facts for others ----------------------------------------------------------------------------------------


async def test_facts_are_given_also_where_nobody_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    source = Source(down("cp1"))
    source.is_control_plane = False  # its server is not asked from here
    one = reader(monkeypatch, [Api("https://cp1:6443", error=ApiError("away"))], [source])
    async with one:
        with pytest.raises(KubewrightError):
            await one.read()
        found = await one.facts()
    assert found.objects is None
    assert [host.answers for host in found.hosts] == [False]


@pytest.mark.parametrize("asked", [True, False])
async def test_config_maps_are_read_for_those_who_ask(asked: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    api = Api("https://cp1:6443")
    monkeypatch.setattr(status, "KubeClient", lambda _server: api)
    async with StatusReader([api.server], config_maps=asked) as one:
        await one.facts()
    assert api.listed == 5 + 2 * asked


async def test_services_are_read_with_config_maps_unless_policies_may_not_be(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    api = Api("https://cp1:6443")
    monkeypatch.setattr(status, "KubeClient", lambda _server: api)
    async with StatusReader([api.server], config_maps=True) as one:
        found = await one.facts()
        assert [item["metadata"]["name"] for item in found.services] == ["kubernetes", "kube-dns"]
        assert len(found.endpoints) == 2
        api.forbidden = "NetworkPolicy"
        found = await one.facts()
    assert found.objects is not None
    assert (found.services, found.endpoints, found.policies) == ((), (), ())
