"""Diagnoses of the host below the kubelet (P14, P16, P18, P20, P46, P48, P49, P53)."""

from __future__ import annotations

import re
from collections.abc import Iterator

from kubewright.model import x509
from kubewright.model.doctor.facts import DoctorFacts
from kubewright.model.doctor.finding import Finding, Fix, Severity
from kubewright.model.doctor.look import (
    BRIDGE_FILTER,
    CONTAINERD_CONFIG,
    CONTAINERD_ROOT,
    FORWARD,
    PLACES,
    SWAPS,
    Disk,
    Look,
)
from kubewright.model.kubeconfig import KUBELET_CLIENT_CURRENT
from kubewright.model.kubelet import CONFIG_PATH, KUBELET_DIR
from kubewright.model.status import node_status

ACCOUNTING = "cgroup-accounting"
"""The fix that turns on CPU and memory accounting."""
SWAP_OFF = "swap-off"
"""The fix that turns swap off, now and after a restart."""
KERNEL = "kernel-settings"
"""The fix that loads modules and sets sysctls."""
_NODE_USER = "system:node:"
_EVICTION = {"nodefs.available": "10%", "imagefs.available": "15%", "nodefs.inodesFree": "5%"}
"""The kubelet's defaults (its documentation, "Node-pressure Eviction")."""
_LITTLE = 100 * 1024
"""KiB below which etcd may not be able to write."""


def silent(facts: DoctorFacts) -> Iterator[Finding]:
    """Hosts that do not let us in (P53)."""
    for node in facts.nodes:
        if not node.answers:
            yield Finding(
                "host-silent",
                Severity.ERROR,
                "the host cannot be looked at over SSH",
                hosts=(node.name,),
                pitfall="P53",
                evidence=(node.error,),
                breaks="nothing is known of it; what it ran is likely to be away, too",
                mend=("is it on, does its network work, and may we become root there?",),
            )


def swap(facts: DoctorFacts) -> Iterator[Finding]:
    """Swap, with a kubelet that does not start with it (P16)."""
    for node, look in facts.looks():
        lines = [line for line in look.files.get(SWAPS, "").splitlines()[1:] if line.strip()]
        allowed = (
            look.kubelet_config.get("failSwapOn") is False
            or look.kubelet_flags.get("fail-swap-on") == "false"
        )
        if look.joined and lines and not allowed:
            runs = look.kubelet is not None and look.kubelet.active == "active"
            yield Finding(
                "swap-on",
                Severity.WARNING if runs and not _restarts(look) else Severity.ERROR,
                "swap is on",
                hosts=(node.name,),
                pitfall="P16",
                evidence=tuple(f"{SWAPS}: {' '.join(line.split())}" for line in lines),
                breaks="the kubelet does not start again" if runs else "the kubelet does not start",
                mend=(
                    "swapoff -a",
                    "take swap out of /etc/fstab, and systemctl mask swap units",
                    "systemctl restart kubelet",
                ),
                fixes=(
                    Fix(
                        SWAP_OFF,
                        "turn swap off, now and in /etc/fstab",
                        node.name,
                        interrupts="what is in swap goes back into memory",
                    ),
                ),
            )


def _restarts(look: Look) -> bool:
    return look.kubelet is not None and look.kubelet.restarts > 0


def disk(facts: DoctorFacts) -> Iterator[Finding]:
    """File systems with so little room that the kubelet evicts Pods, etcd's among them (P20)."""
    pressed = _under_pressure(facts)
    for node, look in facts.looks():
        if not look.joined:
            continue
        wanted = _eviction(look)
        tight = pressed.get(node.name, [])
        for signal, place in (("nodefs.available", KUBELET_DIR), ("imagefs.available", CONTAINERD_ROOT)):
            tight += _tight(look.disks.get(place), wanted.get(signal, "0%"), signal, "KiB")
        tight += _tight(
            look.inodes.get(KUBELET_DIR),
            wanted.get("nodefs.inodesFree", "0%"),
            "nodefs.inodesFree",
            "inodes",
        )
        for place in PLACES:
            found = look.disks.get(place)
            if found is not None and found.free < _LITTLE and not tight:
                tight.append(f"{found.mount}: {found.free // 1024} MiB free")
        if tight:
            yield Finding(
                "disk-full",
                Severity.ERROR,
                "a disk is nearly full",
                hosts=(node.name,),
                pitfall="P20",
                evidence=tuple(dict.fromkeys(tight)),
                breaks="the kubelet evicts Pods and takes no new ones; where etcd is evicted, the API goes dark",
                mend=(
                    "du -xh --max-depth=3 / | sort -h | tail -n 20",
                    "crictl rmi --prune",
                    "journalctl --vacuum-size=200M",
                ),
            )


