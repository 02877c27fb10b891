"""The client of one connection, against a server that answers in all forms of HTTP, and in some that are none."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest
from tests.free_ports import free_port

from kubewright.clients.light import LightClient
from kubewright.clients.objects import refused
from kubewright.clients.server import Server
from kubewright.errors import ApiError
from kubewright.model import pki, x509
from kubewright.model.pki import CertSpec, KeyKind, Usage

NOW = datetime.now(UTC)
CA = x509.self_signed_ca(pki.CA, x509.new_key(KeyKind.ECDSA_P256), NOW)
NAME = "api.example.com"
SERVING = x509.sign(
    CertSpec("s", "s", "s", usages=(Usage.SERVER,), dns_names=(NAME,), ca="ca"),
    x509.new_key(KeyKind.ECDSA_P256), CA, NOW,
)  # fmt: skip
TOKENS = b'{"kind":"SecretList","metadata":{"resourceVersion":"7"},"items":[{"metadata":{"name":"a"}}]}'


class Served:
    """What the server saw: its connections, and the head and body of each request."""

    def __init__(self) -> None:
        self.connections = 0
        self.requests: list[tuple[list[str], bytes]] = []


@asynccontextmanager
async def api(tmp_path: Path, answers: Sequence[bytes]) -> AsyncIterator[tuple[LightClient, Served]]:
    """A server that gives these answers in turn, and a client of it; an empty answer ends the connection."""
    (tmp_path / "pem").write_bytes(SERVING.cert + SERVING.key.reveal())
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(tmp_path / "pem")
    left, served = list(answers), Served()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        served.connections += 1
        while head := [line async for line in head_of(reader)]:
            length = next((int(line.split(":")[1]) for line in head if line.startswith("Content-Length")), 0)
            served.requests.append((head, await reader.readexactly(length)))
            if not (data := left.pop(0)):
                break
            writer.write(data)
            await writer.drain()
            if b"Connection: close" in data or not data.startswith(b"HTTP/1.1"):
                break
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0, ssl=context)
    port = server.sockets[0].getsockname()[1]
    known = Server(f"https://{NAME}:6443", CA.cert, token="t0p", connect=("127.0.0.1", port))
    async with server, LightClient(known, timeout=5) as client:
        yield client, served


async def head_of(reader: asyncio.StreamReader) -> AsyncIterator[str]:
    while line := (await reader.readline()).decode().strip():
        yield line


def answer(body: bytes, status: str = "200 OK", *headers: str) -> bytes:
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *headers]
    return "\r\n".join([*lines, "", ""]).encode() + body


CHUNKED = (
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    + b"%x;note\r\n%s\r\n%x\r\n%s\r\n0\r\nTrailer: x\r\n\r\n"
    % (10, TOKENS[:10], len(TOKENS) - 10, TOKENS[10:])
)
UNTIL_CLOSED = b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n" + TOKENS
CONTINUED = b"HTTP/1.1 100 Continue\r\n\r\n" + answer(TOKENS)


@pytest.mark.parametrize("form", [answer(TOKENS), CHUNKED, UNTIL_CLOSED, CONTINUED])
async def test_every_form_of_an_answer(tmp_path: Path, form: bytes) -> None:
    async with api(tmp_path, [form, form]) as (client, served):
        for _ in range(2):
            [item] = await client.list("v1", "Secret", "kube-system", fields="type=x/y")
            assert item == {"metadata": {"name": "a"}, "apiVersion": "v1", "kind": "Secret"}
    assert served.connections == (2 if form == UNTIL_CLOSED else 1)
    head, _ = served.requests[0]
    assert head[0] == "GET /api/v1/namespaces/kube-system/secrets?fieldSelector=type%3Dx%2Fy HTTP/1.1"
    assert f"Host: {NAME}:6443" in head
    assert "Authorization: Bearer t0p" in head


async def test_a_body_is_sent_and_a_refusal_is_the_servers_own(tmp_path: Path) -> None:
    said = b'{"kind":"Status","reason":"AlreadyExists","message":"secrets \\"a\\" already exists"}'
    async with api(tmp_path, [answer(said, "409 Conflict"), answer(b"{}")]) as (client, served):
        secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "a", "namespace": "b"}}
        with pytest.raises(ApiError, match='409 secrets "a" already exists') as caught:
            await client.create(secret)
        assert (caught.value.status, caught.value.reason) == (409, "AlreadyExists")
        await client.create(secret)
    assert served.connections == 1
    assert served.requests[0][1] == (
        b'{"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "a", "namespace": "b"}}'
    )


@pytest.mark.parametrize(
    ("broken", "says"),
    [
        (b"", "ended the connection"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "no API server: 'SSH-2.0-OpenSSH_9.2'"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\nConnection: close\r\n\r\nhalf", "4 bytes read"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\nConnection: close\r\n\r\n", "'gzip'"),
    ],
)
async def test_what_is_no_answer_is_an_error_and_the_next_request_has_its_own_connection(
    tmp_path: Path, broken: bytes, says: str
) -> None:
    async with api(tmp_path, [broken, answer(b"{}")]) as (client, _):
        with pytest.raises(ApiError, match=says) as caught:
            await client.json("GET", "/version")
        assert caught.value.status == 0
        assert await client.json("GET", "/version") == {}


async def test_a_server_of_another_ca_or_name_is_not_talked_to(tmp_path: Path) -> None:
    async with api(tmp_path, [answer(b"{}")] * 2) as (client, served):
        other = x509.self_signed_ca(pki.CA, x509.new_key(KeyKind.ECDSA_P256), NOW)
        known = client.server
        for server in (
            Server(known.url, other.cert, connect=known.connect),
            Server("https://web.example.com:6443", CA.cert, connect=known.connect),
        ):
            async with LightClient(server, timeout=5) as stranger:
                with pytest.raises(ApiError, match="certificate verify failed") as caught:
                    await stranger.json("GET", "/version")
                assert "kubewright certs renew apiserver" in caught.value.hint
    assert served.requests == []


async def test_nobody_there() -> None:
    async with LightClient(Server(f"https://127.0.0.1:{free_port()}", CA.cert), timeout=5) as client:
        with pytest.raises(ApiError, match=r"refused|Connect call failed"):
            await client.json("GET", "/version")


def test_a_user_who_is_not_known_is_told_how_to_renew() -> None:
    """An expired certificate of admin.conf is answered with 401 and not a word more (P22)."""
    error = refused("GET", "/api/v1/secrets", 401, b'{"message": "Unauthorized", "reason": "Unauthorized"}')
    assert "kubewright certs renew admin.conf" in error.hint
    assert not refused("GET", "/api/v1/secrets", 403, b"").hint
