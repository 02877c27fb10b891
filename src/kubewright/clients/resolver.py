"""Names looked up without threads, for requests that must not outlast their deadline.

What asyncio offers is getaddrinfo(3) in a thread: nobody can end it, and a program waits for it before it exits.
Where no name server answers, that is half a minute.
"""

from __future__ import annotations

import ipaddress
import socket

import dns.asyncresolver
import dns.exception
import dns.resolver
from aiohttp.abc import AbstractResolver, ResolveResult


class Resolver(AbstractResolver):
    """aiohttp's resolver over the name servers of /etc/resolv.conf; `lifetime`, in seconds, is a lookup's."""

    def __init__(self, lifetime: float) -> None:
        self._lifetime = lifetime

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """The addresses of a name. Raises `OSError` where there are none."""
        try:
            # Not at the start: a host may well have no resolv.conf.
            resolver = dns.asyncresolver.Resolver()
            answer = await resolver.resolve_name(host, family=family, lifetime=self._lifetime)
        except (dns.exception.DNSException, OSError) as error:
            raise OSError(f"{host} cannot be looked up: {error}") from error
        return [
            ResolveResult(
                hostname=host, host=address, port=port, proto=socket.IPPROTO_TCP, flags=socket.AI_NUMERICHOST,
                family=socket.AF_INET6 if ipaddress.ip_address(address).version == 6 else socket.AF_INET,
            )
            for address in answer.addresses()
        ]  # fmt: skip

    async def close(self) -> None:
        """Nothing is held open."""
