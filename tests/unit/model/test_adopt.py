"""A cluster.yaml that is written for a cluster of kubeadm's comes to the same configuration when it is read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.model.test_golden import VERSIONS

from kubewright.errors import ConfigError, ExitCode
from kubewright.model import addons, addons_builtin, stored
from kubewright.model.adopt import Remarks, Seen, adopt
from kubewright.model.config.cluster import ClusterSpec, HostSpec
from kubewright.model.config.components import (
    kube_proxy_configuration,
    kube_proxy_document,
    kubelet_configuration,
    kubelet_document,
)
from kubewright.model.config.kubeadm import (
    ClusterConfiguration,
    completed,
    default_cluster_configuration,
    to_stored,
)
from kubewright.model.config.load import parse_cluster
from kubewright.model.manifests import static_pods
from kubewright.model.node import ControlPlaneNode
from kubewright.model.objects import Object
from kubewright.model.versions import facts_for
from kubewright.workflows.join_desired import cluster_configuration

PODS = {"networking": {"podSubnet": "10.244.0.0/16"}}
VOLUME = {"name": "audit", "hostPath": "/srv/audit", "mountPath": "/audit", "pathType": "DirectoryOrCreate"}
EXTERNAL = {
    "endpoints": ["https://10.0.0.31:2379", "https://10.0.0.32:2379"], "caFile": "/root/etcd/ca.crt",
    "certFile": "/root/etcd/client.crt", "keyFile": "/root/etcd/client.key",
}  # fmt: skip
CONFIGURATIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "pods": PODS,
    "names": {
        **PODS, "clusterName": "blue", "controlPlaneEndpoint": "api.example.com:6443",
        "certificatesDir": "/etc/kubernetes/certs", "imageRepository": "registry.test/k8s",
    },
    "networks": {
        "networking": {"podSubnet": "10.32.0.0/24", "serviceSubnet": "10.33.0.0/20", "dnsDomain": "blue.test"},
        "controllerManager": {"extraArgs": {"node-cidr-mask-size": "28"}},
    },
    "servers": {
        **PODS,
        "apiServer": {
            "extraArgs": {"profiling": "false", "audit-log-path": "-", "authorization-mode": "RBAC,Node"},
            "extraVolumes": [VOLUME, {"name": "x", "hostPath": "/x", "mountPath": "/x", "readOnly": True}],
            "certSANs": ["api.other.test", "192.0.2.7", "*.wild.example.test"],
            "timeoutForControlPlane": "95s",
        },
        "controllerManager": {"extraArgs": {"bind-address": "0.0.0.0", "feature-gates": ""}},
        "scheduler": {"extraArgs": {"bind-address": "0.0.0.0"}, "extraVolumes": [VOLUME]},
        "dns": {"imageRepository": "registry.test/dns", "imageTag": "v9"},
    },
    "etcd": {
        **PODS,
        "etcd": {
            "local": {
                "dataDir": "/srv/etcd", "imageTag": "3.9.9-0", "extraArgs": {"snapshot-count": "5000"},
                "serverCertSANs": ["etcd.test"], "peerCertSANs": ["192.0.2.9"],
            }
        },
    },
    "external-etcd": {**PODS, "etcd": {"external": EXTERNAL}},
    "local-endpoint": {**PODS, "controlPlaneEndpoint": "127.0.0.1:8443"},
}  # fmt: skip
KUBELET = {
    "maxPods": 77, "serializeImagePulls": False, "evictionHard": {"memory.available": "1Gi"},
    "authentication": {"webhook": {"cacheTTL": "2m0s"}}, "cgroupDriver": "systemd",
    "clusterDNS": ["169.254.20.10"],
}  # fmt: skip
KUBE_PROXY = {"mode": "ipvs", "conntrack": {"maxPerCore": 0, "min": 0}, "ipvs": {"strictARP": True}}
THROUGH = HostSpec.model_validate(
    {"name": "cp1", "address": "cp1.example.com", "ssh": {"user": "admin", "port": 22, "keyFiles": ["/k"]}}
)


def node(
    name: str, ip: str, *, plane: str = "", taints: Sequence[Mapping[str, str]] = (), version: str = "v1.20.2",
    labels: Mapping[str, str] | None = None, annotations: Mapping[str, str] | None = None,
) -> Object:  # fmt: skip
    """A Node; `plane` is the last word of the labels and taints of a control plane."""
    own = {"kubernetes.io/os": "linux", "beta.kubernetes.io/arch": "amd64", "cloud.k8s.io/zone": "1"}
    if plane:
        own[f"node-role.kubernetes.io/{plane}"] = ""
        own["node-role.kubernetes.io/control-plane"] = ""
    info = {"kubeletVersion": version, "containerRuntimeVersion": "containerd://1.6.20"}
    return {
        "metadata": {
            "name": name,
            "labels": own | dict(labels or {}),
            "annotations": dict(annotations or {}),
        },
        "spec": {"taints": [dict(taint) for taint in taints]},
        "status": {
            "addresses": [{"type": "Hostname", "address": name}, {"type": "InternalIP", "address": ip}],
            "nodeInfo": info,
        },
    }


def dedicated(version: str) -> list[dict[str, str]]:
    return [{"key": key, "effect": "NoSchedule"} for key in facts_for(version).control_plane_taints]


def seen(version: str = "v1.20.2", configuration: Mapping[str, Any] = PODS, **others: Any) -> Seen:
    """A cluster of kubeadm's with a control plane and a worker, read out of its ConfigMap."""
    facts = facts_for(version)
    said = ClusterConfiguration.model_validate({"kubernetesVersion": version, **configuration})
    if "imageRepository" not in configuration:
        said = said.model_copy(update={"image_repository": facts.image_repository})
    config = stored.kubeadm_config(to_stored(completed(said)), None)[0]
    cluster = cluster_configuration(config)
    found = Seen(
        cluster=cluster,
        kubelet=kubelet_document({}, cluster, resolv_conf="/run/systemd/resolve/resolv.conf"),
        kube_proxy=kube_proxy_document({}, cluster),
        has_kube_proxy=True,
        nodes=[
            node("w1", "10.0.0.21", version=version),
            node("cp1", "10.0.0.11", plane="master", taints=dedicated(version), version=version),
        ],
        api_servers=[],
        dns=deployment(addons.coredns("coredns:1.7.0", "cluster.local", "10.96.0.0/12", facts)),
        corefile=addons.corefile(cluster.networking.dns_domain, facts),
        own_network=False,
        version=version,
    )
    return replace(found, **others)


