"""The API of a cluster that exists, through whichever of its control planes serves."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace

from kubewright.clients.kube import KubeClient
from kubewright.clients.server import Server
from kubewright.errors import KubewrightError
from kubewright.model import kubeconfig
from kubewright.model.manifests import API_SERVER, manifest_path
from kubewright.model.node import API_PORT, host_port
from kubewright.model.objects import read_mapping
from kubewright.model.reset import container_flags
from kubewright.phases.api import api_over
from kubewright.phases.host_kubeconfig import read_kubeconfig
from kubewright.phases.node import Node

_ADMIN = tuple(f"{kubeconfig.KUBERNETES_DIR}/{name}" for name in (kubeconfig.SUPER_ADMIN, kubeconfig.ADMIN))
_READY = 4.0
"""Seconds in which an API server that serves says so."""


@asynccontextmanager
async def any_plane(
    planes: Sequence[Node],
) -> AsyncIterator[tuple[Node | None, KubeClient | None, list[str]]]:
    """The first control plane whose API server is ready, and a client of it; or why none is, a line for each.

    It is asked at its own address, from its own host: no endpoint need work for it.
    """
    failures: list[str] = []
    found: tuple[Node | None, KubeClient | None] = (None, None)
    async with AsyncExitStack() as stack:
        for node in planes:
            try:
                kube = await stack.enter_async_context(api_over(node.host, await _server(node)))
            except KubewrightError as error:
                failures.append(
                    error.message if node.name in error.message else f"{node.name}: {error.message}"
                )
                continue
            if await kube.healthz("/readyz", timeout=_READY):
                found = (node, kube)
                break
            failures.append(f"{node.name}: its API server is not ready")
        yield *found, failures


async def _server(node: Node) -> Server:
    """A control plane's own API server, with the administrator's credentials. Raises `HostError`."""
    path = manifest_path(API_SERVER)
    found = await node.host.read_files([path, *_ADMIN])
    conf = next((name for name in _ADMIN if name in found), _ADMIN[-1])
    server = Server.from_kubeconfig(await read_kubeconfig(node.host, conf))
    flags = container_flags(read_mapping(found.get(path, b"")) or {})
    address = flags.get("advertise-address") or node.ip
    port = flags.get("secure-port", "")
    return replace(server, url=f"https://{host_port(address, int(port) if port.isdecimal() else API_PORT)}")
