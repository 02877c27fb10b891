"""What a ClusterConfiguration says about certificates, read without the types that take time to load."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from kubewright.model.config.duration import timedelta_of
from kubewright.model.pki import LEAF_VALIDITY, PKI_DIR, KeyKind, certificates_dir

if TYPE_CHECKING:
    from kubewright.model.config.kubeadm_types import ClusterConfiguration


@dataclass(frozen=True, slots=True)
class CertSettings:
    """Where a control plane's certificates are, and how new ones are made."""

    directory: str = PKI_DIR
    external_etcd: bool | None = None
    """None where nobody said: then etcd is ours if its CA is there."""
    kind: KeyKind | None = None
    """Of new keys; None for the kind that each certificate has."""
    validity: timedelta = LEAF_VALIDITY


def of_stored(document: Mapping[str, Any]) -> CertSettings:
    """Of the document under `ClusterConfiguration` in the ConfigMap `kubeadm-config`, in any API version.

    A cluster's own document has been checked by whoever stored it: what is not understood is taken as not said.
    """
    etcd = document.get("etcd") or {}
    gates = document.get("featureGates") or {}
    kind: KeyKind | None = None
    try:
        kind = KeyKind(document.get("encryptionAlgorithm") or "")
    except ValueError:
        kind = KeyKind.ECDSA_P256 if gates.get("PublicKeysECDSA") else None
    try:
        validity = timedelta_of(str(document["certificateValidityPeriod"]))
    except (KeyError, ValueError):
        validity = LEAF_VALIDITY
    return CertSettings(certificates_dir(document), "external" in etcd, kind, validity)


def of_configuration(cluster: ClusterConfiguration) -> CertSettings:
    """Of a configuration file's ClusterConfiguration."""
    from kubewright.model.pki import key_kind, leaf_validity

    return CertSettings(
        cluster.certificates_dir, cluster.etcd.external is not None, key_kind(cluster), leaf_validity(cluster)
    )
