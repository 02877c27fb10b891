"""Images: read back what was written, and write the same twice."""

from __future__ import annotations

import hashlib
import json
import subprocess
import tarfile
from pathlib import Path

import pytest

from kubewright.components.archive import Held, read_archive
from kubewright.components.image import Config, Layer, Tree, write_archive, write_layer, write_tar
from kubewright.components.recipes import RECIPES, base_tree, config, upstream

REFERENCE = "k8s.gcr.io/pause:3.2"


def tree(program: Path) -> Tree:
    made = base_tree()
    made.link("/usr/sbin/iptables", "xtables-nft-multi")
    made.file("/usr/local/bin/program", program, 0o755)
    made.directory("/var/lib/own", 0o700)
    return made


@pytest.fixture
def program(tmp_path: Path) -> Path:
    path = tmp_path / "program"
    path.write_bytes(b"\x7fELF and more" * 1000)
    return path


async def write(folder: Path, program: Path) -> tuple[Path, str, Layer]:
    folder.mkdir()
    layer = await write_layer(tree(program), folder / "layer")
    archive = folder / "image.tar"
    image_id = write_archive(archive, REFERENCE, "amd64", config(RECIPES["pause"], "3.2"), [layer])
    return archive, image_id, layer


def blobs(archive: Path) -> dict[str, bytes]:
    with tarfile.open(archive) as tar:
        found = {}
        for member in tar:
            file = tar.extractfile(member) if member.isfile() else None
            if file is not None:
                found[member.name] = file.read()
        return found


def unpacked(layer: bytes) -> bytes:
    return subprocess.run(["zstd", "-d", "-c"], input=layer, capture_output=True, check=True).stdout


async def test_every_digest_is_the_one_of_its_content(tmp_path: Path, program: Path) -> None:
    archive, image_id, layer = await write(tmp_path / "a", program)
    files = blobs(archive)
    for name, content in files.items():
        if name.startswith("blobs/sha256/"):
            assert hashlib.sha256(content).hexdigest() == name.rpartition("/")[2]
    (row,) = json.loads(files["index.json"])["manifests"]
    manifest = json.loads(files[f"blobs/{row['digest'].replace(':', '/')}"])
    assert row["size"] == len(files[f"blobs/{row['digest'].replace(':', '/')}"])
    assert manifest["config"]["digest"] == image_id
    configuration = json.loads(files[f"blobs/{image_id.replace(':', '/')}"])
    assert manifest["config"]["size"] == len(files[f"blobs/{image_id.replace(':', '/')}"])
    (row,) = manifest["layers"]
    packed = files[f"blobs/{row['digest'].replace(':', '/')}"]
    assert row["size"] == len(packed) == layer.size
    plain = unpacked(packed)
    assert configuration["rootfs"]["diff_ids"] == [f"sha256:{hashlib.sha256(plain).hexdigest()}"]
    assert configuration["architecture"] == "amd64"
    assert configuration["config"]["Entrypoint"] == ["/pause"]
    assert configuration["config"]["Labels"]["org.opencontainers.image.version"] == "3.2"


async def test_the_same_files_give_the_same_bytes(tmp_path: Path, program: Path) -> None:
    one, first_id, _ = await write(tmp_path / "a", program)
    program.touch()
    two, second_id, _ = await write(tmp_path / "b", program)
    assert first_id == second_id
    assert one.read_bytes() == two.read_bytes()


async def test_the_name_is_no_part_of_the_id(tmp_path: Path, program: Path) -> None:
    archive, image_id, layer = await write(tmp_path / "a", program)
    other = tmp_path / "other.tar"
    assert image_id == write_archive(other, "x/y:1", "amd64", config(RECIPES["pause"], "3.2"), [layer])
    assert read_archive(archive) == [Held(REFERENCE, image_id, "amd64")]
    assert read_archive(other) == [Held("x/y:1", image_id, "amd64")]


def test_a_layer_holds_what_was_put_in_it(tmp_path: Path, program: Path) -> None:
    made = tree(program)
    digest = write_tar(made, tmp_path / "layer.tar")
    assert digest == hashlib.sha256((tmp_path / "layer.tar").read_bytes()).hexdigest()
    with tarfile.open(tmp_path / "layer.tar") as tar:
        members = {member.name: member for member in tar}
        assert all((member.uid, member.gid, member.mtime) == (0, 0, 0) for member in members.values())
        assert all(not member.uname and not member.gname for member in members.values())
        file = tar.extractfile("usr/local/bin/program")
        assert file is not None
        assert file.read() == program.read_bytes()
    assert members["usr/local/bin/program"].mode == 0o755
    assert members["usr/sbin/iptables"].linkname == "xtables-nft-multi"
    assert members["tmp"].mode == 0o1777
    assert members["var/lib/own"].mode == 0o700
    assert list(members) == sorted(members)
    for name in members:  # every parent comes before its children
        parent = name.rpartition("/")[0]
        assert not parent or list(members).index(parent) < list(members).index(name)


def test_docker_archives_are_read_and_others_refused(tmp_path: Path) -> None:
    configuration = tmp_path / "config.json"
    configuration.write_text(json.dumps({"architecture": "arm64"}))
    manifest = tmp_path / "manifest.json"
    manifest.write_text(json.dumps([{"Config": "config.json", "RepoTags": ["a/b:1", "a/b:2"], "Layers": []}]))
    with tarfile.open(tmp_path / "docker.tar", "w") as tar:
        tar.add(manifest, "manifest.json")
        tar.add(configuration, "config.json")
    image_id = f"sha256:{hashlib.sha256(configuration.read_bytes()).hexdigest()}"
    assert read_archive(tmp_path / "docker.tar") == [
        Held("a/b:1", image_id, "arm64"),
        Held("a/b:2", image_id, "arm64"),
    ]
    with pytest.raises(ValueError, match="cannot be read"):
        read_archive(manifest)
    with tarfile.open(tmp_path / "other.tar", "w") as tar:
        tar.add(manifest, "other.json")
    with pytest.raises(ValueError, match="neither"):
        read_archive(tmp_path / "other.tar")


def test_images_state_the_true_version() -> None:
    assert upstream("3.4.23-4+b4") == "3.4.23"
    assert upstream("1:1.8.9-2") == "1.8.9"
    assert config(RECIPES["etcd"], "3.4.23").labels["org.opencontainers.image.version"] == "3.4.23"
    assert isinstance(config(RECIPES["etcd"], "3.4.23"), Config)
