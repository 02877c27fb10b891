"""A small cluster to ask about, and servers on the loopback address to ask."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, cast

import dns.asyncquery
import dns.message
import dns.name
import dns.rcode
import dns.rdatatype
import dns.rrset
from tests.free_ports import free_port

from kubewright.dns import objects
from kubewright.dns.index import Index
from kubewright.dns.options import Options
from kubewright.dns.server import DnsServer

LOOPBACK = "127.0.0.1"


def service(namespace: str, name: str, spec: dict[str, Any], **meta: Any) -> dict[str, Any]:
    """A Service as the API shows it."""
    return {"metadata": {"namespace": namespace, "name": name, **meta}, "spec": spec}


def port(name: str, number: int, protocol: str = "TCP") -> dict[str, Any]:
    """A port of a Service or an EndpointSlice."""
    return {"name": name, "port": number, "protocol": protocol}


def slice_of(
    namespace: str, owner: str, endpoints: list[dict[str, Any]], ports: list[dict[str, Any]], name: str = ""
) -> dict[str, Any]:
    """An EndpointSlice as the API shows it."""
    return {
        "metadata": {
            "namespace": namespace,
            "name": name or f"{owner}-x",
            "labels": {"kubernetes.io/service-name": owner},
        },
        "addressType": "IPv4",
        "endpoints": endpoints,
        "ports": ports,
    }


def endpoint(address: str, hostname: str | None = None, ready: bool | None = True) -> dict[str, Any]:
    """An endpoint of an EndpointSlice."""
    found: dict[str, Any] = {"addresses": [address], "conditions": {"ready": ready}}
    return found | ({"hostname": hostname} if hostname else {})


def small_cluster() -> Index:
    """Two namespaces with one service of each sort."""
    index = Index()
    for name in ("default", "kube-system", "empty"):
        index.put_namespace(name)
    http = [port("http", 80), port("metrics", 9100), port("", 7)]
    services = [
        service("default", "kubernetes", {"clusterIP": "10.96.0.1", "ports": [port("https", 443)]}),
        service("default", "web", {"clusterIP": "10.96.0.7", "ports": http}),
        service("default", "six", {"clusterIP": "fd00:10::7", "ports": [port("http", 80)]}),
        service(
            "default", "dual",
            {"clusterIP": "10.96.0.8", "clusterIPs": ["10.96.0.8", "fd00:10::8"], "ports": [port("http", 80)]},
        ),
        service("default", "head", {"clusterIP": "None", "ports": [port("http", 80)]}),
        service("default", "idle", {"clusterIP": "None"}),
        service("default", "eager", {"clusterIP": "None", "publishNotReadyAddresses": True}),
        service("default", "out", {"type": "ExternalName", "externalName": "www.example.com"}),
        service(
            "default", "alias", {"type": "ExternalName", "externalName": "web.default.svc.cluster.local"}
        ),
        service("default", "ring", {"type": "ExternalName", "externalName": "ring2.default.svc.cluster.local"}),
        service("default", "ring2", {"type": "ExternalName", "externalName": "ring.default.svc.cluster.local"}),
        service(
            "kube-system", "kube-dns",
            {"clusterIP": "10.96.0.10", "ports": [port("dns", 53, "UDP"), port("dns-tcp", 53)]},
        ),
    ]  # fmt: skip
    for one in services:
        index.put_service(objects.service(one))
    slices = [
        slice_of(
            "default", "head",
            [
                endpoint("10.244.1.2"), endpoint("10.244.1.3", "db-0"), endpoint("10.244.2.3", "db-0"),
                endpoint("10.244.1.9", "db-9", ready=False), endpoint("10.244.1.4", ready=None),
                endpoint("fd00:244::5"),
            ],
            [port("http", 8080), port("", 9)],
        ),
        slice_of("default", "idle", [endpoint("10.244.1.7", ready=False)], [port("http", 80)]),
        slice_of("default", "eager", [endpoint("10.244.1.8", "late", ready=False)], []),
        slice_of("default", "web", [endpoint("10.244.3.1")], [port("http", 8000)]),
    ]  # fmt: skip
    for each in slices:
        index.put_slice(objects.endpoint_slice(each))
    return index


class Known:
    """Stands for the watcher: the index is filled already."""

    def __init__(self, *, synced: bool = True) -> None:
        self.synced = synced
        self.missing = "" if synced else "services"

    async def run(self) -> None:
        """Nothing to follow."""
        await asyncio.Event().wait()


@asynccontextmanager
async def running(server: DnsServer, *, synced: bool = True) -> AsyncIterator[int]:
    """Run a server of the small cluster; its port."""
    server.knowledge = Known(synced=synced)
    stop = asyncio.Event()
    task = asyncio.create_task(server.run(stop))
    opened = asyncio.create_task(server.opened.wait())
    await asyncio.wait((task, opened), return_when=asyncio.FIRST_COMPLETED)
    opened.cancel()
    try:
        yield server.udp[0].port
    finally:
        stop.set()
        await task


def make_server(*upstreams: str, **changes: Any) -> DnsServer:
    """A server on any free port, with the small cluster's names."""
    given: dict[str, Any] = {
        "listen": ((LOOPBACK, free_port()),), "upstreams": upstreams, "metrics_port": 0, "health_port": 0,
        "ready_port": 0, "lameduck": 0.0,
    }  # fmt: skip
    server = DnsServer(Options(**(given | changes)))
    server.index.__dict__.update(small_cluster().__dict__)
    return server


