"""Names looked up without threads."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from typing import cast

import dns.message
import dns.resolver
import dns.rrset
import pytest

from kubewright.clients.resolver import Resolver


class Server(asyncio.DatagramProtocol):
    """Knows one name; is silent about `silent.test`."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        query = dns.message.from_wire(data)
        name = query.question[0].name.to_text()
        if name.startswith("silent"):
            return
        answer = dns.message.make_response(query)
        if name == "known.test." and query.question[0].rdtype == 1:
            answer.answer.append(dns.rrset.from_text(name, 60, "IN", "A", "192.0.2.7"))
        self.transport.sendto(answer.to_wire(), addr)


@pytest.fixture
async def server(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[None]:
    transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(Server, ("127.0.0.1", 0))
    port = transport.get_extra_info("sockname")[1]

    def read(self: dns.resolver.BaseResolver, _: str) -> None:
        self.nameservers, self.port = ["127.0.0.1"], port

    monkeypatch.setattr(dns.resolver.BaseResolver, "read_resolv_conf", read)
    yield
    transport.close()


async def test_a_name_that_is_known(server: None) -> None:
    [found] = await Resolver(3).resolve("known.test", 443, socket.AF_INET)
    assert (found["host"], found["port"], found["family"]) == ("192.0.2.7", 443, socket.AF_INET)


@pytest.mark.parametrize("name", ["unknown.test", "silent.test"])
async def test_a_name_that_is_not(server: None, name: str) -> None:
    with pytest.raises(OSError, match=name):
        await Resolver(0.3).resolve(name, 443)
