"""What is looked at on a host before a conversion: a shell script, and the function that reads its output."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple

from kubewright.model.backup import BACKUPS
from kubewright.model.kubeconfig import KUBELET_PKI_DIR
from kubewright.model.kubelet import CONFIG_PATH, FLAGS_PATH
from kubewright.model.sections import sections

ETCD_AUTHORITY = "etcd/ca"
AUTHORITY_KEYS = ("ca.key", "front-proxy-ca.key", f"{ETCD_AUTHORITY}.key", "sa.key")
"""Below the certificates' directory: what certificates and tokens are signed with (kubeadm's documentation,
"Certificates and Requirements")."""
COPIED = ("/etc/kubernetes", KUBELET_PKI_DIR, CONFIG_PATH, FLAGS_PATH)
"""What a backup copies from each host, as far as its size is foreseen."""

# $1 is a name to resolve, empty for none. A line each: $2 are paths to look for, $3 paths to add up, $4 folders,
# not always there yet, whose file systems need room.
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
section free
printf '%s\n' "$4" | while IFS= read -r place; do
  while [ -n "$place" ] && [ ! -d "$place" ]; do place=${place%/*}; done
  df -Pk "${place:-/}" | tail -n 1
done
"""


@dataclass(frozen=True, slots=True)
class Certificate:
    """When a certificate of a control plane ends."""

    path: str
    renewal: str
    """Its name in `certs renew`; empty for a CA."""
    ends: datetime


class Room(NamedTuple):
    """The room that a file system has."""

    free: int
    """Bytes."""
    place: str
    """Where it is mounted."""


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
    room: Room | None = None
    """Where backups and etcd's data are, of the fuller file system; None where that could not be found out."""
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


def arguments(name: str, paths: Sequence[str], data_dir: str) -> tuple[str, str, str, str]:
    """What `LOOK` is given: the endpoint's name, or empty, the paths to look for, and where etcd's data is."""
    return name, "\n".join(paths), "\n".join(COPIED), f"{BACKUPS}\n{data_dir}"


def parse_look(text: str) -> HostSeen:
    """What `LOOK` printed. What the host does not say is empty."""
    found = sections(text)
    sizes = [line.split(None, 1)[0] for line in found.get("copied", "").splitlines() if line.strip()]
    # POSIX's df -P: file system, size, used, available, capacity, mount point. The first may have blanks.
    rooms = re.findall(r"\s\d+\s+\d+\s+(-?\d+)\s+\S+\s+(/.*)$", found.get("free", ""), re.MULTILINE)
    return HostSeen(
        listening=found.get("listening", "").strip("\n"),
        present=frozenset(line for line in found.get("present", "").splitlines() if line),
        copied=sum(int(size) for size in sizes if size.isdecimal()) * 1024,
        resolved=tuple(found.get("resolved", "").split()),
        own_proxy=bool(found.get("proxies", "").strip()),
        room=min((Room(int(size) * 1024, place) for size, place in rooms), default=None),
    )
