"""What `kubewright status` asks one host over SSH: all at once, each question with a bounded time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from kubewright.clients.etcd import Credentials, EtcdClient
from kubewright.clients.kube import KubeClient
from kubewright.clients.server import Server
from kubewright.errors import HostError, KubewrightError
from kubewright.hosts import Host
from kubewright.hosts.open import LOCAL
from kubewright.model.config.cluster import HostSpec, Role
from kubewright.model.node import is_address
from kubewright.model.objects import Object
from kubewright.model.status_api import ApiAnswer
from kubewright.model.status_certs import SeenCert
from kubewright.model.status_etcd import ListedMember, MemberAnswer
from kubewright.model.status_hosts import HostStatus
from kubewright.model.status_look import ADMIN_CONF, EtcdWay, HostLook, assumed_name, look, paths
from kubewright.model.status_proxies import ProxyStatus
from kubewright.phases.host_kubeconfig import read_kubeconfig
from kubewright.secret import Secret
from kubewright.workflows.status_ask import ASK, ask_api, ask_member, bounded
from kubewright.workflows.status_parts import Wanted, certificates, containers, proxies, served

REACH = 6.0
"""Seconds in which a host must let us in and show its files."""
REACH_AGAIN = 3.0
"""The same for one that was silent a moment ago, when it is only asked whether it still is."""

_LOOPBACK = "127.0.0.1"

Entry = Callable[[KubeClient | None, ApiAnswer | None], None]
"""Called once a read with the host's own API server and its answer; with None where it has none or is silent."""


@dataclass
class HostRead:
    """All that one host said."""

    status: HostStatus
    error: KubewrightError | None = None
    """Why it said nothing."""
    look: HostLook | None = None
    server: ApiAnswer | None = None
    endpoint: ApiAnswer | None = None
    credentials: Server | None = None
    """How its administrator proves himself to the API."""
    etcd: list[MemberAnswer] = field(default_factory=list)
    proxies: list[ProxyStatus] = field(default_factory=list)
    certs: list[SeenCert] = field(default_factory=list)


