"""Kubeconfigs on a host: the files that they name there, and which one is taken."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.unit.phases.memory_host import MemoryHost

from kubewright.cli.node import NodeOptions, kubeconfig_path
from kubewright.clients.server import Server
from kubewright.errors import ConfigError, HostError
from kubewright.hosts import FileWrite
from kubewright.model import kubeconfig
from kubewright.phases.host_kubeconfig import read_kubeconfig

CONFIG = {
    "clusters": [{"name": "c", "cluster": {"server": "https://a:1", "certificate-authority": "pki/ca.crt"}}],
    "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
    "users": [{"name": "u", "user": {"client-certificate": "/pem", "client-key": "/pem"}}],
    "current-context": "x",
}


def host(**files: bytes) -> MemoryHost:
    made = MemoryHost()
    made.files = {path: FileWrite(path, content) for path, content in files.items()}
    return made


async def test_files_that_it_names_are_read_on_the_host() -> None:
    config = kubeconfig.dump(CONFIG).reveal()
    read = await read_kubeconfig(
        host(**{"/etc/k/kubelet.conf": config, "/etc/k/pki/ca.crt": b"CA", "/pem": b"PEM"}),
        "/etc/k/kubelet.conf",
    )
    server = Server.from_kubeconfig(read)
    assert (server.url, server.ca, server.client_cert, server.client_key) == (
        "https://a:1", b"CA", b"PEM", b"PEM",
    )  # fmt: skip


async def test_no_file_of_this_computer_is_read_for_another_host(tmp_path: Path) -> None:
    """A token file's content is sent to the server that the same kubeconfig names."""
    mine = tmp_path / "secret"
    mine.write_text("mine")
    config = {**CONFIG, "users": [{"name": "u", "user": {"token": "old", "tokenFile": str(mine)}}]}
    text = kubeconfig.dump(config).reveal()
    theirs = {"/k.conf": text, "/pki/ca.crt": b"CA", str(mine): b"theirs\n"}
    server = Server.from_kubeconfig(await read_kubeconfig(host(**theirs), "/k.conf"))
    assert (server.token, server.token_file) == ("theirs", None)
    with pytest.raises(ConfigError, match="which is its tokenFile"):
        await read_kubeconfig(host(**{"/k.conf": text, "/pki/ca.crt": b"CA"}), "/k.conf")
    empty = {"/k.conf": kubeconfig.dump(CONFIG).reveal(), "/pki/ca.crt": b"CA", "/pem": b""}
    assert "client-key" not in str(await read_kubeconfig(host(**empty), "/k.conf")).replace(
        "client-key-data", ""
    )


async def test_what_is_missing_is_named() -> None:
    config = kubeconfig.dump(CONFIG).reveal()
    with pytest.raises(HostError, match=r"cp1: there is no /etc/kubernetes/admin.conf"):
        await read_kubeconfig(host(), "/etc/kubernetes/admin.conf")
    with pytest.raises(
        ConfigError, match=r"/k.conf: there is no /pki/ca.crt, which is its certificate-authority"
    ):
        await read_kubeconfig(host(**{"/k.conf": config, "/pem": b"PEM"}), "/k.conf")
    with pytest.raises(ConfigError, match=r"/k.conf: not a kubeconfig"):
        await read_kubeconfig(host(**{"/k.conf": b"- 1"}), "/k.conf")


def test_which_kubeconfig_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As kubeadm takes it here; on another host it is that host's."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("KUBECONFIG", raising=False)
    monkeypatch.chdir(tmp_path)
    assert kubeconfig_path(NodeOptions()) == "/etc/kubernetes/admin.conf"
    mine = tmp_path / ".kube/config"
    mine.parent.mkdir()
    mine.touch()
    assert kubeconfig_path(NodeOptions()) == str(mine)
    (tmp_path / "second").touch()
    monkeypatch.setenv("KUBECONFIG", f"{tmp_path}/first:second")
    assert kubeconfig_path(NodeOptions()) == str(tmp_path / "second")
    assert kubeconfig_path(NodeOptions(kubeconfig="given")) == str(tmp_path / "given")
    assert kubeconfig_path(NodeOptions(host="cp1")) == "/etc/kubernetes/admin.conf"
    assert kubeconfig_path(NodeOptions(host="cp1", kubeconfig="/k.conf")) == "/k.conf"
