"""The cgroup of a machine, one in every hierarchy: it confines the machine and tells us what belongs to it.

A machine's cgroup is made below the one that Kubewright itself runs in, so that limits set from outside hold for
the lab, too. The first process of a machine is moved there before systemd-nspawn starts; the machine's cgroup
namespace then has it as its root, and a kubelet inside needs no `cgroupRoot`.
"""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from kubewright.lab.proc import pids, read

TOP = "kubewright-lab"
"""The cgroup that holds all labs; no other program makes one of this name."""


@dataclass(frozen=True, slots=True)
class Hierarchy:
    """A mounted cgroup hierarchy."""

    mount: Path
    version: int
    controllers: frozenset[str]
    """Of version 1, as the mount names them: `memory`, `name=systemd`. Empty for version 2."""


def hierarchies(mountinfo: str | None = None) -> list[Hierarchy]:
    """The hierarchies mounted on this computer (proc(5) on mountinfo); the first mount of each."""
    found: dict[tuple[int, frozenset[str]], Hierarchy] = {}
    for line in (mountinfo if mountinfo is not None else read("/proc/self/mountinfo")).splitlines():
        left, _, right = line.partition(" - ")
        fields, (kind, _, options) = left.split(), right.split(" ", 2)
        if kind not in ("cgroup", "cgroup2") or fields[3] != "/":
            continue
        version = 2 if kind == "cgroup2" else 1
        flags = {"rw", "ro", "xattr", "clone_children", "noprefix", "nsdelegate", "memory_recursiveprot"}
        names = frozenset(
            option
            for option in options.split(",")
            if option not in flags and not option.startswith("release_agent")
        )
        controllers = names if version == 1 else frozenset()
        found.setdefault(
            (version, controllers), Hierarchy(Path(fields[4].replace("\\040", " ")), version, controllers)
        )
    return list(found.values())


def own_path(hierarchy: Hierarchy, proc_cgroup: str) -> str:
    """Where a process with this /proc/PID/cgroup is in a hierarchy, without the leading slash."""
    for line in proc_cgroup.splitlines():
        _, names, path = line.split(":", 2)
        if frozenset(names.split(",")) == (hierarchy.controllers or {""}):
            return path.strip("/")
    return ""


def member_of(pid: int, lab: str, machine: str | None = None) -> bool:
    """Whether a process belongs to a lab or to one machine of it. The kernel says so; no file does."""
    wanted = f"/{TOP}/{lab}/" + (f"{machine}/" if machine else "")
    return any(wanted in line.split(":", 2)[-1] + "/" for line in read(f"/proc/{pid}/cgroup").splitlines())


def members(lab: str, machine: str | None = None) -> list[int]:
    """The processes of a lab or machine, those that only wait to be reaped left out."""
    return [pid for pid in pids() if member_of(pid, lab, machine) and not _is_zombie(pid)]


def lab_of(pid: int) -> str:
    """The lab that a process belongs to, or ""."""
    for line in read(f"/proc/{pid}/cgroup").splitlines():
        _, _, inner = line.split(":", 2)[-1].partition(f"/{TOP}/")
        if inner:
            return inner.split("/")[0]
    return ""


def running_labs() -> set[str]:
    """The labs that have processes or a cgroup, whatever else is left of them."""
    found = {directory.name for top in _tops() for directory in _children(top)}
    return found | {lab for pid in pids() if (lab := lab_of(pid)) and not _is_zombie(pid)}


def _is_zombie(pid: int) -> bool:
    """Whether a process has ended and only waits for its parent to take notice; it keeps its cgroup's name."""
    return "\nState:\tZ" in read(f"/proc/{pid}/status")


def unified(lab: str, machine: str) -> Path | None:
    """A machine's cgroup in the hierarchy of version 2, or None where there is no such hierarchy."""
    return next((_below(found) / TOP / lab / machine for found in hierarchies() if found.version == 2), None)


def _below(hierarchy: Hierarchy) -> Path:
    """Where the labs of this process go: its own cgroup, or the root of the only hierarchy there is.

    With version 2 alone, a cgroup that holds processes gives its children no controllers (cgroups(7)).
    """
    if hierarchy.version == 2 and len(hierarchies()) == 1:
        return hierarchy.mount
    return hierarchy.mount / own_path(hierarchy, read("/proc/self/cgroup")).partition(f"{TOP}/")[0]


def place(pid: int, lab: str, machine: str) -> None:
    """Make a machine's cgroup in every hierarchy and move a process there. Raises `OSError`."""
    for hierarchy in hierarchies():
        path = _below(hierarchy)
        for part in (TOP, lab, machine):
            if hierarchy.version == 2:
                _delegate(path)
            parent, path = path, path / part
            path.mkdir(exist_ok=True)
            if "cpuset" in hierarchy.controllers:
                # A cpuset begins empty, and an empty one takes no process (cpuset(7)).
                for name in ("cpuset.cpus", "cpuset.mems"):
                    if not (path / name).read_text().strip():
                        (path / name).write_text((parent / name).read_text())
        (path / "cgroup.procs").write_text(str(pid))


