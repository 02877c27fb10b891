"""Durations as Kubernetes' configuration files spell them: `1h30m`, `90s`, `250ms`."""

from __future__ import annotations

import re
from datetime import timedelta
from decimal import Decimal

_UNITS = {
    "ns": 1, "us": 10**3, "µs": 10**3, "μs": 10**3, "ms": 10**6, "s": 10**9, "m": 60 * 10**9, "h": 3600 * 10**9,
}  # fmt: skip
_PART = re.compile(r"([0-9]{1,18}(?:\.[0-9]{0,18})?|\.[0-9]{1,18})(ns|us|µs|μs|ms|s|m|h)", re.ASCII)
_MOST = 2**63 - 1


def parse_duration(text: str) -> int:
    """Nanoseconds of a duration as Go's `time.ParseDuration` reads it. Raises `ValueError`."""
    sign, rest = (-1, text[1:]) if text.startswith("-") else (1, text.removeprefix("+"))
    if rest == "0":
        return 0
    total, end = Decimal(0), 0
    while match := _PART.match(rest, end):
        total += Decimal(match[1]) * _UNITS[match[2]]
        end = match.end()
    if not rest or end != len(rest) or total > _MOST:
        raise ValueError(f"{text!r} is not a duration such as 90s, 4m0s or 1h30m")
    return sign * int(total)


def timedelta_of(text: str) -> timedelta:
    """`parse_duration` to the microsecond. Raises `ValueError`."""
    return timedelta(microseconds=parse_duration(text) // 1000)


def format_duration(nanoseconds: int) -> str:
    """The way in which Go prints a duration: `4m0s`, `1h0m0s`, `1.5s`, `250ms`, `0s`."""
    if nanoseconds < 0:
        return "-" + format_duration(-nanoseconds)
    if nanoseconds == 0:
        return "0s"
    for unit, size in (("ns", 1), ("µs", 10**3), ("ms", 10**6)):
        if nanoseconds < size * 1000:
            return _decimal(nanoseconds, size) + unit
    minutes, rest = divmod(nanoseconds, 60 * 10**9)
    hours, minutes = divmod(minutes, 60)
    text = _decimal(rest, 10**9) + "s"
    if hours:
        return f"{hours}h{minutes}m{text}"
    return f"{minutes}m{text}" if minutes else text


def _decimal(value: int, size: int) -> str:
    whole, part = divmod(value, size)
    digits = str(part).zfill(len(str(size)) - 1).rstrip("0") if part else ""
    return f"{whole}.{digits}" if digits else str(whole)


def normal_duration(text: str) -> str:
    """A duration as Go prints it: `90s` becomes `1m30s`. Raises `ValueError`."""
    return format_duration(parse_duration(text))


def short_duration(seconds: float) -> str:
    """A time that is left, as kubeadm's tables show it: the largest unit alone, such as `23h` or `364d`.

    `<invalid>` for what has passed by more than a second, which clocks may disagree about.
    """
    whole = int(seconds)
    if whole < -1:
        return "<invalid>"
    if seconds < 0:
        return "0s"
    for unit, size, most in (("s", 1, 60), ("m", 60, 60), ("h", 3600, 24), ("d", 86400, 365)):
        if whole < size * most:
            return f"{whole // size}{unit}"
    return f"{whole // (365 * 86400)}y"
