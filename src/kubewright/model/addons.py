"""kube-proxy and cluster DNS, the add-ons of every cluster, as kubeadm deploys them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from kubewright.model.node import nth_address
from kubewright.model.objects import SYSTEM, Object, config_map, metadata, service_account, to_yaml
from kubewright.model.rbac import (
    account,
    cluster_role,
    cluster_role_binding,
    config_map_readers,
    group,
    rule,
)
from kubewright.model.stored import signature
from kubewright.model.tokens import BOOTSTRAPPERS
from kubewright.model.versions import VersionFacts

KUBE_PROXY = "kube-proxy"
COREDNS = "coredns"
DNS_SERVICE = "kube-dns"
DNS_LABELS = {"k8s-app": "kube-dns"}

_PROXY_DIR = "/var/lib/kube-proxy"
_SERVICE_ACCOUNT_DIR = "/var/run/secrets/kubernetes.io/serviceaccount"
_ON_LINUX = {"kubernetes.io/os": "linux"}
_CRITICAL = {"key": "CriticalAddonsOnly", "operator": "Exists"}


def kube_proxy(
    configuration: Mapping[str, Any],
    server: str,
    image: str,
    facts: VersionFacts,
    *,
    by_user: bool = False,
    proxy_env: Mapping[str, str] | None = None,
) -> list[Object]:
    """kube-proxy on every node, those of the control plane too (P12).

    `server` is the endpoint's URL (P30). `by_user` says that the user wrote some of `configuration`, which
    then carries no signature.
    """
    data = {
        "config.conf": to_yaml(configuration).decode(),
        "kubeconfig.conf": to_yaml(_proxy_kubeconfig(server)).decode(),
    }
    return [
        service_account(KUBE_PROXY),
        config_map(
            KUBE_PROXY, SYSTEM, data, labels={"app": KUBE_PROXY},
            annotations=None if by_user else signature(data),
        ),
        cluster_role_binding("kubeadm:node-proxier", account(KUBE_PROXY), role_name="system:node-proxier"),
        *config_map_readers(KUBE_PROXY, SYSTEM, KUBE_PROXY, group(BOOTSTRAPPERS)),
        _proxy_daemon_set(image, facts, proxy_env or {}),
    ]  # fmt: skip


def coredns(
    image: str, domain: str, service_subnet: str, facts: VersionFacts, *, replicas: int = 2
) -> list[Object]:
    """CoreDNS behind the Service `kube-dns`, its replicas on different nodes where there are enough (P05)."""
    own = image.endswith(f":{facts.coredns_tag}")
    return [
        *dns_accounts(facts, endpoint_slices=facts.dns_reads_endpoint_slices or not own),
        config_map(COREDNS, SYSTEM, {"Corefile": corefile(domain, facts)}),
        dns_deployment(
            _coredns_container(image, facts),
            facts,
            replicas=replicas,
            volumes=[
                {
                    "name": "config-volume",
                    "configMap": {"name": COREDNS, "items": [{"key": "Corefile", "path": "Corefile"}]},
                }
            ],
        ),
        dns_service(service_subnet, facts),
    ]


def dns_accounts(facts: VersionFacts, *, endpoint_slices: bool = True) -> list[Object]:
    """The ServiceAccount of cluster DNS, whichever server it is, and what it may see.

    Without `endpoint_slices` it may not see those: the CoreDNS of the oldest versions does without.
    """
    rules = [rule(["list", "watch"], ["endpoints", "services", "pods", "namespaces"])]
    if facts.dns_reads_nodes:
        rules.append(rule(["get"], ["nodes"]))
    if endpoint_slices:
        rules.append(rule(["list", "watch"], ["endpointslices"], api_groups=["discovery.k8s.io"]))
    return [
        service_account(COREDNS),
        cluster_role("system:coredns", *rules),
        cluster_role_binding("system:coredns", account(COREDNS)),
    ]


def dns_service(service_subnet: str, facts: VersionFacts) -> Object:
    """The Service of cluster DNS, at the tenth address of the service subnet, where kubelets expect it."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": metadata(
            DNS_SERVICE,
            SYSTEM,
            labels={
                **DNS_LABELS,
                "kubernetes.io/cluster-service": "true",
                "kubernetes.io/name": facts.dns_service_name,
            },
            annotations={"prometheus.io/port": "9153", "prometheus.io/scrape": "true"},
        ),
        "spec": {
            "clusterIP": nth_address(service_subnet, 10),
            "selector": dict(DNS_LABELS),
            "ports": [
                {"name": "dns", "port": 53, "protocol": "UDP", "targetPort": 53},
                {"name": "dns-tcp", "port": 53, "protocol": "TCP", "targetPort": 53},
                {"name": "metrics", "port": 9153, "protocol": "TCP", "targetPort": 9153},
            ],
        },
    }


