"""A computer's state, item by item, and how two of them differ: `lab down` must leave no difference.

`python -m kubewright.lab.snapshot take FILE` writes one down; `… compare FILE` prints what has changed since, and
ends with code 1 where anything has. `… compare --ours FILE` leaves out the files and processes of other programs.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from kubewright.lab.cgroups import hierarchies, lab_of
from kubewright.lab.proc import pids, read, run

# Directories in which programs leave files for a while, and how deep to look. What is below is the business of
# whoever made the directory.
_TRANSIENT = (("/tmp", 1), ("/var/tmp", 1), ("/dev/shm", 1), ("/run", 3), ("/var/lib/kubewright", 3))  # noqa: S108

# Settings that the kernel changes by itself or that differ from one reading to the next.
_VOLATILE = (
    "fs/aio-nr", "fs/binfmt_misc/", "fs/dentry-state", "fs/file-nr", "fs/inode-nr", "fs/inode-state", "fs/nfs/",
    "fs/quota/", "kernel/keys/", "kernel/ns_last_pid", "kernel/perf_event_max_sample_rate", "kernel/pty/nr",
    "kernel/random/", "kernel/sched_domain", "kernel/usermodehelper/", "net/ipv4/conf/", "net/ipv4/neigh/",
    "net/ipv4/route/flush", "net/ipv6/conf/", "net/ipv6/neigh/", "net/ipv6/route/flush", "net/mpls/conf/",
    "net/netfilter/nf_conntrack_count", "vm/compact_memory", "vm/drop_caches", "vm/stat_refresh",
)  # fmt: skip

Snapshot = Mapping[str, frozenset[str]]
"""For each kind of thing, a line for each that is there."""


@dataclass(frozen=True, slots=True)
class Difference:
    """A thing that one snapshot has and the other has not."""

    kind: str
    added: bool
    line: str

    def __str__(self) -> str:
        return f"{self.kind}: {'+' if self.added else '-'} {self.line}"


Ignore = Callable[[Difference], bool]

_OURS = (
    "kube", "nspawn", "netns", "etcd", "containerd", "runc", "mmdebstrap", "go-build", "pytest", ".venv/", "/sshd",
)  # fmt: skip


def ours(difference: Difference) -> bool:
    """Whether a difference may come from a lab, from the tests or from what they run, and not from other programs.

    Only programs, their directories and their mounts are told apart, by words in them; nobody but us is expected
    to change networks, packet filters and kernel settings meanwhile.
    """
    if difference.kind == "network namespace":  # without an owner's name it is some process's own, seen above
        return "lab " in difference.line or "/" in difference.line
    if difference.kind == "process" and not difference.added:  # programs end
        return False
    if difference.kind in ("process", "file", "mount", "cgroup"):
        return any(word in difference.line for word in _OURS)
    return True


async def take() -> Snapshot:
    """Look at this computer. The commands that look leave nothing behind either, and are not in it."""
    address, route, rule, link, nft, v4, v6 = await asyncio.gather(
        _json_lines("ip", "-j", "address"),
        _json_lines("ip", "-j", "route", "show", "table", "all"),
        _json_lines("ip", "-j", "rule"),
        _json_lines("ip", "-j", "link"),
        _text_lines("nft", "--stateless", "list", "ruleset"),
        _text_lines("iptables-save"),
        _text_lines("ip6tables-save"),
    )
    files = frozenset(line for top, depth in _TRANSIENT for line in _tree(Path(top), depth))
    return {
        "process": frozenset(_processes()),
        "mount": frozenset(_mounts()),
        "network namespace": frozenset(_network_namespaces()),
        "link": link,
        "address": address,
        "route": route,
        "rule": rule,
        "nftables": nft,
        "iptables": v4 | v6,
        "cgroup": frozenset(_cgroups()),
        "file": files,
        "kernel setting": frozenset(_settings()),
        "home file": frozenset(_home()),
    }


def compare(before: Snapshot, after: Snapshot, ignore: Ignore = lambda _: False) -> list[Difference]:
    """What `after` has more or less than `before`, but for what `ignore` is true of."""
    found = [
        Difference(kind, line in after[kind], line)
        for kind in before
        for line in sorted(before[kind] ^ after[kind])
    ]
    return [difference for difference in found if not ignore(difference)]


async def settle(
    before: Snapshot, *, deadline: float = 10.0, ignore: Ignore = lambda _: False
) -> list[Difference]:
    """Compare until there is no difference or `deadline` seconds have passed; returns the last differences.

    The kernel takes its time to dissolve a network namespace, and other programs come and go.
    """
    end = time.monotonic() + deadline
    while True:
        found = compare(before, await take(), ignore)
        if not found or time.monotonic() > end:
            return found
        await asyncio.sleep(0.25)


def dump(snapshot: Snapshot) -> str:
    """The snapshot as JSON, for a file."""
    return json.dumps({kind: sorted(lines) for kind, lines in snapshot.items()}, indent=1)


def load(text: str) -> Snapshot:
    """The snapshot that `dump` wrote."""
    return {kind: frozenset(lines) for kind, lines in json.loads(text).items()}


async def _json_lines(*argv: str) -> frozenset[str]:
    """One line for each row of `ip -j`, without what changes by itself (counters, lifetimes, states)."""
    if not shutil.which(argv[0]):
        return frozenset()
    _, out, _ = await run(argv, check=False)
    changing = {"valid_life_time", "preferred_life_time", "expires", "age", "stats", "stats64"}
    lines = []
    for row in json.loads(out or "[]"):
        for inner in row.get("addr_info", []):
            for key in changing:
                inner.pop(key, None)
        lines.append(json.dumps({key: row[key] for key in sorted(row) if key not in changing}))
    return frozenset(lines)


async def _text_lines(*argv: str) -> frozenset[str]:
    if not shutil.which(argv[0]):
        return frozenset()
    _, out, _ = await run(argv, check=False)
    section, lines = "", []
    for line in out.splitlines():
        if line.startswith("#"):
            continue
        if line.startswith(("*", "table ")):
            section = line
        # A chain's counters are no rule: ":INPUT ACCEPT [12:840]".
        lines.append(f"{section}: {line.split(' [')[0] if line.startswith(':') else line.strip()}")
    return frozenset(lines)


def _processes() -> Iterator[str]:
    """All but kernel threads, those of this run, and those of programs that were there before and go on."""
    mine = {os.getpid()}
    rows = {}
    for pid in pids():
        fields = read(f"/proc/{pid}/stat").rpartition(")")[2].split()
        if fields:
            rows[pid] = (int(fields[1]), int(fields[19]))
    ancestor = os.getppid()
    while ancestor in rows:
        mine.add(ancestor)
        ancestor = rows[ancestor][0]
    for pid, (parent, started) in sorted(rows.items()):
        if parent in mine and parent != 1:
            mine.add(pid)
        command = read(f"/proc/{pid}/cmdline").replace("\0", " ").strip()
        if command and pid not in mine:
            yield f"{pid} started {started}: {command[:120]}"


def _mounts() -> Iterator[str]:
    for line in read("/proc/self/mountinfo").splitlines():
        fields, _, right = line.partition(" - ")
        parts = fields.split()
        yield f"{parts[4]} {parts[3]} {right}"


def _network_namespaces() -> Iterator[str]:
    """By their numbers, and by what shows whose they are: the lab of a process in them, or the file they have."""
    found: dict[str, str] = {}
    for pid in pids():
        with contextlib.suppress(OSError):
            number = str(Path(f"/proc/{pid}/ns/net").readlink())
            lab = lab_of(pid)
            found[number] = f"lab {lab}" if lab else found.get(number, "")
    for line in read("/proc/self/mountinfo").splitlines():
        if " - nsfs " in line and line.split()[3].startswith("net:"):
            found[line.split()[3]] = line.split()[4]
    return (f"{number} {owner}".strip() for number, owner in found.items())


def _cgroups() -> Iterator[str]:
    for hierarchy in hierarchies():
        for directory, _, _ in os.walk(hierarchy.mount):
            yield directory


def _tree(top: Path, depth: int) -> Iterator[str]:
    with contextlib.suppress(OSError):
        for entry in os.scandir(top):
            yield entry.path
            if depth > 1 and entry.is_dir(follow_symlinks=False):
                yield from _tree(Path(entry.path), depth - 1)


def _settings() -> Iterator[str]:
    for directory, _, names in os.walk("/proc/sys"):
        for name in names:
            path = f"{directory}/{name}"
            inner = path.removeprefix("/proc/sys/")
            if not inner.startswith(_VOLATILE):
                yield f"{inner} = {read(path).strip()[:200]}"


def _home() -> Iterator[str]:
    """The user's kubeconfig by its content: the lab's context must have gone out of it."""
    path = Path("~/.kube/config").expanduser()
    if path.exists():
        yield f"{path}: {read(path)}"


def main() -> None:
    """Take or compare, by the arguments."""
    match sys.argv[1:]:
        case ["take", file]:
            Path(file).write_text(dump(asyncio.run(take())))
        case ["compare", *which, file] if which in ([], ["--ours"]):

            def ignore(found: Difference) -> bool:
                return file in found.line or (bool(which) and not ours(found))

            left = asyncio.run(settle(load(Path(file).read_text()), ignore=ignore))
            print("\n".join(map(str, left)) or "this computer is as it was")
            sys.exit(1 if left else 0)
        case _:
            sys.exit(f"usage: {sys.argv[0]} take FILE | compare [--ours] FILE")


if __name__ == "__main__":
    main()
