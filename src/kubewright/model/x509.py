"""Certificates and keys as bytes: made from a `CertSpec`, and checked against one.

Randomness (keys and serial numbers) is confined to this module; the time is always passed in.
"""

from __future__ import annotations

import asyncio
import hashlib
import ipaddress
import os
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TypeVar, cast

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from kubewright.errors import ConfigError
from kubewright.model.pki import CertSpec, KeyKind, Usage
from kubewright.secret import Secret

PrivateKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey
Extension = TypeVar("Extension", bound=x509.ExtensionType)

_RSA_BITS = {KeyKind.RSA_2048: 2048, KeyKind.RSA_3072: 3072, KeyKind.RSA_4096: 4096}
_CURVES: dict[KeyKind, ec.EllipticCurve] = {
    KeyKind.ECDSA_P256: ec.SECP256R1(),
    KeyKind.ECDSA_P384: ec.SECP384R1(),
}
_USAGES = {Usage.SERVER: ExtendedKeyUsageOID.SERVER_AUTH, Usage.CLIENT: ExtendedKeyUsageOID.CLIENT_AUTH}


@dataclass(frozen=True, slots=True)
class KeyPair:
    """A certificate and its private key, both PEM."""

    cert: bytes
    key: Secret[bytes]


def new_key(kind: KeyKind = KeyKind.RSA_2048) -> Secret[bytes]:
    """A new private key as PEM, in the form of Go's tools (`RSA PRIVATE KEY`, `EC PRIVATE KEY`).

    An RSA key of 2048 bits costs about 50 ms of CPU; the interpreter's lock is free meanwhile.
    """
    key: PrivateKey
    if kind in _CURVES:
        key = ec.generate_private_key(_CURVES[kind])
    else:
        key = rsa.generate_private_key(public_exponent=65537, key_size=_RSA_BITS[kind])
    return Secret(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.TraditionalOpenSSL,
            serialization.NoEncryption(),
        )
    )


async def new_keys(kinds: Sequence[KeyKind]) -> list[Secret[bytes]]:
    """New private keys, made in threads on as many cores as there are."""
    cores = asyncio.Semaphore(os.cpu_count() or 1)

    async def one(kind: KeyKind) -> Secret[bytes]:
        async with cores:
            return await asyncio.to_thread(new_key, kind)

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(one(kind)) for kind in kinds]
    return [task.result() for task in tasks]


def public_key(key: Secret[bytes]) -> bytes:
    """The public half of a private key as PEM (`sa.pub`)."""
    return (
        load_key(key)
        .public_key()
        .public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    )


def self_signed_ca(spec: CertSpec, key: Secret[bytes], now: datetime) -> KeyPair:
    """An authority's certificate, signed by itself. `now` must be aware of its time zone."""
    private = load_key(key)
    name = _subject(spec)
    builder = (
        _builder(name, private, issuer=name, start=now, end=now + spec.validity)
        .add_extension(_key_usage(signs=True), critical=True)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(private.public_key()), critical=False)
    )
    return KeyPair(_pem(builder.sign(private, hashes.SHA256())), key)


def sign(spec: CertSpec, key: Secret[bytes], ca: KeyPair, now: datetime) -> KeyPair:
    """A leaf certificate, signed by `ca`.

    Like kubeadm's, it is valid from the CA's own start, so that hosts whose clocks are late accept it, and
    for `spec.validity` from now, but not longer than the CA itself.
    """
    usages = x509.ExtendedKeyUsage([_USAGES[usage] for usage in spec.usages])
    return _leaf(_subject(spec), usages, _alternatives(spec), spec.validity, key, ca, now)


def sign_again(cert: bytes, key: Secret[bytes], ca: KeyPair, now: datetime, validity: timedelta) -> KeyPair:
    """A leaf certificate with the subject, names and usages of another, for its new key; otherwise as `sign`.

    Raises `ConfigError` where `cert` is no certificate.
    """
    found = load_cert(cert)
    usages, names = _extension(found, x509.ExtendedKeyUsage), _extension(found, x509.SubjectAlternativeName)
    return _leaf(found.subject, usages, names, validity, key, ca, now)


def request(spec: CertSpec, key: Secret[bytes]) -> bytes:
    """A certificate signing request (PKCS #10) as PEM, with the spec's subject and names."""
    return _request(_subject(spec), _alternatives(spec), key)


def request_again(cert: bytes, key: Secret[bytes]) -> bytes:
    """A request for a certificate with the subject and names of another."""
    found = load_cert(cert)
    return _request(found.subject, _extension(found, x509.SubjectAlternativeName), key)


def kind_of(cert: bytes) -> KeyKind:
    """The kind of a certificate's key; RSA 2048 for one that we do not make. Raises `ConfigError`."""
    key = load_cert(cert).public_key()
    for kind, bits in _RSA_BITS.items():
        if isinstance(key, rsa.RSAPublicKey) and key.key_size == bits:
            return kind
    for kind, curve in _CURVES.items():
        if isinstance(key, ec.EllipticCurvePublicKey) and key.curve.name == curve.name:
            return kind
    return KeyKind.RSA_2048


