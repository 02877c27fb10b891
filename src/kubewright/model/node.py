"""Which node is meant, and at which address its API server answers."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass

from kubewright.errors import ConfigError

API_PORT = 6443


@dataclass(frozen=True, slots=True)
class ControlPlaneNode:
    """One control plane: its node name, and the address and port that its API server advertises (P08)."""

    name: str
    advertise_address: str
    bind_port: int = API_PORT

    @property
    def host_port(self) -> str:
        """`address:port`, with brackets around an IPv6 address."""
        return host_port(self.advertise_address, self.bind_port)

    @property
    def url(self) -> str:
        """Where this node's own API server answers."""
        return f"https://{self.host_port}"

    @property
    def is_ipv6(self) -> bool:
        """Whether it advertises an IPv6 address."""
        return ":" in self.advertise_address

    @property
    def loopback(self) -> str:
        """The loopback address of the family that it advertises."""
        return "::1" if self.is_ipv6 else "127.0.0.1"


def host_port(host: str, port: int) -> str:
    """`host:port`, with brackets around an IPv6 address."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def split_endpoint(endpoint: str, default_port: int = API_PORT) -> tuple[str, int]:
    """The host and port of `host[:port]`, `[v6]:port` or a bare IPv6 address. Raises `ConfigError`."""
    if is_address(endpoint):
        return endpoint, default_port
    host, colon, port = endpoint.rpartition(":")
    if not colon or endpoint.endswith("]"):
        host, port = endpoint, str(default_port)
    bracketed = host.startswith("[") and host.endswith("]")
    host = host[1:-1] if bracketed else host
    if not host or not port.isdecimal() or not 0 < int(port) < 65536 or (":" in host and not bracketed):
        raise ConfigError(
            f"controlPlaneEndpoint: {endpoint!r} is not host[:port]",
            hint="write a DNS name or an address, and a port where it is not 6443: api.example.com:6443",
        )
    return host, int(port)


def endpoint_url(endpoint: str | None, node: ControlPlaneNode) -> str:
    """The URL that all clients but the node's own components use (P30): the endpoint, else the node's."""
    if not endpoint:
        return node.url
    host, port = split_endpoint(endpoint, node.bind_port)
    return f"https://{host_port(host, port)}"


def is_address(text: str) -> bool:
    """Whether `text` is an IPv4 or IPv6 address."""
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def nth_address(subnets: str, n: int) -> str:
    """Address number `n` of the first of one or two comma-separated CIDRs. Raises `ConfigError`.

    1 is the API's Service address, 10 is cluster DNS's, as kubeadm chooses them.
    """
    first = subnets.split(",")[0].strip()
    try:
        return str(ipaddress.ip_network(first, strict=False)[n])
    except (ValueError, IndexError) as error:
        raise ConfigError(
            f"networking.serviceSubnet: {first!r} has no address number {n}",
            hint="give a CIDR with room, such as 10.96.0.0/12",
        ) from error
