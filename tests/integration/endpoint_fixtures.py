"""Machines that look like API servers, proxies in front of them, and clients that count what fails."""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from kubewright.events import Events
from kubewright.hosts.open import open_host
from kubewright.lab.lab import Lab
from kubewright.model import x509
from kubewright.model.config.cluster import ClusterSpec
from kubewright.model.config.load import load_cluster
from kubewright.model.loadbalancer import Backend
from kubewright.model.pki import CertSpec, KeyKind, Usage
from kubewright.model.preflight import node_ip
from kubewright.phases.node import Node
from kubewright.phases.phase import Change, Phase

# A server with a certificate of the cluster's, that says who it is: what a load balancer sees of an API server.
_SERVER = """\
global
    user haproxy
    group haproxy
defaults
    mode http
    timeout connect 1s
    timeout client 1h
    timeout server 1h
    timeout http-keep-alive 1h
frontend api
    bind :6443 ssl crt /etc/server/server.pem
    http-request return status 200 content-type text/plain string "$1"
"""
SERVE = f"""
mkdir -p /etc/server && cat >/etc/server/server.pem && chmod 600 /etc/server/server.pem
cat >/etc/server/server.cfg <<END
{_SERVER}END
[ ! -e /run/server.pid ] || kill "$(cat /run/server.pid)" 2>/dev/null || true
haproxy -D -p /run/server.pid -f /etc/server/server.cfg
"""


def new_ca() -> x509.KeyPair:
    """A cluster's CA."""
    kind = KeyKind.ECDSA_P256
    spec = CertSpec("ca", "ca", "kubernetes", key_kind=kind)
    return x509.self_signed_ca(spec, x509.new_key(kind), datetime.now(UTC))


def server_pem(ca: x509.KeyPair, names: Sequence[str], addresses: Sequence[str]) -> bytes:
    """An API server's certificate and key."""
    kind = KeyKind.ECDSA_P256
    spec = CertSpec(
        "apiserver", "apiserver", "kube-apiserver", usages=(Usage.SERVER,), ca="ca", key_kind=kind,
        dns_names=("kubernetes", *names), addresses=tuple(addresses),
    )  # fmt: skip
    pair = x509.sign(spec, x509.new_key(kind), ca, datetime.now(UTC))
    return pair.cert + pair.key.reveal()


async def serve(node: Node, ca: x509.KeyPair, *, addresses: Sequence[str] = ()) -> Backend:
    """Let a machine be an API server; `addresses` are those of the endpoint."""
    pem = server_pem(ca, [node.name], [node.ip, *addresses])
    await node.host.shell(SERVE, node.name, stdin=pem)
    return Backend(node.name, node.ip, 6443)


@dataclass
class Fleet:
    """The machines as an `apply` has them."""

    spec: ClusterSpec
    nodes: list[Node]
    changes: list[Change] = field(default_factory=list)

    async def do(self, phase: Phase) -> Sequence[Change]:
        """Run a phase, and note what it changed."""
        changes = await phase.run(Events())
        self.changes += changes
        return changes

    def node(self, name: str) -> Node:
        """The machine of that name."""
        return next(node for node in self.nodes if node.name == name)


@asynccontextmanager
async def fleet(lab: Lab, roles: dict[str, list[str]], endpoint: dict[str, Any]) -> AsyncIterator[Fleet]:
    """The machines with these roles, and the endpoint, connected."""
    spec = load_cluster(lab.places.cluster_yaml)
    document = spec.model_dump(by_alias=True, exclude_none=True) | {"endpoint": endpoint}
    document["hosts"] = [
        host | {"roles": roles[host["name"]]} for host in document["hosts"] if host["name"] in roles
    ]
    spec = ClusterSpec.model_validate(document)
    async with AsyncExitStack() as stack:
        nodes = []
        for item in spec.hosts:
            host = await stack.enter_async_context(open_host(item, spec.ssh))
            facts = await host.facts()
            nodes.append(Node(item, host, facts, node_ip(item, facts)))
        yield Fleet(spec, nodes)


@dataclass
class Client:
    """Asks one address for its readiness, again and again, over one connection or over new ones."""

    address: str
    port: int
    ca: bytes
    keep: bool
    patience: float
    """Seconds after which it gives up on a request, and connects anew."""
    successes: list[tuple[float, str]] = field(default_factory=list)
    failures: list[tuple[float, str]] = field(default_factory=list)

    async def run(self) -> None:
        """Until it is cancelled."""
        context = ssl.create_default_context(cadata=self.ca.decode())
        context.verify_flags &= ~ssl.VERIFY_X509_STRICT
        context.check_hostname = False
        connection: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        while True:
            try:
                async with asyncio.timeout(self.patience):
                    if connection is None:
                        connection = await asyncio.open_connection(self.address, self.port, ssl=context)
                    who = await self._ask(*connection)
                self.successes.append((time.monotonic(), who))
                if not self.keep:
                    connection[1].transport.abort()
                    connection = None
            except (OSError, EOFError, TimeoutError) as error:
                self.failures.append((time.monotonic(), f"{type(error).__name__}: {error}"))
                if connection is not None:
                    connection[1].transport.abort()
                    connection = None
            await asyncio.sleep(0.05)

    async def _ask(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> str:
        writer.write(b"GET /readyz HTTP/1.1\r\nHost: kubernetes\r\n\r\n")
        await writer.drain()
        head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
        if " 200 " not in head.splitlines()[0]:
            raise ConnectionError(head.splitlines()[0])
        [length] = [line.split(":")[1] for line in head.splitlines() if line.startswith("content-length:")]
        return (await reader.readexactly(int(length))).decode()

    def gap(self, since: float) -> float:
        """The longest time without an answer after `since`, in seconds."""
        moments = [since, *(moment for moment, _ in self.successes if moment > since)]
        return max(
            later - earlier for earlier, later in zip(moments, [*moments[1:], time.monotonic()], strict=True)
        )


@asynccontextmanager
async def clients(
    address: str, port: int, ca: bytes, *, patience: float = 10.0
) -> AsyncIterator[list[Client]]:
    """Four clients that keep their connection and two that do not, at work until the context ends."""
    found = [Client(address, port, ca, keep, patience) for keep in (True, True, True, True, False, False)]
    tasks = [asyncio.create_task(client.run()) for client in found]
    try:
        yield found
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def all_served(found: Sequence[Client], count: int, *, seconds: float = 20) -> None:
    """Wait until each has been answered `count` times more."""
    before = [len(client.successes) for client in found]
    async with asyncio.timeout(seconds):
        while any(len(one.successes) < was + count for one, was in zip(found, before, strict=True)):  # noqa: ASYNC110
            await asyncio.sleep(0.05)
