"""A host with a POSIX shell: everything that `Host` promises, over one way to run a command."""

from __future__ import annotations

import asyncio
import secrets
import shlex
from abc import abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, contextmanager
from pathlib import Path
from typing import BinaryIO

from kubewright.errors import CommandError, ExitCode, HostError, WaitTimeoutError
from kubewright.hosts import scripts
from kubewright.hosts.facts import FACTS, parse_facts
from kubewright.hosts.host import Completed, FileStat, FileWrite, Host, Progress
from kubewright.model.facts import HostFacts
from kubewright.secret import Secret

MAX_OUTPUT = 64 * 2**20
BLOCK = 256 * 1024
_EVIDENCE_LINES = 10
_SHOWN_COMMAND = 120
_FILE_TIMEOUT = 120.0


class Output:
    """What a command wrote so far; readable while it runs, so that a timeout can tell what was last seen."""

    def __init__(self, limit: int = MAX_OUTPUT) -> None:
        self.stdout = bytearray()
        self.stderr = bytearray()
        self.too_much = False
        self._limit = limit

    def add(self, data: bytes, *, error: bool = False) -> bool:
        """Keep a piece of output; False once there is more than the limit, and the command must be ended."""
        if not self.too_much:
            (self.stderr if error else self.stdout).extend(data)
            self.too_much = len(self.stdout) + len(self.stderr) > self._limit
        return not self.too_much

    def last_lines(self) -> list[str]:
        """The last lines of standard error or, where it is empty, of standard output."""
        return tail(bytes(self.stderr[-8192:])) or tail(bytes(self.stdout[-8192:]))


