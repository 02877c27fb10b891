"""Which certificates a control plane needs, and exactly what each must say, as kubeadm lays them out.

The facts are kubeadm's reference ("PKI certificates and requirements"); `x509` turns a `CertSpec` into bytes.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from kubewright.model.config.duration import timedelta_of
from kubewright.model.node import ControlPlaneNode, is_address, nth_address, split_endpoint
from kubewright.model.versions import facts_for

if TYPE_CHECKING:
    from kubewright.model.config.kubeadm import ClusterConfiguration

PKI_DIR = "/etc/kubernetes/pki"
CA_VALIDITY = timedelta(days=3650)
LEAF_VALIDITY = timedelta(days=365)
MASTERS = "system:masters"
CLUSTER_ADMINS = "kubeadm:cluster-admins"
"""The group of the administrators' certificates, and the name of its binding, where `VersionFacts.super_admin`."""
NODES = "system:nodes"
KUBELET_CLIENT = "kube-apiserver-kubelet-client"
"""The API server's user at the kubelets."""

CERT_MODE = 0o644
KEY_MODE = 0o600
PUBLIC_KEY_MODE = 0o600
"""kubeadm writes `sa.pub` with the mode of a key."""


class Usage(StrEnum):
    """What a leaf certificate may be used for (RFC 5280, extended key usage)."""

    SERVER = "server auth"
    CLIENT = "client auth"


class KeyKind(StrEnum):
    """The kind of a private key, in the words of kubeadm's `encryptionAlgorithm`."""

    RSA_2048 = "RSA-2048"
    RSA_3072 = "RSA-3072"
    RSA_4096 = "RSA-4096"
    ECDSA_P256 = "ECDSA-P256"
    ECDSA_P384 = "ECDSA-P384"


@dataclass(frozen=True, slots=True)
class CertSpec:
    """What one certificate must say. Without `ca` it signs itself and may sign others."""

    name: str
    """kubeadm's name of it, as in `kubeadm certs renew NAME`."""
    base: str
    """Its file below the certificates directory, without `.crt`; empty for one inside a kubeconfig."""
    common_name: str
    organizations: tuple[str, ...] = ()
    usages: tuple[Usage, ...] = ()
    dns_names: tuple[str, ...] = ()
    addresses: tuple[str, ...] = ()
    ca: str = ""
    """The name of the certificate that signs this one."""
    validity: timedelta = LEAF_VALIDITY
    key_kind: KeyKind = KeyKind.RSA_2048

    @property
    def is_ca(self) -> bool:
        """Whether this certificate signs others."""
        return not self.ca

    def cert_path(self, directory: str = PKI_DIR) -> str:
        """Where the certificate stands."""
        return posixpath.join(directory, self.base + ".crt")

    def key_path(self, directory: str = PKI_DIR) -> str:
        """Where its private key stands."""
        return posixpath.join(directory, self.base + ".key")


def certificates_dir(document: Mapping[str, Any]) -> str:
    """Where control planes have their certificates, by a ClusterConfiguration in any API version."""
    return str(document.get("certificatesDir") or PKI_DIR)


CA = CertSpec("ca", "ca", "kubernetes", validity=CA_VALIDITY)
FRONT_PROXY_CA = CertSpec("front-proxy-ca", "front-proxy-ca", "front-proxy-ca", validity=CA_VALIDITY)
ETCD_CA = CertSpec("etcd-ca", "etcd/ca", "etcd-ca", validity=CA_VALIDITY)

SERVICE_ACCOUNT_KEY = "sa.key"
SERVICE_ACCOUNT_PUBLIC_KEY = "sa.pub"
"""No certificate belongs to this pair: the controller manager signs tokens, the API server verifies them."""


def cluster_cas(cluster: ClusterConfiguration) -> tuple[CertSpec, ...]:
    """The authorities of a cluster, one copy for all of its control planes; etcd's only where etcd is ours."""
    specs = (CA, FRONT_PROXY_CA) if cluster.etcd.external else (CA, FRONT_PROXY_CA, ETCD_CA)
    return _with_kind(specs, cluster)


