"""Where an API server is and how a client proves itself to it."""

from __future__ import annotations

import base64
import os
import ssl
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from kubewright.errors import ConfigError

SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")


@dataclass(frozen=True, slots=True)
class Server:
    """Where the API is and how we prove who we are. PEM data stays in memory but for the moment of loading."""

    url: str
    """`https://host:port`."""
    ca: bytes | None = None
    """PEM; None leaves the server unverified, for a join's first look at `cluster-info` alone."""
    client_cert: bytes = b""
    client_key: bytes = field(default=b"", repr=False)
    token: str = field(default="", repr=False)
    token_file: Path | None = None
    """Read again for each request: a projected service account token changes."""
    connect: tuple[str, int] | None = None
    """Connect there instead (a tunnel); TLS still verifies the host name of `url`."""
    tls_server_name: str = ""

    def through(self, address: str, port: int) -> Server:
        """The same server, reached through a tunnel at `address`:`port`."""
        return Server(
            self.url, self.ca, self.client_cert, self.client_key, self.token, self.token_file,
            (address, port), self.tls_server_name,
        )  # fmt: skip

    @classmethod
    def from_kubeconfig(cls, config: Mapping[str, Any], *, context: str = "") -> Server:
        """The server of a kubeconfig's context. Raises `ConfigError` naming the missing entry."""
        name = context or config.get("current-context", "")
        ctx = _named(config, "contexts", name, "context")
        cluster = _named(config, "clusters", ctx.get("cluster", ""), "cluster")
        user = _named(config, "users", ctx.get("user", ""), "user")
        for way in ("exec", "auth-provider", "username"):
            if user.get(way) and not (user.get("token") or user.get("client-certificate-data")):
                raise ConfigError(
                    f"kubeconfig: user {ctx.get('user')!r} proves itself by {way!r}, which Kubewright cannot do",
                    hint="use a kubeconfig with a client certificate or a token",
                )
        try:
            _ = urlsplit(str(cluster.get("server", ""))).port
        except ValueError:
            raise ConfigError(
                f"kubeconfig: the server {str(cluster['server'])[:80]!r} is not a URL"
            ) from None
        ca = _data(cluster, "certificate-authority")
        if ca is None and not cluster.get("insecure-skip-tls-verify"):
            ca = _system_authorities()  # as kubectl does; unverified only where the user says so
        return cls(
            cluster.get("server", ""),
            ca,
            _data(user, "client-certificate") or b"",
            _data(user, "client-key") or b"",
            user.get("token", ""),
            token_file=Path(user["tokenFile"]) if user.get("tokenFile") else None,
            tls_server_name=cluster.get("tls-server-name", ""),
        )

    @classmethod
    def in_cluster(cls) -> Server:
        """The server as a pod sees it, by its environment and service account."""
        host, port = (
            os.environ.get("KUBERNETES_SERVICE_HOST", ""),
            os.environ.get("KUBERNETES_SERVICE_PORT", "443"),
        )
        if not host:
            raise ConfigError("KUBERNETES_SERVICE_HOST is not set: this runs only inside a pod")
        if ":" in host:
            host = f"[{host}]"
        return cls(
            f"https://{host}:{port}",
            (SERVICE_ACCOUNT / "ca.crt").read_bytes(),
            token_file=SERVICE_ACCOUNT / "token",
        )

    def ssl_context(self) -> ssl.SSLContext:
        """A TLS context for this server: verified against its CA, with our client certificate if we have one."""
        if self.ca is None:
            # Not the default context: that reads all CAs of the system, which takes a while, and none is asked.
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        else:
            context = ssl.create_default_context(cadata=self.ca.decode() or None)
            # Kubernetes' own CAs have no key usage extensions in the form that Python 3.13's strict mode wants.
            context.verify_flags &= ~ssl.VERIFY_X509_STRICT
        if self.client_cert:
            # The ssl module takes files only; this one is 0600 from its first byte and gone after loading.
            fd, path = tempfile.mkstemp(prefix="kubewright-")
            try:
                with os.fdopen(fd, "wb") as pem:
                    pem.write(self.client_cert + b"\n" + self.client_key)
                context.load_cert_chain(path)
            finally:
                Path(path).unlink()
        return context


def _named(config: Mapping[str, Any], section: str, name: str, field_name: str) -> Mapping[str, Any]:
    for entry in config.get(section) or []:
        if entry.get("name") == name:
            value = entry.get(field_name) or {}
            return value if isinstance(value, Mapping) else {}
    raise ConfigError(f"kubeconfig: {section} has no entry named {name!r}")


def _data(entry: Mapping[str, Any], key: str) -> bytes | None:
    try:
        if inline := entry.get(f"{key}-data"):
            return base64.b64decode(inline)
        if path := entry.get(key):
            return Path(path).read_bytes()
    except ValueError:
        raise ConfigError(f"kubeconfig: {key}-data is not base64") from None
    except OSError as error:
        raise ConfigError(f"kubeconfig: {key}: {path}: {error.strerror}") from None
    return None


def _system_authorities() -> bytes:
    """The certificate authorities that this computer trusts, as PEM."""
    bundle = ssl.get_default_verify_paths().cafile
    if bundle is None:
        raise ConfigError(
            "kubeconfig: the cluster names no certificate-authority, and this computer has no list of its own"
        )
    return Path(bundle).read_bytes()
