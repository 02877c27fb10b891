"""What must hold between the fields of kubeadm's kinds, in kubeadm's own words where it has a rule."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from ipaddress import IPv4Network
from urllib.parse import urlsplit

from kubewright.errors import ConfigError, ExitCode
from kubewright.model.config.findings import Finding, did_you_mean, shown
from kubewright.model.config.kubeadm_nodes import (
    BootstrapTokenSpec,
    Discovery,
    InitConfiguration,
    JoinConfiguration,
    NodeRegistrationOptions,
)
from kubewright.model.config.kubeadm_types import ClusterConfiguration, ExternalEtcd
from kubewright.model.config.yamltext import Path, render_path
from kubewright.model.node import is_address, split_endpoint
from kubewright.model.tokens import USAGES, is_token_group
from kubewright.model.versions import VersionFacts

_SERVICE_ADDRESSES = 16
"""Cluster DNS has the tenth address of the service subnet: a /28 is the smallest with room for it."""
_LARGEST_SERVICE_PREFIX = 12
"""The API server refuses a service subnet with more than 20 bits of addresses."""
_MOST_NODE_BITS = 16
"""kube-controller-manager refuses a node mask that is more than 16 bits longer than the pod subnet's."""
NODE_MASK_FLAG = "node-cidr-mask-size"
_NOT_FOLLOWED = {
    "RootlessControlPlane": "a control plane that does not run as root is not supported yet",
    "UnversionedKubeletConfigMap": "another name for the kubelet's ConfigMap than the version's own is not "
    "supported yet",
}
"""Gates of kubeadm with another effect than by default that nothing here has: refused rather than passed over."""
_HASH = re.compile(r"sha256:[0-9a-f]{64}", re.ASCII | re.IGNORECASE)


def cluster_findings(cc: ClusterConfiguration, facts: VersionFacts) -> list[Finding]:
    """What is wrong with a ClusterConfiguration, its fields taken one by one and in pairs."""
    findings = list(_etcd(cc))
    if cc.use_hyper_kube_image:
        findings.append(
            Finding(
                ("useHyperKubeImage",), "no hyperkube image exists since Kubernetes 1.19", hint="leave it out"
            )
        )
    for gate, on in cc.feature_gates.items():
        if gate not in facts.kubeadm_feature_gates:
            meant = did_you_mean(gate, facts.kubeadm_feature_gates)
            findings.append(Finding(("featureGates", gate), f"kubeadm has no such feature gate{meant}"))
        elif gate == "IPv6DualStack" and on:
            findings.append(Finding(("featureGates", gate), "dual-stack clusters are not supported yet"))
        elif gate in _NOT_FOLLOWED and on != facts.kubeadm_feature_gates[gate]:
            findings.append(Finding(("featureGates", gate), _NOT_FOLLOWED[gate], hint="leave it out"))
    for name in ("api_server", "controller_manager", "scheduler"):
        volumes = [volume.name for volume in getattr(cc, name).extra_volumes]
        field = ClusterConfiguration.model_fields[name].alias or name
        findings += [
            Finding((field, "extraVolumes", index, "name"), f"{volume!r} stands here twice")
            for index, volume in enumerate(volumes)
            if volume in volumes[:index]
        ]
    return findings


def network_findings(
    cc: ClusterConfiguration, pod_path: Path, service_path: Path, flag_path: Path, hosts: int = 0
) -> Iterator[Finding]:
    """Sizes that the API server and the controller manager would refuse, or with no room for `hosts` nodes."""
    services = IPv4Network(cc.networking.service_subnet)
    if services.num_addresses < _SERVICE_ADDRESSES:
        yield Finding(service_path, f"{services} is too small: a /28 is the least")
    if services.prefixlen < _LARGEST_SERVICE_PREFIX:
        yield Finding(service_path, f"{services} is too large: a /{_LARGEST_SERVICE_PREFIX} is the most")
    text = cc.controller_manager.extra_args.get(NODE_MASK_FLAG, "24")
    mask = int(text) if text.isdecimal() and text.isascii() and len(text) <= 3 else 0
    if not 8 <= mask <= 30:
        yield Finding(flag_path, f"{text[:64]!r} is not a prefix length from 8 to 30")
        return
    if not cc.networking.pod_subnet:
        return
    pods = IPv4Network(cc.networking.pod_subnet)
    if pods.prefixlen > mask:
        yield Finding(
            pod_path,
            f"{pods} is smaller than the /{mask} that each node gets",
            hint=f"give a larger network, or set {render_path(flag_path)}",
        )
        return
    if mask - pods.prefixlen > _MOST_NODE_BITS:
        yield Finding(
            pod_path,
            f"{pods} is too large for nodes with a /{mask}: at most 16 bits may lie between",
            hint=f"give a /{mask - _MOST_NODE_BITS} or smaller",
        )
        return
    room = 2 ** (mask - pods.prefixlen)
    if room < hosts:
        yield Finding(
            pod_path,
            f"{pods} has room for {room} nodes with a /{mask} each, and there are {hosts} hosts",
            hint=f"give a larger network, or set {render_path(flag_path)}",
        )