def deployment(objects: Sequence[Object]) -> Object:
    return next(obj for obj in objects if obj["kind"] == "Deployment")


def adopted(found: Seen, through: HostSpec = THROUGH) -> tuple[dict[str, Any], ClusterSpec, Remarks]:
    text, spec, remarks = adopt(found, through, "from a test")
    assert text.startswith("# from a test\napiVersion: ")
    assert parse_cluster(text) == spec
    return yaml.safe_load(text), spec, remarks


def without_log_rotation(document: Mapping[str, Any]) -> dict[str, Any]:
    """What cluster.yaml always says of it, and kubeadm never: the kubelet's own defaults (P03)."""
    return {name: value for name, value in document.items() if not name.startswith("containerLogMax")}


def assert_same(found: Seen, spec: ClusterSpec) -> None:
    """What `apply` would write is what the cluster has."""
    cluster = default_cluster_configuration(spec)
    assert to_stored(cluster) == to_stored(found.cluster)
    facts, plane = facts_for(cluster.kubernetes_version), ControlPlaneNode("cp1", "10.0.0.11")
    assert static_pods(cluster, plane, facts) == static_pods(found.cluster, plane, facts)
    resolv_conf = found.kubelet.get("resolvConf", "")
    kubelet = kubelet_configuration(spec, resolv_conf=resolv_conf)
    assert without_log_rotation(kubelet) == found.kubelet
    assert kube_proxy_configuration(spec) == found.kube_proxy


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_what_is_read_comes_to_the_same_configuration(version: str, name: str) -> None:
    found = seen(version, CONFIGURATIONS[name])
    _, spec, _ = adopted(found)
    assert_same(found, spec)


@pytest.mark.parametrize("version", VERSIONS)
def test_the_components_fields_are_kept(version: str) -> None:
    cluster = seen(version).cluster
    kubelet = kubelet_document(KUBELET, cluster, resolv_conf="/etc/my-resolv.conf")
    found = seen(version, kubelet=kubelet, kube_proxy=kube_proxy_document(KUBE_PROXY, cluster))
    document, spec, remarks = adopted(found)
    assert_same(found, spec)
    assert document["kubeletConfiguration"].keys() <= KUBELET.keys() | {"resolvConf"}
    assert document["kubeletConfiguration"]["resolvConf"] == "/etc/my-resolv.conf", "no host's own"
    assert document["kubeProxyConfiguration"] == KUBE_PROXY
    assert remarks.warnings == []


