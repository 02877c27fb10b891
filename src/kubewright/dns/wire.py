"""DNS messages as bytes: questions read strictly, answers written within a client's limit. Pure."""

from __future__ import annotations

import io
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import dns.edns
import dns.exception
import dns.flags
import dns.name
import dns.opcode
import dns.rcode
from dns.rcode import FORMERR, NOTIMP, Rcode
from dns.rdataclass import RdataClass
from dns.rdatatype import AAAA, OPT, A, RdataType

from kubewright.dns.records import Record

PAYLOAD = 1232
"""The largest UDP message sent or asked for, in bytes: it is never fragmented (DNS flag day 2020)."""
_HEADER = struct.Struct("!HHHHHH")
_FIXED = struct.Struct("!HHIH")
_MOST_RECORDS = 64
"""A question carries an OPT and perhaps a signature; a message that announces more is not one."""
_OPT_SIZE = 11
_LONGEST_NOTE = 160
_BADVERS = dns.rcode.BADVERS


class BadMessage(Exception):  # noqa: N818 - what it holds is an answer, not an error of ours
    """Bytes that are no question. `response` is what to send back; None means to stay silent."""

    def __init__(self, response: bytes | None) -> None:
        super().__init__("not a question")
        self.response = response


@dataclass(frozen=True, slots=True)
class Query:
    """A question, and how its answer may look."""

    id: int
    flags: int
    name: dns.name.Name
    rdtype: RdataType
    rdclass: RdataClass
    edns: bool = False
    payload: int = 512
    do: bool = False
    options: bool = False
    """Whether it carries EDNS options (a cookie, padding): those differ from query to query."""


class Note(NamedTuple):
    """An extended error (RFC 8914): a code and words for whoever debugs."""

    code: dns.edns.EDECode
    text: str


def parse_query(data: bytes) -> Query:
    """Read a question. Raises `BadMessage`, and nothing else, for any other bytes."""
    if len(data) < _HEADER.size:
        raise BadMessage(None)
    ident, flags, questions, answers, authorities, additionals = _HEADER.unpack_from(data)
    if flags & dns.flags.QR:
        raise BadMessage(None)  # an answer to an answer would go round for ever
    if dns.opcode.from_flags(flags) != dns.opcode.QUERY:
        raise BadMessage(_bare(ident, flags, NOTIMP))
    malformed = BadMessage(_bare(ident, flags, FORMERR))
    if questions != 1 or answers + authorities + additionals > _MOST_RECORDS:
        raise malformed
    try:
        name, used = dns.name.from_wire(data, _HEADER.size)
        at = _HEADER.size + used
        rdtype, rdclass = struct.unpack_from("!HH", data, at)
        at += 4
        query = Query(ident, flags, name, RdataType.make(rdtype), RdataClass.make(rdclass))
        opt: tuple[int, int, int] | None = None
        for number in range(answers + authorities + additionals):
            _, used = dns.name.from_wire(data, at)
            kind, size, ttl, length = _FIXED.unpack_from(data, at + used)
            at += used + _FIXED.size + length
            if kind == OPT:
                if opt is not None or number < answers + authorities or used != 1:
                    raise malformed
                opt = (size, ttl, length)
    except (dns.exception.DNSException, struct.error, ValueError, IndexError) as error:
        raise malformed from error
    if at != len(data):
        raise malformed
    if opt is None:
        return query
    size, ttl, length = opt
    do = bool(ttl & dns.flags.DO)
    query = Query(
        ident, flags, name, query.rdtype, query.rdclass, True, max(512, size), do, length > 0
    )  # fmt: skip
    if ttl >> 16 & 0xFF:
        raise BadMessage(render(query, _BADVERS, limit=512))
    return query


