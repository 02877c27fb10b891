"""What a shell script has printed under headings of its own, taken apart."""

from __future__ import annotations

_MARK = "### "


def sections(text: str) -> dict[str, str]:
    """The text under each line `### NAME`; under one that comes twice, all of it."""
    found: dict[str, list[str]] = {}
    lines: list[str] = []
    for line in text.splitlines():
        if line.startswith(_MARK):
            lines = found.setdefault(line.removeprefix(_MARK).strip(), [])
        else:
            lines.append(line)
    return {name: "\n".join(lines) for name, lines in found.items()}
