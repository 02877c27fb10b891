"""Which cluster a command means."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from kubewright.cli.target import Selection, known_servers, kubeconfig_files
from kubewright.clients import kubeconfig
from kubewright.errors import ConfigError, ExitCode
from kubewright.model.config.load import parse_cluster


def config(server: str) -> dict[str, Any]:
    return {
        "current-context": "a@k", "contexts": [{"name": "a@k", "context": {"cluster": "k", "user": "a"}}],
        "clusters": [{"name": "k", "cluster": {"server": server, "insecure-skip-tls-verify": True}}],
        "users": [{"name": "a", "user": {"token": "t"}}],
    }  # fmt: skip


def test_precedence(tmp_path: Path) -> None:
    labs = tmp_path / "labs"
    env = {"KUBECONFIG": "/a:/b"}
    with pytest.raises(ConfigError, match="which cluster") as caught:
        kubeconfig_files(Selection(), {}, labs)
    assert caught.value.exit_code is ExitCode.USAGE
    (labs / "default").mkdir(parents=True)
    (labs / "default" / "kubeconfig").touch()
    lab = labs / "default" / "kubeconfig"
    assert kubeconfig_files(Selection(), {}, labs) == ([lab], "lab default")
    assert kubeconfig_files(Selection(), env, labs)[0] == [Path("/a"), Path("/b")]
    assert kubeconfig_files(Selection(kubeconfig=Path("/c")), env, labs)[0] == [Path("/c")]
    assert kubeconfig_files(Selection(context="x"), {}, labs)[0] == [Path("~/.kube/config").expanduser()]
    assert kubeconfig_files(Selection(context="x"), env, labs)[0] == [Path("/a"), Path("/b")]


CLUSTER = """
apiVersion: kubewright.dev/v1alpha1
kind: Cluster
name: prod
hosts:
- {name: cp1, address: 192.0.2.1, roles: [control-plane]}
- {name: w1, address: 192.0.2.2}
"""


def test_a_kubeconfig_counts_only_for_its_own_cluster(tmp_path: Path) -> None:
    spec = parse_cluster(CLUSTER)
    file = tmp_path / "cluster.yaml"
    env = {"KUBECONFIG": str(tmp_path / "config")}
    assert known_servers(spec, file, env) == []
    kubeconfig.merge_context(tmp_path / "config", config("https://203.0.113.7:6443"), "prod")
    assert known_servers(spec, file, env) == [], "another cluster of the same name"
    kubeconfig.merge_context(tmp_path / "config", config("https://192.0.2.1:6443"), "prod")
    assert [server.url for server in known_servers(spec, file, env)] == ["https://192.0.2.1:6443"]
    (tmp_path / "kubeconfig").write_text(yaml.safe_dump(config("https://192.0.2.1:6443")))
    assert len(known_servers(spec, file, env)) == 2
    (tmp_path / "config").write_text("not: [a kubeconfig")
    assert len(known_servers(spec, file, env)) == 1, "a broken file of the user's is passed over"


def test_the_endpoint_of_the_file_counts_too(tmp_path: Path) -> None:
    spec = parse_cluster(CLUSTER + "endpoint: api.example.org:6443\n")
    (tmp_path / "kubeconfig").write_text(yaml.safe_dump(config("https://api.example.org:6443")))
    assert len(known_servers(spec, tmp_path / "cluster.yaml", {"KUBECONFIG": "/none"})) == 1
