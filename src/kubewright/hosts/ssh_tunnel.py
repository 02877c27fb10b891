"""Tunnels: connections made here that a host continues, to a port or a unix socket that it can reach."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import asyncssh

from kubewright.errors import ExitCode, HostError
from kubewright.hosts.ssh_login import Connection

_BLOCK = 1 << 17
_CHECK = 2.0

Opened = tuple[asyncssh.SSHReader[bytes], asyncssh.SSHWriter[bytes]]


class Tunnel:
    """What listens here for one target there. Each connection takes the host's current SSH connection, so that a
    tunnel outlives a connection that was lost."""

    def __init__(
        self, name: str, connect: Callable[[], Awaitable[Connection]], target: str, port: int | None
    ) -> None:
        self._name = name
        self._connect = connect
        self._target = target
        self._port = port
        self._tasks: set[asyncio.Task[Any]] = set()

    async def _open(self) -> Opened:
        connection = await self._connect()
        if self._port is None:
            return await connection.open_unix_connection(self._target, encoding=None)
        return await connection.open_connection(self._target, self._port, encoding=None)

    async def check(self) -> None:
        """Raise `HostError` where sshd forbids the tunnel or the socket is not there.

        A TCP port may open later, so nothing but a refusal by sshd itself counts there.
        """
        try:
            async with asyncio.timeout(_CHECK):
                _, writer = await self._open()
                writer.close()
        except asyncssh.ChannelOpenError as error:
            if error.code == asyncssh.OPEN_ADMINISTRATIVELY_PROHIBITED:
                setting = "AllowTcpForwarding" if self._port else "AllowStreamLocalForwarding"
                raise HostError(
                    f"sshd on {self._name} forbids a tunnel to {self._where()}",
                    hint=f"set `{setting} yes` in its sshd_config", host=self._name,
                    exit_code=ExitCode.HOST_NO_PRIVILEGE,
                ) from None  # fmt: skip
            if self._port is None:
                raise HostError(
                    f"{self._target} on {self._name} cannot be connected to: {error.reason}",
                    hint="is the service that listens there running?", host=self._name,
                    exit_code=ExitCode.FAILURE,
                ) from None  # fmt: skip
        except (asyncssh.Error, OSError) as error:
            raise HostError(f"the connection to {self._name} was lost: {error}", host=self._name) from None
        except TimeoutError:
            pass

    def _where(self) -> str:
        return self._target if self._port is None else f"{self._target}:{self._port}"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection: both directions at once, each ending when its source ends."""
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            # A target that refuses is, for our side, a connection that ends at once.
            with suppress(asyncssh.Error, OSError, HostError):
                far_reader, far_writer = await self._open()
                try:
                    await asyncio.gather(_pump(reader, far_writer), _pump(far_reader, writer))
                finally:
                    far_writer.close()
        except asyncio.CancelledError:
            pass
        finally:
            self._tasks.discard(task)
            writer.close()

    @asynccontextmanager
    async def serving(self, server: asyncio.Server) -> AsyncIterator[None]:
        """Keep the server up inside, and end it with all of its connections."""
        try:
            yield
        finally:
            server.close()
            for task in list(self._tasks):
                task.cancel()
            if self._tasks:
                await asyncio.wait(self._tasks, timeout=2)


async def _pump(source: Any, target: Any) -> None:
    with suppress(asyncssh.Error, OSError):
        while data := await source.read(_BLOCK):
            target.write(data)
            await target.drain()
        target.write_eof()
