"""Changing a file on this computer that others change, too: one at a time, and in one step."""

from __future__ import annotations

import fcntl
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from kubewright.errors import ConfigError, ExitCode

_PATIENCE = 10.0
"""Seconds to wait for another process: a change takes milliseconds."""


@contextmanager
def shared_with_kubectl(file: Path) -> Iterator[None]:
    """Be the only one to change `file`, among our own processes and kubectl's.

    Ours queue at a lock on the file's folder, which leaves nothing behind however a process ends. kubectl takes
    `FILE.lock`, made exclusively and removed afterwards (client-go, tools/clientcmd/config.go); we take it too,
    with our process id in it, so that one left by a killed process of ours is known and removed. Raises
    `ConfigError` (BUSY) when it was not free within 10 s.
    """
    deadline = time.monotonic() + _PATIENCE
    try:
        folder = os.open(file.parent, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        raise ConfigError(f"{file.parent}: cannot be entered: {error.strerror}") from None
    try:
        _until(lambda: _flock(folder), deadline, f"{file}: another kubewright holds it")
        lock = file.with_name(file.name + ".lock")
        _until(
            lambda: _make(lock), deadline,
            f"{file}: {lock.name} is there: another program is changing the file, or died while it did",
            hint=f"if none is running: rm {lock}",
        )  # fmt: skip
        try:
            yield
        finally:
            lock.unlink(missing_ok=True)
    finally:
        os.close(folder)


def replace_file(file: Path, content: bytes, *, mode: int) -> None:
    """Write `content` beside `file`, flush it to the disk and rename it; the owner stays who it was."""
    try:
        fd, name = tempfile.mkstemp(prefix=f".{file.name}.", dir=file.parent)  # mkstemp makes it 0600
    except OSError as error:
        raise ConfigError(f"{file}: cannot be written: {error.strerror}") from None
    try:
        with os.fdopen(fd, "wb") as new:
            if file.exists():
                before = file.stat()
                with suppress(PermissionError):
                    os.fchown(new.fileno(), before.st_uid, before.st_gid)
            os.fchmod(new.fileno(), mode)
            new.write(content)
            new.flush()
            os.fsync(new.fileno())
        Path(name).replace(file)
    except OSError as error:
        Path(name).unlink(missing_ok=True)
        raise ConfigError(f"{file}: cannot be written: {error.strerror}; it is as it was") from error
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def _flock(folder: int) -> bool:
    try:
        fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _make(lock: Path) -> bool:
    try:
        fd = os.open(lock, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        with suppress(OSError, ValueError):
            word, _, pid = lock.read_text().partition(" ")
            if word == "kubewright" and not Path(f"/proc/{int(pid)}").exists():
                lock.unlink()
        return False
    except OSError as error:
        raise ConfigError(f"{lock}: cannot be made: {error.strerror}") from None
    with os.fdopen(fd, "w") as file:
        file.write(f"kubewright {os.getpid()}")
    return True


def _until(attempt: Callable[[], bool], deadline: float, message: str, hint: str = "") -> None:
    while not attempt():
        if time.monotonic() >= deadline:
            raise ConfigError(message, hint=hint, exit_code=ExitCode.BUSY)
        time.sleep(0.02)
