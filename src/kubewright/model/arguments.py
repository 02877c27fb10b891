"""The arguments of a control plane's programs, as kubeadm sets them, with the user's own last."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from kubewright.model.extra_args import ExtraArgs, merged
from kubewright.model.kubeconfig import CONTROLLER_MANAGER, KUBERNETES_DIR, SCHEDULER
from kubewright.model.node import ControlPlaneNode, host_port
from kubewright.model.versions import VersionFacts

if TYPE_CHECKING:
    from kubewright.model.config.kubeadm import ClusterConfiguration

ETCD_CLIENT_PORT = 2379
ETCD_PEER_PORT = 2380
ETCD_METRICS_PORT = 2381

Arguments: TypeAlias = list[tuple[str, str]]
"""A program's flags in the order of its command line; one can stand twice."""

_AUTHORIZATION_MODES = frozenset({"Node", "RBAC", "Webhook", "ABAC", "AlwaysAllow", "AlwaysDeny"})


@dataclass(frozen=True, slots=True)
class EtcdMember:
    """A member of a stacked etcd cluster, by its node's name."""

    name: str
    peer_url: str


def api_server_args(cluster: ClusterConfiguration, node: ControlPlaneNode, facts: VersionFacts) -> Arguments:
    """The arguments of kube-apiserver."""
    certs = cluster.certificates_dir
    args = {
        "advertise-address": node.advertise_address,
        "allow-privileged": "true",
        "client-ca-file": f"{certs}/ca.crt",
        "enable-admission-plugins": "NodeRestriction",
        "enable-bootstrap-token-auth": "true",
        "kubelet-client-certificate": f"{certs}/apiserver-kubelet-client.crt",
        "kubelet-client-key": f"{certs}/apiserver-kubelet-client.key",
        "kubelet-preferred-address-types": "InternalIP,ExternalIP,Hostname",
        "proxy-client-cert-file": f"{certs}/front-proxy-client.crt",
        "proxy-client-key-file": f"{certs}/front-proxy-client.key",
        "requestheader-allowed-names": "front-proxy-client",
        "requestheader-client-ca-file": f"{certs}/front-proxy-ca.crt",
        "requestheader-extra-headers-prefix": "X-Remote-Extra-",
        "requestheader-group-headers": "X-Remote-Group",
        "requestheader-username-headers": "X-Remote-User",
        "secure-port": str(node.bind_port),
        "service-account-issuer": f"https://kubernetes.default.svc.{cluster.networking.dns_domain}",
        "service-account-key-file": f"{certs}/sa.pub",
        "service-account-signing-key-file": f"{certs}/sa.key",
        "service-cluster-ip-range": cluster.networking.service_subnet,
        "tls-cert-file": f"{certs}/apiserver.crt",
        "tls-private-key-file": f"{certs}/apiserver.key",
    }
    if facts.api_server_insecure_port_flag:
        args["insecure-port"] = "0"
    args |= _etcd_client_args(cluster, node) | _feature_gates(cluster, facts)
    extra = cluster.api_server.extra_args
    if facts.authorization_mode_stored:
        extra = with_authorization_mode(extra)
    elif not (facts.authorization_config and "authorization-config" in extra):
        args["authorization-mode"] = authorization_mode(extra.get("authorization-mode"))
    return _merged(args, extra, facts)


def with_authorization_mode(extra: ExtraArgs) -> ExtraArgs:
    """The user's arguments of kube-apiserver with the authorization mode, which kubeadm checks and adds there."""
    return extra.with_flag("authorization-mode", authorization_mode(extra.get("authorization-mode")))


def authorization_mode(asked: str) -> str:
    """The authorization modes: those asked for that exist, else Node and RBAC."""
    modes = [mode for mode in asked.split(",") if mode in _AUTHORIZATION_MODES]
    return ",".join(modes or ["Node", "RBAC"])


def controller_manager_args(
    cluster: ClusterConfiguration, facts: VersionFacts, *, external_ca: bool = False
) -> Arguments:
    """The arguments of kube-controller-manager."""
    certs, kubeconfig = cluster.certificates_dir, f"{KUBERNETES_DIR}/{CONTROLLER_MANAGER}"
    args = {
        "authentication-kubeconfig": kubeconfig,
        "authorization-kubeconfig": kubeconfig,
        "bind-address": "127.0.0.1",
        "client-ca-file": f"{certs}/ca.crt",
        "cluster-signing-cert-file": "" if external_ca else f"{certs}/ca.crt",
        "cluster-signing-key-file": "" if external_ca else f"{certs}/ca.key",
        "controllers": "*,bootstrapsigner,tokencleaner",
        "kubeconfig": kubeconfig,
        "leader-elect": "true",
        "requestheader-client-ca-file": f"{certs}/front-proxy-ca.crt",
        "root-ca-file": f"{certs}/ca.crt",
        "service-account-private-key-file": f"{certs}/sa.key",
        "use-service-account-credentials": "true",
    }
    if facts.insecure_port_flags:
        args["port"] = "0"
    if cluster.networking.pod_subnet:
        args["allocate-node-cidrs"] = "true"
        args["cluster-cidr"] = cluster.networking.pod_subnet
        args["service-cluster-ip-range"] = cluster.networking.service_subnet
    if cluster.cluster_name:
        args["cluster-name"] = cluster.cluster_name
    return _merged(args | _feature_gates(cluster, facts), cluster.controller_manager.extra_args, facts)


