"""The static Pods: the arguments that matter, and what a configuration changes in them."""

from __future__ import annotations

from typing import Any

import pytest

from kubewright.model.arguments import EtcdMember, authorization_mode
from kubewright.model.config.kubeadm import ClusterConfiguration
from kubewright.model.manifests import manifest_path, static_pods
from kubewright.model.node import ControlPlaneNode
from kubewright.model.versions import facts_for

NODE = ControlPlaneNode("cp1", "10.11.12.13")
FACTS = facts_for("v1.20.2")


def pods(options: dict[str, Any] | None = None, **fields: Any) -> dict[str, Any]:
    return static_pods(ClusterConfiguration.model_validate(fields), NODE, FACTS, **(options or {}))


def container(pod: Any) -> Any:
    return pod["spec"]["containers"][0]


def flags(pod: Any) -> dict[str, str]:
    command = container(pod)["command"]
    found = dict(word.removeprefix("--").split("=", 1) for word in command[1:])
    assert list(found) == sorted(found)
    return found


def test_kubeadms_command_lines() -> None:
    """Recorded from kubeadm 1.20.2; the integration tests compare everything with the real one."""
    made = pods(networking={"podSubnet": "10.244.0.0/16"})
    assert container(made["kube-scheduler"])["command"] == [
        "kube-scheduler",
        "--authentication-kubeconfig=/etc/kubernetes/scheduler.conf",
        "--authorization-kubeconfig=/etc/kubernetes/scheduler.conf",
        "--bind-address=127.0.0.1",
        "--kubeconfig=/etc/kubernetes/scheduler.conf",
        "--leader-elect=true",
        "--port=0",
    ]
    api = flags(made["kube-apiserver"])
    assert len(api) == 28
    assert api["etcd-servers"] == "https://127.0.0.1:2379"
    assert api["authorization-mode"] == "Node,RBAC"
    controller = flags(made["kube-controller-manager"])
    assert len(controller) == 18
    assert controller["controllers"] == "*,bootstrapsigner,tokencleaner"
    assert controller["cluster-cidr"] == "10.244.0.0/16"
    etcd = flags(made["etcd"])
    assert len(etcd) == 17
    assert etcd["initial-cluster"] == "cp1=https://10.11.12.13:2380"
    assert etcd["listen-client-urls"] == "https://127.0.0.1:2379,https://10.11.12.13:2379"
    assert manifest_path("etcd") == "/etc/kubernetes/manifests/etcd.yaml"


def test_no_component_is_made_to_talk() -> None:
    """P03: verbosity stays at the components' own 0 unless asked for."""
    assert not any("v" in flags(pod) for pod in pods().values())
    assert flags(pods(scheduler={"extraArgs": {"v": "4"}})["kube-scheduler"])["v"] == "4"


def test_what_the_user_says_comes_last() -> None:
    api = flags(
        pods(apiServer={"extraArgs": {"secure-port": "7443", "audit-log-path": "/x"}})["kube-apiserver"]
    )
    assert api["secure-port"] == "7443"
    assert api["audit-log-path"] == "/x"


def test_a_joining_etcd_member_names_all() -> None:
    members = [EtcdMember("cp0", "https://10.11.12.10:2380"), EtcdMember("cp1", "https://10.11.12.13:2380")]
    etcd = flags(pods({"etcd_members": members})["etcd"])
    assert etcd["initial-cluster"] == "cp0=https://10.11.12.10:2380,cp1=https://10.11.12.13:2380"
    assert etcd["initial-cluster-state"] == "existing"


def test_without_the_cas_key_nothing_is_signed() -> None:
    controller = flags(pods({"external_ca": True})["kube-controller-manager"])
    assert controller["cluster-signing-key-file"] == controller["cluster-signing-cert-file"] == ""


def test_an_external_etcd_is_reached_and_not_run() -> None:
    external = {
        "endpoints": ["https://192.0.2.1:2379", "https://192.0.2.2:2379"],
        "caFile": "/opt/etcd/pki/ca.crt", "certFile": "/opt/etcd/client.crt", "keyFile": "/etc/pki/client.key",
    }  # fmt: skip
    made = pods(etcd={"external": external})
    assert "etcd" not in made
    api = flags(made["kube-apiserver"])
    assert api["etcd-servers"] == "https://192.0.2.1:2379,https://192.0.2.2:2379"
    assert api["etcd-cafile"] == "/opt/etcd/pki/ca.crt"
    mounts = {item["mountPath"]: item["name"] for item in container(made["kube-apiserver"])["volumeMounts"]}
    assert mounts["/opt/etcd"] == "etcd-certs-0"
    assert "/opt/etcd/pki" not in mounts


def test_ca_directories_of_the_host_are_mounted_where_they_are() -> None:
    made = pods({"ca_dirs": ["/usr/share/ca-certificates"]})
    for name in ("kube-apiserver", "kube-controller-manager"):
        volumes = {item["name"]: item["hostPath"] for item in made[name]["spec"]["volumes"]}
        assert volumes["usr-share-ca-certificates"] == {
            "path": "/usr/share/ca-certificates", "type": "DirectoryOrCreate",
        }  # fmt: skip
        assert list(volumes) == sorted(volumes)


def test_a_volume_of_the_user_replaces_ours_of_that_name() -> None:
    volume = {"name": "ca-certs", "hostPath": "/srv/certs", "mountPath": "/etc/ssl/certs"}
    made = pods(apiServer={"extraVolumes": [volume]})["kube-apiserver"]
    mounts = [item for item in container(made)["volumeMounts"] if item["name"] == "ca-certs"]
    assert mounts == [{"name": "ca-certs", "mountPath": "/etc/ssl/certs"}]


def test_probes_follow_the_address_that_is_listened_on() -> None:
    made = pods(
        scheduler={"extraArgs": {"bind-address": "0.0.0.0"}}, apiServer={"timeoutForControlPlane": "95s"}
    )
    assert "host" not in container(made["kube-scheduler"])["livenessProbe"]["httpGet"]
    api = container(made["kube-apiserver"])
    assert api["startupProbe"]["failureThreshold"] == 10
    assert api["readinessProbe"]["httpGet"]["host"] == "10.11.12.13"


def test_an_ipv6_node_uses_ipv6_loopback() -> None:
    cluster = ClusterConfiguration()
    made = static_pods(cluster, ControlPlaneNode("cp1", "fd00::5"), FACTS)
    assert flags(made["kube-apiserver"])["etcd-servers"] == "https://[::1]:2379"
    assert container(made["etcd"])["livenessProbe"]["httpGet"]["host"] == "::1"
    annotations = made["kube-apiserver"]["metadata"]["annotations"]
    assert list(annotations.values()) == ["[fd00::5]:6443"]


def test_proxy_variables_reach_the_servers_but_not_etcd() -> None:
    made = pods({"proxy_env": {"HTTPS_PROXY": "http://proxy.test"}})
    with_env = {name for name, pod in made.items() if "env" in container(pod)}
    assert with_env == {"kube-apiserver", "kube-controller-manager", "kube-scheduler"}


@pytest.mark.parametrize(
    ("asked", "modes"),
    [("", "Node,RBAC"), ("RBAC", "RBAC"), ("Webhook,Unheard", "Webhook"), ("Unheard", "Node,RBAC")],
)
def test_authorization_modes(asked: str, modes: str) -> None:
    assert authorization_mode(asked) == modes
