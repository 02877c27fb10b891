"""The certificates and keys of a control plane: kept where they still serve, made where they do not."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import ClassVar

from kubewright.errors import ExitCode, HostError
from kubewright.events import Activity
from kubewright.hosts import FileWrite
from kubewright.model import pki, x509
from kubewright.model.config.kubeadm import ClusterConfiguration
from kubewright.model.node import ControlPlaneNode
from kubewright.model.pki import CertSpec
from kubewright.model.x509 import KeyPair
from kubewright.phases.node import Node
from kubewright.phases.phase import Action, Change, Phase
from kubewright.secret import Secret


class Pki(Phase):
    """Everything under /etc/kubernetes/pki. After `run` (or `look`, where nothing differed) `pairs` holds it."""

    name: ClassVar[str] = "certs"
    title: ClassVar[str] = "make certificates and keys"

    def __init__(self, node: Node, cluster: ClusterConfiguration, control_plane: ControlPlaneNode) -> None:
        self._node = node
        self.host_name = node.name
        self._directory = cluster.certificates_dir
        self._cas = pki.cluster_cas(cluster)
        self._leaves = pki.control_plane_certs(cluster, control_plane)
        self._key_kind = pki.key_kind(cluster)
        self._missing: list[CertSpec] = []
        self._keys: dict[str, Secret[bytes]] = {}
        self._service_account = False
        self.pairs: dict[str, KeyPair] = {}

    @property
    def ca(self) -> KeyPair:
        """The cluster's CA."""
        return self.pairs["ca"]

    async def look(self) -> list[Change]:
        """Which certificates are missing, or say something else than they must."""
        specs = [*self._cas, *self._leaves]
        sa_key, sa_public = (
            f"{self._directory}/{name}" for name in (pki.SERVICE_ACCOUNT_KEY, pki.SERVICE_ACCOUNT_PUBLIC_KEY)
        )
        paths = [path for spec in specs for path in (self._cert(spec), self._key(spec))]
        found = await self._node.host.read_files([*paths, sa_key, sa_public])
        now = datetime.now(UTC)
        changes = []
        self.pairs, self._keys, self._missing = {}, {}, []
        for spec in specs:
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
        self._service_account = sa_key not in found
        if sa_key not in found or sa_public not in found:
            changes.append(Change(Action.CREATE, sa_key, self.host_name))
            if sa_key in found:
                self._keys["sa"] = Secret(found[sa_key])
        await self._refuse_lost_ca()
        return changes

    def _reasons(self, spec: CertSpec, cert: bytes | None, key: bytes | None, now: datetime) -> list[str]:
        if cert is None:
            return []
        if spec.is_ca:
            # A CA whose key is elsewhere is a legitimate set-up; who needs its signature will say so.
            return x509.matches(cert, spec, now=now, key=Secret(key) if key else None)
        ca = self.pairs.get(spec.ca)
        if ca is None:
            return ["its CA is made anew"]
        return x509.matches(cert, spec, now=now, ca=ca.cert, key=Secret(key or b""))

    async def _refuse_lost_ca(self) -> None:
        lost = [spec for spec in self._missing if spec.is_ca]
        if not lost:
            return
        found = await self._node.host.stat_files(["/var/lib/etcd/member"], digest=False)
        if found:
            raise HostError(
                f"{self.host_name}: {self._cert(lost[0])} is missing or unusable, but etcd holds a cluster",
                host=self.host_name, exit_code=ExitCode.HOST_NOT_FIT,
                hint="restore /etc/kubernetes/pki from a copy; a new CA would cut off every node",
            )  # fmt: skip

    async def act(self, changes: Sequence[Change], activity: Activity) -> None:
        """Make keys on all cores at once, sign, and write each key before its certificate."""
        now = datetime.now(UTC)
        # An authority keeps its key; a leaf gets a new one with each new certificate.
        fresh = [spec for spec in self._missing if not (spec.is_ca and spec.name in self._keys)]
        new_sa = self._service_account
        keys = await x509.new_keys([spec.key_kind for spec in fresh] + [self._key_kind] * new_sa)
        made = dict(zip((spec.name for spec in fresh), keys, strict=False))
        files: list[FileWrite] = []
        for spec in self._missing:
            key = made.get(spec.name) or self._keys[spec.name]
            if spec.is_ca:
                pair = x509.self_signed_ca(spec, key, now)
            else:
                pair = x509.sign(spec, key, self.signer(spec), now)
            self.pairs[spec.name] = pair
            files.append(FileWrite(self._key(spec), pair.key, pki.KEY_MODE))
            files.append(FileWrite(self._cert(spec), pair.cert, pki.CERT_MODE))
        if any(change.target.endswith(pki.SERVICE_ACCOUNT_KEY) for change in changes):
            key = keys[-1] if new_sa else self._keys["sa"]
            files.append(FileWrite(f"{self._directory}/{pki.SERVICE_ACCOUNT_KEY}", key, pki.KEY_MODE))
            files.append(
                FileWrite(
                    f"{self._directory}/{pki.SERVICE_ACCOUNT_PUBLIC_KEY}",
                    x509.public_key(key),
                    pki.PUBLIC_KEY_MODE,
                )
            )
        await self._node.host.write_files(files)

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

    def _cert(self, spec: CertSpec) -> str:
        return spec.cert_path(self._directory)

    def _key(self, spec: CertSpec) -> str:
        return spec.key_path(self._directory)
