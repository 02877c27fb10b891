"""docs/versions.md says what the version table says, with a source for every fact."""

from __future__ import annotations

from dataclasses import fields

from tools.versions.__main__ import PAGE
from tools.versions.page import page
from tools.versions.sources import SOURCES

from kubewright.model.version_facts import VersionFacts
from kubewright.model.version_rows import ROWS


def test_the_page_is_what_the_table_gives() -> None:
    assert PAGE.read_text() == page(), "write it again: python -m tools.versions"


def test_every_fact_has_a_source_and_every_source_a_fact() -> None:
    assert set(SOURCES) == {field.name for field in fields(VersionFacts)} - {"version"}


def test_the_page_has_every_version() -> None:
    said = page()
    assert all(f"\n| {minor} | " in said for minor in list(ROWS)[1:])
