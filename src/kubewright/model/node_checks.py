"""The decisions of preflight: from a host's facts and one look at it to findings by kubeadm's names.

What SystemVerification demands is that of k8s.io/system-validators, which kubeadm uses. Every check is decided
before anything is said, so that a user sees all findings at once.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Collection, Iterator

from kubewright.model.facts import HostFacts
from kubewright.model.node_look import NodeLook
from kubewright.model.node_preflight import (
    BRIDGE_FILTER,
    BRIDGE_FILTER_6,
    STATIC_PODS,
    CheckFinding,
    NodeChecks,
)
from kubewright.model.proxies import proxy_for
from kubewright.model.version import Version
from kubewright.model.versions import OLDEST_SERIES

MIN_CPUS, MIN_MEMORY = 2, 1700 << 20

_PACKAGES = {
    "conntrack": "conntrack", "ip": "iproute2", "iptables": "iptables", "mount": "mount", "nsenter": "util-linux",
    "ebtables": "ebtables", "ethtool": "ethtool", "socat": "socat", "tc": "iproute2", "touch": "coreutils",
    "losetup": "mount", "cp": "coreutils",
}  # fmt: skip

# What the validators demand of a kernel's configuration: of each tuple, any one.
_KERNEL: tuple[tuple[str, ...], ...] = (
    ("NAMESPACES",), ("NET_NS",), ("PID_NS",), ("IPC_NS",), ("UTS_NS",), ("CGROUPS",), ("CGROUP_CPUACCT",),
    ("CGROUP_DEVICE",), ("CGROUP_FREEZER",), ("CGROUP_SCHED",), ("CPUSETS",), ("MEMCG",), ("INET",), ("PROC_FS",),
    ("NETFILTER_XT_TARGET_REDIRECT", "IP_NF_TARGET_REDIRECT"), ("NETFILTER_XT_MATCH_COMMENT",),
)  # fmt: skip
KERNEL_OPTIONS = tuple(name for names in _KERNEL for name in names)
_CGROUPS_V1 = ("cpu", "cpuacct", "cpuset", "devices", "freezer", "memory", "pids")
_CGROUPS_V2 = ("cpu", "cpuset", "memory", "pids")
"""Without devices and freezer, which the kernel always has and does not list."""
_OLDEST_KERNEL = (3, 10)
IPVS_CHECK = "RequiredIPVSKernelModulesAvailable"
"""kubeadm's name for it, until 1.15."""
PROGRAMS = tuple(_PACKAGES)
"""All that any version asks for."""


def check_node(checks: NodeChecks, facts: HostFacts, look: NodeLook) -> list[CheckFinding]:
    """All that can be decided from the host's facts and one look at it."""
    return [
        *_size(checks, facts),
        *_ports(checks, look),
        *_files(checks, look),
        *_proxies(checks, look),
        *(_machine(checks, facts, look) if checks.machine else ()),
        *(_system(checks, facts, look) if checks.system else ()),
        *_networks(checks, facts),
    ]


_LEFTOVER = "left by another cluster or an earlier run (P35): `kubewright reset` takes it away"
_IN_CLUSTER = (
    "is this node in a cluster already? If it is the one that you mean, there is nothing to do; "
    "`kubewright reset` would take it out"
)
_MEMBER = (
    "this host is a control plane of that cluster already: there is nothing to do; "
    "`kubewright reset` would take it out"
)


def _of_cluster(checks: NodeChecks, look: NodeLook) -> str:
    return _MEMBER if checks.member and "kube-apiserver" in look.listening.values() else _IN_CLUSTER


def _size(checks: NodeChecks, facts: HostFacts) -> Iterator[CheckFinding]:
    if not checks.control_plane:
        return
    if facts.cpus < MIN_CPUS:
        yield CheckFinding("NumCPU", f"{facts.cpus} CPU; a control plane needs {MIN_CPUS} (P45)", "add one")
    if facts.memory < MIN_MEMORY:
        yield CheckFinding(
            "Mem", f"{facts.memory >> 20} MiB of memory; a control plane needs {MIN_MEMORY >> 20} (P45)",
            "give it more",
        )  # fmt: skip


