"""A finding of `doctor`: what is wrong, where, how that is known, what it breaks, and what mends it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from enum import IntEnum
from typing import Any


class Severity(IntEnum):
    """How bad it is."""

    WARNING = 1
    """It works now, and will not for ever."""
    ERROR = 2
    """Something does not work, or one failure more stops it."""

    def __str__(self) -> str:
        return self.name.lower()


@dataclass(frozen=True, slots=True)
class Fix:
    """What `doctor --fix` can do about a finding on one host."""

    name: str
    """Which fix it is (`phases/doctor_fixes.py`)."""
    title: str
    host: str
    arguments: tuple[str, ...] = ()
    interrupts: str = ""
    """What it interrupts while it is done, so that somebody is asked before; empty for nothing."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One cause, on one host or several, or in the cluster."""

    kind: str
    """Its name among all findings, as in `etcd-member-down`."""
    severity: Severity
    cause: str
    """What is wrong, in one sentence without the host's name and without a full stop."""
    hosts: tuple[str, ...] = ()
    """Where; empty for the cluster."""
    pitfall: str = ""
    """The id of its row, as in `P01`; empty where there is none."""
    evidence: tuple[str, ...] = ()
    """What was seen: a process, a file, a value, a line of a log."""
    breaks: str = ""
    """What does not work because of it."""
    mend: tuple[str, ...] = ()
    """Commands, or what a person has to do."""
    fixes: tuple[Fix, ...] = ()
    about: tuple[str, ...] = ()
    """Other hosts that may be the cause of it, as the far ends of pairs."""

    def as_dict(self) -> dict[str, Any]:
        """The finding as `doctor -o json` prints it."""
        return {
            "kind": self.kind,
            "pitfall": self.pitfall or None,
            "severity": str(self.severity),
            "hosts": list(self.hosts),
            "cause": self.cause,
            "evidence": list(self.evidence),
            "breaks": self.breaks,
            "mend": list(self.mend),
            "fix": [
                {"name": fix.name, "title": fix.title, "host": fix.host, "interrupts": fix.interrupts or None}
                for fix in self.fixes
            ],
        }


def merged(findings: Iterable[Finding]) -> list[Finding]:
    """The same cause on several hosts as one finding, its evidence with the hosts' names before it."""
    groups: dict[tuple[object, ...], list[Finding]] = {}
    for one in findings:
        groups.setdefault((one.kind, one.severity, one.cause, one.pitfall, one.breaks, one.mend), []).append(
            one
        )
    return [_merged(group) for group in groups.values()]


def _merged(group: list[Finding]) -> Finding:
    first = group[0]
    if len(group) == 1:
        return first
    # One host may have several of a kind: two containers that end, for example.
    evidence = [
        f"{', '.join(one.hosts)}: {line}" if one.hosts else line for one in group for line in one.evidence
    ]
    return replace(
        first,
        hosts=tuple(dict.fromkeys(host for one in group for host in one.hosts)),
        evidence=tuple(dict.fromkeys(evidence)),
        fixes=tuple(fix for one in group for fix in one.fixes),
    )


def worst(findings: Iterable[Finding]) -> Severity | None:
    """The worst severity; None where there is no finding."""
    return max((one.severity for one in findings), default=None)