class ShellHost(Host):
    """Everything over `_exec`: what a subclass adds is how a command is started and how ports are reached."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._facts: HostFacts | None = None
        self._facts_lock = asyncio.Lock()

    @abstractmethod
    def _slot(self) -> AbstractAsyncContextManager[None]:
        """Wait until a command may be started: the host reached, and not too many commands at once."""

    @abstractmethod
    async def _exec(self, argv: Sequence[str], stdin: Iterable[bytes], output: Output) -> int:
        """Run a command as root inside a slot and return its exit code, 128 + N for one that signal N killed.

        When cancelled, or when there is too much output, it ends the command's whole process group first.
        """

    async def run(
        self,
        argv: Sequence[str],
        *,
        stdin: bytes | Secret[bytes] | None = None,
        timeout: float = 60.0,
        check: bool = True,
        env: Mapping[str, str] | None = None,
    ) -> Completed:
        """See `Host.run`. The deadline counts from the command's start, not from its wait for a connection."""
        data = stdin.reveal() if isinstance(stdin, Secret) else stdin
        done = await self._run(argv, [data] if data else [], timeout, env)
        if check and not done.ok:
            raise self._failed(done)
        return done

    async def run_with_file(
        self, argv: Sequence[str], local: Path, *, timeout: float = 300.0, progress: Progress | None = None
    ) -> Completed:
        """See `Host.run_with_file`. `timeout` counts from the last block that the command took."""
        with self._local_file(local) as (file, size):
            done = await self._run(argv, _blocks(file, size, progress), timeout)
        if not done.ok:
            raise self._failed(done)
        return done

    async def _run(
        self,
        argv: Sequence[str],
        stdin: Iterable[bytes],
        timeout: float,
        env: Mapping[str, str] | None = None,
    ) -> Completed:
        command = [*(("env", *(f"{key}={value}" for key, value in env.items())) if env else ()), *argv]
        if sum(len(word) + 3 for word in command) > scripts.MAX_COMMAND:
            raise HostError(
                f"`{shown(argv)}` has arguments too long for {self.name}",
                hint="data goes through standard input", host=self.name, exit_code=ExitCode.FAILURE,
            )  # fmt: skip
        output = Output()
        async with self._slot():
            try:
                async with asyncio.timeout(timeout) as deadline:
                    code = await self._exec(command, _moving(stdin, deadline, timeout), output)
            except TimeoutError:
                raise WaitTimeoutError(
                    f"`{shown(argv)}` on {self.name} did not end within {timeout:g} s",
                    host=self.name, evidence=output.last_lines(),
                ) from None  # fmt: skip
        if output.too_much:
            raise HostError(
                f"`{shown(argv)}` on {self.name} wrote more than {MAX_OUTPUT >> 20} MiB and was stopped",
                host=self.name, evidence=output.last_lines(), exit_code=ExitCode.FAILURE,
            )  # fmt: skip
        return Completed(tuple(argv), code, bytes(output.stdout), bytes(output.stderr))

    def _failed(self, done: Completed) -> CommandError:
        evidence = tail(done.stderr) or tail(done.stdout)
        hint = ""
        code: ExitCode | None = None
        if done.exit_code == 127:
            hint = f"is {done.argv[0]} installed on {self.name}, and in root's PATH?"
        elif scripts.disk_full("\n".join(evidence)):
            hint = f"free some space on {self.name}, then run the same command again"
            code = ExitCode.HOST_DISK_FULL
        why = f": {evidence[-1].strip()}" if evidence else ""
        return CommandError(
            f"`{shown(done.argv)}` on {self.name} ended with exit code {done.exit_code}{why}",
            hint=hint, host=self.name, evidence=evidence, exit_code=code,
        )  # fmt: skip

    # -- files ------------------------------------------------------------------------------------------------

    async def _script(
        self,
        script: str,
        arguments: Sequence[str],
        stdin: Iterable[bytes] = (),
        timeout: float = _FILE_TIMEOUT,
    ) -> Completed:
        return await self._run(["sh", "-c", script, "kubewright", *arguments], stdin, timeout)

    async def read_file(self, path: str) -> bytes | None:
        """See `Host.read_file`."""
        return (await self.read_files([path])).get(path)

    async def read_files(self, paths: Iterable[str]) -> dict[str, bytes]:
        """See `Host.read_files`."""
        found: dict[str, bytes] = {}
        for batch in scripts.batches(self._absolute(paths)):
            token = secrets.token_hex(16)
            done = await self._script(scripts.READ, [token, *batch])
            try:
                contents, failed = scripts.parse_read(token, batch, done.stdout)
            except ValueError as error:
                raise self._broken("files could not be read", done, error) from None
            if failed:
                raise self._broken(f"{failed[0]} could not be read", done)
            found |= contents
        return found

    async def stat_files(self, paths: Iterable[str], *, digest: bool = True) -> dict[str, FileStat]:
        """See `Host.stat_files`."""
        found: dict[str, FileStat] = {}
        for batch in scripts.batches(self._absolute(paths)):
            token = secrets.token_hex(16)
            done = await self._script(scripts.STAT, [token, "yes" if digest else "no", *batch])
            try:
                found |= scripts.parse_stat(token, batch, done.stdout)
            except ValueError as error:
                raise self._broken("files could not be examined", done, error) from None
        return found

    async def write_files(self, files: Iterable[FileWrite]) -> None:
        """See `Host.write_files`."""
        wanted = list(files)
        self._absolute(file.path for file in wanted)
        for batch in scripts.write_batches(wanted):
            token = secrets.token_hex(16)
            done = await self._script(
                scripts.WRITE, scripts.write_arguments(token, batch), scripts.write_input(token, batch)
            )
            if not done.ok:
                raise self._not_written([file.path for file in batch], done)

    async def upload(
        self,
        local: Path,
        remote: str,
        *,
        mode: int = 0o644,
        sha256: str = "",
        progress: Progress | None = None,
    ) -> None:
        """See `Host.upload`. It fails when the host takes no block for two minutes."""
        self._absolute([remote])
        token = secrets.token_hex(16)
        with self._local_file(local) as (file, size):
            done = await self._script(
                scripts.UPLOAD,
                [token, remote, f"{mode:04o}", str(size), sha256.lower()],
                _blocks(file, size, progress),
            )
        if not done.ok:
            raise self._not_written([remote], done)

    def _absolute(self, paths: Iterable[str]) -> list[str]:
        checked = list(dict.fromkeys(paths))
        for path in checked:
            if not path.startswith("/") or path.endswith("/") or "\0" in path:
                raise HostError(
                    f"{path!r} is not an absolute path of a file", host=self.name, exit_code=ExitCode.FAILURE
                )
        return checked

    @contextmanager
    def _local_file(self, local: Path) -> Iterator[tuple[BinaryIO, int]]:
        try:
            file = local.open("rb")
        except OSError as error:
            raise HostError(
                f"{local} cannot be read: {error.strerror}", host=self.name, exit_code=ExitCode.FAILURE
            ) from None
        with file:
            yield file, local.stat().st_size

    def _broken(self, what: str, done: Completed, why: Exception | None = None) -> HostError:
        lines = tail(done.stderr)
        cause = lines[-1] if lines else str(why or f"exit code {done.exit_code}")
        return CommandError(f"{what} on {self.name}: {cause}", host=self.name, evidence=lines)

    def _not_written(self, paths: Sequence[str], done: Completed) -> HostError:
        index, free = scripts.parse_failure(done.stdout)
        path = paths[min(index, len(paths) - 1)]
        lines = tail(done.stderr)
        if scripts.disk_full("\n".join(lines)):
            left = "" if free is None else f" ({free} bytes free)"
            return HostError(
                f"{path} could not be written: the disk of {self.name} is full{left}",
                hint="what stood there before is unchanged: free some space, then run the same command again",
                host=self.name, evidence=lines, exit_code=ExitCode.HOST_DISK_FULL,
            )  # fmt: skip
        return self._broken(f"{path} could not be written", done)

    # -- facts ------------------------------------------------------------------------------------------------

    async def facts(self) -> HostFacts:
        """See `Host.facts`."""
        async with self._facts_lock:
            if self._facts is None:
                done = await self._script(FACTS, [], timeout=30)
                try:
                    self._facts = parse_facts(done.stdout.decode(errors="replace"))
                except (ValueError, IndexError) as error:
                    raise self._broken("the host's facts could not be read", done, error) from None
            return self._facts


