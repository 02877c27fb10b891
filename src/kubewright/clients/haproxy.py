"""Asking haproxy what it does, on its own socket and through the host's connection."""

from __future__ import annotations

import asyncio

from kubewright.errors import HostError
from kubewright.hosts import Host


async def ask_haproxy(host: Host, socket: str, command: str, *, timeout: float = 5.0) -> str:
    """The answer to a command (haproxy's Management Guide, 9.3). Raises `HostError` where none comes in time."""
    try:
        async with asyncio.timeout(timeout), host.forward_unix(socket) as near:
            reader, writer = await asyncio.open_unix_connection(str(near))
            try:
                writer.write(f"{command}\n".encode())
                await writer.drain()
                return (await reader.read(-1)).decode(errors="replace")
            finally:
                writer.transport.abort()
    except TimeoutError as error:
        raise HostError(f"{host.name}: {socket} does not answer in {timeout:g} s", host=host.name) from error
    except OSError as error:
        raise HostError(f"{host.name}: {socket}: {error.strerror or error}", host=host.name) from error
