"""A certificate that is made anew keeps the names that somebody has given it."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from kubewright.model import pki, x509
from kubewright.model.kept_names import with_names_of
from kubewright.model.pki import CertSpec, KeyKind, Usage

NOW = datetime(2026, 11, 22, tzinfo=UTC)
WANTED = CertSpec(
    "apiserver", "apiserver", "kube-apiserver", (), (Usage.SERVER,), ("cp1",), ("192.0.2.1",), "ca"
)


def test_names_and_addresses_come_after_the_wanted_ones() -> None:
    ca = x509.self_signed_ca(pki.CA, x509.new_key(KeyKind.ECDSA_P256), NOW)
    old = CertSpec(
        "apiserver", "apiserver", "kube-apiserver", (), (Usage.SERVER,), ("old.example.com", "cp1"),
        ("2001:db8::1", "192.0.2.1"), "ca",
    )  # fmt: skip
    found = with_names_of(x509.sign(old, x509.new_key(KeyKind.ECDSA_P256), ca, NOW).cert, WANTED)
    assert found.dns_names == ("cp1", "old.example.com")
    assert found.addresses == ("192.0.2.1", "2001:db8::1")


@pytest.mark.parametrize("cert", [None, b"", b"no certificate"])
def test_what_cannot_be_read_has_no_names(cert: bytes | None) -> None:
    assert with_names_of(cert, WANTED) == WANTED


def test_a_certificate_without_names_has_none() -> None:
    ca = x509.self_signed_ca(pki.CA, x509.new_key(KeyKind.ECDSA_P256), NOW)
    bare = CertSpec("x", "x", "x", (), (Usage.CLIENT,), ca="ca")
    assert with_names_of(x509.sign(bare, x509.new_key(KeyKind.ECDSA_P256), ca, NOW).cert, WANTED) == WANTED
