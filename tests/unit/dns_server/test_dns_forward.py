"""Names outside the cluster: forwarding, its cache, failing upstreams, and upstreams that lead back here."""

from __future__ import annotations

import asyncio
import logging
import time
from pathlib import Path

import dns.flags
import dns.message
import dns.rcode
import dns.rdatatype
import dns.rrset
import pytest
from tests.free_ports import free_port
from tests.unit.dns_server.dns_kit import (
    LOOPBACK,
    FakeUpstream,
    answering,
    ask,
    make_server,
    rcode,
    running,
    texts,
    until,
    upstream,
)

from kubewright.dns import forward, guard
from kubewright.dns.upstream import Upstream, read_resolv_conf

Message = dns.message.Message


def failing(code: dns.rcode.Rcode) -> object:
    def script(query: Message, _: FakeUpstream) -> Message:
        answer = dns.message.make_response(query)
        answer.set_rcode(code)
        return answer

    return script


def silent(query: Message, _: FakeUpstream) -> None:
    """Never answer."""


def nothing(query: Message, _: FakeUpstream) -> Message:
    """No such name, for an hour."""
    answer = dns.message.make_response(query)
    answer.set_rcode(dns.rcode.NXDOMAIN)
    answer.authority.append(
        dns.rrset.from_text("example.com.", 3600, "IN", "SOA", "ns. host. 1 7200 900 1209600 600")
    )
    return answer


async def test_other_names_are_forwarded_and_kept() -> None:
    async with upstream(answering("192.0.2.1", "192.0.2.2")) as up, running(make_server(up.address)) as at:
        for name in ("www.example.com", "www.example.com", "WWW.example.com", "www.example.com"):
            answer = await ask(at, name)
            assert sorted(texts(answer.answer)) == ["192.0.2.1", "192.0.2.2"]
            assert answer.answer[0].ttl <= 30
            assert answer.answer[0].name.to_text() == f"{name}."
            assert answer.flags & dns.flags.RA
            assert not answer.flags & dns.flags.AA
        assert up.asked == ["www.example.com. A"]


async def test_kept_answers_grow_old(monkeypatch: pytest.MonkeyPatch) -> None:
    async with upstream(answering("192.0.2.1", ttl=12)) as up, running(make_server(up.address)) as at:
        clock = time.monotonic
        assert (await ask(at, "a.example")).answer[0].ttl == 12
        for later, name, ttl, asked in (
            (5, "a.example", 7, 1),
            (5, "A.example", 7, 1),
            (13, "a.example", 12, 2),
        ):
            monkeypatch.setattr(time, "monotonic", lambda later=later: clock() + later)
            answer = await ask(at, name)
            assert ttl - 1 <= answer.answer[0].ttl <= ttl
            assert len(up.asked) == asked


async def test_a_no_is_kept_as_well() -> None:
    async with upstream(nothing) as up, running(make_server(up.address)) as at:
        for _ in range(2):
            for name in ("no.example.com", "No.example.com"):
                answer = await ask(at, name)
                assert rcode(answer) == "NXDOMAIN"
                assert answer.authority[0].ttl <= 30
        assert len(up.asked) == 1


async def test_names_of_the_cluster_are_never_forwarded() -> None:
    async with upstream(answering("192.0.2.1")) as up, running(make_server(up.address)) as at:
        for name in ("absent.default.svc.cluster.local", "x.cluster.local", "www.example.com.cluster.local"):
            assert rcode(await ask(at, name)) == "NXDOMAIN"
        assert texts((await ask(at, "7.0.96.10.in-addr.arpa", "PTR")).answer)
        assert up.asked == []
        await ask(at, "9.9.9.9.in-addr.arpa", "PTR")
        assert up.asked == ["9.9.9.9.in-addr.arpa. PTR"]


async def test_a_cut_answer_is_fetched_over_tcp() -> None:
    def script(query: Message, up: FakeUpstream) -> Message:
        answer = dns.message.make_response(query)
        if up.over_tcp:
            answer.answer.append(dns.rrset.from_text(query.question[0].name, 60, "IN", "TXT", '"long"'))
        else:
            answer.flags |= dns.flags.TC
        return answer

    async with upstream(script) as up, running(make_server(up.address)) as at:
        assert texts((await ask(at, "long.example", "TXT")).answer) == ['"long"']
        assert up.asked == ["long.example. TXT", "long.example. TXT tcp"]


async def test_an_upstream_that_refuses_connections_costs_nothing() -> None:
    async with upstream(answering("192.0.2.1")) as up:
        server = make_server(f"{LOOPBACK}:{free_port()}", up.address)
        async with running(server) as at:
            for number in range(8):
                assert texts((await ask(at, f"{number}.example")).answer) == ["192.0.2.1"]


