"""`adopt`: a cluster.yaml for a cluster that Kubewright did not make, out of what the cluster says of itself."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from pydantic import ValidationError

from kubewright.errors import ConfigError
from kubewright.model.addons import corefile
from kubewright.model.addons_builtin import is_builtin_dns
from kubewright.model.adopt_configs import cluster_fields, kube_proxy_fields, kubelet_fields
from kubewright.model.config.cluster import API_VERSION, ClusterSpec, HostSpec, Role
from kubewright.model.config.components import KUBE_PROXY_FIELD, KUBELET_FIELD
from kubewright.model.config.endpoint import LOCAL_HOST
from kubewright.model.config.findings import FindingsError, of_validation
from kubewright.model.config.kubeadm import FIELD
from kubewright.model.config.kubeadm_types import ClusterConfiguration
from kubewright.model.config.load import parse_cluster
from kubewright.model.node import API_PORT, host_port, is_address, split_endpoint
from kubewright.model.objects import Object, to_yaml
from kubewright.model.status import CONTROL_PLANE_LABELS, internal_ip, is_plane
from kubewright.model.versions import VersionFacts, facts_for

_SSH_PORT = 22
_NOT_THE_USERS = ("kubernetes.io", "k8s.io")
"""Whose labels are Kubernetes' own, kubeadm's and cloud providers' among them."""
_OF_CONTROLLERS = ("node.kubernetes.io", "node.cloudprovider.kubernetes.io")
"""Whose taints come and go with a Node's state (Kubernetes' page of well-known labels and taints)."""
_NODE_IP = "alpha.kubernetes.io/provided-node-ip"
"""The annotation in which a kubelet repeats its `--node-ip`; not every kubelet does."""
_ADVERTISED = "kubeadm.kubernetes.io/kube-apiserver.advertise-address.endpoint"
"""kubeadm's annotation of an API server's Pod: the address and port that it advertises."""


@dataclass(frozen=True, slots=True)
class Seen:
    """What was read of a cluster. A document or object that it does not have is empty."""

    cluster: ClusterConfiguration
    """Complete, as `kubeadm-config` has it."""
    kubelet: Mapping[str, Any]
    """The KubeletConfiguration that all kubelets share."""
    kube_proxy: Mapping[str, Any]
    """The KubeProxyConfiguration."""
    has_kube_proxy: bool
    """Whether its DaemonSet is there: another program may do its work."""
    nodes: Sequence[Object]
    api_servers: Sequence[Object]
    """The API servers' Pods."""
    dns: Object
    """The Deployment `coredns`."""
    corefile: str
    """Its configuration."""
    own_network: bool
    """Whether the pod network is Kubewright's."""
    version: str
    """What the API server says that it is."""


@dataclass
class Remarks:
    """What the user should know of a file that was written for a cluster."""

    warnings: list[str] = field(default_factory=list)
    """What `apply` would change, because cluster.yaml cannot say it or Kubewright has only one way."""
    notes: list[str] = field(default_factory=list)
    """What was guessed."""


def adopt(seen: Seen, through: HostSpec, comment: str) -> tuple[str, ClusterSpec, Remarks]:
    """The text of a cluster.yaml, the same as it is read, and what is to be said of it.

    `through` is the control plane that was asked: its Node's name, how it is reached, and its kubelet's nodeIP if
    it was told one. `comment` is the text's first line. Raises `ConfigError` where the cluster is one that no
    cluster.yaml can describe.
    """
    remarks = Remarks()
    cluster = _with_port(seen.cluster)
    facts = facts_for(cluster.kubernetes_version)
    document: dict[str, Any] = {
        "apiVersion": API_VERSION,
        "kind": "Cluster",
        "name": cluster.cluster_name,
        "kubernetesVersion": cluster.kubernetes_version,
        "endpoint": _endpoint(cluster, remarks),
        "ssh": _ssh(through),
        "hosts": [_host(node, facts, through, remarks) for node in _sorted(seen.nodes)],
        "network": {
            "plugin": "builtin" if seen.own_network else "none",
            "podSubnet": cluster.networking.pod_subnet,
            "serviceSubnet": cluster.networking.service_subnet,
            "dnsDomain": cluster.networking.dns_domain,
        },
        "dns": _dns(seen, facts, remarks),
    }
    with _describable(cluster.cluster_name):
        document |= _configurations(ClusterSpec.model_validate(document), seen, cluster, remarks)
        said = {name: value for name, value in document.items() if value}
        text = f"# {comment}\n{to_yaml(said, sort_keys=False).decode()}"
        spec = parse_cluster(text, "")
    remarks.warnings += _not_sayable(seen)
    remarks.notes += _guesses(spec, through)
    return text, spec, remarks


