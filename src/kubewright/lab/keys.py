"""The SSH keys of a lab: one that enters, a host key for each machine, and the known_hosts file of those."""

from __future__ import annotations

import os
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from kubewright.lab.plan import MachinePlan


def make_key(comment: str) -> tuple[bytes, str]:
    """A new Ed25519 key: the private half in OpenSSH's format, the public half as one line."""
    key = Ed25519PrivateKey.generate()
    private = key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption())
    public = key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()
    return private, f"{public} {comment}"


def ensure_client_key(path: Path, comment: str) -> str:
    """The public half of the client key at `path`; both halves are made where the private one is missing."""
    public_path = path.with_name(f"{path.name}.pub")
    if not (path.exists() and public_path.exists()):
        private, public = make_key(comment)
        path.unlink(missing_ok=True)
        write_private(public_path, f"{public}\n".encode())
        write_private(path, private)
    return public_path.read_text().strip()


def write_private(path: Path, content: bytes) -> None:
    """Write a file beside its place, for its owner alone from its first byte on, and rename it."""
    new = path.with_name(f".{path.name}.new")
    new.unlink(missing_ok=True)
    with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    new.rename(path)


def known_hosts(machines: list[tuple[MachinePlan, str]]) -> str:
    """The lines for machines and their public host keys (sshd(8), SSH_KNOWN_HOSTS FILE FORMAT)."""
    lines = (f"{machine.address} {' '.join(public.split()[:2])}\n" for machine, public in machines)
    return "".join(lines)
