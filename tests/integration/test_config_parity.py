"""Real kubeadm 1.20.2 reads and writes the same configuration files as we do; it needs no cluster for that."""

from __future__ import annotations

import copy
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner
from tests.unit.config.kubeadm_files import FULL, HASH, TOKEN, text_of

from kubewright.cli import cli

pytestmark = pytest.mark.integration

V1BETA2 = "kubeadm.k8s.io/v1beta2"
INIT: dict[str, Any] = {
    "apiVersion": V1BETA2,
    "kind": "InitConfiguration",
    "nodeRegistration": {"name": "cp1", "criSocket": "/run/x.sock", "taints": []},
    "localAPIEndpoint": {"advertiseAddress": "192.0.2.11"},
    "bootstrapTokens": [{"token": TOKEN}],
}
"""One that leaves nothing to be found on the host: what we do not look for, kubeadm does."""
CLUSTER: dict[str, Any] = {
    "apiVersion": V1BETA2,
    "kind": "ClusterConfiguration",
    "kubernetesVersion": "v1.20.2",
}
JOIN: dict[str, Any] = {
    "apiVersion": V1BETA2,
    "kind": "JoinConfiguration",
    "nodeRegistration": {"name": "w1", "criSocket": "/run/x.sock"},
}
BY_TOKEN: dict[str, Any] = {"token": TOKEN, "apiServerEndpoint": "192.0.2.11:6443", "caCertHashes": [HASH]}
EXTERNAL = {
    "endpoints": ["https://192.0.2.7:2379"],
    "caFile": "/e/ca.crt",
    "certFile": "/e/c.crt",
    "keyFile": "/e/c.key",
}
FULL_INIT, FULL_CLUSTER, FULL_JOIN = copy.deepcopy(FULL["v1beta2"][:3])
FULL_INIT["bootstrapTokens"] = [
    {"token": TOKEN, "ttl": "90m", "description": "x", "usages": ["authentication"]}
]
del FULL_CLUSTER["featureGates"]


def theirs(kubeadm: Path, *args: str) -> subprocess.CompletedProcess[str]:
    command = [str(kubeadm), "config", *args]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def ours(*args: str) -> str:
    done = CliRunner().invoke(cli, ["config", *args])
    assert done.exit_code == 0, done.output
    return done.stdout


def documents(text: str) -> dict[str, Any]:
    # kubeadm prints its warnings among the documents.
    lines = [line for line in text.splitlines() if not line.startswith("[config] WARNING")]
    return {one["kind"]: one for one in yaml.safe_load_all("\n".join(lines))}


@pytest.mark.parametrize("what", ["init-defaults", "join-defaults"])
def test_the_same_defaults_are_printed(real_kubeadm: Path, what: str) -> None:
    args = ("print", what, "--component-configs", "KubeletConfiguration,KubeProxyConfiguration")
    mine, other = documents(ours(*args)), documents(theirs(real_kubeadm, *args).stdout)
    for kinds in (mine, other):
        node = kinds.get("InitConfiguration") or kinds["JoinConfiguration"]
        # kubeadm 1.20 assumes Docker, and its own release's first patch.
        node["nodeRegistration"].pop("criSocket")
        kinds.get("ClusterConfiguration", {}).pop("kubernetesVersion", None)
        # kubeadm looks whether this computer runs systemd-resolved.
        kinds["KubeletConfiguration"].pop("resolvConf", None)
    assert mine == other


@pytest.mark.parametrize(
    "file",
    [
        [INIT, CLUSTER],
        [FULL_INIT, FULL_CLUSTER, FULL_JOIN],
        [INIT, CLUSTER | {"etcd": {"external": EXTERNAL}}],
        [INIT, CLUSTER | {"featureGates": {"PublicKeysECDSA": True}, "clusterName": "blue"}],
        [INIT | {"bootstrapTokens": [{"token": TOKEN, "ttl": "0s"}], "certificateKey": "ab" * 32}, CLUSTER],
        [INIT, CLUSTER | {"networking": {"podSubnet": "10.32.0.0/16", "serviceSubnet": "10.33.0.0/20"}}],
        [JOIN | {"discovery": {"bootstrapToken": BY_TOKEN}}],
        [JOIN | {"discovery": {"bootstrapToken": BY_TOKEN, "timeout": "90s"}, "controlPlane": {
            "localAPIEndpoint": {"advertiseAddress": "192.0.2.12"}, "certificateKey": "ab" * 32,
        }}],
        [JOIN | {"discovery": {"file": {"kubeConfigPath": "https://192.0.2.1/x"}, "tlsBootstrapToken": TOKEN}}],
    ],
    ids=["plain", "full", "etcd", "ecdsa", "token", "subnets", "join", "control-plane", "join-by-file"],
)  # fmt: skip
def test_the_same_comes_out_of_a_migration(
    real_kubeadm: Path, tmp_path: Path, file: list[dict[str, Any]]
) -> None:
    old, new = tmp_path / "old.yaml", tmp_path / "new.yaml"
    old.write_text(text_of(file))
    done = theirs(real_kubeadm, "migrate", "--old-config", str(old))
    assert done.returncode == 0, done.stderr
    expected = documents(done.stdout)
    for join in filter(None, [expected.get("JoinConfiguration")]):
        # kubeadm taints a control plane that joins as soon as it reads the file; we do when we know its version.
        if "controlPlane" in join and join["nodeRegistration"]["taints"] == [
            {"effect": "NoSchedule", "key": "node-role.kubernetes.io/master"}
        ]:
            join["nodeRegistration"]["taints"] = None
    assert documents(ours("migrate", "--old-config", str(old), "--api-version", "v1beta2")) == expected

    # The way through v1beta4 and back changes nothing, and kubeadm reads what we wrote as what it wrote itself.
    ours("migrate", "--old-config", str(old), "--new-config", str(new), "--api-version", "v1beta4")
    new.write_text(ours("migrate", "--old-config", str(new), "--api-version", "v1beta2"))
    assert documents(theirs(real_kubeadm, "migrate", "--old-config", str(new)).stdout) == documents(
        done.stdout
    )


