"""The certificate that a server shows."""

from __future__ import annotations

import asyncio
import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from kubewright.clients.served import served_certificate
from kubewright.model import x509
from kubewright.model.pki import CertSpec, KeyKind


async def test_one_that_has_ended_is_seen_and_needs_no_client_certificate(tmp_path: Path) -> None:
    now = datetime.now(UTC)
    pair = x509.self_signed_ca(
        CertSpec("ca", "ca", "old", validity=timedelta(days=1)),
        x509.new_key(KeyKind.ECDSA_P256),
        now - timedelta(days=9),
    )
    pem = tmp_path / "both.pem"
    pem.write_bytes(pair.cert + pair.key.reveal())
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem)
    server = await asyncio.start_server(lambda _reader, writer: writer.close(), "127.0.0.1", 0, ssl=context)
    async with server:
        found = await served_certificate("127.0.0.1", server.sockets[0].getsockname()[1], "kubernetes")
    assert x509.load_cert(found) == x509.load_cert(pair.cert)
    assert x509.ends(found) < now


async def test_what_speaks_no_tls_shows_none() -> None:
    server = await asyncio.start_server(lambda _reader, writer: writer.close(), "127.0.0.1", 0)
    async with server:
        with pytest.raises(OSError):
            await served_certificate("127.0.0.1", server.sockets[0].getsockname()[1], "kubernetes")
