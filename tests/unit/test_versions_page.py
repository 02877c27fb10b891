"""docs/versions.md says what the version table says, with a source for every fact."""

from __future__ import annotations

from dataclasses import fields
from itertools import pairwise

from tools.versions.__main__ import PAGE
from tools.versions.page import page
from tools.versions.sources import SOURCES, entries

from kubewright.model.version_facts import VersionFacts
from kubewright.model.version_rows import PATCHES, ROWS


def test_the_page_is_what_the_table_gives() -> None:
    assert PAGE.read_text() == page(), "write it again: python -m tools.versions"


def test_every_fact_has_a_source_and_every_source_a_fact() -> None:
    assert set(SOURCES) == {field.name for field in fields(VersionFacts)} - {"version"}


def test_the_page_has_every_version() -> None:
    said = page()
    assert all(f"\n| {minor} | " in said for minor in list(ROWS)[1:])


def test_only_what_changed_is_said_to_have_been_checked() -> None:
    changed = {
        (minor, name)
        for (_, before), (minor, after) in pairwise(ROWS.items())
        for name in SOURCES
        if getattr(before, name) != getattr(after, name)
    }
    changed |= {
        (f"{minor}.{patch}", name)
        for minor, patches in PATCHES.items()
        for patch, facts in patches.items()
        for name in facts
    }
    assert entries() <= changed, "a change that the table does not have"
