"""Which manifests of a static Pod say the same."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from kubewright.model import manifests, upgrade
from kubewright.model.config.kubeadm_types import ClusterConfiguration
from kubewright.model.node import ControlPlaneNode
from kubewright.model.pod_meaning import same_manifest, same_pod
from kubewright.model.versions import facts_for


def pod(name: str = "kube-apiserver") -> Any:
    facts, node = facts_for("v1.20.2"), ControlPlaneNode("cp1", "10.0.0.1")
    return manifests.static_pods(ClusterConfiguration(kubernetes_version="v1.20.2"), node, facts)[name]


@pytest.mark.parametrize("name", ["etcd", "kube-apiserver"])
def test_order_of_volumes_and_empty_fields_say_nothing(name: str) -> None:
    other = copy.deepcopy(pod(name))
    other["status"] = {}
    other["metadata"]["creationTimestamp"] = None
    other["spec"]["volumes"].reverse()
    other["spec"]["containers"][0]["volumeMounts"].reverse()
    assert same_manifest(pod(name), other)
    assert upgrade.manifest_diff("x", pod(name), other) == []


def test_the_order_of_arguments_says_something() -> None:
    """kube-apiserver takes the last of two equal flags."""
    more, turned = copy.deepcopy(pod()), copy.deepcopy(pod())
    more["spec"]["containers"][0]["command"].append("--v=5")
    turned["spec"]["containers"][0]["command"].reverse()
    assert not same_manifest(pod(), more)
    assert not same_manifest(pod(), turned)


def test_another_volume_says_something() -> None:
    other = copy.deepcopy(pod("etcd"))
    other["spec"]["volumes"][0]["hostPath"]["path"] = "/elsewhere"
    assert not same_manifest(pod("etcd"), other)


def test_an_empty_label_says_something() -> None:
    """Its key alone is looked for."""
    other = copy.deepcopy(pod())
    other["metadata"]["labels"]["mine"] = ""
    assert not same_manifest(pod(), other)


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        (b"metadata: {creationTimestamp: null, name: a}\nstatus: {}", b"metadata: {name: a}", True),
        (b"metadata: {name: a}", b"metadata: {name: b}", False),
        (b"[", b"metadata: {name: b}", False),
        (b"[]", b"{}", False),
        (b"spec: {volumes: x, containers: [y]}", b"spec: {containers: [y], volumes: x}", True),
    ],
)
def test_files(one: bytes, other: bytes, same: bool) -> None:
    assert same_pod(one, other) is same
