"""The probe of tools/ha_probe.py: it fails where client-go fails, and its book misses nothing."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import AsyncIterator, Callable
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

import aiohttp
import h2.config
import h2.connection
import h2.events
import pytest
from aiohttp import web
from tools.ha_probe import Book, Failure, Gap, Stream, _follow, _Run
from tools.http2 import Client

from kubewright.clients.server import Server
from kubewright.model import pki, x509
from kubewright.model.pki import KeyKind


class Peer:
    """An HTTP/2 server of another make. `answer` decides what becomes of a request; None lets it be answered."""

    def __init__(self) -> None:
        self.connections = 0
        self.requests = 0
        self.asked = asyncio.Event()
        self.answer: Callable[[Peer, h2.connection.H2Connection, int], bool] = lambda *_: True
        self._writers: list[asyncio.StreamWriter] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self._writers.append(writer)
        connection = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False))
        connection.initiate_connection()
        try:
            writer.write(connection.data_to_send())
            while data := await reader.read(65535):
                for event in connection.receive_data(data):
                    if isinstance(event, h2.events.StreamEnded):
                        self.requests += 1
                        self.asked.set()
                        assert event.stream_id is not None
                        if self.answer(self, connection, event.stream_id):
                            connection.send_headers(event.stream_id, [(":status", "200")])
                            connection.send_data(event.stream_id, b"{}", end_stream=True)
                writer.write(connection.data_to_send())
        except OSError:
            pass
        finally:
            writer.close()

    def cut(self) -> None:
        """Cut all connections."""
        for writer in self._writers:
            if not writer.is_closing():
                writer.transport.abort()


class Peered:
    """A peer that listens, and what a client needs to reach it."""

    def __init__(self, peer: Peer, port: int, ca: bytes) -> None:
        self.peer, self.port, self.ca = peer, port, ca

    def client(self, *, keep: bool, timeout: float = 5) -> Client:
        return Client("127.0.0.1", self.port, Server("", self.ca).ssl_context, keep=keep, timeout=timeout)


@pytest.fixture
async def peered(tmp_path: Path) -> AsyncIterator[Peered]:
    now, kind = datetime.now(UTC), KeyKind.ECDSA_P256
    ca = x509.self_signed_ca(
        pki.CertSpec("ca", "ca", "test", validity=pki.CA_VALIDITY), x509.new_key(kind), now
    )
    spec = pki.CertSpec("s", "s", "s", usages=(pki.Usage.SERVER,), addresses=("127.0.0.1",), ca="ca")
    pair = x509.sign(spec, x509.new_key(kind), ca, now)
    file = tmp_path / "server.pem"
    file.write_bytes(pair.cert + b"\n" + pair.key.reveal())
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(file)
    context.set_alpn_protocols(["h2"])
    peer = Peer()
    server = await asyncio.start_server(peer.serve, "127.0.0.1", 0, ssl=context)
    yield Peered(peer, server.sockets[0].getsockname()[1], ca.cert)
    server.close()
    peer.cut()


async def test_a_connection_is_kept_or_not(peered: Peered) -> None:
    kept, single = peered.client(keep=True), peered.client(keep=False)
    answers = await asyncio.gather(*(kept.request("GET", "/") for _ in range(5)))
    assert [answer.status for answer in answers] == [200] * 5
    assert (peered.peer.connections, peered.peer.requests) == (1, 5)
    await asyncio.gather(*(single.request("POST", "/", body=b"{}") for _ in range(3)))
    assert (peered.peer.connections, peered.peer.requests) == (4, 8)
    kept.close()


async def test_the_server_is_verified(peered: Peered) -> None:
    other = x509.self_signed_ca(
        pki.CertSpec("ca", "ca", "other", validity=pki.CA_VALIDITY),
        x509.new_key(KeyKind.ECDSA_P256), datetime.now(UTC),
    )  # fmt: skip
    stranger = Peered(peered.peer, peered.port, other.cert).client(keep=False)
    with pytest.raises(ssl.SSLCertVerificationError):
        await stranger.request("GET", "/")
    assert not peered.peer.requests


async def test_what_is_on_a_broken_connection_fails_and_is_not_sent_again(peered: Peered) -> None:
    def cut(peer: Peer, *_: object) -> bool:
        peer.cut()
        return False

    client = peered.client(keep=True)
    peered.peer.answer = cut
    with pytest.raises(ConnectionResetError):
        await client.request("GET", "/")
    assert peered.peer.requests == 1
    peered.peer.answer = lambda *_: True
    assert (await client.request("GET", "/")).status == 200
    assert peered.peer.connections == 2
    client.close()


async def test_silence_is_a_failure(peered: Peered) -> None:
    peered.peer.answer = lambda *_: False
    client = peered.client(keep=True, timeout=0.2)
    with pytest.raises(TimeoutError, match=r"no answer within 0\.\d+ s"):
        await client.request("GET", "/")
    peered.peer.answer = lambda *_: True
    assert (await client.request("GET", "/")).status == 200
    assert peered.peer.connections == 1, "as client-go, it does not doubt a connection for one answer"
    client.close()


async def test_after_goaway_what_was_taken_ends_and_the_rest_goes_elsewhere(peered: Peered) -> None:
    """The second request is not taken by the first connection; the first one is answered after GOAWAY."""

    def leave(peer: Peer, connection: h2.connection.H2Connection, stream: int) -> bool:
        if peer.connections == 1 and stream == 3:
            connection.send_headers(1, [(":status", "200")])
            connection.send_data(1, b"late", end_stream=True)
            connection.close_connection(last_stream_id=1)
        return peer.connections > 1

    peered.peer.answer = leave
    client = peered.client(keep=True)
    first = asyncio.ensure_future(client.request("GET", "/1"))
    await peered.peer.asked.wait()
    second = await client.request("GET", "/2")
    assert (second.status, bytes(second.body)) == (200, b"{}")
    assert bytes((await first).body) == b"late"
    assert peered.peer.connections == 2
    client.close()


async def test_the_book_counts_silence_at_both_ends() -> None:
    run = _Run(Server("https://127.0.0.1:1"))

    async def answer(seconds: float) -> None:
        await asyncio.sleep(seconds)

    async def refuse() -> None:
        raise OSError("503: not now")

    run.begin(["read", "write"])
    await run.count("read", answer(0.15))
    await run.count("read", answer(0.01))
    assert 0.15 <= run.book.streams["read"].gap.seconds < 0.4
    assert not await run.count("write", refuse())
    await asyncio.sleep(0.1)
    run.close_gaps()
    book = run.end()
    assert book.streams["write"].answered == 0
    assert book.gap("write") >= 0.25, "nothing was ever answered"
    assert book.gap() == book.gap("write")
    [line] = book.failures
    assert "write: 503: not now" in line


def test_a_book_is_read_as_it_was_written(tmp_path: Path) -> None:
    stream = Stream(3, [Failure(101.0, 0.5, "no")], Gap(2.0, 100.0), 0.7)
    book = Book(100.0, 110.0, {"read": stream}, ["w-1"])
    file = tmp_path / "book.json"
    file.write_text(json.dumps(asdict(book)))
    assert Book.read(file) == book
    assert Book.read(file).failures == ["   1.00 s: read: no (after 0.50 s)"]


async def test_a_watch_goes_on_where_it_was_cut_and_lists_where_events_are_missing() -> None:
    """Each connection tells of one object and is cut; at the third the server knows the past no more."""
    asked: list[str] = []
    listed = asyncio.Event()

    async def watch(request: web.Request) -> web.StreamResponse:
        asked.append(request.query.get("resourceVersion", "all"))
        if asked[-1] == "all":
            items = [{"metadata": {"name": name}} for name in ("w-1", "w-2", "w-3")]
            return web.json_response({"metadata": {"resourceVersion": "99"}, "items": items})
        if asked[-1] == "99":
            listed.set()
        answer = web.StreamResponse()
        await answer.prepare(request)
        meta = {"name": f"w-{len(asked)}", "resourceVersion": f"{len(asked)}1"}
        event: dict[str, object] = {"type": "ADDED", "object": {"metadata": meta}}
        if len(asked) == 3:
            event = {"type": "ERROR", "object": {"message": "too old resource version"}}
        await answer.write(json.dumps(event).encode() + b"\n")
        return answer

    app = web.Application()
    app.router.add_get("/{path:.*}", watch)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        run = _Run(Server(f"http://127.0.0.1:{runner.addresses[0][1]}"))
        run.begin(["watch"])
        async with aiohttp.ClientSession() as session, asyncio.timeout(10):
            follow = asyncio.ensure_future(_follow(run, session, "7"))
            await listed.wait()
            follow.cancel()
    finally:
        await runner.cleanup()
    assert asked[:5] == ["7", "11", "21", "all", "99"]
    assert run.book.acknowledged[:3] == ["w-1", "w-2", "w-3"]
    assert "too old resource version" in run.book.failures[0]
