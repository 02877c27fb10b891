"""A host over SSH: one connection, kept and shared by every command, file and tunnel."""

from __future__ import annotations

import asyncio
import shlex
import tempfile
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import asyncssh

from kubewright.errors import ExitCode, HostError
from kubewright.hosts import scripts
from kubewright.hosts.shell import Output, ShellHost, tail
from kubewright.hosts.slots import Slots
from kubewright.hosts.ssh_keys import Target
from kubewright.hosts.ssh_login import Connection, log_in
from kubewright.hosts.ssh_session import WRAPPER, CommandSession
from kubewright.hosts.ssh_tunnel import RELAY, Ends, Opener, Tunnel, check_tcp, check_unix

MAX_CHANNELS = 8
"""Commands at once on a connection. sshd's default MaxSessions is 10: some are left for ending commands."""
_WINDOW = 4 * 2**20
_ALONE_REFUSALS = 40  # 2 s, in which a loaded sshd has noticed that a session ended


class SshHost(ShellHost):
    """A computer reached over SSH, as root or through `sudo -n`.

    The connection is opened by the first command, by one task for all that wait for it, and opened again when it
    was lost between two commands.
    """

    def __init__(
        self,
        name: str,
        address: str,
        *,
        user: str,
        port: int = 22,
        key_files: Sequence[Path] = (),
        known_hosts: Path | None = None,
        jump: Target | None = None,
        connect_timeout: float = 10.0,
    ) -> None:
        super().__init__(name)
        self._target = Target(name, address, port, user, tuple(key_files), known_hosts)
        self._jump_target = jump
        self._timeout = connect_timeout
        self._jump: Connection | None = None
        self._connection: Connection | None = None
        self._connecting: asyncio.Task[Connection] | None = None
        self._sudo = False
        self._slots = Slots(MAX_CHANNELS)

    # -- the connection ---------------------------------------------------------------------------------------

    async def _connect(self) -> Connection:
        """The connection, opened where there is none; whoever comes while it is being opened waits for it."""
        if self._connection is not None and not self._connection.is_closed():
            return self._connection
        if self._connecting is None or self._connecting.done():
            self._connecting = asyncio.create_task(self._open())
        try:
            return await asyncio.shield(self._connecting)
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if self._connecting.cancelled() and task is not None and not task.cancelling():  # by `close`
                raise HostError(f"the connection to {self.name} was closed", host=self.name) from None
            raise

    async def _open(self) -> Connection:
        jump_name = ""
        if self._jump_target is not None:
            jump_name = f"{self._jump_target.user}@{self._jump_target.where}"
            if self._jump is None or self._jump.is_closed():
                self._jump = await log_in(self._jump_target, jump=None, jump_name="", timeout=self._timeout)
        connection = await log_in(self._target, jump=self._jump, jump_name=jump_name, timeout=self._timeout)
        try:
            self._sudo = self._target.user != "root" and await self._needs_sudo(connection)
        except BaseException:
            connection.abort()
            raise
        self._connection = connection
        return connection

    async def _needs_sudo(self, connection: Connection) -> bool:
        """Whether commands need sudo. Raises `HostError` (HOST_NO_PRIVILEGE) where there is no way to root."""
        output = Output()
        # Exit code 0: already root; 1: sudo works; anything else: there is no way.
        script = 'if [ "$(id -u)" = 0 ]; then exit 0; fi; sudo -n true && exit 1; exit 77'
        try:
            async with asyncio.timeout(30):
                code = await self._command(connection, ["sh", "-c", script], (), output, sudo=False)
        except TimeoutError:
            code = 77
        if code in (0, 1):
            return code == 1
        raise HostError(
            f"{self._target.user!r} on {self.name} is not root, and `sudo -n` does not make it root",
            hint=(
                f"let it: echo '{self._target.user} ALL=(ALL) NOPASSWD: ALL' >/etc/sudoers.d/kubewright on the "
                "host, or log in as root (`ssh.user: root`, or --host root@ADDRESS)"
            ),
            host=self.name, evidence=output.last_lines(), exit_code=ExitCode.HOST_NO_PRIVILEGE,
        )  # fmt: skip

    @asynccontextmanager
    async def _slot(self) -> AsyncIterator[None]:
        await self._connect()
        async with self._slots:
            yield

    # -- commands ---------------------------------------------------------------------------------------------

    async def _exec(self, argv: Sequence[str], stdin: Iterable[bytes], output: Output) -> int:
        connection = await self._connect()
        try:
            return await self._command(connection, argv, stdin, output, sudo=self._sudo)
        except _NotStartedError:
            # The connection was lost since its last use, which shows only now: nothing has been run.
            connection.abort()
            self._connection = None
            return await self._command(await self._connect(), argv, stdin, output, sudo=self._sudo)

    async def _command(
        self,
        connection: Connection,
        argv: Sequence[str],
        stdin: Iterable[bytes],
        output: Output,
        *,
        sudo: bool,
    ) -> int:
        words = [*(("sudo", "-n", "--") if sudo else ()), "sh", "-c", WRAPPER, "kubewright", *argv]
        channel, session = await self._channel(connection, f"exec {shlex.join(words)}", output)
        overflow = asyncio.create_task(session.overflow.wait())
        ended = asyncio.create_task(session.ended.wait())
        feeding = asyncio.create_task(session.feed(channel, stdin))
        try:
            await asyncio.wait([feeding, ended], return_when=asyncio.FIRST_COMPLETED)
            if feeding.done():
                feeding.result()
            await asyncio.wait([overflow, ended], return_when=asyncio.FIRST_COMPLETED)
            if not session.ended.is_set():
                await self._end(connection, channel, session)
        except BaseException:
            await self._end(connection, channel, session)
            raise
        finally:
            for task in (overflow, ended, feeding):
                task.cancel()
            channel.close()
        if session.code is None and not output.too_much:
            raise HostError(
                f"the connection to {self.name} was lost while a command ran"
                + (f": {session.lost}" if session.lost else ""),
                hint="run the same command again: it goes on where it stopped", host=self.name,
                evidence=output.last_lines(),
            )  # fmt: skip
        if session.pid is None:
            raise HostError(
                f"{self.name} does not run commands of {self._target.user!r}",
                hint="its login shell must be a POSIX shell" + (", and sudo must ask nothing" if sudo else ""),
                host=self.name, evidence=output.last_lines(), exit_code=ExitCode.HOST_NO_PRIVILEGE,
            )  # fmt: skip
        return session.code or 0

    async def _channel(
        self, connection: Connection, command: str, output: Output
    ) -> tuple[asyncssh.SSHClientChannel[bytes], CommandSession]:
        options: dict[str, Any] = {"encoding": None, "window": _WINDOW, "request_pty": False}
        refusals = 0
        while True:
            try:
                channel, session = await connection.create_session(
                    lambda: CommandSession(output), command, **options
                )
            except asyncssh.ChannelOpenError as error:
                if connection.is_closed():
                    raise _NotStartedError from None
                # sshd may allow fewer sessions than its default: then wait until one of ours ends.
                if await self._slots.refused():
                    continue
                # Where none of ours runs, one that has just ended may still count: sshd clears it away later.
                if (refusals := refusals + 1) < _ALONE_REFUSALS:
                    await asyncio.sleep(0.05)
                    continue
                raise HostError(
                    f"{self.name} opens no session: {error.reason}",
                    hint="does sshd allow sessions (MaxSessions), and has the host room for a process?",
                    host=self.name,
                ) from None
            except (asyncssh.Error, OSError):
                raise _NotStartedError from None
            assert isinstance(session, CommandSession)
            channel.set_write_buffer_limits(high=2**20, low=2**18)
            return channel, session

    async def _end(
        self, connection: Connection, channel: asyncssh.SSHClientChannel[bytes], session: CommandSession
    ) -> None:
        """End a command's process group, through a session of its own, then close its channel."""
        with suppress(TimeoutError, asyncssh.Error, OSError):
            async with asyncio.timeout(5):
                # Only a command that has started has told its process id.
                await session.started.wait()
                if session.pid is not None and not session.ended.is_set():
                    words = [*(("sudo", "-n", "--") if self._sudo else ()), "sh", "-c", scripts.KILL]
                    await connection.run(shlex.join([*words, "kubewright", str(session.pid)]))
        with suppress(OSError, asyncssh.Error):
            channel.send_signal("TERM")
        channel.abort()

    # -- tunnels ----------------------------------------------------------------------------------------------

    @asynccontextmanager
    async def forward_tcp(self, address: str, port: int) -> AsyncIterator[tuple[str, int]]:
        """See `Host.forward_tcp`. It outlives a connection to the host that is lost and opened again."""

        @asynccontextmanager
        async def opened() -> AsyncIterator[Ends]:
            connection = await self._connect()
            reader, writer = await connection.open_connection(address, port, encoding=None)
            try:
                yield reader, writer
            finally:
                writer.close()

        await check_tcp(opened, self.name, f"{address}:{port}")
        tunnel = Tunnel(opened)
        server = await asyncio.start_server(tunnel.serve, "127.0.0.1", 0)
        async with tunnel.serving(server):
            host, local_port = server.sockets[0].getsockname()[:2]
            yield str(host), int(local_port)

    @asynccontextmanager
    async def forward_unix(self, path: str) -> AsyncIterator[Path]:
        """See `Host.forward_unix`. sshd opens the socket as the user of the login; where that is not root, a
        relay on the host does it as root, one command a connection."""
        self._absolute([path])
        await self._connect()
        opened = self._relay(path) if self._sudo else self._direct(path)
        await check_unix(opened, self.name, path)
        tunnel = Tunnel(opened)
        with tempfile.TemporaryDirectory(prefix="kubewright-") as folder:
            local = Path(folder) / "socket"
            server = await asyncio.start_unix_server(tunnel.serve, local)
            async with tunnel.serving(server):
                yield local

    def _direct(self, path: str) -> Opener:
        @asynccontextmanager
        async def opened() -> AsyncIterator[Ends]:
            connection = await self._connect()
            reader, writer = await connection.open_unix_connection(path, encoding=None)
            try:
                yield reader, writer
            finally:
                writer.close()

        return opened

    def _relay(self, path: str) -> Opener:
        # Tunnels last: they never take all of the channels from commands.
        relays = asyncio.Semaphore(MAX_CHANNELS // 2)
        command = shlex.join(["sudo", "-n", "--", "sh", "-c", RELAY, "kubewright", path])

        @asynccontextmanager
        async def opened() -> AsyncIterator[Ends]:
            async with relays, self._slot():
                connection = await self._connect()
                writer, reader, errors = await connection.open_session(command, encoding=None)
                try:
                    if await reader.read(1) != b"+":
                        said = tail(await errors.read())
                        raise HostError(
                            f"{path} on {self.name} cannot be connected to as root: {' '.join(said)}",
                            hint="is the service that listens there running? a tunnel there needs perl or python3",
                            host=self.name, evidence=said, exit_code=ExitCode.FAILURE,
                        )  # fmt: skip
                    yield reader, writer
                finally:
                    writer.channel.abort()

        return opened

    async def close(self) -> None:
        """See `Host.close`."""
        if self._connecting is not None:
            self._connecting.cancel()
            await asyncio.wait([self._connecting])
            if not self._connecting.cancelled():
                self._connecting.exception()  # whoever waited for it was told
        for connection in (self._connection, self._jump):
            if connection is not None:
                connection.close()
                with suppress(TimeoutError, asyncssh.Error, OSError):
                    async with asyncio.timeout(2):
                        await connection.wait_closed()
                connection.abort()
        self._connection = self._jump = None


class _NotStartedError(Exception):
    """The connection was gone before the command was sent."""
