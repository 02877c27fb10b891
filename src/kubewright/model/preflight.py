"""What makes hosts unfit for a cluster, decided from their facts alone."""

from __future__ import annotations

import ipaddress
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

from kubewright.errors import ExitCode, HostError
from kubewright.model.config.cluster import ClusterSpec, HostSpec, Role
from kubewright.model.facts import HostFacts
from kubewright.model.kubeconfig import first_server
from kubewright.model.pki import CA

GIB = 1 << 30

# The oldest release of each distribution whose packages and systemd are known to do.
SUPPORTED_OS = {"debian": (12, 0), "ubuntu": (22, 4)}

# What a host needs to hold before anything is put on it: the images unpacked, the kubelet, etcd's first files.
_FREE = {
    Role.CONTROL_PLANE: {"/var/lib": 2 * GIB, "/usr/local": GIB // 4, "/etc": 1 << 20},
    Role.WORKER: {"/var/lib": GIB, "/usr/local": GIB // 4, "/etc": 1 << 20},
    Role.ETCD: {"/var/lib": 2 * GIB, "/usr/local": GIB // 16, "/etc": 1 << 20},
    Role.LOAD_BALANCER: {"/etc": 1 << 20},
}


class Fix(StrEnum):
    """What `kubewright preflight --fix` can do on a host."""

    SWAP = "swap"
    KERNEL = "kernel"
    SELINUX = "selinux"
    FIREWALL = "firewall"


@dataclass(frozen=True, slots=True)
class Finding:
    """One reason to refuse, or to warn, with the mend."""

    host: str
    message: str
    hint: str
    exit_code: ExitCode = ExitCode.HOST_NOT_FIT
    check: str = ""
    """The name that `--ignore-preflight-errors` takes, kubeadm's where it has one; empty where nobody can know
    better."""
    error: bool = True
    evidence: tuple[str, ...] = ()
    fix: Fix | None = None
    about: frozenset[str] = frozenset()
    """Other hosts that it concerns, of a finding between hosts."""
    firewall: str = ""
    """Of `Fix.FIREWALL`: `ufw` or `firewalld`."""

    def __str__(self) -> str:
        return f"{self.host}: {self.message}"

    def as_dict(self) -> dict[str, Any]:
        """The finding as `preflight -o json` prints it."""
        row: dict[str, Any] = {"host": self.host, "severity": "error" if self.error else "warning"}
        row |= {"check": self.check} if self.check else {}
        row |= {"message": self.message, "hint": self.hint}
        row |= {"evidence": list(self.evidence)} if self.evidence else {}
        row |= {"otherHosts": sorted(self.about)} if self.about else {}
        return row | {"fixable": self.fix is not None}


def refuse(findings: Sequence[Finding], *, ignorable: bool = False) -> None:
    """Raise one `HostError` that lists all findings that are errors; nothing where there are none.

    With `ignorable` it says how to ignore those that can be.
    """
    errors = [one for one in findings if one.error]
    if not errors:
        return
    first, *others = errors
    evidence = [*first.evidence]
    for other in others:
        evidence += [f"also {other} ({other.hint})", *(f"  {line}" for line in other.evidence)]
    names = dict.fromkeys(one.check for one in errors if one.check)
    if names and ignorable:
        evidence.append(f"where you know better: --ignore-preflight-errors={','.join(names)}")
    raise HostError(
        str(first), host=first.host, hint=first.hint, exit_code=first.exit_code, evidence=evidence
    )


def without_ignored(findings: Sequence[Finding], ignored: Collection[str]) -> list[Finding]:
    """The findings, with errors of ignored checks made warnings. `ignored` is `ignored_checks(...)`."""
    return [
        replace(one, error=False) if one.check and ("all" in ignored or one.check.lower() in ignored) else one
        for one in findings
    ]


def check_host(spec: ClusterSpec, host: HostSpec, facts: HostFacts) -> list[Finding]:
    """What is wrong with one host."""
    findings: list[Finding] = []

    def finding(
        message: str,
        hint: str,
        exit_code: ExitCode = ExitCode.HOST_NOT_FIT,
        *,
        check: str = "",
        fix: Fix | None = None,
    ) -> None:
        findings.append(Finding(host.name, message, hint, exit_code, check, fix=fix))

    supported = ", ".join(f"{name} {major}.{minor:02}" for name, (major, minor) in SUPPORTED_OS.items())
    oldest = SUPPORTED_OS.get(facts.os_id)
    if oldest is None or _release(facts.os_version) < oldest:
        finding(
            f"runs {facts.os_name or 'an unknown system'}, which is not supported",
            f"use one of these, or newer: {supported}", ExitCode.HOST_UNSUPPORTED_OS,
        )  # fmt: skip
    if facts.init != "systemd":
        finding(
            f"its first process is {facts.init or 'unknown'}, not systemd",
            "what runs on it is kept running by systemd units", ExitCode.HOST_UNSUPPORTED_OS,
        )  # fmt: skip
    if host.is_node and facts.swap and spec.kubelet_configuration.get("failSwapOn", True):
        finding(
            f"swap is on ({facts.swap >> 20} MiB) and the kubelet would stop (P16)",
            "swapoff -a, and take swap out of /etc/fstab", check="Swap", fix=Fix.SWAP,
        )  # fmt: skip
    role = next(role for role in _FREE if role in host.roles)
    if role is Role.CONTROL_PLANE and facts.cpus < 2:
        finding(f"has {facts.cpus} CPU; a control plane needs 2 (P45)", "give it another", check="NumCPU")
    if role is Role.CONTROL_PLANE and facts.memory < 1700 << 20:
        finding(
            f"has {facts.memory >> 20} MiB of memory; a control plane needs 1700 (P45)",
            "give it more",
            check="Mem",
        )
    for path, need in _FREE[role].items():
        free = facts.filesystems.get(path)
        if free is not None and free < need:
            finding(
                f"{path} has {free >> 20} MiB free; {need >> 20} MiB are needed",
                "free some space or enlarge the file system", ExitCode.HOST_DISK_FULL,
            )  # fmt: skip
    findings += _check_addresses(spec, host, facts)
    return findings


def node_ip(host: HostSpec, facts: HostFacts) -> str:
    """The address that a node uses: as configured, or the default route's source address (P08)."""
    return host.node_ip or facts.default_address or (facts.addresses[0] if facts.addresses else "")


def _check_addresses(spec: ClusterSpec, host: HostSpec, facts: HostFacts) -> list[Finding]:
    findings = []
    address = node_ip(host, facts)
    if not address:
        findings.append(
            Finding(host.name, "has no default route and no address", "set nodeIP, or configure its network")
        )
    elif host.node_ip and host.node_ip not in facts.addresses:
        findings.append(
            Finding(
                host.name,
                f"nodeIP {host.node_ip} is none of its addresses (P08)",
                f"its addresses: {', '.join(facts.addresses)}",
            )
        )
    for title, subnet, network in _subnets(spec):
        if address and ipaddress.ip_address(address) in network:
            findings.append(
                Finding(
                    host.name, f"its address {address} lies in {title} {subnet} (P32)",
                    f"choose another {title}", ExitCode.CONFIG_OVERLAPPING_SUBNETS,
                )
            )  # fmt: skip
    return findings


def _subnets(spec: ClusterSpec) -> list[tuple[str, str, ipaddress.IPv4Network]]:
    """The cluster's own networks, each with its field; no pod network where another than ours has it."""
    named = (("podSubnet", spec.network.pod_subnet), ("serviceSubnet", spec.network.service_subnet))
    return [(title, text, ipaddress.IPv4Network(text)) for title, text in named if text]


def foreign_routes(spec: ClusterSpec, host: HostSpec, facts: HostFacts) -> list[Finding]:
    """Routes that a host which is in no cluster yet has into the pod or service subnet (P32)."""
    findings = []
    for title, subnet, network in _subnets(spec):
        for route in facts.routes:
            other = ipaddress.ip_network(route, strict=False)
            if other.version == network.version and other.overlaps(network):
                findings.append(
                    Finding(
                        host.name, f"it has a route to {route}, which overlaps {title} {subnet} (P32)",
                        f"choose another {title}", ExitCode.CONFIG_OVERLAPPING_SUBNETS, "Subnets",
                    )
                )  # fmt: skip
    return findings


_UNIQUE = {"machine-id": "UniqueMachineID", "product_uuid": "UniqueProductUUID", "MAC address": "UniqueMAC"}


def check_fleet(facts: Mapping[str, HostFacts]) -> list[Finding]:
    """What is wrong between hosts: two names for one machine, and clones (P43)."""
    findings = []
    seen: dict[tuple[str, str], str] = {}
    for name, fact in facts.items():
        marks = [("machine-id", fact.machine_id), ("product_uuid", fact.product_uuid)]
        marks += [("MAC address", mac) for mac in fact.macs]
        for title, value in marks:
            if not value:
                continue
            other = seen.setdefault((title, value), name)
            if other != name:
                findings.append(
                    Finding(
                        name, f"has the same {title} as {other} (P43): {value}",
                        "is it one host under two names, or a clone? a clone needs an identity of its own",
                        ExitCode.CONFIG_DUPLICATE_HOST, _UNIQUE[title],
                    )
                )  # fmt: skip
    return findings


@dataclass(frozen=True, slots=True)
class Belonging:
    """What a host's files say of the cluster that it is in."""

    ca: bytes | None
    """The cluster's CA, as it stands at `ca_path`."""
    kubeconfigs: Mapping[str, Mapping[str, Any]]
    """Its kubeconfig files by path, parsed."""
    manifests: bool
    """Whether it has static Pods."""
    user: str = ""
    """Whom its kubelet's certificate names: `system:node:NAME`."""
    ca_path: str = CA.cert_path()


def check_belonging(
    spec: ClusterSpec, endpoint: str, hosts: Sequence[tuple[HostSpec, Belonging]], *, moves: bool = False
) -> list[Finding]:
    """Hosts that are in another cluster already: another CA, another endpoint, another name.

    `endpoint` is the URL of this cluster's API; where it `moves`, hosts may name any. A host whose files are ours,
    whole or half-made, is fine.
    """
    control_planes = [(h, b) for h, b in hosts if Role.CONTROL_PLANE in h.roles]
    ca = next((b.ca for _, b in control_planes if b.ca is not None), None)
    if not moves and (moved := _moved_endpoint(spec, endpoint, control_planes)):
        return [moved]
    findings = []
    for host, belonging in hosts:
        why = _why_foreign(spec, "" if moves else endpoint, host, belonging, ca)
        if why:
            findings.append(
                Finding(
                    host.name, f"is in another cluster already: {why}",
                    "take it out of that cluster first (kubeadm reset on it), or take it out of cluster.yaml",
                    ExitCode.HOST_IN_OTHER_CLUSTER,
                )
            )  # fmt: skip
        elif belonging.user and belonging.user != f"system:node:{host.name}":
            node = belonging.user.removeprefix("system:node:")
            findings.append(
                Finding(
                    host.name, f"its kubelet is the Node {node!r} already (P14)",
                    f"name it {node!r} in cluster.yaml; a node cannot be renamed, only taken out and joined anew",
                )
            )  # fmt: skip
    return findings


def live_endpoint(spec: ClusterSpec, hosts: Sequence[tuple[HostSpec, Belonging]]) -> str:
    """The URL of this cluster's API as its control planes have it; empty where none of them is in it."""
    servers = (_own_server(spec, host, found) for host, found in hosts if Role.CONTROL_PLANE in host.roles)
    return next(filter(None, servers), "")


def _own_server(spec: ClusterSpec, host: HostSpec, belonging: Belonging) -> str:
    """Where a control plane's cluster is reached, if it is this one by all its names."""
    config = belonging.kubeconfigs.get("/etc/kubernetes/admin.conf", {})
    cluster: Mapping[str, Any] = next(iter(config.get("clusters") or []), {})
    named = cluster.get("name") == spec.name and belonging.user == f"system:node:{host.name}"
    return first_server(config) if named else ""


def _moved_endpoint(
    spec: ClusterSpec, endpoint: str, control_planes: Sequence[tuple[HostSpec, Belonging]]
) -> Finding | None:
    """A cluster that is this one by all its names, and is reached at another address than cluster.yaml says."""
    for host, belonging in control_planes:
        server = _own_server(spec, host, belonging)
        if server and server != endpoint:
            return Finding(
                host.name,
                f"its cluster is reached at {server}, and cluster.yaml says {endpoint}: `apply` does not move a "
                "cluster to another endpoint",
                "kubewright convert --endpoint (or --to-ha, where control planes come, too); if that is another "
                "cluster, take its hosts out of it first (kubewright reset)",
                ExitCode.CONFIG_INVALID,
            )
    return None


def _why_foreign(
    spec: ClusterSpec, endpoint: str, host: HostSpec, belonging: Belonging, ca: bytes | None
) -> str:
    """Why a host is another cluster's; empty where it is not. Without an `endpoint` none is compared."""
    control_plane = Role.CONTROL_PLANE in host.roles
    if belonging.manifests and not control_plane:
        return "/etc/kubernetes/manifests holds a control plane"
    if belonging.ca is not None and ca is not None and belonging.ca.strip() != ca.strip():
        return f"{belonging.ca_path} is another cluster's"
    for path, config in belonging.kubeconfigs.items():
        cluster: Mapping[str, Any] = next(iter(config.get("clusters") or []), {})
        server = first_server(config)
        # A control plane's own controllers talk to their local API server, whatever the endpoint is.
        local = path.endswith(("controller-manager.conf", "scheduler.conf"))
        if server and endpoint and server != endpoint and not local:
            return f"{path} names the API server {server}, not {endpoint}"
        if path.endswith("admin.conf") and cluster.get("name", spec.name) != spec.name:
            return f"{path} names the cluster {cluster.get('name')!r}, not {spec.name!r}"
    if not control_plane and ca is None and (belonging.kubeconfigs or belonging.ca is not None):
        return "it has the files of a node, and the control plane named here has made no cluster yet"
    return ""


def _release(version: str) -> tuple[int, int]:
    major, _, minor = version.partition(".")
    return (int(major) if major.isdigit() else 0, int(minor) if minor.isdigit() else 0)
