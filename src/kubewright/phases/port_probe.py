"""Ports probed between hosts: short listeners where nobody listens yet, and connections from who will use them."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Collection, Mapping
from contextlib import asynccontextmanager

from kubewright.errors import KubewrightError, WaitTimeoutError
from kubewright.hosts import Host
from kubewright.model.port_probe import (
    LIFETIME,
    Answer,
    connect_command,
    connect_input,
    control_command,
    listen_command,
    parse_answers,
    parse_report,
    seconds_for,
)

_AT_ONCE = 64
"""Hosts that connect to others at the same time."""
_START = 20.0
"""Seconds in which a listener must listen: where sshd allows one session at a time, nobody learns of it."""


class Listener:
    """Ports of one host that are listened on, for a moment, by a program that ends with its connection."""

    def __init__(self, host: Host, address: str, ports: Collection[int]) -> None:
        self._host = host
        self._command = listen_command(name := f"kubewright-probe-{secrets.token_hex(8)}", address, ports)
        self._name = name
        self._ports = frozenset(ports)
        self._running: asyncio.Task[str] | None = None
        self.ports: frozenset[int] = frozenset()
        """Those that it has; none before `start`."""
        self.failed: Mapping[int, str] = {}
        """Those that it could not have, and why."""
        self.trouble = ""
        """Why nothing could be listened on at all."""

    async def start(self) -> None:
        """Return when it listens, or cannot. Raises nothing: what went wrong is in `trouble`."""
        self._running = asyncio.create_task(self._listen())
        ready = asyncio.create_task(self._ready())
        try:
            await asyncio.wait([self._running, ready], timeout=_START, return_when=asyncio.FIRST_COMPLETED)
            if self._running.done():  # it should be listening
                self.trouble = self._running.result()
            elif ready.done():
                self.trouble = ready.result()
            else:
                self.trouble = f"the listener did not start in {_START:g} s"
        finally:
            ready.cancel()
            await asyncio.gather(ready, return_exceptions=True)
            if self.trouble:  # whoever else needs a session of this host must not wait for it
                self._running.cancel()
                await asyncio.gather(self._running, return_exceptions=True)

    async def stop(self) -> None:
        """End the program, and wait until it has ended. One that has ended before has no `ports` any more: that
        somebody was refused there tells nothing."""
        if self._running is None:
            return
        if self._running.done():  # nobody knows since when
            self.ports = frozenset()
        try:
            if not self._running.done() and not self.trouble:
                await self._host.run(control_command(self._name, "stop"), check=False, timeout=15)
                await asyncio.wait([self._running], timeout=5)
        except KubewrightError:
            pass  # it ends with its connection
        finally:
            self._running.cancel()
            await asyncio.gather(self._running, return_exceptions=True)

    async def _listen(self) -> str:
        try:
            done = await self._host.run(self._command, check=False, timeout=LIFETIME + 5)
        except KubewrightError as error:
            return error.message
        return (done.err.splitlines() or [f"perl ended with exit code {done.exit_code}"])[-1]

    async def _ready(self) -> str:
        try:
            done = await self._host.run(control_command(self._name, "ready"), check=False, timeout=12)
        except WaitTimeoutError:
            return "a second session did not answer in time: does sshd's MaxSessions allow it?"
        except KubewrightError as error:
            return error.message
        if not done.ok:
            return (done.err.splitlines() or ["the listener did not start in time"])[-1]
        self.failed = parse_report(done.text)
        self.ports = self._ports - self.failed.keys()
        return ""


@asynccontextmanager
async def listening(
    wanted: Mapping[str, tuple[Host, str, Collection[int]]],
) -> AsyncIterator[dict[str, Listener]]:
    """Listen on hosts, by their names, at an address and ports each; all end with the context."""
    listeners = {name: Listener(*one) for name, one in wanted.items() if one[2]}
    try:
        async with asyncio.TaskGroup() as group:
            for one in listeners.values():
                group.create_task(one.start())
        yield listeners
    finally:
        await asyncio.gather(*(one.stop() for one in listeners.values()))


async def connect(
    users: Mapping[str, tuple[Host, Collection[tuple[str, int]]]],
) -> dict[str, Mapping[tuple[str, int], Answer]]:
    """Connect from hosts, by their names, to addresses and ports, in one round trip each.

    A host on which that cannot be done is left out of the answer.
    """
    answers: dict[str, Mapping[tuple[str, int], Answer]] = {}
    turns = asyncio.Semaphore(_AT_ONCE)

    async def one(name: str, host: Host, targets: Collection[tuple[str, int]]) -> None:
        ordered = sorted(targets)
        async with turns:
            try:
                done = await host.run(
                    connect_command(), stdin=connect_input(ordered), check=False, timeout=seconds_for(ordered)
                )
            except KubewrightError:
                return
        if done.ok:
            answers[name] = parse_answers(done.text)

    async with asyncio.TaskGroup() as group:
        for name, (host, targets) in users.items():
            if targets:
                group.create_task(one(name, host, targets))
    return answers
