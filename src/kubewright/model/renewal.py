"""Which certificates of a control plane kubeadm looks after: when they end, and what a new one must say.

The set and its names are those of `kubeadm certs`; the kubelet renews its own certificate (P23), which is no part
of it.
"""

from __future__ import annotations

import base64
import posixpath
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from kubewright.errors import ConfigError
from kubewright.model import kubeconfig, x509
from kubewright.model.config.duration import short_duration
from kubewright.model.pki import CA, ETCD_CA, FRONT_PROXY_CA, CertSpec
from kubewright.secret import Secret

OUTPUT_API_VERSION = "output.kubeadm.k8s.io/v1alpha3"
HEADER = ("CERTIFICATE", "EXPIRES", "RESIDUAL TIME", "CERTIFICATE AUTHORITY", "EXTERNALLY MANAGED")
CA_HEADER = ("CERTIFICATE AUTHORITY", "EXPIRES", "RESIDUAL TIME", "EXTERNALLY MANAGED")


@dataclass(frozen=True, slots=True)
class Managed:
    """A certificate that can be renewed."""

    name: str
    """As in `certs renew NAME`: a kubeconfig goes by its file's name."""
    ca: CertSpec
    base: str = ""
    """Its file below the certificates directory, without `.crt`; empty for one inside a kubeconfig."""
    user: str = ""
    """The program that must be started anew to use it; empty for none."""

    def path(self, directory: str) -> str:
        """The file that holds it; `directory` is that of the certificates."""
        if self.base:
            return posixpath.join(directory, f"{self.base}.crt")
        return f"{kubeconfig.KUBERNETES_DIR}/{self.name}"

    def key_path(self, directory: str) -> str:
        """The file that holds its key."""
        return posixpath.join(directory, f"{self.base}.key") if self.base else self.path(directory)


_API, _MANAGER, _SCHEDULER, _ETCD = "kube-apiserver", "kube-controller-manager", "kube-scheduler", "etcd"
MANAGED = (
    Managed(kubeconfig.ADMIN, CA),
    Managed("apiserver", CA, "apiserver", _API),
    Managed("apiserver-etcd-client", ETCD_CA, "apiserver-etcd-client", _API),
    Managed("apiserver-kubelet-client", CA, "apiserver-kubelet-client", _API),
    Managed(kubeconfig.CONTROLLER_MANAGER, CA, user=_MANAGER),
    Managed("etcd-healthcheck-client", ETCD_CA, "etcd/healthcheck-client"),
    Managed("etcd-peer", ETCD_CA, "etcd/peer", _ETCD),
    Managed("etcd-server", ETCD_CA, "etcd/server", _ETCD),
    Managed("front-proxy-client", FRONT_PROXY_CA, "front-proxy-client", _API),
    Managed(kubeconfig.SCHEDULER, CA, user=_SCHEDULER),
    Managed(kubeconfig.SUPER_ADMIN, CA),
)
"""All of them, by name."""
NAMES = tuple(one.name for one in MANAGED)
AUTHORITIES = (CA, ETCD_CA, FRONT_PROXY_CA)
_OPTIONAL = (kubeconfig.SUPER_ADMIN,)
"""Of newer versions' first control plane alone: where it is not there, nothing is missing."""


@dataclass(frozen=True, slots=True)
class Expiry:
    """When a certificate ends. `ends` is None where it is missing."""

    name: str
    ends: datetime | None
    external: bool
    """Whether its CA's key is not here, so that it can only be renewed elsewhere."""
    ca: str = ""
    """The name of the CA that signs it; empty for a CA."""

    def left(self, now: datetime) -> float:
        """The seconds until it ends, less than 0 where it has ended."""
        return (self.ends - now).total_seconds() if self.ends is not None else 0.0


def managed_by(*, external_etcd: bool) -> tuple[Managed, ...]:
    """What is renewed on a control plane: nothing of etcd's where etcd is not ours."""
    return tuple(one for one in MANAGED if not (external_etcd and one.ca is ETCD_CA))


def authorities_by(*, external_etcd: bool) -> tuple[CertSpec, ...]:
    """The CAs that belong to `managed_by`."""
    return tuple(one for one in AUTHORITIES if not (external_etcd and one is ETCD_CA))


def paths(directory: str, *, external_etcd: bool) -> list[str]:
    """All files to read for `expiries`."""
    return [
        *(one.path(directory) for one in managed_by(external_etcd=external_etcd)),
        *(ca.cert_path(directory) for ca in authorities_by(external_etcd=external_etcd)),
    ]


