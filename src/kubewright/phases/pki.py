"""The certificates and keys of a control plane: kept where they still serve, made where they do not."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import ClassVar

from kubewright.errors import ExitCode, HostError
from kubewright.events import Activity
from kubewright.hosts import FileWrite
from kubewright.model import pki, x509
from kubewright.model.pki import CertSpec, KeyKind
from kubewright.model.x509 import KeyPair
from kubewright.phases.node import Node
from kubewright.phases.phase import Action, Change, Phase
from kubewright.secret import Secret


class Certificates(Phase):
    """Certificates under /etc/kubernetes/pki, each with its key. After `run` (or `look`, where nothing
    differed) `pairs` holds them all. `etcd_data` is the folder of this host's own etcd, or empty; what ends within
    `renew_before` is made anew."""

    name: ClassVar[str] = "certs"
    title: ClassVar[str] = "make certificates and keys"

    def __init__(
        self,
        node: Node,
        directory: str,
        specs: Sequence[CertSpec],
        *,
        authorities: Authorities | None = None,
        service_account: KeyKind | None = None,
        etcd_data: str = "",
        renew_before: timedelta = timedelta(0),
    ) -> None:
        self._node = node
        self.host_name = node.name
        self._directory = directory
        self._specs = specs
        self._authorities = authorities
        self._service_account = service_account
        self._etcd_data = etcd_data
        self._renew_before = renew_before
        self._missing: list[CertSpec] = []
        self._keys: dict[str, Secret[bytes]] = {}
        self.pairs: dict[str, KeyPair] = {}

    async def look(self) -> list[Change]:
        """Which certificates are missing, or say something else than they must."""
        paths = [path for spec in self._specs for path in (self._cert(spec), self._key(spec))]
        if self._service_account is not None:
            paths += [self._sa_key, self._sa_public]
        found = await self._node.host.read_files(paths)
        now = datetime.now(UTC)
        changes = []
        self.pairs, self._keys, self._missing = {}, {}, []
        for spec in self._specs:
            cert, key = found.get(self._cert(spec)), found.get(self._key(spec))
            if key is not None:
                self._keys[spec.name] = Secret(key)
            reasons = self._reasons(spec, cert, key, now)
            if cert is not None and not reasons:
                self.pairs[spec.name] = KeyPair(cert, Secret(key or b""))
                continue
            self._missing.append(spec)
            action = Action.CREATE if cert is None else Action.UPDATE
            changes.append(
                Change(action, self._cert(spec), self.host_name, tuple(f"# {why}" for why in reasons))
            )
        if self._service_account is not None and self._sa_key not in found:
            await self._refuse_under_a_cluster(
                self._sa_key, "a new key would void every ServiceAccount's token"
            )
        if self._service_account is not None and not {self._sa_key, self._sa_public} <= found.keys():
            changes.append(Change(Action.CREATE, self._sa_key, self.host_name))
            if self._sa_key in found:
                self._keys["sa"] = Secret(found[self._sa_key])
        return changes

    async def _refuse_under_a_cluster(self, path: str, why: str) -> None:
        """Raise `HostError` where etcd holds a cluster that would not survive what must be made anew."""
        if not self._etcd_data:
            return
        if await self._node.host.stat_files([f"{self._etcd_data}/member"], digest=False):
            raise HostError(
                f"{self.host_name}: {path} is missing or unusable, but etcd holds a cluster",
                host=self.host_name, exit_code=ExitCode.HOST_NOT_FIT,
                hint=f"restore {self._directory} from a copy; {why}",
            )  # fmt: skip

    def _reasons(self, spec: CertSpec, cert: bytes | None, key: bytes | None, now: datetime) -> list[str]:
        if cert is None:
            return []
        if spec.is_ca:
            # A CA whose key is elsewhere is a legitimate set-up; who needs its signature will say so.
            return x509.matches(cert, spec, now=now, key=Secret(key) if key else None)
        ca = self._authorities.pairs.get(spec.ca) if self._authorities is not None else None
        if ca is None:
            return ["its CA is made anew"]
        # A new one would end no later than its CA.
        early = self._renew_before if x509.ends(ca.cert) > now + self._renew_before else timedelta(0)
        return x509.matches(cert, spec, now=now, ca=ca.cert, key=Secret(key or b""), renew_before=early)

    async def act(self, changes: Sequence[Change], activity: Activity) -> None:
        """Make keys on all cores at once, sign, and write each key before its certificate."""
        now = datetime.now(UTC)
        # An authority keeps its key; a leaf gets a new one with each new certificate.
        kinds = {
            spec.name: spec.key_kind for spec in self._missing if not (spec.is_ca and spec.name in self._keys)
        }
        pair_wanted = any(change.target == self._sa_key for change in changes)
        if pair_wanted and "sa" not in self._keys and self._service_account is not None:
            kinds["sa"] = self._service_account
        made = dict(zip(kinds, await x509.new_keys(list(kinds.values())), strict=True))
        files: list[FileWrite] = []
        for spec in self._missing:
            key = made.get(spec.name) or self._keys[spec.name]
            if spec.is_ca:
                pair = x509.self_signed_ca(spec, key, now)
            else:
                assert self._authorities is not None
                pair = x509.sign(spec, key, self._authorities.signer(spec), now)
            self.pairs[spec.name] = pair
            files.append(FileWrite(self._key(spec), pair.key, pki.KEY_MODE))
            files.append(FileWrite(self._cert(spec), pair.cert, pki.CERT_MODE))
        if pair_wanted:
            key = made.get("sa") or self._keys["sa"]
            files.append(FileWrite(self._sa_key, key, pki.KEY_MODE))
            files.append(FileWrite(self._sa_public, x509.public_key(key), pki.PUBLIC_KEY_MODE))
        await self._node.host.write_files(files)

    @property
    def _sa_key(self) -> str:
        return f"{self._directory}/{pki.SERVICE_ACCOUNT_KEY}"

    @property
    def _sa_public(self) -> str:
        return f"{self._directory}/{pki.SERVICE_ACCOUNT_PUBLIC_KEY}"

    def _cert(self, spec: CertSpec) -> str:
        return spec.cert_path(self._directory)

    def _key(self, spec: CertSpec) -> str:
        return spec.key_path(self._directory)


class Authorities(Certificates):
    """The cluster's CAs, which come first: with them alone the kubelet can be given its credentials."""

    name: ClassVar[str] = "certs-ca"
    title: ClassVar[str] = "make the cluster's authorities"

    @property
    def ca(self) -> KeyPair:
        """The cluster's CA."""
        return self.pairs["ca"]

    async def look(self) -> list[Change]:
        """Which are missing. One that is missing under a living cluster is refused, not made anew."""
        changes = await super().look()
        if changes:
            await self._refuse_under_a_cluster(changes[0].target, "a new CA would cut off every node")
        return changes

    def signer(self, spec: CertSpec) -> KeyPair:
        """The authority that signs `spec`. Raises `HostError` where its key is not on the host."""
        ca = self.pairs[spec.ca]
        if not ca.key.reveal():
            raise HostError(
                f"{self.host_name}: {spec.name} must be signed, and the key of its CA ({spec.ca}) is not there",
                host=self.host_name, exit_code=ExitCode.HOST_NOT_FIT,
                hint="put the CA's key beside its certificate, or put a certificate signed elsewhere in place",
            )  # fmt: skip
        return ca
