"""Services, endpoints and pods, reduced to what names are made of: pure functions of the API's objects."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any, NamedTuple

import dns.exception
import dns.name

Object = Mapping[str, Any]

_SERVICE_LABEL = "kubernetes.io/service-name"
_TOLERATE_UNREADY = "service.alpha.kubernetes.io/tolerate-unready-endpoints"


class Port(NamedTuple):
    """A port that an SRV record may name; `name` is empty for an unnamed one, `protocol` lower case."""

    name: str
    protocol: str
    number: int


class Endpoint(NamedTuple):
    """One address behind a service, and the label that it has below the service's name."""

    address: str
    label: str
    ready: bool


class Subset(NamedTuple):
    """Endpoints that serve the same ports."""

    endpoints: tuple[Endpoint, ...]
    ports: tuple[Port, ...]


@dataclass(frozen=True, slots=True)
class Service:
    """What the names of a service need."""

    namespace: str
    name: str
    addresses: tuple[str, ...] = ()
    """Cluster addresses; none for a headless or external service."""
    headless: bool = False
    external: dns.name.Name | None = None
    ports: tuple[Port, ...] = ()
    publish_not_ready: bool = False


@dataclass(frozen=True, slots=True)
class Slice:
    """Some of a service's endpoints: an EndpointSlice, or a whole Endpoints object."""

    namespace: str
    name: str
    service: str
    subsets: tuple[Subset, ...] = ()


@dataclass(frozen=True, slots=True)
class Pod:
    """A pod that has addresses and has not ended."""

    namespace: str
    name: str
    addresses: tuple[str, ...] = ()


def service(obj: Object) -> Service:
    """A Service of core/v1."""
    meta, spec = obj.get("metadata") or {}, obj.get("spec") or {}
    cluster_ip = spec.get("clusterIP") or ""
    external = None
    if spec.get("type") == "ExternalName":
        external = _name(spec.get("externalName") or "")
        cluster_ip, addresses = "", list[str]()
    else:
        # clusterIPs came with dual stack (KEP-563); an older server fills clusterIP alone.
        addresses = spec.get("clusterIPs") or [cluster_ip]
    return Service(
        meta.get("namespace", ""),
        meta.get("name", ""),
        tuple(_addresses(addresses)),
        cluster_ip == "None",
        external,
        _ports(spec.get("ports"), "port"),
        bool(spec.get("publishNotReadyAddresses"))
        or (meta.get("annotations") or {}).get(_TOLERATE_UNREADY) == "true",
    )


def endpoint_slice(obj: Object) -> Slice:
    """An EndpointSlice of discovery.k8s.io v1 or v1beta1: they differ in nothing that names use."""
    meta = obj.get("metadata") or {}
    endpoints = [] if obj.get("addressType") == "FQDN" else obj.get("endpoints") or []
    found = tuple(
        Endpoint(address, _label(one.get("hostname"), address), ready is None or bool(ready))
        for one in endpoints
        # An unknown readiness (nil) counts as ready: so the API's own documentation of the field.
        for ready in [(one.get("conditions") or {}).get("ready")]
        for address in _addresses(one.get("addresses") or [])
    )
    return Slice(
        meta.get("namespace", ""),
        meta.get("name", ""),
        (meta.get("labels") or {}).get(_SERVICE_LABEL, ""),
        (Subset(found, _ports(obj.get("ports"), "port")),),
    )


def endpoints(obj: Object) -> Slice:
    """An Endpoints object of core/v1, for servers without EndpointSlices."""
    meta = obj.get("metadata") or {}
    name = meta.get("name", "")
    return Slice(
        meta.get("namespace", ""),
        name,
        name,
        tuple(
            Subset(
                tuple(_subset(subset, "addresses", True))
                + tuple(_subset(subset, "notReadyAddresses", False)),
                _ports(subset.get("ports"), "port"),
            )
            for subset in obj.get("subsets") or []
        ),
    )


def pod(obj: Object) -> Pod:
    """A Pod of core/v1; one that has ended has no addresses any more, though its status still shows them."""
    meta, status = obj.get("metadata") or {}, obj.get("status") or {}
    ended = status.get("phase") in ("Succeeded", "Failed")
    several = [one.get("ip", "") for one in status.get("podIPs") or []] or [status.get("podIP") or ""]
    return Pod(meta.get("namespace", ""), meta.get("name", ""), () if ended else tuple(_addresses(several)))


def dashed(address: str) -> str:
    """An address as one label: `10-1-2-3`, `fd00--1`; a label must not end in a dash, so `fd00--` gets a 0."""
    label = address.replace(".", "-").replace(":", "-")
    return label + "0" if label.endswith("-") else label


def undashed(label: str) -> str:
    """The address that `dashed` was given, in its usual form; empty where it is none."""
    four = label.count("-") == 3 and "--" not in label
    return next(iter(_addresses([label.replace("-", "." if four else ":")])), "")


def _subset(subset: Object, key: str, ready: bool) -> Iterable[Endpoint]:
    for one in subset.get(key) or []:
        for address in _addresses([one.get("ip", "")]):
            yield Endpoint(address, _label(one.get("hostname"), address), ready)


def _label(hostname: str | None, address: str) -> str:
    return hostname.lower() if hostname else dashed(address)


def _addresses(texts: Iterable[str]) -> Iterable[str]:
    """Addresses in their usual form; what is none ("None", "", a name) is left out."""
    for text in texts:
        try:
            yield str(ip_address(text))
        except ValueError:
            continue


def _ports(ports: Iterable[Object] | None, key: str) -> tuple[Port, ...]:
    return tuple(
        Port((port.get("name") or "").lower(), (port.get("protocol") or "TCP").lower(), port[key])
        for port in ports or []
        if isinstance(port.get(key), int)
    )


def _name(text: str) -> dns.name.Name | None:
    try:
        return dns.name.from_text(text) if text else None
    except dns.exception.DNSException:
        return None
