"""The configurations with which kubeadm's `init` and ours are run, and with which they are compared."""

from __future__ import annotations

from typing import Any

import yaml
from kubeadm_machines import EXTERNAL_ETCD

TOKEN = "abcdef.0123456789abcdef"
KEY = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff"

SOCKET = "/run/containerd/containerd.sock"

PROXY = {
    "apiVersion": "kubeproxy.config.k8s.io/v1alpha1", "kind": "KubeProxyConfiguration", "mode": "iptables",
    "conntrack": {"maxPerCore": 0, "min": 0},
}  # fmt: skip
KUBELET = {
    "apiVersion": "kubelet.config.k8s.io/v1beta1", "kind": "KubeletConfiguration", "maxPods": 77,
    "serializeImagePulls": False,
}  # fmt: skip

CONFIGURATIONS: dict[str, list[dict[str, Any]]] = {
    "plain": [{}, {}],
    "names-and-arguments": [
        {
            "certificateKey": KEY,
            "nodeRegistration": {
                "kubeletExtraArgs": {"v": "1", "node-labels": "tier=one"},
                "taints": [{"key": "only", "value": "me", "effect": "NoSchedule"}],
            },
        },
        {
            "controlPlaneEndpoint": "api.example.test:6443",
            "apiServer": {
                "certSANs": ["api.other.test", "192.0.2.7", "*.wild.example.test"],
                "extraArgs": {"profiling": "false", "audit-log-path": "-", "authorization-mode": "RBAC,Node"},
                "extraVolumes": [
                    {
                        "name": "audit", "hostPath": "/srv/audit", "mountPath": "/audit",
                        "pathType": "DirectoryOrCreate",
                    },
                    {"name": "plain", "hostPath": "/srv", "mountPath": "/srv", "readOnly": True},
                ],
                "timeoutForControlPlane": "95s",
            },
            "controllerManager": {"extraArgs": {"bind-address": "0.0.0.0", "node-cidr-mask-size": "25"}},
            "scheduler": {"extraArgs": {"bind-address": "0.0.0.0"}},
            "etcd": {
                "local": {
                    "extraArgs": {"snapshot-count": "5000"},
                    "serverCertSANs": ["etcd.example.test", "192.0.2.8"],
                    "peerCertSANs": ["192.0.2.9"],
                }
            },
        },
        PROXY,
        KUBELET,
    ],
    "external-etcd": [
        {},
        {
            "etcd": {
                "external": {
                    "endpoints": ["https://127.0.0.1:2379"],
                    "caFile": f"{EXTERNAL_ETCD}/ca.crt",
                    "certFile": f"{EXTERNAL_ETCD}/client.crt",
                    "keyFile": f"{EXTERNAL_ETCD}/client.key",
                }
            }
        },
    ],
    "ecdsa": [{}, {"featureGates": {"PublicKeysECDSA": True}}],
    "subnets-and-domain": [
        {"localAPIEndpoint": {"bindPort": 7443}},
        {
            "clusterName": "blue",
            "networking": {"podSubnet": "10.32.0.0/16", "serviceSubnet": "10.33.0.0/20", "dnsDomain": "blue.test"},
        },
        PROXY,
    ],
    "image-repository": [
        {},
        {
            "imageRepository": "registry.test/k8s",
            "dns": {"type": "CoreDNS", "imageRepository": "registry.test/dns"},
        },
    ],
}  # fmt: skip
"""InitConfiguration and ClusterConfiguration of each, and more documents."""


def document(name: str, address: str) -> str:
    """A configuration as a file, for the machine with that address."""
    init, cluster, *more = CONFIGURATIONS[name]
    kubeadm = {"apiVersion": "kubeadm.k8s.io/v1beta2"}
    init = {
        **kubeadm,
        "kind": "InitConfiguration",
        "bootstrapTokens": [{"token": TOKEN, "ttl": "3h0m0s", "description": "for tests"}],
        **init,
        "localAPIEndpoint": {"advertiseAddress": address, **init.get("localAPIEndpoint", {})},
        "nodeRegistration": {"criSocket": SOCKET, **init.get("nodeRegistration", {})},
    }  # fmt: skip
    cluster = {**kubeadm, "kind": "ClusterConfiguration", "kubernetesVersion": "v1.20.2", **cluster}
    return yaml.safe_dump_all([init, cluster, *more])


def joinable(address: str, **cluster: Any) -> str:
    """A configuration for the machine with that address, whose cluster others join with `TOKEN` and `KEY`.

    `cluster` is what its ClusterConfiguration has beyond the least.
    """
    version = {"apiVersion": "kubeadm.k8s.io/v1beta2"}
    return yaml.safe_dump_all(
        [
            {
                **version, "kind": "InitConfiguration", "certificateKey": KEY,
                "bootstrapTokens": [{"token": TOKEN, "ttl": "1h0m0s"}],
                "localAPIEndpoint": {"advertiseAddress": address}, "nodeRegistration": {"criSocket": SOCKET},
            },
            {
                **version, "kind": "ClusterConfiguration", "kubernetesVersion": "v1.20.2",
                "controlPlaneEndpoint": f"{address}:6443", **cluster,
            },
            PROXY,
        ]
    )  # fmt: skip
