"""Single questions to a host: containers, certificates, load balancers."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from kubewright.clients.cri import CriClient, find_socket, open_cri, system_containers
from kubewright.clients.haproxy import ask_haproxy
from kubewright.clients.served import served_certificate
from kubewright.errors import ConfigError
from kubewright.hosts import Host
from kubewright.model import x509
from kubewright.model.cert_settings import CertSettings
from kubewright.model.haproxy import STATS_SOCKET
from kubewright.model.kubeconfig import KUBELET_CLIENT_CURRENT
from kubewright.model.loadbalancer import BACKENDS_PATH, unit_of
from kubewright.model.nginx import CHECK_UNIT, UPSTREAM_PATH
from kubewright.model.node import ControlPlaneNode, split_endpoint
from kubewright.model.status import CONTROL_PLANE_PARTS
from kubewright.model.status_certs import SeenCert
from kubewright.model.status_hosts import ContainerStatus
from kubewright.model.status_proxies import SHOW_STAT, BackendStatus, ProxyStatus, backends, nginx_backends
from kubewright.phases.renewal import expiries
from kubewright.workflows.status_ask import ASK, LOOK, bounded

if TYPE_CHECKING:
    from kubewright.model.config.cluster import ClusterSpec


@dataclass(frozen=True, slots=True)
class Wanted:
    """The load balancers that a host should run."""

    kinds: tuple[str, ...] = ()
    """Of `haproxy`, `nginx` and `keepalived`."""
    virtual_ip: str = ""
    """keepalived's."""


def wanted_of(spec: ClusterSpec) -> Wanted:
    """What each of the endpoint's hosts should run."""
    endpoint = spec.endpoint
    if endpoint is None or endpoint.program is None:
        return Wanted()
    virtual = endpoint.type == "keepalived"
    address = split_endpoint(endpoint.address)[0] if virtual else ""
    return Wanted((endpoint.program, *(("keepalived",) if virtual else ())), address)


# -- static Pods --------------------------------------------------------------------------------------------------


async def containers(host: Host) -> tuple[tuple[ContainerStatus, ...] | None, str]:
    """The control plane's containers as the host's runtime knows them; None, and why, where it does not answer."""
    found, error = await bounded(_containers(host), LOOK)
    return found, error and f"its container runtime: {error}"


async def _containers(host: Host) -> tuple[ContainerStatus, ...]:
    async with open_cri(host, await find_socket(host), timeout=ASK) as cri:
        return await _of_pods(cri)


async def _of_pods(cri: CriClient) -> tuple[ContainerStatus, ...]:
    mine = [one for one, _ in await system_containers(cri, CONTROL_PLANE_PARTS)]
    return tuple(
        ContainerStatus(
            name,
            any(one.running for one in mine if one.name == name),
            max(one.attempt for one in mine if one.name == name),
        )
        for name in CONTROL_PLANE_PARTS
        if any(one.name == name for one in mine)
    )


# -- certificates -------------------------------------------------------------------------------------------------

# The file holds the kubelet's key, too, which need not leave the host.
_CERTIFICATES_ALONE = 'sed -n "/-----BEGIN CERT/,/-----END CERT/p" "$1" 2>/dev/null'


async def certificates(host: Host, pki: str) -> tuple[list[SeenCert], list[str]]:
    """The certificates of a control plane's files, and what hindered us."""
    settings = CertSettings(pki)
    async with asyncio.TaskGroup() as group:
        files = group.create_task(bounded(expiries(host, settings), LOOK))
        kubelet = group.create_task(
            bounded(host.shell(_CERTIFICATES_ALONE, KUBELET_CLIENT_CURRENT, check=False, timeout=ASK))
        )
    found, error = files.result()
    rows = [(one.name, one.ends) for kind in found or () for one in kind]
    certs = [SeenCert(host.name, name, ends) for name, ends in rows if ends is not None]
    pem, _ = kubelet.result()
    if pem is not None and pem.stdout.strip():
        try:
            certs.append(SeenCert(host.name, "kubelet-client", x509.ends(pem.stdout)))
        except ConfigError as broken:
            error = error or f"{KUBELET_CLIENT_CURRENT}: {broken.message}"
    return certs, [f"certificates: {error}"] if error else []


async def served(host: Host, node: ControlPlaneNode) -> datetime | None:
    """When the certificate ends that the host's API server serves; None where none is served."""
    found, _ = await bounded(_served(host, node))
    return found


async def _served(host: Host, node: ControlPlaneNode) -> datetime | None:
    async with host.forward_tcp(node.advertise_address, node.bind_port) as (address, port):
        try:
            return x509.ends(await served_certificate(address, port, "kubernetes"))
        except (OSError, ConfigError):
            return None


# -- load balancers -----------------------------------------------------------------------------------------------

_STATES = 'for unit; do systemctl is-active "$unit" || :; done; echo; ip -o addr show 2>/dev/null'


async def proxies(host: Host, wanted: Wanted) -> list[ProxyStatus]:
    """The load balancers that the host should run, each with its state."""
    if not wanted.kinds:
        return []
    units = [*map(unit_of, wanted.kinds), *([CHECK_UNIT] if "nginx" in wanted.kinds else [])]
    found, error = await bounded(host.shell(_STATES, *units, check=False, timeout=ASK))
    if found is None:
        return [ProxyStatus(host.name, kind, runs=False, problem=error) for kind in wanted.kinds]
    text, _, addresses = found.text.partition("\n\n")
    states = dict(zip(units, text.split(), strict=False))
    result = []
    for kind in wanted.kinds:
        state = states.get(unit_of(kind), "unknown")
        runs = state == "active"
        problem = "" if runs else f"its unit is {state}"
        checks = states.get(CHECK_UNIT, "unknown") if kind == "nginx" else "active"
        seen: tuple[BackendStatus, ...] = ()
        if runs and checks != "active":  # what its file says of its servers is old
            problem = f"nobody checks its backends: {CHECK_UNIT} is {checks}"
        elif kind in _ASK and runs:
            said, error = await bounded(_ASK[kind](host))
            problem = error and f"it does not say how its backends are: {error}"
            seen = said or ()
        has = None
        if kind == "keepalived":
            has = f" {wanted.virtual_ip}/" in addresses
        result.append(ProxyStatus(host.name, kind, runs, seen, has, problem))
    return result


async def _ask_haproxy(host: Host) -> tuple[BackendStatus, ...]:
    return backends(await ask_haproxy(host, STATS_SOCKET, SHOW_STAT))


async def _ask_nginx(host: Host) -> tuple[BackendStatus, ...]:
    """nginx says nothing; what its health checks have found stands in its file of servers."""
    found = await host.read_files([UPSTREAM_PATH, BACKENDS_PATH])
    return nginx_backends(found.get(UPSTREAM_PATH, b""), found.get(BACKENDS_PATH, b""))


_ASK = {"haproxy": _ask_haproxy, "nginx": _ask_nginx}