def dns_deployment(
    container: Object, facts: VersionFacts, *, replicas: int, volumes: Sequence[Object] = ()
) -> Object:
    """The Deployment of cluster DNS around its one container.

    It may run on control planes, so that DNS works before the first worker joins. Replicas prefer nodes of
    their own, and a node that leaves takes at most one of them with it (P04, P05).
    """
    spec: Object = {
        "priorityClassName": "system-cluster-critical",
        "serviceAccountName": COREDNS,
        "dnsPolicy": "Default",
        "nodeSelector": dict(_ON_LINUX),
        "tolerations": [
            dict(_CRITICAL),
            *({"key": key, "effect": "NoSchedule"} for key in facts.control_plane_taints_tolerated),
        ],
        "affinity": {"podAntiAffinity": _apart(DNS_LABELS)},
        "containers": [container],
    }
    if volumes:
        spec["volumes"] = list(volumes)
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": metadata(COREDNS, SYSTEM, labels=DNS_LABELS),
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": dict(DNS_LABELS)},
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 1}},
            "template": {"metadata": {"labels": dict(DNS_LABELS)}, "spec": spec},
        },
    }


def dns_container_base(name: str, image: str, facts: VersionFacts) -> Object:
    """What every DNS server's container has: ports, probes, and no more rights than port 53 needs."""
    ports = [
        {"name": "dns", "containerPort": 53, "protocol": "UDP"},
        {"name": "dns-tcp", "containerPort": 53, "protocol": "TCP"},
        {"name": "metrics", "containerPort": 9153, "protocol": "TCP"},
    ]
    live: int | str = 8080
    ready: int | str = 8181
    if facts.dns_named_probe_ports:
        names = {"liveness-probe": live, "readiness-probe": ready}
        ports += [{"name": key, "containerPort": port, "protocol": "TCP"} for key, port in names.items()]
        live, ready = names
    return {
        "name": name,
        "image": image,
        "imagePullPolicy": "IfNotPresent",
        "ports": ports,
        "livenessProbe": {
            "httpGet": {"path": "/health", "port": live, "scheme": "HTTP"},
            "initialDelaySeconds": 60,
            "timeoutSeconds": 5,
            "successThreshold": 1,
            "failureThreshold": 5,
        },
        "readinessProbe": {"httpGet": {"path": "/ready", "port": ready, "scheme": "HTTP"}},
        "resources": {"limits": {"memory": "170Mi"}, "requests": {"cpu": "100m", "memory": "70Mi"}},
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "capabilities": {"add": ["NET_BIND_SERVICE"], "drop": [facts.dns_drops]},
            "readOnlyRootFilesystem": True,
        },
    }


