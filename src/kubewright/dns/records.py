"""Resource records as the server handles them: a name, a time to live and dnspython's data."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import dns.name
import dns.rdata
import dns.rdatatype
from dns.rdataclass import IN
from dns.rdatatype import AAAA, A, RdataType


class Record(NamedTuple):
    """One resource record of class IN; `ttl` in seconds."""

    name: dns.name.Name
    ttl: int
    rdata: dns.rdata.Rdata


_classes: dict[RdataType, Any] = {}


def rdata(rdtype: RdataType, *fields: Any) -> dns.rdata.Rdata:
    """Data of a type of class IN, from the fields that dnspython's class for it takes."""
    if rdtype not in _classes:
        _classes[rdtype] = dns.rdata.get_rdata_class(IN, rdtype)  # type: ignore[no-untyped-call]
    made: dns.rdata.Rdata = _classes[rdtype](IN, rdtype, *fields)
    return made


def address_records(name: dns.name.Name, ttl: int, addresses: Iterable[str]) -> dict[RdataType, list[Record]]:
    """A and AAAA records, by type, each address once."""
    found: dict[RdataType, list[Record]] = {}
    for address in dict.fromkeys(addresses):
        rdtype = AAAA if ":" in address else A
        found.setdefault(rdtype, []).append(Record(name, ttl, rdata(rdtype, address)))
    return found
