"""A small asynchronous client of etcd's members and maintenance, over its JSON gateway (etcd 3.4 and newer).

The gateway stands on etcd's client port under `/v3` (etcd's documentation, "gRPC gateway"). What it calls a uint64
it writes as text; what is zero or false it leaves out.
"""

from __future__ import annotations

import asyncio
import base64
import json
import ssl
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import aiohttp

from kubewright.clients.server import Server
from kubewright.errors import ApiError
from kubewright.secret import Secret

Connect = Callable[[str, int], AbstractAsyncContextManager[tuple[str, int]]]
"""How an address and port are reached: `Host.forward_tcp`."""

_NOT_FOUND = 5
_FAILED_PRECONDITION = 9


class EtcdError(ApiError):
    """etcd refused a request or cannot be reached. `code` is gRPC's, 0 for none."""

    def __init__(self, message: str, *, status: int = 0, code: int = 0, hint: str = "") -> None:
        super().__init__(message, status=status, hint=hint)
        self.code = code

    @property
    def not_now(self) -> bool:
        """Whether the cluster is not in a state for it: a learner that is not in sync, or one too many."""
        return self.code == _FAILED_PRECONDITION


@dataclass(frozen=True, slots=True)
class Credentials:
    """How a client proves itself to etcd, and knows etcd: PEM."""

    ca: bytes
    cert: bytes
    key: Secret[bytes]

    def context(self) -> ssl.SSLContext:
        """The TLS context of these."""
        return Server("", self.ca, self.cert, self.key.reveal()).ssl_context()


@dataclass(frozen=True, slots=True)
class Member:
    """One of a cluster's members, as the cluster knows it."""

    id: int
    name: str
    """Empty until it has started for the first time, but for those who begin a cluster together."""
    peer_urls: tuple[str, ...]
    client_urls: tuple[str, ...]
    """Empty until it has started for the first time."""
    is_learner: bool

    @property
    def started(self) -> bool:
        """Whether it has ever run and reached the others."""
        return bool(self.client_urls)

    @property
    def hex_id(self) -> str:
        """Its id as etcd's own tools write it."""
        return f"{self.id:x}"

    def __str__(self) -> str:
        kind = "learner" if self.is_learner else "member"
        return f"{kind} {self.name or self.hex_id} ({', '.join(self.peer_urls)})"


@dataclass(frozen=True, slots=True)
class Status:
    """What a member says of itself. Sizes are in bytes."""

    endpoint: str
    member_id: int
    version: str
    leader: int
    """The leader's member id; 0 where it knows none."""
    is_learner: bool
    db_size: int
    db_size_in_use: int
    raft_term: int
    raft_index: int
    raft_applied_index: int
    errors: tuple[str, ...]

    @property
    def is_leader(self) -> bool:
        """Whether it leads."""
        return self.leader == self.member_id != 0


@dataclass(frozen=True, slots=True)
class Alarm:
    """Something that a member has cried out about, and that stays until it is disarmed."""

    member_id: int
    kind: str
    """`NOSPACE` or `CORRUPT`."""


