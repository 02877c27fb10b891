"""The server over real sockets on the loopback address, with dnspython as the client."""

from __future__ import annotations

import asyncio
import struct

import aiohttp
import dns.asyncquery
import dns.flags
import dns.message
import dns.rdataclass
import dns.rdatatype
import pytest
from tests.free_ports import free_port
from tests.unit.dns_server.dns_kit import (
    LOOPBACK,
    Known,
    answering,
    ask,
    endpoint,
    make_server,
    port,
    rcode,
    running,
    service,
    slice_of,
    texts,
    upstream,
)

from kubewright.dns import objects
from kubewright.dns.resolver import Resolver
from kubewright.dns.server import DnsServer, main

WEB = "web.default.svc.cluster.local"
HEAD = "head.default.svc.cluster.local"


def with_crowd(server: DnsServer, count: int) -> DnsServer:
    """Give a server a headless service of so many endpoints."""
    index = server.index
    index.put_service(objects.service(service("default", "crowd", {"clusterIP": "None"})))
    ends = [endpoint(f"10.200.{number // 250}.{number % 250}") for number in range(count)]
    index.put_slice(objects.endpoint_slice(slice_of("default", "crowd", ends, [])))
    return server


@pytest.mark.parametrize("tcp", [False, True])
async def test_a_service_over_udp_and_tcp(tcp: bool) -> None:
    async with running(make_server()) as at:
        answer = await ask(at, WEB, tcp=tcp)
        assert texts(answer.answer) == ["10.96.0.7"]
        assert answer.answer[0].ttl == 30
        assert answer.flags & dns.flags.AA
        assert answer.edns == -1
        srv = await ask(at, f"_http._tcp.{WEB}", "SRV", tcp=tcp, use_edns=0)
        assert texts(srv.answer) == [f"0 100 80 {WEB}."]
        assert texts(srv.additional) == ["10.96.0.7"]
        assert srv.edns == 0


@pytest.mark.parametrize("name", [f"absent.{WEB}", "nothing.default.svc.cluster.local"])
async def test_no_such_name_and_no_such_record(name: str) -> None:
    async with running(make_server()) as at:
        for _ in range(2):  # the second comes from the cache
            answer = await ask(at, name)
            assert rcode(answer) == "NXDOMAIN"
            assert [rrset.rdtype for rrset in answer.authority] == [dns.rdatatype.SOA]
            nodata = await ask(at, WEB, "AAAA")
            assert rcode(nodata) == "NOERROR"
            assert not nodata.answer
            assert nodata.authority[0].name.to_text() == "cluster.local."


async def test_spelling_comes_back_as_it_was_sent() -> None:
    async with running(make_server()) as at:
        for name in (WEB, "wEb.dEfAuLt.SvC.cLuStEr.LoCaL", WEB):
            answer = await ask(at, name)
            assert answer.question[0].name.to_text() == f"{name}."
            assert answer.answer[0].name.to_text() == f"{name}."


async def test_addresses_take_turns() -> None:
    async with running(make_server()) as at:
        firsts = {texts((await ask(at, HEAD)).answer)[0] for _ in range(8)}
        assert len(firsts) == 4


async def test_a_change_is_answered_at_once() -> None:
    server = make_server()
    async with running(server) as at:
        assert texts((await ask(at, WEB)).answer) == ["10.96.0.7"]
        assert rcode(await ask(at, "new.default.svc.cluster.local")) == "NXDOMAIN"
        for name in ("web", "new"):
            spec = {"clusterIP": f"10.96.0.{len(name)}9", "ports": [port("http", 80)]}
            server.changed(server.index.put_service(objects.service(service("default", name, spec))))
            answer = await ask(at, f"{name}.default.svc.cluster.local")
            assert texts(answer.answer) == ["10.96.0.39"]
        assert rcode(await ask(at, "pod-1.later.svc.cluster.local")) == "NXDOMAIN"
        assert rcode(await ask(at, "later.svc.cluster.local")) == "NXDOMAIN"
        server.changed(server.index.put_namespace("later"))
        assert rcode(await ask(at, "later.svc.cluster.local")) == "NOERROR"


async def test_too_much_for_udp_is_cut_and_whole_over_tcp() -> None:
    async with running(with_crowd(make_server(), 300)) as at:
        small = await ask(at, "crowd.default.svc.cluster.local")
        larger = await ask(at, "crowd.default.svc.cluster.local", use_edns=0, payload=4096)
        whole = await ask(at, "crowd.default.svc.cluster.local", tcp=True)
        assert small.flags & larger.flags & dns.flags.TC
        assert 25 < len(texts(small.answer)) < 32
        assert 70 < len(texts(larger.answer)) < 80
        assert not whole.flags & dns.flags.TC
        assert len(texts(whole.answer)) == 300
        # A client without TCP shall not always see the same few.
        seen = {
            address
            for _ in range(20)
            for address in texts((await ask(at, "crowd.default.svc.cluster.local")).answer)
        }
        assert len(seen) > 60


async def test_before_the_cluster_is_known() -> None:
    async with running(make_server(), synced=False) as at:
        assert texts((await ask(at, WEB)).answer) == ["10.96.0.7"]
        answer = await ask(at, "unknown.default.svc.cluster.local", use_edns=0)
        assert rcode(answer) == "SERVFAIL"
        assert "not known yet" in str(answer.options[0])


