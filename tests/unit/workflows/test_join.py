"""What `join` is told, and what a joining node must be by its cluster's own words."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.unit.phases.memory_host import MemoryHost

from kubewright.cli.join import join as command
from kubewright.errors import ConfigError, ExitCode
from kubewright.hosts import FileWrite, HostFacts
from kubewright.model import stored
from kubewright.model.arguments import EtcdMember
from kubewright.model.config.cluster import HostSpec, Role
from kubewright.model.config.documents import read_documents
from kubewright.model.config.kubeadm_types import ClusterConfiguration, Etcd, ExternalEtcd
from kubewright.model.objects import config_map
from kubewright.model.patches import Patch, PatchType
from kubewright.model.versions import facts_for
from kubewright.phases.node import Node
from kubewright.workflows.join_desired import JoinDesired, cluster_configuration
from kubewright.workflows.join_settings import (
    JoinSettings,
    configuration,
    ignored_options,
    join_settings,
)
from kubewright.workflows.join_tree import JOIN, discovers
from kubewright.workflows.tree import paths

TOKEN = "abcdef.0123456789abcdef"
OTHER = "222222.0123456789abcdef"
HASH = "sha256:" + "0" * 64
BY_TOKEN = {"api-server-endpoint": "192.0.2.10:6443", "token": TOKEN, "discovery-token-ca-cert-hash": [HASH]}
GOLDEN = Path(__file__).parents[1] / "golden"


# -- the tree -----------------------------------------------------------------------------------------------------


def test_the_phases_are_those_of_kubeadm_1_20() -> None:
    assert [path for path, step in paths(JOIN) if not step.hidden] == [
        "preflight",
        "control-plane-prepare",
        "control-plane-prepare/download-certs",
        "control-plane-prepare/certs",
        "control-plane-prepare/kubeconfig",
        "control-plane-prepare/control-plane",
        "kubelet-start",
        "control-plane-join",
        "control-plane-join/etcd",
        "control-plane-join/update-status",
        "control-plane-join/mark-control-plane",
    ]


def test_the_phases_options_are_options_of_the_command() -> None:
    options = {
        name.removeprefix("--") for param in command.params for name in (*param.opts, param.name or "")
    }
    for path, step in paths(JOIN):
        assert set(step.flags) <= options, path


def test_which_phases_are_told_how_to_find_the_cluster() -> None:
    assert discovers("")
    assert discovers("kubelet-start")
    assert discovers("control-plane-prepare")
    assert not discovers("control-plane-prepare/control-plane")
    assert not discovers("control-plane-join/etcd")


# -- options and file ---------------------------------------------------------------------------------------------


def test_one_token_is_for_both_uses() -> None:
    discovery = configuration(BY_TOKEN, None).discovery
    assert discovery.bootstrap_token is not None
    assert discovery.bootstrap_token.token.reveal() == TOKEN
    assert discovery.tls_bootstrap_token is not None
    assert discovery.tls_bootstrap_token.reveal() == TOKEN


def test_each_use_may_have_its_own_token() -> None:
    discovery = configuration(BY_TOKEN | {"tls-bootstrap-token": OTHER}, None).discovery
    assert discovery.bootstrap_token is not None
    assert discovery.bootstrap_token.token.reveal() == TOKEN
    assert discovery.tls_bootstrap_token is not None
    assert discovery.tls_bootstrap_token.reveal() == OTHER


def test_with_a_file_the_token_is_the_kubelets() -> None:
    discovery = configuration({"discovery-file": "file:///root/d.conf", "token": TOKEN}, None).discovery
    assert discovery.bootstrap_token is None
    assert discovery.file is not None
    assert discovery.file.kube_config_path == "/root/d.conf"
    assert discovery.tls_bootstrap_token is not None


def test_a_control_planes_options_need_control_plane() -> None:
    said = BY_TOKEN | {"apiserver-bind-port": 7443, "certificate-key": "00" * 32}
    assert configuration(said, None).control_plane is None
    assert ignored_options(said) == ["--apiserver-bind-port", "--certificate-key"]
    control_plane = configuration(said | {"control-plane": True}, None).control_plane
    assert control_plane is not None
    assert control_plane.local_api_endpoint.bind_port == 7443
    assert ignored_options(said | {"control-plane": True}) == []


@pytest.mark.parametrize(
    ("said", "why"),
    [
        (BY_TOKEN | {"token": "nonsense"}, "--discovery-token: not a bootstrap token"),
        ({**BY_TOKEN, "discovery-token-ca-cert-hash": ["sha256:12"]}, "--discovery-token-ca-cert-hash"),
        ({"api-server-endpoint": "192.0.2.10:6443", "token": TOKEN}, "anybody could pass"),
        ({"api-server-endpoint": "192.0.2.10:6443"}, "known by a token"),
        (
            BY_TOKEN | {"control-plane": True, "certificate-key": "abc"},
            "--certificate-key: not a certificate key",
        ),
        (BY_TOKEN | {"node-name": "Not A Name"}, "--node-name"),
        (BY_TOKEN | {"control-plane": True, "apiserver-bind-port": 70000}, "--apiserver-bind-port"),
    ],
)
def test_wrong_options_are_named(said: dict[str, Any], why: str) -> None:
    with pytest.raises(ConfigError, match=why) as caught:
        configuration(said, None)
    assert "nonsense" not in str(caught.value)


FILE = f"""
apiVersion: kubeadm.k8s.io/v1beta2
kind: JoinConfiguration
nodeRegistration: {{name: from-file}}
discovery:
  bootstrapToken: {{token: {TOKEN}, apiServerEndpoint: "192.0.2.10:6443", caCertHashes: ["{HASH}"]}}