async def test_a_silent_upstream_is_asked_last_until_it_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forward, "_TRY", 0.1)
    monkeypatch.setattr(guard, "_ROUND", 0.05)
    speaking = asyncio.Event()

    def mute(query: Message, fake: FakeUpstream) -> Message | None:
        return answering("192.0.2.9")(query, fake) if speaking.is_set() else None  # type: ignore[return-value]

    async with upstream(mute) as bad, upstream(answering("192.0.2.1")) as good:
        server = make_server(bad.address, good.address)
        async with running(server) as at:
            muted = server.forwarder.upstreams[0]
            for number in range(200):
                assert texts((await ask(at, f"{number}.example")).answer) == ["192.0.2.1"]
                if muted.down:
                    break
            for number in range(10):
                assert texts((await ask(at, f"later-{number}.example")).answer) == ["192.0.2.1"]
            names = len([line for line in bad.asked if "example" in line])
            assert names == 2, "after two failures it is not asked any more"
            await until(lambda: server.metrics.unhealthy[bad.address] > 0)
            speaking.set()
            await until(lambda: not muted.down)


async def test_all_upstreams_silent_is_a_quick_failure_with_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forward, "_TRY", 0.05)
    async with upstream(silent) as up, running(make_server(up.address)) as at:
        answer = await ask(at, "www.example.com", use_edns=0)
        assert rcode(answer) == "SERVFAIL"
        assert f"{up.address}: no answer in time" in str(answer.options[0])
        asked = len(up.asked)
        assert rcode(await ask(at, "www.example.com")) == "SERVFAIL"
        assert len(up.asked) == asked, "a failure is kept for a moment too"


async def test_a_server_that_fails_is_passed_over() -> None:
    async with (
        upstream(failing(dns.rcode.SERVFAIL)) as bad,  # type: ignore[arg-type]
        upstream(answering("192.0.2.1")) as good,
        running(make_server(bad.address, good.address)) as at,
    ):
        for number in range(5):
            assert texts((await ask(at, f"{number}.example")).answer) == ["192.0.2.1"]


async def test_a_failure_of_all_is_passed_on() -> None:
    async with upstream(failing(dns.rcode.REFUSED)) as up, running(make_server(up.address)) as at:  # type: ignore[arg-type]
        assert rcode(await ask(at, "www.example.com")) == "REFUSED"


async def test_forged_answers_are_not_believed() -> None:
    def script(query: Message, fake: FakeUpstream) -> bytes | None:
        real = answering("192.0.2.1")(query, fake)
        assert isinstance(real, Message)
        if len(fake.asked) == 1:
            other = dns.message.make_query("evil.example", "A", id=query.id)
            return dns.message.make_response(other).to_wire()
        wire = real.to_wire()
        return bytes([wire[0] ^ 1]) + wire[1:] if len(fake.asked) == 2 else wire

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(forward, "_TRY", 0.05)
        async with upstream(script) as up, running(make_server(up.address)) as at:
            assert texts((await ask(at, "www.example.com")).answer) == ["192.0.2.1"]
            assert len(up.asked) == 3


async def test_a_router_that_knows_no_edns() -> None:
    def script(query: Message, fake: FakeUpstream) -> Message | bytes | None:
        if query.edns < 0:
            return answering("192.0.2.1")(query, fake)
        plain = dns.message.make_query(query.question[0].name, "A", id=query.id)
        answer = dns.message.make_response(plain)
        answer.set_rcode(dns.rcode.FORMERR)
        return answer

    async with upstream(script) as up, running(make_server(up.address)) as at:
        assert texts((await ask(at, "a.example")).answer) == ["192.0.2.1"]
        assert texts((await ask(at, "b.example", use_edns=0)).answer) == ["192.0.2.1"]
        assert len(up.asked) == 3


async def test_the_same_question_at_once_is_asked_once() -> None:
    async with upstream(answering("192.0.2.1")) as up, running(make_server(up.address)) as at:
        answers = await asyncio.gather(*(ask(at, "www.example.com") for _ in range(30)))
        assert all(texts(answer.answer) == ["192.0.2.1"] for answer in answers)
        assert len(up.asked) == 1


async def test_too_many_questions_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forward, "_TRY", 0.1)
    async with upstream(silent) as up:
        server = make_server(up.address)
        server.forwarder._limit = 2
        async with running(server) as at:
            answers = await asyncio.gather(*(ask(at, f"{number}.example") for number in range(5)))
            assert sorted(map(rcode, answers)) == ["REFUSED"] * 3 + ["SERVFAIL"] * 2
            assert server.metrics.forward_rejected == 3


