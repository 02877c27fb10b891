"""What Kubewright brings itself: the pod network's DaemonSet, and a DNS server in CoreDNS' place."""

from __future__ import annotations

from kubewright.model.addons import (
    COREDNS,
    corefile,
    dns_accounts,
    dns_container_base,
    dns_deployment,
    dns_service,
)
from kubewright.model.objects import SYSTEM, Object, config_map, metadata, service_account
from kubewright.model.rbac import account, cluster_role, cluster_role_binding, rule
from kubewright.model.versions import VersionFacts

NETWORK = "kubewright-network"
NETWORK_HEALTH_PORT = 9879
"""On the node's loopback address; no component of Kubernetes listens there."""

_NOTE = "kubewright.dev/note"
_RUN_AS = ["python3", "-m"]
_DNS = "kubewright.dns.server"


def builtin_dns(
    image: str, domain: str, service_subnet: str, facts: VersionFacts, *, replicas: int = 2
) -> list[Object]:
    """The built-in DNS server under the names, labels, Service and address that CoreDNS would have.

    The Corefile says what it does. It does not read it: `kubeadm upgrade plan` does, and stops without one.
    """
    # CoreDNS' container, not one of another name, and all of its `args`: server-side apply would leave what
    # `kubeadm init phase addon coredns` wrote beside it.
    container = dns_container_base("coredns", image, facts)
    program, *arguments = _RUN_AS
    container["command"] = [program]
    container["args"] = [
        *arguments, _DNS, "--domain", domain, "--listen", "0.0.0.0:53",
    ]  # fmt: skip
    # Kubernetes' own default of 10 s would add up to 10 s to each start of a cluster.
    container["readinessProbe"] |= {"periodSeconds": 2, "failureThreshold": 3}
    return [
        *dns_accounts(facts),
        config_map(
            COREDNS, SYSTEM, {"Corefile": corefile(domain, facts)},
            annotations={_NOTE: "the built-in DNS server does as this says, and does not read it"},
        ),
        dns_deployment(container, facts, replicas=replicas),
        dns_service(service_subnet, facts),
    ]  # fmt: skip


def is_builtin_dns(deployment: Object) -> bool:
    """Whether a cluster's Deployment `coredns` runs the built-in DNS server."""
    containers = deployment["spec"]["template"]["spec"].get("containers") or ()
    return any(_DNS in (container.get("args") or ()) for container in containers)


def network_agent(image: str, pod_subnet: str, api_server: str) -> list[Object]:
    """The pod network's program on every node.

    It uses the endpoint's URL `api_server`, not the Service's address, so that it needs no kube-proxy (P30),
    and runs wherever a kubelet does: before the node is ready, and under every taint (P12).
    """
    return [
        service_account(NETWORK),
        cluster_role(
            NETWORK,
            rule(["get", "list", "watch"], ["nodes"]),
            rule(["patch"], ["nodes/status"]),
        ),
        cluster_role_binding(NETWORK, account(NETWORK)),
        _network_daemon_set(image, pod_subnet, api_server),
    ]


def _network_daemon_set(image: str, pod_subnet: str, api_server: str) -> Object:
    labels = {"k8s-app": NETWORK}
    container: Object = {
        "name": "network",
        "image": image,
        "imagePullPolicy": "IfNotPresent",
        "command": [
            *_RUN_AS, "kubewright.network.agent", "--pod-subnet", pod_subnet, "--api-server", api_server,
            "--health-address", f"127.0.0.1:{NETWORK_HEALTH_PORT}",
        ],
        "env": [{"name": "NODE_NAME", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}}],
        "resources": {"requests": {"cpu": "50m", "memory": "64Mi"}},
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "capabilities": {"add": ["NET_ADMIN", "NET_RAW"], "drop": ["ALL"]},
            "readOnlyRootFilesystem": True,
        },
        "livenessProbe": _probe("/healthz", period=15, failures=4),
        "readinessProbe": _probe("/readyz", period=2, failures=3),
        "volumeMounts": [
            {"name": "cni-conf", "mountPath": "/etc/cni/net.d"},
            {"name": "xtables-lock", "mountPath": "/run/xtables.lock"},
            {"name": "lib-modules", "mountPath": "/lib/modules", "readOnly": True},
        ],
    }  # fmt: skip
    spec: Object = {
        "priorityClassName": "system-node-critical",
        "hostNetwork": True,
        "serviceAccountName": NETWORK,
        "nodeSelector": {"kubernetes.io/os": "linux"},
        "tolerations": [{"operator": "Exists"}],
        "terminationGracePeriodSeconds": 5,
        "containers": [container],
        "volumes": [
            {"name": "cni-conf", "hostPath": {"path": "/etc/cni/net.d", "type": "DirectoryOrCreate"}},
            {"name": "xtables-lock", "hostPath": {"path": "/run/xtables.lock", "type": "FileOrCreate"}},
            {"name": "lib-modules", "hostPath": {"path": "/lib/modules"}},
        ],
    }
    return {
        "apiVersion": "apps/v1",
        "kind": "DaemonSet",
        "metadata": metadata(NETWORK, SYSTEM, labels=labels),
        "spec": {
            "selector": {"matchLabels": labels},
            # Routes and rules stay while the program is away: a third of the nodes may change at once.
            "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": "33%"}},
            "template": {"metadata": {"labels": labels}, "spec": spec},
        },
    }


def _probe(path: str, *, period: int, failures: int) -> Object:
    return {
        "httpGet": {"host": "127.0.0.1", "path": path, "port": NETWORK_HEALTH_PORT, "scheme": "HTTP"},
        "periodSeconds": period,
        "timeoutSeconds": 5,
        "failureThreshold": failures,
    }
