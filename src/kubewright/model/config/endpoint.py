"""`endpoint` of a cluster.yaml: the address that clients use for the API, and who serves it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field

from kubewright.model.config import syntax
from kubewright.model.config.strict import Strict
from kubewright.model.node import API_PORT, host_port, split_endpoint

if TYPE_CHECKING:
    from kubewright.model.config.cluster import ClusterSpec, HostSpec

BESIDE_PORT = 8443
"""Where a proxy beside an API server listens."""
LOCAL_PORT = 6444
"""Where a node's own proxy listens, on its loopback address."""
LOCAL_HOST = "127.0.0.1"

EndpointType = Literal["haproxy", "nginx", "keepalived", "local", "external"]
Proxy = Literal["haproxy", "nginx"]


class EndpointSpec(Strict):
    """The address that clients use for the API, and who serves it. Text instead of a mapping is the address of an
    endpoint of type `external`."""

    type: EndpointType = Field(
        description="`haproxy` or `nginx`: a proxy on the hosts with the role `load-balancer`, and where there "
        "are none, beside every control plane; `keepalived`: a virtual IP over them; `local`: a proxy on every "
        "node, so that no further host is needed; `external`: an address of your own, checked and never touched.",
    )
    address: Annotated[str, AfterValidator(syntax.endpoint)] = Field(
        default="",
        validate_default=False,
        description="`host[:port]`. The port is also the one that the proxies listen on; default: 6443, 8443 "
        "beside control planes, 6444 for `local`. `external`, `keepalived` (its virtual IP) and several proxies "
        "need an address; default: the one proxy's host, `127.0.0.1` for `local`.",
        examples=["api.example.com:6443"],
    )
    proxy: Proxy | None = Field(
        default=None,
        description="The proxy behind a virtual IP, and that of `local`; default: `haproxy`.",
        examples=["haproxy"],
    )
    interface: Annotated[str, AfterValidator(syntax.interface)] = Field(
        default="",
        validate_default=False,
        description="`keepalived`: where the virtual IP goes; default: the interface of the host's nodeIP.",
        examples=["eth0"],
    )
    virtual_router_id: Annotated[int, Field(ge=1, le=255, strict=True)] | None = Field(
        default=None,
        alias="virtualRouterID",
        description="`keepalived`: VRRP's number of the virtual IP, unlike that of any other in the same network; "
        "default: 51.",
        examples=[51],
    )

    @property
    def program(self) -> Proxy | None:
        """The proxy that runs on the endpoint's hosts; none for an address of the user's own."""
        if self.type == "haproxy" or self.type == "nginx":
            return self.type
        return None if self.type == "external" else self.proxy or "haproxy"


def _from_text(value: Any) -> Any:
    """Text is an address of the user's own."""
    return (
        {"type": "external", "address": syntax.endpoint_with_port(value)} if isinstance(value, str) else value
    )


Endpoint = Annotated[EndpointSpec, BeforeValidator(_from_text, json_schema_input_type=str | EndpointSpec)]


def endpoint_hosts(spec: ClusterSpec) -> list[HostSpec]:
    """The hosts that run a proxy, in the file's order."""
    if spec.endpoint is None or spec.endpoint.type == "external":
        return []
    if spec.endpoint.type == "local":
        return spec.nodes
    return spec.load_balancers or spec.control_planes


def endpoint_port(spec: ClusterSpec) -> int:
    """The port of the endpoint: where clients connect, and where its proxies listen."""
    if spec.endpoint is None:
        return API_PORT
    default = API_PORT
    if spec.endpoint.type == "local":
        default = LOCAL_PORT
    elif spec.endpoint.type != "external" and not spec.load_balancers:
        default = BESIDE_PORT
    return split_endpoint(spec.endpoint.address, default)[1] if spec.endpoint.address else default


def configured_address(spec: ClusterSpec) -> str:
    """`host:port` of the endpoint as far as the file says it; empty where it takes a host's address to know it."""
    if spec.endpoint is None:
        return ""
    if spec.endpoint.address:
        return host_port(split_endpoint(spec.endpoint.address)[0], endpoint_port(spec))
    return host_port(LOCAL_HOST, endpoint_port(spec)) if spec.endpoint.type == "local" else ""


def endpoint_address(spec: ClusterSpec, ips: Mapping[str, str]) -> str:
    """`host:port` of the endpoint, `ips` being the hosts' addresses by name; empty where there is no endpoint.

    Without an address in the file it is that of the one host with a proxy.
    """
    configured = configured_address(spec)
    hosts = endpoint_hosts(spec)
    if configured or not hosts:
        return configured
    return host_port(ips[hosts[0].name], endpoint_port(spec))