@contextmanager
def _describable(name: str) -> Iterator[None]:
    """Say of a mistake in what was put together that the cluster itself is at the bottom of it."""
    try:
        try:
            yield
        except ValidationError as error:
            raise FindingsError(of_validation(error, ClusterSpec)) from error
    except ConfigError as error:
        raise ConfigError(
            f"no cluster.yaml can describe cluster {name}: {error.message}",
            hint=error.hint, evidence=error.evidence, exit_code=error.exit_code,
        ) from error  # fmt: skip


def _with_port(cluster: ClusterConfiguration) -> ClusterConfiguration:
    """With the endpoint's port, which kubeadm fills in where it is used, and cluster.yaml at once."""
    endpoint = cluster.control_plane_endpoint
    update = {"control_plane_endpoint": host_port(*split_endpoint(endpoint)) if endpoint else ""}
    return cluster.model_copy(update=update)


def _configurations(
    spec: ClusterSpec, seen: Seen, cluster: ClusterConfiguration, remarks: Remarks
) -> dict[str, Object]:
    """kubeadm's own kinds, as far as they say something else than follows from `spec`, which has none of them."""
    kinds = {FIELD: cluster_fields(cluster, spec)}
    if seen.kubelet:
        kubelet = kubelet_fields(seen.kubelet, cluster, spec)
        kinds[KUBELET_FIELD] = kubelet.fields
        remarks.warnings += _unsaid(KUBELET_FIELD, kubelet.unsaid)
        if kubelet.driver_guessed:
            remarks.notes.append(
                "the cluster does not say its kubelets' cgroupDriver: in the file is cgroupfs, their own default; "
                "look whether they take the runtime's"
            )
    else:
        remarks.warnings.append("the cluster keeps no configuration of its kubelets: apply gives them one")
    if seen.kube_proxy:
        proxy = kube_proxy_fields(seen.kube_proxy, cluster, spec)
        kinds[KUBE_PROXY_FIELD] = proxy.fields
        remarks.warnings += _unsaid(KUBE_PROXY_FIELD, proxy.unsaid)
    if not seen.has_kube_proxy:
        remarks.warnings.append("the cluster has no kube-proxy: apply deploys it")
    return kinds


def _unsaid(field_name: str, places: Sequence[str]) -> list[str]:
    if not places:
        return []
    return [
        f"{field_name} cannot leave out what the cluster's lacks, so that apply sets it: {', '.join(places)}"
    ]


# -- fields ------------------------------------------------------------------------------------------------------


def _endpoint(cluster: ClusterConfiguration, remarks: Remarks) -> dict[str, str] | None:
    address = cluster.control_plane_endpoint
    if not address:
        return None
    host, port = split_endpoint(address)
    if (
        host != LOCAL_HOST or port == API_PORT
    ):  # on that port a control plane has its API server, and no proxy
        return {"type": "external", "address": address}
    remarks.warnings.append(
        f"the endpoint {address} is a proxy on every node: apply puts its own there (endpoint.type: local)"
    )
    return {"type": "local", "address": address}


def _ssh(through: HostSpec) -> dict[str, Any]:
    found: dict[str, Any] = through.ssh.model_dump(by_alias=True, exclude_none=True)
    return {name: value for name, value in found.items() if (name, value) != ("port", _SSH_PORT)}


def _dns(seen: Seen, facts: VersionFacts, remarks: Remarks) -> dict[str, Any]:
    if not seen.dns:
        remarks.warnings.append("the cluster has no Deployment coredns: apply deploys cluster DNS")
        return {}
    if seen.corefile.strip() != corefile(seen.cluster.networking.dns_domain, facts).strip():
        remarks.warnings.append(
            "cluster DNS has another Corefile than kubeadm's of this version, which apply puts in its place: "
            "keep a copy of the ConfigMap kube-system/coredns"
        )
    replicas = seen.dns["spec"].get("replicas", 1)
    if replicas < 1:
        remarks.warnings.append("cluster DNS has no replicas: apply gives it one")
    return {
        "provider": "builtin" if is_builtin_dns(seen.dns) else "coredns",
        "replicas": max(replicas, 1),
    }


def _sorted(nodes: Sequence[Object]) -> list[Object]:
    """Control planes first, each kind by name."""
    return sorted(nodes, key=lambda node: (not is_plane(node), str(node["metadata"]["name"])))


