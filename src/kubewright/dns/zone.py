"""The cluster's names: which records a question about a service, endpoint or pod has. Pure; no I/O, no clock.

The measure is "Kubernetes DNS-Based Service Discovery", version 1.1.0 (kubernetes/dns, docs/specification.md);
docs/dns.md has a table of what is answered beyond it, as CoreDNS' kubernetes plugin does.
"""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import ip_address
from typing import Literal, NamedTuple

import dns.exception
import dns.name
import dns.rcode
import dns.reversename
from dns.rdatatype import ANY, CNAME, HINFO, NS, PTR, SOA, SRV, TXT, RdataType

from kubewright.dns.index import NAMESPACES, Index, Tag
from kubewright.dns.objects import Port, Service, undashed
from kubewright.dns.records import Record, address_records, rdata

PodMode = Literal["verified", "insecure", "disabled"]

SCHEMA_VERSION = "1.1.0"
SCHEMA_TTL = 28800
_DNS_SERVICE = ("kube-system", "kube-dns")


class Answer(NamedTuple):
    """What the zone knows about a question. With no `records`, its SOA belongs into the authority section."""

    rcode: dns.rcode.Rcode
    records: list[Record]
    additional: list[Record]
    tag: Tag
    """Which of the index's changes make it stale."""
    chase: dns.name.Name | None = None
    """The target of an external name, whose records the asker wants too."""


