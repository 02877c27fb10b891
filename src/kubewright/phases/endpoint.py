"""Whether an endpoint leads to this cluster, and to no other."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Sequence
from typing import ClassVar

from kubewright.clients.served import served_certificate
from kubewright.errors import ConfigError, ExitCode, HostError
from kubewright.events import Activity
from kubewright.model import x509
from kubewright.model.node import split_endpoint
from kubewright.phases.node import Node
from kubewright.phases.phase import Change, Phase
from kubewright.phases.waiting import wait_until

_ANSWER = 5.0
"""Seconds for one connection."""
_DEADLINE = 30.0
# OpenSSL's X509_V_ERR_HOSTNAME_MISMATCH and X509_V_ERR_IP_ADDRESS_MISMATCH (openssl-verification-options(1)).
_WRONG_NAME = (62, 64)


class EndpointIsOurs(Phase):
    """An endpoint of type `external`: refused where another cluster answers, and never touched."""

    name: ClassVar[str] = "endpoint"
    title: ClassVar[str] = "check the endpoint"

    def __init__(self, node: Node, address: str, ca: bytes | None, *, must_answer: bool) -> None:
        """`node` connects to `address`; `ca` is the cluster's as PEM, None where it is yet to be made."""
        self._node = node
        self.host_name = node.name
        self._address = address
        self._ca = ca
        self._deadline = _DEADLINE
        self.always_verify = must_answer  # type: ignore[misc]  # before there is a cluster nobody can answer

    async def look(self) -> list[Change]:
        """Raise `HostError` where another cluster answers; there is nothing to change."""
        await self._silent()
        return []

    async def act(self, changes: Sequence[Change], activity: Activity) -> None:
        """Nothing: it is the user's own."""

    async def verify(self, activity: Activity) -> None:
        """Wait until this cluster answers there. Raises `WaitTimeoutError`."""
        await wait_until(
            self._silent, f"the endpoint {self._address} to answer", deadline=self._deadline, interval=0.25,
            progress=activity.progress, hint=self._hint(),
        )  # fmt: skip

    def _hint(self) -> str:
        return "let your load balancer pass TCP on to port 6443 of the control planes: nobody else changes it"

    async def _silent(self) -> str | None:
        """Why nobody answers; None where this cluster does. Raises `HostError` where another one does."""
        name, port = split_endpoint(self._address)
        try:
            async with asyncio.timeout(_ANSWER), self._node.host.forward_tcp(name, port) as near:
                return await self._handshake(near, name)
        except TimeoutError:
            return f"no answer in {_ANSWER:g} s, as {self._node.name} sees it"
        except (OSError, EOFError) as error:
            return f"{str(error) or 'the connection was ended'}, as {self._node.name} sees it"

    async def _handshake(self, near: tuple[str, int], name: str) -> str | None:
        if self._ca is None:
            raise self._another(await served_certificate(*near, name), "and this cluster is yet to be made")
        context = ssl.create_default_context(cadata=self._ca.decode())
        context.verify_flags &= ~ssl.VERIFY_X509_STRICT
        try:
            _, writer = await asyncio.open_connection(*near, ssl=context, server_hostname=name)
        except ssl.SSLCertVerificationError as error:
            pem = await served_certificate(*near, name)
            if error.verify_code in _WRONG_NAME:
                raise HostError(
                    f"the endpoint {self._address} leads to this cluster, but the certificate there is not for "
                    f"{name} (P26)",
                    hint="add the name to clusterConfiguration.apiServer.certSANs, then `kubewright apply` again",
                    evidence=_description(pem), exit_code=ExitCode.HOST_NOT_FIT,
                ) from error  # fmt: skip
            raise self._another(pem, f"not by this cluster's CA: {error.verify_message}") from error
        writer.transport.abort()
        return None

    def _another(self, pem: bytes, why: str) -> HostError:
        return HostError(
            f"the endpoint {self._address} answers with another cluster's certificate, {why}",
            hint="let it lead to the control planes of this cluster, or give another endpoint in cluster.yaml",
            evidence=_description(pem), exit_code=ExitCode.HOST_IN_OTHER_CLUSTER,
        )  # fmt: skip


class EndpointAnswers(EndpointIsOurs):
    """An endpoint of any type answers one host with a certificate of this cluster's CA for its name."""

    name: ClassVar[str] = "endpoint-answers"
    title: ClassVar[str] = "wait until the endpoint answers"

    def __init__(self, node: Node, address: str, ca: bytes, *, deadline: float = _DEADLINE) -> None:
        """`node` connects to `address`, a `host:port`; `ca` is the cluster's as PEM, `deadline` in seconds."""
        super().__init__(node, address, ca, must_answer=True)
        self._deadline = deadline

    async def look(self) -> list[Change]:
        """Nothing: its programs may have just been started."""
        return []

    def _hint(self) -> str:
        return (
            f"can {self.host_name} reach {self._address}? Where Kubewright runs its proxies, "
            "`systemctl status 'kubewright-*'` on their hosts tells more"
        )


def _description(pem: bytes) -> list[str]:
    try:
        return [x509.description(pem)]
    except ConfigError as error:
        return [error.message]
