"""The Secret `kubeadm-certs`: what all control planes share, encrypted under a key that only its owner knows.

Its form is kubeadm's: a file's name is the data's key, with `-` for `/`; its content is 12 bytes of nonce and then
AES-GCM's output. A file that the first control plane does not have is there and empty. The Secret belongs to a
bootstrap token that can do nothing but expire after two hours, and goes with it.
"""

from __future__ import annotations

import base64
import binascii
import posixpath
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from kubewright.errors import ConfigError
from kubewright.model import pki, tokens
from kubewright.model.objects import SYSTEM, Object, metadata
from kubewright.model.rbac import group, role, role_binding, rule
from kubewright.model.tokens import BOOTSTRAPPERS
from kubewright.secret import Secret

if TYPE_CHECKING:
    from kubewright.model.config.kubeadm_types import ClusterConfiguration

CERTS_SECRET = "kubeadm-certs"  # noqa: S105 - its name
LIFETIME = timedelta(hours=2)
KEY_BYTES = 32

_READERS = f"kubeadm:{CERTS_SECRET}"
_NONCE_BYTES = 12
_NEW = "on a control plane, `kubewright init phase upload-certs --upload-certs` uploads anew and prints a key"


class CertificateKeyError(ConfigError):
    """The key does not open the Secret."""


class CertsExpiredError(ConfigError):
    """The Secret is not there: its two hours are over, or nothing was ever uploaded."""


class CertsIncompleteError(ConfigError):
    """The Secret lacks a file that a control plane of this cluster needs."""


@dataclass(frozen=True, slots=True)
class SharedFile:
    """A file that is the same on all control planes."""

    name: str
    """In kubeadm's words, such as `etcd/ca.crt`; one that the user has placed has a name of its own."""
    path: str
    """Where it stands on a host."""
    mode: int

    @property
    def data_key(self) -> str:
        """The Secret's key that holds it."""
        return self.name.replace("/", "-")


def shared_files(cluster: ClusterConfiguration) -> tuple[SharedFile, ...]:
    """What a further control plane must be given: authorities, the service accounts' pair, and an external
    etcd's client files."""
    directory = cluster.certificates_dir
    names: list[tuple[str, str, int]] = []
    for ca in pki.cluster_cas(cluster):
        names.append((f"{ca.base}.crt", ca.cert_path(directory), pki.CERT_MODE))
        names.append((f"{ca.base}.key", ca.key_path(directory), pki.KEY_MODE))
    for name, mode in (
        (pki.SERVICE_ACCOUNT_KEY, pki.KEY_MODE),
        (pki.SERVICE_ACCOUNT_PUBLIC_KEY, pki.PUBLIC_KEY_MODE),
    ):
        names.append((name, posixpath.join(directory, name), mode))
    if external := cluster.etcd.external:
        names.append(("external-etcd-ca.crt", external.ca_file, pki.CERT_MODE))
        names.append(("external-etcd.crt", external.cert_file, pki.CERT_MODE))
        names.append(("external-etcd.key", external.key_file, pki.KEY_MODE))
    return tuple(SharedFile(*row) for row in names)


# -- the key ------------------------------------------------------------------------------------------------------


def new_certificate_key() -> Secret[str]:
    """A new random key, as `--certificate-key` takes it."""
    return Secret(secrets.token_hex(KEY_BYTES))


def parse_certificate_key(text: Secret[str], field: str = "--certificate-key") -> Secret[bytes]:
    """The key's bytes. Raises `ConfigError`, which names `field` and does not show the key."""
    try:
        key = bytes.fromhex(text.reveal())
    except ValueError:
        key = b""
    if len(key) not in (16, 24, KEY_BYTES):
        raise ConfigError(
            f"{field}: not a certificate key",
            hint="it is an AES key, 64 hexadecimal digits; `kubewright certs certificate-key` makes one",
        )
    return Secret(key)


def encrypt(data: bytes, key: Secret[bytes]) -> bytes:
    """Nonce and ciphertext of one file."""
    nonce = secrets.token_bytes(_NONCE_BYTES)
    return nonce + AESGCM(key.reveal()).encrypt(nonce, data, None)


