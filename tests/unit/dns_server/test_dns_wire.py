"""Messages: read strictly, written within limits, and never a crash whatever the bytes."""

from __future__ import annotations

import struct

import dns.edns
import dns.flags
import dns.message
import dns.name
import dns.opcode
import dns.rcode
import dns.rdatatype
import pytest
from dns.edns import EDECode
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tests.unit.dns_server.dns_kit import make_server, rcode, texts

from kubewright.dns.cache import AnswerCache, Entry
from kubewright.dns.index import NAMESPACES
from kubewright.dns.listen import Answerer
from kubewright.dns.metrics import Label, Transport
from kubewright.dns.records import Record, address_records, rdata
from kubewright.dns.resolver import Resolver
from kubewright.dns.wire import BadMessage, Note, Query, layout, parse_query, render, truncated
from kubewright.dns.zone import Zone

NAME = dns.name.from_text("head.default.svc.cluster.local.")
LABEL = Label("cluster.local.", "A", "NOERROR", "kubernetes")
PLAIN = dns.message.make_query(NAME, "A", id=0x1234).to_wire()
WITH_EDNS = dns.message.make_query(NAME, "A", id=0x1234, use_edns=0, payload=4096, want_dnssec=True).to_wire()


def many(count: int) -> list[Record]:
    addresses = [f"10.0.{number // 250}.{number % 250}" for number in range(count)]
    return address_records(NAME, 30, addresses)[dns.rdatatype.A]


def refusal(data: bytes) -> bytes | None:
    with pytest.raises(BadMessage) as caught:
        parse_query(data)
    return caught.value.response


def test_a_question_is_read() -> None:
    query = parse_query(WITH_EDNS)
    assert (query.name, query.rdtype, query.edns, query.payload, query.do) == (NAME, 1, True, 4096, True)
    assert not parse_query(PLAIN).edns
    cookie = dns.message.make_query(
        NAME, "A", use_edns=0, options=[dns.edns.GenericOption(dns.edns.OptionType.COOKIE, b"12345678")]
    )
    assert parse_query(cookie.to_wire()).options
    tiny = dns.message.make_query(NAME, "A", use_edns=0, payload=100)
    assert parse_query(tiny.to_wire()).payload == 512


@pytest.mark.parametrize(
    "data", [b"", b"\0" * 11, dns.message.make_response(dns.message.from_wire(PLAIN)).to_wire()]
)
def test_silence_to_fragments_and_to_answers(data: bytes) -> None:
    assert refusal(data) is None


@pytest.mark.parametrize(
    ("data", "wanted"),
    [
        (PLAIN[:12], "FORMERR"),
        (PLAIN[:-1], "FORMERR"),
        (PLAIN + b"x", "FORMERR"),
        (PLAIN[:4] + b"\0\2" + PLAIN[6:], "FORMERR"),
        (PLAIN[:4] + b"\0\0" + PLAIN[6:12], "FORMERR"),
        (PLAIN[:10] + b"\xff\xff" + PLAIN[12:], "FORMERR"),
        (PLAIN[:12] + b"\xc0\x0c\0\1\0\1", "FORMERR"),
        (PLAIN[:12] + b"\xc0\x00\0\1\0\1", "FORMERR"),
        (WITH_EDNS[:11] + b"\2" + WITH_EDNS[12:] + WITH_EDNS[-11:], "FORMERR"),
        (PLAIN[:2] + struct.pack("!H", 4 << 11) + PLAIN[4:], "NOTIMP"),
        (PLAIN[:2] + struct.pack("!H", 5 << 11) + PLAIN[4:], "NOTIMP"),
    ],
)
def test_what_is_no_question_is_answered_so(data: bytes, wanted: str) -> None:
    answer = refusal(data)
    assert answer is not None
    message = dns.message.from_wire(answer)
    assert (message.id, rcode(message)) == (struct.unpack("!H", data[:2])[0], wanted)
    assert message.flags & dns.flags.QR


def test_unknown_edns_version() -> None:
    answer = refusal(dns.message.make_query(NAME, "A", use_edns=1).to_wire())
    assert answer is not None
    message = dns.message.from_wire(answer)
    assert (message.rcode(), message.edns) == (dns.rcode.BADVERS, 0)


