"""An endpoint of the user's own: ours, another cluster's, silent, or under a name that no certificate has."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest
from tests.unit.phases.memory_host import MemoryHost

from kubewright.errors import ExitCode, HostError, WaitTimeoutError
from kubewright.events import Events
from kubewright.hosts import HostFacts
from kubewright.model import x509
from kubewright.model.config.cluster import HostSpec
from kubewright.model.pki import CertSpec, KeyKind, Usage
from kubewright.phases.endpoint import EndpointAnswers, EndpointIsOurs
from kubewright.phases.node import Node

KIND = KeyKind.ECDSA_P256


def authority() -> x509.KeyPair:
    return x509.self_signed_ca(
        CertSpec("ca", "ca", "kubernetes", key_kind=KIND), x509.new_key(KIND), datetime.now(UTC)
    )


OURS, OTHER = authority(), authority()


class Near(MemoryHost):
    """A host that reaches whatever runs here."""

    def __init__(self, port: int) -> None:
        super().__init__()
        self._port = port

    @asynccontextmanager
    async def _forward(self) -> AsyncIterator[tuple[str, int]]:
        yield "127.0.0.1", self._port

    def forward_tcp(self, address: str, port: int) -> AbstractAsyncContextManager[tuple[str, int]]:
        return self._forward()


@asynccontextmanager
async def endpoint(
    tmp_path: Path, signer: x509.KeyPair, ca: bytes | None, *, name: str = "api.example.com"
) -> AsyncIterator[EndpointIsOurs]:
    """A TLS server at `api.example.com`, and the phase that asks it."""
    spec = CertSpec(
        "apiserver", "a", "kube-apiserver", usages=(Usage.SERVER,), dns_names=(name,), ca="ca", key_kind=KIND
    )
    pair = x509.sign(spec, x509.new_key(KIND), signer, datetime.now(UTC))
    pem = tmp_path / "server.pem"
    pem.write_bytes(pair.cert + pair.key.reveal())
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem)

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0, ssl=context) as server:
        port = server.sockets[0].getsockname()[1]
        yield asking(port, ca)


def asking(port: int, ca: bytes | None) -> EndpointIsOurs:
    spec = HostSpec(name="cp1", address="10.0.0.1")
    node = Node(spec, Near(port), HostFacts.__new__(HostFacts), "10.0.0.1")
    return EndpointIsOurs(node, "api.example.com:6443", ca, must_answer=True)


async def test_this_cluster_is_let_pass(tmp_path: Path) -> None:
    async with endpoint(tmp_path, OURS, OURS.cert) as phase:
        assert await phase.look() == []
        assert await phase._silent() is None


async def test_another_clusters_certificate_is_refused_with_the_reason(tmp_path: Path) -> None:
    async with endpoint(tmp_path, OTHER, OURS.cert) as phase:
        with pytest.raises(
            HostError, match=r"api\.example\.com:6443 answers with another cluster's certificate"
        ) as caught:
            await phase.look()
    assert caught.value.exit_code is ExitCode.HOST_IN_OTHER_CLUSTER
    assert "CN=kube-apiserver, issued by CN=kubernetes" in caught.value.evidence[0]
    assert "another endpoint" in caught.value.hint


async def test_before_there_is_a_cluster_nobody_may_answer(tmp_path: Path) -> None:
    async with endpoint(tmp_path, OTHER, None) as phase:
        with pytest.raises(HostError, match="this cluster is yet to be made"):
            await phase.look()


async def test_a_name_that_the_certificate_lacks_is_said(tmp_path: Path) -> None:
    async with endpoint(tmp_path, OURS, OURS.cert, name="other.example.com") as phase:
        with pytest.raises(HostError, match=r"is not for api\.example\.com") as caught:
            await phase.look()
    assert "certSANs" in caught.value.hint


async def test_silence_is_no_refusal() -> None:
    server = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with server:
        for ca in (OURS.cert, None):
            assert "as cp1 sees it" in (await asking(port, ca)._silent() or "")
    assert "as cp1 sees it" in (await asking(port, OURS.cert)._silent() or "")
    assert await asking(port, OURS.cert).look() == []


def answers(port: int, address: str = "api.example.com:6443") -> EndpointAnswers:
    spec = HostSpec(name="w1", address="10.0.0.7")
    host = Near(port)
    host.name = "w1"
    return EndpointAnswers(
        Node(spec, host, HostFacts.__new__(HostFacts), "10.0.0.7"), address, OURS.cert, deadline=0.0
    )


async def test_an_endpoint_that_answers_one_host_changes_nothing(tmp_path: Path) -> None:
    async with endpoint(tmp_path, OURS, OURS.cert) as phase:
        port = phase._node.host._port  # type: ignore[attr-defined]
        assert await answers(port).run(Events()) == []


async def test_an_endpoint_that_never_answers_is_told_with_who_asked() -> None:
    server = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0)
    async with server:
        with pytest.raises(WaitTimeoutError, match=r"api\.example\.com:6443 to answer") as caught:
            await answers(server.sockets[0].getsockname()[1]).run(Events())
    assert "as w1 sees it" in caught.value.evidence[0]
    assert "can w1 reach api.example.com:6443?" in caught.value.hint


async def test_an_endpoint_of_another_cluster_is_refused(tmp_path: Path) -> None:
    async with endpoint(tmp_path, OTHER, OURS.cert) as phase:
        port = phase._node.host._port  # type: ignore[attr-defined]
        with pytest.raises(HostError, match="another cluster's certificate"):
            await answers(port).run(Events())
