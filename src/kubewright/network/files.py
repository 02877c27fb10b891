"""The pod network's files on a node: the CNI configuration, and what /proc says of links and forwarding."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

from kubewright.network.plan import CNI_FILE, CNI_NAME, DEFAULT_MTU

PROC_ROUTE = Path("/proc/net/route")
IP_FORWARD = Path("/proc/sys/net/ipv4/ip_forward")


def write_cni(directory: Path, content: bytes) -> bool:
    """Put our configuration list in place in one step; False where it is there already. Raises `OSError`.

    A runtime watches the directory: it must never see half a file, nor the file beside it.
    """
    path = directory / CNI_FILE
    if path.exists() and path.read_bytes() == content:
        return False
    directory.mkdir(mode=0o755, parents=True, exist_ok=True)
    beside = directory / f".{CNI_FILE}.new"
    with open(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644), "wb") as file:  # noqa: PTH123
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    beside.replace(path)
    return True


def remove_cni(directory: Path, ipam_dir: Path) -> list[str]:
    """Remove our configuration and host-local's reservations for it; what was removed."""
    removed = []
    for path in (directory / CNI_FILE, directory / f".{CNI_FILE}.new"):
        if path.exists():
            path.unlink()
            removed.append(str(path))
    if (reserved := ipam_dir / CNI_NAME).is_dir():
        shutil.rmtree(reserved)
        removed.append(str(reserved))
    return removed


def forwarding() -> bool:
    """Whether the kernel forwards IPv4 packets between links (net.ipv4.ip_forward)."""
    return IP_FORWARD.read_text().strip() == "1"


def pod_mtu(own: IPv4Address | None, routes: str, mtu_of: Callable[[str], int]) -> int:
    """The largest packet in bytes that goes both to other nodes and out of the cluster.

    `routes` is the text of /proc/net/route; the links that count are the default route's and the one that the
    node's own address is on (P08: they need not be the same).
    """
    default, inner = _links(routes, own)
    sizes = [mtu_of(link) for link in {default, inner} if link]
    return min(sizes, default=DEFAULT_MTU)


def link_mtu(link: str) -> int:
    """A link's MTU in bytes."""
    return int(Path(f"/sys/class/net/{link}/mtu").read_text())


def _links(routes: str, own: IPv4Address | None) -> tuple[str, str]:
    """The default route's link of the lowest metric, and the link with the longest prefix around `own`."""
    default, inner = (1 << 32, ""), (0, "")
    for line in routes.splitlines()[1:]:
        words = line.split()
        link, gateway, metric = words[0], int(words[2], 16), int(words[6])
        # An address stands there as the hexadecimal of a word in the machine's own byte order.
        destination, mask = (int(words[n], 16).to_bytes(4, sys.byteorder) for n in (1, 7))
        network = IPv4Network((destination, int.from_bytes(mask).bit_count()))
        if network.prefixlen == 0:
            default = min(default, (metric, link))
        elif gateway == 0 and own is not None and own in network:
            inner = max(inner, (network.prefixlen, link))
    return default[1], inner[1]