def expiries(
    files: Mapping[str, bytes], keys: Collection[str], directory: str, *, external_etcd: bool
) -> tuple[list[Expiry], list[Expiry]]:
    """The certificates and the CAs, each by name. `files` are those of `paths` that are there, `keys` the CAs'
    keys that are. Raises `ConfigError` naming a file that holds no certificate."""
    cas = authorities_by(external_etcd=external_etcd)
    external = {
        ca.name: ca.cert_path(directory) in files and ca.key_path(directory) not in keys for ca in cas
    }
    leaves = []
    for one in managed_by(external_etcd=external_etcd):
        path = one.path(directory)
        if path not in files and one.name in _OPTIONAL:
            continue
        ends = _ends(certificate(one, files[path], path), path) if path in files else None
        leaves.append(Expiry(one.name, ends, external[one.ca.name], one.ca.name))
    roots = []
    for ca in cas:
        path = ca.cert_path(directory)
        ends = _ends(files[path], path) if path in files else None
        roots.append(Expiry(ca.name, ends, external[ca.name]))
    return leaves, roots


def certificate(one: Managed, content: bytes, path: str) -> bytes:
    """The certificate in a file, as PEM. Raises `ConfigError` naming the file where a kubeconfig holds none."""
    if one.base:
        return content
    document = kubeconfig.load(content, path)
    try:
        _, user = kubeconfig.current(document)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error.message}", hint=error.hint) from None
    found = kubeconfig.embedded(user, "client-certificate-data")
    if not found:
        raise ConfigError(
            f"{path} holds no client certificate",
            hint="one that a kubeconfig only names, or a token, is not renewed here",
        )
    return found


def with_new_certificate(content: bytes, path: str, pair: x509.KeyPair, ca: bytes) -> Secret[bytes]:
    """A kubeconfig with another certificate and key, and the CA as it stands on the host; all else stays."""
    document = kubeconfig.load(content, path)
    cluster, user = kubeconfig.current(document)
    context = next(
        entry["context"] for entry in document["contexts"] if entry["name"] == document["current-context"]
    )
    cluster["certificate-authority-data"] = _base64(ca)
    cluster.pop("certificate-authority", None)
    user["client-certificate-data"] = _base64(pair.cert)
    user["client-key-data"] = _base64(pair.key.reveal())
    for section, name, inner, held in (
        ("clusters", context["cluster"], "cluster", cluster), ("users", context["user"], "user", user)
    ):  # fmt: skip
        for entry in document[section]:
            if entry.get("name") == name:
                entry[inner] = held
    return kubeconfig.dump(document)


def leaf_row(one: Expiry, now: datetime) -> list[str]:
    """A certificate as a row under `HEADER`, in the words of kubeadm's table."""
    if one.ends is None:
        return [f"!MISSING! {one.name}", "", "", "", ""]
    return [one.name, _shown(one.ends), short_duration(one.left(now)), one.ca, _yes(one.external)]


def root_row(one: Expiry, now: datetime) -> list[str]:
    """A CA as a row under `CA_HEADER`."""
    row = leaf_row(one, now)
    return row[:3] + row[4:]


def document(leaves: Sequence[Expiry], roots: Sequence[Expiry], now: datetime) -> dict[str, Any]:
    """What `certs check-expiration -o json` prints, in the form of newer kubeadm's; times in seconds and UTC."""
    return {
        "apiVersion": OUTPUT_API_VERSION,
        "kind": "CertificateExpirationInfo",
        "certificates": [_entry(one, now) for one in leaves],
        "certificateAuthorities": [_entry(one, now) for one in roots],
    }


def _entry(one: Expiry, now: datetime) -> dict[str, Any]:
    row: dict[str, Any] = {
        "name": one.name,
        "expirationDate": one.ends.strftime("%Y-%m-%dT%H:%M:%SZ") if one.ends else None,
        "residualTime": int(one.left(now)),
        "externallyManaged": one.external,
    }
    return row | ({"caName": one.ca} if one.ca else {}) | {"missing": one.ends is None}


def _ends(pem: bytes, path: str) -> datetime:
    try:
        return x509.ends(pem)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error.message}", hint=error.hint) from None


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _shown(moment: datetime) -> str:
    return moment.strftime("%b %d, %Y %H:%M UTC")


def _yes(value: bool) -> str:
    return "yes" if value else "no"
