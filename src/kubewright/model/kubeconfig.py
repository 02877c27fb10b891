"""Kubeconfig documents: who connects where and proves itself how, named as kubeadm names them."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import yaml

from kubewright.errors import ConfigError
from kubewright.model.node import ControlPlaneNode, endpoint_url
from kubewright.model.objects import Object, to_yaml
from kubewright.model.pki import (
    CLUSTER_ADMINS,
    MASTERS,
    NODES,
    CertSpec,
    KeyKind,
    client_cert,
    key_kind,
    leaf_validity,
)
from kubewright.model.versions import facts_for
from kubewright.secret import Secret

if TYPE_CHECKING:
    from kubewright.model import x509
    from kubewright.model.config.kubeadm import ClusterConfiguration

KUBERNETES_DIR = "/etc/kubernetes"
ADMIN = "admin.conf"
SUPER_ADMIN = "super-admin.conf"
CONTROLLER_MANAGER = "controller-manager.conf"
SCHEDULER = "scheduler.conf"
KUBELET = "kubelet.conf"
BOOTSTRAP_KUBELET = "bootstrap-kubelet.conf"
KUBECONFIG_MODE = 0o600

KUBELET_PKI_DIR = "/var/lib/kubelet/pki"
KUBELET_CLIENT_CURRENT = f"{KUBELET_PKI_DIR}/kubelet-client-current.pem"
"""A symbolic link (the kubelet refuses a file) to the certificate and key that the kubelet rotates (P23)."""

DEFAULT_CLUSTER_NAME = "kubernetes"


@dataclass(frozen=True, slots=True)
class KubeconfigSpec:
    """A kubeconfig of a control plane: its file, the API that it uses and the client certificate inside."""

    file: str
    """Below `/etc/kubernetes`."""
    server: str
    cluster_name: str
    cert: CertSpec

    @property
    def path(self) -> str:
        """Where it stands on the host."""
        return f"{KUBERNETES_DIR}/{self.file}"

    @property
    def user(self) -> str:
        """The user's name: the certificate's common name."""
        return self.cert.common_name


def control_plane_kubeconfigs(
    cluster: ClusterConfiguration, node: ControlPlaneNode, *, joining: bool = False
) -> tuple[KubeconfigSpec, ...]:
    """The kubeconfigs of one control plane; one that is `joining` gets no `super-admin.conf`.

    The administrator and the kubelet use the cluster's endpoint (P30). Controller manager and scheduler use
    the API server of their own node, so that a control plane never mixes versions during an upgrade; newer
    versions let the kubelet do the same.
    """
    facts = facts_for(cluster.kubernetes_version)
    kind = key_kind(cluster)
    shared = endpoint_url(cluster.control_plane_endpoint, node)
    of_kubelet = node.url if facts.kubelet_local_mode(cluster.feature_gates) else shared
    admins = CLUSTER_ADMINS if facts.super_admin else MASTERS
    rows = [(shared, client_cert(ADMIN, "kubernetes-admin", admins, kind=kind))]
    if facts.super_admin and not joining:
        rows.append((shared, client_cert(SUPER_ADMIN, "kubernetes-super-admin", MASTERS, kind=kind)))
    rows += [
        (of_kubelet, node_cert(node.name, cluster)),
        (node.url, client_cert(CONTROLLER_MANAGER, "system:kube-controller-manager", kind=kind)),
        (node.url, client_cert(SCHEDULER, "system:kube-scheduler", kind=kind)),
    ]
    validity = leaf_validity(cluster)
    return tuple(
        KubeconfigSpec(cert.name, server, cluster.cluster_name, replace(cert, validity=validity))
        for server, cert in rows
    )


def node_cert(node_name: str, cluster: ClusterConfiguration) -> CertSpec:
    """The client certificate by which a kubelet is its node."""
    return client_cert(KUBELET, f"system:node:{node_name}", NODES, kind=key_kind(cluster))


def with_server(config: Mapping[str, Any], server: str) -> Object:
    """A kubeconfig of ours at another address of the same API."""
    clusters = [
        {**entry, "cluster": {**entry["cluster"], "server": server}} for entry in config.get("clusters") or []
    ]
    return {**config, "clusters": clusters}


def with_current_server(config: Mapping[str, Any], server: str) -> Object:
    """A kubeconfig whose current cluster is reached at `server`, under each name that it has there.

    Other clusters, which somebody has merged into it, stay as they are. Raises `ConfigError` where the current
    context leads to no cluster.
    """
    before = current_server(config)

    def moved(entry: Any) -> Any:
        inner = entry.get("cluster") if isinstance(entry, dict) else None
        if not isinstance(inner, dict) or str(inner.get("server") or "") != before:
            return entry
        return {**entry, "cluster": {**inner, "server": server}}

    return {**config, "clusters": [moved(entry) for entry in config.get("clusters") or []]}


def with_certificate(spec: KubeconfigSpec, ca: bytes, pair: x509.KeyPair) -> Object:
    """A kubeconfig with the client certificate and its key inside: a secret document."""
    return _document(
        spec.cluster_name, spec.server, ca, spec.user,
        {"client-certificate-data": _base64(pair.cert), "client-key-data": _base64(pair.key.reveal())},
    )  # fmt: skip


def with_key(spec: KubeconfigSpec, key: Secret[bytes]) -> Object:
    """A kubeconfig that still lacks its certificate, and the CA, which are signed and kept elsewhere."""
    document = _document(
        spec.cluster_name, spec.server, b"", spec.user, {"client-key-data": _base64(key.reveal())}
    )
    del document["clusters"][0]["cluster"]["certificate-authority-data"]
    return document


def with_token(spec: KubeconfigSpec, ca: bytes, token: Secret[str]) -> Object:
    """A kubeconfig whose user proves itself by a token: a secret document."""
    return _document(spec.cluster_name, spec.server, ca, spec.user, {"token": token.reveal()})


def with_rotating_certificate(spec: KubeconfigSpec, ca: bytes, pem: str = KUBELET_CLIENT_CURRENT) -> Object:
    """`kubelet.conf` with the path of the certificate that the kubelet renews itself (P23)."""
    user = {"client-certificate": pem, "client-key": pem}
    return _document(spec.cluster_name, spec.server, ca, spec.user, user)


def after_bootstrap(server: str, ca: bytes) -> Object:
    """`kubelet.conf` as a kubelet writes it at the end of its TLS bootstrap, with that kubelet's names."""
    credentials = {"client-certificate": KUBELET_CLIENT_CURRENT, "client-key": KUBELET_CLIENT_CURRENT}
    document = _document("default-cluster", server, ca, "default-auth", credentials)
    context = {"cluster": "default-cluster", "namespace": "default", "user": "default-auth"}
    return document | {
        "contexts": [{"name": "default-context", "context": context}],
        "current-context": "default-context",
    }