def ends(cert: bytes) -> datetime:
    """When a certificate ends. Raises `ConfigError` where it is none."""
    return load_cert(cert).not_valid_after_utc


def matches(
    cert: bytes,
    spec: CertSpec,
    *,
    now: datetime,
    ca: bytes | None = None,
    key: Secret[bytes] | None = None,
    renew_before: timedelta = timedelta(0),
) -> list[str]:
    """Why an existing certificate does not satisfy its spec; nothing where it does.

    Names and usages beyond the spec do no harm and give no reason, nor does the kind of key: a user may have
    put a stronger certificate there.
    """
    try:
        found = load_cert(cert)
    except ConfigError as error:
        return [error.message]
    reasons = _subject_reasons(found, spec) + _usage_reasons(found, spec) + _name_reasons(found, spec)
    if now < found.not_valid_before_utc:
        reasons.append(f"not valid before {found.not_valid_before_utc:%Y-%m-%d %H:%M:%S} UTC")
    if now >= found.not_valid_after_utc:
        reasons.append(f"expired {found.not_valid_after_utc:%Y-%m-%d %H:%M:%S} UTC")
    elif now >= found.not_valid_after_utc - renew_before:
        reasons.append(f"expires soon, {found.not_valid_after_utc:%Y-%m-%d %H:%M:%S} UTC")
    if ca is not None and not signed_by(cert, ca):
        reasons.append("signed by another CA")
    if key is not None and not key_belongs(cert, key):
        reasons.append("does not belong to its private key")
    return reasons


def signed_by(cert: bytes, ca: bytes) -> bool:
    """Whether `ca` issued `cert`. Raises `ConfigError` where either is no certificate."""
    try:
        load_cert(cert).verify_directly_issued_by(load_cert(ca))
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True


def key_belongs(cert: bytes, key: Secret[bytes]) -> bool:
    """Whether a private key is the certificate's own; False also where it cannot be read as a key."""
    try:
        private = load_key(key)
    except ConfigError:
        return False
    return private.public_key() == load_cert(cert).public_key()


def common_name(cert: bytes) -> str:
    """Whom a certificate names; empty where it names nobody or is no certificate."""
    try:
        names = load_cert(cert).subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    except ConfigError:
        return ""
    return str(names[0].value) if names else ""


def description(cert: bytes) -> str:
    """Whose a certificate is, who has issued it, and for which names, on one line. Raises `ConfigError`."""
    found = load_cert(cert)
    names = _extension(found, x509.SubjectAlternativeName)
    said = ", ".join(str(name.value) for name in names) if names else "no name"
    return f"{found.subject.rfc4514_string()}, issued by {found.issuer.rfc4514_string()}, for {said}"[:300]


def lacking(cert: bytes, names: Iterable[str]) -> list[str]:
    """Those of `names` (DNS names and IP addresses) that a certificate is not for. Raises `ConfigError`."""
    found = _extension(load_cert(cert), x509.SubjectAlternativeName)
    have = {str(name.value) for name in found} if found is not None else set()
    return [name for name in names if _canonical(name) not in have]


def ca_hash(cert: bytes) -> str:
    """The pin by which a joining node knows a CA: `sha256:` and the digest of its public key (RFC 7469)."""
    der = (
        load_cert(cert)
        .public_key()
        .public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    )
    return "sha256:" + hashlib.sha256(der).hexdigest()


def ca_hashes(bundle: bytes) -> list[str]:
    """The pins of all certificates in a PEM file. Raises `ConfigError` where there is none."""
    return [ca_hash(cert) for cert in certs_of(bundle)]


def certs_of(bundle: bytes) -> list[bytes]:
    """The certificates of a PEM file, each by itself; where there is none, one that cannot be read."""
    marker = b"-----BEGIN CERTIFICATE-----"
    return [marker + part for part in bundle.split(marker)[1:] or [b""]]


def load_cert(pem: bytes) -> x509.Certificate:
    """The first certificate of a PEM file. Raises `ConfigError` where there is none."""
    with warnings.catch_warnings():
        # kubeadm's authorities have the serial number 0, which RFC 5280 forbids and all of Kubernetes accepts.
        warnings.simplefilter("ignore")
        try:
            return x509.load_pem_x509_certificate(pem)
        except ValueError as error:
            raise ConfigError(
                "not a PEM certificate", hint="remove the file, or restore it from a copy"
            ) from error


def load_key(key: Secret[bytes]) -> PrivateKey:
    """A private key out of PEM. Raises `ConfigError`, which holds nothing of the key."""
    try:
        # OpenSSL's full check of an RSA key takes 40 ms; a damaged key shows when what it signed is verified.
        private = serialization.load_pem_private_key(key.reveal(), None, unsafe_skip_rsa_key_validation=True)
    except (ValueError, TypeError):
        private = None
    if not isinstance(private, rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey):
        raise ConfigError(
            "not a private key in PEM, without a passphrase", hint="RSA and ECDSA keys can be used"
        )
    return private