class EtcdClient:
    """The members of one etcd cluster. Use it as an asynchronous context manager.

    A request that any member can answer goes to each endpoint in turn until one does. All of them can be
    repeated: what has been done already is no error. `timeout` is a request's, in seconds: a cluster that has no
    leader needs several to say so. Without `credentials` it speaks plain HTTP, to `http` endpoints alone: that is
    for an etcd that is about to be given TLS. Raises `EtcdError`.
    """

    def __init__(
        self, endpoints: Iterable[str], credentials: Credentials | None, connect: Connect, *,
        timeout: float = 7.0,
    ) -> None:  # fmt: skip
        self.endpoints = list(dict.fromkeys(endpoints))
        self._credentials = credentials
        self._connect = connect
        self._timeout = aiohttp.ClientTimeout(total=timeout, sock_connect=3)
        self._session: aiohttp.ClientSession | None = None
        self._tunnels = AsyncExitStack()
        self._ways: dict[str, tuple[str, int]] = {}
        self._opening = asyncio.Lock()

    async def __aenter__(self) -> EtcdClient:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """End all connections."""
        if self._session is not None:
            await self._session.close()
            self._session = None
        self._ways.clear()
        await self._tunnels.aclose()

    # -- members ----------------------------------------------------------------------------------------------

    async def members(self, *, linearizable: bool = True) -> list[Member]:
        """All members, as the majority knows them; or, without a majority, as one member does."""
        return _members(await self._any("cluster/member/list", {"linearizable": linearizable}))

    async def sync(self) -> list[Member]:
        """`members`, from whom all further requests are asked: those that have started, voters first."""
        members = await self.members()
        started = sorted((member for member in members if member.started), key=lambda one: one.is_learner)
        found = [url for member in started for url in member.client_urls]
        self.endpoints = list(dict.fromkeys(found)) or self.endpoints
        return members

    async def add(self, peer_url: str, *, learner: bool = True) -> list[Member]:
        """Announce a member by its peer URL; all members.

        A learner gets all data and has no vote: while it starts, nobody waits for it. etcd takes one at a time
        (`EtcdError.not_now`), and none while a voter is away or has been back for less than 5 s (status 503).
        """
        try:
            return _members(
                await self._any("cluster/member/add", {"peerURLs": [peer_url], "isLearner": learner})
            )
        except EtcdError as error:
            if error.not_now and any(peer_url in member.peer_urls for member in await self.members()):
                return await self.members()
            raise

    async def promote(self, member_id: int) -> list[Member]:
        """Give a learner its vote; all members. `EtcdError.not_now` while it is not in sync with the leader."""
        try:
            return _members(await self._any("cluster/member/promote", {"ID": str(member_id)}))
        except EtcdError as error:
            if error.not_now:
                members = await self.members()
                if any(member.id == member_id and not member.is_learner for member in members):
                    return members
            raise

    async def remove(self, member_id: int) -> None:
        """Take a member out. One that is not there is no error."""
        try:
            await self._any("cluster/member/remove", {"ID": str(member_id)})
        except EtcdError as error:
            if error.code != _NOT_FOUND:
                raise

    async def update(self, member_id: int, peer_urls: Sequence[str]) -> None:
        """Let a member have other peer URLs."""
        await self._any("cluster/member/update", {"ID": str(member_id), "peerURLs": list(peer_urls)})

    # -- maintenance ------------------------------------------------------------------------------------------

    async def move_leader(self, endpoint: str, member_id: int) -> None:
        """Let the leader, which serves at `endpoint`, hand its office to another voter. Returns when it has."""
        await self._request(endpoint, "/v3/maintenance/transfer-leadership", {"targetID": str(member_id)})

    async def status(self, endpoint: str) -> Status:
        """What the member at `endpoint` says of itself; a learner answers, too."""
        answer = await self._request(endpoint, "/v3/maintenance/status", {})
        number = {name: int(answer.get(name) or 0) for name in _STATUS_NUMBERS}
        return Status(
            endpoint,
            int((answer.get("header") or {}).get("member_id") or 0),
            str(answer.get("version", "")),
            number["leader"],
            bool(answer.get("isLearner", False)),
            number["dbSize"],
            number["dbSizeInUse"],
            number["raftTerm"],
            number["raftIndex"],
            number["raftAppliedIndex"],
            tuple(str(item) for item in answer.get("errors") or ()),
        )

    async def health(self, endpoint: str) -> str:
        """Why the member at `endpoint` does not serve; empty where it does. Never raises `EtcdError`."""
        try:
            answer = await self._request(endpoint, "/health", None)
        except EtcdError as error:
            return error.message
        if str(answer.get("health")).lower() == "true":
            return ""
        return str(answer.get("reason") or "it has no leader, or an alarm")

    async def alarms(self) -> list[Alarm]:
        """All alarms that are not disarmed."""
        answer = await self._any("maintenance/alarm", {"action": "GET"})
        return [
            Alarm(int(item.get("memberID") or 0), str(item.get("alarm", "NONE")))
            for item in answer.get("alarms") or ()
        ]

    # -- keys -------------------------------------------------------------------------------------------------

    async def has_keys(self, prefix: str) -> bool:
        """Whether there is any key that begins with `prefix`."""
        first = prefix.encode()
        after = first[:-1] + bytes([first[-1] + 1])
        wanted = {"key": _base64(first), "range_end": _base64(after), "limit": "1", "keys_only": True}
        return bool((await self._any("kv/range", wanted)).get("kvs"))

    # -- requests ---------------------------------------------------------------------------------------------

    async def _any(self, path: str, body: Mapping[str, Any]) -> Mapping[str, Any]:
        """The first answer out of all endpoints."""
        failures: list[EtcdError] = []
        for endpoint in self.endpoints:
            try:
                return await self._request(endpoint, f"/v3/{path}", body)
            except EtcdError as error:
                if not error.passes:
                    raise
                failures.append(error)
        if len(failures) == 1:
            raise failures[0]
        raise EtcdError(
            "no member of etcd answers: " + "; ".join(error.message for error in failures)
            if failures else "no member of etcd is known",
            status=max((error.status for error in failures), default=0),
        )  # fmt: skip

    async def _request(self, endpoint: str, path: str, body: Mapping[str, Any] | None) -> Mapping[str, Any]:
        url, keys = urlsplit(endpoint), self._credentials
        if keys is None and url.scheme != "http":
            raise EtcdError(f"etcd at {endpoint}: it is not asked without credentials", status=401)
        scheme = "http" if keys is None else "https"
        if self._session is None:
            self._session = aiohttp.ClientSession(
                timeout=self._timeout,
                connector=aiohttp.TCPConnector(ssl=True if keys is None else keys.context()),
            )
        try:
            async with asyncio.timeout(self._timeout.total):
                address, port = await self._way(endpoint)
                host = f"[{address}]" if ":" in address else address
                async with self._session.request(
                    "GET" if body is None else "POST", f"{scheme}://{host}:{port}{path}",
                    data=None if body is None else json.dumps(body).encode(),
                    headers={"Host": url.netloc}, server_hostname=None if keys is None else url.hostname,
                ) as response:  # fmt: skip
                    return _parsed(endpoint, path, response.status, await response.read())
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise EtcdError(f"etcd at {endpoint}: {str(error) or 'no answer in time'}") from error

    async def _way(self, endpoint: str) -> tuple[str, int]:
        """Where to connect for an endpoint: made once, however many ask at once."""
        async with self._opening:
            if endpoint not in self._ways:
                url = urlsplit(endpoint)
                way = self._connect(url.hostname or "", url.port or 2379)
                self._ways[endpoint] = await self._tunnels.enter_async_context(way)
            return self._ways[endpoint]


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()


