"""What must hold between a cluster's endpoint and its hosts."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import ip_address

from kubewright.model.config.cluster import ClusterSpec, Role
from kubewright.model.config.endpoint import LOCAL_HOST, endpoint_hosts, endpoint_port
from kubewright.model.config.findings import Finding
from kubewright.model.config.kubeadm import FIELD
from kubewright.model.config.yamltext import Path
from kubewright.model.node import API_PORT, is_address, split_endpoint

_ADDRESS: Path = ("endpoint", "address")
_EXTERNAL = "an endpoint of type external is your own"


def endpoint_findings(spec: ClusterSpec, said: str, api_port: int = API_PORT) -> list[Finding]:
    """All mistakes; `said` is the `controlPlaneEndpoint` of a passed-through ClusterConfiguration."""
    if spec.endpoint is None:
        return list(_idle_load_balancers(spec, _EXTERNAL)) if said else list(_missing(spec))
    path = _ADDRESS
    if said and not spec.endpoint.address and spec.endpoint.type != "local":
        path = (FIELD, "controlPlaneEndpoint")
        spec = spec.model_copy(update={"endpoint": spec.endpoint.model_copy(update={"address": said})})
    return [*_address(spec, path), *_foreign_fields(spec), *_hosts(spec), *_port(spec, path, api_port)]


def _missing(spec: ClusterSpec) -> Iterator[Finding]:
    names = ", ".join(host.name for host in spec.control_planes)
    if len(spec.control_planes) > 1:
        yield Finding(
            ("hosts",),
            f"{len(spec.control_planes)} control planes ({names}) need an endpoint, for else all clients would "
            f"depend on the first of them (P30)",
            hint="add `endpoint: {type: local}`, which needs no further host; other types: haproxy, nginx, "
            "keepalived, external",
        )
    yield from _idle_load_balancers(spec, "there is no endpoint")


def _idle_load_balancers(spec: ClusterSpec, why: str) -> Iterator[Finding]:
    for index, host in enumerate(spec.hosts):
        if Role.LOAD_BALANCER in host.roles:
            yield Finding(
                ("hosts", index, "roles"),
                f"load-balancer: {why}, so that it would have nothing to do",
                hint="set `endpoint: {type: haproxy}` (or nginx, or keepalived), or take the role away",
            )


def _address(spec: ClusterSpec, path: Path) -> Iterator[Finding]:
    endpoint = spec.endpoint
    assert endpoint is not None
    address = endpoint.address
    hosts = endpoint_hosts(spec)
    if endpoint.type == "external" and not address:
        yield Finding(
            ("endpoint",), "type external needs an address",
            hint="add the address that your load balancer serves: `address: api.example.com:6443`",
        )  # fmt: skip
    elif endpoint.type == "keepalived":
        yield from _virtual_ip(spec, address, path)
    elif endpoint.type == "local" and address and split_endpoint(address)[0] != LOCAL_HOST:
        yield Finding(
            path, f"type local is at {LOCAL_HOST} on every node",
            hint=f"leave the address out, or write `{LOCAL_HOST}:PORT` for another port than 6444",
        )  # fmt: skip
    elif endpoint.type in ("haproxy", "nginx") and not address and len(hosts) > 1:
        names = ", ".join(host.name for host in hosts)
        yield Finding(
            ("endpoint",), f"{len(hosts)} proxies ({names}) need an address that leads to all of them",
            hint="add `address: api.example.com:6443`, a DNS name with the addresses of all, or take type "
            "keepalived (a virtual IP) or local",
        )  # fmt: skip


def _virtual_ip(spec: ClusterSpec, address: str, path: Path) -> Iterator[Finding]:
    if not address:
        yield Finding(
            ("endpoint",), "type keepalived needs an address, its virtual IP",
            hint="add `address:` with an address of the hosts' network that nobody has",
        )  # fmt: skip
        return
    host = split_endpoint(address)[0]
    if not is_address(host):
        yield Finding(
            path, f"{host!r} is not an IP address, as a virtual IP is",
            hint="write the IP address; its name can stand in clusterConfiguration.apiServer.certSANs",
        )  # fmt: skip
        return
    if ip_address(host).version == 6:
        yield Finding(path, "a virtual IP of IPv6 is not supported yet", hint="give an IPv4 address")
    for index, item in enumerate(spec.hosts):
        if host in (item.address, item.node_ip):
            yield Finding(
                path, f"{host} is the address of hosts[{index}] ({item.name}), and no virtual IP can be",
                hint="give an address of the hosts' network that nobody has",
            )  # fmt: skip


def _foreign_fields(spec: ClusterSpec) -> Iterator[Finding]:
    """Fields that this type of endpoint does not have."""
    endpoint = spec.endpoint
    assert endpoint is not None
    said = {
        "proxy": (endpoint.proxy, ("keepalived", "local")),
        "interface": (endpoint.interface, ("keepalived",)),
        "virtualRouterID": (endpoint.virtual_router_id, ("keepalived",)),
    }
    for field, (value, types) in said.items():
        if value and endpoint.type not in types:
            yield Finding(
                ("endpoint", field), f"type {endpoint.type} does not have it, only {' and '.join(types)}",
                hint="leave it out",
            )  # fmt: skip


def _hosts(spec: ClusterSpec) -> Iterator[Finding]:
    endpoint = spec.endpoint
    assert endpoint is not None
    if endpoint.type == "local":
        yield from _idle_load_balancers(spec, "type local has its proxy on every node")
    if endpoint.type == "external":
        yield from _idle_load_balancers(spec, _EXTERNAL)


def _port(spec: ClusterSpec, path: Path, api_port: int) -> Iterator[Finding]:
    port = endpoint_port(spec)
    for host in endpoint_hosts(spec):
        if host.is_control_plane and port == api_port:
            yield Finding(
                path, f"port {port} on {host.name} is its API server's",
                hint="give the proxies another port, such as 8443, or the role load-balancer to other hosts",
            )  # fmt: skip
            return
