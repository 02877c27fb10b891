"""Keys and certificate signing requests of a whole control plane, for a CA that is elsewhere."""

from __future__ import annotations

import posixpath
from collections.abc import Sequence
from typing import ClassVar

from kubewright.errors import ExitCode, HostError
from kubewright.events import Activity
from kubewright.hosts import FileWrite, Host
from kubewright.model import kubeconfig, pki, x509
from kubewright.model.kubeconfig import KUBECONFIG_MODE, KubeconfigSpec
from kubewright.model.pki import CertSpec
from kubewright.phases.phase import Action, Change, Phase

CSR_MODE = 0o600


class GenerateRequests(Phase):
    """A key and a request for each certificate, and kubeconfigs that lack nothing but their certificates.

    A certificate has `BASE.key` and `BASE.csr` below `directory`, a kubeconfig `NAME` has `NAME.csr` beside it.
    """

    name: ClassVar[str] = "certs-generate-csr"
    title: ClassVar[str] = "write keys and certificate signing requests"

    def __init__(
        self, host: Host, certs: Sequence[CertSpec], kubeconfigs: Sequence[KubeconfigSpec], *, directory: str,
        kubeconfig_dir: str,
    ) -> None:  # fmt: skip
        self._host = host
        self.host_name = host.name
        self._certs = certs
        self._kubeconfigs = kubeconfigs
        self._directory = directory
        self._kubeconfig_dir = kubeconfig_dir

    async def look(self) -> list[Change]:
        """All files. Raises `HostError` where one of them is there: a key that is in use must not be lost."""
        paths = [path for spec in self._certs for path in (self._path(spec, "key"), self._path(spec, "csr"))]
        for config in self._kubeconfigs:
            paths += [self._kubeconfig(config), f"{self._kubeconfig(config)}.csr"]
        if present := await self._host.stat_files(paths, digest=False):
            exist = "exists" if len(present) == 1 else "exist"
            raise HostError(
                f"{self.host_name}: {', '.join(sorted(present))} {exist} already", host=self.host_name,
                exit_code=ExitCode.FAILURE,
                hint="name other directories with --cert-dir and --kubeconfig-dir, or move the files away",
            )  # fmt: skip
        return [Change(Action.CREATE, path, self.host_name) for path in paths]

    async def act(self, changes: Sequence[Change], activity: Activity) -> None:
        """Make keys on all cores at once, and write each before its request."""
        specs = [*self._certs, *(config.cert for config in self._kubeconfigs)]
        keys = await x509.new_keys([spec.key_kind for spec in specs])
        files = []
        for spec, key in zip(self._certs, keys, strict=False):
            files.append(FileWrite(self._path(spec, "key"), key, pki.KEY_MODE))
            files.append(FileWrite(self._path(spec, "csr"), x509.request(spec, key), CSR_MODE))
        for config, key in zip(self._kubeconfigs, keys[len(self._certs) :], strict=True):
            path = self._kubeconfig(config)
            content = kubeconfig.dump(kubeconfig.with_key(config, key))
            files.append(FileWrite(path, content, KUBECONFIG_MODE))
            files.append(FileWrite(f"{path}.csr", x509.request(config.cert, key), CSR_MODE))
        await self._host.write_files(files)

    def _path(self, spec: CertSpec, end: str) -> str:
        return posixpath.join(self._directory, f"{spec.base}.{end}")

    def _kubeconfig(self, config: KubeconfigSpec) -> str:
        return posixpath.join(self._kubeconfig_dir, config.file)
