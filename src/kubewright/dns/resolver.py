"""From a question to its answer: the cluster's names out of the zone, all others from the forwarder."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import dns.flags
import dns.name
import dns.rcode
from dns.edns import EDECode
from dns.rcode import NOERROR, REFUSED, SERVFAIL, Rcode
from dns.rdataclass import IN
from dns.rdatatype import AAAA, AXFR, IXFR, A, RdataType

from kubewright.dns.forward import Forwarder, Reply
from kubewright.dns.index import Tag
from kubewright.dns.metrics import Label, type_label
from kubewright.dns.records import Record
from kubewright.dns.upstream import Question
from kubewright.dns.wire import Note, Query, render
from kubewright.dns.zone import Answer, Zone

_LONGEST_CHAIN = 10
_FOREVER = float("inf")


@dataclass(frozen=True, slots=True)
class Result:
    """An answer, what it counts as, and how long it may be repeated to whoever asks with the same bytes."""

    rcode: Rcode
    label: Label
    answer: Sequence[Record] = ()
    authority: Sequence[Record] = ()
    additional: Sequence[Record] = ()
    authoritative: bool = False
    authentic: bool = False
    note: Note | None = None
    tag: Tag | None = None
    """Which of the index's changes make it stale; None for what the index does not decide."""
    ttl: float = 0
    """Seconds; 0 for an answer that must not be repeated."""

    def to_wire(self, query: Query, limit: int) -> bytes:
        """The answer's bytes, at most `limit`."""
        return render(
            query, self.rcode, _rotated(self.answer), self.authority, self.additional, limit=limit,
            authoritative=self.authoritative, authentic=self.authentic, note=self.note,
        )  # fmt: skip


class Resolver:
    """Answers questions. `synced` says whether the index knows the whole cluster yet."""

    def __init__(self, zone: Zone, forwarder: Forwarder, *, synced: Callable[[], bool]) -> None:
        self._zone = zone
        self._forwarder = forwarder
        self._synced = synced
        self._domain = zone.origin.to_text()
        self.probes: dict[dns.name.Name, Callable[[], None]] = {}
        """Names that we asked of the upstreams ourselves: who asks us for one shows that they lead back here."""

    def local(self, query: Query) -> Result | None:
        """The answer, where no upstream is needed for it; else None, and `remote` has it."""
        if query.rdclass != IN or query.rdtype in (AXFR, IXFR):
            return Result(REFUSED, self._label(query, REFUSED, "."))
        if self.probes and (found := self.probes.get(query.name)):
            found()
            return Result(REFUSED, self._label(query, REFUSED, "."))
        answer = self._zone.lookup(query.name, query.rdtype)
        if answer is not None:
            return None if answer.chase is not None else self._result(query, answer)
        if (why := self._forwarder.idle_reason()) is not None:
            return Result(REFUSED, self._label(query, REFUSED, "."), note=why)
        reply = self._forwarder.cached(_question(query, query.name))
        return None if reply is None else self._forwarded(query, reply, "cache")

    async def remote(self, query: Query) -> Result:
        """The answer of the upstreams, or of the zone and them together."""
        answer = self._zone.lookup(query.name, query.rdtype)
        if answer is None:
            reply = await self._forwarder.fetch(_question(query, query.name))
            return self._forwarded(query, reply, "forward" if reply.rcode != REFUSED else "")
        return await self._chased(query, answer)

    def _forwarded(self, query: Query, reply: Reply, plugin: str) -> Result:
        left = reply.ttl - (time.monotonic() - reply.at) if reply.ttl else 0
        return Result(
            reply.rcode, self._label(query, reply.rcode, ".", plugin), reply.answer, reply.authority,
            reply.additional, authentic=reply.authentic and bool(query.do or query.flags & dns.flags.AD),
            note=reply.note, ttl=left,
        )  # fmt: skip

    async def _chased(self, query: Query, first: Answer) -> Result:
        """An external name: its alias, and the records of what that leads to, in the cluster or outside."""
        records = list(first.records)
        target, seen = first.chase, {query.name}
        while target is not None and len(seen) < _LONGEST_CHAIN:
            if target in seen:
                break
            seen.add(target)
            inside = self._zone.lookup(target, query.rdtype)
            if inside is None:
                reply = await self._forwarder.ask(_question(query, target))
                return self._joined(query, records, reply)
            records += inside.records
            target = inside.chase
            if target is None:
                return self._result(query, inside._replace(records=records), repeatable=False)
        note = Note(EDECode.OTHER, "the external name leads back to itself")
        return Result(SERVFAIL, self._label(query, SERVFAIL, self._domain, "kubernetes"), note=note)

    def _joined(self, query: Query, records: list[Record], reply: Reply) -> Result:
        """RFC 6604: the rcode is that of the chain's last name."""
        label = self._label(query, reply.rcode, self._domain, "kubernetes")
        if reply.rcode in (SERVFAIL, REFUSED):
            return Result(SERVFAIL, label._replace(rcode="SERVFAIL"), note=reply.note)
        return Result(
            reply.rcode,
            label,
            [*records, *reply.answer],
            reply.authority,
            authoritative=True,
            note=reply.note,
        )

    def _result(self, query: Query, answer: Answer, *, repeatable: bool = True) -> Result:
        if not self._synced() and (answer.rcode != NOERROR or not answer.records):
            note = Note(EDECode.NOT_READY, "the cluster's services are not known yet")
            return Result(SERVFAIL, self._label(query, SERVFAIL, self._domain, "kubernetes"), note=note)
        empty = answer.rcode != NOERROR or not answer.records
        return Result(
            answer.rcode,
            self._label(query, answer.rcode, self._domain, "kubernetes"),
            answer.records,
            [self._zone.soa()] if empty else (),
            answer.additional,
            authoritative=True,
            tag=answer.tag if repeatable else None,
            ttl=_FOREVER if repeatable and self._synced() else 0,
        )

    def _label(self, query: Query, rcode: Rcode, zone: str, plugin: str = "") -> Label:
        return Label(zone, type_label(RdataType.to_text(query.rdtype)), dns.rcode.to_text(rcode), plugin)


def _question(query: Query, name: dns.name.Name) -> Question:
    flags = query.flags
    return Question(
        name, query.rdtype, query.rdclass, bool(flags & dns.flags.RD), bool(flags & dns.flags.CD), query.do
    )


def _rotated(records: Sequence[Record]) -> Sequence[Record]:
    """The addresses at the end (behind aliases, if any) in another order: CoreDNS' `loadbalance`."""
    start = next((at for at, one in enumerate(records) if one.rdata.rdtype in (A, AAAA)), len(records))
    if len(records) - start < 2 or any(one.rdata.rdtype not in (A, AAAA) for one in records[start:]):
        return records
    turn = random.randrange(start, len(records))  # noqa: S311 - spreads load, guards nothing
    return [*records[:start], *records[turn:], *records[start:turn]]
