"""Runs iptables: reads our chains and their parents, and writes only where something differs."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from kubewright.errors import KubewrightError
from kubewright.network.rules import OwnChain, removal_text, restore_text

LOCK_WAIT = "5"
"""Seconds that iptables waits for another program that holds its lock."""
DEADLINE = 20.0


async def ensure(chains: Iterable[OwnChain]) -> int:
    """Make the chains and their jumps right; how many tables had to be written, 0 where all was right.

    Raises `KubewrightError` with iptables' own words where it refuses, and where rules do not read back as
    they were written (another program fights over them).
    """
    written = 0
    for chain in chains:
        if not (text := restore_text(chain, *await _read(chain))):
            continue
        await _restore(text)
        written += 1
        if restore_text(chain, *await _read(chain)):
            raise KubewrightError(f"iptables: chain {chain.name} in {chain.table} is not as it was written")
    return written


async def remove(chains: Iterable[OwnChain]) -> int:
    """Remove the chains and their jumps; how many tables had to be written."""
    written = 0
    for chain in chains:
        if text := removal_text(chain, *await _read(chain)):
            await _restore(text)
            written += 1
    return written


async def _read(chain: OwnChain) -> tuple[list[str], list[str]]:
    """The chain and its parent as `iptables -S` prints them: two small reads, however long other chains are."""
    own, parent = await asyncio.gather(
        _run("iptables", "-w", LOCK_WAIT, "-t", chain.table, "-S", chain.name, missing_is_empty=True),
        _run("iptables", "-w", LOCK_WAIT, "-t", chain.table, "-S", chain.parent),
    )
    return own.splitlines(), parent.splitlines()


async def _restore(text: str) -> None:
    await _run("iptables-restore", "-w", LOCK_WAIT, "--noflush", stdin=text)


async def _run(*argv: str, stdin: str = "", missing_is_empty: bool = False) -> str:
    try:
        process = await asyncio.create_subprocess_exec(
            *argv,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
    except OSError as error:
        raise KubewrightError(f"{argv[0]}: {error.strerror}") from error
    try:
        async with asyncio.timeout(DEADLINE):
            out, err = await process.communicate(stdin.encode())
    except TimeoutError:
        raise KubewrightError(f"{' '.join(argv)}: no answer in {DEADLINE:.0f} s") from None
    finally:
        if process.returncode is None:
            process.kill()
    # 1 is iptables' code for a chain that is not there; 4 is for trouble with the kernel or the lock.
    if process.returncode == 1 and missing_is_empty:
        return ""
    if process.returncode:
        said = err.decode(errors="replace").strip().splitlines()
        raise KubewrightError(f"{' '.join(argv)}: {said[0] if said else f'exit code {process.returncode}'}")
    return out.decode(errors="replace")
