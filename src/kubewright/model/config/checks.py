"""What must hold between the fields of a `cluster.yaml`: hosts, networks and sizes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from ipaddress import IPv4Network, ip_address

from kubewright.errors import ExitCode
from kubewright.model.config.cluster import ClusterSpec, HostSpec
from kubewright.model.config.endpoint_checks import endpoint_findings
from kubewright.model.config.etcd_checks import etcd_findings
from kubewright.model.config.findings import Finding
from kubewright.model.config.kubeadm import FIELD, ClusterConfiguration, where_said
from kubewright.model.config.kubeadm_checks import NODE_MASK_FLAG, network_findings, overlap
from kubewright.model.config.yamltext import Path, render_path
from kubewright.model.node import is_address, split_endpoint

_POD_SUBNET: Path = ("network", "podSubnet")
_SERVICE_SUBNET: Path = ("network", "serviceSubnet")


def findings(spec: ClusterSpec, cc: ClusterConfiguration) -> list[Finding]:
    """All mistakes between the fields of a spec; `cc` is its complete ClusterConfiguration."""
    return [
        *_roles(spec),
        *endpoint_findings(spec, cc.control_plane_endpoint),
        *etcd_findings(spec, cc),
        *_duplicates(spec),
        *_no_pods(spec, cc),
        *_sizes(spec, cc),
        *_overlaps(spec, cc),
    ]


def _roles(spec: ClusterSpec) -> Iterator[Finding]:
    for index, host in enumerate(spec.hosts):
        if len(set(host.roles)) < len(host.roles):
            yield Finding(("hosts", index, "roles"), "a role stands here twice")
        taints = [(taint.key, taint.effect) for taint in host.taints or []]
        if len(set(taints)) < len(taints):
            yield Finding(("hosts", index, "taints"), "two taints have the same key and effect")
        for field in ("labels", "taints"):
            if getattr(host, field) and not host.is_node:
                yield Finding(
                    ("hosts", index, field),
                    f"with no role but {', '.join(host.roles)} this host becomes no Node, which has {field}",
                    hint="add the role worker, or leave them out",
                )
    if not spec.control_planes:
        yield Finding(
            ("hosts",),
            "no host is a control plane",
            hint="give one host the role: `roles: [control-plane]`",
        )


def _duplicates(spec: ClusterSpec) -> Iterator[Finding]:
    def place(host: HostSpec) -> tuple[str, int, str]:
        address = str(ip_address(host.address)) if is_address(host.address) else host.address.lower()
        ssh = spec.ssh_of(host)
        # Behind two jump hosts, one private address can be two hosts.
        return ("local", 0, "") if address == "local" else (address, ssh.port or 22, ssh.jump or "")

    keys: tuple[tuple[str, Callable[[HostSpec], object]], ...] = (
        ("name", lambda host: host.name),
        ("address", place),
        ("nodeIP", lambda host: host.node_ip),
    )
    for field, key in keys:
        seen: dict[object, int] = {}
        for index, host in enumerate(spec.hosts):
            value = key(host)
            first = seen.setdefault(value, index)
            if value is not None and first != index:
                said = {"name": host.name, "address": host.address, "nodeIP": host.node_ip}[field]
                other = f"hosts[{first}]" + ("" if field == "name" else f" ({spec.hosts[first].name})")
                port = f" (port {place(host)[1]})" if field == "address" and said != "local" else ""
                yield Finding(
                    ("hosts", index, field),
                    f"{said!r}{port} is the {field} of {other}, too: each host stands here once",
                    ExitCode.CONFIG_DUPLICATE_HOST,
                )


def _networks(spec: ClusterSpec, cc: ClusterConfiguration) -> dict[Path, IPv4Network]:
    """The pod network, if there is one, and that of Services, by where they are said."""
    named = {_POD_SUBNET: cc.networking.pod_subnet, _SERVICE_SUBNET: cc.networking.service_subnet}
    return {where_said(spec, path): IPv4Network(cidr) for path, cidr in named.items() if cidr}


def _no_pods(spec: ClusterSpec, cc: ClusterConfiguration) -> Iterator[Finding]:
    if spec.network.plugin == "builtin" and not cc.networking.pod_subnet:
        yield Finding(
            _POD_SUBNET,
            "must not be empty: the plugin builtin gives pods their addresses out of it",
            hint="name a network such as 10.244.0.0/16; without one, the plugin is `none`",
        )


def _overlaps(spec: ClusterSpec, cc: ClusterConfiguration) -> Iterator[Finding]:
    """P32: what is in the pod or service network cannot be reached from a pod."""
    networks = _networks(spec, cc)
    pod_path, service_path = where_said(spec, _POD_SUBNET), where_said(spec, _SERVICE_SUBNET)
    pods, services = networks.get(pod_path), networks[service_path]
    if pods is not None and pods.overlaps(services):
        yield overlap(pods, services, pod_path, service_path)
    addresses: list[tuple[Path, str]] = []
    for index, host in enumerate(spec.hosts):
        addresses.append((("hosts", index, "address"), host.address))
        if host.node_ip and host.node_ip != host.address:
            addresses.append((("hosts", index, "nodeIP"), host.node_ip))
    if cc.control_plane_endpoint:
        addresses.append((where_said(spec, ("endpoint",)), split_endpoint(cc.control_plane_endpoint)[0]))
    for path, text in addresses:
        if not is_address(text):
            continue
        for network_path, network in networks.items():
            if ip_address(text) in network:
                yield Finding(
                    path,
                    f"{text} is inside {render_path(network_path)}, {network}",
                    ExitCode.CONFIG_OVERLAPPING_SUBNETS,
                    hint=f"choose another {render_path(network_path)}: pods could not reach this address",
                )


def _sizes(spec: ClusterSpec, cc: ClusterConfiguration) -> Iterator[Finding]:
    pod_path, service_path = where_said(spec, _POD_SUBNET), where_said(spec, _SERVICE_SUBNET)
    flag_path = (FIELD, "controllerManager", "extraArgs", NODE_MASK_FLAG)
    yield from network_findings(cc, pod_path, service_path, flag_path, len(spec.nodes))