"""


def test_a_file_and_the_options_that_go_beside_it() -> None:
    documents = read_documents(FILE)
    assert configuration({}, documents).node_registration.name == "from-file"
    join = configuration({"node-name": "from-flag", "cri-socket": "/run/x.sock"}, documents)
    assert (join.node_registration.name, join.node_registration.cri_socket) == ("from-flag", "/run/x.sock")
    with pytest.raises(ConfigError, match="--config and --control-plane, --token exclude") as caught:
        configuration({"token": TOKEN, "control-plane": True}, documents)
    assert caught.value.exit_code is ExitCode.USAGE
    with pytest.raises(ConfigError, match="no JoinConfiguration"):
        configuration({}, read_documents("apiVersion: kubeadm.k8s.io/v1beta2\nkind: ClusterConfiguration\n"))


class Quiet(MemoryHost):
    """A host whose commands print nothing: it has no runtime's socket."""

    async def run(self, argv: Any, **options: Any) -> Any:
        from kubewright.hosts import Completed

        return Completed(tuple(argv), 0)


def node(*, control_plane: bool = False, resolv_conf: str = "/etc/resolv.conf") -> Node:
    spec = HostSpec(
        name="n1", address="192.0.2.1", roles=[Role.CONTROL_PLANE if control_plane else Role.WORKER]
    )
    facts = HostFacts(
        "n1", "debian", "12", "", "amd64", "", 2, 4 << 30, 0, True, "systemd", 2, 0, "192.0.2.1", (), (),
        resolv_conf=resolv_conf,
    )  # fmt: skip
    return Node(spec, Quiet(), facts, "192.0.2.1")


async def settled(said: dict[str, Any], here: Node, *, discovers: bool = True) -> JoinSettings:
    return await join_settings(here, configuration(said, None), said, discovers=discovers)


async def test_what_is_not_said_is_found_on_the_host() -> None:
    settings = await settled(BY_TOKEN | {"control-plane": True}, node(control_plane=True))
    assert settings.join.node_registration.name == "n1"
    assert settings.join.node_registration.cri_socket == "/run/containerd/containerd.sock"
    assert settings.join.control_plane is not None
    assert settings.join.control_plane.local_api_endpoint.advertise_address == "192.0.2.1"