async def test_without_upstreams_other_names_are_refused_at_once(tmp_path: Path) -> None:
    async with running(make_server(resolv_conf=tmp_path / "absent")) as at:
        answer = await ask(at, "www.example.com", use_edns=0, timeout=0.5)
        assert rcode(answer) == "REFUSED"
        assert "no upstream server is configured" in str(answer.options[0])
        assert rcode(await ask(at, "out.default.svc.cluster.local")) == "SERVFAIL"
        assert texts((await ask(at, "out.default.svc.cluster.local", "CNAME")).answer) == ["www.example.com."]


# -- external names ---------------------------------------------------------------------------------------------


async def test_external_names_are_followed() -> None:
    async with upstream(answering("192.0.2.1")) as up, running(make_server(up.address)) as at:
        answer = await ask(at, "out.default.svc.cluster.local")
        assert texts(answer.answer) == ["www.example.com.", "192.0.2.1"]
        assert answer.flags & dns.flags.AA
        assert up.asked == ["www.example.com. A"]
        inside = await ask(at, "alias.default.svc.cluster.local")
        assert texts(inside.answer) == ["web.default.svc.cluster.local.", "10.96.0.7"]
        nodata = await ask(at, "alias.default.svc.cluster.local", "AAAA")
        assert texts(nodata.answer) == ["web.default.svc.cluster.local."]
        assert rcode(await ask(at, "ring.default.svc.cluster.local")) == "SERVFAIL"
        assert len(up.asked) == 1


async def test_an_external_name_that_does_not_exist() -> None:
    async with upstream(nothing) as up, running(make_server(up.address)) as at:
        answer = await ask(at, "out.default.svc.cluster.local")
        assert rcode(answer) == "NXDOMAIN"
        assert texts(answer.answer) == ["www.example.com."]


# -- loops and resolv.conf --------------------------------------------------------------------------------------


async def test_an_upstream_that_is_this_server_itself(caplog: pytest.LogCaptureFixture) -> None:
    port = free_port()
    server = make_server(f"{LOOPBACK}:{port}", listen=((LOOPBACK, port),))
    with caplog.at_level(logging.INFO):
        async with running(server) as at:
            await until(lambda: server.guard.looped)
            assert "--upstream, sends its questions back to this server" in caplog.text
            answer = await ask(at, "www.example.com", use_edns=0, timeout=0.5)
            assert rcode(answer) == "REFUSED"
            assert "leads back to this server" in str(answer.options[0])
            assert texts((await ask(at, "web.default.svc.cluster.local")).answer) == ["10.96.0.7"]
            assert b"kubewright_dns_loop 1.0" in server.metrics.text()


async def test_a_loop_through_another_server_and_its_mending(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The usual case (P18): the node's resolver at a loopback address, which itself asks the cluster's DNS."""
    monkeypatch.setattr(guard, "_ROUND", 0.02)
    first = make_server()
    async with running(first) as there:
        conf = tmp_path / "resolv.conf"
        server = make_server(resolv_conf=conf)
        server.forwarder.use([Upstream(LOOPBACK, there)])
        async with running(server) as at:
            await server.guard.probe()
            assert not server.guard.looped
            first.forwarder.use([Upstream(LOOPBACK, at)])
            with caplog.at_level(logging.INFO):
                await server.guard.probe()
            assert server.guard.looped
            assert f"named by {conf}" in caplog.text
            # The file is mended: forwarding goes on by itself.
            async with upstream(answering("192.0.2.1")) as up:
                monkeypatch.setattr(guard, "read_resolv_conf", lambda _: [Upstream.parse(up.address)])
                conf.write_text("nameserver 192.0.2.53\n")
                await until(lambda: not server.guard.looped)
                assert texts((await ask(at, "www.example.com")).answer) == ["192.0.2.1"]


def test_resolv_conf(tmp_path: Path) -> None:
    conf = tmp_path / "resolv.conf"
    conf.write_text(
        "# a comment\nsearch example.com\nnameserver 10.0.0.2\n nameserver fd00::2 \nnameserver fe80::1%eth0\n"
        "nameserver nonsense\nnameserver\nnameserver 10.0.0.2\noptions ndots:5\n"
    )
    assert [str(one) for one in read_resolv_conf(conf)] == [
        "10.0.0.2:53",
        "[fd00::2]:53",
        "[fe80::1%eth0]:53",
    ]
    assert read_resolv_conf(tmp_path / "absent") == []
    assert str(Upstream.parse("[fd00::2]:5353")) == "[fd00::2]:5353"
    assert str(Upstream.parse("fd00::2")) == "[fd00::2]:53"
    assert str(Upstream.parse("10.0.0.2:54")) == "10.0.0.2:54"
