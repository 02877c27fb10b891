"""A client of the Kubernetes API for commands that ask one or two things: it loads faster than `KubeClient`.

HTTP/1.1 (RFC 9112) over one TLS connection, which is kept between requests; no watches and no streams.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlencode, urlsplit

from kubewright.clients.objects import ObjectClient, payload, refused, unanswered
from kubewright.clients.server import Server

_CONNECT = 10.0  # seconds
_LINE = 2**16
_SHOWN = 100


class LightClient(ObjectClient):
    """One connection to one API server; requests wait for each other.

    `timeout` is in seconds, for each request.
    """

    def __init__(self, server: Server, *, timeout: float = 30.0) -> None:
        self.server = server
        self._timeout = timeout
        self._turn = asyncio.Lock()
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def close(self) -> None:
        """End the connection."""
        if self._streams is not None:
            self._streams[1].transport.abort()  # nothing is under way: no goodbye is worth a wait
            self._streams = None

    async def request(
        self,
        method: str,
        path: str,
        *,
        body: Any = None,
        params: Mapping[str, str] | None = None,
        content_type: str = "application/json",
        timeout: float | None = None,
    ) -> bytes:
        """See `ObjectClient.request`."""
        url = urlsplit(self.server.url)
        target = url.path.rstrip("/") + path + (f"?{urlencode(params)}" if params else "")
        headers = {"Host": url.netloc, "Accept": "application/json", **self._identity()}
        data = b""
        if body is not None:
            data = payload(body)
            headers |= {"Content-Type": content_type, "Content-Length": str(len(data))}
        lines = [f"{method} {target} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items())]
        message = "\r\n".join([*lines, "", ""]).encode() + data
        try:
            async with asyncio.timeout(timeout or self._timeout), self._turn:
                try:
                    status, answer = await self._exchange(message)
                except BaseException:
                    await self.close()  # what is left of an answer would be taken for the next one's
                    raise
        except (OSError, TimeoutError, EOFError, ValueError) as error:
            raise unanswered(method, f"{self.server.url}{path}", error) from error
        if status >= 400:
            raise refused(method, path, status, answer)
        return answer

    async def _exchange(self, message: bytes) -> tuple[int, bytes]:
        """Send one request and read its answer. Raises `ValueError` for no HTTP, `EOFError` for half of it."""
        reader, writer = self._streams or await self._connect()
        writer.write(message)
        await writer.drain()
        status = 100
        while status < 200:  # what comes before the answer itself says nothing to us
            status, headers = await _head(reader)
        coded = headers.get("transfer-encoding", "").lower()
        if coded == "chunked":
            data = await _chunks(reader)
        elif coded:
            raise ValueError(f"the answer's transfer coding is {coded!r}")
        elif "content-length" in headers:
            data = await reader.readexactly(int(headers["content-length"]))
        elif status in (204, 304):
            data = b""
        else:
            data = await reader.read()
            headers["connection"] = "close"
        if headers.get("connection", "").lower() == "close":
            await self.close()
        return status, data

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        url = urlsplit(self.server.url)
        name = self.server.tls_server_name or url.hostname or ""
        host, port = self.server.connect or (url.hostname or "", url.port or 443)
        async with asyncio.timeout(_CONNECT):
            self._streams = await asyncio.open_connection(
                host, port, ssl=self.server.ssl_context(), server_hostname=name, limit=_LINE
            )
        return self._streams


async def _head(reader: asyncio.StreamReader) -> tuple[int, dict[str, str]]:
    """The status and headers of an answer; names in lower case."""
    first = (await reader.readline()).decode("latin-1").rstrip("\r\n")
    if not first:
        raise EOFError("the server ended the connection")
    version, _, rest = first.partition(" ")
    if not version.startswith("HTTP/1.") or not rest[:3].isdecimal():
        raise ValueError(f"what answers there is no API server: {first[:_SHOWN]!r}")
    headers = {}
    while line := (await reader.readline()).decode("latin-1").rstrip("\r\n"):
        name, _, value = line.partition(":")
        headers[name.strip().lower()] = value.strip()
    return int(rest[:3]), headers


async def _chunks(reader: asyncio.StreamReader) -> bytes:
    data = bytearray()
    while size := int((await reader.readline()).partition(b";")[0], 16):
        data += await reader.readexactly(size)
        await reader.readline()
    while (await reader.readline()).rstrip(b"\r\n"):
        pass  # trailers
    return bytes(data)
