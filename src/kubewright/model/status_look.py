"""What the files of a host say about where its API server, its etcd and its endpoint are to be asked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from kubewright.errors import ConfigError
from kubewright.model import kubeconfig
from kubewright.model.manifests import API_SERVER, ETCD, manifest_path
from kubewright.model.node import API_PORT, ControlPlaneNode
from kubewright.model.objects import read_mapping
from kubewright.model.reset import container_flags
from kubewright.model.upgrade import control_plane_node

ADMIN_CONF = f"{kubeconfig.KUBERNETES_DIR}/{kubeconfig.ADMIN}"
KUBELET_CONF = f"{kubeconfig.KUBERNETES_DIR}/{kubeconfig.KUBELET}"
_LOOPBACK = ("127.0.0.1", "::1", "localhost")
_MANIFESTS = tuple(manifest_path(name) for name in (API_SERVER, ETCD))


@dataclass(frozen=True, slots=True)
class EtcdWay:
    """Where members of etcd are asked, and the files by which a client proves itself."""

    urls: tuple[str, ...]
    ca: str
    cert: str
    key: str
    external: bool

    @property
    def files(self) -> tuple[str, str, str]:
        """The CA, the certificate and its key."""
        return self.ca, self.cert, self.key


@dataclass(frozen=True, slots=True)
class HostLook:
    """A host by its files."""

    joined: bool
    """Whether there is anything of a cluster's."""
    node: ControlPlaneNode | None
    """Where its own API server is; None on a host that runs none."""
    server: str
    """The URL by which its kubelet and its administrator reach the API; empty where nobody does."""
    etcd: EtcdWay | None


def paths(pki: str) -> list[str]:
    """The files to read for `look`; `pki` is the directory of certificates. No key is among them."""
    return [*_MANIFESTS, KUBELET_CONF, f"{pki}/ca.crt", _health(pki)]


def look(
    files: Mapping[str, bytes], pki: str, name: str, address: str, admin: Mapping[str, Any] | None
) -> HostLook:
    """A host by those of `paths` that are there, and its `admin.conf`. `address` is the one to assume for an API
    server whose manifest somebody has taken away."""
    api_server = read_mapping(files.get(manifest_path(API_SERVER), b""))
    own: ControlPlaneNode | None = None
    if api_server is not None:
        try:
            own = control_plane_node(name, api_server)
        except ConfigError:
            own = ControlPlaneNode(name, address, API_PORT)
    elif admin is not None or manifest_path(ETCD) in files:
        own = ControlPlaneNode(name, address, API_PORT)
    servers = [_server(admin), _server(read_mapping(files.get(KUBELET_CONF, b"")))]
    others = [url for url in servers if url and (own is None or url != own.url)]
    return HostLook(
        admin is not None or any(path in files for path in (*_MANIFESTS, KUBELET_CONF, _health(pki))),
        own,
        next(iter(others), next((url for url in servers if url), "")),
        _etcd(files, pki, container_flags(api_server or {}), own),
    )


def _server(document: Mapping[str, Any] | None) -> str:
    """The API's URL in a kubeconfig; empty where it cannot be read."""
    try:
        cluster, _ = kubeconfig.current(dict(document or {}))
    except (ConfigError, KeyError, TypeError, AttributeError):
        return ""
    return str(cluster.get("server") or "").rstrip("/")


def _etcd(
    files: Mapping[str, bytes], pki: str, flags: Mapping[str, str], own: ControlPlaneNode | None
) -> EtcdWay | None:
    """An etcd elsewhere is asked as the API server asks it; a member on the host itself with the certificate of
    health checks, which stands at kubeadm's place on hosts that have only etcd, too."""
    urls = tuple(url for url in flags.get("etcd-servers", "").split(",") if url)
    ca, cert, key = (flags.get(f"etcd-{name}file", "") for name in ("ca", "cert", "key"))
    if ca and cert and key and urls and not any(urlsplit(url).hostname in _LOOPBACK for url in urls):
        return EtcdWay(urls, ca, cert, key, external=True)
    cert = _health(pki)
    if cert not in files:
        return None
    loopback = "[::1]" if own is not None and own.is_ipv6 else "127.0.0.1"
    url = f"https://{loopback}:2379"
    return EtcdWay((url,), f"{pki}/etcd/ca.crt", cert, f"{cert.removesuffix('.crt')}.key", external=False)


def _health(pki: str) -> str:
    return f"{pki}/etcd/healthcheck-client.crt"


def assumed_name(url: str) -> str:
    """Whom an API server's certificate must name at an address that was only assumed: a loopback address is in no
    certificate of kubeadm's, and `kubernetes` in all. Empty for the name in the URL itself."""
    return "kubernetes" if urlsplit(url).hostname in _LOOPBACK else ""
