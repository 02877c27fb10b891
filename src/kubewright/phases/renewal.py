"""Renewing the certificates of a control plane, with no API server and however long they have expired (P22)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import ClassVar

from kubewright.errors import ConfigError, ExitCode, HostError
from kubewright.events import Activity
from kubewright.hosts import FileWrite, Host
from kubewright.model import pki, renewal, x509
from kubewright.model.cert_settings import CertSettings
from kubewright.model.kubeconfig import KUBECONFIG_MODE, SUPER_ADMIN
from kubewright.model.pki import CertSpec
from kubewright.model.renewal import Expiry, Managed
from kubewright.model.x509 import KeyPair
from kubewright.phases.phase import Action, Change, Phase
from kubewright.secret import Secret

CSR_MODE = 0o600


async def expiries(host: Host, settings: CertSettings) -> tuple[list[Expiry], list[Expiry]]:
    """When a host's certificates and its CAs end. Two round trips; no key leaves the host."""
    external = await has_external_etcd(host, settings)
    cas = renewal.authorities_by(external_etcd=external)
    files = await host.read_files(renewal.paths(settings.directory, external_etcd=external))
    keys = await host.stat_files([ca.key_path(settings.directory) for ca in cas], digest=False)
    return renewal.expiries(files, keys, settings.directory, external_etcd=external)


async def has_external_etcd(host: Host, settings: CertSettings) -> bool:
    """Whether etcd is not ours: as the configuration says or, where nobody could say, by its CA's absence."""
    if settings.external_etcd is not None:
        return settings.external_etcd
    ca = pki.ETCD_CA.cert_path(settings.directory)
    return not await host.stat_files([ca], digest=False)


@dataclass(frozen=True, slots=True)
class _Found:
    """A certificate that is there and can be renewed."""

    managed: Managed
    path: str
    content: bytes
    cert: bytes


@dataclass
class Renewed:
    """What became of the certificates that were asked for, by name."""

    done: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    external: list[str] = field(default_factory=list)
    """Those whose CA's key is not on the host."""

    def programs(self) -> list[str]:
        """What must be started anew before it uses the new certificates, each once."""
        users = (one.user for one in renewal.MANAGED if one.name in self.done)
        return sorted({user for user in users if user})