async def test_a_host_with_an_admin_conf_needs_no_discovery() -> None:
    here = node(control_plane=True)
    with pytest.raises(ConfigError, match="which cluster"):
        await settled({}, here)
    with pytest.raises(ConfigError, match="by which this phase reaches"):
        await settled({"control-plane": True}, here, discovers=False)
    await here.host.write_files([FileWrite("/etc/kubernetes/admin.conf", b"x")])
    assert (await settled({"control-plane": True}, here)).by_admin_conf
    assert (await settled({"control-plane": True}, here, discovers=False)).by_admin_conf
    assert not (await settled(BY_TOKEN, here)).by_admin_conf  # a worker asks for its own certificate


async def test_an_address_without_a_port_is_named() -> None:
    with pytest.raises(ConfigError, match=r"API-SERVER-ENDPOINT: '192\.0\.2\.10' is not host:port"):
        await settled(BY_TOKEN | {"api-server-endpoint": "192.0.2.10"}, node())


# -- what the node must be ----------------------------------------------------------------------------------------


def desired(
    here: Node, cluster: ClusterConfiguration | None = None, *, control_plane: bool = False, patches: Any = (),
    **registration: Any,
) -> JoinDesired:  # fmt: skip
    said = BY_TOKEN | ({"control-plane": True} if control_plane else {})
    join = configuration(said, None)
    update: dict[str, Any] = {
        "node_registration": join.node_registration.model_copy(
            update={"name": "n1", "cri_socket": "/run/containerd/containerd.sock"} | registration
        )
    }
    if join.control_plane is not None:
        endpoint = join.control_plane.local_api_endpoint.model_copy(update={"advertise_address": "192.0.2.1"})
        update["control_plane"] = join.control_plane.model_copy(update={"local_api_endpoint": endpoint})
    cluster = cluster or ClusterConfiguration(control_plane_endpoint="lb.example.test:6443")
    return JoinDesired(JoinSettings(join.model_copy(update=update), patches), here, cluster)


KUBELET = "apiVersion: kubelet.config.k8s.io/v1beta1\nkind: KubeletConfiguration\nclusterDomain: x.test\n"


def written(want: JoinDesired, config: str = KUBELET) -> dict[str, str]:
    return {file.path: file.data.decode() for file in want.kubelet_files(config)}


def test_a_workers_kubelet_has_the_clusters_configuration_as_it_stands_there() -> None:
    files = written(desired(node()))
    assert files == {
        "/var/lib/kubelet/config.yaml": KUBELET,
        "/var/lib/kubelet/kubeadm-flags.env": 'KUBELET_KUBEADM_ARGS="--container-runtime=remote '
        '--container-runtime-endpoint=/run/containerd/containerd.sock"\n',
    }


@pytest.mark.parametrize(
    ("said", "found", "wanted"),
    [
        ("", "/run/systemd/resolve/resolv.conf", "/run/systemd/resolve/resolv.conf"),
        ("/run/systemd/resolve/resolv.conf", "/etc/resolv.conf", "/etc/resolv.conf"),
        ("/etc/my-resolv.conf", "/run/systemd/resolve/resolv.conf", "/etc/my-resolv.conf"),
    ],
)
def test_name_servers_are_the_hosts_own_matter(said: str, found: str, wanted: str) -> None:
    config = KUBELET + (f"resolvConf: {said}\n" if said else "")
    text = written(desired(node(resolv_conf=found)), config)["/var/lib/kubelet/config.yaml"]
    assert yaml.safe_load(text)["resolvConf"] == wanted


def test_patches_and_extra_arguments_of_a_kubelet() -> None:
    patch = Patch("k.yaml", "kubeletconfiguration", PatchType.STRATEGIC, {"maxPods": 7})
    want = desired(node(), patches=(patch,))
    assert yaml.safe_load(written(want)["/var/lib/kubelet/config.yaml"])["maxPods"] == 7


