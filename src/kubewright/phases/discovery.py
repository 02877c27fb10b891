"""Discovery: how a joining host gets to know a cluster that it may trust, over connections of its own.

By token: `cluster-info` is read without verifying the server, its signature is checked with the token, the CA
inside against the hash; then it is read once more, now verified against that CA, and must be the same. By file: a
kubeconfig brings the server and its CA, and perhaps credentials. A token is never sent to a server that has not
been verified.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TypeVar
from urllib.parse import urlsplit

from kubewright.clients.cluster_info import Answer, LookError, Trouble, read_cluster_info, whether_accepted
from kubewright.clients.server import Server
from kubewright.errors import ConfigError
from kubewright.hosts import Host
from kubewright.model import discovery, tokens
from kubewright.model.discovery import DiscoveryError
from kubewright.model.node import host_port, split_endpoint
from kubewright.phases.discovery_file import read_document, server_of
from kubewright.phases.waiting import REPEAT
from kubewright.secret import Secret

T = TypeVar("T")

DEADLINE = 300.0
"""kubeadm's default of `discovery.timeout`, in seconds."""
_INTERVAL, _TIGHT, _LOOSE = 0.05, 30.0, 0.25
# Each look is a connection of its own: who has waited for half a minute need not look 20 times a second.
# As long as an API server may take to learn of a token that was made a moment ago.
_GRACE = 8.0
_ASK_EVERY = 1.0

# Why the host itself cannot connect; the tunnel to it only ever says that the connection has ended.
_PROBE = r"""
command -v bash >/dev/null || exit 0
timeout 5 bash -c 'exec 3<>"/dev/tcp/$1/$2"' bash "$1" "$2" 2>&1 >/dev/null
code=$?; [ $code -ne 124 ] || echo 'no answer within 5 s'; [ $code -ne 0 ] || echo connected
"""
Progress = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Discovered:
    """A cluster that is trusted, as its kubeconfigs name it."""

    server: Server
    """Its URL and CA, with the credentials that a kubeconfig brought, if any."""
    token_id: str = ""
    """The token that `cluster-info` is signed with, where it was found by token."""

    @property
    def ca(self) -> bytes:
        """PEM."""
        assert self.server.ca is not None
        return self.server.ca


async def by_token(
    host: Host,
    endpoint: str,
    token: Secret[str],
    hashes: Sequence[str],
    *,
    unsafe_skip_ca_verification: bool = False,
    deadline: float = DEADLINE,
    progress: Progress | None = None,
) -> Discovered:
    """The cluster at `endpoint` (`host:port`, or a URL) that has signed `cluster-info` with `token`.

    What may pass (nothing answers yet, nothing is signed yet) is waited for, for up to `deadline` seconds. Raises
    `DiscoveryError`, one subclass a cause (P10), and `ConfigError` for what is wrong before anybody is asked.
    """
    identity, _ = tokens.parse_token(token)
    pins = discovery.require_pins(hashes, unsafe_skip_ca_verification=unsafe_skip_ca_verification)
    url = _url(endpoint)
    asked = _Asked(host, token, url)

    async def attempt() -> discovery.ClusterInfo:
        answer = await _ask(host, Server(url), read_cluster_info)
        found = discovery.cluster_of(answer.body)
        known = discovery.pinned(found.ca, pins, url) if pins else b""
        try:
            discovery.verify_signature(answer.body, token)
        except discovery.UnsignedError:
            if known:  # whoever proves himself by the pinned CA can be told the token
                await asked.whether_known(known, answer)
            raise
        await _check_clock(host, found.ca, answer)
        if not pins:
            return found
        again = await _ask(host, Server(url, found.ca), read_cluster_info)
        discovery.verify_signature(again.body, token)
        if discovery.cluster_of(again.body) != found:
            raise discovery.OtherClusterError(
                f"cluster-info at {url} changed while it was verified", hint="does somebody stand between?"
            )
        return found

    found = await _patiently(host, url, attempt, deadline, progress)
    return Discovered(Server(found.server, found.ca), identity)


class _Asked:
    """Whether the API server knows a token that signs nothing: asked now and then while that is waited for."""

    def __init__(self, host: Host, token: Secret[str], url: str) -> None:
        self._host, self._token, self._url = host, token, url
        self._identity, _ = tokens.parse_token(token)
        self._now = asyncio.get_running_loop().time
        self._next = self._now() + _ASK_EVERY
        self._unknown_since = 0.0
        self._known = False

    async def whether_known(self, ca: bytes, answer: Answer) -> None:
        """Raise `UnsignedError` where it is known, `UnknownTokenError` where it has not been for some seconds."""
        if self._now() >= self._next:
            self._next = self._now() + _ASK_EVERY
            server = Server(self._url, ca, token=self._token.reveal())
            self._known = await _ask(self._host, server, whether_accepted)
            self._unknown_since = 0.0 if self._known else self._unknown_since or self._now()
        if self._known:
            raise discovery.unsigned_but_known(self._identity)
        if self._unknown_since and self._now() - self._unknown_since >= _GRACE:
            raise discovery.unknown(self._identity, self._url, discovery.signing_tokens(answer.body))


async def by_file(
    host: Host, where: str, *, deadline: float = DEADLINE, progress: Progress | None = None
) -> Discovered:
    """The cluster of a kubeconfig: a path on the host, or an `https` URL that the host reaches.

    Its server and CA are taken anew from `cluster-info` where that can be read. Raises as `by_token`.
    """
    server = await server_of(host, await read_document(host, where), where)

    async def attempt() -> Server:
        try:
            answer = await _ask(host, server, read_cluster_info)
        except discovery.NotPublicError:
            return server  # the cluster's owner keeps it to himself; the server has proved who it is
        try:
            fresh = discovery.cluster_of(answer.body)
        except DiscoveryError:
            return server
        return replace(server, url=fresh.server, ca=fresh.ca)

    return Discovered(await _patiently(host, server.url, attempt, deadline, progress))


