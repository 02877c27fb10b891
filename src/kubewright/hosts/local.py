"""This computer as a host: commands are child processes, in process groups of their own."""

from __future__ import annotations

import asyncio
import os
import signal
import stat
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext, suppress
from pathlib import Path

from kubewright.errors import ExitCode, HostError, leaves
from kubewright.hosts import scripts
from kubewright.hosts.shell import Output, ShellHost

SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_GRACE = 2.0


class LocalHost(ShellHost):
    """This computer. Where we are not root, commands go through `sudo -n`."""

    def __init__(self, name: str = "local") -> None:
        super().__init__(name)
        self._root = os.geteuid() == 0
        self._sudo_checked = self._root
        self._env = os.environ | {
            "LC_ALL": "C",
            "PATH": ":".join(filter(None, [os.environ.get("PATH"), SYSTEM_PATH])),
        }

    def _slot(self) -> AbstractAsyncContextManager[None]:
        return nullcontext()

    async def _exec(self, argv: Sequence[str], stdin: Iterable[bytes], output: Output) -> int:
        if not self._sudo_checked:
            await self._check_sudo()
        return await self._spawn([*(() if self._root else ("sudo", "-n", "--")), *argv], stdin, output)

    async def _check_sudo(self) -> None:
        output = Output()
        if await self._spawn(["sudo", "-n", "true"], (), output) != 0:
            raise HostError(
                f"{self.name}: we are not root here, and `sudo -n` refuses",
                hint="run the command as root, or let sudo run it without a password (NOPASSWD)",
                host=self.name, evidence=output.last_lines(), exit_code=ExitCode.HOST_NO_PRIVILEGE,
            )  # fmt: skip
        self._sudo_checked = True

    async def _spawn(self, argv: Sequence[str], stdin: Iterable[bytes], output: Output) -> int:
        blocks = filter(None, stdin)
        first = next(blocks, b"")
        starting = asyncio.ensure_future(
            asyncio.create_subprocess_exec(
                *argv, stdin=PIPE if first else DEVNULL, stdout=PIPE, stderr=PIPE, env=self._env,
                start_new_session=True,
            )
        )  # fmt: skip
        try:
            # A process that is cancelled while it starts is reaped behind asyncio's back, which then complains.
            process = await asyncio.shield(starting)
        except asyncio.CancelledError:
            while not starting.done():
                with suppress(asyncio.CancelledError):
                    await asyncio.wait([starting])
            with suppress(OSError, ValueError):
                await self._stop(starting.result())
            raise
        except (OSError, ValueError) as error:
            # What a shell would have said, with its exit codes.
            output.add(f"{argv[0]}: {getattr(error, 'strerror', None) or error}\n".encode(), error=True)
            return 127 if isinstance(error, FileNotFoundError) else 126
        assert process.stdout is not None
        assert process.stderr is not None
        try:
            async with asyncio.TaskGroup() as pumps:
                pumps.create_task(self._collect(process, process.stdout, output, False))
                pumps.create_task(self._collect(process, process.stderr, output, True))
                if first:
                    pumps.create_task(_feed(process, first, blocks))
            code = await process.wait()
            await _seen_closed(process)
        except BaseException as error:
            await self._stop(process)
            if isinstance(error, BaseExceptionGroup):
                raise leaves(error)[0] from None
            raise
        return 128 - code if code < 0 else code

    async def _collect(
        self, process: Process, stream: asyncio.StreamReader, output: Output, error: bool
    ) -> None:
        while data := await stream.read(1 << 16):
            if not output.add(data, error=error):
                break
        else:
            return
        # Too much: end the command while its output is still taken, and thrown away, so that it can end.
        async with asyncio.TaskGroup() as ending:
            ending.create_task(self._end(process))
            while await stream.read(1 << 16):
                pass

    async def _stop(self, process: Process) -> None:
        """End the process group, and let go of its pipes even where a second Ctrl-C cancels that."""
        try:
            await self._end(process)
            with suppress(TimeoutError):
                async with asyncio.timeout(_GRACE):
                    await process.communicate()
        finally:
            # What is open, or has not been reaped, when the loop closes is reported with a traceback or a warning.
            # There is no public way to close a transport.
            with suppress(ProcessLookupError, PermissionError):
                if process.returncode is None:
                    os.killpg(process.pid, signal.SIGKILL)
            with suppress(PermissionError, TimeoutError):
                try:
                    async with asyncio.timeout(_GRACE):
                        await process.wait()
                finally:
                    process._transport.close()  # type: ignore[attr-defined]
                    await _seen_closed(process)

    async def _end(self, process: Process) -> None:
        """Ask the process group to end, give it two seconds, then kill what is left of it."""
        if not self._root:
            killer = await asyncio.create_subprocess_exec(
                "sudo", "-n", "--", "sh", "-c", scripts.KILL, "kubewright", str(process.pid),
                stdin=DEVNULL, stdout=DEVNULL, stderr=DEVNULL,
            )  # fmt: skip
            await killer.wait()
            return
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        deadline = asyncio.get_running_loop().time() + _GRACE
        # Not `wait()`: it also waits for the pipes, which a process that left the group may hold open.
        while process.returncode is None and asyncio.get_running_loop().time() < deadline:  # noqa: ASYNC110
            await asyncio.sleep(0.02)
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)

    async def read_files(self, paths: Iterable[str]) -> dict[str, bytes]:
        """See `Host.read_files`. What we may read ourselves is read without sudo, and without a process."""
        found: dict[str, bytes] = {}
        forbidden = []
        for path in self._absolute(paths):
            try:
                # Not `is_file`, which from Python 3.14 on also says no where we may not look.
                if stat.S_ISREG(Path(path).stat().st_mode):
                    found[path] = Path(path).read_bytes()
            except (FileNotFoundError, NotADirectoryError):
                continue
            except OSError:
                forbidden.append(path)  # by root's eyes then, and with an error that says what is wrong
        return found | (await super().read_files(forbidden) if forbidden else {})

    @asynccontextmanager
    async def forward_tcp(self, address: str, port: int) -> AsyncIterator[tuple[str, int]]:
        """The address itself: what this computer reaches, we reach."""
        yield address, port

    @asynccontextmanager
    async def forward_unix(self, path: str) -> AsyncIterator[Path]:
        """The socket itself, where we may connect to it."""
        socket = Path(path)
        if not socket.is_socket():
            raise HostError(
                f"{path} on {self.name} is not a socket", host=self.name, exit_code=ExitCode.FAILURE,
                hint="is the service that listens there running?",
            )  # fmt: skip
        if not os.access(socket, os.R_OK | os.W_OK):
            raise HostError(
                f"{path} on {self.name} belongs to another user", host=self.name,
                hint="run the command as root", exit_code=ExitCode.HOST_NO_PRIVILEGE,
            )  # fmt: skip
        yield socket

    async def close(self) -> None:
        """Nothing is held open."""


async def _feed(process: Process, first: bytes, blocks: Iterable[bytes]) -> None:
    """Write blocks to standard input, then close it; a command that does not read all of it is no error."""
    assert process.stdin is not None
    with suppress(BrokenPipeError, ConnectionResetError):
        process.stdin.write(first)
        await process.stdin.drain()
        for block in blocks:
            process.stdin.write(block)
            await process.stdin.drain()
    process.stdin.close()


async def _seen_closed(process: Process) -> None:
    """See how standard input was closed: early releases of Python 3.11 report a broken pipe that nobody saw."""
    if process.stdin is not None:
        closed = asyncio.ensure_future(process.stdin.wait_closed())
        closed.add_done_callback(lambda task: task.cancelled() or task.exception())
        # Not for ever: somebody who left the process group may hold the pipe.
        await asyncio.wait([closed], timeout=_GRACE)