def node_client_cert(node_name: str) -> CertSpec:
    """What a kubelet asks for in its TLS bootstrap: its Node's identity, with the kind of key that it makes."""
    return client_cert(KUBELET, f"system:node:{node_name}", NODES, kind=KeyKind.ECDSA_P256)


def kubelet_client_pem(pair: x509.KeyPair) -> Secret[bytes]:
    """What `kubelet-client-current.pem` leads to: the certificate, then its key."""
    return Secret(pair.cert + pair.key.reveal())


def cluster_info(server: str, ca: bytes) -> Object:
    """The kubeconfig inside the ConfigMap `cluster-info`: one cluster without a name, and nobody's identity."""
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [
            {"name": "", "cluster": {"certificate-authority-data": _base64(ca), "server": server}},
        ],
        "contexts": None,
        "current-context": "",
        "preferences": {},
        "users": None,
    }


def dump(config: Mapping[str, Any]) -> Secret[bytes]:
    """A kubeconfig as the bytes of its file."""
    return Secret(to_yaml(config))


def load(content: bytes, where: str) -> Object:
    """Parse a kubeconfig. Raises `ConfigError` naming `where`, and nothing of the content."""
    try:
        document = yaml.load(content, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))  # noqa: S506
    except (yaml.YAMLError, UnicodeDecodeError):
        document = None
    if not isinstance(document, dict):
        raise ConfigError(f"{where}: not a kubeconfig", hint="remove the file, or restore it from a copy")
    return document


def reasons(
    content: bytes, spec: KubeconfigSpec, ca: bytes, *, now: datetime, renew_before: timedelta = timedelta(0)
) -> list[str]:
    """Why an existing kubeconfig is not fit for its use; nothing where it is.

    A certificate that stands in a file of its own (a rotating one) is not looked at.
    """
    from kubewright.model import (
        x509,
    )  # cryptography costs 50 ms: who only reads a kubeconfig does not pay them

    try:
        document = load(content, spec.file)
        cluster, user = current(document)
    except ConfigError as error:
        return [error.message]
    found = []
    if cluster.get("server") != spec.server:
        found.append(f"uses {cluster.get('server')}, not {spec.server}")
    if embedded(cluster, "certificate-authority-data").strip() != ca.strip():
        found.append("holds another CA")
    if "client-certificate" not in user:
        cert = embedded(user, "client-certificate-data")
        key = Secret(embedded(user, "client-key-data"))
        found += x509.matches(cert, spec.cert, now=now, ca=ca, key=key, renew_before=renew_before)
    return found


def current(document: Mapping[str, Any]) -> tuple[Object, Object]:
    """The cluster and user of the current context. Raises `ConfigError` naming the missing entry."""
    context = _entry(document, "contexts", str(document.get("current-context", "")), "context")
    return (
        _entry(document, "clusters", str(context.get("cluster", "")), "cluster"),
        _entry(document, "users", str(context.get("user", "")), "user"),
    )


def current_server(document: Mapping[str, Any]) -> str:
    """Where the current cluster is reached; empty where it does not say it. Raises `ConfigError` as `current`."""
    return str(current(document)[0].get("server") or "")


def first_server(document: Mapping[str, Any]) -> str:
    """Where the first cluster of a kubeconfig is reached; empty where it does not say it."""
    cluster: Mapping[str, Any] = next(iter(document.get("clusters") or []), {})
    return str((cluster.get("cluster") or {}).get("server") or "")


def embedded(entry: Mapping[str, Any], field: str) -> bytes:
    """A field that holds a file in base64; empty where there is none or it is damaged."""
    try:
        return base64.b64decode(str(entry.get(field, "")), validate=True)
    except (binascii.Error, ValueError):
        return b""


def _document(cluster_name: str, server: str, ca: bytes, user: str, credentials: Mapping[str, str]) -> Object:
    context = f"{user}@{cluster_name}"
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [
            {
                "name": cluster_name,
                "cluster": {"certificate-authority-data": _base64(ca), "server": server},
            },
        ],
        "contexts": [{"name": context, "context": {"cluster": cluster_name, "user": user}}],
        "current-context": context,
        "preferences": {},
        "users": [{"name": user, "user": dict(credentials)}],
    }


def _entry(document: Mapping[str, Any], field: str, name: str, inner: str) -> Object:
    for item in document.get(field) or []:
        if isinstance(item, dict) and item.get("name") == name and isinstance(item.get(inner), dict):
            return dict(item[inner])
    raise ConfigError(
        f"kubeconfig: {field} has no entry {name!r}", hint="`kubectl config view` shows what is there"
    )


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()
