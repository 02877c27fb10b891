"""The files that make a machine out of the shared root: its identity, its network's names, its sshd, its units."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, field
from pathlib import Path

from kubewright.lab.plan import LabPlan, MachinePlan

# Needless in a machine, or meant for a computer's own hardware, clock and kernel.
MASKED_UNITS = (
    "apt-daily-upgrade.timer",
    "apt-daily.timer",
    "console-getty.service",
    "container-getty@.service",
    "dev-hugepages.mount",
    "dpkg-db-backup.timer",
    "e2scrub_all.timer",
    "e2scrub_reap.service",
    "fstrim.timer",
    "getty@.service",
    "kmod-static-nodes.service",
    "modprobe@.service",
    "serial-getty@.service",
    "sys-fs-fuse-connections.mount",
    "sys-kernel-config.mount",
    "sys-kernel-debug.mount",
    "sys-kernel-tracing.mount",
    "systemd-firstboot.service",
    "systemd-modules-load.service",
    "systemd-networkd-wait-online.service",
    "systemd-networkd.service",
    "systemd-networkd.socket",
    "systemd-pstore.service",
    "systemd-resolved.service",
    "systemd-update-utmp.service",
    "systemd-update-utmp-runlevel.service",
)

EARLY_UNIT = """\
[Unit]
Description=Give this machine writable cgroups and kernel settings of its own
DefaultDependencies=no
Before=systemd-sysctl.service sysinit.target

[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/usr/local/lib/kubewright-machine-early
"""

# systemd-nspawn leaves the hierarchies of version 1 read-only. Settings of the kernel as a whole are read-only
# in a machine and, for this computer's sake, stay so: the kubelet insists on writing the first six, Debian's own
# defaults and common advice write the others, and so each becomes a file that only the machine sees.
EARLY_SCRIPT = """\
#!/bin/sh
set -eu
for hierarchy in /sys/fs/cgroup/*; do
    if mountpoint -q "$hierarchy"; then mount -o remount,bind,rw "$hierarchy"; fi
done
mkdir -p /run/kubewright-machine
mount --make-private /proc/sys
cd /proc/sys
for setting in \\
    vm/overcommit_memory vm/panic_on_oom kernel/panic kernel/panic_on_oops \\
    kernel/keys/root_maxkeys kernel/keys/root_maxbytes \\
    kernel/pid_max fs/protected_hardlinks fs/protected_symlinks fs/protected_fifos fs/protected_regular \\
    fs/file-max fs/inotify/max_user_watches fs/inotify/max_user_instances vm/max_map_count vm/swappiness
do
    if [ -e "$setting" ]; then
        copy=/run/kubewright-machine/$(echo "$setting" | tr / .)
        cat "$setting" > "$copy"
        mount --bind "$copy" "$setting"
    fi
done
"""

SSHD_CONFIG = """\
# The lab's own settings; the rest is as Debian has it.
HostKey /etc/ssh/ssh_host_ed25519_key
PermitRootLogin prohibit-password
PasswordAuthentication no
UseDNS no
"""


@dataclass(frozen=True, slots=True)
class LabKeys:
    """The public half of the lab's client key, and the host key of one machine."""

    client_public: str
    host_private: bytes = field(repr=False)
    host_public: str


@dataclass(frozen=True, slots=True)
class DiskFile:
    """A file of a machine's disk; a link where `link` says to what, a directory where that is `/`."""

    path: str
    content: bytes = field(default=b"", repr=False)
    mode: int = 0o644
    link: str = ""


def machine_files(plan: LabPlan, machine: MachinePlan, machine_id: str, keys: LabKeys) -> list[DiskFile]:
    """All files in which a new machine differs from the shared root."""
    units = "/etc/systemd/system"
    return [
        DiskFile("/etc/hostname", f"{machine.name}\n".encode()),
        DiskFile("/etc/machine-id", f"{machine_id}\n".encode(), 0o444),
        hosts_file(plan),
        DiskFile("/etc/resolv.conf", f"nameserver {plan.gateway}\noptions timeout:1 attempts:1\n".encode()),
        DiskFile("/etc/ssh/sshd_config.d/kubewright-lab.conf", SSHD_CONFIG.encode()),
        DiskFile("/etc/ssh/ssh_host_ed25519_key", keys.host_private, 0o600),
        DiskFile("/etc/ssh/ssh_host_ed25519_key.pub", f"{keys.host_public}\n".encode()),
        DiskFile("/root", mode=0o700, link="/"),
        DiskFile("/root/.ssh", mode=0o700, link="/"),
        DiskFile("/root/.ssh/authorized_keys", f"{keys.client_public}\n".encode(), 0o600),
        DiskFile("/usr/local/lib/kubewright-machine-early", EARLY_SCRIPT.encode(), 0o755),
        DiskFile(f"{units}/kubewright-machine-early.service", EARLY_UNIT.encode()),
        DiskFile(f"{units}/sysinit.target.wants/kubewright-machine-early.service",
                 link="../kubewright-machine-early.service"),
        *(DiskFile(f"{units}/{unit}", link="/dev/null") for unit in MASKED_UNITS),
    ]  # fmt: skip


def hosts_file(plan: LabPlan) -> DiskFile:
    """`/etc/hosts` of every machine: all machines by name, itself by its address and not by a loopback (P14)."""
    lines = ["127.0.0.1\tlocalhost", "::1\tlocalhost ip6-localhost ip6-loopback"]
    lines += [f"{machine.address}\t{machine.name}" for machine in plan.machines]
    return DiskFile("/etc/hosts", ("\n".join(lines) + "\n").encode())


def write_disk(directory: Path, files: list[DiskFile], root: Path) -> None:
    """Make a machine's directory: a link `base` to the shared root, and what differs from it in `upper`.

    It is whole or not there, for it is renamed last.
    """
    new = directory.with_name(f".new-{directory.name}")
    shutil.rmtree(new, ignore_errors=True)
    for part, mode in (("upper", 0o755), ("work", 0o755), ("root", 0o755), ("containerd", 0o711)):
        (new / part).mkdir(parents=True, mode=mode)
    for file in files:
        write_file(new / "upper", file)
    (new / "base").symlink_to(root)
    new.rename(directory)


def write_file(top: Path, file: DiskFile) -> None:
    """Write one file below `top`, its mode set before its content."""
    path = top / file.path.lstrip("/")
    path.parent.mkdir(parents=True, exist_ok=True)
    if file.link == "/":
        path.mkdir(mode=file.mode, exist_ok=True)
        path.chmod(file.mode)
    elif file.link:
        path.symlink_to(file.link)
    else:
        path.touch(mode=file.mode)
        path.chmod(file.mode)
        path.write_bytes(file.content)
