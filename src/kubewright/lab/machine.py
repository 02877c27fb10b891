"""One machine: a systemd-nspawn container that starts, is found again, and ends without leaving anything."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from kubewright.errors import KubewrightError, WaitTimeoutError
from kubewright.lab import cgroups
from kubewright.lab.network import MACHINE_SETTINGS, LabNetwork, attach_script, machine_commands
from kubewright.lab.plan import MachinePlan
from kubewright.lab.proc import namespace_pids, read, run

BOOT_DEADLINE = 90.0
"""Seconds from the first process to a machine that can be worked on; 0.5 s is usual."""
STOP_DEADLINE = 15.0
"""Seconds in which killed processes must be gone."""

# The machine's first process. It waits in a mount namespace of its own until it has been given its cgroups; if
# whoever started it dies before that, `read` ends, and so does all of this. The root is mounted where only the
# machine and its nspawn see it, and nspawn's own files (/run/systemd/nspawn, /tmp/nspawn-root-*) go to a /run and
# a /tmp that end with it. nspawn ends with code 133 where the machine wants to start again; as on any computer,
# that is with a fresh network.
_LAUNCH = """
set -eu
read -r go
[ "$go" = go ]
exec 9< "$BRIDGE"
mount -t overlay overlay -o "lowerdir=$BASE,upperdir=$DISK/upper,workdir=$DISK/work" "$DISK/root"
mount -t tmpfs -o mode=755 tmpfs /run
mount -t tmpfs -o mode=1777 tmpfs /tmp
if [ -n "$UNIFIED" ]; then
    mkdir -p "$UNIFIED/launcher"
    echo $$ > "$UNIFIED/launcher/cgroup.procs"
fi
while :; do
    code=0
    unshare --net sh -c "$BOOT" sh "$@" || code=$?
    [ "$code" -eq 133 ] || exit "$code"
done
"""
_BOOT = """
set -eu
[ -z "$UNIFIED" ] || echo $$ > "$UNIFIED/cgroup.procs"
nsenter --net=/proc/$$/fd/9 sh -c "$ATTACH" sh $$
for setting in $SETTINGS; do
    file=/proc/sys/${setting%%=*}
    [ ! -e "$file" ] || echo "${setting#*=}" > "$file"