def decrypt(sealed: bytes, key: Secret[bytes], what: str = CERTS_SECRET) -> bytes:
    """One file's content. Raises `CertificateKeyError`, which names `what`."""
    try:
        return AESGCM(key.reveal()).decrypt(sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], None)
    except (InvalidTag, ValueError):  # the latter for a nonce that is cut off
        raise CertificateKeyError(
            f"--certificate-key does not open {what} of Secret {SYSTEM}/{CERTS_SECRET}",
            hint=f"is it the key of the last upload? each upload makes a new one; {_NEW}",
        ) from None


# -- the objects --------------------------------------------------------------------------------------------------


def owner_token(now: datetime) -> tokens.BootstrapToken:
    """The token whose end is the Secret's end. It serves no other use."""
    identity, hidden = tokens.parse_token(tokens.generate_token())
    description = "Proxy for managing TTL for the kubeadm-certs secret"  # by which kubeadm's users know it
    return tokens.BootstrapToken(
        identity, hidden, expires=now + LIFETIME, description=description, usages=(), groups=()
    )


def certs_secret(
    files: Sequence[SharedFile], contents: Mapping[str, bytes], key: Secret[bytes], owner: Mapping[str, Any]
) -> Object:
    """The Secret. `contents` are by path; `owner` is the token's Secret as the API server has it, with its uid."""
    meta = metadata(CERTS_SECRET, SYSTEM)
    meta["ownerReferences"] = [
        {
            "apiVersion": "v1",
            "kind": "Secret",
            "name": owner["metadata"]["name"],
            "uid": owner["metadata"]["uid"],
            "controller": True,
            "blockOwnerDeletion": True,
        }
    ]
    data = {file.data_key: contents.get(file.path, b"") for file in files}
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": meta,
        "type": "Opaque",
        "data": {
            name: base64.b64encode(encrypt(content, key)).decode() if content else ""
            for name, content in data.items()
        },
    }


def certs_readers() -> list[Object]:
    """What lets a joining node read the Secret, which is of no use without the key."""
    return [
        role(_READERS, SYSTEM, rule(["get"], ["secrets"], names=[CERTS_SECRET])),
        role_binding(_READERS, SYSTEM, group(BOOTSTRAPPERS)),
    ]


def files_of_secret(
    secret: Mapping[str, Any] | None, files: Sequence[SharedFile], key: Secret[bytes]
) -> dict[str, bytes]:
    """The files by path, without those that the first control plane does not have.

    Raises `CertsExpiredError` where `secret` is None, `CertificateKeyError`, and `CertsIncompleteError`.
    """
    if secret is None:
        raise CertsExpiredError(
            f"there is no Secret {SYSTEM}/{CERTS_SECRET}: it is kept for two hours, or was never uploaded",
            hint=_NEW,
        )
    data = secret.get("data") or {}
    found = {}
    for file in files:
        if file.data_key not in data:
            raise CertsIncompleteError(
                f"Secret {SYSTEM}/{CERTS_SECRET} has no {file.data_key}, which {file.path} is made of",
                hint=f"was it uploaded for another configuration of etcd? {_NEW}",
            )
        try:
            sealed = base64.b64decode(str(data[file.data_key] or ""), validate=True)
        except (binascii.Error, ValueError):
            sealed = b"\0"  # nothing that any key opens
        if sealed:
            found[file.path] = decrypt(sealed, key, file.data_key)
    return found


def same_pem(one: bytes, other: bytes) -> bool:
    """Whether two files hold the same certificate, or the same private key: who has brought them to a control
    plane may have written them otherwise."""
    if one.strip() == other.strip():
        return True
    for read in (_certificate, _public_half):
        try:
            return read(one) == read(other)
        except ConfigError:
            continue
    return False


def _certificate(pem: bytes) -> bytes:
    from cryptography.hazmat.primitives.serialization import Encoding

    from kubewright.model.x509 import load_cert

    return load_cert(pem).public_bytes(Encoding.DER)


def _public_half(pem: bytes) -> bytes:
    from kubewright.model.x509 import public_key

    return public_key(Secret(pem))
