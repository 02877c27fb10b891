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


def more_modules(old: str) -> list[str]:
    """The modules that such a file has besides ours."""
    lines = (line.strip() for line in old.splitlines())
    return [line for line in lines if line and line[0] not in "#;" and line not in KERNEL_MODULES]


def sysctl_file(old: str = "") -> bytes:
    """The kernel parameters to set when the host starts (sysctl.d(5)); of an `old` file, other parameters stay."""
    others = [line for line in old.splitlines() if _parameter(line) not in SYSCTLS]
    return "".join(
        f"{line}\n" for line in (*others, *(f"{name} = {value}" for name, value in SYSCTLS.items()))
    ).encode()


def _parameter(line: str) -> str:
    """The parameter that a line sets; sysctl.d(5) takes slashes for dots, and `-` for one that may fail."""
    name = line.partition("=")[0].strip().removeprefix("-").strip()
    return name.replace("/", ".")


def sysctl_path(name: str) -> str:
    """The file of a kernel parameter below /proc."""
    return "/proc/sys/" + name.replace(".", "/")