@pytest.mark.parametrize(
    "file",
    [
        [INIT | {"nodeRegistration": {"name": "A_B"}}, CLUSTER],
        [INIT | {"nodeRegistration": {"criSocket": "tcp://x"}}, CLUSTER],
        [INIT | {"localAPIEndpoint": {"advertiseAddress": "a"}}, CLUSTER],
        [INIT | {"bootstrapTokens": [{"token": "x"}]}, CLUSTER],
        [INIT | {"bootstrapTokens": [{"token": TOKEN, "usages": ["x"]}]}, CLUSTER],
        [INIT | {"bootstrapTokens": [{"token": TOKEN, "groups": ["x"]}]}, CLUSTER],
        [INIT, CLUSTER | {"certificatesDir": "pki"}],
        [INIT, CLUSTER | {"featureGates": {"X": True}}],
        [INIT, CLUSTER | {"controlPlaneEndpoint": "a:b"}],
        [INIT, CLUSTER | {"apiServer": {"certSANs": ["a b"]}}],
        [INIT, CLUSTER | {"networking": {"serviceSubnet": "10.0.0.0/8"}}],
        [INIT, CLUSTER | {"networking": {"serviceSubnet": "10.0.0.0/30"}}],
        [INIT, CLUSTER | {"networking": {"podSubnet": "10.0.0.0/25"}}],
        [INIT, CLUSTER | {"networking": {"podSubnet": "10.0.0.0/7"}}],
        [INIT, CLUSTER | {"networking": {"dnsDomain": "A_"}}],
        [INIT, CLUSTER | {"etcd": {"external": EXTERNAL | {"caFile": ""}}}],
        [INIT, CLUSTER | {"etcd": {"external": EXTERNAL | {"keyFile": ""}}}],
        [INIT, CLUSTER | {"etcd": {"external": EXTERNAL | {"endpoints": ["http://a:1"]}}}],
        [INIT, CLUSTER | {"etcd": {"external": EXTERNAL, "local": {"dataDir": "/x"}}}],
        [INIT, CLUSTER | {"kubernetesVersion": "v1.18.0"}],
        [JOIN | {"discovery": {}}],
        [JOIN | {"discovery": {"bootstrapToken": BY_TOKEN | {"caCertHashes": []}}}],
        [JOIN | {"discovery": {"bootstrapToken": BY_TOKEN | {"apiServerEndpoint": "a"}}}],
        [JOIN | {"discovery": {"bootstrapToken": BY_TOKEN, "file": {"kubeConfigPath": "https://a/b"}}}],
        [JOIN | {"discovery": {"bootstrapToken": BY_TOKEN}, "caCertPath": "x"}],
        [JOIN | {"discovery": {"file": {"kubeConfigPath": "http://a/b"}, "tlsBootstrapToken": TOKEN}}],
        [{"apiVersion": "kubeadm.k8s.io/v1alpha3", "kind": "InitConfiguration"}],
        [{"apiVersion": "kubeadm.k8s.io/v1beta9", "kind": "InitConfiguration"}],
        [INIT, CLUSTER, CLUSTER],
    ],
)  # fmt: skip
def test_what_kubeadm_refuses_we_refuse(
    real_kubeadm: Path, tmp_path: Path, file: list[dict[str, Any]]
) -> None:
    path = tmp_path / "kubeadm.yaml"
    path.write_text(text_of(file))
    assert theirs(real_kubeadm, "migrate", "--old-config", str(path)).returncode != 0
    done = CliRunner().invoke(cli, ["config", "validate", "--config", str(path)])
    assert 10 <= done.exit_code < 15
    assert done.output.startswith(f"error: {path}: ")


@pytest.mark.parametrize(
    "args",
    [(), ("--image-repository", "r.example.org"), ("--feature-gates", "PublicKeysECDSA=true"), ("--config",)],
)
def test_the_same_images_are_listed(real_kubeadm: Path, tmp_path: Path, args: tuple[str, ...]) -> None:
    path = tmp_path / "kubeadm.yaml"
    path.write_text(text_of([FULL_INIT, FULL_CLUSTER]))
    chosen = [*args, str(path)] if args == ("--config",) else [*args, "--kubernetes-version", "v1.20.2"]
    for form in ("text", "json", "yaml"):
        command = ("images", "list", *chosen, "-o", form)
        mine, other = ours(*command), theirs(real_kubeadm, *command).stdout
        assert other
        assert (mine == other) if form == "text" else (yaml.safe_load(mine) == yaml.safe_load(other))
