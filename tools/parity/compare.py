"""Compares two command lines: what of kubeadm's is missing in ours, and whether each absence has its reason."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tools.parity.reasons import Reason
from tools.parity.tree import Command, Flag, Tree


@dataclass(frozen=True)
class Row:
    """One command of kubeadm: what of it is there, what is missing and why, and what we have beyond it."""

    command: Command
    there: bool
    flags: tuple[Flag, ...]
    missing: tuple[tuple[str, str], ...]
    """What is missing (`--flag`, `-x`, an alias, or "" for the command itself) with its reason."""
    more: tuple[str, ...]


@dataclass(frozen=True)
class Comparison:
    """All rows, and what is wrong with the comparison itself: a lack without a reason, a reason without a lack."""

    rows: tuple[Row, ...]
    faults: tuple[str, ...]

    def count(self) -> tuple[int, int, int, int]:
        """Commands there, commands in all, flags there, flags in all."""
        commands = sum(row.there for row in self.rows)
        flags = sum(len(row.flags) for row in self.rows)
        return commands, len(self.rows), flags, sum(len(row.command.flags) for row in self.rows)


def compare(
    theirs: Tree, ours: Tree, resolves: Callable[[str], bool], reasons: Sequence[Reason]
) -> Comparison:
    """Compare kubeadm's tree with ours; `resolves` tells whether a path is a command of ours by any name."""
    faults: list[str] = []
    used: set[Reason] = set()

    def why(command: str, flag: str, what: str) -> str:
        for reason in reasons:
            if reason.covers(command, flag):
                used.add(reason)
                return reason.why
        faults.append(f"kubeadm {command} {what or ''}: missing without a reason".replace(" :", ":"))
        return ""

    rows = []
    for path, command in sorted(theirs.items()):
        mine = ours.get(path)
        if mine is None:
            rows.append(Row(command, False, (), (("", why(path, "", "")),), ()))
            continue
        missing: list[tuple[str, str]] = []
        for alias in command.aliases:
            parent, _, _ = path.rpartition(" ")
            if not resolves(f"{parent} {alias}".strip()):
                missing.append((alias, why(path, alias, alias)))
        flags = []
        for name, flag in sorted(command.flags.items()):
            has = mine.flags.get(name)
            if has is None:
                missing.append((f"--{name}", why(path, name, f"--{name}")))
                continue
            flags.append(flag)
            if flag.short and has.short != flag.short:
                missing.append((f"-{flag.short}", why(path, f"-{flag.short}", f"-{flag.short}")))
            if flag.takes_value != has.takes_value:
                faults.append(f"kubeadm {path} --{name}: one takes a value, the other does not")
        if command.arguments and not mine.arguments:
            missing.append(("its argument", why(path, "argument", "its argument")))
        more = tuple(sorted(mine.flags.keys() - command.flags.keys()))
        rows.append(Row(command, True, tuple(flags), tuple(missing), more))
    faults += [
        f"tools/parity/reasons.py: {reason}: nothing is missing there"
        for reason in reasons
        if reason not in used
    ]
    faults += _wrong(theirs, ours, reasons)
    return Comparison(tuple(rows), tuple(faults))


def _wrong(theirs: Tree, ours: Tree, reasons: Sequence[Reason]) -> list[str]:
    """Reasons for flags that are there."""
    return [
        f"tools/parity/reasons.py: {reason}: kubewright {path} has --{name}"
        for reason in reasons
        for path, command in theirs.items()
        if path in ours
        for name in command.flags
        if reason.covers(path, name) and name in ours[path].flags
    ]