done
echo "$ADDRESSES" | ip -batch -
exec systemd-nspawn "$@" < /dev/null 9<&-
"""

_children: dict[int, subprocess.Popen[bytes]] = {}


class MachineEndedError(KubewrightError):
    """A machine has no processes any more."""


class Machine:
    """A machine of lab `lab`, whose disk is in `directory`: see `disk.write_disk`."""

    def __init__(self, lab: str, plan: MachinePlan, directory: Path) -> None:
        self.lab = lab
        self.plan = plan
        self.name = plan.name
        self.directory = directory

    @property
    def console(self) -> Path:
        """What the machine's systemd and nspawn said since its last start."""
        return self.directory / "console.log"

    def exists(self) -> bool:
        """Whether the machine has a disk."""
        return self.directory.is_dir()

    def host_public_key(self) -> str:
        """The public half of sshd's key, as one line."""
        return (self.directory / "upper/etc/ssh/ssh_host_ed25519_key.pub").read_text().strip()

    def pid(self) -> int | None:
        """The machine's PID 1, as this computer numbers it, or None where it does not run."""
        for pid in cgroups.members(self.lab, self.name):
            if (numbers := namespace_pids(pid)) and len(numbers) == 2 and numbers[1] == 1:
                return pid
        return None

    def processes(self) -> list[int]:
        """Everything that runs in the machine, and its nspawn."""
        return cgroups.members(self.lab, self.name)

    def start(self, network: LabNetwork) -> None:
        """Start the machine and return at once; `ready` waits for it. Raises `KubewrightError`."""
        root = (self.directory / "base").readlink()
        if not root.is_dir():
            raise KubewrightError(
                f"machine {self.name} cannot be started: the root that its disk is based on is gone: {root}",
                host=self.name, hint=f"make the lab anew: kubewright lab down {self.lab}; kubewright lab up",
            )  # fmt: skip
        with self.console.open("wb") as console:
            # Not asyncio's: that kills what it started when the event loop ends.
            process = subprocess.Popen(
                ["unshare", "--mount", "--propagation", "slave", "sh", "-c", _LAUNCH, "sh",
                 *self._nspawn_arguments()],
                stdin=subprocess.PIPE, stdout=console, stderr=console, start_new_session=True, cwd="/",
                env=self._environment(root, network),
            )  # fmt: skip
        assert process.stdin is not None
        _children[process.pid] = process
        try:
            cgroups.place(process.pid, self.lab, self.name)
            process.stdin.write(b"go\n")
            process.stdin.flush()
        except OSError as error:
            process.kill()
            raise KubewrightError(
                f"machine {self.name} cannot be started: {error}", host=self.name, evidence=self.last_words()
            ) from error
        except BaseException:
            process.kill()
            raise
        finally:
            with contextlib.suppress(OSError):
                process.stdin.close()

    def _environment(self, root: Path, network: LabNetwork) -> dict[str, str]:
        """What the launching scripts, and systemd-nspawn itself, read."""
        return {
            "PATH": os.environ.get("PATH", os.defpath),
            "LANG": "C.UTF-8",
            "BASE": str(root),
            "DISK": str(self.directory),
            "BRIDGE": str(network.namespace),
            "UNIFIED": str(cgroups.unified(self.lab, self.name) or ""),
            "BOOT": _BOOT,
            "ATTACH": attach_script(self.plan),
            "SETTINGS": " ".join(MACHINE_SETTINGS),
            "ADDRESSES": machine_commands(network.plan, self.plan),
            "SYSTEMD_SECCOMP": "0",
            "SYSTEMD_NSPAWN_API_VFS_WRITABLE": "network",
        }

    def _nspawn_arguments(self) -> list[str]:
        """The host name is the node's name; the machine's name, which nspawn wants unique, has the lab's in it."""
        return [
            "--quiet", "--boot", "--register=no", "--keep-unit", "--console=pipe", "--kill-signal=SIGRTMIN+3",
            f"--directory={self.directory / 'root'}", f"--machine=kubewright-{self.lab}-{self.name}",
            f"--hostname={self.name}", "--capability=all", "--network-namespace-path=/proc/self/ns/net",
            "--bind=/dev/kmsg", f"--bind={self.directory / 'containerd'}:/var/lib/containerd",
            "--link-journal=no", "--resolv-conf=off", "--timezone=off",
        ]  # fmt: skip

    async def ready(self, progress: Callable[[str], None] = lambda _: None) -> str:
        """Wait until sshd answers and systemd has booted; returns systemd's state, `running` or `degraded`.

        Raises `WaitTimeoutError` after `BOOT_DEADLINE`, and `MachineEndedError` as soon as it has ended.
        """
        deadline = time.monotonic() + BOOT_DEADLINE
        seen = "nothing"
        while time.monotonic() < deadline:
            if not self.processes():
                raise MachineEndedError(
                    f"machine {self.name} ended while it booted", host=self.name, evidence=self.last_words()
                )
            if not (pid := self.pid()):
                now = "no PID 1 yet"
            elif not await self._sshd_answers():
                now = "sshd does not answer yet"
            else:
                now = await self._system_state(pid)
                if now in ("running", "degraded"):
                    return now
                now = f"systemd is {now}"
            if now != seen:
                progress(now)
                seen = now
            await asyncio.sleep(0.05)
        raise WaitTimeoutError(
            f"machine {self.name} did not boot within {BOOT_DEADLINE:.0f} s: {seen}",
            host=self.name, evidence=self.last_words(), hint=f"its console's output is in {self.console}",
        )  # fmt: skip

    async def _sshd_answers(self) -> bool:
        try:
            async with asyncio.timeout(2):
                reader, writer = await asyncio.open_connection(str(self.plan.address), 22)
                try:
                    return (await reader.readline()).startswith(b"SSH-2.0-")
                finally:
                    writer.close()
        except (OSError, TimeoutError):
            return False

    async def _system_state(self, pid: int) -> str:
        try:
            _, out, _ = await run(
                [*enter(pid), "systemctl", "is-system-running", "--wait"], check=False, timeout=BOOT_DEADLINE
            )
        except WaitTimeoutError:
            return "still starting"
        return out.strip() or "not to be asked yet"

    async def relieve(self, network: LabNetwork) -> bool:
        """Undo what `faults` has done to a machine that runs; whether there was anything to undo."""
        frozen = cgroups.is_frozen(self.lab, self.name)
        if cut_off := self.plan.port in await network.cut_off():
            await network.cut(self.plan, off=False)
        if frozen:
            cgroups.freeze(self.lab, self.name, frozen=False)
        return frozen or cut_off

    async def stop(self) -> None:
        """Kill everything in the machine and remove its cgroups; nothing is asked to end nicely.

        Raises `WaitTimeoutError` where something survives.
        """
        deadline = time.monotonic() + STOP_DEADLINE
        while True:
            left = cgroups.kill(self.lab, self.name)
            for child in [child for child in _children.values() if child.poll() is not None]:
                del _children[child.pid]
            if not left and not (busy := cgroups.remove(self.lab, self.name)):
                return
            if time.monotonic() > deadline:
                evidence = [f"process {pid}: {read(f'/proc/{pid}/comm').strip()}" for pid in left]
                evidence += [f"busy: {path}" for path in (busy if not left else [])]
                raise WaitTimeoutError(
                    f"machine {self.name} cannot be ended", host=self.name, evidence=evidence
                )
            await asyncio.sleep(0.02)

    async def remove(self) -> None:
        """Remove the machine's disk. It must have been stopped."""
        # Renamed first: a half-removed disk must never be taken for a machine's.
        gone = self.directory.with_name(f".gone-{self.name}")
        if self.directory.exists():
            await remove_tree(gone)
            self.directory.rename(gone)
        await remove_tree(gone)
        await remove_tree(self.directory.with_name(f".new-{self.name}"))

    def last_words(self, lines: int = 12) -> list[str]:
        """The last lines of the console, for an error's evidence."""
        return [line.strip() for line in read(self.console).splitlines() if line.strip()][-lines:]


def enter(pid: int, *, terminal: str = "") -> list[str]:
    """The beginning of a command that runs in all namespaces of process `pid`, with a clean environment.

    Its root directory is named, too: where we are in a chroot, a mount namespace's own root is another.
    """
    return [
        "nsenter", f"--target={pid}", "--all", f"--root=/proc/{pid}/root", f"--wd=/proc/{pid}/root", "--",
        "env", "-i", "HOME=/root", "LANG=C.UTF-8",
        "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        *([f"TERM={terminal}"] if terminal else []),
    ]  # fmt: skip


async def remove_tree(path: Path) -> None:
    """Remove a directory with all that is in it; one that is not there is no error."""
    if path.is_symlink() or path.exists():
        await asyncio.to_thread(shutil.rmtree, path)