def corefile(domain: str, facts: VersionFacts) -> str:
    """CoreDNS' configuration: the cluster's names, and all others from the node's own resolver."""
    kubernetes = _block(
        f"kubernetes {domain} in-addr.arpa ip6.arpa",
        ["pods insecure", "fallthrough in-addr.arpa ip6.arpa", "ttl 30"],
        indent=3,
    )
    cache = ["cache 30"]
    if not facts.dns_caches_cluster:
        cache = _block("cache 30", [f"disable success {domain}", f"disable denial {domain}"], indent=3)
    plugins = [
        "errors",
        *_block("health", ["lameduck 5s"], indent=3),
        "ready",
        *kubernetes,
        "prometheus :9153",
        *_block("forward . /etc/resolv.conf", ["max_concurrent 1000"], indent=3),
        *cache,
        "loop",
        "reload",
        "loadbalance",
    ]
    return "\n".join(_block(".:53", plugins, indent=4)) + "\n"


def _block(head: str, lines: Sequence[str], *, indent: int) -> list[str]:
    return [f"{head} {{", *(" " * indent + line for line in lines), "}"]


def _coredns_container(image: str, facts: VersionFacts) -> Object:
    return dns_container_base("coredns", image, facts) | {
        "args": ["-conf", "/etc/coredns/Corefile"],
        "volumeMounts": [{"name": "config-volume", "mountPath": "/etc/coredns", "readOnly": True}],
    }


def _apart(labels: Mapping[str, str]) -> Object:
    """Pods of these labels on one node only where there is no other; in kubeadm's words, where it has some."""
    selector = [{"key": key, "operator": "In", "values": [value]} for key, value in labels.items()]
    term = {"labelSelector": {"matchExpressions": selector}, "topologyKey": "kubernetes.io/hostname"}
    return {"preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 100, "podAffinityTerm": term}]}


def _proxy_kubeconfig(server: str) -> Object:
    cluster = {"certificate-authority": f"{_SERVICE_ACCOUNT_DIR}/ca.crt", "server": server}
    context = {"cluster": "default", "namespace": "default", "user": "default"}
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "default", "cluster": cluster}],
        "contexts": [{"name": "default", "context": context}],
        "current-context": "default",
        "users": [{"name": "default", "user": {"tokenFile": f"{_SERVICE_ACCOUNT_DIR}/token"}}],
    }


def _proxy_daemon_set(image: str, facts: VersionFacts, env: Mapping[str, str]) -> Object:
    labels = {"k8s-app": KUBE_PROXY}
    container: Object = {
        "name": KUBE_PROXY,
        "image": image,
        "imagePullPolicy": "IfNotPresent",
        "command": [
            "/usr/local/bin/kube-proxy",
            f"--config={_PROXY_DIR}/config.conf",
            "--hostname-override=$(NODE_NAME)",
        ],
        "securityContext": {"privileged": True},
        "env": [
            {"name": "NODE_NAME", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}},
            *({"name": name, "value": env[name]} for name in sorted(env)),
        ],
        "volumeMounts": [
            {"name": KUBE_PROXY, "mountPath": _PROXY_DIR},
            {"name": "xtables-lock", "mountPath": "/run/xtables.lock"},
            {"name": "lib-modules", "mountPath": "/lib/modules", "readOnly": True},
        ],
    }
    return {
        "apiVersion": "apps/v1",
        "kind": "DaemonSet",
        "metadata": metadata(KUBE_PROXY, SYSTEM, labels=labels),
        "spec": {
            "selector": {"matchLabels": labels},
            "updateStrategy": {"type": "RollingUpdate"},
            "template": {
                "metadata": {"labels": labels},
                "spec": {
                    "priorityClassName": "system-node-critical",
                    "hostNetwork": True,
                    "serviceAccountName": KUBE_PROXY,
                    "nodeSelector": dict(_ON_LINUX),
                    "tolerations": [
                        *([dict(_CRITICAL)] if facts.kube_proxy_tolerates_critical else []),
                        {"operator": "Exists"},
                    ],
                    "containers": [container],
                    "volumes": [
                        {"name": KUBE_PROXY, "configMap": {"name": KUBE_PROXY}},
                        {
                            "name": "xtables-lock",
                            "hostPath": {"path": "/run/xtables.lock", "type": "FileOrCreate"},
                        },
                        {"name": "lib-modules", "hostPath": {"path": "/lib/modules"}},
                    ],
                },
            },
        },
    }
