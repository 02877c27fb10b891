"""A small asynchronous client of the Kubernetes API: objects are dicts, as they stand in a manifest.

It runs in workflows (through a kubeconfig, optionally tunnelled over a host) and inside pods (with their
service account). docs/dependencies.md says why it is ours.
"""

from __future__ import annotations

import asyncio
import builtins
import json
import socket
import ssl
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import aiohttp

from kubewright.clients.paths import Object, collection_path, object_path, path_of
from kubewright.clients.server import Server
from kubewright.errors import ApiError, ConfigError

FIELD_MANAGER = "kubewright"


@dataclass(frozen=True, slots=True)
class ExecResult:
    """A command that ended inside a container."""

    exit_code: int
    stdout: bytes
    stderr: bytes


class KubeClient:
    """One connection pool to one API server. Use it as an asynchronous context manager.

    Paths of objects are made from `apiVersion`, `kind`, namespace and name. Every request has a deadline
    (`timeout`, seconds). A refused request raises `ApiError` with the server's own message; an unreachable
    server raises `ApiError` with status 0.
    """

    def __init__(self, server: Server, *, timeout: float = 30.0) -> None:
        self.server = server
        self._timeout = aiohttp.ClientTimeout(total=timeout, sock_connect=10)
        self._session: aiohttp.ClientSession | None = None
        self._ssl: ssl.SSLContext | None = None

    async def __aenter__(self) -> KubeClient:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

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
            base = f"https://{address}:{port}"
            headers["Host"] = url.netloc
            options["server_hostname"] = name
        elif self.server.tls_server_name:
            options["server_hostname"] = name
        token = self.server.token
        if self.server.token_file is not None:
            try:
                token = self.server.token_file.read_text().strip()
            except OSError as error:
                raise ConfigError(
                    f"the token file {self.server.token_file} cannot be read: {error.strerror}"
                ) from None
        if token:
            headers["Authorization"] = f"Bearer {token}"
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
            options["data"] = body if isinstance(body, bytes) else json.dumps(body).encode()
            options["headers"]["Content-Type"] = content_type
        if timeout is not None:
            options["timeout"] = aiohttp.ClientTimeout(total=timeout)
        try:
            async with self._open().request(method, url, params=params, **options) as response:
                data = await response.read()
                if response.status >= 400:
                    raise _refused(method, path, response.status, data)
                return data
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise ApiError(
                f"{method} {self.server.url}{path}: {str(error) or type(error).__name__}",
                hint="is the API server up, and reachable from here?",
            ) from error

    async def json(self, method: str, path: str, **options: Any) -> Any:
        """`request`, with the answer parsed."""
        data = await self.request(method, path, **options)
        try:
            return json.loads(data or b"null")
        except ValueError:
            raise ApiError(
                f"{method} {self.server.url}{path}: what answers there is no Kubernetes API",
                hint="does the address lead to the API server, or to a proxy before it?",
            ) from None

    # -- objects ----------------------------------------------------------------------------------------------

    async def get(self, api_version: str, kind: str, name: str, namespace: str = "") -> Object | None:
        """One object, or None where there is none."""
        try:
            found: Object = await self.json("GET", object_path(api_version, kind, namespace, name))
        except ApiError as error:
            if error.status == 404:
                return None
            raise
        return found

    async def list(
        self, api_version: str, kind: str, namespace: str = "", *, labels: str = "", fields: str = ""
    ) -> list[Object]:
        """All objects of a kind, of one namespace or of all, with their apiVersion and kind filled in."""
        items, _ = await self.list_with_version(api_version, kind, namespace, labels=labels, fields=fields)
        return items

    async def list_with_version(
        self, api_version: str, kind: str, namespace: str = "", *, labels: str = "", fields: str = ""
    ) -> tuple[builtins.list[Object], str]:
        """`list`, and the resourceVersion from which a watch goes on."""
        answer = await self.json(
            "GET", object_path(api_version, kind, namespace), params=_selectors(labels, fields)
        )
        for item in answer.get("items") or []:
            item.setdefault("apiVersion", api_version)
            item.setdefault("kind", kind)
        return answer.get("items") or [], answer.get("metadata", {}).get("resourceVersion", "")

    async def create(self, obj: Object) -> Object:
        """Create an object; `ApiError` with status 409 where it exists."""
        created: Object = await self.json("POST", collection_path(obj), body=obj)
        return created

    async def apply(self, obj: Object, *, dry_run: bool = False) -> Object:
        """Server-side apply: create the object, or change the fields that `obj` names and no others."""
        params = {"fieldManager": FIELD_MANAGER, "force": "true"}
        if dry_run:
            params["dryRun"] = "All"
        applied: Object = await self.json(
            "PATCH", path_of(obj), body=obj, params=params, content_type="application/apply-patch+yaml"
        )
        return applied

    async def patch(
        self,
        api_version: str,
        kind: str,
        name: str,
        change: Any,
        namespace: str = "",
        *,
        subresource: str = "",
    ) -> Object:
        """A strategic merge patch."""
        path = object_path(api_version, kind, namespace, name) + (f"/{subresource}" if subresource else "")
        patched: Object = await self.json(
            "PATCH", path, body=change, content_type="application/strategic-merge-patch+json"
        )
        return patched

    async def merge(self, api_version: str, kind: str, name: str, change: Any, namespace: str = "") -> Object:
        """A JSON merge patch (RFC 7386): a list in it replaces the whole list."""
        path = object_path(api_version, kind, namespace, name)
        patched: Object = await self.json(
            "PATCH", path, body=change, content_type="application/merge-patch+json"
        )
        return patched

    async def delete(
        self, api_version: str, kind: str, name: str, namespace: str = "", *, grace: int | None = None
    ) -> bool:
        """Delete an object in the background; False where there was none. `grace` is in seconds."""
        options: Object = {"propagationPolicy": "Background"}
        if grace is not None:
            options["gracePeriodSeconds"] = grace
        try:
            await self.request("DELETE", object_path(api_version, kind, namespace, name), body=options)
        except ApiError as error:
            if error.status == 404:
                return False
            raise
        return True

    async def watch(
        self, api_version: str, kind: str, namespace: str = "", *, version: str = "", labels: str = "",
        fields: str = "", timeout: float = 300.0,
    ) -> AsyncIterator[tuple[str, Object]]:  # fmt: skip
        """Events (`ADDED`, `MODIFIED`, `DELETED`, `BOOKMARK`) from `version` on, until the server ends the watch.

        It ends without an error when `timeout` seconds have passed; list and watch again then. A version that
        is too old raises `ApiError` with status 410.
        """
        params = _selectors(labels, fields) | {
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
                    raise _refused("GET", path, response.status, await response.read())
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
                    raise _refused("GET", "/readyz", response.status, data)
                return data.decode(errors="replace")
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise ApiError(f"GET {self.server.url}/readyz: {str(error) or type(error).__name__}") from error

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


def _selectors(labels: str, fields: str) -> dict[str, str]:
    return ({"labelSelector": labels} if labels else {}) | ({"fieldSelector": fields} if fields else {})


def _refused(method: str, path: str, status: int, data: bytes) -> ApiError:
    reason, message = "", data.decode(errors="replace")[:300]
    with suppress(ValueError):
        body = json.loads(data)
        if isinstance(body, dict):
            reason, message = str(body.get("reason", "")), str(body.get("message", message))
    return ApiError(f"{method} {path}: {status} {message}", status=status, reason=reason)


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
