"""A value that must not be printed, logged or shown in a traceback."""

from __future__ import annotations

import re
from typing import Generic, TypeVar

T = TypeVar("T", bound=str | bytes)

_OF_URL = re.compile(r"(://[^\s/:@]*):[^\s/@]+@")


class Secret(Generic[T]):
    """Wraps a private key, token or password; `reveal()` is the only way to the value.

    >>> print(Secret("hunter2"))
    <secret>
    """

    __slots__ = ("_value",)

    def __init__(self, value: T) -> None:
        self._value: T = value

    def reveal(self) -> T:
        """The value itself, for a 0600 file or a verified channel and nothing else."""
        return self._value

    def __repr__(self) -> str:
        return "<secret>"

    __str__ = __repr__

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Secret):
            return NotImplemented
        return bool(self._value == other._value)

    def __hash__(self) -> int:
        return hash((Secret, self._value))

    def __reduce__(self) -> str:
        raise TypeError("a Secret is not pickled")


def without_passwords(text: str) -> str:
    """A text to be shown, without the passwords of its URLs, such as a proxy's.

    >>> without_passwords("http://me:hunter2@proxy.example.com:3128")
    'http://me:<secret>@proxy.example.com:3128'
    """
    return _OF_URL.sub(r"\1:<secret>@", text)