async def ask(
    port: int, name: str, rdtype: str = "A", *, tcp: bool = False, timeout: float = 3.0, **options: Any
) -> dns.message.Message:
    """One question to a server on the loopback address."""
    query = dns.message.make_query(name, rdtype, **options)
    send = dns.asyncquery.tcp if tcp else dns.asyncquery.udp
    return await send(query, LOOPBACK, port=port, timeout=timeout)


def texts(section: list[dns.rrset.RRset]) -> list[str]:
    """The data of a section's records, in the order of the wire."""
    return [rdata.to_text() for rrset in section for rdata in rrset]


def rcode(answer: dns.message.Message) -> str:
    """An answer's rcode by its name."""
    return dns.rcode.to_text(answer.rcode())


Script = Callable[[dns.message.Message, "FakeUpstream"], "dns.message.Message | bytes | None"]


@dataclass
class FakeUpstream:
    """A DNS server on the loopback address that answers by a script: a message, raw bytes, or silence."""

    script: Script
    port: int
    asked: list[str] = field(default_factory=list)
    over_tcp: bool = False
    _close: Callable[[], Awaitable[None]] | None = None

    @property
    def address(self) -> str:
        """Its address, as --upstream takes it."""
        return f"{LOOPBACK}:{self.port}"

    def reply(self, data: bytes, *, tcp: bool) -> bytes | None:
        """What the script says to a question."""
        query = dns.message.from_wire(data)
        question = query.question[0]
        if (
            question.rdtype == dns.rdatatype.HINFO
        ):  # the probe for loops: an honest upstream knows no such name
            return dns.message.make_response(query).to_wire()
        self.asked.append(f"{question.name} {dns.rdatatype.to_text(question.rdtype)}{' tcp' if tcp else ''}")
        self.over_tcp = tcp
        answer = self.script(query, self)
        return answer.to_wire() if isinstance(answer, dns.message.Message) else answer


def answering(*addresses: str, ttl: int = 300) -> Script:
    """A script that has these addresses for every name."""

    def script(query: dns.message.Message, _: FakeUpstream) -> dns.message.Message:
        answer = dns.message.make_response(query, recursion_available=True)
        if query.question[0].rdtype == dns.rdatatype.A:
            answer.answer.append(dns.rrset.from_text(query.question[0].name, ttl, "IN", "A", *addresses))
        return answer

    return script


@asynccontextmanager
async def upstream(script: Script) -> AsyncIterator[FakeUpstream]:
    """Run a fake upstream, over UDP and TCP on one port."""
    fake = FakeUpstream(script, free_port())
    loop = asyncio.get_running_loop()

    class Udp(asyncio.DatagramProtocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            self.transport = cast(asyncio.DatagramTransport, transport)

        def datagram_received(self, data: bytes, addr: Any) -> None:
            if (answer := fake.reply(data, tcp=False)) is not None:
                self.transport.sendto(answer, addr)

    async def tcp(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        (length,) = struct.unpack("!H", await reader.readexactly(2))
        answer = fake.reply(await reader.readexactly(length), tcp=True)
        if answer is not None:
            writer.write(struct.pack("!H", len(answer)) + answer)
        writer.close()

    transport, _ = await loop.create_datagram_endpoint(Udp, local_addr=(LOOPBACK, fake.port))
    server = await asyncio.start_server(tcp, LOOPBACK, fake.port)
    try:
        yield fake
    finally:
        transport.close()
        server.close()


async def until(condition: Callable[[], object], seconds: float = 2.0) -> None:
    """Wait for a condition, at most so long."""
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 - what is waited for has no event of its own
            await asyncio.sleep(0.001)
