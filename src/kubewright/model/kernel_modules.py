"""The modules of the kernel that a node needs besides what every kernel has: the bridge's filter, and IPVS'."""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

IPVS = MappingProxyType(
    {
        "ip_vs": "IP_VS", "ip_vs_rr": "IP_VS_RR", "ip_vs_wrr": "IP_VS_WRR", "ip_vs_sh": "IP_VS_SH",
        "nf_conntrack": "NF_CONNTRACK", "ip_set": "IP_SET",
    }
)  # fmt: skip
"""The modules that kube-proxy's mode ipvs needs, and the kernel's options (pkg/proxy/ipvs in Kubernetes)."""
BRIDGE = MappingProxyType({"br_netfilter": "BRIDGE_NETFILTER"})


def proxy_modules(configuration: Mapping[str, Any]) -> dict[str, str]:
    """What a KubeProxyConfiguration needs: with its mode ipvs the modules of that, and of its scheduler."""
    if configuration.get("mode") != "ipvs":
        return {}
    settings: Any = configuration.get("ipvs")
    scheduler: Any = settings.get("scheduler") if isinstance(settings, Mapping) else None
    named = isinstance(scheduler, str) and re.fullmatch(r"[a-z]{2,8}", scheduler)
    return dict(IPVS) | ({f"ip_vs_{scheduler}": f"IP_VS_{scheduler.upper()}"} if named else {})


def modules_argument(modules: Mapping[str, str]) -> str:
    """Modules with their options, as `node_look.LOOK` takes them."""
    return " ".join(f"{name}:{option}" for name, option in modules.items())
