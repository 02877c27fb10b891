"""Every kind that is asked for by its name has a path."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from kubewright.clients.paths import object_path

SOURCES = Path(__file__).parents[3] / "src"
_ASKED = re.compile(r'\.(?:get|list|delete|patch|watch)\(\s*"((?:[a-z.0-9]+/)?v\d\w*)",\s*"(\w+)"')
ASKED = sorted({found for path in SOURCES.rglob("*.py") for found in _ASKED.findall(path.read_text())})


@pytest.mark.parametrize(("version", "kind"), ASKED)
def test_a_kind_that_is_asked_for_has_a_path(version: str, kind: str) -> None:
    assert object_path(version, kind).startswith("/api")


def test_they_are_found() -> None:
    assert ("v1", "Pod") in ASKED
    assert ("networking.k8s.io/v1", "NetworkPolicy") in ASKED