@pytest.mark.parametrize("version", VERSIONS)
def test_what_follows_from_the_rest_is_not_said(version: str) -> None:
    document, _, remarks = adopted(seen(version))
    assert document == {
        "apiVersion": "kubewright.dev/v1alpha1",
        "kind": "Cluster",
        "name": "kubernetes",
        "kubernetesVersion": version,
        "ssh": {"user": "admin", "keyFiles": ["/k"]},
        "hosts": [
            {"name": "cp1", "address": "cp1.example.com", "roles": ["control-plane"]},
            {"name": "w1", "address": "10.0.0.21", "roles": ["worker"]},
        ],
        "network": {
            "plugin": "none", "podSubnet": "10.244.0.0/16", "serviceSubnet": "10.96.0.0/12",
            "dnsDomain": "cluster.local",
        },
        "dns": {"provider": "coredns", "replicas": 2},
    }  # fmt: skip
    assert remarks.warnings == []
    assert len(remarks.notes) == 2, "where SSH leads, and the pod network"


ODD = st.one_of(
    st.text(st.characters(exclude_categories=["C"]), max_size=12),
    st.sampled_from(
        ["1e3", "12e45", "0x1f", "010", "1_000", "yes", "null", "~", "", "2001-01-01", "a\nb\n", "- x"]
    ),
    st.integers().map(str),
)


@given(st.dictionaries(st.from_regex(r"[a-z][a-z-]{0,8}[a-z]", fullmatch=True), ODD, max_size=4))
@settings(max_examples=25, deadline=None)
def test_any_argument_is_read_as_it_was_written(arguments: dict[str, str]) -> None:
    for version in ("v1.20.2", "v1.31.12"):
        found = seen(version, {**PODS, "apiServer": {"extraArgs": arguments}})
        _, spec, _ = adopted(found)
        assert_same(found, spec)


# -- the endpoint, DNS and the network ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("said", "endpoint"),
    [
        ("api.example.com:443", {"type": "external", "address": "api.example.com:443"}),
        ("10.0.0.5", {"type": "external", "address": "10.0.0.5:6443"}),
        ("127.0.0.1:8443", {"type": "local", "address": "127.0.0.1:8443"}),
        ("127.0.0.1:6443", {"type": "external", "address": "127.0.0.1:6443"}),
        ("", None),
    ],
)
def test_endpoints(said: str, endpoint: dict[str, str] | None) -> None:
    document, _, remarks = adopted(seen(configuration={**PODS, "controlPlaneEndpoint": said}))
    assert document.get("endpoint") == endpoint
    assert any("proxy on every node" in text for text in remarks.warnings) == (
        endpoint is not None and endpoint["type"] == "local"
    )


def test_our_own_network_and_dns_are_known() -> None:
    facts = facts_for("v1.20.2")
    dns = deployment(addons_builtin.builtin_dns("x", "cluster.local", "10.96.0.0/12", facts, replicas=3))
    document, _, remarks = adopted(seen(own_network=True, dns=dns))
    assert document["network"]["plugin"] == "builtin"
    assert document["dns"] == {"provider": "builtin", "replicas": 3}
    assert len(remarks.notes) == 1


def test_a_cluster_without_a_pod_subnet() -> None:
    document, spec, _ = adopted(seen(configuration={}))
    assert document["network"]["podSubnet"] == spec.network.pod_subnet == ""


def test_an_external_etcd_keeps_its_files_where_they_are() -> None:
    document, spec, remarks = adopted(seen(configuration=CONFIGURATIONS["external-etcd"]))
    assert document["clusterConfiguration"] == {"etcd": {"external": EXTERNAL}}
    assert spec.etcd is None
    assert remarks.warnings == []


# -- hosts -------------------------------------------------------------------------------------------------------

MASTER = {"key": "node-role.kubernetes.io/master", "effect": "NoSchedule"}
PLANE = {"key": "node-role.kubernetes.io/control-plane", "effect": "NoSchedule"}
OWN = {"key": "dedicated", "value": "db", "effect": "NoExecute"}
PASSING = {"key": "node.kubernetes.io/not-ready", "effect": "NoExecute", "timeAdded": "2024-01-01T00:00:00Z"}


