"""An etcd outside the control planes, as the control planes see it: its client files, and its endpoints."""

from __future__ import annotations

import ssl
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import ClassVar

from kubewright.clients.etcd import Credentials, EtcdClient, EtcdError
from kubewright.errors import ConfigError, ExitCode, HostError
from kubewright.events import Activity
from kubewright.hosts import FileWrite
from kubewright.model import pki, x509
from kubewright.model.config.etcd import EtcdSpec
from kubewright.model.config.kubeadm_types import ExternalEtcd
from kubewright.model.etcd_endpoints import EndpointAnswer
from kubewright.phases.files import differing, file_changes
from kubewright.phases.node import Node
from kubewright.phases.phase import Change, Phase
from kubewright.secret import Secret

_TIMEOUT = 5.0


class EtcdFiles(Phase):
    """Certificates and keys of an etcd outside the control planes, as they are elsewhere."""

    name: ClassVar[str] = "etcd-files"
    title: ClassVar[str] = "bring the files of etcd"

    def __init__(self, node: Node, files: Sequence[FileWrite]) -> None:
        """`files` are written in this order: a key before its certificate."""
        self._node = node
        self.host_name = node.name
        self._files = files
        self._wanted: list[FileWrite] = []

    async def look(self) -> list[Change]:
        """Which of them are missing, or are others."""
        self._wanted = await differing(self._node.host, self._files)
        return await file_changes(self._node.host, self._wanted)

    async def act(self, changes: Sequence[Change], activity: Activity) -> None:
        """Write them."""
        await self._node.host.write_files(self._wanted)


def client_files(external: ExternalEtcd, keys: Credentials) -> list[FileWrite]:
    """The files by which an API server uses etcd, with the modes that kubeadm gives such."""
    return [
        FileWrite(external.key_file, keys.key, pki.KEY_MODE),
        FileWrite(external.cert_file, keys.cert, pki.CERT_MODE),
        FileWrite(external.ca_file, keys.ca, pki.CERT_MODE),
    ]


def local_credentials(spec: EtcdSpec) -> Credentials:
    """The files of this computer. Raises `ConfigError` naming the field of one that cannot be used."""
    content = {}
    for field, path in (("caFile", spec.ca_file), ("certFile", spec.cert_file), ("keyFile", spec.key_file)):
        try:
            content[field] = Path(path).read_bytes()
        except OSError as error:
            raise ConfigError(f"etcd.{field}: {path}: {(error.strerror or 'unreadable').lower()}") from error
    keys = Credentials(content["caFile"], content["certFile"], Secret(content["keyFile"]))
    check_credentials(keys, f"etcd.caFile: {spec.ca_file}", f"etcd.certFile: {spec.cert_file}")
    return keys


def check_credentials(keys: Credentials, ca_place: str, cert_place: str) -> None:
    """Raise `ConfigError` where these can prove nothing to anybody: no certificates, ended ones, another's key."""
    now = datetime.now(UTC)
    for place, cert in ((ca_place, keys.ca), (cert_place, keys.cert)):
        try:
            ends = x509.ends(cert)
        except ConfigError as error:
            raise ConfigError(f"{place}: {error.message}", hint="give a certificate in PEM") from None
        if ends <= now:
            raise ConfigError(f"{place}: it ended on {ends:%Y-%m-%d %H:%M} UTC", hint="have it renewed")
    if not x509.key_belongs(keys.cert, keys.key):
        raise ConfigError(
            f"{cert_place}: the key is not this certificate's", hint="give the two that belong together"
        )


async def host_credentials(nodes: Sequence[Node], external: ExternalEtcd) -> dict[str, Credentials]:
    """By control plane, the files that it has, or those of the first that has all, to be brought to it.

    Raises `HostError` where none has all, or one has some.
    """
    paths = (external.ca_file, external.cert_file, external.key_file)
    found: dict[str, Credentials] = {}
    without: list[str] = []
    for node in nodes:
        files = await node.host.read_files(paths)
        missing = [path for path in paths if path not in files]
        if not missing:
            found[node.name] = Credentials(files[paths[0]], files[paths[1]], Secret(files[paths[2]]))
        elif len(missing) == len(paths):
            without.append(node.name)
        else:
            raise _missing(node.name, missing)
    if not found:
        raise _missing(nodes[0].name, paths)
    first = next(iter(found.values()))
    return found | dict.fromkeys(without, first)


def _missing(host: str, paths: Sequence[str]) -> HostError:
    return HostError(
        f"{host}: {', '.join(paths)} missing, by which etcd is used", host=host, exit_code=ExitCode.HOST_NOT_FIT,
        hint="clusterConfiguration.etcd.external names files on the control planes: put them on one of them; or "
        "use the field `etcd` of cluster.yaml, whose files are on this computer",
    )  # fmt: skip


async def ask(node: Node, endpoint: str, keys: Credentials) -> EndpointAnswer:
    """What an endpoint answers a control plane, over the control plane's own connection."""
    async with EtcdClient([endpoint], keys, node.host.forward_tcp, timeout=_TIMEOUT) as etcd:
        try:
            status = await etcd.status(endpoint)
            members = await etcd.members()
        except EtcdError as error:
            return EndpointAnswer(node.name, endpoint, _short(error, endpoint), _untrusted(error))
        trouble = await etcd.health(endpoint)
    return EndpointAnswer(
        node.name, endpoint, trouble.removeprefix(f"etcd at {endpoint}: "), version=status.version,
        members=frozenset(one.id for one in members), voters=sum(not one.is_learner for one in members),
    )  # fmt: skip


def _untrusted(error: EtcdError) -> bool:
    """Whether somebody answers who is not known, or does not know us; or who is no etcd (with an HTTP status)."""
    causes: list[BaseException] = []
    cause: BaseException | None = error
    while cause is not None and cause not in causes:
        causes.append(cause)
        cause = cause.__cause__ or getattr(cause, "os_error", None)
    verified = any(isinstance(one, ssl.SSLCertVerificationError) for one in causes)
    refused = any(isinstance(one, ssl.SSLError) and "alert" in str(one).lower() for one in causes)
    return verified or refused or (not error.passes and error.status != 0)


def _short(error: EtcdError, endpoint: str) -> str:
    return error.message.removeprefix(f"etcd at {endpoint}: ")
