"""Names that a certificate goes on having when it is made anew, though nobody asks for them any more."""

from __future__ import annotations

from dataclasses import replace

from cryptography import x509 as pyca

from kubewright.errors import ConfigError
from kubewright.model import x509
from kubewright.model.pki import CertSpec


def with_names_of(cert: bytes | None, spec: CertSpec) -> CertSpec:
    """`spec` with the names and addresses that a certificate has besides, its own first; as it is where there is
    no certificate, or one that cannot be read."""
    try:
        extensions = x509.load_cert(cert or b"").extensions
        found = extensions.get_extension_for_class(pyca.SubjectAlternativeName).value
    except (ConfigError, pyca.ExtensionNotFound, ValueError):
        return spec
    names = found.get_values_for_type(pyca.DNSName)
    addresses = [str(address) for address in found.get_values_for_type(pyca.IPAddress)]
    return replace(
        spec,
        dns_names=tuple(dict.fromkeys([*spec.dns_names, *names])),
        addresses=tuple(dict.fromkeys([*spec.addresses, *addresses])),
    )
