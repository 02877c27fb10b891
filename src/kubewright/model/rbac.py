"""Roles and bindings, and the ones by which nodes join a cluster and keep their certificates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from kubewright.model.objects import SYSTEM, Object, metadata
from kubewright.model.pki import CLUSTER_ADMINS, KUBELET_CLIENT, NODES
from kubewright.model.tokens import BOOTSTRAPPERS

if TYPE_CHECKING:
    from kubewright.model.versions import VersionFacts

RBAC_API = "rbac.authorization.k8s.io/v1"
_GROUP = "rbac.authorization.k8s.io"


def rule(
    verbs: Sequence[str], resources: Sequence[str], *, api_groups: Sequence[str] = ("",),
    names: Sequence[str] = (),
) -> Object:  # fmt: skip
    """One rule of a role."""
    row: Object = {"apiGroups": list(api_groups), "resources": list(resources), "verbs": list(verbs)}
    return row | {"resourceNames": list(names)} if names else row


def group(name: str) -> Object:
    """A group as a binding's subject."""
    return {"apiGroup": _GROUP, "kind": "Group", "name": name}


def user(name: str) -> Object:
    """A user as a binding's subject."""
    return {"apiGroup": _GROUP, "kind": "User", "name": name}


def account(name: str, namespace: str = SYSTEM) -> Object:
    """A ServiceAccount as a binding's subject."""
    return {"kind": "ServiceAccount", "name": name, "namespace": namespace}


def role(name: str, namespace: str, *rules: Object) -> Object:
    """A Role."""
    return {
        "apiVersion": RBAC_API,
        "kind": "Role",
        "metadata": metadata(name, namespace),
        "rules": list(rules),
    }


def role_binding(name: str, namespace: str, *subjects: Object) -> Object:
    """A RoleBinding to the Role of the same name."""
    return {
        "apiVersion": RBAC_API,
        "kind": "RoleBinding",
        "metadata": metadata(name, namespace),
        "roleRef": {"apiGroup": _GROUP, "kind": "Role", "name": name},
        "subjects": list(subjects),
    }


def cluster_role(name: str, *rules: Object, labels: Mapping[str, str] | None = None) -> Object:
    """A ClusterRole."""
    return {
        "apiVersion": RBAC_API,
        "kind": "ClusterRole",
        "metadata": metadata(name, labels=labels),
        "rules": list(rules),
    }


def cluster_role_binding(
    name: str, *subjects: Object, role_name: str = "", labels: Mapping[str, str] | None = None
) -> Object:
    """A ClusterRoleBinding; to the ClusterRole of the same name, or to `role_name`."""
    return {
        "apiVersion": RBAC_API,
        "kind": "ClusterRoleBinding",
        "metadata": metadata(name, labels=labels),
        "roleRef": {"apiGroup": _GROUP, "kind": "ClusterRole", "name": role_name or name},
        "subjects": list(subjects),
    }


def config_map_readers(name: str, namespace: str, config_map: str, *subjects: Object) -> list[Object]:
    """A Role that may read one ConfigMap, and its binding."""
    return [
        role(name, namespace, rule(["get"], ["configmaps"], names=[config_map])),
        role_binding(name, namespace, *subjects),
    ]


def cluster_admins() -> list[Object]:
    """What makes `admin.conf` an administrator's where only `super-admin.conf` is in system:masters."""
    return [cluster_role_binding(CLUSTER_ADMINS, group(CLUSTER_ADMINS), role_name="cluster-admin")]


def node_bootstrap(facts: VersionFacts) -> list[Object]:
    """What lets a node with a token ask for a certificate, get it, and renew it later (P23).

    And what lets the API server ask kubelets, where its certificate names no group. The ClusterRoles that the
    last of them name are the API server's own.
    """
    kubelet_client = cluster_role_binding(
        "kubeadm:apiserver-kubelet-client", user(KUBELET_CLIENT), role_name="system:kubelet-api-admin"
    )
    joining = group(BOOTSTRAPPERS)
    requests = "system:certificates.k8s.io:certificatesigningrequests"
    return [
        cluster_role("kubeadm:get-nodes", rule(["get"], ["nodes"])),
        cluster_role_binding("kubeadm:get-nodes", joining),
        cluster_role_binding("kubeadm:kubelet-bootstrap", joining, role_name="system:node-bootstrapper"),
        cluster_role_binding(
            "kubeadm:node-autoapprove-bootstrap", joining, role_name=f"{requests}:nodeclient"
        ),
        cluster_role_binding(
            "kubeadm:node-autoapprove-certificate-rotation",
            group(NODES),
            role_name=f"{requests}:selfnodeclient",
        ),
        *([kubelet_client] if facts.kubelet_client_bound else []),
    ]