def join(pid: int, init: int) -> None:
    """Move a process into the machine whose PID 1 is `init`, beside its services. Raises `OSError`."""
    theirs = read(f"/proc/{init}/cgroup")
    for hierarchy in hierarchies():
        path = hierarchy.mount / own_path(hierarchy, theirs).removesuffix("/init.scope")
        if hierarchy.version == 2 and path.name == "payload":
            path = path / "init.scope"  # one with children that have controllers takes no process itself
        (path / "cgroup.procs").write_text(str(pid))


def _delegate(path: Path) -> None:
    """Give the children of a version 2 cgroup every controller that it has itself.

    A cgroup that holds processes of its own cannot (cgroups(7), "no internal processes"); then the kubelet says
    which controller it misses.
    """
    have = set(read(path / "cgroup.subtree_control").split())
    for controller in set(read(path / "cgroup.controllers").split()) - have:
        with contextlib.suppress(OSError):
            (path / "cgroup.subtree_control").write_text(f"+{controller}")


def kill(lab: str, machine: str | None = None) -> list[int]:
    """Send SIGKILL to all processes of a lab or machine, frozen ones included; returns those that were there."""
    found = members(lab, machine)
    for pid in found:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    if found:
        freeze(
            lab, machine, frozen=False
        )  # with version 1 a frozen process dies when it is thawed, not before
    return found


def freeze(lab: str, machine: str | None = None, *, frozen: bool) -> None:
    """Begin to stop, or let go on, all processes of a lab or machine, those included that they start meanwhile.

    Raises `OSError` where neither a freezer of version 1 nor one of version 2 is mounted.
    """
    if not (switches := list(_freezers(lab, machine))) and frozen:
        raise OSError(
            "this computer has no cgroup that freezes: neither `freezer` of version 1 nor version 2"
        )
    for switch, version in switches:
        with contextlib.suppress(FileNotFoundError):  # gone with the last process
            switch.write_text(_FREEZER[version][frozen])


def is_frozen(lab: str, machine: str) -> bool:
    """Whether a machine has been told to stop. What the kernel has not stopped yet does not count as running."""
    states = [(read(switch).strip(), version) for switch, version in _freezers(lab, machine)]
    return any(state not in ("", _FREEZER[version][False]) for state, version in states)


def not_frozen_yet(lab: str, machine: str) -> list[str]:
    """What the kernel says of a machine that has been told to stop, for as long as something in it still goes."""
    said = []
    for switch, version in _freezers(lab, machine):
        state = read(switch.with_name("cgroup.events") if version == 2 else switch).strip()
        if state and state != "FROZEN" and "frozen 1" not in state:
            said.append(f"{switch.parent}: {state}")
    return said


_FREEZER = {1: ("THAWED", "FROZEN"), 2: ("0", "1")}
"""What is written to let go on, and to stop (freezer-subsystem and cgroup-v2 of the kernel's documentation)."""


def _freezers(lab: str, machine: str | None) -> Iterator[tuple[Path, int]]:
    """The switches of the first hierarchy that has any, with its version; without `machine`, one a machine."""
    for version, name in ((2, "cgroup.freeze"), (1, "freezer.state")):
        found = [
            directory / name
            for top in _tops(version)
            for directory in ([top / lab / machine] if machine else _children(top / lab))
            if (directory / name).exists()
        ]
        if found:
            yield from ((switch, version) for switch in found)
            return


def remove(lab: str, machine: str | None = None) -> list[Path]:
    """Remove the empty cgroups of a lab or machine, and the top if it was the last; returns what is still busy."""
    busy: list[Path] = []
    for top in _tops():
        target = top / lab / machine if machine else top / lab
        if target.is_dir():
            for directory, _, _ in os.walk(target, topdown=False):
                try:
                    Path(directory).rmdir()
                except FileNotFoundError:
                    pass
                except OSError:
                    busy.append(Path(directory))
        for parent in (top / lab, top):
            with contextlib.suppress(OSError):
                parent.rmdir()
    return busy


def _tops(version: int | None = None) -> Iterator[Path]:
    """The cgroups of all labs, wherever the runs that made them were: one walk of each hierarchy of a version."""
    for hierarchy in hierarchies():
        if version not in (None, hierarchy.version):
            continue
        for directory, children, _ in os.walk(hierarchy.mount):
            if TOP in children:
                yield Path(directory) / TOP
            children[:] = [name for name in children if name != TOP]


def _children(path: Path) -> list[Path]:
    try:
        return [entry for entry in path.iterdir() if entry.is_dir()]
    except OSError:
        return []
