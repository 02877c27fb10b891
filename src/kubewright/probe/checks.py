"""One try of each kind of check: http, dns and api."""

from __future__ import annotations

import http.client
import ipaddress
import json
import os
import socket
import ssl
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
RESOLV_CONF = "/etc/resolv.conf"
API_NAME = "kubernetes.default.svc"
LARGEST_ANSWER = 1 << 16
"""Bytes of an answer that are read."""

Check = Mapping[str, Any]


class Failed(Exception):  # noqa: N818 - a result, not a fault of this program
    """A try that did not succeed, in one line."""


def check_http(check: Check, deadline: float) -> tuple[str, Any]:
    """One GET; what answered. Raises `Failed`."""
    url = urlsplit(str(check["url"]))
    if url.scheme != "http" or not url.hostname:
        raise ValueError(f"url {check['url']}: not http://host[:port]/path")
    address = _address(url.hostname, deadline)
    connection = http.client.HTTPConnection(address, url.port or 80, timeout=_left(deadline))
    path = (url.path or "/") + (f"?{url.query}" if url.query else "")
    status, body = _get(connection, path, {"Host": url.netloc, "Connection": "close"})
    if status != 200:
        raise Failed(f"HTTP {status} from {address}")
    answer: Any = None
    with suppress(ValueError):
        answer = json.loads(body)
    who = answer if isinstance(answer, dict) else {}
    for key in ("pod", "node"):
        expected = check.get(f"expect_{key}")
        if expected and who.get(key) != expected:
            raise Failed(f"answered by {key} {who.get(key) or 'unknown'}, not {expected}")
    return f"pod {who.get('pod')} on {who.get('node')}" if who.get("pod") else f"{len(body)} bytes", who


def check_dns(check: Check, deadline: float) -> tuple[str, Any]:
    """One question to the nameservers of resolv.conf; the answers. Raises `Failed`."""
    name, kind = str(check["name"]), str(check.get("type", "A"))
    answers = _resolve(name, kind, deadline)
    if "expect" in check and sorted(answers) != sorted(check["expect"]):
        raise Failed(f"{name} {kind} is {', '.join(answers)}, not {', '.join(check['expect'])}")
    return f"{name} {kind} is {', '.join(answers)}", None


def check_api(check: Check, deadline: float) -> tuple[str, Any]:
    """GET /version with the service account's CA and token, by address and by name. Raises `Failed`."""
    ways = {"address": os.environ.get("KUBERNETES_SERVICE_HOST", ""), "name": API_NAME}
    details = []
    for by in check.get("by") or ("address", "name"):
        host, port = ways[by], int(os.environ.get("KUBERNETES_SERVICE_PORT", "443"))
        if not host:
            raise Failed("KUBERNETES_SERVICE_HOST is not set")
        try:
            context = ssl.create_default_context(cafile=str(SERVICE_ACCOUNT / "ca.crt"))
            token = (SERVICE_ACCOUNT / "token").read_text().strip()
        except OSError as error:
            raise Failed(f"service account: {error.strerror}") from None
        # Kubernetes' own CAs have no key usage extensions in the form that Python 3.13's strict mode wants.
        context.verify_flags &= ~ssl.VERIFY_X509_STRICT
        address = _address(host, deadline)
        connection = _NamedHttps(address, port, host, context, _left(deadline))
        status, body = _get(connection, "/version", {"Host": host, "Authorization": f"Bearer {token}"})
        if status != 200:
            raise Failed(f"HTTP {status} from https://{host}:{port} ({address})")
        try:
            details.append(f"{json.loads(body)['gitVersion']} by {by}")
        except (ValueError, KeyError, TypeError):
            raise Failed(f"{address}:{port} does not answer as an API server") from None
    return ", ".join(details), None


class _NamedHttps(http.client.HTTPSConnection):
    """Connects to an address, and verifies the server by a name."""

    def __init__(self, address: str, port: int, name: str, context: ssl.SSLContext, timeout: float) -> None:
        super().__init__(address, port, timeout=timeout, context=context)
        self._name, self._tls = name, context

    def connect(self) -> None:
        """Connect, then speak TLS."""
        plain = socket.create_connection((self.host, self.port), self.timeout)
        self.sock = self._tls.wrap_socket(plain, server_hostname=self._name)


def _get(connection: http.client.HTTPConnection, path: str, headers: Mapping[str, str]) -> tuple[int, bytes]:
    where = f"{connection.host}:{connection.port}"
    try:
        connection.request("GET", path, headers=dict(headers))
        response = connection.getresponse()
        return response.status, response.read(LARGEST_ANSWER)
    except TimeoutError:
        raise Failed(f"{where}: no answer") from None
    except ssl.SSLCertVerificationError as error:
        raise Failed(f"{where}: certificate: {error.verify_message}") from None
    except (OSError, http.client.HTTPException) as error:
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise Failed(f"{where}: {reason.lower()}") from None
    finally:
        connection.close()


def _address(host: str, deadline: float) -> str:
    """A literal address itself; a name's first address. getaddrinfo would know no deadline."""
    try:
        return str(ipaddress.ip_address(host))
    except ValueError:
        return _resolve(host, "A", deadline, search=True)[0]


def _resolve(name: str, kind: str, deadline: float, *, search: bool | None = None) -> list[str]:
    """Answers as text. The search path is used for names without a dot, unless said otherwise."""
    import dns.exception
    import dns.resolver

    search = "." not in name if search is None else search
    try:
        resolver = dns.resolver.Resolver(RESOLV_CONF)
        resolver.timeout = min(1.0, _left(deadline))
        answer = resolver.resolve(name, kind, search=search, lifetime=_left(deadline))
    except dns.resolver.NXDOMAIN:
        raise Failed(f"{name} {kind}: no such name") from None
    except dns.resolver.NoAnswer:
        raise Failed(f"{name} {kind}: the name has no such record") from None
    except dns.exception.Timeout:
        raise Failed(f"{name} {kind}: no answer from {_servers(resolver)}") from None
    except (dns.exception.DNSException, OSError) as error:
        raise Failed(f"{name} {kind}: {str(error).splitlines()[0]}") from None
    return [record.to_text() for record in answer]


def _servers(resolver: Any) -> str:
    return ", ".join(str(server) for server in resolver.nameservers) or "any server: resolv.conf names none"


def _left(deadline: float) -> float:
    left = deadline - time.monotonic()
    if left <= 0:
        raise Failed("out of time")
    return left


KINDS: Mapping[str, Callable[[Check, float], tuple[str, Any]]] = {
    "http": check_http,
    "dns": check_dns,
    "api": check_api,
}
