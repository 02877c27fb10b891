"""Programs of this computer that components are made with: whether they are there, and how they are run."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import lru_cache
from pathlib import Path

from kubewright.errors import ComponentError

# A file that shows that a tool is there, and the Debian package that brings it (each stands in packages.txt too).
PACKAGES: Mapping[str, str] = {
    "/usr/bin/go": "golang-go",
    "/usr/share/gocode/src/github.com/modern-go/reflect2/reflect2.go": "golang-github-modern-go-reflect2-dev",
    "/usr/bin/dpkg-source": "dpkg-dev",
    "/usr/bin/gcc": "gcc",
    "/usr/lib/x86_64-linux-gnu/libc.a": "libc6-dev",
    "/usr/bin/make": "make",
    "/usr/bin/rsync": "rsync",
    "/usr/bin/jq": "jq",
    "/usr/share/keyrings/debian-archive-keyring.gpg": "debian-archive-keyring",
    "/usr/bin/mmdebstrap": "mmdebstrap",
    "/usr/bin/zstd": "zstd",
}

SYSTEM_PATH = "/usr/sbin:/usr/bin:/sbin:/bin"
"""Debian's own programs: a newer Go or Python earlier on the user's PATH would not do."""

_TAIL = 20


def require(purpose: str, *packages: str) -> None:
    """Raise `ComponentError` where one of `packages` is not installed, with the command that installs it."""
    missing = sorted(
        {package for path, package in PACKAGES.items() if package in packages and not Path(path).exists()}
    )
    if missing:
        raise ComponentError(
            f"{purpose} needs Debian packages that are not installed: {', '.join(missing)}",
            hint=f"apt-get install {' '.join(missing)}",
        )


async def run_tool(
    what: str,
    argv: Sequence[str],
    *,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    timeout: float = 600.0,
    on_line: Callable[[str], None] | None = None,
) -> str:
    """Run a program to its end and return its standard output; `what` names the work in an error.

    `on_line` is called with each line of standard output and standard error. `timeout` is in seconds. The
    program and all that it started are killed when this task is cancelled, when the time is up, and, through
    the kernel, when this process dies. Raises `ComponentError` with the last lines as evidence.
    """
    tail: deque[str] = deque(maxlen=_TAIL)
    output: list[bytes] = []

    def line(raw: bytes) -> None:
        if text := raw.decode(errors="replace").strip():
            tail.append(text)
            if on_line is not None:
                on_line(text)

    try:
        process = await asyncio.create_subprocess_exec(
            *_contained(), *argv, cwd=cwd, start_new_session=True,
            env={**_environment(), **(env or {})},
            stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
    except OSError as error:
        raise ComponentError(f"{what}: {argv[0]} cannot be started: {error.strerror}") from error
    assert process.stdout is not None and process.stderr is not None
    try:
        async with asyncio.timeout(timeout), asyncio.TaskGroup() as group:
            group.create_task(_lines(process.stdout, line, output))
            group.create_task(_lines(process.stderr, line, None))
        code = await process.wait()
    except TimeoutError as error:
        raise ComponentError(
            f"{what}: {argv[0]} did not end within {timeout:.0f} s", evidence=tuple(tail)
        ) from error
    finally:
        if process.returncode is None:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await asyncio.shield(process.wait())
    if code != 0:
        raise ComponentError(f"{what}: {argv[0]} ended with code {code}", evidence=tuple(tail))
    return b"".join(output).decode(errors="replace")


async def _lines(
    stream: asyncio.StreamReader, line: Callable[[bytes], None], keep: list[bytes] | None
) -> None:
    # Not readline(): a compiler's line may be longer than the reader's limit.
    rest = b""
    while chunk := await stream.read(1 << 16):
        if keep is not None:
            keep.append(chunk)
        *lines, rest = (rest + chunk).replace(b"\r", b"\n").split(b"\n")
        for raw in lines:
            line(raw)
    line(rest)


def _environment() -> dict[str, str]:
    """Of the user's environment what says how the network is reached; a GOFLAGS or PYTHONPATH stays out."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if name == "HOME" or name.lower().endswith("_proxy") or name.startswith(("PIP_", "SSL_", "XDG_"))
    }
    return {"HOME": "/", **kept, "PATH": SYSTEM_PATH, "LC_ALL": "C.UTF-8"}


@lru_cache(maxsize=1)
def _contained() -> tuple[str, ...]:
    """What to put before a command so that the kernel kills it, and whatever it started, when we die.

    A death signal reaches one child only; a PID namespace around it takes the rest (pid_namespaces(7)). Making
    one needs root; without it, grandchildren of a killed process run to their end and then find their folder gone.
    """
    death = ("setpriv", "--pdeathsig", "KILL")
    namespace = ("unshare", "--pid", "--fork", "--kill-child")
    if os.geteuid() == 0:
        probe = subprocess.run([*namespace, "true"], capture_output=True, check=False)
        if probe.returncode == 0:
            return (*death, *namespace)
    return death
