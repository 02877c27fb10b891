"""Kinds of the Kubernetes API and their URL paths."""

from __future__ import annotations

from typing import Any

Object = dict[str, Any]
"""An object as it stands in a manifest."""

# kind -> (plural, namespaced). Only what Kubewright itself handles: an API group says the rest by its kind's name.
_KINDS: dict[str, tuple[str, bool]] = {
    "APIService": ("apiservices", False),
    "CertificateSigningRequest": ("certificatesigningrequests", False),
    "ClusterRole": ("clusterroles", False),
    "ClusterRoleBinding": ("clusterrolebindings", False),
    "ConfigMap": ("configmaps", True),
    "DaemonSet": ("daemonsets", True),
    "Deployment": ("deployments", True),
    "Endpoints": ("endpoints", True),
    "EndpointSlice": ("endpointslices", True),
    "Event": ("events", True),
    "Job": ("jobs", True),
    "Lease": ("leases", True),
    "Namespace": ("namespaces", False),
    "NetworkPolicy": ("networkpolicies", True),
    "Node": ("nodes", False),
    "Pod": ("pods", True),
    "ReplicaSet": ("replicasets", True),
    "Role": ("roles", True),
    "RoleBinding": ("rolebindings", True),
    "Secret": ("secrets", True),
    "Service": ("services", True),
    "ServiceAccount": ("serviceaccounts", True),
    "StatefulSet": ("statefulsets", True),
}


def object_path(api_version: str, kind: str, namespace: str = "", name: str = "") -> str:
    """The URL path of a kind's collection, or of one object."""
    plural, namespaced = _KINDS[kind]
    prefix = f"/apis/{api_version}" if "/" in api_version else f"/api/{api_version}"
    if namespaced and namespace:
        prefix += f"/namespaces/{namespace}"
    return f"{prefix}/{plural}" + (f"/{name}" if name else "")


def collection_path(obj: Object) -> str:
    """The URL path of the collection that an object is in."""
    return object_path(obj["apiVersion"], obj["kind"], obj["metadata"].get("namespace", ""))


def path_of(obj: Object) -> str:
    """The URL path of an object."""
    return f"{collection_path(obj)}/{obj['metadata']['name']}"
