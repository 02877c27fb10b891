"""`python -m tools.versions`: write docs/versions.md out of the version table."""

from __future__ import annotations

from pathlib import Path

from tools.versions.page import page

PAGE = Path(__file__).parents[2] / "docs/versions.md"

if __name__ == "__main__":
    PAGE.write_text(page())