def _ports(checks: NodeChecks, look: NodeLook) -> Iterator[CheckFinding]:
    for port in checks.ports:
        if port in look.listening:
            holder = look.listening[port]
            ours = holder in (*STATIC_PODS, "kubelet", "kube-scheduler", "kube-controller")
            yield CheckFinding(
                f"Port-{port}", f"port {port} is in use" + (f" by {holder} (P44)" if holder else " (P44)"),
                _of_cluster(checks, look) if ours else
                f"find the process with `ss -ltnp sport = :{port}` and stop it",
            )  # fmt: skip
    firewall = look.units.get("firewalld")
    if checks.ports and firewall is not None and firewall.active == "active":
        ports = ", ".join(map(str, checks.firewall_ports))
        yield CheckFinding(
            "Firewalld", f"firewalld is active; other nodes must reach port {ports}",
            "firewall-cmd --permanent --add-port=PORT/tcp for each", error=False,
        )  # fmt: skip


def _files(checks: NodeChecks, look: NodeLook) -> Iterator[CheckFinding]:
    running = any(holder in STATIC_PODS for holder in look.listening.values())
    leftover = _of_cluster(checks, look) if running else _LEFTOVER
    for path in checks.absent_files:
        if path in look.existing:
            yield CheckFinding(f"FileAvailable-{path.replace('/', '-')}", f"{path} exists already", leftover)
    for path in checks.empty_directories:
        if path in look.filled:
            yield CheckFinding(f"DirAvailable-{path.replace('/', '-')}", f"{path} is not empty", leftover)
    for path, name in checks.existing_files:
        if path not in look.existing:
            yield CheckFinding(name, f"{path} does not exist", "put it there, or correct its path")
    for path in checks.settings:
        value = look.contents.get(path, "")
        if value == "1":
            continue
        key = path.removeprefix("/proc/sys/").replace("/", ".")
        bridge = path in (BRIDGE_FILTER, BRIDGE_FILTER_6)
        yield CheckFinding(
            f"FileContent-{path.replace('/', '-')}",
            f"{path} is {value}, not 1 (P46)" if value else f"{path} does not exist (P46)",
            ("modprobe br_netfilter && " if bridge else "")
            + f"sysctl -w {key}=1, and in /etc/sysctl.d for good",
        )


def _proxies(checks: NodeChecks, look: NodeLook) -> Iterator[CheckFinding]:
    for host in checks.proxy_hosts:
        if proxy := proxy_for(host, look.proxies):
            yield CheckFinding(
                "HTTPProxy", f"connections to {host} go through the proxy {proxy}",
                f"add {host} to NO_PROXY unless that is meant", error=False,
            )  # fmt: skip
    for subnet in checks.proxy_subnets:
        try:
            first = next(ipaddress.ip_network(subnet.strip(), strict=False).hosts())
        except (ValueError, StopIteration):
            continue
        if proxy := proxy_for(str(first), look.proxies):
            yield CheckFinding(
                "HTTPProxyCIDR", f"connections into {subnet} go through the proxy {proxy}",
                f"add {subnet} to NO_PROXY, or the API server cannot reach pods and services", error=False,
            )  # fmt: skip


def _machine(checks: NodeChecks, host: HostFacts, look: NodeLook) -> Iterator[CheckFinding]:
    if host.swap and checks.fail_swap_on:
        yield CheckFinding(
            "Swap", f"swap is on ({host.swap >> 20} MiB) and the kubelet would stop (P16)",
            "swapoff -a, and take swap out of /etc/fstab",
        )  # fmt: skip
    elif host.swap:
        yield CheckFinding("Swap", f"swap is on ({host.swap >> 20} MiB)", error=False)
    facts = checks.facts
    needed = facts.needed_programs if facts is not None else ()
    for program in (*needed, *(facts.useful_programs if facts is not None else ())):
        if program not in look.programs:
            yield CheckFinding(
                f"FileExisting-{program}", f"{program} is not in PATH",
                f"apt-get install {_PACKAGES[program]}, or what your system calls it", error=program in needed,
            )  # fmt: skip
    yield from name_findings(checks.node_name, look)
    yield from selinux_findings(look)
    yield from ipvs_findings(checks.ipvs, look)
    yield from _kubelet(checks, look)


