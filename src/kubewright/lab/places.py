"""Where a lab keeps what must outlive a run, and the lock that lets one process at a time change it."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from kubewright.errors import ExitCode, KubewrightError
from kubewright.lab.proc import read

STATE = Path("/var/lib/kubewright/lab")
"""What must persist: disks, keys, the plan. Whether a machine runs is not among it: the kernel knows that."""
RUN = Path("/run/kubewright/lab")
"""What ends with this computer's uptime: the bridges' namespaces, and locks."""


@dataclass(frozen=True, slots=True)
class Places:
    """The files of one lab."""

    name: str

    @property
    def directory(self) -> Path:
        """Everything that persists."""
        return STATE / self.name

    @property
    def plan(self) -> Path:
        """Names, subnet and addresses, chosen once."""
        return self.directory / "lab.json"

    @property
    def key(self) -> Path:
        """The private key that enters the machines."""
        return self.directory / "id_ed25519"

    @property
    def known_hosts(self) -> Path:
        """The machines' host keys."""
        return self.directory / "known_hosts"

    @property
    def cluster_yaml(self) -> Path:
        """The cluster's description, as `kubewright apply -f` takes it."""
        return self.directory / "cluster.yaml"

    @property
    def kubeconfig(self) -> Path:
        """The cluster's administrator's kubeconfig."""
        return self.directory / "kubeconfig"

    @property
    def machines(self) -> Path:
        """One directory a machine."""
        return self.directory / "machines"

    @property
    def namespace(self) -> Path:
        """The file that keeps the network namespace of the bridge alive."""
        return RUN / f"{self.name}.net"


_AFTER_THE_END = 5.0
"""Seconds for which a killed holder's lock is waited for: a child that it made just then has it until its exec."""


@asynccontextmanager
async def lab_lock(name: str) -> AsyncIterator[None]:
    """Be the only one to change a lab. Raises `KubewrightError` (BUSY) at once if another process is."""
    async with _lock(RUN / f"{name}.lock", patience=0.0, what=f"lab {name!r}"):
        yield


@asynccontextmanager
async def computer_lock() -> AsyncIterator[None]:
    """Be the only one to change what all labs share: the subnets taken, this computer's settings. For moments."""
    async with _lock(RUN / ".computer.lock", patience=30.0, what="what all labs share"):
        yield


@asynccontextmanager
async def _lock(path: Path, *, patience: float, what: str) -> AsyncIterator[None]:
    """flock(2), which the kernel undoes however its holder ends. The file goes when the lock does."""
    deadline = time.monotonic() + patience
    while True:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        except FileNotFoundError:
            continue  # another process removed the empty directory just now
        except PermissionError as error:
            raise KubewrightError(
                f"{path}: {error.strerror}", hint="run it as root", exit_code=ExitCode.HOST_NO_PRIVILEGE
            ) from None
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Its last holder may have removed the file after we opened it: then we hold nothing that others see.
            if path.exists() and os.fstat(descriptor).st_ino == path.stat().st_ino:
                break
            os.close(descriptor)
        except FileNotFoundError:
            os.close(descriptor)
        except BlockingIOError:
            os.close(descriptor)
            holder = read(path).strip()
            if time.monotonic() >= deadline + (_AFTER_THE_END if _ended(holder) else 0.0):
                raise KubewrightError(
                    f"{what} is being changed by another process{f' ({holder})' if holder else ''}",
                    hint="wait until it has ended, then run this again", exit_code=ExitCode.BUSY,
                ) from None  # fmt: skip
            await asyncio.sleep(0.05)
    try:
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"process {os.getpid()}\n".encode(), 0)
        yield
    finally:
        path.unlink(missing_ok=True)
        os.close(descriptor)
        remove_if_empty(path.parent, path.parent.parent)


def _ended(holder: str) -> bool:
    """Whether a lock's holder, as the file names it, is no more."""
    return holder.startswith("process ") and not Path("/proc", holder.removeprefix("process ")).exists()


def remove_if_empty(*directories: Path) -> None:
    """Remove those of `directories` that are empty, in this order."""
    for directory in directories:
        with contextlib.suppress(OSError):
            directory.rmdir()
