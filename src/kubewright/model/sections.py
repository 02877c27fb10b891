"""What a shell script that looks at a host has printed, taken apart at its headings."""

from __future__ import annotations

import re


def sections(text: str) -> dict[str, str]:
    """The text under each line `@@ NAME`, as it stands there; what is before the first is passed over."""
    parts = re.split(r"(?:\A|\n)@@ (\w+)\n", text)
    return dict(zip(parts[1::2], parts[2::2], strict=True))