def subnet_findings(cc: ClusterConfiguration) -> list[Finding]:
    """`network_findings` of a ClusterConfiguration that stands alone, and whether its networks overlap."""
    pod_path, service_path = ("networking", "podSubnet"), ("networking", "serviceSubnet")
    flag_path = ("controllerManager", "extraArgs", NODE_MASK_FLAG)
    findings = list(network_findings(cc, pod_path, service_path, flag_path))
    if cc.networking.pod_subnet:
        pods, services = IPv4Network(cc.networking.pod_subnet), IPv4Network(cc.networking.service_subnet)
        if pods.overlaps(services):
            findings.append(overlap(pods, services, pod_path, service_path))
    return findings


def overlap(pods: IPv4Network, services: IPv4Network, pod_path: Path, service_path: Path) -> Finding:
    """P32: what is in the pod or service network cannot be reached from a pod."""
    return Finding(
        pod_path,
        f"{pods} overlaps {render_path(service_path)}, {services}",
        ExitCode.CONFIG_OVERLAPPING_SUBNETS,
        hint="choose two networks without a common address, such as 10.244.0.0/16 and 10.96.0.0/12",
    )


def _etcd(cc: ClusterConfiguration) -> Iterator[Finding]:
    if cc.etcd.local is not None and cc.etcd.external is not None:
        yield Finding(("etcd",), "local and external exclude each other")
    elif cc.etcd.external is not None:
        yield from _external_etcd(cc.etcd.external, ("etcd", "external"))


def _external_etcd(etcd: ExternalEtcd, path: Path) -> Iterator[Finding]:
    files = {"caFile": etcd.ca_file, "certFile": etcd.cert_file, "keyFile": etcd.key_file}
    if not etcd.endpoints:
        yield Finding((*path, "endpoints"), "must not be empty", hint="name the URLs of etcd's members")
    if bool(etcd.cert_file) != bool(etcd.key_file):
        yield Finding(path, "certFile and keyFile belong together: set both or none")
    elif etcd.cert_file and not etcd.ca_file:
        yield Finding(path, "certFile and keyFile need caFile, too")
    for name, file in files.items():
        if file and not file.startswith("/"):
            yield Finding((*path, name), f"{shown(file)} is not an absolute path")
    urls = [(("endpoints", index), url) for index, url in enumerate(etcd.endpoints)]
    urls += [(("httpEndpoints", index), url) for index, url in enumerate(etcd.http_endpoints)]
    for where, url in urls:
        place = (*path, *where)
        scheme, host = _scheme_and_host(url)
        if scheme not in ("https", "http") or not host:
            yield Finding(place, f"{shown(url)} is not a URL such as https://192.0.2.10:2379")
        elif scheme != "https" and any(files.values()) and where[0] == "endpoints":
            yield Finding(place, f"{shown(url)} must begin with https, as there are certificates")


def _scheme_and_host(url: str) -> tuple[str, str]:
    try:
        parts = urlsplit(url)
        return parts.scheme, (parts.hostname or "") if parts.port != 0 else ""
    except ValueError:  # a port that is none, too
        return "", ""


def init_findings(init: InitConfiguration) -> list[Finding]:
    """What is wrong with an InitConfiguration between its fields."""
    findings = list(_node(init.node_registration, ("nodeRegistration",)))
    for index, token in enumerate(init.bootstrap_tokens):
        findings += _bootstrap_token(token, ("bootstrapTokens", index))
    return findings


def _bootstrap_token(token: BootstrapTokenSpec, path: Path) -> Iterator[Finding]:
    if token.expires is not None and token.ttl is not None:
        yield Finding(path, "ttl and expires exclude each other", hint="say one of them")
    yield from token_findings(token.usages, token.groups, path)


