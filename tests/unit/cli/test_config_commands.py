"""`config print|validate|migrate|images`: what they print, refuse and write, without a host or a cluster."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Thread

import pytest
import yaml
from click.testing import CliRunner, Result
from grpclib.const import Status
from grpclib.exceptions import GRPCError
from grpclib.server import Server
from tests.unit.clients.test_cri import FakeRuntime
from tests.unit.config.kubeadm_files import FULL, TOKEN, text_of

from kubewright.cli import cli
from kubewright.errors import ExitCode

INIT_DEFAULTS = """\
apiVersion: kubeadm.k8s.io/v1beta2
bootstrapTokens:
- groups:
  - system:bootstrappers:kubeadm:default-node-token
  token: abcdef.0123456789abcdef
  ttl: 24h0m0s
  usages:
  - signing
  - authentication
kind: InitConfiguration
localAPIEndpoint:
  advertiseAddress: 1.2.3.4
  bindPort: 6443
nodeRegistration:
  criSocket: /run/containerd/containerd.sock
  name: cp1
  taints:
  - effect: NoSchedule
    key: node-role.kubernetes.io/master
---
apiServer:
  timeoutForControlPlane: 4m0s
apiVersion: kubeadm.k8s.io/v1beta2
certificatesDir: /etc/kubernetes/pki
clusterName: kubernetes
controllerManager: {}
dns:
  type: CoreDNS
etcd:
  local:
    dataDir: /var/lib/etcd
imageRepository: k8s.gcr.io
kind: ClusterConfiguration
kubernetesVersion: v1.20.2
networking:
  dnsDomain: cluster.local
  serviceSubnet: 10.96.0.0/12
scheduler: {}
"""
JOIN_DEFAULTS = """\
apiVersion: kubeadm.k8s.io/v1beta2
caCertPath: /etc/kubernetes/pki/ca.crt
discovery:
  bootstrapToken:
    apiServerEndpoint: kube-apiserver:6443
    token: abcdef.0123456789abcdef
    unsafeSkipCAVerification: true
  timeout: 5m0s
  tlsBootstrapToken: abcdef.0123456789abcdef
kind: JoinConfiguration
nodeRegistration:
  criSocket: /run/containerd/containerd.sock
  name: cp1
  taints: null