class Zone:
    """Answers questions from an index of the cluster. `ttl` is in seconds."""

    def __init__(self, index: Index, domain: str, *, ttl: int = 30, pods: PodMode = "insecure") -> None:
        self.index = index
        self.origin = dns.name.from_text(domain)
        self.ttl = ttl
        self.pods: PodMode = pods
        self._suffix = tuple(label.lower() for label in self.origin.labels)

    def lookup(self, name: dns.name.Name, rdtype: RdataType) -> Answer | None:
        """What there is of a name; None where the name is not the cluster's to answer."""
        labels = tuple(label.lower() for label in name.labels)
        depth = len(labels) - len(self._suffix)
        if depth < 0 or labels[depth:] != self._suffix:
            return self._lookup_reverse(name, rdtype)
        # Labels with other bytes match nothing: Kubernetes' own names are ASCII.
        words = tuple(label.decode("ascii", "replace") for label in labels[:depth])
        if not words:
            return self._apex(name, rdtype)
        if words[-1] == "svc":
            return self._lookup_service(name, words[:-1], rdtype)
        if words[-1] == "pod":
            return self._lookup_pod(name, words[:-1], rdtype)
        if words == ("dns-version",):
            text = Record(name, SCHEMA_TTL, rdata(TXT, [SCHEMA_VERSION]))
            return self._found(name, rdtype, NAMESPACES, {TXT: [text]})
        if words == ("ns", "dns"):
            return self._found(name, rdtype, _DNS_SERVICE, self._addresses(name, self._dns_addresses()))
        return self._empty(name, rdtype, NAMESPACES, exists=words == ("dns",))

    def soa(self) -> Record:
        """The zone's start of authority; its TTL and minimum bound how long a "no" is kept (RFC 2308)."""
        host, mail = self._absolute("ns", "dns"), self._absolute("hostmaster")
        serial = self.index.changes % 2**32
        return Record(self.origin, self.ttl, rdata(SOA, host, mail, serial, 7200, 1800, 86400, self.ttl))

    def _apex(self, name: dns.name.Name, rdtype: RdataType) -> Answer:
        known = self.index.service(*_DNS_SERVICE)
        host = (
            self._absolute(_DNS_SERVICE[1], _DNS_SERVICE[0], "svc") if known else self._absolute("ns", "dns")
        )
        found = {NS: [Record(name, self.ttl, rdata(NS, host))], SOA: [self.soa()._replace(name=name)]}
        glue = self._addresses(host, self._dns_addresses()) if rdtype == NS else {}
        return self._found(name, rdtype, _DNS_SERVICE, found, [one for each in glue.values() for one in each])

    def _dns_addresses(self) -> Iterable[str]:
        known = self.index.service(*_DNS_SERVICE)
        return known.addresses if known else ()

    # -- services ---------------------------------------------------------------------------------------------

    def _lookup_service(self, name: dns.name.Name, words: tuple[str, ...], rdtype: RdataType) -> Answer:
        if len(words) < 2:
            exists = not words or self.index.has_namespace(words[0])
            return self._empty(name, rdtype, NAMESPACES, exists=exists)
        front, key = words[:-2], (words[-1], words[-2])
        if len(front) > 2:  # nothing can ever be there, whatever happens to the service
            return self._empty(name, rdtype, NAMESPACES, exists=False)
        service = self.index.service(*key)
        if service is None:
            return self._empty(name, rdtype, key, exists=False)
        if service.external is not None:
            if front:
                return self._empty(name, rdtype, key, exists=False)
            alias = Record(name, self.ttl, rdata(CNAME, service.external))
            target = None if rdtype in (CNAME, ANY) else service.external
            return Answer(dns.rcode.NOERROR, [alias], [], key, target)
        if len(front) == 2 or (front and front[0].startswith("_")):
            return self._lookup_port(name, service, front, rdtype)
        return self._lookup_addresses(name, service, front[0] if front else "", rdtype)

    def _lookup_addresses(
        self, name: dns.name.Name, service: Service, label: str, rdtype: RdataType
    ) -> Answer:
        """`service` itself, or `label.service`: one of its endpoints."""
        key = (service.namespace, service.name)
        addresses: Iterable[str] = service.addresses
        if label or service.headless:
            addresses = [
                one.address for _, one in self.index.live(service) if not label or one.label == label
            ]
            # 2.4.1: a headless service without ready endpoints is as good as absent.
            if not addresses:
                return self._empty(name, rdtype, key, exists=False)
        if rdtype != SRV:
            return self._found(name, rdtype, key, self._addresses(name, addresses))
        records, extra = self._srv(name, service, label=label)
        return self._found(name, rdtype, key, {SRV: records}, extra)

    def _lookup_port(
        self, name: dns.name.Name, service: Service, front: tuple[str, ...], rdtype: RdataType
    ) -> Answer:
        """`_port._proto.service`, or `_proto.service`, which exists where something is below it (RFC 8020)."""
        key = (service.namespace, service.name)
        port, protocol = front if len(front) == 2 else ("", front[0])
        if not protocol.startswith("_") or port == "_" or (port and not port.startswith("_")):
            return self._empty(name, rdtype, key, exists=False)
        records, extra = self._srv(name, service, port=port[1:], protocol=protocol[1:], named=True)
        if not port or not records:
            return self._empty(name, rdtype, key, exists=bool(records))
        return self._found(name, rdtype, key, {SRV: records}, extra)

    def _srv(
        self, name: dns.name.Name, service: Service, *, port: str = "", protocol: str = "", label: str = "",
        named: bool = False,
    ) -> tuple[list[Record], list[Record]]:  # fmt: skip
        """SRV records, and the addresses of their targets. Empty words match all; `named` skips unnamed ports."""

        def wanted(ports: Iterable[Port]) -> list[Port]:
            return [
                one
                for one in ports
                if (one.name or not named)
                and (not port or one.name == port)
                and (not protocol or one.protocol == protocol)
            ]

        below = (service.name, service.namespace, "svc")
        targets: dict[tuple[dns.name.Name, int], None] = {}
        addresses: dict[dns.name.Name, list[str]] = {}
        if service.headless or label:
            for ports, endpoint in self.index.live(service):
                if (label and endpoint.label != label) or not (matching := wanted(ports)):
                    continue
                host = self._absolute(endpoint.label, *below)
                targets |= {(host, one.number): None for one in matching}
                addresses.setdefault(host, []).append(endpoint.address)
        elif matching := wanted(service.ports):
            host = self._absolute(*below)
            targets = {(host, one.number): None for one in matching}
            addresses = {host: list(service.addresses)}
        weight = max(1, 100 // len(targets)) if targets else 0
        records = [Record(name, self.ttl, rdata(SRV, 0, weight, number, host)) for host, number in targets]
        extra = [
            record
            for host, some in addresses.items()
            for each in self._addresses(host, some).values()
            for record in each
        ]
        return records, extra

    # -- pods and addresses -----------------------------------------------------------------------------------

    def _lookup_pod(self, name: dns.name.Name, words: tuple[str, ...], rdtype: RdataType) -> Answer:
        if not words:
            return self._empty(name, rdtype, NAMESPACES, exists=True)
        known = self.pods != "disabled" and self.index.has_namespace(words[-1])
        address = undashed(words[0]) if known and len(words) == 2 else ""
        if not address:
            return self._empty(name, rdtype, NAMESPACES, exists=known and len(words) == 1)
        tag = ("", address)
        if self.pods == "verified" and not self.index.has_pod_at(words[-1], address):
            return self._empty(name, rdtype, tag, exists=False)
        return self._found(name, rdtype, tag, self._addresses(name, [address]))

    def _lookup_reverse(self, name: dns.name.Name, rdtype: RdataType) -> Answer | None:
        """PTR records of services and endpoints; all else in the reverse zones is the upstreams' to know."""
        address = _reversed(name) if rdtype == PTR else ""
        owners = dict.fromkeys(self.index.owners(address)) if address else {}
        if not owners:
            return None
        found = [Record(name, self.ttl, rdata(PTR, self._absolute(*owner, "svc"))) for owner in owners]
        return Answer(dns.rcode.NOERROR, found, [], ("", address))

    # -- helpers ----------------------------------------------------------------------------------------------

    def _absolute(self, *labels: str) -> dns.name.Name:
        return dns.name.Name((*(label.encode() for label in labels), *self.origin.labels))

    def _addresses(self, name: dns.name.Name, addresses: Iterable[str]) -> dict[RdataType, list[Record]]:
        return address_records(name, self.ttl, addresses)

    def _found(
        self,
        name: dns.name.Name,
        rdtype: RdataType,
        tag: Tag,
        found: dict[RdataType, list[Record]],
        additional: Iterable[Record] = (),
    ) -> Answer:
        """The records of that type, of a name that exists."""
        if rdtype == ANY:
            return self._empty(name, rdtype, tag, exists=True)
        return Answer(dns.rcode.NOERROR, found.get(rdtype, []), list(additional), tag)

    def _empty(self, name: dns.name.Name, rdtype: RdataType, tag: Tag, *, exists: bool) -> Answer:
        """A name without records of that type (NODATA), or no such name (NXDOMAIN)."""
        if not exists:
            return Answer(dns.rcode.NXDOMAIN, [], [], tag)
        # RFC 8482: "any" gets one small record in place of everything.
        minimal = [Record(name, self.ttl, rdata(HINFO, "RFC8482", ""))] if rdtype == ANY else []
        return Answer(dns.rcode.NOERROR, minimal, [], tag)


def _reversed(name: dns.name.Name) -> str:
    """The address of a whole reverse name, in its usual form; empty for any other name."""
    try:
        return str(ip_address(dns.reversename.to_address(name)))
    except (dns.exception.DNSException, ValueError):
        return ""
