"""The pages of the pitfalls, one for each id such as P37: what users see, why, and what mends it."""

from __future__ import annotations

import re
from functools import cache
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path

from kubewright.errors import ConfigError, ExitCode

IN_PACKAGE = "pitfalls"
"""Where an installed package has the pages; pyproject.toml puts them there."""
IN_CHECKOUT = "docs/pitfalls"

_PAGE = re.compile(r"P\d\d\.md")


def ids() -> tuple[str, ...]:
    """All ids, in their order."""
    return tuple(sorted(_pages()))


def page(id: str) -> str:
    """The text of a pitfall's page, as Markdown. Raises `ConfigError` for an unknown id."""
    found = _pages().get(id.strip().upper())
    if found is None:
        raise ConfigError(
            f"there is no pitfall {id!r}",
            hint=f"these there are: {', '.join(ids())}",
            exit_code=ExitCode.USAGE,
        )
    return found.read_text(encoding="utf-8")


@cache
def _pages() -> dict[str, Traversable]:
    directory = files("kubewright").joinpath(IN_PACKAGE)
    if not directory.is_dir():
        directory = Path(__file__).parents[3] / IN_CHECKOUT
    return {item.name[:3]: item for item in directory.iterdir() if _PAGE.fullmatch(item.name)}
