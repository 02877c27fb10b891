"""Names outside the cluster: asked of the upstreams, kept for a while, each question only once at a time."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Iterable
from dataclasses import dataclass

import dns.edns
import dns.flags
import dns.message
import dns.rcode
import dns.rrset
from dns.edns import EDECode
from dns.rcode import NOERROR, NXDOMAIN, REFUSED, SERVFAIL, Rcode
from dns.rdatatype import HINFO, OPT, SOA

from kubewright.dns.metrics import Metrics
from kubewright.dns.records import Record
from kubewright.dns.upstream import Question, Upstream, UpstreamError
from kubewright.dns.wire import Note

MAX_TTL = 30
"""Seconds for which an answer is kept at most, as kubeadm configures CoreDNS (`cache 30`)."""
_FAILURE_TTL = 5
"""Seconds for which a failure is kept (RFC 9520 asks for 1 to 300)."""
_TRY = 2.0
"""Seconds for one upstream. Clients wait 5 s for all of them together (resolv.conf(5), `timeout`)."""
_TOTAL = 4.8


@dataclass(frozen=True, slots=True)
class Reply:
    """What is known about another name."""

    rcode: Rcode
    answer: tuple[Record, ...] = ()
    authority: tuple[Record, ...] = ()
    additional: tuple[Record, ...] = ()
    authentic: bool = False
    ttl: int = 0
    """Seconds for which it may be kept from `at` on."""
    at: float = 0.0
    """When it came, in seconds of the monotonic clock."""
    note: Note | None = None

    def aged(self, now: float) -> Reply:
        """The same, with its TTLs counted down to `now`."""
        age = int(now - self.at)
        if age <= 0:
            return self
        return Reply(
            self.rcode, _aged(self.answer, age), _aged(self.authority, age), _aged(self.additional, age),
            self.authentic, self.ttl - age, self.at + age, self.note,
        )  # fmt: skip


class Forwarder:
    """Asks upstreams, the healthy ones first and in random order.

    `limit` bounds the questions under way, `size` the answers kept.
    """

    def __init__(
        self, upstreams: Iterable[Upstream], metrics: Metrics, *, limit: int = 1000, size: int = 10_000
    ) -> None:
        self.upstreams = list(upstreams)
        self.stopped: Note | None = None
        """Why nothing is forwarded at present: a loop was found."""
        self._metrics = metrics
        self._limit = limit
        self._size = size
        self._cache: dict[Question, Reply] = {}
        self._under_way: dict[Question, asyncio.Task[Reply]] = {}
        self._asking = 0

    def __len__(self) -> int:
        return len(self._cache)

    def use(self, upstreams: Iterable[Upstream]) -> None:
        """Ask these from now on; what is known about those that stay is kept."""
        known = {str(one): one for one in self.upstreams}
        self.upstreams = [known.get(str(one), one) for one in upstreams]
        self._cache.clear()

    def cached(self, question: Question) -> Reply | None:
        """The answer, if it is known and fresh."""
        self._metrics.cache_requests += 1
        reply = self._cache.get(question)
        if reply is None:
            return None
        now = time.monotonic()
        if now >= reply.at + reply.ttl:
            del self._cache[question]
            return None
        self._metrics.cache_hits["success" if reply.rcode == NOERROR and reply.answer else "denial"] += 1
        return reply.aged(now)

    def idle_reason(self) -> Note | None:
        """Why no upstream can be asked at all; None if one can."""
        if self.stopped is not None:
            return self.stopped
        if not self.upstreams:
            return Note(EDECode.NO_REACHABLE_AUTHORITY, "no upstream server is configured for other names")
        return None

    async def ask(self, question: Question) -> Reply:
        """The answer, from the cache or an upstream. What fails is answered SERVFAIL or REFUSED, with a note."""
        return self.cached(question) or await self.fetch(question)

    async def fetch(self, question: Question) -> Reply:
        """`ask`, past the cache."""
        if (why := self.idle_reason()) is not None:
            return Reply(REFUSED, note=why)
        # A loop probe passes through other replicas on its way: joined to itself it would never come back.
        if question.rdtype == HINFO:
            return await self._bounded(question)
        task = self._under_way.get(question)
        if task is None:
            task = asyncio.create_task(self._bounded(question))
            self._under_way[question] = task
            task.add_done_callback(lambda _: self._under_way.pop(question, None))
        return await asyncio.shield(task)

    async def _bounded(self, question: Question) -> Reply:
        if self._asking >= self._limit:
            self._metrics.forward_rejected += 1
            return Reply(REFUSED, note=Note(EDECode.OTHER, "too many questions are under way"))
        self._asking += 1
        try:
            reply = await self._from_upstreams(question)
        finally:
            self._asking -= 1
        if reply.ttl > 0 and question.rdtype != HINFO:
            while len(self._cache) >= self._size:
                del self._cache[next(iter(self._cache))]
            self._cache[question] = reply
        return reply

    async def _from_upstreams(self, question: Question) -> Reply:
        deadline = time.monotonic() + _TOTAL
        order = self._order()
        refusal: Reply | None = None
        errors: dict[str, None] = {}
        # Even a single upstream is asked again: a datagram may get lost.
        for attempt in range(max(3, len(order))):
            upstream = order[attempt % len(order)]
            left = deadline - time.monotonic()
            if left <= 0 or (refusal and attempt >= len(order)):
                break
            began = time.monotonic()
            try:
                message = await upstream.ask(question, min(_TRY, left))
            except UpstreamError as error:
                self._metrics.forwarded[str(upstream), ""] += 1
                errors[str(error)] = None
                continue
            took = time.monotonic() - began
            rcode = message.rcode()
            self._metrics.forwarded[str(upstream), dns.rcode.to_text(rcode)] += 1
            self._metrics.forward_durations[str(upstream)].observe(took)
            reply = _reply(message, time.monotonic())
            if rcode in (NOERROR, NXDOMAIN):
                return reply
            refusal = refusal or reply
        if refusal:
            return refusal
        note = Note(EDECode.NO_REACHABLE_AUTHORITY, "; ".join(errors))
        return Reply(SERVFAIL, ttl=_FAILURE_TTL, at=time.monotonic(), note=note)

    def _order(self) -> list[Upstream]:
        shuffled = random.sample(self.upstreams, len(self.upstreams))
        return sorted(shuffled, key=lambda one: one.down)


def _reply(message: dns.message.Message, now: float) -> Reply:
    answer, authority, additional = (
        tuple(_flat(section)) for section in (message.answer, message.authority, message.additional)
    )
    rcode = message.rcode()
    if rcode == NOERROR and answer:
        ttl = min(record.ttl for record in answer)
    elif rcode in (NOERROR, NXDOMAIN):
        # RFC 2308: a "no" holds as long as the SOA beside it says; without one it is not kept.
        ttl = min(
            (
                min(record.ttl, record.rdata.minimum)
                for record in authority
                if record.rdata.rdtype == SOA and hasattr(record.rdata, "minimum")
            ),
            default=0,
        )
    else:
        ttl = _FAILURE_TTL if rcode == SERVFAIL else 0
    authentic = bool(message.flags & dns.flags.AD)
    return Reply(rcode, answer, authority, additional, authentic, min(ttl, MAX_TTL), now)


def _flat(section: Iterable[dns.rrset.RRset]) -> Iterable[Record]:
    for rrset in section:
        if rrset.rdtype != OPT:
            for rdata in rrset:
                yield Record(rrset.name, min(rrset.ttl, MAX_TTL), rdata)


def _aged(records: tuple[Record, ...], age: int) -> tuple[Record, ...]:
    return tuple(record._replace(ttl=max(0, record.ttl - age)) for record in records)
