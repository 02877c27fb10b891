"""A small asynchronous client of the Kubernetes API: objects are dicts, as they stand in a manifest.

It runs in workflows (through a kubeconfig, optionally tunnelled over a host) and inside pods (with their
service account). docs/dependencies.md says why it is ours.
"""

from __future__ import annotations

import asyncio
import json
import socket
import ssl
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import urlsplit

import aiohttp

from kubewright.clients.objects import (
    FIELD_MANAGER,
    ObjectClient,
    payload,
    refused,
    selectors,
    unanswered,
)
from kubewright.clients.paths import Object, object_path
from kubewright.clients.server import Server
from kubewright.errors import ApiError

__all__ = ["FIELD_MANAGER", "ExecResult", "KubeClient"]


@dataclass(frozen=True, slots=True)
class ExecResult:
    """A command that ended inside a container."""

    exit_code: int
    stdout: bytes
    stderr: bytes


class KubeClient(ObjectClient):
    """One connection pool to one API server. Use it as an asynchronous context manager.

    Paths of objects are made from `apiVersion`, `kind`, namespace and name. Every request has a deadline
    (`timeout`, seconds). A refused request raises `ApiError` with the server's own message; an unreachable
    server raises `ApiError` with status 0.
    """

    def __init__(self, server: Server, *, timeout: float = 30.0) -> None:
        self.server = server
        self.said_at: datetime | None = None
        """When the server has last answered, by its own clock."""
        self._timeout = aiohttp.ClientTimeout(total=timeout, sock_connect=10)
        self._session: aiohttp.ClientSession | None = None
        self._ssl: ssl.SSLContext | None = None

    async def close(self) -> None:
        """End all connections."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    # -- requests ---------------------------------------------------------------------------------------------

    def _open(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._ssl = self.server.ssl_context()
            self._session = aiohttp.ClientSession(
                timeout=self._timeout,
                connector=aiohttp.TCPConnector(ssl=self._ssl, limit=32, socket_factory=_watchful_socket),
            )
        return self._session

    def _where(self, path: str) -> tuple[str, dict[str, Any]]:
        """The URL to connect to, and the arguments that keep TLS and `Host` right behind a tunnel."""
        url = urlsplit(self.server.url)
        name = self.server.tls_server_name or url.hostname or ""
        options: dict[str, Any] = {}
        headers: dict[str, str] = {}
        base = self.server.url.rstrip("/")
        if self.server.connect is not None:
            address, port = self.server.connect
            base = f"https://{f'[{address}]' if ':' in address else address}:{port}"
            headers["Host"] = url.netloc
            options["server_hostname"] = name
        elif self.server.tls_server_name:
            options["server_hostname"] = name
        headers |= self._identity()
        options["headers"] = headers
        return base + path, options

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
        """One request; the answer's body. Raises `ApiError` for a status of 400 or more, or no answer."""
        url, options = self._where(path)
        if body is not None:
            options["data"] = payload(body)
            options["headers"]["Content-Type"] = content_type
        if timeout is not None:
            options["timeout"] = aiohttp.ClientTimeout(total=timeout)
        try:
            async with self._open().request(method, url, params=params, **options) as response:
                data = await response.read()
                with suppress(KeyError, ValueError):
                    self.said_at = parsedate_to_datetime(response.headers["Date"])
                if response.status >= 400:
                    raise refused(method, path, response.status, data)
                return data
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise unanswered(method, f"{self.server.url}{path}", error) from error

    # -- streams ----------------------------------------------------------------------------------------------

    async def watch(
        self, api_version: str, kind: str, namespace: str = "", *, version: str = "", labels: str = "",
        fields: str = "", timeout: float = 300.0,
    ) -> AsyncIterator[tuple[str, Object]]:  # fmt: skip
        """Events (`ADDED`, `MODIFIED`, `DELETED`, `BOOKMARK`) from `version` on, until the server ends the watch.

        It ends without an error when `timeout` seconds have passed; list and watch again then. A version that
        is too old raises `ApiError` with status 410.
        """
        params = selectors(labels, fields) | {
            "watch": "true", "allowWatchBookmarks": "true", "timeoutSeconds": str(int(timeout)),
        }  # fmt: skip
        if version:
            params["resourceVersion"] = version
        path = object_path(api_version, kind, namespace)
        url, options = self._where(path)
        options["timeout"] = aiohttp.ClientTimeout(total=None, sock_connect=10, sock_read=timeout + 15)
        options["read_bufsize"] = 2**22
        try:
            async with self._open().get(url, params=params, **options) as response:
                if response.status >= 400:
                    raise refused("GET", path, response.status, await response.read())
                buffer = bytearray()
                async for chunk in response.content.iter_any():
                    buffer += chunk
                    while (end := buffer.find(b"\n")) >= 0:
                        line, buffer = bytes(buffer[:end]), buffer[end + 1 :]
                        if not line.strip():
                            continue
                        event = json.loads(line)
                        if event["type"] == "ERROR":
                            status = event["object"]
                            raise ApiError(
                                f"watch {path}: {status.get('message', '')}",
                                status=int(status.get("code", 0)), reason=status.get("reason", ""),
                            )  # fmt: skip
                        yield event["type"], event["object"]
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise ApiError(f"watch {path}: {str(error) or type(error).__name__}") from error

    async def logs(self, namespace: str, pod: str, *, container: str = "", lines: int = 20) -> str:
        """The last lines that a pod wrote, through its node's kubelet."""
        params = {"tailLines": str(lines)} | ({"container": container} if container else {})
        path = object_path("v1", "Pod", namespace, pod) + "/log"
        return (await self.request("GET", path, params=params)).decode(errors="replace")

    async def exec(
        self, namespace: str, pod: str, argv: Sequence[str], *, container: str = "", stdin: bytes | None = None,
        timeout: float = 60.0,
    ) -> ExecResult:  # fmt: skip
        """Run a command in a container, over the WebSocket protocol v4.channel.k8s.io.

        That protocol cannot close standard input: a command that reads it must know when it has enough.
        """
        query = [("command", word) for word in argv] + [("stdout", "true"), ("stderr", "true")]
        if stdin is not None:
            query.append(("stdin", "true"))
        if container:
            query.append(("container", container))
        path = object_path("v1", "Pod", namespace, pod) + "/exec"
        url, options = self._where(path)
        out, err, status = bytearray(), bytearray(), b""
        try:
            async with (
                asyncio.timeout(timeout),
                self._open().ws_connect(
                    url, params=query, protocols=("v4.channel.k8s.io",), max_msg_size=0, **options
                ) as socket,
            ):
                if stdin is not None:
                    for start in range(0, len(stdin), 1 << 16):
                        await socket.send_bytes(b"\0" + stdin[start : start + (1 << 16)])
                async for message in socket:
                    if message.type is not aiohttp.WSMsgType.BINARY or not message.data:
                        continue
                    channel, data = message.data[0], message.data[1:]
                    if channel == 1:
                        out += data
                    elif channel == 2:
                        err += data
                    elif channel == 3:
                        status += data
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise ApiError(f"exec in {namespace}/{pod}: {str(error) or type(error).__name__}") from error
        return ExecResult(_exec_code(status), bytes(out), bytes(err))

    async def readyz(self, *, timeout: float = 5.0) -> str:
        """The verbose text of the API server's readiness, a line a check (`[+]` good, `[-]` failed).

        It comes with a status of 500 when a check fails: that is an answer, not an error. `timeout` in seconds.
        """
        url, options = self._where("/readyz")
        options["timeout"] = aiohttp.ClientTimeout(total=timeout)
        try:
            async with self._open().get(url, params={"verbose": ""}, **options) as response:
                data = await response.read()
                if response.status not in (200, 500):
                    raise refused("GET", "/readyz", response.status, data)
                return data.decode(errors="replace")
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise unanswered("GET", f"{self.server.url}/readyz", error) from error

    async def healthz(self, path: str = "/readyz", *, timeout: float = 2.0) -> bool:
        """Whether a health endpoint answers 200 within `timeout` seconds."""
        with suppress(ApiError):
            await self.request("GET", path, timeout=timeout)
            return True
        return False


def _watchful_socket(info: aiohttp.AddrInfoType) -> socket.socket:
    """A TCP socket that notices within half a minute that its server is gone.

    A watch only listens: where a server's host dies without a word, nothing but keepalive packets tells.
    """
    family, kind, proto, _, _ = info
    sock = socket.socket(family, kind, proto)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in (("TCP_KEEPIDLE", 15), ("TCP_KEEPINTVL", 5), ("TCP_KEEPCNT", 3)):
        if hasattr(socket, option):  # Linux has them; a workstation may be something else
            sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)
    return sock


def _exec_code(status: bytes) -> int:
    """The exit code out of the `v1.Status` that ends an exec; 255 where there is none."""
    try:
        body = json.loads(status)
    except ValueError:
        return 255
    if body.get("status") == "Success":
        return 0
    for cause in (body.get("details") or {}).get("causes") or []:
        if cause.get("reason") == "ExitCode":
            return int(cause["message"])
    return 255
