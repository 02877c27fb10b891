"""Files as they must be on a host: which of them differ, and writing those."""

from __future__ import annotations

import difflib
import hashlib
from collections.abc import Sequence

from kubewright.hosts import FileWrite, Host
from kubewright.phases.phase import Action, Change
from kubewright.secret import without_passwords


async def differing(host: Host, files: Sequence[FileWrite]) -> list[FileWrite]:
    """Those of `files` whose content, mode or owner on the host is another. One round trip."""
    found = await host.stat_files([file.path for file in files])
    wanted = []
    for file in files:
        stat = found.get(file.path)
        if (
            stat is None
            or stat.kind != "file"
            or (stat.mode, stat.owner, stat.group) != (file.mode, file.owner, file.group)
            or stat.sha256 != hashlib.sha256(file.data).hexdigest()
        ):
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
