"""Reading `cluster-info` of an API server that is not trusted yet, and saying exactly why it cannot be read."""

from __future__ import annotations

import json
import os
import ssl
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from enum import StrEnum
from typing import Any
from urllib.parse import urlsplit

import aiohttp

from kubewright.clients.paths import object_path
from kubewright.clients.server import Server
from kubewright.errors import ApiError

# X509_V_ERR_CERT_NOT_YET_VALID and X509_V_ERR_CERT_HAS_EXPIRED, X509_V_ERR_HOSTNAME_MISMATCH and
# X509_V_ERR_IP_ADDRESS_MISMATCH of OpenSSL.
_MOST = 4 << 20
_NOT_YET, _OVER, _OTHER_NAMES = 9, 10, (62, 64)


class Trouble(StrEnum):
    """Why there is no answer to build on."""

    UNREACHABLE = "unreachable"
    NO_TLS = "no TLS"
    NOT_YET_VALID = "certificate not yet valid"
    EXPIRED = "certificate expired"
    OTHER_NAME = "certificate of another name"
    OTHER_CA = "certificate of another CA"
    NO_API = "no Kubernetes API"
    UNAUTHORIZED = "unauthorized"
    FORBIDDEN = "forbidden"
    MISSING = "missing"
    NOT_NOW = "not now"


class LookError(ApiError):
    """`cluster-info` cannot be read; `trouble` says why."""

    def __init__(self, trouble: Trouble, message: str, *, status: int = 0) -> None:
        super().__init__(message, status=status)
        self.trouble = trouble


@dataclass(frozen=True, slots=True)
class Answer:
    """What an API server answered."""

    body: Any
    server_time: datetime | None
    """Its clock, to the second."""


async def read_cluster_info(server: Server, *, timeout: float = 10.0) -> Answer:
    """The ConfigMap `kube-public/cluster-info`. Raises `LookError`. `timeout` is in seconds."""
    return await _read(server, object_path("v1", "ConfigMap", "kube-public", "cluster-info"), timeout)


async def whether_accepted(server: Server, *, timeout: float = 10.0) -> bool:
    """Whether the API server knows who we are: False where it refuses our credentials. Raises `LookError`."""
    try:
        await _read(server, "/version", timeout)
    except LookError as error:
        if error.trouble is Trouble.UNAUTHORIZED:
            return False
        if error.trouble is not Trouble.FORBIDDEN:
            raise
    return True


async def read_url(server: Server, *, timeout: float = 30.0) -> tuple[bytes, str]:
    """What stands at a server's URL, and where to look instead, if it says so. Raises `LookError`."""
    url = urlsplit(server.url)
    path = (url.path or "/") + (f"?{url.query}" if url.query else "")
    status, headers, data = await _get(server, path, timeout)
    if status in (301, 302, 303, 307, 308) and headers.get("Location"):
        return b"", headers["Location"]
    if status != 200:
        raise LookError(Trouble.MISSING, f"the server answers {status}", status=status)
    return data, ""


async def _read(server: Server, path: str, timeout: float) -> Answer:
    status, headers, data = await _get(server, path, timeout)
    return _checked(status, headers, data)


async def _get(server: Server, path: str, timeout: float) -> tuple[int, Mapping[str, str], bytes]:
    url = urlsplit(server.url)
    base, headers = f"{url.scheme}://{url.netloc}", {"Accept": "application/json, */*"}
    if server.connect is not None:
        address, port = server.connect
        base = f"https://{f'[{address}]' if ':' in address else address}:{port}"
        headers["Host"] = url.netloc
    if server.token:
        headers["Authorization"] = f"Bearer {server.token}"
    limits = aiohttp.ClientTimeout(total=timeout, sock_connect=min(timeout, 5.0))
    try:
        async with (
            aiohttp.ClientSession(timeout=limits) as session,
            session.get(
                base + path, headers=headers, ssl=server.ssl_context(), allow_redirects=False,
                server_hostname=server.tls_server_name or url.hostname or "",
            ) as response,
        ):  # fmt: skip
            data = bytearray()
            async for block in response.content.iter_any():
                data += block
                if len(data) > _MOST:
                    raise LookError(Trouble.NO_API, f"more than {_MOST >> 10} KiB")
            return response.status, response.headers, bytes(data)
    except (aiohttp.ClientError, OSError, TimeoutError) as error:
        raise _told(error) from error


def _checked(status: int, headers: Mapping[str, str], data: bytes) -> Answer:
    server_time = None
    with suppress(ValueError, TypeError):
        server_time = parsedate_to_datetime(headers.get("Date", "")).astimezone(UTC)
    body: Any = None
    with suppress(ValueError):
        body = json.loads(data)
    if status == 200 and isinstance(body, dict):
        return Answer(body, server_time)
    message = f"{status} {body.get('message', '') if isinstance(body, dict) else ''}".strip()
    if not isinstance(body, dict) or body.get("kind") != "Status":
        if status in (429, 502, 503, 504):  # a load balancer whose API servers are away
            raise LookError(Trouble.NOT_NOW, f"{status} and no Kubernetes API", status=status)
        raise LookError(Trouble.NO_API, f"{status} and nothing of the Kubernetes API", status=status)
    troubles = {401: Trouble.UNAUTHORIZED, 403: Trouble.FORBIDDEN, 404: Trouble.MISSING}
    raise LookError(troubles.get(status, Trouble.NOT_NOW), message, status=status)


def _told(error: BaseException) -> LookError:
    seen = error
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        seen = error.certificate_error
    elif isinstance(error, aiohttp.ClientConnectorSSLError):
        seen = error.os_error
    elif isinstance(error.__cause__, ssl.SSLError):  # the server ended TLS after its handshake
        seen = error.__cause__
    if isinstance(seen, ssl.SSLCertVerificationError):
        troubles = {_NOT_YET: Trouble.NOT_YET_VALID, _OVER: Trouble.EXPIRED} | dict.fromkeys(
            _OTHER_NAMES, Trouble.OTHER_NAME
        )
        return LookError(troubles.get(seen.verify_code, Trouble.OTHER_CA), seen.verify_message)
    if isinstance(seen, ssl.SSLError):
        return LookError(Trouble.NO_TLS, _TLS.get(seen.reason or "", seen.reason or str(seen)))
    if isinstance(seen, aiohttp.ClientResponseError | aiohttp.ClientPayloadError):
        return LookError(Trouble.NO_API, "it speaks no HTTP")
    return LookError(Trouble.UNREACHABLE, _words(error))


_TLS = {
    "WRONG_VERSION_NUMBER": "it speaks no TLS",
    "RECORD_LAYER_FAILURE": "it speaks no TLS",
    "HTTP_REQUEST": "it speaks no TLS",
    "SSLV3_ALERT_BAD_CERTIFICATE": "it wants a client certificate, as etcd does",
    "TLSV13_ALERT_CERTIFICATE_REQUIRED": "it wants a client certificate, as etcd does",
}


def _words(error: BaseException) -> str:
    if isinstance(error, TimeoutError):
        return "no answer in time"
    cause = error.os_error if isinstance(error, aiohttp.ClientConnectorError) else error
    if isinstance(cause, OSError) and cause.errno:
        return os.strerror(cause.errno).lower() if cause.errno > 0 else str(cause.strerror)
    if isinstance(cause, ConnectionError | aiohttp.ServerDisconnectedError):
        return "the connection was closed"
    return str(error) or type(error).__name__
