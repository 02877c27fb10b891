"""Patches of what is written: their files' names, and the three ways of patching."""

from __future__ import annotations

from typing import Any

import pytest

from kubewright.errors import ConfigError
from kubewright.model.patches import Patch, PatchType, parse_file, patched

POD: dict[str, Any] = {
    "metadata": {"name": "kube-apiserver", "labels": {"tier": "control-plane"}},
    "spec": {
        "containers": [
            {
                "name": "kube-apiserver",
                "command": ["kube-apiserver", "--v=2"],
                "resources": {"requests": {"cpu": "250m"}},
                "volumeMounts": [{"name": "certs", "mountPath": "/pki"}, {"name": "ca", "mountPath": "/ca"}],
            }
        ],
        "volumes": [
            {"name": "certs", "hostPath": {"path": "/pki"}},
            {"name": "ca", "hostPath": {"path": "/ca"}},
        ],
        "tolerations": [{"operator": "Exists"}],
    },
}


def strategic(patch: dict[str, Any], target: str = "kube-apiserver", document: Any = None) -> dict[str, Any]:
    return patched(target, document or POD, [Patch("f.yaml", target, PatchType.STRATEGIC, patch)])


@pytest.mark.parametrize(
    ("name", "target", "kind"),
    [
        ("etcd.json", "etcd", "strategic"),
        ("kube-apiserver0+merge.yaml", "kube-apiserver", "merge"),
        ("kube-scheduler-b+json.yaml", "kube-scheduler", "json"),
        ("kube-controller-manager+strategic.json", "kube-controller-manager", "strategic"),
        ("kubeletconfiguration1.yaml", "kubeletconfiguration", "strategic"),
    ],
)
def test_names_of_patch_files(name: str, target: str, kind: str) -> None:
    [patch] = parse_file(name, "- {op: test, path: '', value: 1}" if kind == "json" else "{a: 1}")
    assert (patch.target, patch.type) == (target, kind)


@pytest.mark.parametrize("name", ["README.md", "kube-apiserver.yml", "kubelet.yaml", "etcd", "x-etcd.yaml"])
def test_other_files_are_left_alone(name: str) -> None:
    assert parse_file(name, "[: not yaml") == []


