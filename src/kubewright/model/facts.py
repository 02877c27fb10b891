"""What is known of a host: the facts that decide what it needs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

# `uname -m` to Go's architecture names (go.dev/doc/install/source, GOARCH).
ARCHITECTURES = {
    "x86_64": "amd64", "amd64": "amd64", "aarch64": "arm64", "arm64": "arm64", "armv7l": "arm", "armv6l": "arm",
    "i686": "386", "i386": "386", "ppc64le": "ppc64le", "s390x": "s390x", "riscv64": "riscv64",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class HostFacts:
    """What was found out about a host in one look. Sizes are in bytes."""

    hostname: str
    os_id: str
    """`ID` of /etc/os-release, such as `debian`."""
    os_version: str
    """`VERSION_ID` of /etc/os-release, such as `12`."""
    os_name: str
    arch: str
    """In Go's words: amd64, arm64."""
    kernel: str
    cpus: int
    memory: int
    swap: int
    is_root: bool
    """Whether commands run as root, directly or through sudo."""
    init: str
    """The name of PID 1, such as `systemd`."""
    cgroup_version: int
    capabilities: int
    """The bounding set of PID 1 as a bit mask (capabilities(7))."""
    default_address: str
    """The source address of the default route, empty where there is none (P08)."""
    addresses: tuple[str, ...]
    """All global addresses of the host's links, without prefix length."""
    routes: tuple[str, ...]
    """Destinations of the main table other than the default route, as CIDRs."""
    pod_routes: tuple[str, ...] = ()
    """Those of them that a pod network has made, perhaps an earlier cluster's: by their link or their mark."""
    filesystems: Mapping[str, int] = field(default_factory=dict)
    """Free bytes at `/etc`, `/var/lib`, `/usr/local` and `/tmp`."""
    resolv_conf: str = "/etc/resolv.conf"
    """The file that the kubelet should use: one without a loopback name server (P18)."""
    machine_id: str = ""
    product_uuid: str = ""
    """Empty where the host has no DMI."""
    macs: tuple[str, ...] = ()

    def has_capability(self, number: int) -> bool:
        """Whether capability `number` (CAP_SYS_RESOURCE is 24) is in the bounding set."""
        return bool(self.capabilities >> number & 1)
