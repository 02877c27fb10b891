"""Addresses that host-local, the CNI plugin, has reserved on a host, and those of them that no Pod has."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import timedelta

NETWORKS = "/var/lib/cni/networks"
FREE_ADDRESSES = "free-addresses"
"""The fix that frees what `dead_reservations` names."""
OLD = timedelta(minutes=2)
"""An address is reserved before its sandbox is listed; none takes as long to be."""

# A file for each address, with the sandbox's id and the interface in two lines; $1 is the network's name. Beside
# them are a lock and the address that was reserved last.
RESERVED = r"""
exec 2>/dev/null
cd "/var/lib/cni/networks/$1" || exit 0
date +%s
stat -c '%Y %n' -- [0-9a-f]*[0-9a-f]
echo @@
grep -m 1 -H '' -- [0-9a-f]*[0-9a-f]
"""


@dataclass(frozen=True, slots=True)
class Reservation:
    """An address of the pod network that host-local has given away."""

    network: str
    address: str
    container: str
    """The sandbox that it was given to; empty where the file does not say."""
    age: timedelta

    @property
    def path(self) -> str:
        """The file."""
        return f"{NETWORKS}/{self.network}/{self.address}"


def parse_reserved(text: str, network: str) -> tuple[Reservation, ...]:
    """What `RESERVED` printed."""
    head, _, tail = text.partition("@@\n")
    now, *rows = head.splitlines() or ["0"]
    owners = dict(_owner(line) for line in tail.splitlines())
    found = []
    for row in rows:
        changed, _, address = row.partition(" ")
        if changed.isdecimal() and now.isdecimal() and address != "lock":
            age = timedelta(seconds=max(int(now) - int(changed), 0))
            found.append(Reservation(network, address, owners.get(address, ""), age))
    return tuple(found)


def _owner(line: str) -> tuple[str, str]:
    """The address and the sandbox's id of `file:id`; an IPv6 address has colons itself, an id has none."""
    address, _, container = line.strip().rpartition(":")
    return address, container.split()[0] if container.split() else ""


def dead_reservations(
    reserved: Iterable[Reservation], sandboxes: Collection[str], network: str
) -> list[Reservation]:
    """The addresses of the pod network whose sandbox there is not any more, or that name none.

    A runtime without any sandbox is not believed: each node runs kube-proxy at least, so that it may be another's.
    """
    if not sandboxes:
        return []
    return [
        one
        for one in reserved
        if one.network == network and one.container not in sandboxes and one.age >= OLD
    ]