def _eviction(look: Look) -> dict[str, str]:
    """The kubelet's thresholds; what its configuration or flag leaves out is no threshold."""
    if flag := look.kubelet_flags.get("eviction-hard"):
        pairs = (pair.partition("<") for pair in flag.split(","))
        return {signal.strip(): value.strip() for signal, _, value in pairs}
    hard = look.kubelet_config.get("evictionHard")
    return (
        {str(key): str(value) for key, value in hard.items()} if isinstance(hard, dict) else dict(_EVICTION)
    )


def _under_pressure(facts: DoctorFacts) -> dict[str, list[str]]:
    """What Nodes say themselves: the kubelet calls a disk full for 5 minutes after it has made room."""
    objects = facts.asked.objects
    found: dict[str, list[str]] = {}
    for item in objects.nodes if objects else ():
        status = node_status(item, facts.now)
        lines = [line for line in status.problems if line.startswith("DiskPressure")]
        if lines:
            found[status.name] = [f"Node {status.name}: {line}" for line in lines]
    return found


def _tight(found: Disk | None, threshold: str, signal: str, unit: str) -> list[str]:
    """A line where less is free than the threshold of the kubelet's eviction."""
    if found is None or not found.size:
        return []
    least = amount(threshold, found.size, 1 if unit == "inodes" else 1024)
    if found.free >= least:
        return []
    return [
        f"{found.mount}: {found.percent_free:.1f}% free ({found.free} {unit}); eviction at {signal}<{threshold}"
    ]


_UNITS = {
    "": 1,
    "k": 1000,
    "M": 1000**2,
    "G": 1000**3,
    "T": 1000**4,
    "Ki": 1024,
    "Mi": 1024**2,
    "Gi": 1024**3,
    "Ti": 1024**4,
}


def amount(threshold: str, size: int, unit: int) -> float:
    """A threshold of evictionHard, `10%` or a quantity as in `1Gi`, in `unit`s of bytes; 0 where it is neither."""
    if match := re.fullmatch(r"([\d.]+)%", threshold):
        return size * float(match[1]) / 100
    if (match := re.fullmatch(r"([\d.]+)([A-Za-z]*)", threshold)) and match[2] in _UNITS:
        return float(match[1]) * _UNITS[match[2]] / unit
    return 0.0


def forwarding(facts: DoctorFacts) -> Iterator[Finding]:
    """Packets that the kernel does not forward, or that pass iptables by (P46)."""
    for node, look in facts.looks():
        if not look.joined:
            continue
        if look.files.get(FORWARD, "1").strip() == "0":
            yield Finding(
                "ip-forward-off",
                Severity.ERROR,
                "the kernel does not forward packets",
                hosts=(node.name,),
                pitfall="P46",
                evidence=(f"{FORWARD} is 0",),
                breaks="Pods here reach neither other nodes nor services, and nobody them",
                mend=(
                    "sysctl -w net.ipv4.ip_forward=1",
                    "write net.ipv4.ip_forward=1 into a file in /etc/sysctl.d",
                ),
                fixes=(_kernel(node.name),),
            )
        if look.files.get(BRIDGE_FILTER, "1").strip() == "0":
            yield Finding(
                "bridge-filter-off",
                Severity.ERROR,
                "bridged traffic passes iptables by",
                hosts=(node.name,),
                pitfall="P46",
                evidence=(f"{BRIDGE_FILTER} is 0",),
                breaks="Pods on one bridge do not reach each other through services",
                mend=(
                    "sysctl -w net.bridge.bridge-nf-call-iptables=1",
                    "write net.bridge.bridge-nf-call-iptables=1 into a file in /etc/sysctl.d",
                ),
                fixes=(_kernel(node.name),),
            )


def _kernel(host: str) -> Fix:
    return Fix(KERNEL, "set what Kubernetes needs of the kernel, now and after a restart", host)


