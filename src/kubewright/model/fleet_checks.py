"""The checks of a fleet's hosts: kubeadm's, as far as they make sense before anything is installed, and ours.

What `apply` brings itself (programs, runtime, kubelet, kernel settings, images) is not asked for. A host that is
in the cluster already is not asked what only a new one must be.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping
from dataclasses import replace

from kubewright.errors import ExitCode
from kubewright.model import hostfiles
from kubewright.model.config.cluster import ClusterSpec, HostSpec
from kubewright.model.etcd_unit import UNIT_PATH
from kubewright.model.facts import HostFacts
from kubewright.model.fleet_look import FleetLook
from kubewright.model.fleet_ports import own_ports
from kubewright.model.kernel_modules import BRIDGE, proxy_modules
from kubewright.model.kubelet import CONTAINERD_SOCKET
from kubewright.model.loadbalancer import DIRECTORY as ENDPOINT_DIRECTORY
from kubewright.model.node import is_address
from kubewright.model.node_checks import (
    IPVS_CHECK,
    check_node,
    ipvs_findings,
    name_findings,
    selinux_findings,
)
from kubewright.model.node_look import NodeLook
from kubewright.model.node_preflight import BRIDGE_FILTER, CheckFinding, NodeChecks
from kubewright.model.preflight import Belonging, Finding, Fix
from kubewright.model.versions import VersionFacts

IPVS_FIELD = "kubeProxyConfiguration.mode"
"""Where cluster.yaml asks for IPVS."""
MARKS = (UNIT_PATH, ENDPOINT_DIRECTORY)
"""What shows that a host which is no Node is in the cluster: a member of etcd, a proxy of the endpoint."""
SETTINGS = tuple(hostfiles.sysctl_path(name) for name in hostfiles.SYSCTLS)


def is_new(belonging: Belonging, look: NodeLook) -> bool:
    """Whether nothing on a host belongs to a cluster yet."""
    return not belonging.kubeconfigs and not belonging.manifests and not look.existing.intersection(MARKS)


def node_checks(spec: ClusterSpec, host: HostSpec, facts: VersionFacts) -> NodeChecks:
    """What is asked of a new host by kubeadm's names. (`check_host` has its size, and swap.)"""
    ports = tuple(own_ports(spec, host))
    ipvs = wanted_modules(spec)
    return NodeChecks(
        "apply", host.name, system=host.is_node, facts=facts, ports=ports, absent_files=MARKS,
        modules=BRIDGE | ipvs, ipvs=tuple(ipvs),
    )  # fmt: skip


def check_new_host(
    spec: ClusterSpec,
    host: HostSpec,
    facts: HostFacts,
    version: VersionFacts,
    look: NodeLook,
    seen: FleetLook,
) -> list[Finding]:
    """What is wrong with a host on which nothing is installed yet."""
    checks = node_checks(spec, host, version)
    found = [
        one
        for one in check_node(checks, facts, look)
        if one.check.startswith("Port-") or (one.check == "SystemVerification" and one.error)
    ]
    if not host.is_node:
        return [_of(host, one) for one in found]
    found += name_findings(host.name, look)
    return [
        *(_of(host, one) for one in found),
        *_selinux(host, look),
        *(_of(host, one) for one in ipvs_findings(checks.ipvs, look, field=IPVS_FIELD)),
        *_runtimes(host, seen),
        *_bridge(host, look, seen, version),
        *_address(host, facts),
    ]


def _of(host: HostSpec, one: CheckFinding) -> Finding:
    return Finding(host.name, one.message, one.hint, check=one.check, error=one.error, evidence=one.details)


def _selinux(host: HostSpec, look: NodeLook) -> Iterator[Finding]:
    """As `init` has it, and who mends it."""
    for one in selinux_findings(look):
        hint = f"{one.hint}; `kubewright preflight --fix` does both"
        yield replace(_of(host, one), hint=hint, fix=Fix.SELINUX)


def wanted_modules(spec: ClusterSpec) -> dict[str, str]:
    """The modules that IPVS needs, with its scheduler's; none where it is not asked for."""
    return proxy_modules(spec.kube_proxy_configuration)


