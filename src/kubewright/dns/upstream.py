"""One upstream server: where it is, whether it answers, and one question put to it over UDP or TCP."""

from __future__ import annotations

import asyncio
import ipaddress
import secrets
import socket
import struct
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.rcode
from dns.rdataclass import IN, RdataClass
from dns.rdatatype import NS, RdataType

from kubewright.dns.wire import PAYLOAD
from kubewright.errors import ConfigError

_DOWN_AFTER = 2
"""Failures in a row after which an upstream is asked last, until it answers again."""


class Question(NamedTuple):
    """What is asked, and the flags that change an answer. Names compare without regard to case."""

    name: dns.name.Name
    rdtype: RdataType
    rdclass: RdataClass = IN
    recursion: bool = True
    checking_disabled: bool = False
    do: bool = False


class UpstreamError(Exception):
    """An upstream did not answer; the text says how."""


@dataclass(slots=True)
class Upstream:
    """A server that other names are asked of."""

    host: str
    port: int = 53
    failures: int = field(default=0, compare=False)
    """Failures in a row."""
    edns: bool = field(default=True, compare=False)
    """False once it has refused a question for its EDNS record: some old routers do."""

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def down(self) -> bool:
        """Whether it did not answer the last times."""
        return self.failures >= _DOWN_AFTER

    @classmethod
    def parse(cls, text: str) -> Upstream:
        """An address with or without a port: `10.0.0.2`, `10.0.0.2:5353`, `fd00::2`, `[fd00::2]:5353`."""
        host, port = text, "53"
        if text.startswith("["):
            host, _, port = text[1:].partition("]")
            port = port.removeprefix(":") or "53"
        elif text.count(":") == 1:
            host, _, port = text.partition(":")
        try:
            ipaddress.ip_address(host)
            number = int(port)
        except ValueError:
            number = 0
        if not 0 < number < 65536:
            raise ConfigError(
                f"upstream {text!r} is no address",
                hint="name a DNS server by its address, with a port if it is not 53: 10.0.0.2:5353",
            )
        return cls(host, number)

    async def ask(self, question: Question, timeout: float) -> dns.message.Message:
        """Put a question to it: over UDP, then over TCP if the answer was cut. `timeout` is in seconds, for all.

        Raises `UpstreamError` if no valid answer came. An answer of any rcode is an answer.
        """
        try:
            async with asyncio.timeout(timeout):
                answer = await self._ask(question)
                if answer.rcode() in (dns.rcode.FORMERR, dns.rcode.NOTIMP) and self.edns and answer.edns < 0:
                    self.edns = False
                    answer = await self._ask(question)
        except (OSError, EOFError) as error:
            self.failures += 1
            # TimeoutError is an OSError, and says nothing by itself.
            why = (
                "no answer in time" if isinstance(error, TimeoutError) else str(error) or "connection closed"
            )
            raise UpstreamError(f"{self}: {why}") from error
        self.failures = 0
        return answer

    async def alive(self, timeout: float) -> bool:
        """Whether it answers at all, asked for the root's name servers."""
        with suppress(UpstreamError):
            await self.ask(Question(dns.name.root, NS), timeout)
            return True
        return False

    async def _ask(self, question: Question) -> dns.message.Message:
        message = dns.message.make_query(
            question.name, question.rdtype, question.rdclass,
            use_edns=0 if self.edns else -1, want_dnssec=question.do and self.edns, payload=PAYLOAD,
            flags=(dns.flags.RD if question.recursion else 0)
            | (dns.flags.CD if question.checking_disabled else 0),
            id=secrets.randbelow(1 << 16),
        )  # fmt: skip
        wire = message.to_wire()
        answer = await self._udp(message, wire)
        return await self._tcp(message, wire) if answer.flags & dns.flags.TC else answer

    async def _udp(self, message: dns.message.QueryMessage, wire: bytes) -> dns.message.Message:
        """A socket of its own for each question: its random port and the random id keep forgers guessing."""
        loop = asyncio.get_running_loop()
        family = socket.AF_INET6 if ":" in self.host else socket.AF_INET
        with socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as udp:
            udp.connect((self.host, self.port))
            udp.send(wire)
            while True:
                answer = _valid(message, await loop.sock_recv(udp, 65535))
                if answer is not None:
                    return answer

    async def _tcp(self, message: dns.message.QueryMessage, wire: bytes) -> dns.message.Message:
        reader, writer = await asyncio.open_connection(self.host, self.port)
        try:
            writer.write(struct.pack("!H", len(wire)) + wire)
            (length,) = struct.unpack("!H", await reader.readexactly(2))
            answer = _valid(message, await reader.readexactly(length))
        finally:
            writer.close()
        if answer is None:
            raise ConnectionError("an answer over TCP to another question")
        return answer


def read_resolv_conf(path: Path) -> list[Upstream]:
    """The servers that a resolv.conf names, in order; none where it cannot be read."""
    try:
        text = path.read_text(errors="replace")
    except OSError:
        return []
    found: list[Upstream] = []
    for line in text.splitlines():
        words = line.split()
        if len(words) >= 2 and words[0] == "nameserver":
            with suppress(ConfigError):
                # resolv.conf(5) gives no port; a link-local address has its interface behind a %.
                found.append(Upstream.parse(f"[{words[1]}]" if ":" in words[1] else words[1]))
    return list({str(one): one for one in found}.values())


def _valid(message: dns.message.QueryMessage, data: bytes) -> dns.message.Message | None:
    """The answer to our question, or None for anything else that reached the socket."""
    try:
        answer = dns.message.from_wire(data, ignore_trailing=True)
    except Exception:  # whatever a stranger may send: it is only ever ignored
        return None
    if answer.id != message.id or not answer.flags & dns.flags.QR or answer.opcode() != message.opcode():
        return None
    # Servers that cannot read a question may leave it out of their refusal.
    if answer.question == message.question or (not answer.question and answer.rcode() == dns.rcode.FORMERR):
        return answer
    return None
