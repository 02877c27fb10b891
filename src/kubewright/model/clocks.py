"""How far the clocks of hosts are apart, from one question to each, the time that the answers took counted in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from kubewright.model.preflight import Finding

WARN, REFUSE = 2.0, 30.0
"""Seconds. etcd complains of one; certificates and tokens are valid from the moment when they are made."""
HERE = "this computer"


@dataclass(frozen=True, slots=True)
class Reading:
    """What a host's clock said, and the times of our own clock before it was asked and after it had answered."""

    said: float
    before: float
    after: float

    @property
    def least(self) -> float:
        """By how many seconds it is at least ahead of ours (behind, where it is negative)."""
        return self.said - self.after

    @property
    def most(self) -> float:
        """By how many seconds it is at most ahead of ours."""
        return self.said - self.before


def clock_findings(readings: Mapping[str, Reading]) -> list[Finding]:
    """Clocks that are surely apart from that in the middle, our own among them.

    A slow answer makes a reading less certain, never a finding.
    """
    if not readings:
        return []
    known = {HERE: (0.0, 0.0)} | {name: (one.least, one.most) for name, one in readings.items()}
    ordered = sorted(known, key=lambda name: sum(known[name]))
    # Of two in the middle a host's rather than ours.
    low, high = ordered[(len(ordered) - 1) // 2], ordered[len(ordered) // 2]
    middle = high if low == HERE else low
    findings = []
    for name, (least, most) in known.items():
        ahead, behind = least - known[middle][1], known[middle][0] - most
        apart = max(ahead, behind)
        if apart <= WARN:
            continue
        direction = "ahead of" if ahead > behind else "behind"
        findings.append(
            Finding(
                name, f"its clock is {_span(apart)} {direction} that of {middle}",
                "set it by NTP: timedatectl set-ntp true (with systemd-timesyncd or chrony installed)",
                check="Clock", error=apart > REFUSE,
                evidence=("certificates and tokens are not valid yet, or no longer, where clocks are apart",)
                if apart > REFUSE else (),
            )
        )  # fmt: skip
    return findings


def _span(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.0f} h"
