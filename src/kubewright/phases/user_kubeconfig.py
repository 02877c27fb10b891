"""A kubeconfig for one more user of a cluster, signed by the CA on a control plane."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from kubewright.errors import ConfigError, ExitCode, HostError
from kubewright.hosts import Host
from kubewright.model import kubeconfig, x509
from kubewright.model.cert_settings import CertSettings
from kubewright.model.kubeconfig import KubeconfigSpec
from kubewright.model.pki import CA, KeyKind, client_cert
from kubewright.phases.host_kubeconfig import read_kubeconfig
from kubewright.secret import Secret


@dataclass(frozen=True, slots=True)
class User:
    """Who gets the kubeconfig."""

    name: str
    organizations: Sequence[str] = ()
    """The groups that the API server takes from the certificate."""
    token: Secret[str] | None = None
    """By which the user proves itself instead of a certificate."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where the cluster answers, and its name."""

    server: str
    cluster_name: str


async def endpoint_of(host: Host, path: str) -> Endpoint:
    """What a kubeconfig on the host uses. Raises `HostError` where it is not there, `ConfigError` if useless."""
    document = await read_kubeconfig(host, path)
    cluster, _ = kubeconfig.current(document)
    current = document.get("current-context")
    contexts = (entry for entry in document.get("contexts") or [] if entry.get("name") == current)
    name = next(contexts)["context"].get("cluster", "")
    return Endpoint(str(cluster.get("server", "")), str(name) or kubeconfig.DEFAULT_CLUSTER_NAME)


async def user_kubeconfig(
    host: Host, settings: CertSettings, endpoint: Endpoint, user: User
) -> Secret[bytes]:
    """The kubeconfig as the bytes of its file.

    The certificate is valid for `settings.validity`, but not longer than the CA. Raises `HostError` where the CA,
    or for a certificate its key, is not on the host.
    """
    cert_path, key_path = CA.cert_path(settings.directory), CA.key_path(settings.directory)
    found = await host.read_files([cert_path] if user.token is not None else [cert_path, key_path])
    if cert_path not in found:
        raise HostError(
            f"{host.name}: there is no {cert_path}", host=host.name, exit_code=ExitCode.FAILURE,
            hint="is this a control plane? name another with --host, or its directory in --config",
        )  # fmt: skip
    ca = found[cert_path]
    now = datetime.now(UTC)
    if (ended := x509.ends(ca)) <= now:
        raise ConfigError(
            f"{host.name}: the CA {cert_path} ended on {ended:%Y-%m-%d}: it is believed no more"
        )
    cert = client_cert("user", user.name, *user.organizations, kind=settings.kind or KeyKind.RSA_2048)
    spec = KubeconfigSpec(
        "", endpoint.server, endpoint.cluster_name, replace(cert, validity=settings.validity)
    )
    if user.token is not None:
        return kubeconfig.dump(kubeconfig.with_token(spec, ca, user.token))
    if key_path not in found:
        raise HostError(
            f"{host.name}: there is no {key_path}: the CA signs elsewhere", host=host.name,
            exit_code=ExitCode.FAILURE,
            hint="let that CA sign a request, or give the user a token with --token",
        )  # fmt: skip
    [key] = await x509.new_keys([spec.cert.key_kind])
    pair = x509.sign(spec.cert, key, x509.KeyPair(ca, Secret(found[key_path])), now)
    return kubeconfig.dump(kubeconfig.with_certificate(spec, ca, pair))