class RenewCertificates(Phase):
    """New certificates and keys in place of the old ones, with the same subjects, names and usages.

    After `look` or `run`, `result` says which they are. Killed anywhere, it is finished by running it again: it
    goes by the certificates alone, and each key is written before its certificate.
    """

    name: ClassVar[str] = "certs-renew"
    title: ClassVar[str] = "renew certificates"

    def __init__(self, host: Host, settings: CertSettings, names: Sequence[str]) -> None:
        self._host = host
        self.host_name = host.name
        self._settings = settings
        self._names = names
        self._found: list[_Found] = []
        self._cas: dict[str, KeyPair] = {}
        self.result = Renewed()

    async def look(self) -> list[Change]:
        """All that are there, whatever their age. Raises `ConfigError` naming a file that cannot be used."""
        await self._read()
        now = datetime.now(UTC)
        changes = []
        for one in self._found:
            until = min(now + self._settings.validity, x509.ends(self._cas[one.managed.ca.name].cert))
            lines = (f"-ends {x509.ends(one.cert):%Y-%m-%d %H:%M} UTC", f"+ends {until:%Y-%m-%d %H:%M} UTC")
            changes.append(Change(Action.UPDATE, one.path, self.host_name, lines))
        return changes

    async def act(self, changes: Sequence[Change], activity: Activity) -> None:
        """Make keys on all cores at once, sign, and write each key before its certificate."""
        now = datetime.now(UTC)
        files: list[FileWrite] = []
        for one, key in zip(self._found, await self._keys(), strict=True):
            ca = self._cas[one.managed.ca.name]
            pair = x509.sign_again(one.cert, key, ca, now, self._settings.validity)
            if one.managed.base:
                files.append(
                    FileWrite(one.managed.key_path(self._settings.directory), pair.key, pki.KEY_MODE)
                )
                files.append(FileWrite(one.path, pair.cert, pki.CERT_MODE))
            else:
                content = renewal.with_new_certificate(one.content, one.path, pair, ca.cert)
                files.append(FileWrite(one.path, content, KUBECONFIG_MODE))
        await self._host.write_files(files)

    async def _keys(self) -> list[Secret[bytes]]:
        return await x509.new_keys([self._settings.kind or x509.kind_of(one.cert) for one in self._found])

    async def _read(self, *, signing: bool = True) -> None:
        """Sort the certificates that were asked for into those that can be renewed and those that cannot."""
        self._found, self._cas, self.result = [], {}, Renewed()
        directory = self._settings.directory
        external_etcd = await has_external_etcd(self._host, self._settings)
        cas = renewal.authorities_by(external_etcd=external_etcd)
        files = await self._host.read_files(
            [
                *renewal.paths(directory, external_etcd=external_etcd),
                *(ca.key_path(directory) for ca in cas if signing),
            ]
        )
        wanted = [one for one in renewal.managed_by(external_etcd=external_etcd) if one.name in self._names]
        for one in wanted:
            path = one.path(directory)
            if path not in files:
                if one.name != SUPER_ADMIN or len(self._names) == 1:
                    self.result.missing.append(one.name)
            elif signing and one.ca.key_path(directory) not in files:
                self.result.external.append(one.name)
            else:
                if signing and one.ca.name not in self._cas:
                    self._cas[one.ca.name] = self._authority(one.ca, files)
                cert = _whole(renewal.certificate(one, files[path], path), path)
                self._found.append(_Found(one, path, files[path], cert))
        self.result.done = [one.managed.name for one in self._found]

    def _authority(self, ca: CertSpec, files: Mapping[str, bytes]) -> KeyPair:
        """The CA that signs. Raises `HostError` for one that cannot, because nobody would believe it."""
        path = ca.cert_path(self._settings.directory)
        if path not in files:
            raise HostError(
                f"{self.host_name}: there is no {path}", host=self.host_name, exit_code=ExitCode.FAILURE,
                hint="restore it from a copy, or from another control plane: all have the same",
            )  # fmt: skip
        pair = KeyPair(_whole(files[path], path), Secret(files[ca.key_path(self._settings.directory)]))
        if not x509.key_belongs(pair.cert, pair.key):
            raise HostError(
                f"{self.host_name}: {ca.key_path(self._settings.directory)} is not the key of {path}",
                host=self.host_name, exit_code=ExitCode.FAILURE,
                hint="restore both from a copy, or from another control plane: all have the same",
            )  # fmt: skip
        if (ended := x509.ends(pair.cert)) <= datetime.now(UTC):
            raise HostError(
                f"{self.host_name}: the CA {path} itself ended on {ended:%Y-%m-%d}",
                host=self.host_name, exit_code=ExitCode.FAILURE,
                hint="a CA is not renewed: the cluster needs a new one, and all certificates made anew by it",
            )  # fmt: skip
        return pair


class RequestRenewal(RenewCertificates):
    """Keys and signing requests for a CA elsewhere, in place of new certificates; what is there stays."""

    name: ClassVar[str] = "certs-request"
    title: ClassVar[str] = "write certificate signing requests"

    def __init__(self, host: Host, settings: CertSettings, names: Sequence[str], directory: str) -> None:
        super().__init__(host, settings, names)
        self._directory = directory.rstrip("/") or "/"

    async def look(self) -> list[Change]:
        """Two files for each certificate that is there."""
        await self._read(signing=False)
        paths = [
            f"{self._directory}/{one.managed.name}.{end}" for one in self._found for end in ("key", "csr")
        ]
        present = await self._host.stat_files(paths, digest=False)
        return [
            Change(Action.UPDATE if path in present else Action.CREATE, path, self.host_name)
            for path in paths
        ]

    async def act(self, changes: Sequence[Change], activity: Activity) -> None:
        """Make keys on all cores at once, and write each before its request."""
        files = []
        for one, key in zip(self._found, await self._keys(), strict=True):
            base = f"{self._directory}/{one.managed.name}"
            files.append(FileWrite(f"{base}.key", key, pki.KEY_MODE))
            files.append(FileWrite(f"{base}.csr", x509.request_again(one.cert, key), CSR_MODE))
        await self._host.write_files(files)


def _whole(pem: bytes, path: str) -> bytes:
    """A certificate that can be read. Raises `ConfigError` naming its file."""
    try:
        x509.load_cert(pem)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error.message}", hint=error.hint) from None
    return pem
