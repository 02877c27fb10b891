"""Files as they must be on a host: which of them differ, and writing those."""

from __future__ import annotations

import difflib
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import replace

from kubewright.hosts import FileWrite, Host
from kubewright.phases.phase import Action, Change
from kubewright.secret import Secret, without_passwords


async def differing(
    host: Host, files: Sequence[FileWrite], *, same: Callable[[bytes, bytes], bool] | None = None
) -> list[FileWrite]:
    """Those of `files` whose content, mode or owner on the host is another. One round trip.

    Content that says the `same` as what is wanted stays as the host has it, also where mode or owner must change.
    For that, those that differ are read.
    """
    found = await host.stat_files([file.path for file in files])
    regular = {path for path, stat in found.items() if stat.kind == "file"}
    other = {
        file.path
        for file in files
        if file.path in regular and found[file.path].sha256 != hashlib.sha256(file.data).hexdigest()
    }
    kept: dict[str, bytes] = {}
    if same is not None and other:
        have = await host.read_files(sorted(other))
        kept = {
            file.path: have[file.path]
            for file in files
            if file.path in have and same(have[file.path], file.data)
        }
    wanted = []
    for file in files:
        stat = found.get(file.path)
        if (
            stat is None
            or file.path not in regular
            or (stat.mode, stat.owner, stat.group) != (file.mode, file.owner, file.group)
            or file.path in other - kept.keys()
        ):
            content = kept.get(file.path)
            if content is not None:
                file = replace(file, content=Secret(content) if file.secret else content)
            wanted.append(file)
    return wanted


async def private_folders(host: Host, *folders: str) -> None:
    """Make folders that root alone may enter, as kubeadm makes /var/lib/kubelet and the static Pods' folder. Those
    that are there stay as they are."""
    await host.shell('mkdir -p -m 700 "$@"', *folders)


async def file_changes(host: Host, files: Sequence[FileWrite]) -> list[Change]:
    """`files` as changes, with a diff of those that are no secret."""
    present = await host.read_files([file.path for file in files if not file.secret]) if files else {}
    exists = await host.stat_files([file.path for file in files], digest=False) if files else {}
    return [
        Change(
            Action.UPDATE if file.path in exists else Action.CREATE,
            file.path,
            host.name,
            () if file.secret else diff_lines(file.path, present.get(file.path, b""), file.data),
        )
        for file in files
    ]


async def newer_than_unit(host: Host, unit: str, paths: Sequence[str]) -> list[str]:
    """Those of `paths` that were written after the unit's program was started: it does not know them yet.

    A run that was killed between writing a file and restarting the unit leaves no other trace. (The times of
    /proc/PID would not do: they are those of the first look at it.)
    """
    script = (
        'since=$(systemctl show --timestamp=us+utc -P ExecMainStartTimestamp "$1"); shift; '
        '[ -z "$since" ] || find "$@" -newermt "$since" 2>/dev/null; true'
    )
    return (await host.shell(script, unit, *paths)).text.splitlines()


def diff_lines(name: str, old: bytes, new: bytes) -> tuple[str, ...]:
    """A unified diff of two texts, without its two header lines and the passwords of URLs."""
    lines = difflib.unified_diff(
        old.decode(errors="replace").splitlines(), new.decode(errors="replace").splitlines(), lineterm="", n=2
    )
    return tuple(without_passwords(line) for line in lines)[2:]