def test_a_worker_registers_with_its_taints_and_a_control_plane_is_marked() -> None:
    from kubewright.model.config.kubeadm_nodes import Taint

    taints = [Taint(key="a.test/b", value="c", effect="NoExecute")]
    flags = "/var/lib/kubelet/kubeadm-flags.env"
    assert "--register-with-taints=a.test/b=c:NoExecute" in written(desired(node(), taints=taints))[flags]
    plane = desired(node(control_plane=True), control_plane=True, taints=taints)
    assert "register-with-taints" not in written(plane)[flags]
    assert plane.taints() == [{"key": "a.test/b", "value": "c", "effect": "NoExecute"}]
    plain = desired(node(control_plane=True), control_plane=True)
    assert plain.taints() == [{"key": "node-role.kubernetes.io/master", "effect": "NoSchedule"}]
    assert desired(node()).taints() == []


def test_a_control_planes_files() -> None:
    want = desired(node(control_plane=True), control_plane=True)
    assert [spec.file for spec in want.kubeconfigs] == [
        "admin.conf",
        "controller-manager.conf",
        "scheduler.conf",
    ]
    assert [spec.server for spec in want.kubeconfigs] == [
        "https://lb.example.test:6443",
        "https://192.0.2.1:6443",
        "https://192.0.2.1:6443",
    ]
    pods = want.static_pods(ca_dirs=[], external_ca=False)
    assert sorted(pods) == ["kube-apiserver", "kube-controller-manager", "kube-scheduler"]
    members = [EtcdMember("cp1", "https://192.0.2.9:2380"), EtcdMember("n1", "https://192.0.2.1:2380")]
    arguments = want.etcd_pod(members)["spec"]["containers"][0]["command"]
    assert "--initial-cluster=cp1=https://192.0.2.9:2380,n1=https://192.0.2.1:2380" in arguments
    assert "--initial-cluster-state=existing" in arguments


def test_an_external_etcd_gets_no_member() -> None:
    external = ExternalEtcd(
        endpoints=["https://192.0.2.9:2379"], ca_file="/e/a", cert_file="/e/c", key_file="/e/k"
    )
    cluster = ClusterConfiguration(control_plane_endpoint="lb:6443", etcd=Etcd(external=external))
    want = desired(node(control_plane=True), cluster, control_plane=True)
    assert not want.stacked_etcd
    assert want.etcd_data == ""


@pytest.mark.parametrize("golden", sorted(GOLDEN.iterdir()), ids=lambda path: path.name)
def test_the_configuration_of_each_versions_cluster_is_read(golden: Path) -> None:
    """`kubeadm-config` as each version writes it."""
    files = [
        path
        for path in golden.rglob("*.yaml")
        if "kubeadm-config" in path.name or path.parent.name == "objects"
    ]
    found = [
        document
        for path in files
        for document in yaml.safe_load_all(path.read_text())
        if isinstance(document, dict)
        and document.get("kind") == "ConfigMap"
        and document["metadata"]["name"] == stored.KUBEADM_CONFIG
    ]
    assert found
    cluster = cluster_configuration(found[0])
    assert cluster.kubernetes_version == golden.name
    want = desired(node(control_plane=True), cluster, control_plane=True)
    assert want.facts == facts_for(golden.name)
    text = written(want)["/var/lib/kubelet/kubeadm-flags.env"]
    assert ("unix:///run/containerd" in text) == (
        want.facts.cri_socket_is_url and not want.facts.instance_config()
    )
    assert want.local_api_server == want.facts.kubelet_local_mode()
    assert bool(want.cri_socket_annotation) != ("/var/lib/kubelet/instance-config.yaml" in written(want))


def test_a_cluster_without_its_configuration_is_named() -> None:
    for broken in (None, config_map(stored.KUBEADM_CONFIG, "kube-system", {})):
        with pytest.raises(ConfigError, match="is missing, or holds") as caught:
            cluster_configuration(broken)
        assert "upload-config kubeadm" in caught.value.hint
