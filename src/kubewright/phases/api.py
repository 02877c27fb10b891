"""Reaching an API server over a host's own connection, so that nothing but SSH must be open to us."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

from kubewright.clients.kube import KubeClient
from kubewright.clients.server import Server
from kubewright.hosts import Host


@asynccontextmanager
async def api_over(host: Host, server: Server, *, timeout: float = 30.0) -> AsyncIterator[KubeClient]:
    """A client whose connections `host` makes to the server's address. TLS is verified as without a tunnel."""
    url = urlsplit(server.url)
    async with (
        host.forward_tcp(url.hostname or "", url.port or 443) as (address, port),
        KubeClient(server.through(address, port), timeout=timeout) as kube,
    ):
        yield kube
