"""The sockets: questions in over UDP and TCP, answers out, the repeated ones straight from the cache."""

from __future__ import annotations

import asyncio
import logging
import socket
import struct
import time
from collections.abc import Iterable
from contextlib import suppress

from dns.rcode import SERVFAIL

from kubewright.dns.cache import AnswerCache, Entry
from kubewright.dns.index import Tag
from kubewright.dns.metrics import Label, Metrics, Transport
from kubewright.dns.resolver import Resolver, Result
from kubewright.dns.wire import PAYLOAD, BadMessage, Query, layout, parse_query, render, truncated

log = logging.getLogger(__name__)

_BATCH = 64
"""Datagrams that are read at one go, before other work has its turn."""
_MOST_WAITING = 2000
"""Questions that may wait for upstreams at once; what comes beyond is dropped, and its client asks again."""
_MOST_CONNECTIONS = 512
_MOST_PIPELINED = 32
_IDLE = 10.0
"""Seconds after which a silent TCP connection is closed."""
_BUFFER = 1 << 20
_DROPPED = Label("dropped", "other", "FORMERR", "")


class Answerer:
    """Makes answers for whatever bytes come."""

    def __init__(self, resolver: Resolver, metrics: Metrics) -> None:
        self._resolver = resolver
        self._metrics = metrics

    def read(self, data: bytes, transport: Transport) -> Query | bytes | None:
        """The question; or what to answer where it is none; or None for silence."""
        try:
            return parse_query(data)
        except BadMessage as bad:
            self._metrics.answered(transport, _DROPPED, 0, len(data), len(bad.response or b""))
            return bad.response

    def local(self, query: Query, limit: int) -> tuple[bytes, Result] | None:
        """The answer, if no upstream is needed for it."""
        try:
            result = self._resolver.local(query)
            return None if result is None else (result.to_wire(query, limit), result)
        except Exception:
            return self._broken(query)

    async def remote(self, query: Query, limit: int) -> tuple[bytes, Result]:
        """The answer, with the upstreams' help."""
        try:
            result = await self._resolver.remote(query)
            return result.to_wire(query, limit), result
        except Exception:
            return self._broken(query)

    def _broken(self, query: Query) -> tuple[bytes, Result]:
        """One question that breaks something must not take the others' answers with it."""
        self._metrics.panics += 1
        log.exception("question %s %s could not be answered", query.name, query.rdtype)
        result = Result(SERVFAIL, Label(".", "other", "SERVFAIL", ""))
        return render(query, SERVFAIL, limit=512), result


class UdpListener:
    """One UDP socket."""

    def __init__(self, host: str, port: int, answerer: Answerer, metrics: Metrics) -> None:
        self._answerer = answerer
        self._metrics = metrics
        self._cache = AnswerCache()
        self._waiting: set[asyncio.Task[None]] = set()
        self._socket = bound(host, port, socket.SOCK_DGRAM)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER)
        self._transport = Transport("udp", "2" if self._socket.family == socket.AF_INET6 else "1")
        self.port: int = self._socket.getsockname()[1]

    def __len__(self) -> int:
        return len(self._cache)

    def start(self) -> None:
        """Begin to answer."""
        asyncio.get_running_loop().add_reader(self._socket, self._readable)

    def close(self) -> None:
        """Stop, and leave whoever still waits unanswered."""
        asyncio.get_running_loop().remove_reader(self._socket)
        for task in self._waiting:
            task.cancel()
        self._socket.close()

    def forget(self, tags: Iterable[Tag]) -> None:
        """Drop the cached answers that a change made stale."""
        self._cache.forget(tags)

    def _readable(self) -> None:
        for _ in range(_BATCH):
            try:
                data, peer = self._socket.recvfrom(65535)
            except (BlockingIOError, InterruptedError):
                return
            except OSError:
                continue  # an ICMP error about an earlier answer
            self._received(data, peer)

    def _received(self, data: bytes, peer: tuple[str, int]) -> None:
        began = time.perf_counter()
        now = time.monotonic()
        entry = self._cache.get(data[2:], now)
        if entry is not None:
            answer = data[:2] + entry.bytes_at(now)
            self._send(answer, peer)
            took = time.perf_counter() - began
            self._metrics.answered(self._transport, entry.label, took, len(data), len(answer))
            return
        query = self._answerer.read(data, self._transport)
        if not isinstance(query, Query):
            if query is not None:
                self._send(query, peer)
            return
        limit = min(query.payload, PAYLOAD)
        done = self._answerer.local(query, limit)
        if done is not None:
            self._finish(data, peer, query, *done, began)
        elif len(self._waiting) < _MOST_WAITING:
            task = asyncio.create_task(self._later(data, peer, query, limit, began))
            self._waiting.add(task)
            task.add_done_callback(self._waiting.discard)

    async def _later(
        self, data: bytes, peer: tuple[str, int], query: Query, limit: int, began: float
    ) -> None:
        answer, result = await self._answerer.remote(query, limit)
        self._finish(data, peer, query, answer, result, began)

    def _finish(
        self, data: bytes, peer: tuple[str, int], query: Query, answer: bytes, result: Result, began: float
    ) -> None:
        self._send(answer, peer)
        self._metrics.answered(
            self._transport, result.label, time.perf_counter() - began, len(data), len(answer)
        )
        # Each spelling of a name, and each cookie, would fill a place of its own: keep the plain ones only.
        if result.ttl > 0 and not query.options and not truncated(answer) and _plain(query):
            now = time.monotonic()
            label = result.label if result.tag is not None else result.label._replace(plugin="cache")
            entry = Entry(
                answer[2:], layout(answer), label=label, tag=result.tag, stored=now,
                expires=now + result.ttl,
            )  # fmt: skip
            self._cache.put(data[2:], entry)

    def _send(self, answer: bytes, peer: tuple[str, int]) -> None:
        # A full buffer or a client that is gone: over UDP an answer may get lost, and the client asks again.
        with suppress(OSError):
            self._socket.sendto(answer, peer)


