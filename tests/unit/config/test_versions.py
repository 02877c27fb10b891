"""Versions compare as semver.org says; the table's facts are those of kubeadm 1.20.2."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kubewright.errors import ConfigError, ExitCode
from kubewright.model.config.kubeadm import DNS, ClusterConfiguration, Etcd, LocalEtcd
from kubewright.model.versions import (
    NEWEST_SERIES,
    OLDEST_SERIES,
    SUPPORTED_SERIES,
    Version,
    facts_for,
    image_references,
)


@pytest.mark.parametrize(
    "text", ["v1.20.2", "1.20.2", "v1.20.2+debian1", "v1.21.0-rc.1", "v0.0.0-alpha.0.1+x.y"]
)
def test_a_version_is_written_as_it_was_read(text: str) -> None:
    assert str(Version.parse(text)) == "v" + text.removeprefix("v")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "v1.20",
        "1.20",
        "stable-1",
        "v1.20.2.1",
        "v01.20.2",
        "v1.20.2-",
        "v1.20.2 ",
        "v1.\uff120.2",
        "vv1.2.3",
    ],
)
def test_what_is_no_version_is_refused_with_the_fields_name(text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Version.parse(text, field="--kubernetes-version")
    assert caught.value.message.startswith("--kubernetes-version: ")
    assert "v1.20.2" in caught.value.hint


def test_precedence_follows_semver() -> None:
    # The chain of semver.org's paragraph 11.
    words = ["alpha", "alpha.1", "alpha.beta", "beta", "beta.2", "beta.11", "rc.1"]
    chain = [Version.parse(f"v1.0.0-{word}") for word in words] + [Version.parse("v1.0.0")]
    assert all(one < other and not other < one for one, other in pairwise(chain))
    assert Version.parse("v1.20.2+a") == Version.parse("v1.20.2+b")
    assert Version.parse("v1.9.9") < Version.parse("v1.20.0")


@given(st.text(max_size=30))
def test_any_text_is_a_version_or_a_config_error(text: str) -> None:
    try:
        assert Version.parse(text) == Version.parse(str(Version.parse(text)))
    except ConfigError as error:
        assert error.exit_code is ExitCode.CONFIG_INVALID


def test_an_unknown_minor_version_is_unavailable() -> None:
    with pytest.raises(ConfigError) as caught:
        facts_for("v1.99.0")
    assert caught.value.exit_code is ExitCode.VERSION_UNAVAILABLE
    assert "v1.99.0" in caught.value.message
    assert all(series in caught.value.hint for series in (OLDEST_SERIES, NEWEST_SERIES))


def test_facts_hold_for_every_patch_of_a_minor_version() -> None:
    assert facts_for("v1.20.15").kubelet_config_map == "kubelet-config-1.20"
    assert facts_for(Version(1, 20, 0)).version == Version(1, 20, 0)


def test_kubelet_flags_are_those_of_kubeadm_for_containerd() -> None:
    # From `kubeadm init --dry-run`: KUBELET_KUBEADM_ARGS without the host's own name.
    assert facts_for("v1.20.2").kubelet_flags("unix:///run/containerd/containerd.sock") == {
        "container-runtime": "remote",
        "container-runtime-endpoint": "/run/containerd/containerd.sock",
    }


@pytest.mark.parametrize(
    ("kubelet", "fits"),
    [("v1.20.9", True), ("v1.18.0", True), ("v1.17.9", False), ("v1.21.0", False), ("v2.20.0", False)],
)
def test_a_kubelet_may_be_two_minors_behind_and_never_ahead(kubelet: str, fits: bool) -> None:
    assert facts_for("v1.20.2").supports_kubelet(Version.parse(kubelet)) is fits


def test_images_are_those_of_kubeadm_config_images_list() -> None:
    # `kubeadm config images list --kubernetes-version v1.20.2`, in its order.
    assert list(image_references(ClusterConfiguration(), facts_for("v1.20.2")).values()) == [
        "k8s.gcr.io/kube-apiserver:v1.20.2",
        "k8s.gcr.io/kube-controller-manager:v1.20.2",
        "k8s.gcr.io/kube-scheduler:v1.20.2",
        "k8s.gcr.io/kube-proxy:v1.20.2",
        "k8s.gcr.io/pause:3.2",
        "k8s.gcr.io/etcd:3.4.13-0",
        "k8s.gcr.io/coredns:1.7.0",
    ]


def test_the_list_of_images_took_another_order() -> None:
    def last_three(version: str) -> list[str]:
        return list(image_references(ClusterConfiguration(), facts_for(version)))[-3:]

    assert last_three("v1.28.15") == ["pause", "etcd", "coredns"]
    assert last_three("v1.29.0") == ["coredns", "pause", "etcd"]


def test_images_follow_the_configuration() -> None:
    cc = ClusterConfiguration(
        kubernetes_version="v1.20.2+own.1",
        image_repository="registry.example.org/k8s",
        dns=DNS(image_repository="dns.example.org", image_tag="1.8.0"),
        etcd=Etcd(local=LocalEtcd(image_tag="3.4.14-0")),
    )
    images = image_references(cc, facts_for(cc.kubernetes_version))
    assert images["kube-proxy"] == "registry.example.org/k8s/kube-proxy:v1.20.2_own.1"
    assert images["etcd"] == "registry.example.org/k8s/etcd:3.4.14-0"
    assert images["coredns"] == "dns.example.org/coredns:1.8.0"
    assert images["pause"] == "registry.example.org/k8s/pause:3.2"


@pytest.mark.parametrize("series", SUPPORTED_SERIES)
def test_every_minor_version_has_whole_facts(series: str) -> None:
    facts = facts_for(f"v{series}.0")
    assert facts.control_plane_taints
    assert set(facts.control_plane_taints) <= set(facts.control_plane_taints_tolerated)
    assert facts.kubeadm_features.isdisjoint(
        name for name, on in facts.kubeadm_feature_gates.items() if not on
    )
    for unset, fields in (
        (facts.kubelet_unset, facts.kubelet_fields),
        (facts.kube_proxy_unset, facts.kube_proxy_fields),
    ):
        assert not list(unknown(unset, fields))


def unknown(document: Mapping[str, Any], shape: Mapping[str, Any]) -> Iterator[str]:
    for name, value in document.items():
        if name not in shape:
            yield name
        elif isinstance(value, Mapping):
            yield from unknown(value, shape[name])


@pytest.mark.parametrize(
    ("version", "tag"),
    [
        ("v1.20.2", "3.4.13-0"),
        ("v1.22.16", "3.5.0-0"),
        ("v1.22.17", "3.5.6-0"),
        ("v1.28.7", "3.5.10-0"),
        ("v1.28.99", "3.5.15-0"),
        ("v1.31.0-rc.1", "3.5.15-0"),
        ("v1.37.0", "3.7.0-0"),
    ],
)
def test_a_patch_release_may_bring_another_etcd(version: str, tag: str) -> None:
    assert facts_for(version).etcd_tag == tag


def test_the_default_registry_changed_within_two_minor_versions() -> None:
    old, new = "k8s.gcr.io", "registry.k8s.io"
    versions = {
        "v1.22.17": old,
        "v1.23.14": old,
        "v1.23.15": new,
        "v1.24.8": old,
        "v1.24.9": new,
        "v1.25.0": new,
    }
    assert {version: facts_for(version).image_repository for version in versions} == versions


def test_coredns_is_one_folder_deeper_in_the_default_registry_only() -> None:
    facts = facts_for("v1.26.0")
    own = image_references(ClusterConfiguration(image_repository="registry.k8s.io"), facts)
    other = image_references(ClusterConfiguration(image_repository="registry.example.org"), facts)
    assert own["coredns"] == "registry.k8s.io/coredns/coredns:v1.9.3"
    assert other["coredns"] == "registry.example.org/coredns:v1.9.3"


def test_a_gate_is_off_then_a_choice_then_always_on() -> None:
    def local_mode(version: str, **chosen: bool) -> bool:
        return facts_for(version).kubelet_local_mode(chosen)

    off, on = {"ControlPlaneKubeletLocalMode": False}, {"ControlPlaneKubeletLocalMode": True}
    assert not local_mode("v1.30.0")
    assert not local_mode("v1.31.0")
    assert local_mode("v1.31.0", **on)
    assert local_mode("v1.33.0")
    assert not local_mode("v1.33.0", **off)
    assert local_mode("v1.36.0", **off)


def test_a_patch_release_may_ask_for_fewer_programs() -> None:
    before, after = (
        ("v1.28.14", "v1.29.9", "v1.30.5", "v1.31.1"),
        ("v1.28.15", "v1.29.10", "v1.30.6", "v1.31.2"),
    )
    for version in before:
        assert {"ebtables", "socat"} <= set(facts_for(version).useful_programs)
    for version in (*after, "v1.32.0"):
        assert facts_for(version).useful_programs == ("ethtool", "tc", "touch")


def test_the_default_authorization_is_not_stored_anew_from_1_30_on() -> None:
    """kubeadm 1.29 still repeats it in kubeadm-config."""
    assert facts_for("v1.29.15").authorization_mode_stored
    assert not facts_for("v1.30.0").authorization_mode_stored


def test_new_clusters_have_the_systemd_driver_from_1_21_on() -> None:
    """kubeadm 1.21 sets it in `init` alone (k/k #99471)."""
    assert facts_for("v1.20.15").cgroup_driver == ""
    assert facts_for("v1.21.0").cgroup_driver == facts_for("v1.22.0").cgroup_driver == "systemd"


def test_what_the_newest_versions_left_to_others() -> None:
    """Release notes of 1.31 (#124038), 1.36 (#136423) and 1.37 (#139777)."""
    assert [facts_for(f"v1.{minor}.0").resolv_conf_shared for minor in (30, 31)] == [True, False]
    assert [facts_for(f"v1.{minor}.0").flex_volumes for minor in (35, 36)] == [True, False]
    assert [facts_for(f"v1.{minor}.0").kube_proxy_mode for minor in (36, 37)] == ["", "iptables"]


def test_a_gate_that_is_locked_cannot_be_turned_off() -> None:
    name = "UnversionedKubeletConfigMap"
    assert not facts_for("v1.24.0").feature(name, {name: False})
    assert facts_for("v1.25.0").feature(name, {name: False})
    assert facts_for("v1.23.0").feature("IPv6DualStack", {"IPv6DualStack": False})


def test_a_patch_release_may_take_a_group_from_a_certificate() -> None:
    """Where the API server's user at the kubelets is bound by its name, and where by its group."""
    before = ("v1.32.13", "v1.33.11", "v1.34.7", "v1.35.4", "v1.36.0")
    after = ("v1.33.12", "v1.34.8", "v1.35.5", "v1.36.1", "v1.37.0")
    assert [facts_for(version).kubelet_client_bound for version in before] == [False] * len(before)
    assert [facts_for(version).kubelet_client_bound for version in after] == [True] * len(after)


def test_an_etcd_that_the_user_chose_gets_the_arguments_that_it_knows() -> None:
    facts = facts_for("v1.34.0")
    assert "watch-progress-notify-interval" in facts.etcd_arguments("3.6.4-0")
    assert "experimental-watch-progress-notify-interval" in facts.etcd_arguments("3.5.24-0")
    assert "watch-progress-notify-interval" in facts_for("v1.36.0").etcd_arguments("own")


@pytest.mark.parametrize(
    ("version", "flags"),
    [
        ("v1.23.0", {"container-runtime": "remote", "container-runtime-endpoint": "/run/crio/crio.sock"}),
        (
            "v1.25.0",
            {"container-runtime": "remote", "container-runtime-endpoint": "unix:///run/crio/crio.sock"},
        ),
        ("v1.33.0", {"container-runtime-endpoint": "unix:///run/crio/crio.sock"}),
        ("v1.34.0", {}),
    ],
)
def test_the_runtime_flags_went_one_by_one(version: str, flags: dict[str, str]) -> None:
    assert facts_for(version).kubelet_flags("unix:///run/crio/crio.sock") == flags
