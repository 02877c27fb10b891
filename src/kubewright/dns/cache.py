"""Finished answers by the bytes of their questions: what makes a repeated question cost microseconds. Pure."""

from __future__ import annotations

import struct
from collections.abc import Iterable

from kubewright.dns.index import NAMESPACES, Tag
from kubewright.dns.metrics import Label
from kubewright.dns.wire import Layout

_TTL = struct.Struct("!I")


class Entry:
    """An answer without its id, and how it changes from one sending to the next."""

    __slots__ = ("body", "end", "expires", "label", "start", "step", "stored", "tag", "ttls", "turn")

    def __init__(
        self, body: bytes, layout: Layout, *, label: Label, tag: Tag | None, stored: float, expires: float
    ) -> None:
        self.body = body
        self.start, self.step, self.end = layout.start, layout.step, layout.end
        # The cluster's own records always have their full TTL; what came from elsewhere grows old.
        self.ttls = () if tag is not None else layout.ttls
        self.label = label
        self.tag = tag
        self.stored = stored
        self.expires = expires
        self.turn = 0

    def bytes_at(self, now: float) -> bytes:
        """The answer as of `now`: TTLs counted down, addresses one place further than last time."""
        body = self.body
        if self.ttls and (age := int(now - self.stored)):
            aged = bytearray(body)
            for offset, ttl in self.ttls:
                _TTL.pack_into(aged, offset, max(0, ttl - age))
            body = bytes(aged)
        if step := self.step:
            start, end = self.start, self.end
            self.turn = (self.turn + step) % (end - start)
            middle = start + self.turn
            body = body[:start] + body[middle:end] + body[start:middle] + body[end:]
        return body


class AnswerCache:
    """At most `size` answers; the oldest go first. Times are in seconds of one clock of the caller's."""

    def __init__(self, size: int = 10_000) -> None:
        self._size = size
        self._entries: dict[bytes, Entry] = {}
        self._tagged: dict[Tag, set[bytes]] = {}

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, question: bytes, now: float) -> Entry | None:
        """The entry of a question (a message without its id), unless it is too old."""
        entry = self._entries.get(question)
        if entry is not None and entry.expires <= now:
            self._remove(question)
            return None
        return entry

    def put(self, question: bytes, entry: Entry) -> None:
        """Keep an answer."""
        self._remove(question)
        while len(self._entries) >= self._size:
            self._remove(next(iter(self._entries)))
        self._entries[question] = entry
        if entry.tag is not None:
            self._tagged.setdefault(entry.tag, set()).add(question)

    def forget(self, tags: Iterable[Tag]) -> None:
        """Drop what depends on something that has changed."""
        for tag in tags:
            if tag == NAMESPACES:
                self._entries.clear()
                self._tagged.clear()
                return
            for question in self._tagged.pop(tag, ()):
                self._entries.pop(question, None)

    def _remove(self, question: bytes) -> None:
        entry = self._entries.pop(question, None)
        if entry is not None and entry.tag is not None:
            questions = self._tagged.get(entry.tag)
            if questions is not None:
                questions.discard(question)
                if not questions:
                    del self._tagged[entry.tag]
