"""The kubeconfigs under /etc/kubernetes of a control plane."""

from __future__ import annotations

import posixpath
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import ClassVar

from kubewright.events import Activity
from kubewright.hosts import FileWrite
from kubewright.model import kubeconfig, x509
from kubewright.model.kubeconfig import KubeconfigSpec
from kubewright.phases.bootstrap import write_client_certificate
from kubewright.phases.node import Node
from kubewright.phases.phase import Action, Change, Phase
from kubewright.phases.pki import Authorities


class Kubeconfigs(Phase):
    """Kubeconfigs with certificates of our own, in `directory`.

    After `run`, `admin` and `first` hold those that administrators use, if they are among them; after `look`
    alone, only what still serves. With `embedded`, the kubelet's holds its certificate as the others do, for a
    kubelet that is to fetch the one that it rotates by itself.
    """

    name: ClassVar[str] = "kubeconfig"
    title: ClassVar[str] = "write kubeconfigs"

    def __init__(
        self,
        node: Node,
        specs: Sequence[KubeconfigSpec],
        certs: Authorities,
        name: str = "kubeconfig",
        *,
        directory: str = kubeconfig.KUBERNETES_DIR,
        embedded: bool = False,
    ) -> None:
        self._node = node
        self.host_name = node.name
        self.name = name  # type: ignore[misc]  # the kubelet's comes before the others
        self._specs = specs
        self._certs = certs
        self._directory = directory
        self._embedded = embedded
        self._wanted: list[KubeconfigSpec] = []
        self._serving: dict[str, bytes] = {}

    @property
    def admin(self) -> bytes:
        """admin.conf, which users are given."""
        return self._serving.get(kubeconfig.ADMIN, b"")

    @property
    def first(self) -> bytes:
        """The one whose rights no object in the cluster has to give: super-admin.conf where there is one."""
        return self._serving.get(kubeconfig.SUPER_ADMIN) or self.admin

    async def look(self) -> list[Change]:
        """Which are missing, use another server or CA, or hold a certificate that no longer serves."""
        found = await self._node.host.read_files(
            [*map(self._path, self._specs), kubeconfig.KUBELET_CLIENT_CURRENT]
        )
        now = datetime.now(UTC)
        ca = self._certs.pairs.get("ca")
        self._wanted = []
        changes = []
        for spec in self._specs:
            content = found.get(self._path(spec))
            if content is None:
                reasons, action = ["missing"], Action.CREATE
            elif ca is None:
                reasons, action = ["its CA is made anew"], Action.UPDATE
            else:
                reasons, action = kubeconfig.reasons(content, spec, ca.cert, now=now), Action.UPDATE
                if spec.file == kubeconfig.KUBELET:
                    pem = found.get(kubeconfig.KUBELET_CLIENT_CURRENT)
                    reasons += self._rotating_reasons(spec, content, pem, ca.cert, now)
            self._serving[spec.file] = content if content is not None and not reasons else b""
            if reasons:
                self._wanted.append(spec)
                changes.append(
                    Change(
                        action,
                        self._path(spec),
                        self.host_name,
                        tuple(f"# {why}" for why in reasons if content),
                    )
                )
        return changes

    def _rotating_reasons(
        self, spec: KubeconfigSpec, content: bytes, pem: bytes | None, ca: bytes, now: datetime
    ) -> list[str]:
        """Whether the certificate that the kubelet rotates is there and serves (P23)."""
        _, user = kubeconfig.current(kubeconfig.load(content, spec.path))
        if "client-certificate" not in user:
            return []
        if pem is None:
            return [f"{kubeconfig.KUBELET_CLIENT_CURRENT} is missing"]
        return x509.matches(pem, spec.cert, now=now, ca=ca)

    async def act(self, changes: Sequence[Change], activity: Activity) -> None:
        """Sign a certificate for each and write it.

        The kubelet's goes where the kubelet itself puts it after its first rotation, and `kubelet.conf` names
        that place from the start: kubeadm writes it inside first, and restarts the kubelet to get there.
        """
        now = datetime.now(UTC)
        keys = await x509.new_keys([spec.cert.key_kind for spec in self._wanted])
        ca = self._certs.ca.cert
        files = []
        of_kubelet = None
        for spec, key in zip(self._wanted, keys, strict=True):
            pair = x509.sign(spec.cert, key, self._certs.signer(spec.cert), now)
            if spec.file == kubeconfig.KUBELET and not self._embedded:
                document = kubeconfig.with_rotating_certificate(spec, ca)
                file = FileWrite(self._path(spec), kubeconfig.dump(document), kubeconfig.KUBECONFIG_MODE)
                of_kubelet = pair, file
                continue
            content = kubeconfig.dump(kubeconfig.with_certificate(spec, ca, pair))
            self._serving[spec.file] = content.reveal()
            files.append(FileWrite(self._path(spec), content, kubeconfig.KUBECONFIG_MODE))
        await self._node.host.write_files(files)
        if of_kubelet is not None:
            await write_client_certificate(self._node.host, *of_kubelet)

    def _path(self, spec: KubeconfigSpec) -> str:
        return posixpath.join(self._directory, spec.file)
