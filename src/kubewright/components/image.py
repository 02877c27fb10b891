"""Container images written in pure Python: a tree of files becomes a layer, layers become an OCI archive."""

from __future__ import annotations

import asyncio
import hashlib
import io
import json
import os
import posixpath
import stat
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from kubewright.components.tools import require, run_tool

FORMAT = 1
"""Raised when what is written out of the same files changes; part of every image's key in the cache."""

_LAYER = "application/vnd.oci.image.layer.v1.tar+zstd"
_CONFIG = "application/vnd.oci.image.config.v1+json"
_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
_INDEX = "application/vnd.oci.image.index.v1+json"
_EPOCH = "1970-01-01T00:00:00Z"


@dataclass(frozen=True, slots=True)
class Node:
    """A file, directory or symbolic link of a tree; `content` is a file's, `link` a link's target."""

    mode: int
    content: Path | bytes | None = None
    link: str = ""


class Tree:
    """The files of a layer by absolute path, all root's. Parent directories appear by themselves, 0755."""

    def __init__(self) -> None:
        self.nodes: dict[str, Node] = {}

    def file(self, path: str, content: Path | bytes, mode: int | None = None) -> None:
        """Put a file; without `mode`, that of the file copied, or 0644."""
        if mode is None:
            mode = stat.S_IMODE(content.stat().st_mode) if isinstance(content, Path) else 0o644
        self._put(path, Node(mode, content))

    def directory(self, path: str, mode: int = 0o755) -> None:
        """Put a directory."""
        self._put(path, Node(mode))

    def link(self, path: str, target: str) -> None:
        """Put a symbolic link."""
        self._put(path, Node(0o777, link=target))

    def _put(self, path: str, node: Node) -> None:
        path = posixpath.normpath(path)
        parent = posixpath.dirname(path)
        if parent != "/" and parent not in self.nodes:
            self.directory(parent)
        self.nodes[path] = node


@dataclass(frozen=True, slots=True)
class Config:
    """How a container of the image is run."""

    entrypoint: Sequence[str] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    workdir: str = "/"
    labels: Mapping[str, str] = field(default_factory=dict)
    user: str = ""
    """`uid:gid`, root where empty."""


@dataclass(frozen=True, slots=True)
class Layer:
    """A compressed layer on disk. Digests are in hexadecimal: `diff` of the plain tar, `digest` of the file."""

    path: Path
    diff: str
    digest: str
    size: int


async def write_layer(tree: Tree, path: Path) -> Layer:
    """Write `tree` as a layer at `path`; the same files give the same bytes, whenever and by whomever."""
    require("making a container image", "zstd")
    plain = path.with_suffix(".tar")
    diff = await asyncio.to_thread(write_tar, tree, plain)
    # One thread and a fixed level: the result must not depend on this computer's cores (docs/components.md
    # has the measurements behind zstd and its level).
    await run_tool(
        "compressing a layer", ["zstd", "-q", "-f", "-9", "--single-thread", str(plain), "-o", str(path)]
    )
    plain.unlink()
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return Layer(path, diff, digest, path.stat().st_size)


def write_tar(tree: Tree, path: Path) -> str:
    """Write `tree` as a plain tar, sorted, without times and owners, and return its SHA-256 in hexadecimal."""
    with path.open("w+b") as file:
        with tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as tar:
            for name, node in sorted(tree.nodes.items()):
                _add(tar, name.lstrip("/"), node)
        file.seek(0)
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_archive(path: Path, reference: str, arch: str, config: Config, layers: Sequence[Layer]) -> str:
    """Write an OCI layout as one tar that `ctr images import` takes, and return the image's id, `sha256:…`.

    `arch` is in Go's words. The id is the digest of the image's configuration, in which `reference` has no
    part. See the OCI image specification (image-layout, config); containerd reads the full name from the
    annotation `io.containerd.image.name`.
    """
    configuration = _json(
        {
            "architecture": arch,
            "os": "linux",
            "created": _EPOCH,
            "config": {
                "Entrypoint": list(config.entrypoint),
                "Env": [f"{name}={value}" for name, value in sorted(config.env.items())],
                "WorkingDir": config.workdir,
                "Labels": dict(sorted(config.labels.items())),
                "User": config.user,
            },
            "rootfs": {"type": "layers", "diff_ids": [f"sha256:{layer.diff}" for layer in layers]},
            "history": [{"created": _EPOCH, "created_by": "kubewright"} for _ in layers],
        }
    )
    image_id = _digest(configuration)
    manifest = _json(
        {
            "schemaVersion": 2,
            "mediaType": _MANIFEST,
            "config": {"mediaType": _CONFIG, "digest": image_id, "size": len(configuration)},
            "layers": [
                {"mediaType": _LAYER, "digest": f"sha256:{layer.digest}", "size": layer.size}
                for layer in layers
            ],
        }
    )
    index = _json(
        {
            "schemaVersion": 2,
            "mediaType": _INDEX,
            "manifests": [
                {
                    "mediaType": _MANIFEST,
                    "digest": _digest(manifest),
                    "size": len(manifest),
                    "platform": {"architecture": arch, "os": "linux"},
                    "annotations": {
                        "io.containerd.image.name": reference,
                        "org.opencontainers.image.ref.name": reference.rpartition(":")[2],
                    },
                }
            ],
        }
    )
    blobs: dict[str, Path | bytes] = {_digest(manifest): manifest, image_id: configuration}
    blobs.update({f"sha256:{layer.digest}": layer.path for layer in layers})
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as tar:
        _add(tar, "oci-layout", Node(0o644, _json({"imageLayoutVersion": "1.0.0"})))
        _add(tar, "index.json", Node(0o644, index))
        _add(tar, "blobs", Node(0o755))
        _add(tar, "blobs/sha256", Node(0o755))
        for digest, content in blobs.items():
            _add(tar, f"blobs/{digest.replace(':', '/')}", Node(0o644, content))
    return image_id


def _add(tar: tarfile.TarFile, name: str, node: Node) -> None:
    row = tarfile.TarInfo(name)
    row.mode = node.mode
    if node.link:
        row.type, row.linkname = tarfile.SYMTYPE, node.link
        tar.addfile(row)
    elif node.content is None:
        row.type = tarfile.DIRTYPE
        tar.addfile(row)
    else:
        with _open(node.content) as file:
            row.size = file.seek(0, os.SEEK_END)
            file.seek(0)
            tar.addfile(row, file)


def _open(content: Path | bytes) -> IO[bytes]:
    return content.open("rb") if isinstance(content, Path) else io.BytesIO(content)


def _json(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


def _digest(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"
