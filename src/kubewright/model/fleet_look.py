"""What preflight looks at on a fleet's host beyond `node_look`: firewalls, modules, runtimes, settings."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from kubewright.model.sections import sections

# $1 are modules, each with the kernel's option for it (ip_vs:IP_VS), $2 sockets, $3 files below /proc/sys.
FLEET_LOOK = r"""
exec 2>/dev/null
LC_ALL=C; export LC_ALL
section() { printf '\n@@ %s\n' "$1"; }
section selinux; cat /sys/fs/selinux/enforce; grep -E '^[[:space:]]*SELINUX=' /etc/selinux/config
section firewalls
[ "$(firewall-cmd --state)" != running ] || echo firewalld
! ufw status | grep -q '^Status: active' || echo ufw
section modules
release=$(uname -r)
for pair in $1; do
  name=${pair%%:*}; option=CONFIG_${pair#*:}; file=$(echo "$name" | sed 's/_/[_-]/g')
  if [ -d "/sys/module/$name" ] || grep -q "^$name " /proc/modules; then echo "$name loaded"
  elif grep -qE "/$file\.ko$" "/lib/modules/$release/modules.builtin"; then echo "$name builtin"
  elif [ -n "$(find -L "/lib/modules/$release" -type f -name "$file.ko*" | head -n 1)" ]; then echo "$name module"
  elif { zcat /proc/config.gz || cat "/boot/config-$release"; } | grep -q "^$option=y"; then echo "$name builtin"
  fi
done
section sockets; for path in $2; do [ ! -S "$path" ] || readlink -f "$path"; done
section settings; for path in $3; do printf '%s %s\n' "$path" "$(head -c 64 "$path" | head -n 1)"; done
"""

IPVS = MappingProxyType(
    {
        "ip_vs": "IP_VS", "ip_vs_rr": "IP_VS_RR", "ip_vs_wrr": "IP_VS_WRR", "ip_vs_sh": "IP_VS_SH",
        "nf_conntrack": "NF_CONNTRACK", "ip_set": "IP_SET",
    }
)  # fmt: skip
"""The modules that kube-proxy's mode ipvs needs, and the kernel's options (pkg/proxy/ipvs in Kubernetes)."""
BRIDGE = MappingProxyType({"br_netfilter": "BRIDGE_NETFILTER"})


@dataclass(frozen=True, slots=True)
class FleetLook:
    """What `FLEET_LOOK` found."""

    selinux_enforcing: bool = False
    selinux_config: str = ""
    """What /etc/selinux/config says: `enforcing`, `permissive`, `disabled`, or nothing."""
    firewall: str = ""
    """`firewalld` or `ufw`, where it is active."""
    modules: Mapping[str, str] = field(default_factory=dict)
    """Of the modules asked for, those that the kernel has: `loaded`, `builtin`, or `module` for a file."""
    sockets: tuple[str, ...] = ()
    """Of the sockets asked for, those that are there, each once, by its real path."""
    settings: Mapping[str, str] = field(default_factory=dict)
    """The files below /proc/sys; empty for one that does not exist."""


def modules_argument(*wanted: Mapping[str, str]) -> str:
    """Modules with their options, as `FLEET_LOOK` takes them."""
    return " ".join(f"{name}:{option}" for one in wanted for name, option in one.items())


def ipvs_modules(scheduler: str = "") -> dict[str, str]:
    """What IPVS needs, with the module of the scheduler that is configured."""
    own = (
        {f"ip_vs_{scheduler}": f"IP_VS_{scheduler.upper()}"} if re.fullmatch(r"[a-z]{2,8}", scheduler) else {}
    )
    return dict(IPVS) | own


def parse_fleet_look(text: str) -> FleetLook:
    """What `FLEET_LOOK` printed."""
    found = sections(text)
    selinux = found.get("selinux", "")
    config = re.search(r"^\s*SELINUX=(\w+)", selinux, re.MULTILINE)
    return FleetLook(
        selinux_enforcing=selinux.lstrip().startswith("1"),
        selinux_config=config[1].lower() if config else "",
        firewall=(found.get("firewalls", "").split() or [""])[0],
        modules=dict(_pairs(found.get("modules", ""))),
        sockets=tuple(dict.fromkeys(found.get("sockets", "").split())),
        settings=dict(_pairs(found.get("settings", ""))),
    )


def _pairs(text: str) -> Iterable[tuple[str, str]]:
    for line in text.splitlines():
        name, _, value = line.partition(" ")
        if name:
            yield name, value.strip()