class TcpListener:
    """One TCP socket. A connection's questions are answered as they are ready (RFC 7766)."""

    def __init__(self, host: str, port: int, answerer: Answerer, metrics: Metrics) -> None:
        self._answerer = answerer
        self._metrics = metrics
        self._socket = bound(host, port, socket.SOCK_STREAM)
        self._transport = Transport("tcp", "2" if self._socket.family == socket.AF_INET6 else "1")
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.Task[None]] = set()
        self.port: int = self._socket.getsockname()[1]

    async def start(self) -> None:
        """Begin to accept connections."""
        self._server = await asyncio.start_server(self._accepted, sock=self._socket)

    async def close(self) -> None:
        """Stop, and end all connections."""
        if self._server is not None:
            self._server.close()
        for task in self._connections:
            task.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    async def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        try:
            if len(self._connections) < _MOST_CONNECTIONS:
                self._connections.add(task)
                await self._converse(reader, writer)
        finally:
            self._connections.discard(task)
            writer.close()

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        room = asyncio.Semaphore(_MOST_PIPELINED)
        async with asyncio.TaskGroup() as group:
            while True:
                await room.acquire()
                try:
                    async with asyncio.timeout(_IDLE):
                        (length,) = struct.unpack("!H", await reader.readexactly(2))
                        data = await reader.readexactly(length)
                except (OSError, EOFError):
                    return  # the answers under way are still sent: the group waits for them
                group.create_task(self._answer(data, writer, room))

    async def _answer(self, data: bytes, writer: asyncio.StreamWriter, room: asyncio.Semaphore) -> None:
        began = time.perf_counter()
        try:
            query = self._answerer.read(data, self._transport)
            if isinstance(query, Query):
                answer, result = self._answerer.local(query, 65535) or await self._answerer.remote(
                    query, 65535
                )
                took = time.perf_counter() - began
                self._metrics.answered(self._transport, result.label, took, len(data), len(answer))
            elif query is None:
                return
            else:
                answer = query
            with suppress(OSError):
                async with asyncio.timeout(_IDLE):
                    writer.write(struct.pack("!H", len(answer)) + answer)
                    await writer.drain()
        finally:
            room.release()


def bound(host: str, port: int, kind: socket.SocketKind) -> socket.socket:
    """A socket at an address. Raises `OSError`."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family, kind)
    try:
        sock.setblocking(False)
        if kind == socket.SOCK_STREAM:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            # "::" takes IPv4 too, as CoreDNS' plain ":53" does.
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        sock.bind((host, port))
    except BaseException:
        sock.close()
        raise
    return sock


def _plain(query: Query) -> bool:
    return all(label == label.lower() for label in query.name.labels)
