"""Diagnoses of services, and of the way to the API through the endpoint (P11, P30, P31)."""

from __future__ import annotations

from collections.abc import Iterator

from kubewright.errors import ConfigError
from kubewright.model import kubeconfig
from kubewright.model.doctor.facts import DoctorFacts
from kubewright.model.doctor.finding import Finding, Severity
from kubewright.model.doctor.kubelet import endpoint_of, where
from kubewright.model.loadbalancer import unit_of
from kubewright.model.objects import SYSTEM, read_mapping

_MAP = f"ConfigMap {SYSTEM}/kube-proxy"
_RESTART = f"kubectl -n {SYSTEM} rollout restart daemonset kube-proxy"


def proxy_server(facts: DoctorFacts) -> Iterator[Finding]:
    """A kube-proxy that asks one API server, although the cluster has an endpoint (P30)."""
    wanted = endpoint_of(facts)
    document = read_mapping(facts.config_map("kube-proxy").get("kubeconfig.conf", ""))
    if not wanted or document is None:
        return
    try:
        url = str(kubeconfig.current(document)[0].get("server") or "").rstrip("/")
    except (ConfigError, KeyError, TypeError, AttributeError):
        return
    if url and where(url) != wanted:
        one = next((one for one in facts.status.servers if one.url.rstrip("/") == url), None)
        lost = one is not None and not one.answers
        yield Finding(
            "proxy-server",
            Severity.ERROR if lost else Severity.WARNING,
            "kube-proxy asks one API server, and not the cluster's endpoint",
            pitfall="P30",
            evidence=(f"{_MAP}: server: {url}", f"the endpoint is {wanted}"),
            breaks="no node follows a change of services while that server is away",
            mend=(f"kubectl -n {SYSTEM} edit configmap kube-proxy: server: https://{wanted}", _RESTART),
        )


def cluster_cidr(facts: DoctorFacts) -> Iterator[Finding]:
    """A kube-proxy that does not know the pod network, in a cluster that has one (P11)."""
    document = read_mapping(facts.config_map("kube-proxy").get("config.conf", ""))
    objects = facts.asked.objects
    if document is None or objects is None:
        return
    cidrs = [str((node.get("spec") or {}).get("podCIDR") or "") for node in objects.nodes]
    by_cidr = (document.get("detectLocalMode") or "ClusterCIDR") == "ClusterCIDR"
    if by_cidr and not document.get("clusterCIDR") and any(cidrs):
        yield Finding(
            "proxy-no-cidr",
            Severity.WARNING,
            "kube-proxy does not know the pod network",
            pitfall="P11",
            evidence=(f"{_MAP}: clusterCIDR is empty", f"a node's podCIDR is {next(filter(None, cidrs))}"),
            breaks="traffic that comes to a service from outside of the pod network may get no answer",
            mend=(
                f"kubectl -n {SYSTEM} edit configmap kube-proxy: clusterCIDR as podSubnet in kubeadm-config",
                _RESTART,
            ),
        )


def endpoint(facts: DoctorFacts) -> Iterator[Finding]:
    """An endpoint that does not answer, although an API server does (P30, P31)."""
    wanted = endpoint_of(facts)
    ready = [one for one in facts.status.servers if one.ready]
    if not ready and (facts.whole or facts.status.servers):
        return  # it is the servers that are away
    for one in facts.status.endpoint:
        if one.ready or (wanted and where(one.url) != wanted) or one.answers:
            continue
        yield Finding(
            "endpoint-silent",
            Severity.ERROR,
            "the API's endpoint does not answer, although an API server does"
            if ready
            else "the API does not answer from this node",
            hosts=(one.name,) if facts.node(one.name) else (),
            pitfall="P31",
            evidence=(
                f"{one.url} from {one.name}: {one.detail}",
                *(f"{server.url} is ready" for server in ready[:1]),
            ),
            breaks="kubelets, kube-proxy and kubectl, all of which use the endpoint",
            mend=("look at the load balancer, the virtual IP, and the firewall between the host and them",),
        )


def balancers(facts: DoctorFacts) -> Iterator[Finding]:
    """Load balancers of the endpoint that do not run, or that check nothing."""
    for one in facts.status.proxies:
        if one.runs and not one.problem:
            continue
        yield Finding(
            "balancer-down",
            Severity.ERROR,
            f"the endpoint's {one.kind} does not do its work",
            hosts=(one.host,),
            pitfall="P31",
            evidence=(f"{one.kind}: {one.problem or 'does not run'}",),
            breaks="the API is reached through the others alone, where there are any",
            mend=(f"systemctl restart {unit_of(one.kind)}", f"journalctl -u {unit_of(one.kind)} -n 50"),
        )


DIAGNOSES = (balancers, endpoint, proxy_server, cluster_cidr)
