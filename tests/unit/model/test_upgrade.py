"""Where a cluster can be upgraded to, and what that changes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from kubewright.errors import ConfigError
from kubewright.model import manifests, upgrade
from kubewright.model.arguments import EtcdMember
from kubewright.model.config.kubeadm_types import ClusterConfiguration, Etcd, ExternalEtcd
from kubewright.model.node import ControlPlaneNode
from kubewright.model.pod_meaning import same_manifest
from kubewright.model.reset import container_flags
from kubewright.model.upgrade import ClusterState, ComponentConfig
from kubewright.model.version import Version
from kubewright.model.versions import facts_for

V = Version.parse
STATE = ClusterState(
    V("v1.20.2"),
    ClusterConfiguration(),
    {"cp1": "v1.20.2", "w1": "v1.20.2", "w2": "v1.19.7"},
    etcd="3.4.13-0",
    dns="1.7.0",
    configs=(ComponentConfig("kubelet.config.k8s.io", "v1beta1", "v1beta1"),),
)
NODE = ControlPlaneNode("cp1", "10.0.0.1")


def pods(members: Sequence[EtcdMember] = (), version: str = "v1.20.2") -> dict[str, Any]:
    cluster = ClusterConfiguration(kubernetes_version=version)
    return manifests.static_pods(cluster, NODE, facts_for(version), etcd_members=members)


@pytest.mark.parametrize(
    ("known", "options", "found"),
    [
        ([], {}, []),
        (["v1.20.1", "v1.20.2"], {}, []),
        (["v1.20.15", "v1.20.7"], {}, ["v1.20.15"]),
        (["v1.20.15", "v1.21.14", "v1.22.0"], {}, ["v1.20.15", "v1.21.14"]),
        (["v1.21.0-rc.1", "v1.20.3-alpha.1"], {}, []),
        (["v1.21.0-rc.1", "v1.20.3-alpha.1"], {"candidates": True}, ["v1.21.0-rc.1"]),
        (["v1.21.0-rc.1", "v1.20.3-alpha.1"], {"prerelease": True}, ["v1.20.3-alpha.1", "v1.21.0-rc.1"]),
    ],
)
def test_the_newest_of_this_and_of_the_next_minor_version(
    known: list[str], options: dict[str, bool], found: list[str]
) -> None:
    chosen = upgrade.targets(STATE.version, map(V, known), **options)
    assert [str(version) for version, _ in chosen] == found


@pytest.mark.parametrize("version", ["v1.22.0", "v1.18.0", "v2.20.0", "v1.21.0"])
def test_what_is_out_of_reach(version: str) -> None:
    assert upgrade.judge(STATE, V(version)).forbidden


def test_a_patch_release_is_free() -> None:
    assert upgrade.judge(STATE, V("v1.20.15")) == upgrade.Verdict()


@pytest.mark.parametrize(
    ("version", "changed", "why"),
    [
        ("v1.20.1", {}, "older"),
        ("v1.20.3-rc.0", {}, "--allow-release-candidate-upgrades"),
        ("v1.20.3-alpha.0", {}, "--allow-experimental-upgrades"),
        ("v1.20.3", {"kubelets": {"w1": "v1.17.0"}}, r"too old for v1.20.3: w1 \(v1.17.0\)"),
        ("v1.20.3", {"kubelets": {"w1": "v1.21.0"}}, r"newer than v1.20.3: w1 \(v1.21.0\)"),
        (
            "v1.20.3",
            {"configs": (ComponentConfig("kubelet.config.k8s.io", "v1alpha1", "v1beta1"),)},
            "kept as v1alpha1",
        ),
    ],
)
def test_what_force_overrides(version: str, changed: dict[str, Any], why: str) -> None:
    import dataclasses

    verdict = upgrade.judge(dataclasses.replace(STATE, **changed), V(version))
    assert not verdict.forbidden
    [one] = verdict.forceable
    with pytest.raises(AssertionError, match=why):
        raise AssertionError(one)


def test_prereleases_are_allowed_when_asked_for() -> None:
    assert not upgrade.judge(STATE, V("v1.20.3-rc.0"), candidates=True).forceable
    assert upgrade.judge(STATE, V("v1.20.3-beta.0"), candidates=True).forceable
    assert not upgrade.judge(STATE, V("v1.20.3-beta.0"), prerelease=True).forceable


def test_a_plan_has_components_images_and_kubelets() -> None:
    found = upgrade.plan(STATE, V("v1.20.15"), "x", ["k8s.gcr.io/etcd:3.4.13-0"])
    rows = {one.name: (one.current, one.target, one.present) for one in found.components}
    assert rows == {
        "kube-apiserver": ("v1.20.2", "v1.20.15", False),
        "kube-controller-manager": ("v1.20.2", "v1.20.15", False),
        "kube-scheduler": ("v1.20.2", "v1.20.15", False),
        "kube-proxy": ("v1.20.2", "v1.20.15", False),
        "coredns": ("1.7.0", "1.7.0", False),
        "etcd": ("3.4.13-0", "3.4.13-0", True),
    }
    assert [(one.current, one.target) for one in found.kubelets] == [
        ("1 x v1.19.7", "v1.20.15"), ("2 x v1.20.2", "v1.20.15"),
    ]  # fmt: skip
    assert found.as_dict()["version"] == "v1.20.15" and not found.obstacles


def test_an_external_etcd_is_nobodys_to_upgrade() -> None:
    import dataclasses

    cluster = ClusterConfiguration(etcd=Etcd(external=ExternalEtcd(endpoints=["https://10.0.0.9:2379"])))
    found = upgrade.plan(dataclasses.replace(STATE, cluster=cluster, etcd="", dns=""), V("v1.20.15"), "x")
    assert [one.name for one in found.components] == [*upgrade.CONTROL_PLANE, "kube-proxy"]
    assert all(one.present is None for one in found.components)


def test_the_default_repository_follows_the_version() -> None:
    old = ClusterConfiguration(kubernetes_version="v1.24.0")
    assert upgrade.for_version(old, V("v1.25.0")).image_repository == "registry.k8s.io"
    own = ClusterConfiguration(kubernetes_version="v1.24.0", image_repository="registry.test/k8s")
    assert upgrade.for_version(own, V("v1.25.0")).image_repository == "registry.test/k8s"


# -- static Pods ----------------------------------------------------------------------------------------------


def test_a_diff_shows_what_changes_and_as_much_around_it_as_is_wanted() -> None:
    old, new = (pods(version=version)["kube-scheduler"] for version in ("v1.20.2", "v1.20.7"))
    lines = upgrade.manifest_diff("/m/kube-scheduler.yaml", old, new, context=0)
    assert lines[:2] == ["--- /m/kube-scheduler.yaml", "+++ new manifest"]
    assert [line.strip("+- ") for line in lines[3:]] == [
        "image: k8s.gcr.io/kube-scheduler:v1.20.2", "image: k8s.gcr.io/kube-scheduler:v1.20.7",
    ]  # fmt: skip
    assert len(upgrade.manifest_diff("x", old, new, context=3)) > len(lines)


def test_a_member_that_joined_keeps_its_cluster() -> None:
    members = [EtcdMember("cp0", "https://10.0.0.9:2380"), EtcdMember("cp1", "https://10.0.0.1:2380")]
    joined = pods(members)["etcd"]
    assert upgrade.etcd_members(container_flags(joined)) == members
    again = pods(upgrade.etcd_members(container_flags(joined)))["etcd"]
    assert same_manifest(joined, again)
    assert upgrade.etcd_members(container_flags(pods()["etcd"])) == []


def test_the_node_is_found_in_its_own_manifest() -> None:
    assert upgrade.control_plane_node("cp1", pods()["kube-apiserver"]) == NODE
    with pytest.raises(ConfigError, match="--advertise-address"):
        upgrade.control_plane_node("cp1", {})


def test_proxies_are_kept() -> None:
    proxies = {"HTTPS_PROXY": "http://proxy:3128", "no_proxy": "10.0.0.0/8"}
    cluster = ClusterConfiguration()
    found = manifests.static_pods(cluster, NODE, facts_for("v1.20.2"), proxy_env=proxies)
    assert upgrade.proxy_environment(found["kube-apiserver"]) == proxies
    assert upgrade.proxy_environment(pods()["kube-apiserver"]) == {}


# -- images ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("image", "tag"),
    [
        ("k8s.gcr.io/etcd:3.4.13-0", "3.4.13-0"),
        ("localhost:5000/etcd", ""),
        ("localhost:5000/etcd:3", "3"),
        ("etcd@sha256:0", ""),
        ("etcd:3@sha256:0", "3"),
    ],
)
def test_tags(image: str, tag: str) -> None:
    assert upgrade.tag_of(image) == tag


def test_versions_of_the_images_of_a_host() -> None:
    images = ["k8s.gcr.io/kube-apiserver:v1.20.7", "k8s.gcr.io/kube-apiserver:v1.20.2", "k8s.gcr.io/pause:3.2",
              "test/kube-apiserver:latest", "test/kube-apiserver:v1.21.0_custom"]  # fmt: skip
    assert [str(version) for version in upgrade.newest_images(images)] == [
        "v1.20.2",
        "v1.20.7",
        "v1.21.0+custom",
    ]
