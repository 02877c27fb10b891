"""Runs the real kubeadm, in a root directory of its own and without a cluster, and reads what it would do."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

CA_DIR = "usr/share/ca-certificates"
"""The one directory of additional CA certificates that the root directory has."""

_WOULD = "[dryrun] Would "


@dataclass(frozen=True)
class DryRun:
    """Everything that `kubeadm init` would have written."""

    files: Path
    """Holds certificates, kubeconfigs, manifests and the kubelet's files."""
    objects: dict[str, Any]
    """`Kind namespace/name` to object, in the order of creation."""
    node_patches: list[Any]


def kubeadm_init(kubeadm: Path, root: Path, config: str) -> DryRun:
    """`kubeadm init --dry-run` inside `root`, an empty directory, with a configuration file's text."""
    for directory in ("tmp", "etc", "proc", CA_DIR):
        (root / directory).mkdir(parents=True)
    (root / "kubeadm.yaml").write_text(config)
    command = [str(kubeadm), "--rootfs", str(root), "init", "--dry-run", "--config", "/kubeadm.yaml"]
    done = subprocess.run(
        [*command, "--ignore-preflight-errors=all"], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    directories = list((root / "etc/kubernetes/tmp").iterdir())
    assert len(directories) == 1
    objects, patches = _read(done.stdout)
    return DryRun(directories[0], objects, patches)


def key(obj: dict[str, Any]) -> str:
    """How an object is known in `DryRun.objects`."""
    meta = obj["metadata"]
    cluster_wide = obj["kind"].startswith("ClusterRole")
    return f"{obj['kind']} {'' if cluster_wide else meta.get('namespace', '')}/{meta['name']}"


def without_noise(value: Any) -> Any:
    """An object without what Go's types write although nobody said it: empty status, no creation time."""
    if isinstance(value, dict):
        return {
            name: without_noise(inner)
            for name, inner in value.items()
            if name not in ("creationTimestamp", "status", "resourceVersion")
            and not (name == "resources" and inner == {})
        }
    return [without_noise(inner) for inner in value] if isinstance(value, list) else value


def _read(output: str) -> tuple[dict[str, Any], list[Any]]:
    objects: dict[str, Any] = {}
    patches = []
    for part in output.split(_WOULD)[1:]:
        action, _, rest = part.partition("\n")
        block = "\n".join(line[1:] for line in rest.splitlines() if line.startswith("\t"))
        if action.startswith("perform action CREATE"):
            obj = yaml.safe_load(block)
            objects[key(obj)] = obj
        elif action.startswith("perform action PATCH"):
            patches.append(yaml.safe_load(block))
    return objects, patches