def _blocks(file: BinaryIO, size: int, progress: Progress | None) -> Iterator[bytes]:
    """A file in blocks; progress is told of a block when the next is asked for, that is, when it was taken."""
    sent = 0
    while True:
        try:
            block = file.read(BLOCK)
        except OSError as error:
            raise HostError(
                f"{file.name} cannot be read: {error.strerror}", exit_code=ExitCode.FAILURE
            ) from None
        if not block:
            return
        yield block
        sent += len(block)
        if progress is not None:
            progress(sent, size)


def _moving(stdin: Iterable[bytes], deadline: asyncio.Timeout, timeout: float) -> Iterator[bytes]:
    """Pass blocks on and put off the deadline with each, so that a large file on a slow line is no timeout."""
    for block in stdin:
        deadline.reschedule(asyncio.get_running_loop().time() + timeout)
        yield block
    deadline.reschedule(asyncio.get_running_loop().time() + timeout)


def shown(argv: Sequence[str]) -> str:
    """A command for a message: quoted for a shell, on one line, and cut to a readable length."""
    text = " ".join(shlex.join(argv).split())
    return text if len(text) <= _SHOWN_COMMAND else text[: _SHOWN_COMMAND - 1] + "…"


def tail(output: bytes) -> list[str]:
    """The last lines of an output that are not empty."""
    lines = output[-16384:].decode(errors="replace").splitlines()
    return [line.rstrip() for line in lines if line.strip()][-_EVIDENCE_LINES:]
