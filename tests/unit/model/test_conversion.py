"""The record of a conversion: what is written is read again, and nothing else is."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from kubewright.errors import ConfigError
from kubewright.model.conversion import Mode, Record, parse_record

RECORD = Record(
    "20260301T120000Z-1a2b",
    Mode.TO_HA,
    datetime(2026, 3, 1, 12, tzinfo=UTC),
    "https://10.0.0.11:6443",
    "api.example.com:6443",
    ("cp1",),
    ("cp1", "w1"),
)


@pytest.mark.parametrize("ended", [None, datetime(2026, 3, 1, 12, 5, 7, 123456, tzinfo=UTC)])
def test_a_record_is_read_as_it_was_written(ended: datetime | None) -> None:
    record = replace(RECORD, ended=ended)
    assert parse_record(record.text(), "x") == record
    assert record.unfinished == (ended is None)


def test_it_is_the_json_that_is_documented() -> None:
    assert json.loads(RECORD.text()) == {
        "id": "20260301T120000Z-1a2b", "mode": "to-ha", "began": "2026-03-01T12:00:00Z",
        "from": "https://10.0.0.11:6443", "to": "api.example.com:6443", "controlPlanes": ["cp1"],
        "nodes": ["cp1", "w1"], "ended": None,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("field", "value", "why"),
    [
        ("mode", "sideways", "mode"),
        ("mode", ["to-ha"], "mode"),
        ("began", "yesterday", "began is no time"),
        ("began", "2026-03-01T12:00:00", "began is no time in UTC"),
        ("began", "2026-03-01T12:00:00+01:00", "began is no time in UTC"),
        ("began", 7, "began is no text"),
        ("ended", "", "ended is no text"),
        ("ended", False, "ended is no text"),
        ("id", "../../etc", "id"),
        ("id", "", "id"),
        ("from", None, "from"),
        ("to", 1, "to"),
        ("controlPlanes", "cp1", "controlPlanes"),
        ("controlPlanes", [], "controlPlanes"),
        ("nodes", ["cp1", 2], "nodes"),
        ("more", 1, "more is not known"),
    ],
)
def test_a_wrong_field_is_named_with_the_file(field: str, value: Any, why: str) -> None:
    document = json.loads(RECORD.text()) | {field: value}
    with pytest.raises(ConfigError, match=f"cp1: /a.json is damaged: {why}"):
        parse_record(json.dumps(document).encode(), "cp1: /a.json")


@pytest.mark.parametrize("field", ["id", "ended", "controlPlanes"])
def test_a_missing_field_is_named(field: str) -> None:
    document = json.loads(RECORD.text())
    del document[field]
    with pytest.raises(ConfigError, match=f"{field} is missing"):
        parse_record(json.dumps(document).encode(), "x")


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"null", b"\xff"])
def test_what_is_no_record_is_refused(content: bytes) -> None:
    with pytest.raises(ConfigError, match="x is damaged: it is no JSON"):
        parse_record(content, "x")