def name_findings(name: str, look: NodeLook) -> Iterator[CheckFinding]:
    """Hostname: whether the node's name leads to the host, as seen there (P14)."""
    found = look.name_addresses
    mend = f"put {name} and the node's address into DNS or /etc/hosts"
    if not found:
        yield CheckFinding(
            "Hostname", f"the name {name} does not resolve on the host (P14)", mend, error=False
        )
    elif all(ipaddress.ip_address(address.partition("%")[0]).is_loopback for address in found):
        yield CheckFinding(
            "Hostname", f"the name {name} resolves to {', '.join(found)}, where only this host is reached (P14)",
            mend, error=False,
        )  # fmt: skip


def selinux_findings(look: NodeLook) -> Iterator[CheckFinding]:
    """SELinux: whether it enforces (P50)."""
    if look.selinux_enforcing:
        said = f"/etc/selinux/config says SELINUX={look.selinux_config}" if look.selinux_config else ""
        yield CheckFinding(
            "SELinux",
            "SELinux is enforcing (P50): without a policy of their own, static Pods may not read /etc/kubernetes, "
            "nor etcd write its data",
            "setenforce 0, and SELINUX=permissive in /etc/selinux/config",
            details=(said,) if said else (),
        )


def ipvs_findings(
    needed: Collection[str], look: NodeLook, *, field: str = "mode in KubeProxyConfiguration"
) -> Iterator[CheckFinding]:
    """Whether the kernel has the modules that IPVS needs (P17). `field` is where the user asked for it."""
    missing = [name for name in needed if name not in look.modules]
    if missing:
        yield CheckFinding(
            IPVS_CHECK, f"{field} is ipvs, and the kernel has no {', '.join(missing)} (P17)",
            "install the kernel's modules (Ubuntu: linux-modules-extra-$(uname -r)), or use the mode iptables",
            details=("neither built in, nor loaded, nor a file below /lib/modules",),
        )  # fmt: skip


def _kubelet(checks: NodeChecks, look: NodeLook) -> Iterator[CheckFinding]:
    unit = look.units.get("kubelet")
    if unit is None or not unit.enabled:
        yield CheckFinding(
            "Service-Kubelet", "there is no kubelet.service",
            "install the kubelet of your Kubernetes version with its systemd unit", error=False,
        )  # fmt: skip
    elif unit.enabled not in ("enabled", "enabled-runtime", "static", "alias", "generated", "linked"):
        yield CheckFinding(
            "Service-Kubelet", f"kubelet.service is {unit.enabled}: it would not start with the host",
            "systemctl enable kubelet.service", error=False,
        )  # fmt: skip
    if not look.kubelet_version:
        yield CheckFinding(
            "KubeletVersion", "there is no kubelet in PATH", "install the kubelet of your version"
        )
        return
    kubelet = Version.parse(look.kubelet_version, field="kubelet --version")
    facts = checks.facts if checks.version_is_chosen else None
    if kubelet < Version.parse(f"{OLDEST_SERIES}.0-0"):
        yield CheckFinding(
            "KubeletVersion", f"the kubelet is {kubelet}; v{OLDEST_SERIES} is the oldest that is known",
            "install a newer one",
        )  # fmt: skip
    elif facts is not None and (kubelet.major, kubelet.minor) > (facts.version.major, facts.version.minor):
        yield CheckFinding(
            "KubeletVersion", f"the kubelet {kubelet} is newer than the control plane {facts.version} (P06)",
            f"install a kubelet of {facts.version.series}, or choose another --kubernetes-version",
        )  # fmt: skip
    elif facts is not None and not facts.supports_kubelet(kubelet):
        yield CheckFinding(
            "KubeletVersion",
            f"the kubelet {kubelet} is too old for the control plane {facts.version} (P06), which serves those "
            f"that are at most {facts.kubelet_minors_behind} minor versions older",
            f"install a kubelet of {facts.version.series}",
        )  # fmt: skip