async def test_what_is_not_served_is_refused() -> None:
    async with running(make_server()) as at:
        for rdtype, rdclass in (("TXT", "CH"), ("AXFR", "IN"), ("A", "ANY"), ("IXFR", "IN")):
            query = dns.message.make_query("version.bind", "A", rdclass)
            query.question[0].rdtype = dns.rdatatype.from_text(rdtype)
            wire = query.to_wire()
            reader, writer = await asyncio.open_connection(LOOPBACK, at)
            writer.write(struct.pack("!H", len(wire)) + wire)
            (length,) = struct.unpack("!H", await reader.readexactly(2))
            answer = await reader.readexactly(length)
            assert answer[3] & 0xF == 5, (rdtype, rdclass)
            writer.close()


async def test_many_questions_on_one_connection() -> None:
    async with upstream(answering("192.0.2.1")) as up, running(make_server(up.address)) as at:
        reader, writer = await asyncio.open_connection(LOOPBACK, at)
        names = [WEB, "www.example.com", HEAD, "missing.cluster.local"] * 5
        for number, name in enumerate(names):
            wire = dns.message.make_query(name, "A", id=number).to_wire()
            writer.write(struct.pack("!H", len(wire)) + wire)
        seen = set()
        for _ in names:
            (length,) = struct.unpack("!H", await reader.readexactly(2))
            answer = dns.message.from_wire(await reader.readexactly(length))
            assert answer.question[0].name.to_text() == f"{names[answer.id]}."
            seen.add(answer.id)
        assert seen == set(range(len(names)))
        # Garbage ends nothing but itself.
        writer.write(struct.pack("!H", 3) + b"abc" + struct.pack("!H", 12) + b"\0\1\0\0" + b"\0" * 8)
        (length,) = struct.unpack("!H", await reader.readexactly(2))
        assert (await reader.readexactly(length))[3] & 0xF == 1
        writer.close()


async def test_one_question_that_breaks_takes_no_other_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    real = Resolver.local

    def local(self: Resolver, query: object) -> object:
        if b"broken" in query.name.labels:  # type: ignore[attr-defined]
            raise RuntimeError("boom")
        return real(self, query)  # type: ignore[arg-type]

    monkeypatch.setattr(Resolver, "local", local)
    server = make_server()
    async with running(server) as at:
        for tcp in (False, True):
            assert rcode(await ask(at, "broken.default.svc.cluster.local", tcp=tcp)) == "SERVFAIL"
            assert texts((await ask(at, WEB, tcp=tcp)).answer) == ["10.96.0.7"]
    assert server.metrics.panics == 2


async def test_health_readiness_and_metrics() -> None:
    server = make_server(lameduck=0.3)
    known = Known(synced=False)
    server.knowledge = known
    stop = asyncio.Event()
    task = asyncio.create_task(server.run(stop))
    await server.opened.wait()
    at = server.udp[0].port
    async with aiohttp.ClientSession() as session:

        async def get(path: str) -> tuple[int, str]:
            async with session.get(f"http://{LOOPBACK}:{server.http_ports[0]}{path}") as response:
                return response.status, await response.text()

        assert await get("/health") == (200, "OK")
        assert await get("/ready") == (503, "not listed yet: services")
        known.synced = True
        assert await get("/ready") == (200, "OK")
        for _ in range(3):
            await ask(at, WEB)
        await ask(at, "nothing.default.svc.cluster.local", tcp=True)
        status, metrics = await get("/metrics")
        assert status == 200
        labels = 'server="dns://:53",type="A",view="",zone="cluster.local."'
        assert f'coredns_dns_requests_total{{family="1",proto="udp",{labels}}} 3.0' in metrics
        assert f'coredns_dns_requests_total{{family="1",proto="tcp",{labels}}} 1.0' in metrics
        assert 'plugin="kubernetes",rcode="NXDOMAIN"' in metrics
        assert (
            'coredns_dns_request_duration_seconds_count{server="dns://:53",zone="cluster.local."} 4.0'
            in metrics
        )
        assert "kubewright_dns_synced 1.0" in metrics
        # SIGTERM: whoever routes to us must stop, yet for a while we still answer.
        stop.set()
        await asyncio.sleep(0)
        assert (await get("/health"))[0] == 503
        assert (await get("/ready"))[0] == 503
        assert texts((await ask(at, WEB)).answer) == ["10.96.0.7"]
    await task
    with pytest.raises(OSError):
        await ask(at, WEB, tcp=True)


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--listen", "nowhere:53"], "--listen nowhere:53: not ADDRESS:PORT"),
        (["--listen", "127.0.0.1"], "not ADDRESS:PORT"),
        (["--upstream", "dns.example.com"], "upstream 'dns.example.com' is no address"),
        (["--upstream", "10.0.0.1:99999"], "is no address"),
        (["--domain", "a..b"], "--domain a..b: not a domain name"),
        (["--ttl", "-1"], "--ttl -1: not between 0 and 3600"),
        ([], "this runs only inside a pod"),
    ],
)
def test_wrong_arguments_are_one_line(
    argv: list[str], message: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    assert main(argv) == 10
    assert message in caplog.text
    assert "Traceback" not in caplog.text


async def test_a_port_that_is_taken_is_named() -> None:
    async with running(make_server()) as at:
        other = make_server(listen=((LOOPBACK, at),))
        with pytest.raises(Exception, match=rf"--listen 127\.0\.0\.1:{at}: Address already in use"):
            await other.run(asyncio.Event())


async def test_ipv6_too() -> None:
    server = make_server(listen=(("::", free_port()),))
    async with running(server) as at:
        query = dns.message.make_query(WEB, "A")
        for where in ("::1", LOOPBACK):
            answer = await dns.asyncquery.udp(query, where, port=at, timeout=3)
            assert texts(answer.answer) == ["10.96.0.7"]
        async with aiohttp.ClientSession() as session:
            for host in ("[::1]", LOOPBACK):
                async with session.get(f"http://{host}:{server.http_ports[0]}/health") as response:
                    assert response.status == 200
