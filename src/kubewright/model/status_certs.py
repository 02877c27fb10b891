"""Certificates that end within 30 days, or have ended (P22)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

from kubewright.model.status import span

SOON = timedelta(days=30)


@dataclass(frozen=True, slots=True)
class SeenCert:
    """A certificate that was read on a host or served by it."""

    host: str
    name: str
    """As in `kubewright certs check-expiration`."""
    ends: datetime


@dataclass(frozen=True, slots=True)
class EndingCert:
    """One that ends soon or has ended; the same on all of `hosts`, as authorities are."""

    name: str
    hosts: tuple[str, ...]
    ends: datetime
    ended: bool
    left: timedelta

    @property
    def text(self) -> str:
        """When it ends, in words."""
        if self.ended:
            return f"ended {span(-self.left)} ago"
        return f"ends in {span(self.left)}"


@dataclass(frozen=True, slots=True)
class CertsStatus:
    """All that were read, and those that end soon."""

    read: int
    first_end: datetime | None
    """When the first of all ends."""
    ending: tuple[EndingCert, ...]


def certs_status(seen: Iterable[SeenCert], now: datetime) -> CertsStatus:
    """The certificates that end within `SOON` of `now`, the first to end first."""
    seen = list(seen)
    groups: dict[tuple[datetime, str], list[str]] = {}
    for cert in seen:
        if cert.ends - now <= SOON:
            groups.setdefault((cert.ends, cert.name), []).append(cert.host)
    return CertsStatus(
        len(seen),
        min((cert.ends for cert in seen), default=None),
        tuple(
            EndingCert(name, tuple(hosts), ends, ends <= now, ends - now)
            for (ends, name), hosts in sorted(groups.items())
        ),
    )


def cert_problems(status: CertsStatus) -> list[str]:
    """A line for each that ends soon."""
    return [f"certificate {cert.name} of {', '.join(cert.hosts)} {cert.text}" for cert in status.ending]
