"""What `init` is told, what a node must be after it, and what it refuses before it changes anything."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import pytest
import yaml
from tests.unit.phases.memory_host import MemoryHost

from kubewright.cli.init import init as command
from kubewright.cli.init_text import result, result_lines
from kubewright.clients.kube import KubeClient
from kubewright.errors import ConfigError, ExitCode, HostError
from kubewright.events import Events
from kubewright.hosts import Completed, FileWrite, HostFacts
from kubewright.model import kubeconfig, manifests, pki, x509
from kubewright.model.config.cluster import HostSpec, Role
from kubewright.model.kernel_modules import IPVS
from kubewright.model.node_preflight import NodeChecks, for_init
from kubewright.model.objects import Object, to_yaml
from kubewright.model.patches import Patch, PatchType
from kubewright.phases.kubelet_finalize import KubeletFinalize, NetworkReported, StaticPodsReported
from kubewright.phases.node import Node
from kubewright.secret import Secret
from kubewright.workflows.external_ca import external_authorities
from kubewright.workflows.init import Init, InitOutcome
from kubewright.workflows.init_desired import InitDesired
from kubewright.workflows.init_run import InitRun
from kubewright.workflows.init_settings import InitSettings, configured, init_settings
from kubewright.workflows.init_tree import INIT
from kubewright.workflows.leftovers import without_own
from kubewright.workflows.tree import paths

TOKEN = "abcdef.0123456789abcdef"
KEY = "00" * 32
FILE = """
apiVersion: kubeadm.k8s.io/v1beta3
kind: InitConfiguration
nodeRegistration: {name: cp9, taints: []}
skipPhases: [addon/kube-proxy]
---
apiVersion: kubeadm.k8s.io/v1beta3
kind: ClusterConfiguration
kubernetesVersion: v1.24.14
controlPlaneEndpoint: api.example.test
---
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
maxPods: 77
"""


class Machine(MemoryHost):
    """A host that knows its kubelet's version and its runtime's socket."""

    async def run(self, argv: Sequence[str], **options: Any) -> Completed:
        words = tuple(argv)
        if words == ("kubelet", "--version"):
            return Completed(words, 0, b"Kubernetes v1.22.6\n")
        if words[:2] == ("sh", "-c") and "-S" in words[2]:
            return Completed(words, 0, b"/run/containerd/containerd.sock\n")
        if words[0] == "systemctl":
            self.commands.append(words)
            return Completed(words, 0)
        return await super().run(argv, **options)


def node(host: MemoryHost | None = None, name: str = "cp1", *, resolv_conf: str = "/etc/resolv.conf") -> Node:
    facts = HostFacts(
        "cp1", "debian", "12", "", "amd64", "", 2, 4 << 30, 0, True, "systemd", 2, 0, "192.0.2.1",
        ("192.0.2.1",), (), resolv_conf=resolv_conf,
    )  # fmt: skip
    spec = HostSpec(name=name, address="192.0.2.1", roles=[Role.CONTROL_PLANE])
    return Node(spec, host or Machine(), facts, "192.0.2.1")


async def settings(text: str | None = None, **said: Any) -> InitSettings:
    words = {name.replace("_", "-"): value for name, value in said.items()}
    if text is None:
        words = {"feature-gates": {"PublicKeysECDSA": True}, "kubernetes-version": "v1.20.2"} | words
    return await init_settings(node(), words, text, "kubeadm.yaml")


async def desired(text: str | None = None, *, patches: Sequence[Patch] = (), **said: Any) -> InitDesired:
    found = await settings(text, **said)
    return InitDesired(replace(found, patches=tuple(patches)), node())


# -- the tree -----------------------------------------------------------------------------------------------------


def test_the_phases_are_those_of_kubeadm_1_20() -> None:
    assert [path for path, step in paths(INIT) if not step.hidden] == [
        "preflight",
        "certs",
        "certs/ca",
        "certs/apiserver",
        "certs/apiserver-kubelet-client",
        "certs/front-proxy-ca",
        "certs/front-proxy-client",
        "certs/etcd-ca",
        "certs/etcd-server",
        "certs/etcd-peer",
        "certs/etcd-healthcheck-client",
        "certs/apiserver-etcd-client",
        "certs/sa",
        "kubeconfig",
        "kubeconfig/admin",
        "kubeconfig/kubelet",
        "kubeconfig/controller-manager",
        "kubeconfig/scheduler",
        "kubelet-start",
        "control-plane",
        "control-plane/apiserver",
        "control-plane/controller-manager",
        "control-plane/scheduler",
        "etcd",
        "etcd/local",
        "upload-config",
        "upload-config/kubeadm",
        "upload-config/kubelet",
        "upload-certs",
        "mark-control-plane",
        "bootstrap-token",
        "kubelet-finalize",
        "kubelet-finalize/experimental-cert-rotation",
        "addon",
        "addon/coredns",
        "addon/kube-proxy",
    ]


def test_the_phases_options_are_options_of_the_command() -> None:
    known = {option for param in command.params for option in param.opts}
    for path, step in paths(INIT):
        assert {f"--{flag}" for flag in step.flags} <= known, path


# -- what is said -------------------------------------------------------------------------------------------------


async def test_options_alone() -> None:
    found = await settings(
        pod_network_cidr="10.244.0.0/16", service_cidr="10.33.0.0/20", service_dns_domain="blue.test",
        control_plane_endpoint="api.example.test", apiserver_bind_port=7443, apiserver_cert_extra_sans=["a.test"],
        image_repository="registry.example.test/k8s", cert_dir="/srv/pki", certificate_key=KEY, token=TOKEN,
        token_ttl="1h", apiserver_extra_args={"v": "4"}, upload_certs=True,
    )  # fmt: skip
    cluster, init = found.cluster, found.init
    assert cluster.networking.pod_subnet == "10.244.0.0/16"
    assert cluster.networking.service_subnet == "10.33.0.0/20"
    assert cluster.networking.dns_domain == "blue.test"
    assert cluster.control_plane_endpoint == "api.example.test:7443"
    assert cluster.api_server.cert_sans == ["a.test"]
    assert cluster.api_server.extra_args.get("v") == "4"
    assert cluster.image_repository == "registry.example.test/k8s"
    assert cluster.certificates_dir == "/srv/pki"
    assert init.certificate_key == Secret(KEY)
    assert init.bootstrap_tokens[0].token == Secret(TOKEN)
    assert init.bootstrap_tokens[0].ttl == "1h0m0s"
    assert found.upload_certs


async def test_what_nobody_says_is_found_on_the_host() -> None:
    found = await init_settings(node(), {}, None, "")
    assert found.cluster.kubernetes_version == "v1.22.6"  # the kubelet's
    assert found.init.node_registration.cri_socket == "/run/containerd/containerd.sock"
    assert found.init.local_api_endpoint.advertise_address == "192.0.2.1"
    assert not found.address_is_chosen
    assert found.cluster.image_repository == "k8s.gcr.io"
    [token] = found.init.bootstrap_tokens
    assert token.token is not None
    assert token.ttl == "24h0m0s"
    assert "kubewright init" in token.description
    again = await init_settings(node(), {}, None, "")
    assert again.init.bootstrap_tokens[0].token != token.token


async def test_a_file() -> None:
    assert configured({}, FILE, "f").node_registration.name == "cp9"
    assert configured({"node-name": "cp8"}, FILE, "f").node_registration.name == "cp8"
    found = await settings(FILE)
    assert found.facts.version.series == "1.24"
    assert found.cluster.control_plane_endpoint == "api.example.test:6443"
    assert found.init.node_registration.cri_socket == "unix:///run/containerd/containerd.sock"
    assert found.init.skip_phases == ["addon/kube-proxy"]
    assert found.kubelet["maxPods"] == 77


async def test_a_file_without_a_version_has_the_kubelets() -> None:
    text = "{apiVersion: kubeadm.k8s.io/v1beta2, kind: InitConfiguration}"
    assert (await settings(text)).cluster.kubernetes_version == "v1.22.6"


@pytest.mark.parametrize("option", ["pod-network-cidr", "token", "certificate-key", "kubernetes-version"])
def test_a_file_excludes_options(option: str) -> None:
    with pytest.raises(ConfigError, match=f"--{option}") as caught:
        configured({option: "x"}, FILE, "f")
    assert caught.value.exit_code is ExitCode.USAGE


def test_some_options_stand_beside_a_file() -> None:
    beside = {
        "node-name": "x",
        "cri-socket": "y",
        "skip-token-print": True,
        "upload-certs": True,
        "patches": ".",
    }
    configured(beside, FILE, "f")


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("pod-network-cidr", "10.244.0.0"),
        ("service-cidr", "x"),
        ("apiserver-advertise-address", "192.0.2.1,192.0.2.2"),
        ("apiserver-bind-port", 0),
        ("token", "not-a-token"),
        ("token-ttl", "soon"),
        ("certificate-key", "abcd"),
        ("feature-gates", {"NoSuchGate": True}),
        ("service-dns-domain", "-"),
        ("cert-dir", "pki"),
        ("node-name", "Not_a_name"),
    ],
)
def test_a_wrong_option_is_named(option: str, value: Any) -> None:
    with pytest.raises(ConfigError) as caught:
        configured({option: value}, None, "")
    assert caught.value.message.startswith(f"--{option}")
    if option in ("token", "certificate-key"):
        assert str(value) not in caught.value.message


def test_two_addresses_belong_into_the_certificate() -> None:
    with pytest.raises(ConfigError) as caught:
        configured({"apiserver-advertise-address": "192.0.2.1,192.0.2.2"}, None, "")
    assert "--apiserver-cert-extra-sans" in caught.value.hint


async def test_an_address_that_nobody_else_reaches_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"^--apiserver-advertise-address: 127\.0\.0\.1 .*P08"):
        await settings(apiserver_advertise_address="127.0.0.1")
    file = FILE.replace("skipPhases:", "localAPIEndpoint: {advertiseAddress: 127.0.0.1}\nskipPhases:")
    with pytest.raises(ConfigError, match=r"^localAPIEndpoint\.advertiseAddress: 127\.0\.0\.1 .*P08"):
        await settings(file)
    assert (
        await settings(apiserver_advertise_address="0.0.0.0")
    ).init.local_api_endpoint.advertise_address == "192.0.2.1"


async def test_patches_must_be_in_a_directory(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="not a directory"):
        await settings(patches=str(tmp_path / "none"))
    (tmp_path / "etcd.yaml").write_text("{metadata: {labels: {a: b}}}")
    assert [patch.target for patch in (await settings(patches=str(tmp_path))).patches] == ["etcd"]


# -- what must be -------------------------------------------------------------------------------------------------


async def test_the_kubelets_files_are_kubeadms() -> None:
    config, flags = (await desired()).kubelet_files()
    document = yaml.safe_load(config.data)
    assert "containerLogMaxSize" not in document  # kubeadm has the kubelet's own defaults
    assert "resolvConf" not in document
    assert flags.data == (
        b'KUBELET_KUBEADM_ARGS="--container-runtime=remote '
        b'--container-runtime-endpoint=/run/containerd/containerd.sock"\n'
    )
    found = await settings()
    elsewhere = InitDesired(found, node(resolv_conf="/run/systemd/resolve/resolv.conf"))
    assert elsewhere.kubelet_config()["resolvConf"] == "/run/systemd/resolve/resolv.conf"


@pytest.mark.parametrize(("version", "shared"), [("v1.30.0", True), ("v1.31.0", False)])
async def test_a_hosts_resolv_conf_is_its_own(version: str, shared: bool) -> None:
    path = "/run/systemd/resolve/resolv.conf"
    found = await settings(kubernetes_version=version)
    want = InitDesired(found, node(resolv_conf=path))
    assert want.kubelet_config()["resolvConf"] == path
    (stored,) = [one for one in want.kubelet_config_map() if one["kind"] == "ConfigMap"]
    assert ("resolvConf" in stored["data"]["kubelet"]) == shared


@pytest.mark.parametrize(
    ("version", "used", "written"),
    [
        ("v1.20.2", None, None), ("v1.20.2", "", None), ("v1.20.2", "systemd", "systemd"),
        ("v1.21.0", None, "systemd"), ("v1.21.0", "", None),
        ("v1.22.0", None, "systemd"), ("v1.22.0", "cgroupfs", "cgroupfs"),
    ],
)  # fmt: skip
async def test_an_upgrade_leaves_the_kubelets_their_cgroup_driver(
    version: str, used: str | None, written: str | None
) -> None:
    found = replace(await settings(kubernetes_version=version), cgroup_driver=used)
    assert InitDesired(found, node()).kubelet_config().get("cgroupDriver") == written
    said = replace(found, kubelet={"cgroupDriver": "cgroupfs"})
    assert InitDesired(said, node()).kubelet_config()["cgroupDriver"] == "cgroupfs"


async def test_newer_versions_keep_the_socket_in_a_file_of_the_node() -> None:
    instance, config, flags = (await desired(kubernetes_version="v1.35.0", feature_gates={})).kubelet_files()
    assert (
        yaml.safe_load(instance.data)["containerRuntimeEndpoint"] == "unix:///run/containerd/containerd.sock"
    )
    assert yaml.safe_load(config.data)["containerRuntimeEndpoint"] == "unix:///run/containerd/containerd.sock"
    assert b"container-runtime-endpoint" not in flags.data


async def test_patches_reach_what_they_name() -> None:
    def patch(target: str, content: dict[str, Any]) -> Patch:
        return Patch(f"{target}.yaml", target, PatchType.STRATEGIC, content)

    want = await desired(
        patches=[
            patch("kube-scheduler", {"spec": {"priority": 1}}),
            patch("kubeletconfiguration", {"maxPods": 5}),
            patch("corednsdeployment", {"spec": {"replicas": 9}}),
        ]
    )
    scheduler = want.static_pod("kube-scheduler", ca_dirs=[], external_ca=False)
    assert scheduler is not None
    assert scheduler["spec"]["priority"] == 1
    assert yaml.safe_load(want.kubelet_files()[0].data)["maxPods"] == 5
    assert "maxPods" not in want.kubelet_config()  # the cluster's is not this node's
    [deployment] = [obj for obj in want.coredns(replicas=2) if obj["kind"] == "Deployment"]
    assert deployment["spec"]["replicas"] == 9


async def test_cluster_dns_is_as_kubeadm_deploys_it() -> None:
    def deployment(objects: list[Object]) -> Object:
        [found] = [obj for obj in objects if obj["kind"] == "Deployment"]
        return dict(found["spec"]["template"]["spec"])

    assert "affinity" not in deployment((await desired()).coredns(replicas=2))
    newer = await desired(kubernetes_version="v1.26.7", feature_gates={})
    assert "affinity" in deployment(newer.coredns(replicas=2))
    kept = (await desired()).coredns(replicas=2, corefile="mine")
    assert [obj["data"] for obj in kept if obj["kind"] == "ConfigMap"] == [{"Corefile": "mine"}]


async def test_labels_and_taints() -> None:
    want = await desired()
    assert want.taints() == [{"key": "node-role.kubernetes.io/master", "value": "", "effect": "NoSchedule"}]
    assert set(want.labels()) == {"node-role.kubernetes.io/control-plane", "node-role.kubernetes.io/master"}
    assert (await desired(FILE)).taints() == []  # the user wants none


async def test_cluster_status_keeps_the_other_control_planes() -> None:
    config, *_ = (await desired()).kubeadm_config({"cp2": ("192.0.2.2", 6443)})
    status = yaml.safe_load(config["data"]["ClusterStatus"])
    assert set(status["apiEndpoints"]) == {"cp1", "cp2"}
    config, *_ = (await desired(FILE)).kubeadm_config({})
    assert "ClusterStatus" not in config["data"]


async def test_tokens_end_when_they_should() -> None:
    [token] = (await desired(token=TOKEN, token_ttl="0")).tokens()
    assert token.expires is None
    [token] = (await desired(token=TOKEN, token_ttl="2h")).tokens()
    assert token.expires is not None
    assert 7100 < (token.expires - datetime.now(UTC)).total_seconds() <= 7200


# -- authorities elsewhere ----------------------------------------------------------------------------------------


async def signed(host: MemoryHost, want: InitDesired) -> None:
    """Everything under a host's authorities, with the key of the cluster's own taken away."""
    now = datetime.now(UTC)
    specs, directory = want.certificates, want.settings.cluster.certificates_dir
    authorities = {
        name: x509.self_signed_ca(spec, x509.new_key(spec.key_kind), now)
        for name, spec in specs.items()
        if spec.is_ca
    }
    pairs = dict(authorities)
    for name, spec in specs.items():
        if not spec.is_ca:
            pairs[name] = x509.sign(spec, x509.new_key(spec.key_kind), authorities[spec.ca], now)
    files = [
        file
        for name, pair in pairs.items()
        for file in (
            FileWrite(specs[name].key_path(directory), pair.key, 0o600),
            FileWrite(specs[name].cert_path(directory), pair.cert),
        )
    ]
    for config in want.kubeconfigs.values():
        pair = x509.sign(config.cert, x509.new_key(config.cert.key_kind), authorities["ca"], now)
        document = kubeconfig.with_certificate(config, authorities["ca"].cert, pair)
        files.append(FileWrite(config.path, kubeconfig.dump(document), 0o600))
    await host.write_files(files)
    del host.files[pki.CA.key_path(directory)]


async def test_an_authority_whose_key_is_elsewhere() -> None:
    host, want = Machine(), await desired()
    assert not (await external_authorities(node(host), want)).any  # an empty host has none
    await signed(host, want)
    assert (await external_authorities(node(host), want)).names == {"ca"}
    del host.files["/etc/kubernetes/pki/front-proxy-ca.key"]
    assert (await external_authorities(node(host), want)).names == {"ca", "front-proxy-ca"}


async def test_all_that_it_should_have_signed_is_named_at_once() -> None:
    host, want = Machine(), await desired()
    await signed(host, want)
    del host.files["/etc/kubernetes/pki/apiserver.key"]
    del host.files["/etc/kubernetes/admin.conf"]
    await host.write_file(
        "/etc/kubernetes/pki/apiserver-kubelet-client.crt",
        host.files["/etc/kubernetes/pki/front-proxy-client.crt"].data,
    )
    with pytest.raises(HostError, match=r"and \d more") as caught:
        await external_authorities(node(host), want)
    text = "\n".join([caught.value.message, *caught.value.evidence])
    assert "/etc/kubernetes/pki/apiserver.key is missing" in text
    assert "/etc/kubernetes/admin.conf is missing" in text
    assert "apiserver-kubelet-client.crt: its common name is front-proxy-client" in text
    assert caught.value.exit_code is ExitCode.HOST_NOT_FIT


# -- preflight ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("mode", "asked"), [("ipvs", {*IPVS, "ip_vs_wlc"}), ("iptables", set())])
async def test_preflight_looks_for_the_modules_of_kube_proxys_mode(
    mode: str, asked: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """P17: the mode and the scheduler are those of the file."""
    told: list[NodeChecks] = []

    async def run_preflight(_: Node, checks: NodeChecks, **options: Any) -> None:
        told.append(checks)

    monkeypatch.setattr("kubewright.workflows.init.run_preflight", run_preflight)
    proxy = {
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1", "kind": "KubeProxyConfiguration", "mode": mode,
        "ipvs": {"scheduler": "wlc"},
    }  # fmt: skip
    found = await settings(f"{FILE}---\n{yaml.safe_dump(proxy)}")
    await Init(node(), found, Events()).preflight()
    [checks] = told
    assert {*checks.modules} == {*checks.ipvs} == asked


# -- what an interrupted run left ---------------------------------------------------------------------------------


async def test_our_own_leftovers_are_no_reason_to_refuse() -> None:
    host, want = Machine(), await desired()
    pods = {}
    for name in ("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler"):
        pod = want.static_pod(name, ca_dirs=[], external_ca=False)
        assert pod is not None
        pods[name] = pod
    checks = for_init(want.settings.init, want.settings.cluster, want.settings.facts, kube_proxy={})
    assert await without_own(node(host), checks, pods, 6443) == checks
    await host.write_file(manifests.manifest_path("etcd"), to_yaml(pods["etcd"]))
    other = {**pods["kube-apiserver"], "metadata": {"name": "another"}}
    await host.write_file(manifests.manifest_path("kube-apiserver"), to_yaml(other))
    found = await without_own(node(host), checks, pods, 6443)
    assert set(checks.ports) - set(found.ports) == {2379, 2380}
    assert set(checks.absent_files) - set(found.absent_files) == {manifests.manifest_path("etcd")}
    assert found.empty_directories == ()
    await host.write_file("/etc/kubernetes/kubelet.conf", b"{users: [{name: system:node:another}]}")
    assert 10250 in (await without_own(node(host), checks, pods, 6443)).ports
    await host.write_file("/etc/kubernetes/kubelet.conf", b"{users: [{name: system:node:cp1}]}")
    assert 10250 not in (await without_own(node(host), checks, pods, 6443)).ports


# -- the kubelet's own certificate --------------------------------------------------------------------------------


async def test_the_kubelet_is_pointed_at_its_own_certificate_once_there_is_one() -> None:
    host, want = Machine(), await desired()
    await signed(host, want)
    assert await KubeletFinalize(node(host)).run(Events()) == []
    await host.write_file(kubeconfig.KUBELET_CLIENT_CURRENT, b"pem")
    assert len(await KubeletFinalize(node(host)).run(Events())) == 2
    written = kubeconfig.load(host.files["/etc/kubernetes/kubelet.conf"].data, "")
    assert kubeconfig.current(written)[1] == {
        "client-certificate": kubeconfig.KUBELET_CLIENT_CURRENT, "client-key": kubeconfig.KUBELET_CLIENT_CURRENT,
    }  # fmt: skip
    assert ("systemctl", "restart", "kubelet.service") in host.commands
    assert await KubeletFinalize(node(host)).run(Events()) == []
    with pytest.raises(ConfigError, match="system:node:cp2"):
        await KubeletFinalize(node(host, "cp2")).run(Events())


class Pods:
    """An API that knows these Pods."""

    def __init__(self, *names: str) -> None:
        self.names = names

    async def get(self, api_version: str, kind: str, name: str, namespace: str = "") -> Any:
        assert (api_version, kind, namespace) == ("v1", "Pod", "kube-system")
        return {} if name in self.names else None


async def test_a_kubelet_whose_static_pods_the_api_does_not_show_starts_again() -> None:
    host = Machine()
    await StaticPodsReported(node(host), cast(KubeClient, Pods("kube-apiserver-cp1"))).run(Events())
    assert host.commands == []
    await StaticPodsReported(node(host), cast(KubeClient, Pods("kube-apiserver-cp2"))).run(Events())
    assert host.commands == [("systemctl", "restart", "kubelet.service")]


async def test_a_kubelet_that_will_have_a_pod_network_starts_again_when_it_is_there() -> None:
    """It says at once then that its node is Ready, rather than 10 s later."""

    class Networked(Machine):
        asked = 0

        async def stat_files(self, paths: Any, *, digest: bool = True) -> Any:
            assert self.commands == []
            self.asked += 1
            return dict.fromkeys(paths) if self.asked == 3 else {}

    host = Networked()
    phase = StaticPodsReported(node(host), cast(KubeClient, Pods()), network="/etc/cni/net.d/10.conflist")
    await phase.run(Events())
    assert host.asked == 3
    assert host.commands == [("systemctl", "restart", "kubelet.service")]


@pytest.mark.parametrize(("ready", "restarts"), [("False", 1), ("True", 0)])
async def test_a_kubelet_that_has_joined_starts_again_when_the_network_is_there(
    ready: str, restarts: int
) -> None:
    class Nodes:
        async def get(self, *_: str) -> Any:
            return {"status": {"conditions": [{"type": "Ready", "status": ready, "message": "no network"}]}}

    host = Machine()
    await host.write_file("/etc/cni/net.d/10.conflist", b"{}")
    phase = NetworkReported(node(host), cast(KubeClient, Nodes()), network="/etc/cni/net.d/10.conflist")
    assert len(await phase.run(Events())) == restarts
    assert host.commands == [("systemctl", "restart", "kubelet.service")] * restarts


class Asked(InitRun):
    """A run that remembers by which kubeconfig the API was to be reached."""

    async def _connected(self, path: str) -> Any:
        self.path = path
        return object()


@pytest.mark.parametrize(
    ("version", "expected"), [("v1.20.2", "admin.conf"), ("v1.29.6", "super-admin.conf")]
)
async def test_the_first_requests_are_made_by_who_has_rights_by_then(version: str, expected: str) -> None:
    host = Machine()
    found = await settings(kubernetes_version=version, feature_gates={})
    run = Asked(node(host), found, Events())
    await run._first_api()
    assert run.path == "/etc/kubernetes/admin.conf"  # where there is no other: on a cluster that exists
    for name in ("admin.conf", "super-admin.conf"):
        await host.write_file(f"/etc/kubernetes/{name}", b"{}")
    await (run := Asked(node(host), found, Events()))._first_api()
    assert run.path == f"/etc/kubernetes/{expected}"


# -- the end ------------------------------------------------------------------------------------------------------


def outcome(**fields: Any) -> InitOutcome:
    return InitOutcome(
        endpoint="https://192.0.2.1:6443", tokens=[Secret(TOKEN)], ca_hash="sha256:ab", **fields
    )


def test_the_end_tells_how_to_join() -> None:
    text = "\n".join(result_lines(outcome(), "cp1", hide_token=False, hide_key=False))
    assert f"kubewright join 192.0.2.1:6443 --token {TOKEN}" in text
    assert "--control-plane-endpoint" in text  # what is missing for more control planes
    assert "--control-plane " not in text
    copied = result_lines(outcome(has_endpoint=True), "cp1", hide_token=False, hide_key=False)
    assert any(line.endswith("--control-plane") for line in copied)
    uploaded = outcome(has_endpoint=True, certificate_key=Secret(KEY))
    assert f"--certificate-key {KEY}" in "\n".join(
        result_lines(uploaded, "cp1", hide_token=False, hide_key=False)
    )


def test_the_end_keeps_secrets_where_that_is_wanted() -> None:
    uploaded = outcome(has_endpoint=True, certificate_key=Secret(KEY))
    text = "\n".join(result_lines(uploaded, "cp1", hide_token=True, hide_key=True))
    assert TOKEN not in text
    assert KEY not in text
    assert "--token TOKEN" in text
    row = result(uploaded, hide_token=True, hide_key=True)
    assert "tokens" not in row
    assert "certificateKey" not in row
    assert result(uploaded, hide_token=False, hide_key=False)["certificateKey"] == KEY
