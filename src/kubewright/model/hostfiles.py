"""What Kubernetes wants of a host's kernel, as the files that keep it so across a restart (P46)."""

from __future__ import annotations

from collections.abc import Sequence
from types import MappingProxyType

MODULES_PATH = "/etc/modules-load.d/kubernetes.conf"
SYSCTL_PATH = "/etc/sysctl.d/99-kubernetes.conf"

KERNEL_MODULES = ("overlay", "br_netfilter")
"""A kernel may have them built in; then there is no module to load, and nothing is wrong."""

SYSCTLS = MappingProxyType(
    {
        "net.bridge.bridge-nf-call-ip6tables": "1",
        "net.bridge.bridge-nf-call-iptables": "1",
        "net.ipv4.ip_forward": "1",
    }
)


def modules_file(more: Sequence[str] = ()) -> bytes:
    """The modules to load when the host starts (modules-load.d(5)), with those that the cluster wants besides."""
    return "".join(f"{name}\n" for name in (*KERNEL_MODULES, *more)).encode()


def sysctl_file() -> bytes:
    """The kernel parameters to set when the host starts (sysctl.d(5))."""
    return "".join(f"{name} = {value}\n" for name, value in SYSCTLS.items()).encode()


def sysctl_path(name: str) -> str:
    """The file of a kernel parameter below /proc."""
    return "/proc/sys/" + name.replace(".", "/")
