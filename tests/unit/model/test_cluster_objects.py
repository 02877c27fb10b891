"""Objects in the cluster: what they promise beyond what the real kubeadm's are compared with."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from kubewright.model import addons, addons_builtin, rbac, stored
from kubewright.model.objects import to_yaml
from kubewright.model.versions import facts_for

FACTS = facts_for("v1.20.2")
SUBNET = "10.96.0.0/12"
COREDNS = addons.coredns("coredns:1", "cluster.local", SUBNET, FACTS, replicas=3)
BUILTIN = addons_builtin.builtin_dns("dns:1", "cluster.local", SUBNET, FACTS)
NETWORK = addons_builtin.network_agent("network:1", "10.244.0.0/16", "https://lb.test:6443")


def one(objects: list[dict[str, Any]], kind: str) -> dict[str, Any]:
    [found] = [obj for obj in objects if obj["kind"] == kind]
    return found


def pod(objects: list[dict[str, Any]], kind: str) -> dict[str, Any]:
    spec: dict[str, Any] = one(objects, kind)["spec"]["template"]["spec"]
    return spec


def test_yaml_is_stable_and_readable() -> None:
    text = to_yaml({"b": "one\ntwo\n", "a": [1, {"x": "yes"}], "c": {}}).decode()
    assert text == "a:\n- 1\n- x: 'yes'\nb: |\n  one\n  two\nc: {}\n"


@pytest.mark.parametrize("text", ["1e3", "12E45", "-.5e1", "08", "0o17", "y", "N"])
def test_text_that_go_would_take_for_something_else_is_quoted(text: str) -> None:
    assert to_yaml({"a": text}).decode() == f"a: '{text}'\n"


def test_both_dns_servers_stand_in_the_same_place() -> None:
    for kind in ("ServiceAccount", "ClusterRole", "ClusterRoleBinding", "Service"):
        assert one(COREDNS, kind) == one(BUILTIN, kind)
    for field in ("metadata",):
        assert one(COREDNS, "Deployment")[field] == one(BUILTIN, "Deployment")[field]
    assert one(BUILTIN, "Service")["spec"]["clusterIP"] == "10.96.0.10"
    assert one(BUILTIN, "Deployment")["spec"]["replicas"] == 2
    assert one(COREDNS, "Deployment")["spec"]["replicas"] == 3


def test_dns_replicas_keep_apart_and_stand_every_control_plane_taint() -> None:
    """P04, P05."""
    spec = pod(BUILTIN, "Deployment")
    [term] = spec["affinity"]["podAntiAffinity"]["preferredDuringSchedulingIgnoredDuringExecution"]
    assert term["podAffinityTerm"]["topologyKey"] == "kubernetes.io/hostname"
    tolerated = {item["key"] for item in spec["tolerations"]}
    assert {f"node-role.kubernetes.io/{name}" for name in ("master", "control-plane")} < tolerated


def test_the_dns_server_has_no_right_but_its_port() -> None:
    [container] = pod(BUILTIN, "Deployment")["containers"]
    assert container["securityContext"]["capabilities"] == {"add": ["NET_BIND_SERVICE"], "drop": ["all"]}
    assert container["securityContext"]["readOnlyRootFilesystem"]
    assert [*container["command"], *container["args"]][:3] == ["python3", "-m", "kubewright.dns.server"]


def test_the_dns_server_stands_where_kubeadm_looks_for_coredns() -> None:
    """`kubeadm upgrade plan` reads the Corefile, and the version after the image's last colon; and where kubeadm
    wrote its own Deployment over ours, all of its container is taken back."""
    both = (BUILTIN, addons.coredns("coredns:1.7.0", "cluster.local", SUBNET, FACTS))
    [ours], [theirs] = (pod(objects, "Deployment")["containers"] for objects in both)
    assert ours["name"] == theirs["name"]
    assert set(theirs) - set(ours) == {"volumeMounts"}
    [config], [kubeadms] = (
        [obj["data"] for obj in objects if obj["kind"] == "ConfigMap"] for objects in both
    )
    assert config == kubeadms


def test_the_network_runs_everywhere_and_needs_no_service() -> None:
    """P12, P30."""
    spec = pod(NETWORK, "DaemonSet")
    assert spec["tolerations"] == [{"operator": "Exists"}]
    assert spec["hostNetwork"]
    assert spec["priorityClassName"] == "system-node-critical"
    [container] = spec["containers"]
    words = container["command"]
    assert words[words.index("--api-server") + 1] == "https://lb.test:6443"
    assert container["readinessProbe"]["httpGet"]["port"] == 9879
    assert {mount["name"] for mount in container["volumeMounts"]} == {
        item["name"] for item in spec["volumes"]
    }


def test_kube_proxy_runs_everywhere_and_uses_the_endpoint() -> None:
    """P11, P12, P30."""
    objects = addons.kube_proxy({"clusterCIDR": "10.244.0.0/16"}, "https://lb.test:6443", "proxy:1", FACTS)
    data = one(objects, "ConfigMap")["data"]
    kubeconfig = yaml.safe_load(data["kubeconfig.conf"])
    assert kubeconfig["clusters"][0]["cluster"]["server"] == "https://lb.test:6443"
    assert {"operator": "Exists"} in pod(objects, "DaemonSet")["tolerations"]


def test_only_what_we_made_is_signed() -> None:
    """kubeadm replaces a signed configuration with newer defaults, and leaves the user's own alone."""
    name = "kubeadm.kubernetes.io/component-config.hash"
    config = {"kind": "KubeletConfiguration"}
    made = stored.kubelet_config(config, FACTS)[0]
    assert made["metadata"]["name"] == "kubelet-config-1.20"
    assert made["metadata"]["annotations"] == stored.signature(made["data"])
    assert made["metadata"]["annotations"][name].startswith("sha256:")
    assert "annotations" not in stored.kubelet_config(config, FACTS, by_user=True)[0]["metadata"]


