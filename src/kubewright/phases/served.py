"""Waiting until an API server shows the certificate that has been written for it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import ClassVar

from kubewright.clients.served import served_certificate
from kubewright.errors import ConfigError
from kubewright.events import Activity
from kubewright.model import manifests, x509
from kubewright.model.node import host_port, is_address
from kubewright.phases.node import Node
from kubewright.phases.phase import Change, Phase
from kubewright.phases.waiting import wait_until

_ANSWER = 5.0
"""Seconds for one connection."""
_CERTIFICATE = "/etc/kubernetes/pki/apiserver.crt"
_MANIFEST = manifests.manifest_path(manifests.API_SERVER)


class CertificateServed(Phase):
    """The API server of one control plane serves a certificate for all of `names`.

    It reads its files again by itself: once a minute since 1.17 (kubernetes/kubernetes#84200), and as soon as they
    change since 1.23 (kubernetes/kubernetes#104102).
    """

    name: ClassVar[str] = "certificate-served"
    title: ClassVar[str] = "wait until the API server shows its new certificate"
    always_verify: ClassVar[bool] = True

    def __init__(
        self,
        node: Node,
        address: str,
        port: int,
        names: Sequence[str],
        *,
        path: str = _CERTIFICATE,
        deadline: float = 90.0,
    ) -> None:
        """The host itself connects to `address`:`port`. `names` are DNS names and IP addresses, `path` is where
        the certificate stands there, and `deadline` is in seconds."""
        self._node = node
        self.host_name = node.name
        self._at = address, port
        self._names = names
        self._path = path
        self._deadline = deadline
        self._shown: bytes | None = None

    async def look(self) -> list[Change]:
        """Nothing: the API server does it."""
        return []

    async def act(self, changes: Sequence[Change], activity: Activity) -> None:
        """Nothing to do."""

    async def verify(self, activity: Activity) -> None:
        """Wait for it. Raises `WaitTimeoutError` with what is served instead."""
        await wait_until(
            self._missing,
            f"{self.host_name}: the API server to show a certificate for {', '.join(self._names)}",
            deadline=self._deadline, interval=0.5, diagnose=self._diagnose, progress=activity.progress,
            hint="kube-apiserver below 1.23 reads its certificate once a minute, newer ones when it changes; one "
            f"that does not is restarted by moving {_MANIFEST} out of its folder, and back half a minute later",
        )  # fmt: skip

    async def _missing(self) -> str | None:
        # By the name that a client sends, a server can choose between certificates (--tls-sni-cert-key).
        sent = dict.fromkeys("" if is_address(name) else name for name in self._names)
        for said in sent:
            self._shown = None
            try:
                async with asyncio.timeout(_ANSWER), self._node.host.forward_tcp(*self._at) as near:
                    self._shown = await served_certificate(*near, said or self._at[0])
            except TimeoutError:
                return f"no answer in {_ANSWER:g} s"
            except OSError as error:
                return str(error) or "the connection was ended"
            asked = [name for name in self._names if name == said or (not said and is_address(name))]
            if lacks := x509.lacking(self._shown, asked):
                return f"the certificate that is served is not for {', '.join(lacks)}"
        return None

    async def _diagnose(self) -> list[str]:
        where = host_port(*self._at)
        evidence = [f"served at {where}: {_described(self._shown)}"] if self._shown else []
        content = await self._node.host.read_file(self._path)
        if content is None:
            return [*evidence, f"there is no {self._path}"]
        evidence.append(f"{self._path}: {_described(content)}")
        if not _lacks(content, self._names):
            evidence.append("the file has all names: the API server has not read it again")
        return evidence


def _described(pem: bytes) -> str:
    try:
        return x509.description(pem)
    except ConfigError as error:
        return error.message


def _lacks(pem: bytes, names: Sequence[str]) -> list[str]:
    try:
        return x509.lacking(pem, names)
    except ConfigError:
        return list(names)
