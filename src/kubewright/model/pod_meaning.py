"""What a static Pod's manifest says, whatever it looks like: the kubelet goes on with a Pod that says the same."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kubewright.model.objects import Object, read_mapping

_FREE = frozenset({"labels", "annotations", "nodeSelector"})
"""Mappings with keys of the user's choice, in which an empty value says something."""


def normal(manifest: Mapping[str, Any]) -> Object:
    """A manifest without what says nothing: the fields that are null or empty, such as the `status: {}` that Go's
    programs write, and the order of volumes, which is none in kubeadm: it ranges over a map of etcd's."""
    said: Object = _said(dict(manifest))
    spec = said.get("spec")
    if isinstance(spec, dict):
        _sort(spec, "volumes")
        for kind in ("initContainers", "containers"):
            containers = spec.get(kind)
            for container in containers if isinstance(containers, list) else ():
                if isinstance(container, dict):
                    _sort(container, "volumeMounts")
    return said


def same_manifest(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether two static Pods mean the same."""
    return normal(one) == normal(other)


def same_pod(one: bytes, other: bytes) -> bool:
    """Whether two files hold static Pods that mean the same; False where one of them holds none."""
    pods = [read_mapping(one), read_mapping(other)]
    return all(pod is not None for pod in pods) and same_manifest(*(pod or {} for pod in pods))


def _said(value: Any) -> Any:
    if isinstance(value, dict):
        kept = {key: inner if key in _FREE else _said(inner) for key, inner in value.items()}
        return {key: inner for key, inner in kept.items() if inner not in (None, {}, [], "")}
    return [_said(inner) for inner in value] if isinstance(value, list) else value


def _sort(owner: Object, key: str) -> None:
    """By name; one volume may be mounted at several places. What is no list of mappings stays as it is."""
    items = owner.get(key)
    if isinstance(items, list) and all(isinstance(item, dict) for item in items):
        owner[key] = sorted(items, key=lambda item: (str(item.get("name")), str(item.get("mountPath"))))