def scheduler_args(cluster: ClusterConfiguration, facts: VersionFacts) -> Arguments:
    """The arguments of kube-scheduler."""
    kubeconfig = f"{KUBERNETES_DIR}/{SCHEDULER}"
    args = {
        "authentication-kubeconfig": kubeconfig,
        "authorization-kubeconfig": kubeconfig,
        "bind-address": "127.0.0.1",
        "kubeconfig": kubeconfig,
        "leader-elect": "true",
    }
    if facts.insecure_port_flags:
        args["port"] = "0"
    return _merged(args | _feature_gates(cluster, facts), cluster.scheduler.extra_args, facts)


def etcd_args(
    cluster: ClusterConfiguration,
    node: ControlPlaneNode,
    facts: VersionFacts,
    members: Sequence[EtcdMember] = (),
    state: str = "existing",
) -> Arguments:
    """The arguments of a stacked etcd member. With `members`, itself among them, it joins an existing cluster, or
    starts a new one with them where `state` is `new`; an empty `state` is not said."""
    certs, local = f"{cluster.certificates_dir}/etcd", cluster.etcd.local
    client, peer = client_url(node.advertise_address), peer_url(node.advertise_address)
    args = {
        "advertise-client-urls": client,
        "cert-file": f"{certs}/server.crt",
        "client-cert-auth": "true",
        "data-dir": local.data_dir if local else "/var/lib/etcd",
        "initial-advertise-peer-urls": peer,
        "initial-cluster": f"{node.name}={peer}",
        "key-file": f"{certs}/server.key",
        "listen-client-urls": f"{client_url(node.loopback)},{client}",
        "listen-metrics-urls": f"http://{host_port(node.loopback, ETCD_METRICS_PORT)}",
        "listen-peer-urls": peer,
        "name": node.name,
        "peer-cert-file": f"{certs}/peer.crt",
        "peer-client-cert-auth": "true",
        "peer-key-file": f"{certs}/peer.key",
        "peer-trusted-ca-file": f"{certs}/ca.crt",
        "snapshot-count": "10000",
        "trusted-ca-file": f"{certs}/ca.crt",
        **facts.etcd_arguments((local.image_tag if local else "") or facts.etcd_tag),
    }
    if members:
        args["initial-cluster"] = ",".join(f"{member.name}={member.peer_url}" for member in members)
        if state:
            args["initial-cluster-state"] = state
    return _merged(args, local.extra_args if local else ExtraArgs(), facts)


def client_url(address: str) -> str:
    """Where an etcd member serves clients."""
    return f"https://{host_port(address, ETCD_CLIENT_PORT)}"


def peer_url(address: str) -> str:
    """Where an etcd member serves its peers."""
    return f"https://{host_port(address, ETCD_PEER_PORT)}"


def _merged(defaults: Mapping[str, str], extra: ExtraArgs, facts: VersionFacts) -> Arguments:
    return merged(defaults, extra, last=facts.extra_args_last)


def _feature_gates(cluster: ClusterConfiguration, facts: VersionFacts) -> dict[str, str]:
    dual = cluster.feature_gates.get("IPv6DualStack") if facts.dual_stack_flags else None
    return {} if dual is None else {"feature-gates": f"IPv6DualStack={str(dual).lower()}"}


def _etcd_client_args(cluster: ClusterConfiguration, node: ControlPlaneNode) -> dict[str, str]:
    external = cluster.etcd.external
    if external is None:
        certs = cluster.certificates_dir
        local = cluster.etcd.local.extra_args if cluster.etcd.local else ExtraArgs()
        return {
            "etcd-servers": local.get("advertise-client-urls", client_url(node.loopback)),
            "etcd-cafile": f"{certs}/etcd/ca.crt",
            "etcd-certfile": f"{certs}/apiserver-etcd-client.crt",
            "etcd-keyfile": f"{certs}/apiserver-etcd-client.key",
        }
    args = {"etcd-servers": ",".join(external.endpoints)}
    if external.ca_file:
        args["etcd-cafile"] = external.ca_file
    if external.cert_file and external.key_file:
        args |= {"etcd-certfile": external.cert_file, "etcd-keyfile": external.key_file}
    return args