def _host(node: Object, facts: VersionFacts, through: HostSpec, remarks: Remarks) -> dict[str, Any]:
    meta = node["metadata"]
    name = str(meta["name"])
    asked = name == through.name
    address = through.address if asked else internal_ip(node)
    if not address:
        remarks.warnings.append(f"Node {name} has no InternalIP: its name stands for its address")
    taints = list(_taints(node))
    roles = [Role.CONTROL_PLANE] if is_plane(node) else [Role.WORKER]
    if is_plane(node) and not any(taint["key"] in CONTROL_PLANE_LABELS for taint in taints):
        roles.append(Role.WORKER)
    host: dict[str, Any] = {"name": name, "address": address or name, "roles": [str(role) for role in roles]}
    if node_ip := (through.node_ip if asked else "") or _told(meta.get("annotations") or {}):
        host["nodeIP"] = node_ip
    labels = {key: value for key, value in (meta.get("labels") or {}).items() if _is_users(key)}
    if labels:
        host["labels"] = dict(sorted(labels.items()))
    usual = HostSpec(name=name, address=LOCAL_HOST, roles=roles).taints_or_default(facts.control_plane_taints)
    if {_identity(taint) for taint in taints} != {_identity(taint.model_dump()) for taint in usual}:
        host["taints"] = taints
    return host


def _taints(node: Object) -> Iterator[dict[str, str]]:
    """Those that somebody has given the Node, rather than a controller for its state."""
    for taint in (node.get("spec") or {}).get("taints") or ():
        if taint["key"].rpartition("/")[0] not in _OF_CONTROLLERS:
            yield {name: taint[name] for name in ("key", "value", "effect") if taint.get(name)}


def _identity(taint: Mapping[str, str]) -> tuple[str, ...]:
    return tuple(taint.get(name, "") for name in ("key", "value", "effect"))


def _told(annotations: Mapping[str, str]) -> str:
    """The IPv4 address that a kubelet was told, as far as it says so."""
    said = annotations.get(_NODE_IP, "")
    return said if is_address(said) and ":" not in said else ""


def _is_users(key: str) -> bool:
    """Whether a label is none of Kubernetes' own."""
    prefix = f".{key.rpartition('/')[0]}"
    return not any(prefix.endswith(f".{domain}") for domain in _NOT_THE_USERS)


# -- remarks -----------------------------------------------------------------------------------------------------


def _not_sayable(seen: Seen) -> Iterator[str]:
    """What of the cluster no field of cluster.yaml says."""
    wanted = _release(seen.cluster.kubernetes_version)
    if _release(seen.version) != wanted:
        yield (
            f"the API server is {seen.version}, and kubeadm-config says {wanted}: finish that upgrade before an "
            "apply, or set kubernetesVersion"
        )
    info = {
        str(node["metadata"]["name"]): (node.get("status") or {}).get("nodeInfo") or {} for node in seen.nodes
    }
    versions = {name: str(one.get("kubeletVersion", wanted)) for name, one in info.items()}
    if others := [f"{name} ({text})" for name, text in versions.items() if _release(text) != wanted]:
        yield f"kubelets of another version, which apply brings to {wanted}: {', '.join(others)}"
    runtimes = {name: str(one.get("containerRuntimeVersion", "")) for name, one in info.items()}
    if others := [
        f"{name} ({runtime})"
        for name, runtime in runtimes.items()
        if runtime and not runtime.startswith("containerd://")
    ]:
        yield (
            f"another container runtime than containerd: {', '.join(others)}; apply moves such kubelets to "
            "containerd, where all containers of the node start anew"
        )
    addresses = {str(node["metadata"]["name"]): internal_ip(node) for node in seen.nodes}
    for pod in seen.api_servers:
        name = str((pod.get("spec") or {}).get("nodeName") or "")
        said = (pod["metadata"].get("annotations") or {}).get(_ADVERTISED, "")
        if said and addresses.get(name) and said != (own := host_port(addresses[name], API_PORT)):
            yield (
                f"{name}: its API server advertises {said}, and apply makes it {own}: set nodeIP to keep the "
                "address; another port cannot be said"
            )


def _release(version: str) -> str:
    """A version without what its builder has put after it."""
    return version.partition("+")[0]


def _guesses(spec: ClusterSpec, through: HostSpec) -> Iterator[str]:
    """What the API does not tell and the file says or leaves out all the same."""
    names = [host.name for host in spec.hosts if host.name != through.name]
    if len(names) == len(spec.hosts):
        yield f"no Node is called {through.name}, as the host that was asked calls itself"
    if names:
        yield (
            f"{', '.join(names)}: that SSH leads there as it does to {through.name}, at the Node's InternalIP, is "
            "a guess, and so is the nodeIP that is not in the file (where a host has several addresses)"
        )
    if spec.network.plugin == "none":
        yield "the pod network is another's: apply leaves it alone"
