"""The sources: what they say that they have, and what they refuse."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

import kubewright
from kubewright.components import agent_image
from kubewright.components.cache import Cache
from kubewright.components.debian import DebianSource
from kubewright.components.debian_images import local_arch
from kubewright.components.image import Config, Tree, write_archive, write_layer
from kubewright.components.open import open_source
from kubewright.components.source import Form, Want
from kubewright.components.system import SystemSource
from kubewright.errors import ComponentError, ExitCode
from kubewright.events import Events
from kubewright.model.config.cluster import SourceSpec

ARCH = local_arch()


def image(name: str, version: str = "v1.20.2", arch: str = ARCH) -> Want:
    return Want(name, version, arch, Form.IMAGE, f"k8s.gcr.io/{name}:{version}")


def program(name: str, version: str = "v1.20.2", arch: str = ARCH) -> Want:
    return Want(name, version, arch, Form.BINARY)


@pytest.mark.parametrize(
    "want",
    [
        program("kubelet"), program("kubeadm"), image("kube-proxy"), image("etcd", "3.4.13-0"), image("agent"),
        program("etcd", "3.4.13-0"), program("etcdctl", "3.4.13-0"),
    ],
)  # fmt: skip
async def test_debian_has(want: Want, tmp_path: Path) -> None:
    assert await DebianSource(Cache(tmp_path)).available(want)


@pytest.mark.parametrize(
    "want",
    [
        program("crictl"), image("coredns", "1.7.0"), image("kubelet"), program("coredns"),
        program("kubelet", "v1.21.0"), image("kube-proxy", "v1.20.3"), program("kubelet", arch="s390x"),
    ],
)  # fmt: skip
async def test_debian_has_not(want: Want, tmp_path: Path) -> None:
    source = DebianSource(Cache(tmp_path))
    assert not await source.available(want)
    for asked in (source.fetch([want], Events()), source.ready([want])):  # `apply` and `plan`
        with pytest.raises(ComponentError, match="does not have") as caught:
            await asked
        assert caught.value.exit_code is ExitCode.VERSION_UNAVAILABLE
        assert "source.type" in caught.value.hint
    assert list(tmp_path.iterdir()) == []  # nothing was built for it


async def test_debian_has_one_version(tmp_path: Path) -> None:
    source = DebianSource(Cache(tmp_path))
    await source.require_version("v1.20.2")
    with pytest.raises(ComponentError, match=r"versions it has|does not have Kubernetes v1\.30\.0"):
        await source.require_version("v1.30.0")


def test_a_source_is_opened_by_its_type() -> None:
    assert open_source(SourceSpec()).name == "debian"
    assert open_source(SourceSpec(type="system")).name == "system"


def test_the_agents_tag_follows_its_sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = agent_image.agent_reference()
    assert before == agent_image.agent_reference()
    assert before.startswith("kubewright.dev/agent:v")
    repository, _, version = agent_image.dns_reference(before, "1.7.0").rpartition(":")
    assert version == "1.7.0"
    assert repository.endswith("/" + before[-8:])
    names = set(agent_image.sources())
    assert {"kubewright/__init__.py", "kubewright/clients/kube.py", "kubewright/network/agent.py"} <= names
    assert not [name for name in names if "/cli/" in name or "/phases/" in name]
    package = tmp_path / "kubewright"
    shutil.copytree(Path(str(kubewright.__file__)).parent, package)
    monkeypatch.setattr(kubewright, "__file__", str(package / "__init__.py"))
    assert agent_image.agent_reference() == before
    (package / "cli" / "__init__.py").write_text("# not in the image")
    assert agent_image.agent_reference() == before
    (package / "errors.py").write_text("# in the image")
    assert agent_image.agent_reference() != before


async def test_system_has_what_is_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kubelet = tmp_path / "kubelet"
    kubelet.write_text("#!/bin/sh\necho Kubernetes v1.20.2\n")
    kubelet.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    source = SystemSource(tmp_path)
    assert await source.versions() == ["v1.20.2"]
    assert await source.available(program("kubelet"))
    assert not await source.available(program("kubelet", "v1.21.0"))
    assert not await source.available(program("kubeadm"))
    (artifact,) = await source.fetch([program("kubelet")], Events())
    assert (artifact.path, artifact.size) == (kubelet, kubelet.stat().st_size)
    with pytest.raises(ComponentError, match=r"the one on PATH is v1\.20\.2"):
        await source.fetch([program("kubelet", "v1.21.0")], Events())


async def test_system_finds_images_in_a_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tree = Tree()
    tree.file("/pause", b"program", 0o755)
    layer = await write_layer(tree, tmp_path / "layer")
    image_id = write_archive(tmp_path / "pause.tar", "k8s.gcr.io/pause:3.2", ARCH, Config(), [layer])
    monkeypatch.setenv("KUBEWRIGHT_IMAGES", str(tmp_path))
    source = open_source(SourceSpec(type="system"))
    (artifact,) = await source.fetch([image("pause", "3.2")], Events())
    assert artifact.path == tmp_path / "pause.tar"
    assert artifact.image_id == image_id
    assert not await source.available(image("pause", "3.5"))
    assert not await source.available(image("pause", "3.2", arch="s390x"))


async def test_system_names_a_file_that_is_no_archive(tmp_path: Path) -> None:
    (tmp_path / "broken.tar").write_text("nothing")
    with pytest.raises(ComponentError, match=r"broken\.tar"):
        await SystemSource(tmp_path).available(image("pause", "3.2"))
