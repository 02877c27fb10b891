"""The objects that `kubewright check` makes, all in a namespace of its own."""

from __future__ import annotations

from typing import Any

from kubewright.workflows.check_plan import POD_PORT, SERVICE, SERVICE_PORT, Place

Object = dict[str, Any]

LABEL = "kubewright.dev/check"
"""Marks our namespaces (value `true`), so that those of a killed run are found."""
NAMESPACE_PREFIX = "kubewright-check-"
CONTAINER = "probe"
NODE_PORT_SERVICE = "probe-nodeport"
_SLEEP = "import signal; signal.signal(signal.SIGTERM, lambda *_: exit()); signal.pause()"


def namespace(name: str) -> Object:
    """The namespace. Pods that use the node's network need the level `privileged` of pod security (KEP-2579)."""
    labels = {LABEL: "true", "pod-security.kubernetes.io/enforce": "privileged"}
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}}


def service_account(namespace: str) -> Object:
    """An account of our own: the namespace's default one comes some time after the namespace."""
    return {
        "apiVersion": "v1",
        "kind": "ServiceAccount",
        "metadata": {"name": SERVICE, "namespace": namespace},
    }


def services(namespace: str) -> list[Object]:
    """One with a cluster address, one with a port on every node; both lead to the pods of `Place.POD`."""
    kinds = ((SERVICE, "ClusterIP"), (NODE_PORT_SERVICE, "NodePort"))
    return [
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": name, "namespace": namespace},
            "spec": {
                "type": kind,
                "selector": {LABEL: str(Place.POD)},
                "ports": [{"port": SERVICE_PORT, "targetPort": POD_PORT, "protocol": "TCP"}],
            },
        }
        for name, kind in kinds
    ]


def daemon_set(namespace: str, place: Place, image: str) -> Object:
    """A pod on every node, whatever its taints: a server in the pod network, or a sleeper in the node's own.

    The sleeper opens no port; it is there for commands to be run in it.
    """
    labels = {LABEL: str(place)}
    if place is Place.POD:
        command = ["python3", "-m", "kubewright.probe", "serve", "--port", str(POD_PORT)]
    else:
        command = ["python3", "-c", _SLEEP]
    return {
        "apiVersion": "apps/v1",
        "kind": "DaemonSet",
        "metadata": {"name": str(place), "namespace": namespace, "labels": labels},
        "spec": {
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": _pod_spec(place, image, command)},
        },
    }


def first_pod(namespace: str, image: str) -> Object:
    """A pod for a dry run: when the API server takes it, it takes those of the DaemonSets, too."""
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "dry-run", "namespace": namespace},
        "spec": _pod_spec(Place.POD, image, ["true"]),
    }


def _pod_spec(place: Place, image: str, command: list[str]) -> Object:
    env = (("NODE_NAME", "spec.nodeName"), ("POD_NAME", "metadata.name"))
    return {
        "serviceAccountName": SERVICE,
        "automountServiceAccountToken": place is Place.POD,
        "hostNetwork": place is Place.NODE,
        "tolerations": [{"operator": "Exists"}],
        "terminationGracePeriodSeconds": 1,
        "enableServiceLinks": False,
        "containers": [
            {
                "name": CONTAINER,
                "image": image,
                "imagePullPolicy": "IfNotPresent",
                "command": command,
                "env": [{"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}} for name, path in env],
                "resources": {"requests": {"cpu": "10m", "memory": "24Mi"}},
            }
        ],
    }