def _subject_reasons(cert: x509.Certificate, spec: CertSpec) -> list[str]:
    reasons = []
    names = [str(item.value) for item in cert.subject.get_attributes_for_oid(NameOID.COMMON_NAME)]
    if names != [spec.common_name]:
        reasons.append(f"its common name is {', '.join(names) or 'empty'}, not {spec.common_name}")
    organizations = {
        str(item.value) for item in cert.subject.get_attributes_for_oid(NameOID.ORGANIZATION_NAME)
    }
    if organizations != set(spec.organizations):
        found = ", ".join(sorted(organizations)) or "none"
        reasons.append(f"its organization is {found}, not {', '.join(spec.organizations) or 'none'}")
    return reasons


def _usage_reasons(cert: x509.Certificate, spec: CertSpec) -> list[str]:
    if spec.is_ca:
        try:
            constraints = cert.extensions.get_extension_for_class(x509.BasicConstraints).value
        except x509.ExtensionNotFound:
            return ["is not a CA"]
        return [] if constraints.ca else ["is not a CA"]
    try:
        found = set(cert.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value)
    except x509.ExtensionNotFound:
        found = set()
    return [f"lacks the usage {usage}" for usage in spec.usages if _USAGES[usage] not in found]


def _name_reasons(cert: x509.Certificate, spec: CertSpec) -> list[str]:
    try:
        names = cert.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        have: set[str] = set()
    else:
        have = set(names.get_values_for_type(x509.DNSName))
        have |= {str(address) for address in names.get_values_for_type(x509.IPAddress)}
    wanted = [*spec.dns_names, *(str(ipaddress.ip_address(address)) for address in spec.addresses)]
    return [f"lacks the name {name}" for name in wanted if name not in have]


def _canonical(name: str) -> str:
    try:
        return str(ipaddress.ip_address(name))
    except ValueError:
        return name


def _leaf(
    subject: x509.Name, usages: x509.ExtendedKeyUsage | None, names: x509.SubjectAlternativeName | None,
    validity: timedelta, key: Secret[bytes], ca: KeyPair, now: datetime,
) -> KeyPair:  # fmt: skip
    ca_cert, ca_key, private = load_cert(ca.cert), load_key(ca.key), load_key(key)
    end = min(now + validity, ca_cert.not_valid_after_utc)
    builder = _builder(
        subject, private, issuer=ca_cert.subject, start=ca_cert.not_valid_before_utc, end=end
    ).add_extension(_key_usage(signs=False), critical=True)
    for extension in (usages, _authority(ca_cert), names):
        if extension is not None:
            builder = builder.add_extension(extension, critical=False)
    return KeyPair(_pem(builder.sign(ca_key, hashes.SHA256())), key)


def _request(subject: x509.Name, names: x509.SubjectAlternativeName | None, key: Secret[bytes]) -> bytes:
    builder = x509.CertificateSigningRequestBuilder().subject_name(subject)
    if names is not None:
        builder = builder.add_extension(names, critical=False)
    return builder.sign(load_key(key), hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def _extension(cert: x509.Certificate, kind: type[Extension]) -> Extension | None:
    try:
        return cert.extensions.get_extension_for_class(kind).value
    except x509.ExtensionNotFound:
        return None


def _builder(
    subject: x509.Name, key: PrivateKey, *, issuer: x509.Name, start: datetime, end: datetime
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(end)
    )


def _subject(spec: CertSpec) -> x509.Name:
    names = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, item) for item in spec.organizations]
    return x509.Name([*names, x509.NameAttribute(NameOID.COMMON_NAME, spec.common_name)])


def _alternatives(spec: CertSpec) -> x509.SubjectAlternativeName | None:
    names: list[x509.GeneralName] = [x509.DNSName(name) for name in spec.dns_names]
    names += [x509.IPAddress(ipaddress.ip_address(address)) for address in spec.addresses]
    return x509.SubjectAlternativeName(names) if names else None


def _key_usage(*, signs: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True, key_encipherment=True, key_cert_sign=signs, crl_sign=False,
        content_commitment=False, data_encipherment=False, key_agreement=False, encipher_only=False,
        decipher_only=False,
    )  # fmt: skip


def _authority(ca: x509.Certificate) -> x509.AuthorityKeyIdentifier:
    """Names the CA's own key identifier, which a user's CA may have computed in its own way."""
    try:
        known = ca.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    except x509.ExtensionNotFound:
        return x509.AuthorityKeyIdentifier.from_issuer_public_key(
            cast("rsa.RSAPublicKey | ec.EllipticCurvePublicKey", ca.public_key())
        )
    return x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(known)


def _pem(cert: x509.Certificate) -> bytes:
    return cert.public_bytes(serialization.Encoding.PEM)
