"""What a shell script has printed under headings of its own, taken apart."""

from __future__ import annotations

_MARK = "### "
SECTION = f"section() {{ printf '\\n{_MARK}%s\\n' \"$1\"; }}\n"
"""For a script: `section NAME` begins one, even where the last line before it has no end."""


def sections(text: str) -> dict[str, str]:
    """The text under each line `### NAME`, without blank lines; under one that comes twice, all of it."""
    found: dict[str, list[str]] = {}
    lines: list[str] = []
    for line in text.splitlines():
        if line.startswith(_MARK):
            lines = found.setdefault(line.removeprefix(_MARK).strip(), [])
        elif line.strip():
            lines.append(line)
    return {name: "\n".join(lines) for name, lines in found.items()}
