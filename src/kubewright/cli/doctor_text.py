"""What `kubewright doctor` found, as text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from kubewright.cli.table import bad, coloured, faint, good
from kubewright.model.doctor.finding import Finding, Severity

if TYPE_CHECKING:
    from kubewright.workflows.doctor import Examination


def examination_lines(found: Examination) -> list[str]:
    """A block for each finding, and how many there are."""
    lines: list[str] = []
    for one in found.findings:
        lines += [*finding_lines(one), ""]
    return [*lines, _verdict(found)]


def finding_lines(one: Finding) -> list[str]:
    """One finding: what and where, what was seen, what it breaks, and what mends it."""
    name = str(one.severity)
    head = bad(name) if one.severity is Severity.ERROR else coloured(name, "yellow")
    where = f"{', '.join(one.hosts)}: " if one.hosts else ""
    lines = [f"{head}  {where}{one.cause}{f' ({one.pitfall})' if one.pitfall else ''}"]
    lines += _field("seen", one.evidence)
    lines += _field("breaks", [one.breaks] if one.breaks else [])
    lines += _field("mend", one.mend)
    lines += _field("--fix", [f"{fix.title} on {fix.host}{_after(fix.interrupts)}" for fix in one.fixes])
    return lines


def _after(interrupts: str) -> str:
    return f" (asks before: {interrupts})" if interrupts else ""


def _field(name: str, lines: Sequence[str]) -> list[str]:
    return [f"  {faint(name if index == 0 else ''):<8}{line}" for index, line in enumerate(lines)]


def _verdict(found: Examination) -> str:
    hosts = found.facts.nodes
    asked = f"{len(hosts)} host{'s' if len(hosts) != 1 else ''} asked"
    if not found.findings:
        return good("Nothing is wrong.") + faint(f" {asked}; `kubewright check` tries the networks out.")
    errors = sum(1 for one in found.findings if one.severity is Severity.ERROR)
    warnings = len(found.findings) - errors
    counts = [_count(errors, "error"), _count(warnings, "warning")]
    return f"{' and '.join(filter(None, counts))}; {asked}."


def _count(count: int, word: str) -> str:
    return f"{count} {word}{'s' if count != 1 else ''}" if count else ""
