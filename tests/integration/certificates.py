"""What a certificate says, to be compared with what another one says."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509 import BasicConstraints, Certificate, ExtendedKeyUsage, ExtensionNotFound, KeyUsage
from cryptography.x509 import SubjectAlternativeName as Names


def describe(cert: Certificate) -> dict[str, Any]:
    """Everything of a certificate but its key, serial number and exact times."""

    def extension(kind: Any) -> Any:
        try:
            return cert.extensions.get_extension_for_class(kind)
        except ExtensionNotFound:
            return None

    names, uses = extension(Names), extension(ExtendedKeyUsage)
    usage, basic = extension(KeyUsage), extension(BasicConstraints)
    return {
        "subject": cert.subject.rfc4514_string(),
        "issuer": cert.issuer.rfc4514_string(),
        "names": [str(name.value) for name in names.value] if names else [],
        "uses": [use.dotted_string for use in uses.value] if uses else [],
        "usage": (usage.critical, repr(usage.value)) if usage else None,
        "basic": (basic.critical, repr(basic.value)) if basic else None,
        "days": round((cert.not_valid_after_utc - cert.not_valid_before_utc) / timedelta(days=1), 2),
        "key": key_kind(cert.public_key()),
        "hash": cert.signature_hash_algorithm.name if cert.signature_hash_algorithm else "",
        "extensions": sorted(item.oid.dotted_string for item in cert.extensions),
    }


def key_kind(key: Any) -> str:
    """A public or private key's algorithm and size."""
    public = key.public_key() if hasattr(key, "public_key") else key
    if isinstance(public, rsa.RSAPublicKey):
        return f"RSA {public.key_size}"
    assert isinstance(public, ec.EllipticCurvePublicKey)
    return f"ECDSA {public.curve.name}"
