"""Writes docs/kubeadm-parity.md out of a comparison and the table of differences."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from tools.parity.compare import Comparison, Row
from tools.parity.differences import ALONE, DIFFERENCES, JOINED, Difference

INTRODUCTION = """\
# What of kubeadm is there

This page is generated: `.venv/bin/python -m tools.parity write` walks the commands of kubeadm 1.20.2 and ours, and
a test compares it with what it would write now. An absence without a reason, and a reason without an absence, are
errors; so is a difference between the two tools' files and objects that is not listed here, and one that is listed
and no longer seen.
"""

_EVERYWHERE = ("host", "ssh-key", "ssh-known-hosts", "ssh-jump")

FILES = """\
For six configurations (plain; names, arguments, volumes and a certificate key; external etcd; ECDSA; subnets,
domain and port; image repository) both tools initialise a machine. Everything below `/etc/kubernetes` and
`/var/lib/kubelet` with its owners and modes, and all objects of the cluster, its RBAC and the Node among them, are
compared without what is random or a time, and without what controllers derive from them. These are all the
differences that there are:"""

JOINS = """\
On one cluster each tool joins a worker and a control plane. Between their files and Nodes there is, besides the
order of etcd's members:"""

PHASES = """\
Where phases are run alone, kubeadm's on our cluster and ours on kubeadm's, it is also:"""

LIMITS = """\
## Kubeadm on clusters of `kubewright apply`

Where the cluster's DNS server is our own (`dns.provider: builtin`), it stands in the Deployment `coredns`, with
CoreDNS' version and Corefile, so that `kubeadm upgrade plan` finds what it looks for. kubeadm's own phase
`addon coredns`, and with it `kubeadm upgrade apply`, puts CoreDNS in its place; the next `kubewright apply` takes
that back.
"""


def page(comparison: Comparison, more_commands: Sequence[str]) -> str:
    """The whole page, in Markdown."""
    return "\n".join(
        [
            INTRODUCTION,
            *_summary(comparison),
            *_commands(comparison),
            *_more(more_commands),
            *_files(),
            LIMITS,
        ]
    )


def _summary(comparison: Comparison) -> Iterator[str]:
    commands, all_commands, flags, all_flags = comparison.count()
    yield "| | kubeadm 1.20.2 | of these in Kubewright |"
    yield "| --- | --- | --- |"
    yield f"| commands | {all_commands} | {commands} |"
    yield f"| flags of commands | {all_flags} | {flags} |"
    yield ""


def _commands(comparison: Comparison) -> Iterator[str]:
    yield "## Commands and flags"
    yield ""
    yield (
        "*There* lists the flags that both have; a short form is written before its flag. *Only here* lists what\n"
        "Kubewright has beyond kubeadm, but for what all commands that act on a host have: "
        + ", ".join(f"`--{flag}`" for flag in _EVERYWHERE)
        + "."
    )
    yield ""
    yield "| command | there | missing | only here |"
    yield "| --- | --- | --- | --- |"
    notes: dict[str, int] = {}
    for row in comparison.rows:
        yield _row(row, notes)
    yield ""
    if notes:
        yield "Why something is missing:"
        yield ""
        yield from (f"{number}. {why}." for why, number in notes.items())
        yield ""


def _row(row: Row, notes: dict[str, int]) -> str:
    name = f"`{f'kubeadm {row.command.path}'.strip()}`"
    if row.command.aliases:
        name += f" ({', '.join(f'`{alias}`' for alias in row.command.aliases)})"
    there = [f"`{f'-{flag.short}, ' if flag.short else ''}--{flag.name}`" for flag in row.flags]
    missing = [
        f"{f'`{what}`' if what else 'the command'}&nbsp;({notes.setdefault(why, len(notes) + 1)})"
        for what, why in row.missing
    ]
    cells = [name, ", ".join(there) or ("yes" if row.there else ""), ", ".join(missing)]
    return f"| {' | '.join([*cells, ', '.join(f'`--{flag}`' for flag in row.more if flag not in _EVERYWHERE)])} |"


def _more(commands: Sequence[str]) -> Iterator[str]:
    yield "## Commands that kubeadm 1.20.2 has not"
    yield ""
    yield ", ".join(f"`kubewright {command}`" for command in commands) + "."
    yield ""


def _files() -> Iterator[str]:
    yield "## Files and objects"
    yield ""
    yield FILES
    yield ""
    yield from _table(DIFFERENCES)
    yield ""
    yield JOINS
    yield ""
    yield from _table(JOINED)
    yield ""
    yield PHASES
    yield ""
    yield from _table(ALONE)
    yield ""


def _table(differences: Sequence[Difference]) -> Iterator[str]:
    yield "| where | what | why |"
    yield "| --- | --- | --- |"
    for item in differences:
        yield f"| `{item.where}` | {item.what} | {item.why} |"