def test_an_answer_keeps_the_spelling_of_the_question() -> None:
    name = dns.name.from_text("HeAd.Default.svc.CLUSTER.local.")
    query = Query(7, dns.flags.RD | dns.flags.CD, name, dns.rdatatype.A, 1)  # type: ignore[arg-type]
    answer = dns.message.from_wire(render(query, dns.rcode.NOERROR, many(2), limit=512, authoritative=True))
    assert [rrset.name.to_text() for rrset in answer.answer] == [name.to_text()]
    assert answer.flags == dns.flags.QR | dns.flags.AA | dns.flags.RD | dns.flags.RA | dns.flags.CD


@pytest.mark.parametrize(("wire", "limit"), [(PLAIN, 512), (WITH_EDNS, 1232)], ids=["plain", "edns"])
def test_too_much_is_cut_and_says_so(wire: bytes, limit: int) -> None:
    query = parse_query(wire)
    cut = render(query, dns.rcode.NOERROR, many(200), additional=many(3), limit=limit)
    message = dns.message.from_wire(cut)
    assert truncated(cut)
    assert limit - 16 < len(cut) <= limit
    assert len(texts(message.answer)) > 20
    assert (message.edns == 0) == query.edns
    whole = render(query, dns.rcode.NOERROR, many(200), limit=65535)
    assert not truncated(whole)
    assert len(texts(dns.message.from_wire(whole).answer)) == 200


def test_notes_are_for_those_who_understand_them() -> None:
    note = Note(EDECode.NO_REACHABLE_AUTHORITY, "10.0.2.3:53: no answer in time" * 20)
    told = dns.message.from_wire(render(parse_query(WITH_EDNS), dns.rcode.SERVFAIL, limit=512, note=note))
    (option,) = told.options
    assert isinstance(option, dns.edns.EDEOption)
    assert option.code == EDECode.NO_REACHABLE_AUTHORITY
    plain = render(parse_query(PLAIN), dns.rcode.SERVFAIL, limit=512, note=note)
    assert len(plain) == len(PLAIN)


# -- finished answers -------------------------------------------------------------------------------------------


def test_a_kept_answer_turns_its_addresses() -> None:
    wire = render(parse_query(WITH_EDNS), dns.rcode.NOERROR, many(4), limit=1232)
    entry = Entry(wire[2:], layout(wire), label=LABEL, tag=("default", "head"), stored=0, expires=100)
    orders = [texts(dns.message.from_wire(wire[:2] + entry.bytes_at(50)).answer) for _ in range(4)]
    assert sorted(order[0] for order in orders) == sorted(orders[0])
    assert all(sorted(order) == sorted(orders[0]) for order in orders)
    (rrset,) = dns.message.from_wire(wire[:2] + entry.bytes_at(50)).answer
    assert rrset.ttl == 30


def test_a_kept_answer_from_elsewhere_grows_old() -> None:
    wire = render(parse_query(WITH_EDNS), dns.rcode.NOERROR, many(3), limit=1232)
    cache = AnswerCache()
    cache.put(b"q", Entry(wire[2:], layout(wire), label=LABEL, tag=None, stored=10, expires=40))
    entry = cache.get(b"q", 22.5)
    assert entry is not None
    message = dns.message.from_wire(wire[:2] + entry.bytes_at(22.5))
    assert [rrset.ttl for rrset in message.answer] == [18]
    assert message.edns == 0
    assert message.payload == 1232
    assert cache.get(b"q", 40) is None
    assert len(cache) == 0


def test_aliases_stay_before_their_addresses() -> None:
    target = dns.name.from_text("a.example.")
    alias = Record(NAME, 30, rdata(dns.rdatatype.CNAME, target))
    records = [alias, *address_records(target, 30, ["10.9.9.1", "10.9.9.2"])[dns.rdatatype.A]]
    wire = render(parse_query(PLAIN), dns.rcode.NOERROR, records, limit=512)
    entry = Entry(wire[2:], layout(wire), label=LABEL, tag=None, stored=0, expires=30)
    orders = [texts(dns.message.from_wire(wire[:2] + entry.bytes_at(0)).answer) for _ in range(2)]
    assert orders == [["a.example.", "10.9.9.2", "10.9.9.1"], ["a.example.", "10.9.9.1", "10.9.9.2"]]
    single = layout(render(parse_query(PLAIN), dns.rcode.NOERROR, many(1), limit=512))
    assert (single.start, single.step, single.end) == (0, 0, 0)