@pytest.mark.parametrize(
    ("version", "taints", "roles", "said"),
    [
        ("v1.20.2", [MASTER, PASSING], ["control-plane"], None),
        ("v1.20.2", [], ["control-plane", "worker"], None),
        ("v1.20.2", [PASSING], ["control-plane", "worker"], None),
        ("v1.20.2", [OWN], ["control-plane", "worker"], [OWN]),
        ("v1.20.2", [OWN, MASTER], ["control-plane"], [OWN, MASTER]),
        ("v1.24.14", [PLANE, MASTER], ["control-plane"], None),
        ("v1.24.14", [PLANE], ["control-plane"], [PLANE]),
        ("v1.29.6", [PLANE], ["control-plane"], None),
        ("v1.29.6", [MASTER], ["control-plane"], [MASTER]),
    ],
)
def test_roles_and_taints_of_a_control_plane(
    version: str, taints: list[dict[str, str]], roles: list[str], said: list[dict[str, str]] | None
) -> None:
    plane = node("cp1", "10.0.0.11", plane="control-plane", taints=taints, version=version)
    document, _, _ = adopted(seen(version, nodes=[plane]))
    [host] = document["hosts"]
    assert host["roles"] == roles
    assert host.get("taints") == said


def test_a_workers_marks_are_the_users_alone() -> None:
    worker = node(
        "w1", "10.0.0.21", taints=[PASSING, OWN], labels={"disk": "ssd", "example.com/rack": "1e3"},
        annotations={"alpha.kubernetes.io/provided-node-ip": "192.168.0.21"},
    )  # fmt: skip
    document, spec, _ = adopted(seen(nodes=[*seen().nodes[1:], worker]))
    assert document["hosts"][1] == {
        "name": "w1", "address": "10.0.0.21", "roles": ["worker"], "nodeIP": "192.168.0.21",
        "labels": {"disk": "ssd", "example.com/rack": "1e3"}, "taints": [OWN],
    }  # fmt: skip
    assert spec.hosts[1].labels["example.com/rack"] == "1e3"


def test_the_host_that_was_asked_is_reached_as_it_was() -> None:
    through = HostSpec.model_validate({"name": "cp1", "address": "local", "nodeIP": "10.9.9.9"})
    document, _, _ = adopted(seen(), through)
    assert document["hosts"][0]["address"] == "local"
    assert document["hosts"][0]["nodeIP"] == "10.9.9.9"
    assert "ssh" not in document


def test_several_control_planes_come_first() -> None:
    planes = [node(name, f"10.0.0.1{name[-1]}", plane="master", taints=[MASTER]) for name in ("cp2", "cp1")]
    workers = [node("a1", "10.0.0.21")]
    ha = {**PODS, "controlPlaneEndpoint": "api.example.com:6443"}
    document, _, _ = adopted(seen(configuration=ha, nodes=[*workers, *planes]))
    assert [host["name"] for host in document["hosts"]] == ["cp1", "cp2", "a1"]


# -- remarks -----------------------------------------------------------------------------------------------------


def only(remarks: Sequence[str], *words: str) -> None:
    [said] = remarks
    assert all(word in said for word in words), said


def test_kubelets_of_another_version_and_runtime() -> None:
    docker = node("w1", "10.0.0.21", version="v1.19.4")
    docker["status"]["nodeInfo"]["containerRuntimeVersion"] = "docker://20.10.1"
    _, _, remarks = adopted(seen(nodes=[*seen().nodes[1:], docker]))
    only([text for text in remarks.warnings if "another version" in text], "w1 (v1.19.4)", "v1.20.2")
    only([text for text in remarks.warnings if "runtime" in text], "w1 (docker://20.10.1)", "containerd")
    assert len(remarks.warnings) == 2


def test_a_builders_mark_is_no_other_version() -> None:
    marked = [node("cp1", "10.0.0.11", plane="master", taints=[MASTER], version="v1.20.2+deb1")]
    found = replace(seen(nodes=marked), version="v1.20.2+deb1")
    assert adopted(found)[2].warnings == []


def test_an_upgrade_that_was_not_finished() -> None:
    found = replace(seen(), version="v1.21.3")
    only(adopted(found)[2].warnings, "the API server is v1.21.3", "v1.20.2")


@pytest.mark.parametrize("advertised", ["10.0.0.11:7443", "192.168.0.11:6443"])
def test_an_api_server_elsewhere(advertised: str) -> None:
    pod = {
        "metadata": {
            "annotations": {"kubeadm.kubernetes.io/kube-apiserver.advertise-address.endpoint": advertised}
        },
        "spec": {"nodeName": "cp1"},
    }
    only(adopted(seen(api_servers=[pod]))[2].warnings, advertised, "10.0.0.11:6443")