"""


@pytest.fixture(autouse=True)
def _host_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "gethostname", lambda: "CP1")


def run(*args: str, stdin: str | None = None) -> Result:
    return CliRunner().invoke(cli, ["config", *args], input=stdin)


def documents(text: str) -> dict[str, dict[str, object]]:
    return {one["kind"]: one for one in yaml.safe_load_all(text)}


def test_the_defaults_are_printed_as_kubeadm_1_20_prints_them() -> None:
    assert run("print", "init-defaults").output == INIT_DEFAULTS
    assert run("print", "join-defaults").output == JOIN_DEFAULTS


def test_the_defaults_of_another_version_come_in_its_api_version() -> None:
    printed = documents(run("print", "init-defaults", "--kubernetes-version", "v1.31.12").output)
    assert printed["InitConfiguration"]["apiVersion"] == "kubeadm.k8s.io/v1beta4"
    assert printed["InitConfiguration"]["nodeRegistration"] == {
        "criSocket": "unix:///run/containerd/containerd.sock", "name": "cp1", "imagePullPolicy": "IfNotPresent",
        "imagePullSerial": True,
        "taints": [{"effect": "NoSchedule", "key": "node-role.kubernetes.io/control-plane"}],
    }  # fmt: skip
    assert printed["ClusterConfiguration"]["imageRepository"] == "registry.k8s.io"
    older = run("print", "init-defaults", "--kubernetes-version", "v1.31.12", "--api-version", "v1beta3")
    assert documents(older.output)["InitConfiguration"]["apiVersion"] == "kubeadm.k8s.io/v1beta3"


def test_component_configurations_are_printed_behind() -> None:
    done = run("print", "join-defaults", "--component-configs", "KubeletConfiguration,KubeProxyConfiguration")
    printed = documents(done.output)
    assert list(printed) == ["JoinConfiguration", "KubeletConfiguration", "KubeProxyConfiguration"]
    assert printed["KubeletConfiguration"]["clusterDNS"] == ["10.96.0.10"]
    wrong = run("print", "init-defaults", "--component-configs", "Kubelet")
    assert wrong.exit_code == ExitCode.USAGE
    assert "KubeletConfiguration" in wrong.output


def test_reset_and_upgrade_have_defaults_in_v1beta4() -> None:
    reset = documents(run("print", "reset-defaults").output)["ResetConfiguration"]
    assert reset["apiVersion"] == "kubeadm.k8s.io/v1beta4"
    assert reset["certificatesDir"] == "/etc/kubernetes/pki"
    upgrade = documents(run("print", "upgrade-defaults").output)["UpgradeConfiguration"]
    assert upgrade["plan"] == {"etcdUpgrade": True}
    assert upgrade["diff"] == {}


@pytest.mark.parametrize("what", ["init-defaults", "join-defaults", "reset-defaults", "upgrade-defaults"])
@pytest.mark.parametrize("version", ["v1.20.2", "v1.24.3", "v1.31.0", "v1.37.0"])
def test_what_is_printed_is_valid(what: str, version: str) -> None:
    printed = run("print", what, "--kubernetes-version", version)
    assert printed.exit_code == 0
    done = run("validate", "--config", "-", stdin=printed.output)
    assert (done.exit_code, done.output) == (0, "ok\n")


def test_every_mistake_is_printed_with_the_exit_code_of_the_first(tmp_path: Path) -> None:
    file = tmp_path / "kubeadm.yaml"
    file.write_text(
        INIT_DEFAULTS.replace("clusterName", "clustrName").replace("bindPort: 6443", "bindPort: x")
    )
    done = run("validate", "--config", str(file))
    assert done.exit_code == ExitCode.CONFIG_UNKNOWN_FIELD
    cluster = "ClusterConfiguration: unknown field 'clustrName' (did you mean 'clusterName'?), line 25"
    init = "InitConfiguration.localAPIEndpoint.bindPort: must be a whole number, not 'x', line 13"
    assert f"error: {file}: {cluster} (and 1 more)" in done.output
    assert f"    {file}: {init}\n" in done.output


def test_a_file_that_the_versions_kubeadm_does_not_read_is_warned_of() -> None:
    kind = {"apiVersion": "kubeadm.k8s.io/v1beta4", "kind": "ClusterConfiguration"}
    text = text_of([kind | {"kubernetesVersion": "v1.20.2"}])
    done = run("validate", "--config", "-", stdin=text)
    assert done.exit_code == 0
    assert done.stdout.endswith("ok\n")
    assert "kubeadm v1.20.2 itself does not read kubeadm.k8s.io/v1beta4" in done.output


@pytest.mark.parametrize("name", ["missing.yaml", "."])
def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, name: str) -> None:
    done = run("validate", "--config", str(tmp_path / name))
    assert done.exit_code == ExitCode.CONFIG_INVALID
    assert "--config: " in done.output
    assert "cannot be read" in done.output


def test_a_file_is_migrated_to_a_new_one_for_its_owners_eyes(tmp_path: Path) -> None:
    old, new = tmp_path / "old.yaml", tmp_path / "new.yaml"
    old.write_text(text_of(list(FULL["v1beta2"])))
    done = run("migrate", "--old-config", str(old), "--new-config", str(new), "--api-version", "v1beta4")
    assert (done.exit_code, done.output) == (0, "")
    assert new.stat().st_mode & 0o777 == 0o600
    migrated = documents(new.read_text())
    versions = {str(one["apiVersion"]) for one in migrated.values()}
    assert {one for one in versions if "kubeadm" in one} == {"kubeadm.k8s.io/v1beta4"}
    assert TOKEN in new.read_text()
    back = run("migrate", "--old-config", str(new))  # to the one that kubeadm 1.20 reads
    assert documents(back.output)["InitConfiguration"]["apiVersion"] == "kubeadm.k8s.io/v1beta2"
    assert sorted(file.name for file in tmp_path.iterdir()) == ["new.yaml", "old.yaml"]


def test_nothing_gets_lost_in_a_migration(tmp_path: Path) -> None:
    new = tmp_path / "new.yaml"
    stdin = text_of(list(FULL["v1beta4"]))
    done = run(
        "migrate", "--old-config", "-", "--new-config", str(new), "--api-version", "v1beta3", stdin=stdin
    )
    assert done.exit_code == ExitCode.CONFIG_INVALID
    assert "ClusterConfiguration.encryptionAlgorithm: only v1beta4 can say this, not v1beta3" in done.output
    assert not new.exists()


def test_images_are_listed_in_kubeadms_order_and_forms(tmp_path: Path) -> None:
    listed = run("images", "list").output.splitlines()
    assert listed == [
        "k8s.gcr.io/kube-apiserver:v1.20.2", "k8s.gcr.io/kube-controller-manager:v1.20.2",
        "k8s.gcr.io/kube-scheduler:v1.20.2", "k8s.gcr.io/kube-proxy:v1.20.2", "k8s.gcr.io/pause:3.2",
        "k8s.gcr.io/etcd:3.4.13-0", "k8s.gcr.io/coredns:1.7.0",
    ]  # fmt: skip
    document = json.loads(run("images", "list", "--experimental-output", "json").output)
    assert document["kind"] == "Images"
    assert document["images"] == listed
    newer = run("images", "list", "--kubernetes-version", "1.31.12", "--image-repository", "r.example.org")
    assert newer.output.splitlines()[0] == "r.example.org/kube-apiserver:v1.31.12"
    file = tmp_path / "kubeadm.yaml"
    file.write_text(text_of(list(FULL["v1beta2"])))
    done = run("images", "list", "--config", str(file), "--image-repository", "other")
    assert done.stdout.splitlines()[-1] == "registry.example.org/dns/coredns:v1.9.0"
    assert "--image-repository: the file of --config goes before" in done.output


def test_images_of_external_etcd_have_no_etcd() -> None:
    external = {"etcd": {"external": {"endpoints": ["https://192.0.2.1:2379"]}}}
    text = text_of([{"apiVersion": "kubeadm.k8s.io/v1beta2", "kind": "ClusterConfiguration", **external}])
    assert "etcd" not in run("images", "list", "--config", "-", stdin=text).output


@pytest.mark.parametrize(
    ("args", "code", "problem"),
    [
        (["--kubernetes-version", "v1.2.3"], ExitCode.VERSION_UNAVAILABLE, "not supported"),
        (["--kubernetes-version", "stable-1"], ExitCode.CONFIG_INVALID, "--kubernetes-version"),
        (["--feature-gates", "PublicKeyECDSA=true"], ExitCode.USAGE, "did you mean 'PublicKeysECDSA'?"),
        (["--feature-gates", "PublicKeysECDSA"], ExitCode.USAGE, "NAME=true|false"),
    ],
)  # fmt: skip
def test_options_of_images_are_checked(args: list[str], code: ExitCode, problem: str) -> None:
    done = run("images", "list", *args)
    assert done.exit_code == code
    assert problem in done.output


def test_a_file_without_a_cluster_has_no_images() -> None:
    text = text_of([FULL["v1beta2"][2]])
    done = run("images", "list", "--config", "-", stdin=text)
    assert done.exit_code == ExitCode.CONFIG_INVALID
    assert "InitConfiguration" in done.output


@pytest.mark.parametrize(
    "args", [("images", "list"), ("print", "join-defaults"), ("print", "upgrade-defaults")]
)
def test_a_kubeconfig_is_taken_where_kubeadm_takes_it(args: tuple[str, ...]) -> None:
    assert (
        run(*args, "--kubeconfig", "/x").output
        == run("--kubeconfig", "/x", *args).output
        == run(*args).output
    )
    for command in (["view", "--kubeconfig", "/no/such"], ["--kubeconfig", "/no/such", "view"]):
        done = run(*command)
        assert done.exit_code != 0
        assert "/no/such" in done.output


def test_init_refuses_a_file_without_its_kinds(tmp_path: Path) -> None:
    path = tmp_path / "join.yaml"
    path.write_text(text_of([FULL["v1beta2"][2]]))
    done = CliRunner().invoke(cli, ["init", "--config", str(path)])
    assert done.exit_code == ExitCode.CONFIG_INVALID
    assert f"{path}: neither InitConfiguration nor ClusterConfiguration is in it" in done.output


@contextmanager
def runtime_on(path: Path, runtime: FakeRuntime) -> Iterator[None]:
    """Serve a container runtime on a socket, from a thread of its own: the command has this one's event loop."""
    loop = asyncio.new_event_loop()
    thread = Thread(target=loop.run_forever)
    thread.start()

    async def start() -> Server:
        server = Server([runtime])
        await server.start(path=str(path))
        return server

    async def stop(server: Server) -> None:
        server.close()
        await server.wait_closed()

    server = asyncio.run_coroutine_threadsafe(start(), loop).result(10)
    try:
        yield
    finally:
        asyncio.run_coroutine_threadsafe(stop(server), loop).result(10)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
        loop.close()


def test_images_are_pulled_by_the_runtime_of_the_socket(tmp_path: Path) -> None:
    runtime, path = FakeRuntime(), tmp_path / "cri.sock"
    with runtime_on(path, runtime):
        done = run("images", "pull", "--cri-socket", f"unix://{path}", "--image-repository", "r.example.org")
    assert done.exit_code == 0, done.output
    pulled = [request.image.image for name, request in runtime.asked if name == "PullImage"]
    assert pulled == [
        image.replace("k8s.gcr.io", "r.example.org") for image in run("images", "list").output.split()
    ]
    assert done.stdout.splitlines() == [f"pulled {image}" for image in pulled]


def test_an_image_that_cannot_be_pulled_ends_the_command(tmp_path: Path) -> None:
    path = tmp_path / "cri.sock"
    refusing = FakeRuntime(answers={"PullImage": GRPCError(Status.UNKNOWN, "no such host")})
    with runtime_on(path, refusing):
        done = run("images", "pull", "--cri-socket", str(path))
    assert done.exit_code == ExitCode.HOST_NOT_FIT
    assert "image k8s.gcr.io/kube-apiserver:v1.20.2 could not be pulled" in done.output
    assert "pulled k8s" not in done.stdout
