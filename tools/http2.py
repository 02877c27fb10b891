"""A small HTTP/2 client that behaves as client-go's does: many requests on one connection, and no second try.

The probes of tools/ha_probe.py must see what kubelets and controllers see. So a request that was on a connection
when it broke has failed, a GOAWAY (RFC 9113, 6.8) moves later requests to a new connection and lets the earlier
ones finish, and a connection on which nothing has come for 30 s is asked with a PING that must be answered within
15 s (Kubernetes' defaults since 1.20).
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import Callable
from dataclasses import dataclass, field

import hpack
from hyperframe.frame import (
    DataFrame,
    Frame,
    GoAwayFrame,
    HeadersFrame,
    PingFrame,
    RstStreamFrame,
    SettingsFrame,
    WindowUpdateFrame,
)

READ_IDLE, PING_TIMEOUT = 30.0, 15.0
"""Seconds; client-go sets them by HTTP2_READ_IDLE_TIMEOUT_SECONDS and HTTP2_PING_TIMEOUT_SECONDS."""

_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_WINDOW = 2**31 - 1
_HEADER = 9


@dataclass
class Answer:
    """What a server answered."""

    status: int = 0
    body: bytearray = field(default_factory=bytearray)


@dataclass
class _Stream:
    done: asyncio.Future[Answer]
    answer: Answer = field(default_factory=Answer)


class Connection:
    """One connection. `usable` says whether it takes further requests."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, authority: str) -> None:
        self._reader, self._writer, self._authority = reader, writer, authority
        self._encoder, self._decoder = hpack.Encoder(), hpack.Decoder()
        self._streams: dict[int, _Stream] = {}
        self._next = 1
        self.usable = True
        self._task = asyncio.create_task(self._read())

    @classmethod
    async def open(cls, host: str, port: int, context: ssl.SSLContext, *, timeout: float) -> Connection:
        """Connect, verify the server, and agree on HTTP/2. Raises `OSError` (`ssl.SSLError` is one)."""
        try:
            async with asyncio.timeout(timeout):
                reader, writer = await asyncio.open_connection(host, port, ssl=context, server_hostname=host)
        except TimeoutError:
            raise TimeoutError(f"no connection within {timeout:g} s") from None
        if writer.get_extra_info("ssl_object").selected_alpn_protocol() != "h2":
            writer.close()
            raise ConnectionError("the server does not speak HTTP/2")
        writer.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        settings = SettingsFrame(
            settings={SettingsFrame.ENABLE_PUSH: 0, SettingsFrame.INITIAL_WINDOW_SIZE: _WINDOW}
        )
        writer.write(
            _PREFACE
            + settings.serialize()
            + WindowUpdateFrame(0, window_increment=_WINDOW - 65535).serialize()
        )
        return cls(reader, writer, f"{host}:{port}")

    async def request(
        self,
        method: str,
        path: str,
        *,
        headers: tuple[tuple[str, str], ...] = (),
        body: bytes = b"",
        timeout: float,
    ) -> Answer:
        """One request. A body must be small, for the server's window is not minded. Raises `OSError`."""
        number, self._next = self._next, self._next + 2
        stream = self._streams[number] = _Stream(asyncio.get_running_loop().create_future())
        fields = [
            (":method", method),
            (":scheme", "https"),
            (":authority", self._authority),
            (":path", path),
            *headers,
        ]
        head = HeadersFrame(number, self._encoder.encode(fields), flags=["END_HEADERS"])
        if not body:
            head.flags.add("END_STREAM")
        frames = head.serialize()
        if body:
            frames += DataFrame(number, body, flags=["END_STREAM"]).serialize()
        try:
            self._writer.write(frames)
            async with asyncio.timeout(timeout):
                return await stream.done
        except TimeoutError:
            if stream.done.done() and not stream.done.cancelled():
                raise  # the connection itself timed out
            with contextlib.suppress(OSError):
                self._writer.write(RstStreamFrame(number, error_code=8).serialize())
            raise TimeoutError(f"no answer within {timeout:g} s") from None
        finally:
            self._streams.pop(number, None)

    def close(self) -> None:
        """End the connection; requests that are on it fail."""
        self._end(ConnectionAbortedError("closed by this client"))
        self._task.cancel()

    def _end(self, why: Exception) -> None:
        self.usable = False
        for stream in self._streams.values():
            if not stream.done.done():
                stream.done.set_exception(why)
        # abort(): a TLS goodbye to a peer that is gone would keep the socket for half a minute.
        self._writer.transport.abort()

    async def _read(self) -> None:
        """Take frames until the connection ends, and wake whoever waits for them."""
        try:
            while True:
                head = await self._within_patience(_HEADER)
                frame, length = Frame.parse_frame_header(memoryview(head))
                body = await self._within_patience(length) if length else b""
                frame.parse_body(memoryview(body))
                self._take(frame)
                if not self.usable and not self._streams:
                    self._end(ConnectionAbortedError("nothing is left to do after GOAWAY"))
                    return
        except asyncio.IncompleteReadError:
            self._end(ConnectionResetError("the connection was closed"))
        except (OSError, ValueError, hpack.HPACKError) as error:
            self._end(error if isinstance(error, OSError) else ConnectionError(str(error)))

    async def _within_patience(self, length: int) -> bytes:
        """So many bytes. A silence of `READ_IDLE` is asked about, and one more of `PING_TIMEOUT` is the end."""
        read = asyncio.ensure_future(self._reader.readexactly(length))
        try:
            done, _ = await asyncio.wait([read], timeout=READ_IDLE)
            if not done:
                self._writer.write(PingFrame(0, opaque_data=b"patience").serialize())
                done, _ = await asyncio.wait([read], timeout=PING_TIMEOUT)
            if not done:
                raise TimeoutError(f"PING was not answered within {PING_TIMEOUT:g} s")
            return read.result()
        finally:
            read.cancel()

    def _take(self, frame: Frame) -> None:
        stream = self._streams.get(frame.stream_id)
        if isinstance(frame, HeadersFrame):
            if "END_HEADERS" not in frame.flags:
                raise ConnectionError("headers in several frames")
            # Also where nobody waits for it: the decoder's table must follow the server's.
            fields = {str(name): str(value) for name, value in self._decoder.decode(frame.data)}
            if stream:
                stream.answer.status = int(fields.get(":status", stream.answer.status))
        elif isinstance(frame, DataFrame):
            if stream:
                stream.answer.body += frame.data
        elif isinstance(frame, SettingsFrame):
            if "ACK" not in frame.flags:
                self._writer.write(SettingsFrame(0, flags=["ACK"]).serialize())
        elif isinstance(frame, PingFrame):
            if "ACK" not in frame.flags:
                self._writer.write(PingFrame(0, opaque_data=frame.opaque_data, flags=["ACK"]).serialize())
        elif isinstance(frame, GoAwayFrame):
            self.usable = False
            for number, other in self._streams.items():
                if number > frame.last_stream_id and not other.done.done():
                    other.done.set_exception(NotTakenError("GOAWAY came before the request was taken"))
        elif isinstance(frame, RstStreamFrame) and stream and not stream.done.done():
            code = frame.error_code
            error = NotTakenError if code == 7 else ConnectionResetError  # 7: REFUSED_STREAM
            stream.done.set_exception(error(f"the server reset the stream with code {code}"))
        if stream and "END_STREAM" in frame.flags and not stream.done.done():
            stream.done.set_result(stream.answer)


