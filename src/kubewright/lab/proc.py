"""Running short commands on this computer, and reading what the kernel says about its processes."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from kubewright.errors import CommandError, WaitTimeoutError


async def run(
    argv: Sequence[str], *, stdin: bytes = b"", timeout: float = 30.0, check: bool = True,
    env: Mapping[str, str] | None = None,
) -> tuple[int, str, str]:  # fmt: skip
    """Run a command to its end and return its exit code, output and error output.

    `timeout` is in seconds; after it the command is killed and `WaitTimeoutError` raised. With `check`, an exit
    code other than 0 raises `CommandError`.
    """
    process = await asyncio.create_subprocess_exec(
        *argv,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=env,
    )
    try:
        async with asyncio.timeout(timeout):
            out, err = await process.communicate(stdin)
    except TimeoutError:
        raise WaitTimeoutError(f"`{' '.join(argv[:6])}` did not end within {timeout:.0f} s") from None
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await asyncio.shield(process.wait())
    code = process.returncode or 0
    stdout, stderr = out.decode(errors="replace"), err.decode(errors="replace")
    if check and code:
        raise CommandError(
            f"`{' '.join(argv[:6])}` ended with code {code} on this computer",
            evidence=(stderr or stdout).strip().splitlines()[-8:],
        )
    return code, stdout, stderr


def pids() -> Iterator[int]:
    """The processes of this computer, as /proc lists them."""
    return (int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit())


def read(path: str | Path) -> str:
    """A file's text, or "" where it cannot be read: what /proc shows may be gone the moment after."""
    try:
        return Path(path).read_text(errors="replace")
    except OSError:
        return ""


def namespace_pids(pid: int) -> list[int]:
    """The process's number in each of its nested PID namespaces, ours first; empty if it is gone or a zombie."""
    status = read(f"/proc/{pid}/status")
    if "\nState:\tZ" in status:
        return []
    for line in status.splitlines():
        if line.startswith("NSpid:"):
            return [int(number) for number in line.split()[1:]]
    return []
