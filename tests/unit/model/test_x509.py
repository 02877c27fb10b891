"""What certificates say, and what makes an existing one unfit."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.x509 import (
    AuthorityKeyIdentifier,
    BasicConstraints,
    DNSName,
    ExtensionNotFound,
    IPAddress,
    KeyUsage,
    SubjectAlternativeName,
    SubjectKeyIdentifier,
    load_pem_x509_csr,
)

from kubewright.errors import ConfigError
from kubewright.model import kubeconfig, x509
from kubewright.model.pki import CA, CertSpec, KeyKind, Usage
from kubewright.secret import Secret

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
EC = KeyKind.ECDSA_P256
SERVER = CertSpec(
    "apiserver", "apiserver", "kube-apiserver", usages=(Usage.SERVER,), ca="ca",
    dns_names=("cp1", "kubernetes"), addresses=("10.96.0.1", "fd00::1"),
)  # fmt: skip
CLIENT = CertSpec("admin.conf", "", "kubernetes-admin", ("system:masters",), (Usage.CLIENT,), ca="ca")


@pytest.fixture(scope="module")
def ca() -> x509.KeyPair:
    return x509.self_signed_ca(CA, x509.new_key(EC), NOW)


@pytest.fixture(scope="module")
def server(ca: x509.KeyPair) -> x509.KeyPair:
    return x509.sign(SERVER, x509.new_key(EC), ca, NOW + timedelta(days=30))


def test_a_ca_signs_itself_for_ten_years(ca: x509.KeyPair) -> None:
    cert = x509.load_cert(ca.cert)
    cert.verify_directly_issued_by(cert)
    assert cert.subject.rfc4514_string() == "CN=kubernetes"
    assert cert.not_valid_before_utc == NOW
    assert cert.not_valid_after_utc == NOW + timedelta(days=3650)
    assert cert.extensions.get_extension_for_class(BasicConstraints).value.ca
    usage = cert.extensions.get_extension_for_class(KeyUsage)
    assert usage.critical
    assert usage.value.key_cert_sign
    assert usage.value.digital_signature
    assert usage.value.key_encipherment
    assert not usage.value.crl_sign
    assert cert.serial_number > 0


def test_a_leaf_starts_with_its_ca_and_lasts_a_year(ca: x509.KeyPair, server: x509.KeyPair) -> None:
    cert = x509.load_cert(server.cert)
    assert cert.not_valid_before_utc == NOW
    assert cert.not_valid_after_utc == NOW + timedelta(days=395)
    authority = cert.extensions.get_extension_for_class(AuthorityKeyIdentifier).value
    own = x509.load_cert(ca.cert).extensions.get_extension_for_class(SubjectKeyIdentifier).value
    assert authority.key_identifier == own.digest
    with pytest.raises(ExtensionNotFound):
        cert.extensions.get_extension_for_class(BasicConstraints)


def test_a_leaf_does_not_outlive_its_ca(ca: x509.KeyPair) -> None:
    late = x509.sign(CLIENT, x509.new_key(EC), ca, NOW + timedelta(days=3600))
    assert x509.load_cert(late.cert).not_valid_after_utc == NOW + timedelta(days=3650)


def test_what_was_just_made_matches(ca: x509.KeyPair, server: x509.KeyPair) -> None:
    assert x509.matches(ca.cert, CA, now=NOW, ca=ca.cert, key=ca.key) == []
    assert x509.matches(server.cert, SERVER, now=NOW, ca=ca.cert, key=server.key) == []


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"dns_names": ("cp1", "lb.example.test")}, "lacks the name lb.example.test"),
        ({"addresses": ("192.0.2.7",)}, "lacks the name 192.0.2.7"),
        ({"usages": (Usage.SERVER, Usage.CLIENT)}, "lacks the usage client auth"),
        ({"common_name": "other"}, "its common name is kube-apiserver, not other"),
        ({"organizations": ("system:masters",)}, "its organization is none, not system:masters"),
        ({"ca": "", "usages": ()}, "is not a CA"),
    ],
)
def test_each_flaw_has_its_own_reason(server: x509.KeyPair, change: dict[str, Any], reason: str) -> None:
    from dataclasses import replace

    assert x509.matches(server.cert, replace(SERVER, **change), now=NOW) == [reason]


def test_time_key_and_signer_are_checked(ca: x509.KeyPair, server: x509.KeyPair) -> None:
    end = NOW + timedelta(days=395)
    assert x509.matches(server.cert, SERVER, now=end) == [f"expired {end:%Y-%m-%d %H:%M:%S} UTC"]
    soon = x509.matches(server.cert, SERVER, now=end - timedelta(days=9), renew_before=timedelta(days=30))
    assert soon == [f"expires soon, {end:%Y-%m-%d %H:%M:%S} UTC"]
    early = x509.matches(server.cert, SERVER, now=NOW - timedelta(seconds=1))
    assert early == [f"not valid before {NOW:%Y-%m-%d %H:%M:%S} UTC"]
    other = x509.self_signed_ca(CA, x509.new_key(EC), NOW)
    assert x509.matches(server.cert, SERVER, now=NOW, ca=other.cert) == ["signed by another CA"]
    wrong = x509.matches(server.cert, SERVER, now=NOW, key=ca.key)
    assert wrong == ["does not belong to its private key"]


@pytest.mark.parametrize("damaged", [b"", b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"])
def test_a_damaged_file_is_a_reason_not_a_crash(damaged: bytes) -> None:
    assert x509.matches(damaged, CA, now=NOW) == ["not a PEM certificate"]


def test_a_damaged_key_is_an_error_without_its_content() -> None:
    with pytest.raises(ConfigError) as caught:
        x509.load_key(Secret(b"-----BEGIN RSA PRIVATE KEY-----\nc2VjcmV0\n-----END RSA PRIVATE KEY-----\n"))
    assert "c2VjcmV0" not in str(caught.value)


def test_rsa_keys_are_written_as_go_writes_them() -> None:
    key = x509.new_key()
    assert key.reveal().startswith(b"-----BEGIN RSA PRIVATE KEY-----\n")
    assert x509.load_key(key).key_size == 2048
    assert x509.public_key(key).startswith(b"-----BEGIN PUBLIC KEY-----\n")
    assert str(key) == "<secret>"


@pytest.mark.parametrize(("kind", "size"), [(KeyKind.RSA_3072, 3072), (EC, 256), (KeyKind.ECDSA_P384, 384)])
def test_keys_of_each_kind(kind: KeyKind, size: int) -> None:
    assert x509.load_key(x509.new_key(kind)).key_size == size


async def test_keys_are_made_side_by_side() -> None:
    keys = await x509.new_keys([EC, EC, KeyKind.RSA_2048])
    assert len({key.reveal() for key in keys}) == 3


def test_the_pin_is_the_digest_of_the_public_key(ca: x509.KeyPair) -> None:
    der = x509.load_cert(ca.cert).public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )  # fmt: skip
    digest = hashes.Hash(hashes.SHA256())
    digest.update(der)
    assert x509.ca_hash(ca.cert) == "sha256:" + digest.finalize().hex()


def test_a_request_names_its_subject_and_nothing_else() -> None:
    key = x509.new_key(EC)
    found = load_pem_x509_csr(x509.request(kubeconfig.node_client_cert("w1"), key))
    assert found.subject.rfc4514_string() == "CN=system:node:w1,O=system:nodes"
    assert found.is_signature_valid
    assert list(found.extensions) == []


def test_a_request_has_the_names_of_a_server() -> None:
    found = load_pem_x509_csr(x509.request(SERVER, x509.new_key(EC)))
    names = found.extensions.get_extension_for_class(SubjectAlternativeName).value
    assert names.get_values_for_type(DNSName) == ["cp1", "kubernetes"]
    assert [str(address) for address in names.get_values_for_type(IPAddress)] == ["10.96.0.1", "fd00::1"]