def render(
    query: Query,
    rcode: Rcode,
    answer: Sequence[Record] = (),
    authority: Sequence[Record] = (),
    additional: Sequence[Record] = (),
    *,
    limit: int,
    authoritative: bool = False,
    authentic: bool = False,
    note: Note | None = None,
) -> bytes:
    """An answer of at most `limit` bytes (512 or more).

    Where not all of `answer` fits, as many records as do are sent and TC is set: a client that cannot use TCP
    has at least those. Of the other sections, what does not fit is left out.
    """
    flags = dns.flags.QR | dns.flags.RA | query.flags & (dns.flags.RD | dns.flags.CD) | rcode & 0xF
    if authoritative:
        flags |= dns.flags.AA
    if authentic:
        flags |= dns.flags.AD
    options = b""
    if note and query.edns:
        text = note.text.encode()[:_LONGEST_NOTE]
        options = struct.pack("!HHH", dns.edns.OptionType.EDE, 2 + len(text), note.code) + text
    room = limit - (_OPT_SIZE + len(options) if query.edns else 0)
    # dnspython writes names and data; its Renderer, made for whole sets, would take most of the time of an answer.
    output, compress, counts = io.BytesIO(), dict[dns.name.Name, int](), [0, 0, 0]
    output.write(b"\0" * _HEADER.size)
    query.name.to_wire(output, compress)
    output.write(struct.pack("!HH", query.rdtype, query.rdclass))
    for section, records in enumerate((answer, authority, additional)):
        written = _write(output, compress, records, room)
        counts[section] = written
        if written < len(records):
            flags |= dns.flags.TC if section == 0 else 0
            break
    if query.edns:
        extended = (rcode >> 4) << 24 | (dns.flags.DO if query.do else 0)
        output.write(b"\0" + _FIXED.pack(OPT, PAYLOAD, extended, len(options)) + options)
        counts[2] += 1
    output.seek(0)
    output.write(_HEADER.pack(query.id, flags, 1, *counts))
    return output.getvalue()


def _write(
    output: io.BytesIO, compress: dict[dns.name.Name, int], records: Sequence[Record], room: int
) -> int:
    """Write as many records as there is room for; how many that were. Names after those must not be compressed."""
    for number, (name, ttl, rdata) in enumerate(records):
        begin = output.tell()
        name.to_wire(output, compress)
        fixed = output.tell()
        output.write(_FIXED.pack(rdata.rdtype, rdata.rdclass, ttl, 0))
        rdata.to_wire(output, compress)
        end = output.tell()
        if end > room:
            output.seek(begin)
            output.truncate()
            return number
        output.seek(fixed + 8)
        output.write(struct.pack("!H", end - fixed - _FIXED.size))
        output.seek(end)
    return len(records)


class Layout(NamedTuple):
    """Where, in an answer that `render` made, the changing parts are. All offsets count from the third byte on."""

    ttls: tuple[tuple[int, int], ...]
    """(offset, seconds) of each record's TTL, the OPT record's not."""
    start: int
    step: int
    end: int
    """The longest row of addresses of one name: from `start` to `end`, each of `step` bytes; 0, 0, 0 for none."""


def layout(wire: bytes) -> Layout:
    """Find the TTLs and the addresses to rotate, in an answer that `render` made."""
    _, _, _, answers, authorities, additionals = _HEADER.unpack_from(wire)
    at = _skip_name(wire, _HEADER.size) + 4
    ttls: list[tuple[int, int]] = []
    best = run = (0, 0, 0)
    before = b""
    for number in range(answers + authorities + additionals):
        begin = at
        at = _skip_name(wire, at)
        kind, _, ttl, length = _FIXED.unpack_from(wire, at)
        if kind != OPT:
            ttls.append((at + 4 - 2, ttl))
        # Records of one row begin with the same bytes: the name (or the pointer to it), type, class and TTL.
        head = wire[begin : at + _FIXED.size]
        at += _FIXED.size + length
        if number < answers and kind in (A, AAAA):
            run = (run[0], at - begin, at) if head == before else (begin, at - begin, at)
            best = max(best, run, key=lambda row: row[2] - row[0])
        before = head
    start, step, end = best
    if end - start <= step:
        return Layout(tuple(ttls), 0, 0, 0)
    return Layout(tuple(ttls), start - 2, step, end - 2)


def truncated(wire: bytes) -> bool:
    """Whether an answer has TC set."""
    return bool(wire[2] & 2)


def _skip_name(wire: bytes, at: int) -> int:
    while length := wire[at]:
        if length >= 0xC0:
            return at + 2
        at += length + 1
    return at + 1


def _bare(ident: int, flags: int, rcode: Rcode) -> bytes:
    """A header alone: the answer to what cannot be read."""
    kept = flags & (0x7800 | dns.flags.RD)
    return _HEADER.pack(ident, dns.flags.QR | kept | rcode, 0, 0, 0, 0)