def test_a_file_with_several_documents_and_an_empty_one() -> None:
    assert [patch.content for patch in parse_file("etcd.yaml", "a: 1\n---\n---\nb: 2\n")] == [
        {"a": 1},
        {"b": 2},
    ]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("etcd+apply.yaml", "a: 1", "no patch type"),
        ("etcd+.yaml", "a: 1", "no patch type"),
        ("etcd.yaml", "a: 1\nb: [", "line 2"),
        ("etcd.yaml", "[1]", "a strategic patch is a mapping"),
        ("etcd+json.yaml", "a: 1", "a json patch is a list"),
    ],
)
def test_files_that_cannot_be_read(name: str, text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        parse_file(name, text)
    assert name in caught.value.message


def test_strategic_merges_lists_by_their_keys() -> None:
    result = strategic(
        {
            "spec": {
                "containers": [
                    {
                        "name": "kube-apiserver",
                        "resources": {"requests": {"memory": "1Gi"}},
                        "volumeMounts": [{"mountPath": "/ca", "readOnly": True}],
                        "command": ["x"],
                    },
                    {"name": "sidecar"},
                ],
                "tolerations": [{"key": "a"}],
            }
        }
    )
    container, sidecar = result["spec"]["containers"]
    assert container["resources"]["requests"] == {"cpu": "250m", "memory": "1Gi"}
    assert container["volumeMounts"] == [
        {"name": "certs", "mountPath": "/pki"},
        {"name": "ca", "mountPath": "/ca", "readOnly": True},
    ]
    assert container["command"] == ["x"]
    assert sidecar == {"name": "sidecar"}
    assert result["spec"]["tolerations"] == [{"key": "a"}]
    assert len(POD["spec"]["containers"]) == 1


def test_new_items_stand_before_those_that_the_patch_does_not_name() -> None:
    result = strategic({"spec": {"volumes": [{"name": "new"}]}})
    assert [volume["name"] for volume in result["spec"]["volumes"]] == ["new", "certs", "ca"]
    result = strategic({"spec": {"volumes": [{"name": "ca"}, {"name": "new"}]}})
    assert [volume["name"] for volume in result["spec"]["volumes"]] == ["certs", "ca", "new"]


def test_strategic_directives() -> None:
    result = strategic(
        {"spec": {"volumes": [{"name": "ca", "$patch": "delete"}]}, "metadata": {"labels": None}}
    )
    assert [volume["name"] for volume in result["spec"]["volumes"]] == ["certs"]
    assert result["metadata"] == {"name": "kube-apiserver"}
    result = strategic({"spec": {"volumes": [{"name": "only"}, {"$patch": "replace"}]}})
    assert result["spec"]["volumes"] == [{"name": "only"}]
    result = strategic({"metadata": {"$patch": "replace", "name": "x"}})
    assert result["metadata"] == {"name": "x"}
    result = strategic(
        {"spec": {"volumes": [{"name": "ca", "$retainKeys": ["name", "emptyDir"], "emptyDir": {}}]}}
    )
    assert result["spec"]["volumes"][1] == {"name": "ca", "emptyDir": {}}


def test_the_pod_of_a_deployment_and_the_kubelets_configuration() -> None:
    deployment = {"spec": {"replicas": 2, "template": POD}}
    patch = {"spec": {"replicas": 3, "template": {"spec": {"volumes": [{"name": "ca", "x": 1}]}}}}
    result = strategic(patch, "corednsdeployment", deployment)
    assert result["spec"]["replicas"] == 3
    assert len(result["spec"]["template"]["spec"]["volumes"]) == 2
    kubelet = strategic({"clusterDNS": ["10.0.0.1"]}, "kubeletconfiguration", {"clusterDNS": ["a", "b"]})
    assert kubelet == {"clusterDNS": ["10.0.0.1"]}


def test_merge() -> None:
    patch = Patch("m", "etcd", PatchType.MERGE, {"a": None, "b": {"c": 1}, "l": [1]})
    assert patched("etcd", {"a": 1, "b": {"d": 2}, "l": [2, 3]}, [patch]) == {"b": {"d": 2, "c": 1}, "l": [1]}


@pytest.mark.parametrize(
    ("operation", "expected"),
    [
        ({"op": "add", "path": "/l/1", "value": 9}, {"l": [1, 9, 2], "a/b": {"c": 3}}),
        ({"op": "add", "path": "/l/-", "value": 9}, {"l": [1, 2, 9], "a/b": {"c": 3}}),
        ({"op": "remove", "path": "/l/0"}, {"l": [2], "a/b": {"c": 3}}),
        ({"op": "replace", "path": "/a~1b/c", "value": 4}, {"l": [1, 2], "a/b": {"c": 4}}),
        ({"op": "replace", "path": "", "value": {"x": 1}}, {"x": 1}),
        ({"op": "move", "from": "/a~1b/c", "path": "/d"}, {"l": [1, 2], "a/b": {}, "d": 3}),
        ({"op": "copy", "from": "/l/0", "path": "/d"}, {"l": [1, 2], "a/b": {"c": 3}, "d": 1}),
        ({"op": "test", "path": "/l", "value": [1, 2]}, {"l": [1, 2], "a/b": {"c": 3}}),
    ],
)
def test_json(operation: dict[str, Any], expected: dict[str, Any]) -> None:
    document = {"l": [1, 2], "a/b": {"c": 3}}
    assert patched("etcd", document, [Patch("j", "etcd", PatchType.JSON, [operation])]) == expected


@pytest.mark.parametrize(
    ("operation", "message"),
    [
        ({"op": "test", "path": "/l", "value": 1}, "the test fails"),
        ({"op": "remove", "path": "/x"}, "there is no 'x'"),
        ({"op": "replace", "path": "/l/2", "value": 1}, "there is no item '2'"),
        ({"op": "add", "path": "/l/x", "value": 1}, "there is no item 'x'"),
        ({"op": "add", "path": "/l/0/x", "value": 1}, "neither a list nor a mapping"),
        ({"op": "add", "path": "/l"}, "has no value"),
        ({"op": "add", "path": "l", "value": 1}, "no JSON pointer"),
        ({"op": "move", "path": "/l"}, "no JSON pointer"),
        ({"op": "merge", "path": "/l", "value": 1}, "no such operation"),
        ({"op": "add"}, "lacks op or path"),
        ("add", "lacks op or path"),
        ({"op": "remove", "path": ""}, "leaves no mapping"),
    ],
)
def test_json_that_does_not_fit_names_its_file(operation: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        patched("etcd", {"l": [1, 2]}, [Patch("etcd+json.yaml", "etcd", PatchType.JSON, [operation])])
    assert "etcd+json.yaml" in caught.value.message


@pytest.mark.parametrize(
    ("patch", "message"),
    [
        ({"spec": {"volumes": [{"path": "x"}]}}, "lacks its name"),
        ({"spec": {"volumes": ["x"]}}, "lacks its name"),
        ({"spec": {"$patch": "merge-it"}}, "not replace"),
        ({"spec": {"volumes": [{"$patch": "delete"}]}}, "neither replace nor delete"),
    ],
)
def test_strategic_that_does_not_fit(patch: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        strategic(patch)


def test_patches_of_other_targets_are_not_applied() -> None:
    assert patched("etcd", {"a": 1}, [Patch("f", "kube-scheduler", PatchType.MERGE, {"a": 2})]) == {"a": 1}