def test_the_digest_is_of_all_texts_in_the_order_of_their_keys() -> None:
    assert stored.signature({"b": "2", "a": "1"}) == stored.signature({"a": "12"})


def test_rotation_is_bound_to_all_nodes() -> None:
    """P23."""
    bindings = {obj["metadata"]["name"]: obj for obj in rbac.node_bootstrap(FACTS)}
    rotation = bindings["kubeadm:node-autoapprove-certificate-rotation"]
    assert rotation["subjects"][0]["name"] == "system:nodes"
    assert rotation["roleRef"]["name"].endswith(":selfnodeclient")


def test_the_api_server_may_ask_kubelets_without_a_group() -> None:
    def binding(version: str) -> dict[str, Any] | None:
        objects = rbac.node_bootstrap(facts_for(version))
        return next(
            (obj for obj in objects if obj["metadata"]["name"] == "kubeadm:apiserver-kubelet-client"), None
        )

    assert binding("v1.36.0") is None
    found = binding("v1.36.1")
    assert found is not None
    assert found["roleRef"]["name"] == "system:kubelet-api-admin"
    assert [(one["kind"], one["name"]) for one in found["subjects"]] == [
        ("User", "kube-apiserver-kubelet-client")
    ]


def node(**fields: Any) -> dict[str, Any]:
    return {"metadata": {"name": "n1", "resourceVersion": "7", **fields.pop("metadata", {})}, "spec": fields}


TAINT = {"key": "node-role.kubernetes.io/master", "effect": "NoSchedule"}


def test_a_node_that_is_marked_is_left_alone() -> None:
    marked = node(
        taints=[{**TAINT, "timeAdded": "2026-03-01T00:00:00Z"}],
        metadata={"labels": {"a": ""}, "annotations": {stored.CRI_SOCKET_ANNOTATION: "/run/x.sock"}},
    )
    assert stored.node_patch(marked, labels={"a": ""}, taints=[TAINT], cri_socket="/run/x.sock") == {}


def test_taints_of_others_stay() -> None:
    other = {"key": "node.kubernetes.io/not-ready", "effect": "NoSchedule"}
    assert stored.node_patch(node(taints=[other]), taints=[TAINT]) == {
        "metadata": {"resourceVersion": "7"},
        "spec": {"taints": [TAINT, other]},
    }


def test_a_taint_with_another_value_is_replaced() -> None:
    patch = stored.node_patch(node(taints=[{**TAINT, "value": "old"}]), taints=[{**TAINT, "value": "new"}])
    assert patch["spec"]["taints"] == [{**TAINT, "value": "new"}]


def test_only_what_is_missing_is_patched() -> None:
    assert stored.node_patch(node(metadata={"labels": {"a": ""}}), labels={"a": "", "b": "1"}) == {
        "metadata": {"labels": {"b": "1"}}
    }
