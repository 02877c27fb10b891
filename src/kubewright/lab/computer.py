"""What this computer can do: looked at, not assumed. What rules a lab out is said at once, with its mend."""

from __future__ import annotations

import os
import platform
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from kubewright.errors import ExitCode, HostError
from kubewright.lab import cgroups
from kubewright.lab.proc import read, run

CAP_SYS_ADMIN, CAP_NET_ADMIN, CAP_SYS_RESOURCE = 21, 12, 24
"""Numbers of capabilities(7)."""

NEEDED_CONTROLLERS = frozenset({"cpu", "cpuset", "memory", "pids"})
"""What the kubelet refuses to start without (cgroup manager, 1.20 and later)."""

_PROGRAMS = {
    "systemd-nspawn": "systemd-container",
    "ip": "iproute2",
    "nsenter": "util-linux",
    "unshare": "util-linux",
    "mount": "mount",
    "ssh": "openssh-client",
    "mmdebstrap": "mmdebstrap",
}


@dataclass(frozen=True, slots=True)
class Computer:
    """What was found out about this computer. `missing_programs` are Debian packages."""

    is_root: bool
    arch: str
    init: str
    """The name of PID 1."""
    capabilities: int
    """The bounding set of this process as a bit mask."""
    cgroup_version: int
    """2 where the controllers are in the unified hierarchy, else 1, or 0 where none is mounted."""
    controllers: frozenset[str]
    filesystems: frozenset[str]
    link_kinds: frozenset[str]
    """Those of `bridge` and `veth` that the kernel can make."""
    kmsg: bool
    missing_packages: tuple[str, ...]

    def can(self, capability: int) -> bool:
        """Whether this process can have `capability`, given by its number."""
        return bool(self.capabilities >> capability & 1)

    def obstacles(self) -> list[tuple[str, str]]:
        """What rules out a lab, each with its mend."""
        found: list[tuple[str, str]] = []
        if not self.is_root:
            return [("machines are made as root, and this process is not", "run it with sudo")]
        if self.missing_packages:
            packages = " ".join(self.missing_packages)
            found.append((f"Debian packages are missing: {packages}", f"apt-get install {packages}"))
        for number, name in ((CAP_SYS_ADMIN, "CAP_SYS_ADMIN"), (CAP_NET_ADMIN, "CAP_NET_ADMIN")):
            if not self.can(number):
                found.append((f"this process lacks {name}", "run it outside the container, or give it to it"))
        if "overlay" not in self.filesystems:
            found.append(("the kernel has no overlay file system", "modprobe overlay"))
        found += [
            (f"the kernel cannot make links of type {kind}", f"modprobe {kind}")
            for kind in ("bridge", "veth") if kind not in self.link_kinds
        ]  # fmt: skip
        if missing := sorted(NEEDED_CONTROLLERS - self.controllers):
            found.append(
                (f"cgroup controllers are not mounted: {', '.join(missing)}",
                 "mount -t cgroup2 none /sys/fs/cgroup, or boot with systemd, which mounts them")
            )  # fmt: skip
        if not self.kmsg:
            found.append(("there is no /dev/kmsg, which the kubelet reads", "mknod /dev/kmsg c 1 11"))
        return found

    def require_lab(self) -> None:
        """Raise one `HostError` that names everything that rules out a lab here."""
        if found := self.obstacles():
            raise HostError(
                f"this computer cannot run a lab: {'; '.join(what for what, _ in found)}",
                hint="; ".join(mend for _, mend in found),
                exit_code=ExitCode.HOST_NO_PRIVILEGE if not self.is_root else ExitCode.HOST_NOT_FIT,
            )


async def look(which: Callable[[str], str | None] = shutil.which) -> Computer:
    """Find out what this computer can do. Changes nothing: links are tried in a namespace of their own."""
    mounted = cgroups.hierarchies()
    v1 = frozenset(name for hierarchy in mounted for name in hierarchy.controllers if "=" not in name)
    v2 = frozenset(
        name
        for hierarchy in mounted if hierarchy.version == 2
        for name in read(hierarchy.mount / "cgroup.controllers").split()
    )  # fmt: skip
    version = 0 if not mounted else 2 if "memory" in v2 else 1
    bounding = next(
        (line.split()[1] for line in read("/proc/self/status").splitlines() if line.startswith("CapBnd:")),
        "0",
    )
    return Computer(
        is_root=os.geteuid() == 0,
        arch={"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine()),
        init=read("/proc/1/comm").strip(),
        capabilities=int(bounding, 16),
        cgroup_version=version,
        controllers=v1 | v2,
        filesystems=frozenset(line.split()[-1] for line in read("/proc/filesystems").splitlines()),
        link_kinds=await _link_kinds()
        if os.geteuid() == 0 and which("ip") and which("unshare")
        else frozenset(),
        kmsg=Path("/dev/kmsg").is_char_device(),
        missing_packages=tuple(sorted({package for name, package in _PROGRAMS.items() if not which(name)})),
    )


async def _link_kinds() -> frozenset[str]:
    """Make one link of each kind in a network namespace that ends with the command."""
    script = "for kind in bridge veth; do ip link add try-$kind type $kind && echo $kind; done"
    _, out, _ = await run(["unshare", "--net", "sh", "-c", script], check=False)
    return frozenset(out.split())
