"""What a host sees of etcd without being its client, against servers of our own."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from tests.unit.phases.memory_host import MemoryHost

from kubewright.errors import WaitTimeoutError
from kubewright.hosts import Completed
from kubewright.phases.etcd_reach import out_of_reach, progress_of

METRICS = b"""# TYPE etcd_server_has_leader gauge
etcd_server_has_leader 0
etcd_server_proposals_applied_total 3
etcd_server_proposals_committed_total 3
"""


class Machine(MemoryHost):
    """A host whose every connection ends at one port of this computer."""

    def __init__(self, port: int) -> None:
        super().__init__()
        self.port = port

    async def run(self, argv: Any, **options: Any) -> Completed:
        return Completed(tuple(argv), 0)

    @asynccontextmanager
    async def forward_tcp(self, address: str, port: int) -> AsyncIterator[tuple[str, int]]:
        yield "127.0.0.1", self.port


@asynccontextmanager
async def answering(text: bytes) -> AsyncIterator[Machine]:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.0 200 OK\r\n\r\n" + text)
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        yield Machine(server.sockets[0].getsockname()[1])


async def test_a_member_tells_how_far_it_has_come() -> None:
    async with answering(METRICS) as machine:
        assert await progress_of(machine, 3) == (3, False)


async def test_one_that_has_decided_something_is_given_time_to_elect_a_leader() -> None:
    async with answering(METRICS) as machine:
        assert await progress_of(machine, 1, deadline=0.3) == (3, False)
    async with answering(METRICS.replace(b"has_leader 0", b"has_leader 1")) as machine:
        assert await progress_of(machine, 1) == (3, True)


async def test_one_that_says_nothing_is_waited_for() -> None:
    async with answering(b"") as machine:
        with pytest.raises(WaitTimeoutError, match="etcd to run, which has data") as caught:
            await progress_of(machine, 3, deadline=0.1)
    assert "has applied" in caught.value.evidence[0]


async def test_who_cannot_be_connected_to_is_named() -> None:
    async with answering(b"") as machine:
        pass  # and nobody listens there any more
    [said] = await out_of_reach(machine, ["https://192.0.2.1:2380"])
    assert said.startswith("https://192.0.2.1:2380: ")


@pytest.mark.parametrize(
    ("answer", "reached"),
    [(b"HTTP/1.0 400 Bad Request\r\n\r\n", True), (bytes.fromhex("15030300020228"), True), (b"", False)],
)
async def test_who_answers_without_a_handshake_has_been_reached(answer: bytes, reached: bool) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(answer)  # plain http, TLS's alert handshake_failure, or nothing
        await writer.drain()
        await reader.read()
        writer.close()

    async def end(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.close()

    server = await asyncio.start_server(serve if answer else end, "127.0.0.1", 0)
    async with server:
        machine = Machine(server.sockets[0].getsockname()[1])
        found = await out_of_reach(machine, ["https://192.0.2.1:2380"])
    assert bool(found) is not reached
