"""The kubeconfig of a discovery by file: read from the host or an `https` URL, with all it names put inside."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import urljoin, urlsplit

from kubewright.clients.cluster_info import LookError, Trouble, read_url
from kubewright.clients.server import Server
from kubewright.errors import ConfigError
from kubewright.hosts import Host
from kubewright.model import kubeconfig
from kubewright.model.discovery import ClockError, DiscoveryError, UnreachableError, clocks
from kubewright.model.objects import Object

FIELD = "--discovery-file"

# Where distributions keep what they trust: the files that programs written in Go look for.
_BUNDLES = (
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/pki/tls/cacert.pem",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/ssl/cert.pem",
)
_REDIRECTS = 10


def _is_https(url: str) -> bool:
    """Whether it is an https URL with a host and, if any, a port that can be one."""
    try:
        parts = urlsplit(url)
        return parts.scheme == "https" and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False


async def read_document(host: Host, where: str) -> Object:
    """The kubeconfig at a path on the host (also as `file:///…`), or at an `https` URL, which the host reaches and
    whose server is verified by what the host trusts. Raises `ConfigError` and `DiscoveryError`."""
    path = where.removeprefix("file://")
    if _is_https(where):
        content: bytes | None = await _fetched(host, where)
    elif "://" not in path:
        content = await host.read_file(path)
    else:
        raise ConfigError(
            f"{FIELD}: {where!r} is neither a path nor an https URL", hint="http is not safe enough"
        )
    if content is None:
        raise ConfigError(
            f"{FIELD}: there is no file {where} on {host.name}",
            hint="on a control plane, `kubectl -n kube-public get configmap cluster-info -o "
            "jsonpath='{.data.kubeconfig}'` prints one",
        )
    return kubeconfig.load(content, where)


async def server_of(host: Host, document: Mapping[str, Any], where: str) -> Server:
    """The server of a discovery file: that of its current context, or of its one cluster without a name, as in
    `cluster-info`. Files that it names are read from the host. Raises `ConfigError`."""
    context = _entry(document, "contexts", str(document.get("current-context") or ""), "context")
    cluster = _entry(document, "clusters", str(context.get("cluster") or ""), "cluster")
    if not cluster.get("server"):
        raise ConfigError(
            f"{where}: names no cluster: it needs a current context, or a cluster without a name"
        )
    user = _entry(document, "users", str(context.get("user") or ""), "user") if context else {}
    for way in ("exec", "auth-provider", "username"):
        if user.get(way):
            raise ConfigError(
                f"{where}: proves itself by {way!r}, which cannot be used to join",
                hint="use a token or a client certificate, or --tls-bootstrap-token with a file without a user",
            )
    if not _is_https(str(cluster["server"])):
        raise ConfigError(f"{where}: the cluster's server {str(cluster['server'])[:80]!r} is no https URL")
    ca = await _data(host, cluster, "certificate-authority", where)
    if not ca:
        raise ConfigError(
            f"{where}: the cluster has no certificate-authority-data", hint="without it nobody is trusted"
        )
    token = str(user.get("token") or "")
    if not token and user.get("tokenFile"):
        token = (await _file(host, str(user["tokenFile"]), where)).decode(errors="replace").strip()
    return Server(
        str(cluster["server"]),
        ca,
        await _data(host, user, "client-certificate", where),
        await _data(host, user, "client-key", where),
        token,
        tls_server_name=str(cluster.get("tls-server-name") or ""),
    )


def has_credentials(server: Server) -> bool:
    """Whether the file brought what a TLS bootstrap needs."""
    return bool(server.token or (server.client_cert and server.client_key))


def _entry(document: Mapping[str, Any], section: str, name: str, inner: str) -> Mapping[str, Any]:
    for item in document.get(section) or []:
        if isinstance(item, dict) and (item.get("name") or "") == name and isinstance(item.get(inner), dict):
            found: Mapping[str, Any] = item[inner]
            return found
    return {}


async def _data(host: Host, entry: Mapping[str, Any], key: str, where: str) -> bytes:
    if entry.get(f"{key}-data"):
        data = kubeconfig.embedded(entry, f"{key}-data")
        if not data:
            raise ConfigError(f"{where}: {key}-data is not base64")
        return data
    return await _file(host, str(entry[key]), where) if entry.get(key) else b""


async def _file(host: Host, path: str, where: str) -> bytes:
    content = await host.read_file(path)
    if content is None:
        raise ConfigError(f"{where}: names {path}, which is not on {host.name}")
    return content


async def _fetched(host: Host, where: str) -> bytes:
    bundles = await host.read_files(_BUNDLES)
    if not bundles:
        raise ConfigError(
            f"{FIELD}: {host.name} has no list of authorities that it trusts to verify {where} by",
            hint="install ca-certificates, or copy the file to the host",
        )
    ca = next(bundles[path] for path in _BUNDLES if path in bundles)
    address = where
    try:
        for _ in range(_REDIRECTS):
            url = urlsplit(address)
            async with host.forward_tcp(url.hostname or "", url.port or 443) as way:
                content, location = await read_url(Server(address, ca).through(*way))
            if not location:
                return content
            address = urljoin(address, location)
            if not _is_https(address):
                raise ConfigError(f"{FIELD}: {where} leads to {address}, which is not https")
    except LookError as error:
        raise _failed(error, host.name, address) from error
    raise ConfigError(f"{FIELD}: {where} leads from one address to the next without end")


def _failed(error: LookError, host: str, url: str) -> DiscoveryError | ClockError | ConfigError:
    if error.trouble in (Trouble.NOT_YET_VALID, Trouble.EXPIRED):
        return clocks(f"the certificate of {url}: {error.message}")
    if error.trouble in (Trouble.UNREACHABLE, Trouble.NOT_NOW):
        return UnreachableError(
            f"{FIELD}: nothing answers at {url}: {error.message}", host=host, hint=f"does {host} reach it?"
        )
    return ConfigError(
        f"{FIELD}: {url}: {error.message}",
        hint=f"{host} must trust its certificate (update-ca-certificates), or copy the file to the host",
    )