def test_a_change_drops_what_it_made_stale_and_size_is_bounded() -> None:
    cache = AnswerCache(size=3)
    wire = render(parse_query(PLAIN), dns.rcode.NOERROR, many(1), limit=512)

    def put(key: bytes, service: str) -> None:
        tag = ("default", service)
        cache.put(key, Entry(wire[2:], layout(wire), label=LABEL, tag=tag, stored=0, expires=1e9))

    for key, name in ((b"1", "a"), (b"2", "b"), (b"3", "a"), (b"4", "c")):
        put(key, name)
    assert cache.get(b"1", 0) is None
    assert len(cache) == 3
    cache.forget([("default", "a"), ("default", "unknown")])
    assert cache.get(b"3", 0) is None
    assert cache.get(b"2", 0) is not None
    put(b"2", "b")
    cache.forget([NAMESPACES])
    assert len(cache) == 0
    assert not cache._tagged


# -- any bytes --------------------------------------------------------------------------------------------------

_SERVER = make_server("127.0.0.1:9")
_ANSWERER = Answerer(
    Resolver(Zone(_SERVER.index, "cluster.local"), _SERVER.forwarder, synced=lambda: True), _SERVER.metrics
)
_UDP = Transport("udp", "1")


def feed(data: bytes) -> None:
    """Whatever the bytes: silence, or an answer that dnspython can read and that fits."""
    query = _ANSWERER.read(data, _UDP)
    parsed = isinstance(query, Query)
    if isinstance(query, Query):
        done = _ANSWERER.local(query, min(query.payload, 1232))
        if done is None:
            return
        query, result = done
        assert result.label.plugin != "" or result.rcode != dns.rcode.SERVFAIL
    if query is not None:
        assert query[:2] == data[:2]
        assert query[2] & 0x80
        assert len(query) <= 1232
        dns.message.from_wire(query)
        if parsed:
            layout(query)
    assert _SERVER.metrics.panics == 0


@settings(max_examples=150, deadline=None)
@given(st.binary(max_size=600))
@example(PLAIN)
def test_any_bytes(data: bytes) -> None:
    feed(data)


@settings(max_examples=150, deadline=None)
@given(
    st.sampled_from([PLAIN, WITH_EDNS]),
    st.lists(st.tuples(st.integers(0, 80), st.integers(0, 255)), max_size=6),
    st.binary(max_size=8),
    st.integers(0, 90),
)
def test_a_damaged_question(wire: bytes, changes: list[tuple[int, int]], tail: bytes, keep: int) -> None:
    data = bytearray(wire)
    for at, value in changes:
        if at < len(data):
            data[at] = value
    feed(bytes(data) if keep > len(data) else bytes(data[:keep]))
    feed(bytes(data) + tail)


_WORDS = st.sampled_from(
    [b"default", b"head", b"web", b"db-0", b"_tcp", b"_http", b"_", b"10-1-2-3", b"svc", b"pod", b"dns",
     b"ns", b"out", b"ring", b"a.b", b"\xff"]
)  # fmt: skip


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.one_of(_WORDS, st.binary(min_size=1, max_size=63)),
             max_size=6),
    st.sampled_from([b"svc", b"pod", b"dns", b"default"]),
    st.integers(0, 65535),
    st.integers(0, 65535),
)  # fmt: skip
def test_any_name_type_and_class(words: list[bytes], last: bytes, rdtype: int, rdclass: int) -> None:
    labels = [*words, last, b"cluster", b"local", b""]
    if sum(len(label) + 1 for label in labels) > 255:
        return
    body = b"".join(bytes([len(label)]) + label for label in labels)
    header = struct.pack("!HHHHHH", 1, dns.flags.RD, 1, 0, 0, 0)
    feed(header + body + struct.pack("!HH", rdtype, rdclass))
    feed(header + body + struct.pack("!HH", rdtype, 1))
