"""Waiting: a condition polled tightly, a deadline, and what was last seen when it passes."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from kubewright.errors import ApiError, KubewrightError, WaitTimeoutError
from kubewright.hosts import Host
from kubewright.hosts.units import unit_lines

REPEAT = 5.0
"""Seconds after which a wait says again what it waits for: a plain log leaves out a phase's first moments."""
Diagnose = Callable[[], Awaitable[Sequence[str]]]


async def wait_until(
    missing: Callable[[], Awaitable[str | None]],
    what: str,
    *,
    deadline: float,
    interval: float = 0.1,
    diagnose: Diagnose | None = None,
    hint: str = "",
    progress: Callable[[str], None] | None = None,
) -> None:
    """Poll `missing` every `interval` seconds until it returns None.

    What it returns otherwise says what is not there yet; it is shown as progress when it changes and every
    `REPEAT` seconds, and as evidence when `deadline` seconds have passed, together with what `diagnose` finds
    then. An API server or etcd that does not answer for a moment is waited for, too. Raises `WaitTimeoutError`.
    """
    loop = asyncio.get_running_loop()
    end = loop.time() + deadline
    last, shown = "", 0.0
    while True:
        try:
            seen = await missing()
        except ApiError as error:
            if not error.passes:
                raise
            seen = error.message
        if seen is None:
            return
        if progress is not None and (seen != last or loop.time() - shown >= REPEAT):
            shown = loop.time()
            progress(seen)
        last = seen
        if loop.time() >= end:
            evidence = [f"last seen: {last}"] if last else []
            if diagnose is not None:
                try:
                    async with asyncio.timeout(15):
                        evidence += await diagnose()
                except (KubewrightError, TimeoutError) as error:
                    evidence.append(f"and the diagnosis failed: {error}")
            raise WaitTimeoutError(f"waited {deadline:.0f} s for {what}", evidence=evidence, hint=hint)
        await asyncio.sleep(interval)


async def unit_evidence(host: Host, unit: str, lines: int = 8) -> list[str]:
    """A unit's state and its last lines in the journal."""
    return await unit_lines(host, unit, lines)


async def container_evidence(host: Host, container: str, lines: int = 5) -> list[str]:
    """The last lines that a static Pod's container wrote, read from the node itself: the API may be down."""
    script = (
        'ls -t /var/log/pods/kube-system_*/"$1"/*.log 2>/dev/null | head -n 1 | '
        'while read -r log; do tail -n "$2" "$log"; done'
    )
    result = await host.shell(script, container, str(lines), check=False, timeout=15)
    if not result.text:
        return [f"{container}: its container has not written anything"]
    return [f"{container}: {line[:300]}" for line in result.text.splitlines()]
