"""Arguments that a user adds: their order, doubled flags, and the command line that comes of them."""

from __future__ import annotations

from typing import Any

import pytest

from kubewright.model.config.api_versions import V1BETA3, V1BETA4
from kubewright.model.config.documents import read_documents
from kubewright.model.extra_args import ExtraArgs, merged
from kubewright.model.manifests import static_pods
from kubewright.model.node import ControlPlaneNode
from kubewright.model.versions import facts_for

TWICE = ExtraArgs((("z", "1"), ("a", "2"), ("z", "0")))


def test_a_mapping_is_read_in_the_order_of_its_names_and_a_list_in_its_own() -> None:
    assert list(ExtraArgs.of({"b": "2", "a": "1"})) == [("a", "1"), ("b", "2")]
    assert list(ExtraArgs.of([("b", "2"), ("a", "1")])) == [("b", "2"), ("a", "1")]
    assert not ExtraArgs.of(None)
    assert ExtraArgs.of(TWICE) is TWICE


def test_the_last_of_a_doubled_flag_counts() -> None:
    assert TWICE.get("z") == "0"
    assert TWICE.get("q", "none") == "none"
    assert TWICE.values_of("z") == ["1", "0"]
    assert TWICE.names == ("z", "a")
    assert TWICE.as_map() == {"z": "0", "a": "2"}
    assert len(TWICE) == 3
    assert "z" in TWICE
    assert "q" not in TWICE


def test_a_flag_can_be_given_once_in_its_place_or_at_the_end() -> None:
    assert list(TWICE.with_flag("z", "9")) == [("z", "9"), ("a", "2")]
    assert list(TWICE.with_flag("q", "9")) == [*TWICE, ("q", "9")]
    doubled = ExtraArgs((("a", "1"), ("a", "2"), ("b", "3"), ("a", "4")))
    assert list(doubled.with_flag("b", "9")) == [("a", "1"), ("a", "2"), ("b", "9"), ("a", "4")]


@pytest.mark.parametrize(
    ("last", "expected"),
    [
        (False, [("a", "2"), ("b", "x"), ("z", "0"), ("z", "1")]),
        (True, [("b", "x"), ("z", "1"), ("a", "2"), ("z", "0")]),
    ],
)
def test_the_users_arguments_take_the_place_of_defaults(last: bool, expected: Any) -> None:
    assert merged({"z": "default", "b": "x"}, TWICE, last=last) == expected


FILE = """\
apiVersion: kubeadm.k8s.io/v1beta4
kind: ClusterConfiguration
kubernetesVersion: {version}
networking: {{podSubnet: 10.244.0.0/16}}
apiServer:
  extraArgs:
  - {{name: oidc-issuer-url, value: b}}
  - {{name: oidc-issuer-url, value: a}}
  - {{name: allow-privileged, value: "false"}}
  extraEnvs:
  - {{name: HTTPS_PROXY, value: "http://mine:1"}}
  - name: POD
    valueFrom: {{fieldRef: {{fieldPath: metadata.name}}}}
etcd:
  local:
    extraEnvs: [{{name: ETCD_X, value: "1"}}]
"""


def container(version: str, name: str) -> dict[str, Any]:
    cluster = read_documents(FILE.format(version=version)).cluster
    assert cluster is not None
    node = ControlPlaneNode("cp1", "192.0.2.11")
    pods = static_pods(cluster, node, facts_for(version), proxy_env={"HTTPS_PROXY": "x", "NO_PROXY": "y"})
    found: dict[str, Any] = pods[name]["spec"]["containers"][0]
    return found


def test_a_doubled_argument_reaches_the_static_pod_twice() -> None:
    command = container("v1.31.12", "kube-apiserver")["command"]
    sorted_in = [word for word in command if "oidc" in word or "privileged" in word]
    assert sorted_in == ["--allow-privileged=false", "--oidc-issuer-url=a", "--oidc-issuer-url=b"]
    assert command[1:] == sorted(command[1:])
    newest = container("v1.37.0", "kube-apiserver")["command"]
    assert newest[-3:] == ["--oidc-issuer-url=b", "--oidc-issuer-url=a", "--allow-privileged=false"]
    assert newest[1:-3] == sorted(newest[1:-3])


def test_the_users_variables_take_the_place_of_the_proxys() -> None:
    assert container("v1.31.12", "kube-apiserver")["env"] == [
        {"name": "HTTPS_PROXY", "value": "http://mine:1"},
        {"name": "NO_PROXY", "value": "y"},
        {"name": "POD", "valueFrom": {"fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.name"}}},
    ]
    assert container("v1.31.12", "etcd")["env"] == [{"name": "ETCD_X", "value": "1"}]


def test_each_version_writes_arguments_in_its_form() -> None:
    cluster = read_documents(FILE.format(version="v1.31.12")).cluster
    assert cluster is not None
    from kubewright.model.config.api_versions import written

    assert written(cluster, V1BETA4)["apiServer"]["extraArgs"][0] == {"name": "oidc-issuer-url", "value": "b"}
    older = written(cluster, V1BETA3)["apiServer"]["extraArgs"]
    assert older == {"oidc-issuer-url": "a", "allow-privileged": "false"}