def accounting(facts: DoctorFacts) -> Iterator[Finding]:
    """A kubelet that is in a cgroup of its own by one of CPU and memory, and not by the other (P49).

    Where systemd has put neither into the unit's, as in a container, no drop-in would help, and nothing is broken.
    """
    for node, look in facts.looks():
        cpu, memory = look.cgroups.get("cpu"), look.cgroups.get("memory")
        unit = look.cgroups.get("name=systemd", "").rpartition("/")[2]
        if cpu is None or memory is None or not unit.endswith(".service"):
            continue
        if cpu.endswith(f"/{unit}") != memory.endswith(f"/{unit}"):
            yield Finding(
                "cgroup-accounting",
                Severity.WARNING,
                "the kubelet's CPU and memory are accounted for in different cgroups",
                hosts=(node.name,),
                pitfall="P49",
                evidence=(f"cpu: {cpu}", f"memory: {memory}"),
                breaks="the kubelet calls the hierarchies not unified: it has no figures of itself, or ends",
                mend=(
                    "write CPUAccounting=true and MemoryAccounting=true into a drop-in of kubelet.service",
                    "systemctl daemon-reload && systemctl restart kubelet",
                ),
                fixes=(
                    Fix(
                        ACCOUNTING,
                        "turn on CPU and memory accounting of the kubelet's unit",
                        node.name,
                        interrupts="the kubelet is restarted; Pods go on",
                    ),
                ),
            )


def cgroup_driver(facts: DoctorFacts) -> Iterator[Finding]:
    """A kubelet and a containerd that manage cgroups in different ways (P48)."""
    for node, look in facts.looks():
        unit = look.units.get("containerd")
        if not look.joined or look.systemd_cgroup is None or unit is None or unit.active != "active":
            continue
        said = look.kubelet_flags.get("cgroup-driver") or str(
            look.kubelet_config.get("cgroupDriver") or "cgroupfs"
        )
        theirs = "systemd" if look.systemd_cgroup else "cgroupfs"
        if said != theirs:
            yield Finding(
                "cgroup-driver",
                Severity.ERROR,
                "the kubelet's cgroup driver is not the runtime's",
                hosts=(node.name,),
                pitfall="P48",
                evidence=(
                    f"{CONFIG_PATH}: cgroupDriver {said}",
                    f"{CONTAINERD_CONFIG}: SystemdCgroup = {'true' if look.systemd_cgroup else 'false'}",
                ),
                breaks="two managers of one tree: Pods fail to start, or limits do not hold",
                mend=(f"set cgroupDriver: {theirs} in {CONFIG_PATH}", "systemctl restart kubelet"),
            )


def resolv_loop(facts: DoctorFacts) -> Iterator[Finding]:
    """A resolv.conf for Pods that names the host itself, or cluster DNS, which then asks itself (P18)."""
    for node, look in facts.looks():
        own = [one for one in look.nameservers if one.startswith("127.") or one == "::1"]
        served = look.kubelet_config.get("clusterDNS")
        circle = [one for one in look.nameservers if isinstance(served, list) and one in served]
        if look.joined and (own or circle) and look.kubelet_config.get("resolvConf") != "":
            yield Finding(
                "resolv-loop",
                Severity.WARNING,
                f"the resolv.conf that Pods are given names {'a loopback address' if own else 'cluster DNS'}",
                hosts=(node.name,),
                pitfall="P18",
                evidence=(
                    f"{look.resolv_path}: {', '.join(f'nameserver {one}' for one in (*own, *circle))}",
                ),
                breaks="cluster DNS on this node asks itself: CoreDNS ends with a loop, another resolves no name "
                "of the world",
                mend=(
                    f"set resolvConf in {CONFIG_PATH} to a file without it: /run/systemd/resolve/resolv.conf",
                    "systemctl restart kubelet",
                    "kubectl -n kube-system rollout restart deployment coredns",
                ),
            )


def renamed(facts: DoctorFacts) -> Iterator[Finding]:
    """A host whose name is not its node's any more (P14)."""
    for node, look in facts.looks():
        user = x509.common_name(look.certs.get(KUBELET_CLIENT_CURRENT, b""))
        mine = look.kubelet_flags.get("hostname-override") or look.hostname.lower()
        if user.startswith(_NODE_USER) and mine and user.removeprefix(_NODE_USER) != mine.strip().lower():
            yield Finding(
                "host-renamed",
                Severity.ERROR,
                "the host has another name than its node",
                hosts=(node.name,),
                pitfall="P14",
                evidence=(f"the host calls itself {mine}", f"{KUBELET_CLIENT_CURRENT} names {user}"),
                breaks="a kubelet that starts under the new name may not touch its Node: it becomes NotReady",
                mend=(
                    f"hostnamectl set-hostname {user.removeprefix(_NODE_USER)}",
                    "systemctl restart kubelet",
                    "or: kubewright reset, and join under the new name",
                ),
            )


DIAGNOSES = (silent, disk, swap, renamed, forwarding, accounting, cgroup_driver, resolv_loop)
