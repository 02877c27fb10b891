"""Versions compare as semver.org says; the table's facts are those of kubeadm 1.20.2."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kubewright.errors import ConfigError, ExitCode
from kubewright.model.config.kubeadm import DNS, ClusterConfiguration, Etcd, LocalEtcd
from kubewright.model.versions import NEWEST_SERIES, OLDEST_SERIES, Version, facts_for, image_references


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