def token_findings(usages: Sequence[str], groups: Sequence[str], path: Path) -> Iterator[Finding]:
    """What is wrong with a bootstrap token's usages and groups."""
    for index, usage in enumerate(usages):
        if usage not in USAGES:
            choices = " or ".join(repr(known) for known in USAGES)
            yield Finding((*path, "usages", index), f"{shown(usage)} is not {choices}")
    for index, name in enumerate(groups):
        if not is_token_group(name):
            yield Finding(
                (*path, "groups", index),
                f"{shown(name)} is not a group such as 'system:bootstrappers:workers'",
            )
    if groups and "authentication" not in usages:
        yield Finding(
            (*path, "groups"), "groups are for tokens that authenticate", hint="add the usage authentication"
        )


def _node(node: NodeRegistrationOptions, path: Path) -> Iterator[Finding]:
    yield from _socket(node.cri_socket, (*path, "criSocket"))
    taints = [(taint.key, taint.effect) for taint in node.taints or []]
    for index, taint in enumerate(taints):
        if taint in taints[:index]:
            yield Finding((*path, "taints", index), "two taints have the same key and effect")
    yield from _ignored(node.ignore_preflight_errors, (*path, "ignorePreflightErrors"))


def _socket(socket: str, path: Path) -> Iterator[Finding]:
    scheme, colon, _ = socket.partition("://")
    if colon and scheme != "unix":
        yield Finding(path, f"{shown(socket)} has the scheme {shown(scheme)}: only unix:// is supported")
    elif socket and not socket.removeprefix("unix://").startswith("/"):
        yield Finding(path, f"{shown(socket)} is not an absolute path")


def _ignored(checks: Sequence[str], path: Path) -> Iterator[Finding]:
    names = {check.lower() for check in checks}
    if "all" in names and len(names) > 1:
        yield Finding(path, "'all' stands for every check: name it alone, or name single checks")


def join_findings(join: JoinConfiguration) -> list[Finding]:
    """What is wrong with a JoinConfiguration between its fields."""
    findings = list(_node(join.node_registration, ("nodeRegistration",)))
    if not join.ca_cert_path.startswith("/") or not join.ca_cert_path.endswith(".crt"):
        findings.append(
            Finding(("caCertPath",), f"{shown(join.ca_cert_path)} is not an absolute path that ends in .crt")
        )
    return findings + list(_discovery(join.discovery))


def _discovery(discovery: Discovery) -> Iterator[Finding]:
    token, file = discovery.bootstrap_token, discovery.file
    if (token is None) == (file is None):
        problem = (
            "bootstrapToken and file exclude each other" if token else "bootstrapToken or file must be set"
        )
        yield Finding(("discovery",), problem)
    if token is not None:
        path: Path = ("discovery", "bootstrapToken")
        if not token.api_server_endpoint:
            yield Finding(path, "field 'apiServerEndpoint' is missing")
        elif not _has_port(token.api_server_endpoint):
            yield Finding(
                (*path, "apiServerEndpoint"),
                f"{shown(token.api_server_endpoint)} is not host:port, such as 192.0.2.10:6443",
            )
        if not token.ca_cert_hashes and not token.unsafe_skip_ca_verification:
            yield Finding(
                path,
                "field 'caCertHashes' is missing: without it any server could pass for the cluster",
                hint="`kubewright token create --print-join-command` on a control plane tells the hash; "
                "unsafeSkipCAVerification: true does without",
            )
        for index, text in enumerate(token.ca_cert_hashes):
            if not _HASH.fullmatch(text):
                yield Finding(
                    (*path, "caCertHashes", index), f"{shown(text)} is not sha256: and 64 hexadecimal digits"
                )
    if file is not None:
        place = ("discovery", "file", "kubeConfigPath")
        scheme, colon, _ = file.kube_config_path.partition("://")
        if not file.kube_config_path:
            yield Finding(place, "must not be empty")
        elif colon and scheme not in ("https", "file"):
            yield Finding(place, f"{shown(file.kube_config_path)}: a URL must begin with https")


def _has_port(endpoint: str) -> bool:
    """Whether it is a host with a port, as Go's net.SplitHostPort has it."""
    try:
        _, port = split_endpoint(endpoint, 0)
    except ConfigError:
        return False
    return port != 0 and not is_address(endpoint)
