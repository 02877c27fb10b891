"""What a host sees of etcd without being its client: who can be reached, and how far its own member has come."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Sequence
from urllib.parse import urlsplit

from kubewright.clients.served import served_certificate
from kubewright.errors import HostError, KubewrightError
from kubewright.hosts import Host
from kubewright.model.arguments import ETCD_METRICS_PORT, ETCD_PEER_PORT
from kubewright.phases.waiting import container_evidence, wait_until

_ANSWER = 5.0
"""Seconds for one connection."""
_ELECTION = 15.0
"""Seconds in which members that have been started find each other and elect a leader."""
_APPLIED = b"etcd_server_proposals_applied_total "
_LEADER = b"etcd_server_has_leader "


async def out_of_reach(host: Host, peer_urls: Sequence[str]) -> list[str]:
    """Those members, by their peer URLs, whom the host cannot connect to, each with what was seen.

    Who answers a handshake with plain http, or with an alert (as etcd does with TLS 1.2 to whom shows no
    certificate), has been reached.
    """

    async def why(url: str) -> str:
        parts = urlsplit(url)
        name, port = parts.hostname or "", parts.port or ETCD_PEER_PORT
        try:
            async with asyncio.timeout(_ANSWER), host.forward_tcp(name, port) as near:
                await served_certificate(*near, name)
        except TimeoutError:
            return f"{url}: no answer in {_ANSWER:g} s"
        except KubewrightError as error:
            return f"{url}: {error.message}"
        except OSError as error:
            ended = isinstance(error, ssl.SSLEOFError | ssl.SSLZeroReturnError)
            if isinstance(error, ssl.SSLError) and not ended:
                return ""
            return f"{url}: {str(error) or 'the connection was refused'}"
        return ""

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(why(url)) for url in peer_urls]
    return [text for task in tasks if (text := task.result())]


async def progress_of(host: Host, founders: int, *, deadline: float = 60.0) -> tuple[int, bool]:
    """How many entries of its log this host's own etcd has applied, and whether it has a leader: it tells both
    also where it has none. One that has applied more than its `founders` is given time to elect one. Raises
    `WaitTimeoutError` where it does not run.
    """
    found, leader = 0, False
    patience = asyncio.get_running_loop().time() + min(_ELECTION, deadline)

    async def missing() -> str | None:
        nonlocal found, leader
        try:
            async with asyncio.timeout(_ANSWER), host.forward_tcp("127.0.0.1", ETCD_METRICS_PORT) as near:
                metrics = await _get(near, "/metrics")
        except (OSError, TimeoutError, HostError) as error:
            return f"etcd does not tell its metrics: {str(error) or 'no answer'}"
        rows = [line for line in metrics.splitlines() if line.startswith(_APPLIED)]
        if not rows:
            return "etcd does not tell what it has applied"
        found = int(float(rows[0].split()[-1]))
        leader = any(line.startswith(_LEADER) and line.split()[-1] != b"0" for line in metrics.splitlines())
        if found > founders and not leader and asyncio.get_running_loop().time() < patience:
            return "etcd has no leader yet"
        return None

    await wait_until(
        missing, f"{host.name}: etcd to run, which has data", deadline=deadline,
        diagnose=lambda: container_evidence(host, "etcd"),
        hint="only it can tell whether its cluster has ever been whole: see journalctl -u kubelet there",
    )  # fmt: skip
    return found, leader


async def _get(near: tuple[str, int], path: str) -> bytes:
    """The answer to a plain HTTP request, with its head."""
    reader, writer = await asyncio.open_connection(*near)
    try:
        writer.write(f"GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n".encode())
        await writer.drain()
        return await reader.read()
    finally:
        writer.close()