def _system(checks: NodeChecks, facts: HostFacts, look: NodeLook) -> Iterator[CheckFinding]:
    name = "SystemVerification"
    release = re.match(r"(\d+)\.(\d+)", facts.kernel)
    if release is None or (int(release[1]), int(release[2])) < _OLDEST_KERNEL:
        yield CheckFinding(
            name, f"the kernel is {facts.kernel or 'unknown'}; 3.10 is the oldest", "use a newer"
        )
    if look.kernel_config is None:
        yield CheckFinding(name, "the kernel's configuration is not to be found", "", error=False)
    else:
        missing = [names[0] for names in _KERNEL if not any(one in look.kernel_config for one in names)]
        if missing:
            yield CheckFinding(
                name, f"the kernel lacks {', '.join(f'CONFIG_{option}' for option in missing)}",
                "use your distribution's own kernel",
            )  # fmt: skip
    needed = _CGROUPS_V2 if facts.cgroup_version == 2 else _CGROUPS_V1
    gone = [cgroup for cgroup in needed if cgroup not in look.cgroups]
    if facts.cgroup_version == 0:
        yield CheckFinding(name, "there is no cgroup file system at /sys/fs/cgroup (P49)", "mount it")
    elif gone:
        yield CheckFinding(
            name, f"these cgroup controllers are missing: {', '.join(gone)} (P49)",
            "enable them on the kernel's command line: cgroup_enable=NAME",
        )  # fmt: skip
    elif "hugetlb" not in look.cgroups:
        yield CheckFinding(name, "the optional cgroup controller hugetlb is missing", error=False)
    if facts.cgroup_version == 1 and checks.facts is not None and checks.facts.cgroup_v1 != "supported":
        refused = checks.facts.cgroup_v1 == "refused"
        yield CheckFinding(
            name, f"the host has cgroup v1, which a kubelet of {checks.facts.version.series} "
            + ("refuses unless its failCgroupV1 is false" if refused else "has in maintenance only"),
            "start the host with systemd.unified_cgroup_hierarchy=1", error=refused,
        )  # fmt: skip


def _networks(checks: NodeChecks, facts: HostFacts) -> Iterator[CheckFinding]:
    """Our own two checks: an address that the host does not have, and networks that overlap its own."""
    address = checks.advertise_address
    if address and facts.addresses and address not in facts.addresses:
        yield CheckFinding(
            "AdvertiseAddress", f"{address} is none of the host's addresses (P08)",
            f"choose one of {', '.join(facts.addresses)}",
        )  # fmt: skip
    elif address and not checks.address_is_chosen and len(facts.addresses) > 1:
        yield CheckFinding(
            "AdvertiseAddress",
            f"the host has several addresses; {address}, that of its default route, is advertised (P08)",
            f"for another, --apiserver-advertise-address: {', '.join(facts.addresses)}", error=False,
        )  # fmt: skip
    for title, subnet in checks.subnets:
        for part in filter(None, (text.strip() for text in subnet.split(","))):
            network = ipaddress.ip_network(part, strict=False)
            taken = [
                route for route in (*(one for one in facts.routes if one not in facts.pod_routes), address)
                if route and _overlap(network, ipaddress.ip_network(route, strict=False))
            ]  # fmt: skip
            if taken:
                yield CheckFinding(
                    "Subnets", f"{title} {part} overlaps the host's own network {taken[0]} (P32)",
                    f"choose another {title}",
                )  # fmt: skip


Network = ipaddress.IPv4Network | ipaddress.IPv6Network


def _overlap(one: Network, other: Network) -> bool:
    return one.version == other.version and one.overlaps(other)