class HostSource:
    """One host, its connection and its tunnels, kept from one read to the next.

    `also` is asked of the host beside the rest, over the same connection; it has to bound its own time, and to
    raise nothing but what should not happen.
    """

    def __init__(
        self,
        spec: HostSpec,
        open_: Callable[[], Host],
        pki: str,
        wanted: Wanted,
        also: Callable[[Host], Coroutine[Any, Any, None]] | None = None,
    ) -> None:
        self.name = spec.name
        self.is_control_plane = spec.is_control_plane
        self.is_etcd_host = Role.ETCD in spec.roles
        self.address = spec.node_ip or (_LOOPBACK if spec.address == LOCAL else spec.address)
        self._open = open_
        self._pki = pki
        self._wanted = wanted
        self._also = also
        self._stack = AsyncExitStack()
        self._host: Host | None = None
        self._silent = False
        self._leaving: set[asyncio.Task[None]] = set()
        # By address and certificate: renewed credentials make a new client.
        self._clients: dict[tuple[str, bytes], KubeClient] = {}
        self._members: dict[tuple[str, bytes], EtcdClient] = {}
        self._keys: Credentials | None = None

    async def close(self) -> None:
        """End the connection."""
        await self._end(self._forget())
        if self._leaving:
            await asyncio.wait(self._leaving)

    def _forget(self) -> AsyncExitStack:
        """What is open, which the next read opens anew."""
        stack, self._stack = self._stack, AsyncExitStack()
        self._host = None
        self._clients.clear()
        self._members.clear()
        return stack

    async def _end(self, stack: AsyncExitStack) -> None:
        with suppress(KubewrightError, OSError):
            await stack.aclose()

    def _leave(self, task: asyncio.Task[Any]) -> None:
        """Give a host up without waiting for it: to end a command there, or the connection, takes seconds more."""
        stack = self._forget()
        task.cancel()

        async def leave() -> None:
            await asyncio.wait([task])
            if not task.cancelled():
                task.exception()  # nobody waits for it any more
            await self._end(stack)

        leaving = asyncio.create_task(leave())
        self._leaving.add(leaving)
        leaving.add_done_callback(self._leaving.discard)

    async def read(self, entry: Entry, *, again: bool = False) -> HostRead:
        """Ask everything. Raises nothing but what should not happen.

        With `again`, a host that the last read found silent has less time.
        """
        entered = False

        def once(kube: KubeClient | None, answer: ApiAnswer | None) -> None:
            nonlocal entered
            if not entered:
                entered = True
                entry(kube, answer)

        try:
            return await self._read(once, REACH_AGAIN if again and self._silent else REACH)
        finally:
            once(None, None)

    async def _read(self, entry: Entry, within: float) -> HostRead:
        read = HostRead(HostStatus(self.name, answers=False, control_plane=self.is_control_plane))
        try:
            host, (read.look, read.credentials, ca) = await self._reach(within)
            self._silent = False
        except (KubewrightError, TimeoutError) as error:
            self._silent = True
            read.error = error if isinstance(error, KubewrightError) else HostError(
                f"{self.name} does not answer over SSH within {REACH:g} s", host=self.name,
                hint="is it running, and does its network work?",
            )  # fmt: skip
            read.status = HostStatus(
                self.name, answers=False, control_plane=self.is_control_plane,
                problems=(read.error.message.removeprefix(f"{self.name}: ").removeprefix(f"{self.name} "),),
            )  # fmt: skip
            return read
        await self._ask_all(host, read, ca, entry)
        return read

    async def _reach(self, within: float) -> tuple[Host, tuple[HostLook, Server | None, bytes | None]]:
        """The connection, and what its files say. Raises `TimeoutError` after so many seconds, and not later."""
        task = asyncio.create_task(self._open_and_look(self._stack))
        try:
            done, _ = await asyncio.wait([task], timeout=within)
        except asyncio.CancelledError:
            self._leave(task)
            raise
        if not done:
            self._leave(task)
            raise TimeoutError
        try:
            return task.result()
        except (KubewrightError, TimeoutError):
            self._leave(task)
            raise

    async def _open_and_look(
        self, stack: AsyncExitStack
    ) -> tuple[Host, tuple[HostLook, Server | None, bytes | None]]:
        if self._host is None:
            self._host = await stack.enter_async_context(self._open())
        host = self._host
        return host, await self._look(host)

    async def _look(self, host: Host) -> tuple[HostLook, Server | None, bytes | None]:
        files = await host.read_files(paths(self._pki))
        admin: Object | None = None
        if self.is_control_plane:
            with suppress(KubewrightError):  # one that is not there, or is damaged, leads nowhere
                admin = await read_kubeconfig(host, ADMIN_CONF)
        # A name may lead elsewhere on the host itself than it does here.
        assumed = self.address if is_address(self.address) else _LOOPBACK
        found = look(files, self._pki, self.name, assumed, admin)
        credentials: Server | None = None
        if admin is not None:
            with suppress(KubewrightError):
                credentials = Server.from_kubeconfig(admin)
        return found, credentials, files.get(f"{self._pki}/ca.crt")

    async def _ask_all(self, host: Host, read: HostRead, ca: bytes | None, entry: Entry) -> None:
        found = read.look
        assert found is not None
        own = found.node.url if found.node else ""
        # Without the administrator's certificate, health is asked as nobody, as load balancers ask.
        known = read.credentials or (Server("", ca) if ca else None)
        if known is not None and known.ca is None:
            known = None  # we do not talk to servers that nobody can verify
        async with asyncio.TaskGroup() as group:
            if own and known is not None:
                group.create_task(self._ask_own(host, read, at(known, own, name=assumed_name(own)), entry))
            if known is not None and found.server and found.server != own:
                group.create_task(self._ask_endpoint(host, read, at(known, found.server)))
            etcd = group.create_task(self._ask_etcd(host, found.etcd))
            ran = group.create_task(containers(host)) if found.node else None
            certs = group.create_task(certificates(host, self._pki)) if found.node or found.etcd else None
            shown = group.create_task(served(host, found.node)) if found.node else None
            balancing = group.create_task(proxies(host, self._wanted))
            if self._also is not None:
                group.create_task(self._also(host))
            if not own or known is None:
                entry(None, None)
        read.etcd, read.proxies = etcd.result(), balancing.result()
        problems: list[str] = []
        if not found.joined and (self.is_control_plane or self.is_etcd_host):
            problems.append("there is nothing of a cluster on it")
        if certs is not None:
            read.certs, trouble = certs.result()
            problems += trouble
        end = shown.result() if shown is not None else None
        if end is not None and ("apiserver", end) not in [(one.name, one.ends) for one in read.certs]:
            read.certs.append(SeenCert(self.name, "apiserver, as it serves it", end))
        if own and known is None:
            read.server = ApiAnswer(self.name, own, error="there is no CA on the host to know it by")
        pods = ran.result() if ran is not None else None
        read.status = HostStatus(
            self.name, answers=True, control_plane=self.is_control_plane, joined=found.joined,
            containers=pods[0] if pods else None, problems=(*problems, *((pods[1],) if pods and pods[1] else ())),
        )  # fmt: skip

    # -- API servers ------------------------------------------------------------------------------------------

    async def _ask_own(self, host: Host, read: HostRead, server: Server, entry: Entry) -> None:
        kube, error = await bounded(self._client(host, server))
        if kube is None:
            read.server = ApiAnswer(self.name, server.url, error=error)
            entry(None, None)
            return
        read.server, failed = await ask_api(kube, self.name)
        may_read = bool(server.client_cert or server.token or server.token_file)
        entry(kube if may_read and failed is None else None, read.server)

    async def _ask_endpoint(self, host: Host, read: HostRead, server: Server) -> None:
        kube, error = await bounded(self._client(host, server))
        if kube is None:
            read.endpoint = ApiAnswer(self.name, server.url, error=error)
        else:
            read.endpoint, _ = await ask_api(kube, self.name)

    async def _client(self, host: Host, server: Server) -> KubeClient:
        """A client through the host's connection."""
        identity = server.url, server.client_cert
        if identity not in self._clients:
            url = urlsplit(server.url)
            way = await self._stack.enter_async_context(host.forward_tcp(url.hostname or "", url.port or 443))
            kube = KubeClient(server.through(*way))
            self._clients[identity] = await self._stack.enter_async_context(kube)
        return self._clients[identity]

    # -- etcd -------------------------------------------------------------------------------------------------

    async def _ask_etcd(self, host: Host, way: EtcdWay | None) -> list[MemberAnswer]:
        if way is None:
            return []
        files, error = await bounded(host.read_files(way.files))
        missing = [path for path in way.files if path not in (files or {})]
        if files is None or missing:
            why = error or f"there is no {missing[0]}, by which etcd is asked"
            return [MemberAnswer(self.name, error=why)]
        keys = Credentials(files[way.ca], files[way.cert], Secret(files[way.key]))
        async with asyncio.TaskGroup() as group:
            tasks = [
                group.create_task(
                    ask_member(self._member(host, url, keys), url, url if way.external else self.name)
                )
                for url in way.urls
            ]
        return [task.result() for task in tasks]

    def _member(self, host: Host, url: str, keys: Credentials) -> EtcdClient:
        identity = url, keys.cert
        if identity not in self._members:
            client = EtcdClient([url], keys, host.forward_tcp, timeout=ASK - 0.5)
            self._stack.push_async_callback(client.close)
            self._members[identity] = client
        self._keys = keys
        return self._members[identity]

    async def ask_others(self, members: list[ListedMember]) -> list[MemberAnswer]:
        """What other members say that nobody has asked yet, over this host. Raises nothing."""
        if self._host is None or self._keys is None:
            return []
        host, keys = self._host, self._keys
        async with asyncio.TaskGroup() as group:
            tasks = [
                group.create_task(ask_member(self._member(host, url, keys), url, one.name or url))
                for one in members
                for url in one.client_urls[:1]
            ]
        return [task.result() for task in tasks]


def at(server: Server, url: str, *, name: str = "") -> Server:
    """The same credentials for another address of the cluster's API; `name` is whom its certificate must name."""
    return Server(
        url, server.ca, server.client_cert, server.client_key, server.token, server.token_file,
        tls_server_name=name,
    )  # fmt: skip
