"""Asking the programs of a control plane whether they serve, each in its own way and on its own node."""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from kubewright.clients.etcd import EtcdClient
from kubewright.clients.server import Server
from kubewright.errors import ApiError, KubewrightError
from kubewright.hosts import Host
from kubewright.model.manifests import API_SERVER, ETCD
from kubewright.model.reset import container_flags
from kubewright.phases.api import api_over
from kubewright.phases.etcd import credentials

_TIMEOUT = 5.0
_PORTS = {"kube-controller-manager": 10257, "kube-scheduler": 10259}


async def not_serving(
    host: Host, component: str, pod: Mapping[str, Any], server: Server, certificates_dir: str
) -> str | None:
    """Why a program of this node does not serve; None where it does. Raises `HostError` alone.

    `pod` is its static Pod; `server` leads an administrator to the node's own API server.
    """
    flags = container_flags(pod)
    try:
        if component == API_SERVER:
            async with api_over(host, server, timeout=_TIMEOUT) as kube:
                await kube.request("GET", "/readyz")
            return None
        if component == ETCD:
            url = flags.get("advertise-client-urls", "").split(",")[0]
            async with EtcdClient([url], await credentials(host, certificates_dir), host.forward_tcp) as etcd:
                why = await etcd.health(url)
            return f"etcd is not healthy: {why}" if why else None
        return await _healthz(host, component, flags)
    except ApiError as error:
        # /readyz lists what is well, too.
        ill = [line.removeprefix("[-]") for line in error.message.splitlines() if line.startswith("[-]")]
        return f"not ready: {', '.join(ill)}" if ill else error.message.splitlines()[0]


async def _healthz(host: Host, component: str, flags: Mapping[str, str]) -> str | None:
    """A controller's /healthz, which it serves to anybody with a certificate that it signs itself."""
    import aiohttp

    address = flags.get("bind-address", "127.0.0.1")
    if address in ("0.0.0.0", "::"):  # noqa: S104 - listened on, not by us
        address = "127.0.0.1" if address == "0.0.0.0" else "::1"  # noqa: S104
    port = int(flags.get("secure-port") or _PORTS[component])
    insecure = ssl.create_default_context()
    insecure.check_hostname, insecure.verify_mode = False, ssl.CERT_NONE
    try:
        async with (
            host.forward_tcp(address, port) as (near, near_port),
            aiohttp.ClientSession(
                timeout=aiohttp.ClientTimeout(total=_TIMEOUT), connector=aiohttp.TCPConnector(ssl=insecure)
            ) as session,
        ):
            name = f"[{near}]" if ":" in near else near
            async with session.get(f"https://{name}:{near_port}/healthz") as answer:
                return None if answer.status == 200 else f"{component}: /healthz answers {answer.status}"
    except (aiohttp.ClientError, OSError, TimeoutError) as error:
        return f"{component} does not answer on port {port}: {str(error) or 'no answer in time'}"
    except KubewrightError as error:
        return error.message


def own_server(server: Server, url: str) -> Server:
    """The same administrator at the node's own API server."""
    from dataclasses import replace

    return replace(server, url=url, tls_server_name=urlsplit(url).hostname or "")
