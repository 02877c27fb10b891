"""What preflight looks at on a fleet's host beyond `node_look`: firewalls, runtimes, settings."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from kubewright.model.sections import sections

# $1 are sockets, $2 files below /proc/sys.
FLEET_LOOK = r"""
exec 2>/dev/null
LC_ALL=C; export LC_ALL
section() { printf '\n@@ %s\n' "$1"; }
section firewalls
[ "$(firewall-cmd --state)" != running ] || echo firewalld
! ufw status | grep -q '^Status: active' || echo ufw
section sockets; for path in $1; do [ ! -S "$path" ] || readlink -f "$path"; done
section settings; for path in $2; do printf '%s %s\n' "$path" "$(head -c 64 "$path" | head -n 1)"; done
"""


@dataclass(frozen=True, slots=True)
class FleetLook:
    """What `FLEET_LOOK` found."""

    firewall: str = ""
    """`firewalld` or `ufw`, where it is active."""
    sockets: tuple[str, ...] = ()
    """Of the sockets asked for, those that are there, each once, by its real path."""
    settings: Mapping[str, str] = field(default_factory=dict)
    """The files below /proc/sys; empty for one that does not exist."""


def parse_fleet_look(text: str) -> FleetLook:
    """What `FLEET_LOOK` printed."""
    found = sections(text)
    return FleetLook(
        firewall=(found.get("firewalls", "").split() or [""])[0],
        sockets=tuple(dict.fromkeys(found.get("sockets", "").split())),
        settings=dict(_pairs(found.get("settings", ""))),
    )


def _pairs(text: str) -> Iterable[tuple[str, str]]:
    for line in text.splitlines():
        name, _, value = line.partition(" ")
        if name:
            yield name, value.strip()
