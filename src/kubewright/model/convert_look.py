"""What is looked at on a host before a conversion: a shell script, and the function that reads its output."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from kubewright.model.kubeconfig import KUBELET_PKI_DIR
from kubewright.model.kubelet import CONFIG_PATH, FLAGS_PATH

ETCD_AUTHORITY = "etcd/ca"
AUTHORITY_KEYS = ("ca.key", "front-proxy-ca.key", f"{ETCD_AUTHORITY}.key", "sa.key")
"""Below the certificates' directory: what certificates and tokens are signed with (kubeadm's documentation,
"Certificates and Requirements")."""
COPIED = ("/etc/kubernetes", KUBELET_PKI_DIR, CONFIG_PATH, FLAGS_PATH)
"""What a backup copies from each host, as far as its size is foreseen."""

# $1 is a name to resolve, empty for none. $2 are paths to look for and $3 paths to add up, a line each.
LOOK = r"""
exec 2>/dev/null
LC_ALL=C; export LC_ALL
section() { printf '\n@@ %s\n' "$1"; }
section listening; ss -Hltnp || cat /proc/net/tcp /proc/net/tcp6
section present
printf '%s\n' "$2" | while IFS= read -r path; do [ ! -e "$path" ] || printf '%s\n' "$path"; done
section copied
printf '%s\n' "$3" | while IFS= read -r path; do [ ! -e "$path" ] || du -sk "$path"; done
section resolved; [ -z "$1" ] || timeout 10 getent ahosts "$1" | cut -d' ' -f1 | sort -u
section proxies
for unit in kubewright-haproxy kubewright-nginx; do ! systemctl is-active -q "$unit" || echo "$unit"; done
section free; df -Pk /var/lib | tail -n 1
"""


@dataclass(frozen=True, slots=True)
class Certificate:
    """When a certificate of a control plane ends."""

    path: str
    renewal: str
    """Its name in `certs renew`; empty for a CA."""
    ends: datetime


@dataclass(frozen=True, slots=True)
class HostSeen:
    """One host. What belongs to control planes is empty on others."""

    listening: str = ""
    """The lines of `ss -Hltnp`."""
    present: frozenset[str] = frozenset()
    """Of the paths that were looked for, those that are there."""
    copied: int = 0
    """Bytes of what a backup copies, but for etcd's data."""
    resolved: tuple[str, ...] = ()
    """The addresses of the endpoint's name."""
    own_proxy: bool = False
    """Whether a proxy of ours runs there."""
    free: int | None = None
    """Free bytes of the file system of /var/lib; None where that could not be found out."""
    joined: bool = False
    """Whether it has a kubelet.conf."""
    pods: frozenset[str] = frozenset()
    """The static Pods whose manifests are there, of `etcd` and `kube-apiserver`."""
    etcd_servers: tuple[str, ...] = ()
    """The endpoints of etcd that its API server has."""
    certificates: tuple[Certificate, ...] = ()
    unreadable: tuple[str, ...] = ()
    """Why certificates cannot be read."""
    out_of_reach: tuple[str, ...] = ()
    """Control planes that it cannot connect to, each with what was seen."""


def arguments(name: str, paths: Sequence[str]) -> tuple[str, str, str]:
    """What `LOOK` is given: the endpoint's name, or empty, and the paths to look for."""
    return name, "\n".join(paths), "\n".join(COPIED)


def parse_look(text: str) -> HostSeen:
    """What `LOOK` printed. What the host does not say is empty."""
    parts = re.split(r"(?:\A|\n)@@ (\w+)\n", text)
    found = dict(zip(parts[1::2], parts[2::2], strict=True))
    sizes = [line.split(None, 1)[0] for line in found.get("copied", "").splitlines() if line.strip()]
    # POSIX's df -P: file system, size, used, available, capacity, mount point. The first may have blanks.
    free = re.search(r"\s\d+\s+\d+\s+(-?\d+)\s+\S+\s+/", found.get("free", ""))
    return HostSeen(
        listening=found.get("listening", "").strip("\n"),
        present=frozenset(line for line in found.get("present", "").splitlines() if line),
        copied=sum(int(size) for size in sizes if size.isdecimal()) * 1024,
        resolved=tuple(found.get("resolved", "").split()),
        own_proxy=bool(found.get("proxies", "").strip()),
        free=int(free[1]) * 1024 if free else None,
    )