class NotTakenError(ConnectionError):
    """The server says that it has not begun with a request: it may be sent again (RFC 9113, 8.7)."""


class Client:
    """Requests to one server: on one connection that is kept, or, without `keep`, each on one of its own."""

    def __init__(
        self, host: str, port: int, context: Callable[[], ssl.SSLContext], *, keep: bool, timeout: float
    ) -> None:
        self._host, self._port, self._keep, self._timeout = host, port, keep, timeout
        self._context = context()
        self._context.set_alpn_protocols(["h2"])
        self._kept: Connection | None = None
        self._opening = asyncio.Lock()

    async def request(
        self, method: str, path: str, *, headers: tuple[tuple[str, str], ...] = (), body: bytes = b""
    ) -> Answer:
        """One request; `timeout` is for all of it. What the server has not taken is sent again, as Go does.

        Raises `OSError`.
        """
        loop = asyncio.get_running_loop()
        ends = loop.time() + self._timeout
        while True:
            connection = await self._connection(ends - loop.time())
            try:
                return await connection.request(
                    method, path, headers=headers, body=body, timeout=max(ends - loop.time(), 0.001)
                )
            except NotTakenError:
                if loop.time() >= ends:
                    raise
            except TimeoutError:
                if loop.time() < ends:
                    raise
                raise TimeoutError(f"no answer within {self._timeout:g} s") from None
            finally:
                if not self._keep:
                    connection.close()

    def close(self) -> None:
        """End the kept connection."""
        if self._kept:
            self._kept.close()

    async def _connection(self, timeout: float) -> Connection:
        if not self._keep:
            return await Connection.open(self._host, self._port, self._context, timeout=timeout)
        if self._kept and self._kept.usable:
            return self._kept
        try:
            async with asyncio.timeout(timeout):
                async with self._opening:  # one dial for all that wait
                    if not (self._kept and self._kept.usable):
                        self._kept = await Connection.open(
                            self._host, self._port, self._context, timeout=self._timeout
                        )
                    return self._kept
        except TimeoutError:
            raise TimeoutError(f"no connection within {self._timeout:g} s") from None
