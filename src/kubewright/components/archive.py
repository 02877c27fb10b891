"""Reads what images an archive holds: an OCI layout, or what `docker save` and `podman save` write."""

from __future__ import annotations

import hashlib
import json
import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_NAMES = ("io.containerd.image.name", "org.opencontainers.image.ref.name")


@dataclass(frozen=True, slots=True)
class Held:
    """An image in an archive. `image_id` is its configuration's digest; `arch` is in Go's words."""

    reference: str
    image_id: str
    arch: str


def read_archive(path: Path) -> list[Held]:
    """The images in the archive at `path` that have a name. Raises `ValueError` where it is no image archive."""
    try:
        with tarfile.open(path) as tar:
            members = {member.name.removeprefix("./"): member for member in tar}
            if "index.json" in members:
                return _read_layout(tar, members)
            if "manifest.json" in members:
                return _read_docker(tar, members)
    except (OSError, tarfile.TarError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"it cannot be read as an image archive: {error}") from error
    raise ValueError("it is no image archive: it has neither index.json nor manifest.json")


def _read_layout(tar: tarfile.TarFile, members: dict[str, tarfile.TarInfo]) -> list[Held]:
    held: list[Held] = []
    for row in json.loads(_content(tar, members["index.json"]))["manifests"]:
        annotations = row.get("annotations") or {}
        reference = next((annotations[name] for name in _NAMES if name in annotations), "")
        blob = members.get(f"blobs/{row['digest'].replace(':', '/')}")
        if not reference or blob is None:
            continue
        manifest: Any = json.loads(_content(tar, blob))
        if "config" not in manifest:
            continue  # an index of several architectures
        image_id = manifest["config"]["digest"]
        config = json.loads(_content(tar, members[f"blobs/{image_id.replace(':', '/')}"]))
        held.append(Held(reference, image_id, config["architecture"]))
    return held


def _read_docker(tar: tarfile.TarFile, members: dict[str, tarfile.TarInfo]) -> list[Held]:
    held: list[Held] = []
    for row in json.loads(_content(tar, members["manifest.json"])):
        content = _content(tar, members[row["Config"]])
        image_id = f"sha256:{hashlib.sha256(content).hexdigest()}"
        arch = json.loads(content)["architecture"]
        held += [Held(reference, image_id, arch) for reference in row.get("RepoTags") or []]
    return held


def _content(tar: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    file = tar.extractfile(member)
    if file is None:
        raise ValueError(f"{member.name} in it is no file")
    with file:
        return file.read()