def _runtimes(host: HostSpec, seen: FleetLook) -> Iterator[Finding]:
    others = [path for path in seen.sockets if path != CONTAINERD_SOCKET]
    if others:
        yield Finding(
            host.name, f"has another container runtime (P47): {', '.join(others)}",
            f"the cluster uses containerd, at {CONTAINERD_SOCKET}; stop the other one if nobody needs it",
            check="CRI", error=False,
        )  # fmt: skip


def _bridge(host: HostSpec, look: NodeLook, seen: FleetLook, version: VersionFacts) -> Iterator[Finding]:
    if (
        version.bridge_filter_checked
        and not seen.settings.get(BRIDGE_FILTER)
        and "br_netfilter" not in look.modules
    ):
        yield Finding(
            host.name, f"{BRIDGE_FILTER} does not exist, and the kernel has no module br_netfilter (P46)",
            "use your distribution's own kernel, or install its modules",
            check=f"FileContent-{BRIDGE_FILTER.replace('/', '-')}",
        )  # fmt: skip


def _address(host: HostSpec, facts: HostFacts) -> Iterator[Finding]:
    """P08: whoever reaches a host by one of its addresses may not mean the one of its default route."""
    named = host.address if is_address(host.address) else ""
    if not host.node_ip and named in facts.addresses and facts.default_address not in ("", named):
        yield Finding(
            host.name,
            f"it is reached at {named}, and its node will have {facts.default_address}, the address of its "
            "default route (P08)",
            f"say which one is meant: nodeIP: {named}, or nodeIP: {facts.default_address}",
            check="AdvertiseAddress", error=False,
        )  # fmt: skip


def check_settings(spec: ClusterSpec, host: HostSpec, look: NodeLook, seen: FleetLook) -> Iterator[Finding]:
    """Kernel settings (P46) and IPVS' modules (P17) that are not what a node needs. `apply` makes them so: no
    reason to refuse."""
    if not host.is_node:
        return
    if missing := [name for name in wanted_modules(spec) if look.modules.get(name) == "module"]:
        yield Finding(
            host.name, f"{IPVS_FIELD} is ipvs, and nobody has loaded {', '.join(missing)} (P17)",
            "`apply` loads them; `kubewright preflight --fix` does so now", check=IPVS_CHECK, error=False,
            fix=Fix.KERNEL,
        )  # fmt: skip
    for name, value in hostfiles.SYSCTLS.items():
        path = hostfiles.sysctl_path(name)
        if (live := seen.settings.get(path, "")) != value:
            yield Finding(
                host.name, f"{path} is {live}, not {value} (P46)" if live else f"{path} does not exist (P46)",
                "`apply` sets it; `kubewright preflight --fix` does so now",
                check=f"FileContent-{path.replace('/', '-')}", error=False, fix=Fix.KERNEL,
            )  # fmt: skip


def check_between(
    hostnames: Mapping[str, str], addresses: Mapping[str, str], new: Collection[str]
) -> list[Finding]:
    """What is wrong between hosts: one address of several nodes, and one hostname of several hosts.

    `hostnames` and `addresses` are by the hosts' names in cluster.yaml. A hostname is only warned of, where a host
    is new: nodes go by the names of cluster.yaml.
    """
    findings = []
    for address, names in _repeated(addresses):
        findings += [
            Finding(
                name, f"its node has the address {address}, as {names[0]} has (P08)",
                "set nodeIP of both to the address by which other hosts reach them",
                ExitCode.CONFIG_DUPLICATE_HOST, "NodeAddress",
            )
            for name in names[1:]
        ]  # fmt: skip
    for hostname, names in _repeated(hostnames):
        findings += [
            Finding(
                name, f"its hostname is {hostname}, as that of {names[0]} is (P43)",
                f"hostnamectl set-hostname {name}", check="UniqueHostname", error=False,
            )
            for name in names[1:]
            if {name, names[0]} & {*new}
        ]  # fmt: skip
    return findings


def _repeated(values: Mapping[str, str]) -> Iterator[tuple[str, list[str]]]:
    """The values that several have, and who."""
    names: dict[str, list[str]] = defaultdict(list)
    for name, value in values.items():
        if value:
            names[value].append(name)
    return ((value, found) for value, found in names.items() if len(found) > 1)
