"""An API server that shows its new certificate at once, a moment later, or never."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest
from tests.unit.phases.memory_host import MemoryHost

from kubewright.errors import ConfigError, WaitTimeoutError
from kubewright.events import Event, Events
from kubewright.hosts import FileWrite, HostFacts
from kubewright.model import x509
from kubewright.model.config.cluster import HostSpec
from kubewright.model.pki import CertSpec, KeyKind, Usage
from kubewright.phases.node import Node
from kubewright.phases.served import CertificateServed

KIND = KeyKind.ECDSA_P256
CA = x509.self_signed_ca(
    CertSpec("ca", "ca", "kubernetes", key_kind=KIND), x509.new_key(KIND), datetime.now(UTC)
)
FILE = "/etc/kubernetes/pki/apiserver.crt"
NAMES = ("api.example.com", "192.0.2.100")


def pair(names: Sequence[str] = (), addresses: Sequence[str] = ()) -> x509.KeyPair:
    spec = CertSpec(
        "apiserver", "a", "kube-apiserver", usages=(Usage.SERVER,), dns_names=tuple(names),
        addresses=tuple(addresses), ca="ca", key_kind=KIND,
    )  # fmt: skip
    return x509.sign(spec, x509.new_key(KIND), CA, datetime.now(UTC))


OLD, NEW = pair(["kubernetes"], ["192.0.2.1"]), pair(["kubernetes", NAMES[0]], ["192.0.2.1", NAMES[1]])


class Server(MemoryHost):
    """A control plane with an API server, which shows `shown`; by name, what `by_name` has for it."""

    def __init__(self, folder: Path, shown: x509.KeyPair) -> None:
        super().__init__()
        self._folder = folder
        self.context = self.made(shown)
        self.by_name: dict[str, ssl.SSLContext] = {}
        self.context.sni_callback = self._choose
        self.asked = 0
        self.then: x509.KeyPair | None = None
        self.silent = False
        self._port = 0

    def made(self, shown: x509.KeyPair) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.load(context, shown)
        return context

    def load(self, context: ssl.SSLContext, shown: x509.KeyPair) -> None:
        pem = self._folder / "server.pem"
        pem.write_bytes(shown.cert + shown.key.reveal())
        context.load_cert_chain(pem)

    def _choose(self, tls: ssl.SSLObject, name: str | None, context: ssl.SSLContext) -> None:
        if name in self.by_name:
            tls.context = self.by_name[name]

    @asynccontextmanager
    async def forward_tcp(self, address: str, port: int) -> AsyncIterator[tuple[str, int]]:
        assert (address, port) == ("192.0.2.1", 6443)
        self.asked += 1
        if self.asked == 3 and self.then is not None:  # it has read its file
            self.load(self.context, self.then)
        yield "127.0.0.1", self._port

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[Server]:
        async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.read(1)
            writer.close()

        context = None if self.silent else self.context
        async with await asyncio.start_server(answer, "127.0.0.1", 0, ssl=context) as server:
            self._port = server.sockets[0].getsockname()[1]
            yield self


def phase(host: Server, names: Sequence[str] = NAMES, deadline: float = 10.0) -> CertificateServed:
    node = Node(HostSpec(name="cp1", address="192.0.2.1"), host, HostFacts.__new__(HostFacts), "192.0.2.1")
    return CertificateServed(node, "192.0.2.1", 6443, names, deadline=deadline)


async def failure(host: Server, names: Sequence[str] = NAMES) -> WaitTimeoutError:
    async with host.serving():
        with pytest.raises(WaitTimeoutError) as caught:
            await phase(host, names, 0.0).run(Events())
    return caught.value


async def test_one_that_is_served_is_not_waited_for(tmp_path: Path) -> None:
    async with Server(tmp_path, NEW).serving() as host:
        assert await phase(host, deadline=0.0).run(Events()) == []


async def test_one_that_is_read_later_is_waited_for(tmp_path: Path) -> None:
    host = Server(tmp_path, OLD)
    host.then = NEW
    heard: list[Event] = []
    async with host.serving():
        await phase(host).run(Events(heard.append))
    assert host.asked >= 3
    assert any("is not for api.example.com" in event.message for event in heard)


async def test_one_that_is_never_read_is_told_with_both_certificates(tmp_path: Path) -> None:
    host = Server(tmp_path, OLD)
    host.files[FILE] = FileWrite(FILE, NEW.cert)
    error = await failure(host)
    assert error.message == (
        "waited 0 s for cp1: the API server to show a certificate for api.example.com, 192.0.2.100"
    )
    assert error.evidence[0] == "last seen: the certificate that is served is not for api.example.com"
    assert error.evidence[1].startswith("served at 192.0.2.1:6443: CN=kube-apiserver")
    assert "api.example.com" not in error.evidence[1]
    assert "api.example.com" in error.evidence[2]
    assert error.evidence[3] == "the file has all names: the API server has not read it again"
    assert "once a minute" in error.hint


@pytest.mark.parametrize("content", [OLD.cert, b"no certificate"])
async def test_a_file_without_the_names_is_not_blamed_on_the_server(tmp_path: Path, content: bytes) -> None:
    host = Server(tmp_path, OLD)
    host.files[FILE] = FileWrite(FILE, content)
    assert not any("has not read it" in line for line in (await failure(host)).evidence)


async def test_a_file_that_is_not_there_is_told(tmp_path: Path) -> None:
    assert (await failure(Server(tmp_path, OLD))).evidence[-1] == f"there is no {FILE}"


async def test_addresses_alone_are_looked_for_too(tmp_path: Path) -> None:
    error = await failure(Server(tmp_path, OLD), ["192.0.2.1", "192.0.2.100"])
    assert error.evidence[0] == "last seen: the certificate that is served is not for 192.0.2.100"


async def test_each_name_is_asked_for_by_itself(tmp_path: Path) -> None:
    host = Server(tmp_path, OLD)
    host.by_name["api.example.com"] = host.made(NEW)
    async with host.serving():
        await phase(host, ["api.example.com", "192.0.2.1"], deadline=0.0).run(Events())
    assert "not for 192.0.2.100" in (await failure(host)).evidence[0]


async def test_a_server_that_speaks_no_tls_is_waited_for(tmp_path: Path) -> None:
    host = Server(tmp_path, OLD)
    host.silent = True
    error = await failure(host)
    assert "certificate" not in error.evidence[0]
    assert not any("served at" in line for line in error.evidence)


def test_an_address_is_known_however_it_is_written() -> None:
    six = pair([], ["2001:db8::1"])
    assert x509.lacking(six.cert, ["2001:0db8:0:0::1", "2001:db8::2"]) == ["2001:db8::2"]
    with pytest.raises(ConfigError):
        x509.lacking(b"no certificate", ["a"])