_STATUS_NUMBERS = ("leader", "dbSize", "dbSizeInUse", "raftTerm", "raftIndex", "raftAppliedIndex")


def _members(answer: Mapping[str, Any]) -> list[Member]:
    return [
        Member(
            int(item["ID"]), str(item.get("name", "")), tuple(item.get("peerURLs") or ()),
            tuple(item.get("clientURLs") or ()), bool(item.get("isLearner", False)),
        )
        for item in answer.get("members") or ()
    ]  # fmt: skip


def _parsed(endpoint: str, path: str, status: int, data: bytes) -> Mapping[str, Any]:
    try:
        body = json.loads(data)
    except ValueError:
        body = None
    if isinstance(body, dict) and (status < 400 or "health" in body):
        return body
    if not isinstance(body, dict) or ("message" not in body and "error" not in body):
        raise EtcdError(
            f"etcd at {endpoint}: {path} answers {status} and no JSON of etcd",
            status=status if status >= 400 else 404,
            hint="its gateway is needed: etcd 3.4 or newer, without --enable-grpc-gateway=false",
        )
    text = str(body.get("message") or body.get("error"))
    raise EtcdError(
        f"etcd at {endpoint}: {text.removeprefix('etcdserver: ')}",
        status=status,
        code=int(body.get("code") or 0),
    )
