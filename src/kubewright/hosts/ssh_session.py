"""One command on an SSH connection: how it is wrapped, and its output, input and end."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterable
from contextlib import suppress

import asyncssh

from kubewright.hosts.shell import Output

# The shell first tells its process id, by which the command can be ended; what a login shell's start-up files
# print before it is not the command's. root's PATH may lack the administrators' folders over SSH.
WRAPPER = (
    "printf 'kubewright-pid %s\\n' $$ >&2; "
    "PATH=$PATH:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin; LC_ALL=C; export PATH LC_ALL; "
    'exec "$@"'
)
_PID = re.compile(rb"kubewright-pid (\d+)\n")
_SIGNALS = {"HUP": 1, "INT": 2, "QUIT": 3, "ILL": 4, "ABRT": 6, "FPE": 8, "KILL": 9, "SEGV": 11, "PIPE": 13,
            "ALRM": 14, "TERM": 15, "USR1": 10, "USR2": 12}  # fmt: skip


class CommandSession(asyncssh.SSHClientSession[bytes]):
    """One command: collects its output and tells when it ended."""

    def __init__(self, output: Output) -> None:
        self.output = output
        self.pid: int | None = None
        self.code: int | None = None
        self.lost: Exception | None = None
        self.ended = asyncio.Event()
        self.started = asyncio.Event()
        self.overflow = asyncio.Event()
        self._head = bytearray()
        self._room = asyncio.Event()
        self._room.set()

    def data_received(self, data: bytes, datatype: int | None) -> None:
        """Keep output; the first line of standard error is the shell's process id."""
        error = datatype == asyncssh.EXTENDED_DATA_STDERR
        if error and self.pid is None:
            self._head += data
            match = _PID.search(self._head)
            if match is None:
                return
            self.pid = int(match[1])
            self.started.set()
            data = bytes(self._head[match.end() :])
        if not self.output.add(data, error=error):
            self.overflow.set()

    def exit_status_received(self, status: int) -> None:
        """The command ended by itself."""
        self.code = status

    def exit_signal_received(self, signal: str, core_dumped: bool, msg: str, lang: str) -> None:
        """A signal ended the command."""
        self.code = 128 + _SIGNALS.get(signal, 0)

    def pause_writing(self) -> None:
        """The host takes no more input for now."""
        self._room.clear()

    def resume_writing(self) -> None:
        """The host takes input again."""
        self._room.set()

    def connection_lost(self, exc: Exception | None) -> None:
        """The channel is closed: after its exit code, or with the connection."""
        if self.pid is None:
            self.output.add(bytes(self._head), error=True)
        self.lost = exc
        self.started.set()
        self._room.set()
        self.ended.set()

    async def feed(self, channel: asyncssh.SSHClientChannel[bytes], blocks: Iterable[bytes]) -> None:
        """Write blocks to the command's standard input as fast as it takes them, then close it."""
        for block in blocks:
            if self.ended.is_set():
                return
            with suppress(BrokenPipeError, OSError):
                channel.write(block)
            # Give way even where there is room: the loss of the connection must be able to show.
            await asyncio.sleep(0)
            await self._room.wait()
        with suppress(BrokenPipeError, OSError):
            channel.write_eof()