async def require_accepted(host: Host, found: Discovered, token: Secret[str]) -> Server:
    """The server for a TLS bootstrap by `token`. Raises `ExpiredTokenError` or `UnknownTokenError` where the API
    server refuses it for longer than it may need to learn of it."""
    server = replace(found.server, token=token.reveal(), token_file=None, client_cert=b"", client_key=b"")
    identity, _ = tokens.parse_token(token)
    loop = asyncio.get_running_loop()
    end = loop.time() + _GRACE
    while not await _ask(host, server, whether_accepted):
        if loop.time() >= end:
            same = identity == found.token_id
            raise (discovery.expired if same else discovery.bootstrap_refused)(identity, server.url)
        await asyncio.sleep(_INTERVAL)
    return server


# -- asking -------------------------------------------------------------------------------------------------------


async def _ask(host: Host, server: Server, question: Callable[[Server], Awaitable[T]]) -> T:
    """What a server answers, over the host's connection. Raises `DiscoveryError`."""
    url = urlsplit(server.url)
    try:
        async with host.forward_tcp(url.hostname or "", url.port or 443) as way:
            return await question(server.through(*way))
    except LookError as error:
        raise _discovery_error(error, server.url) from error


def _discovery_error(error: LookError, url: str) -> DiscoveryError:
    match error.trouble:
        case Trouble.NOT_YET_VALID | Trouble.EXPIRED:
            return discovery.clocks(f"the API server's certificate at {url}: {error.message}")
        case Trouble.OTHER_CA:
            return discovery.OtherClusterError(
                f"the API server at {url} is none of this cluster: {error.message}",
                hint=f"the endpoint leads elsewhere, or the CA is an old one; {discovery.NEW_TOKEN}",
            )
        case Trouble.OTHER_NAME:
            return discovery.OtherClusterError(
                f"the API server's certificate is not for {url}: {error.message}",
                hint="use an address that is among its names, or add this one to apiServer.certSANs and renew it: "
                "on a control plane, `openssl x509 -noout -ext subjectAltName -in "
                "/etc/kubernetes/pki/apiserver.crt` shows them",
            )
        case Trouble.NO_TLS | Trouble.NO_API:
            return discovery.NotTheApiError(
                f"what answers at {url} is no API server: {error.message}",
                hint=f"is the port right (6443 unless set otherwise)? {discovery.NEW_TOKEN}",
            )
        case Trouble.FORBIDDEN | Trouble.MISSING | Trouble.UNAUTHORIZED:
            return discovery.NotPublicError(
                f"the API server at {url} shows no cluster-info: {error.message}",
                hint="on a control plane, `kubewright init phase bootstrap-token` lets nodes join by token; or "
                "use --discovery-file",
            )
        case _:
            return discovery.UnreachableError(
                f"nothing answers at {url}: {error.message}",
                hint="is the API server up, and no firewall between? on a control plane, `kubectl cluster-info` "
                f"and `ss -ltn` say where it listens, and {discovery.NEW_TOKEN.partition(', ')[2]}",
            )


async def _patiently(
    host: Host, url: str, attempt: Callable[[], Awaitable[T]], deadline: float, progress: Progress | None
) -> T:
    """What `attempt` gives; what may pass is tried again until the deadline, and then raised."""
    loop = asyncio.get_running_loop()
    end = loop.time() + deadline
    soon = loop.time() + min(deadline, _GRACE)
    told, shown = "", 0.0
    while True:
        try:
            return await attempt()
        except DiscoveryError as error:
            if loop.time() >= (end if error.passes else soon if error.passes_soon else 0):
                await _explain(host, url, error)
                raise
            waiting = error.meanwhile or error.message
            if progress is not None and (waiting != told or loop.time() - shown >= REPEAT):
                told, shown = waiting, loop.time()
                progress(told)
        await asyncio.sleep(_INTERVAL if loop.time() < end - deadline + _TIGHT else _LOOSE)


async def _explain(host: Host, url: str, error: DiscoveryError) -> None:
    """Add what the host itself sees where nothing answers: the far end of a tunnel tells too little."""
    error.host = host.name
    if not isinstance(error, discovery.UnreachableError):
        return
    where = urlsplit(url)
    seen = await host.shell(_PROBE, where.hostname or "", str(where.port or 443), check=False, timeout=10)
    first, *_ = [line.rpartition(": ")[2] for line in seen.text.splitlines()] or [""]
    if first == "connected":
        first = (
            "the port is open, and its owner ends the connection: a load balancer without servers, perhaps"
        )
    if first:
        place = host_port(where.hostname or "", where.port or 443)
        error.evidence = (f"{host.name} to {place}: {first}",)


async def _check_clock(host: Host, ca: bytes, answer: Answer) -> None:
    now = datetime.fromtimestamp(int((await host.run(["date", "+%s"])).text), UTC)
    if why := discovery.clock_trouble(ca, now, answer.server_time):
        raise discovery.clocks(why)


def _url(endpoint: str) -> str:
    if "://" in endpoint:
        return endpoint
    try:
        address, port = split_endpoint(endpoint)
    except ConfigError:
        raise ConfigError(
            f"{endpoint!r} is not the address of an API server",
            hint="write host:port, such as 192.168.7.10:6443",
        ) from None
    return f"https://{host_port(address, port)}"