def control_plane_certs(cluster: ClusterConfiguration, node: ControlPlaneNode) -> tuple[CertSpec, ...]:
    """The leaf certificates of one control plane, each its own (P26): API server, its clients, and etcd."""
    facts = facts_for(cluster.kubernetes_version)
    admins = CLUSTER_ADMINS if facts.super_admin else MASTERS
    groups = () if facts.kubelet_client_bound else (admins,)
    specs = [
        _serving("apiserver", "apiserver", "kube-apiserver", (Usage.SERVER,), "ca", _api_names(cluster, node)),
        CertSpec(
            "apiserver-kubelet-client", "apiserver-kubelet-client", KUBELET_CLIENT, groups, (Usage.CLIENT,),
            ca="ca",
        ),
        CertSpec(
            "front-proxy-client", "front-proxy-client", "front-proxy-client", usages=(Usage.CLIENT,),
            ca="front-proxy-ca",
        ),
    ]  # fmt: skip
    if not cluster.etcd.external:
        specs += etcd_certs(
            node,
            server_sans=cluster.etcd.local.server_cert_sans if cluster.etcd.local else (),
            peer_sans=cluster.etcd.local.peer_cert_sans if cluster.etcd.local else (),
            client_groups=() if facts.super_admin else (MASTERS,),
        )
    return _with_kind(specs, cluster)


def etcd_certs(
    node: ControlPlaneNode,
    *,
    server_sans: Sequence[str] = (),
    peer_sans: Sequence[str] = (),
    client_groups: tuple[str, ...] = (MASTERS,),
) -> list[CertSpec]:
    """The leaf certificates of a stacked etcd member and of its clients on this node.

    An etcd server is a client too where its gRPC gateway calls it, so that server and peer have both usages
    (etcd issue 9785).
    """
    both = (Usage.SERVER, Usage.CLIENT)
    own = [node.name, "localhost", node.advertise_address, "127.0.0.1", "::1"]
    return [
        _serving("etcd-server", "etcd/server", node.name, both, "etcd-ca", [*own, *server_sans]),
        _serving("etcd-peer", "etcd/peer", node.name, both, "etcd-ca", [*own, *peer_sans]),
        CertSpec(
            "etcd-healthcheck-client", "etcd/healthcheck-client", "kube-etcd-healthcheck-client", client_groups,
            (Usage.CLIENT,), ca="etcd-ca",
        ),
        CertSpec(
            "apiserver-etcd-client", "apiserver-etcd-client", "kube-apiserver-etcd-client", client_groups,
            (Usage.CLIENT,), ca="etcd-ca",
        ),
    ]  # fmt: skip


def client_cert(
    name: str, common_name: str, *organizations: str, kind: KeyKind = KeyKind.RSA_2048
) -> CertSpec:
    """A client certificate of the cluster's CA that lives inside a kubeconfig."""
    return CertSpec(name, "", common_name, organizations, (Usage.CLIENT,), ca="ca", key_kind=kind)


def key_kind(cluster: ClusterConfiguration) -> KeyKind:
    """The kind of all keys: `encryptionAlgorithm`, or ECDSA where the older gate `PublicKeysECDSA` is on."""
    if cluster.feature_gates.get("PublicKeysECDSA"):
        return KeyKind.ECDSA_P256
    return KeyKind(cluster.encryption_algorithm)


def leaf_validity(cluster: ClusterConfiguration) -> timedelta:
    """How long certificates live that are no authority's: `certificateValidityPeriod`."""
    return timedelta_of(cluster.certificate_validity_period)


def _api_names(cluster: ClusterConfiguration, node: ControlPlaneNode) -> list[str]:
    names = [
        node.name,
        "kubernetes",
        "kubernetes.default",
        "kubernetes.default.svc",
        f"kubernetes.default.svc.{cluster.networking.dns_domain}",
        nth_address(cluster.networking.service_subnet, 1),
        node.advertise_address,
    ]
    if cluster.control_plane_endpoint:
        names.append(split_endpoint(cluster.control_plane_endpoint)[0])
    return [*names, *cluster.api_server.cert_sans]


def _serving(
    name: str, base: str, common_name: str, usages: tuple[Usage, ...], ca: str, names: Sequence[str]
) -> CertSpec:
    """A certificate with names, parted into DNS names (sorted) and addresses (in order) as kubeadm does."""
    addresses = tuple(dict.fromkeys(item for item in names if is_address(item)))
    dns_names = tuple(sorted({item for item in names if item not in addresses}))
    return CertSpec(name, base, common_name, usages=usages, dns_names=dns_names, addresses=addresses, ca=ca)


def _with_kind(specs: Iterable[CertSpec], cluster: ClusterConfiguration) -> tuple[CertSpec, ...]:
    """The specs with the kind of key and the lifetimes that the configuration asks for."""
    kind, leaf = key_kind(cluster), leaf_validity(cluster)
    ca = timedelta_of(cluster.ca_certificate_validity_period)
    return tuple(replace(spec, key_kind=kind, validity=ca if spec.is_ca else leaf) for spec in specs)