def test_a_node_without_an_address_goes_by_its_name() -> None:
    worker = node("w1.example.com", "")
    worker["status"]["addresses"] = []
    document, _, remarks = adopted(seen(nodes=[*seen().nodes[1:], worker]))
    assert document["hosts"][1]["address"] == "w1.example.com"
    only(remarks.warnings, "w1.example.com", "no InternalIP")


def test_parts_that_the_cluster_does_not_have() -> None:
    document, _, remarks = adopted(seen(kubelet={}, kube_proxy={}, has_kube_proxy=False, dns={}))
    assert not {"kubeletConfiguration", "kubeProxyConfiguration", "dns"} & document.keys()
    assert len(remarks.warnings) == 3
    idle = seen().dns
    idle["spec"]["replicas"] = 0
    document, _, remarks = adopted(seen(dns=idle))
    assert document["dns"]["replicas"] == 1
    only(remarks.warnings, "no replicas")


def test_a_corefile_of_the_users_own_is_not_lost_unsaid() -> None:
    own = seen().corefile.replace("/etc/resolv.conf", "10.0.0.2")
    only(adopted(seen(corefile=own))[2].warnings, "another Corefile", "kube-system/coredns")


def test_a_kube_proxy_that_was_taken_out_keeps_its_configuration() -> None:
    proxy = kube_proxy_document({"mode": "ipvs"}, seen().cluster)
    document, _, remarks = adopted(seen(kube_proxy=proxy, has_kube_proxy=False))
    assert document["kubeProxyConfiguration"] == {"mode": "ipvs"}
    only(remarks.warnings, "no kube-proxy")


def test_fields_that_cannot_be_left_out() -> None:
    found = seen()
    kubelet = {name: value for name, value in found.kubelet.items() if name != "healthzPort"}
    del kubelet["syncFrequency"]  # which says nothing where it is, too
    proxy = {**found.kube_proxy, "clusterCIDR": ""}
    _, _, remarks = adopted(seen(kubelet=kubelet, kube_proxy=proxy))
    only([text for text in remarks.warnings if "kubeletConf" in text], ": healthzPort")
    only([text for text in remarks.warnings if "kubeProxyConf" in text], ": clusterCIDR")
    assert len(remarks.warnings) == 2


def test_a_cgroup_driver_that_nobody_says_is_the_kubelets_own() -> None:
    """kubeadm gives new clusters another one: with that, kubelets could not start their Pods."""
    kubelet = {name: value for name, value in seen("v1.24.14").kubelet.items() if name != "cgroupDriver"}
    document, _, remarks = adopted(seen("v1.24.14", kubelet=kubelet))
    assert document["kubeletConfiguration"] == {"cgroupDriver": "cgroupfs"}
    assert any("cgroupDriver" in text for text in remarks.notes)
    assert "kubeletConfiguration" not in adopted(seen("v1.20.2"))[0]


def test_a_host_that_is_no_node() -> None:
    elsewhere = THROUGH.model_copy(update={"name": "bastion"})
    document, _, remarks = adopted(seen(), elsewhere)
    assert document["hosts"][0]["address"] == "10.0.0.11"
    assert any("no Node is called bastion" in text for text in remarks.notes)


# -- clusters that cannot be described ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("found", "words", "code"),
    [
        (seen(configuration={**PODS, "etcd": {"external": {"endpoints": ["http://10.0.0.3:2379"]}}}),
         "without TLS", ExitCode.CONFIG_INVALID),
        (seen("v1.31.12", {**PODS, "dns": {"disabled": True}}), "not supported yet", ExitCode.CONFIG_INVALID),
        (seen(nodes=[node("w1", "10.0.0.21")]), "no host is a control plane", ExitCode.CONFIG_INVALID),
        (seen(kubelet={**seen().kubelet, "maxPodz": 3}), "maxPodz", ExitCode.CONFIG_UNKNOWN_FIELD),
    ],
)  # fmt: skip
def test_a_cluster_that_no_file_describes(found: Seen, words: str, code: ExitCode) -> None:
    with pytest.raises(ConfigError) as caught:
        adopt(found, THROUGH, "from a test")
    assert caught.value.message.startswith("no cluster.yaml can describe cluster kubernetes: ")
    assert words in caught.value.message
    assert caught.value.exit_code is code


def test_an_address_that_cluster_yaml_does_not_take() -> None:
    odd = HostSpec.model_construct(name="cp1", address="cp_1", ssh=THROUGH.ssh)
    with pytest.raises(ConfigError, match="'cp_1' is not an IP address"):
        adopt(seen(), odd, "from a test")
