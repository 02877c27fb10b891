"""`kubewright doctor --collect`: what was seen, without secrets, as one file to send to somebody."""

from __future__ import annotations

import io
import json
import os
import tarfile
from pathlib import Path

from kubewright.errors import ConfigError, ExitCode
from kubewright.model.doctor.redact import redacted, redacted_data
from kubewright.workflows.doctor import Examination

_MAPS = ("kubeadm-config", "kube-proxy", "coredns", "kubelet-config")
_ROOT = "kubewright-doctor"


def contents(found: Examination) -> dict[str, str]:
    """The bundle's files by their names."""
    facts = found.facts
    objects = facts.asked.objects
    files = {
        "report.json": _json(found.as_dict()),
        "status.json": _json(facts.status.as_dict()),
    }
    if objects is not None:
        files["nodes.json"] = _json([dict(one) for one in objects.nodes])
        files["system-pods.json"] = _json(facts.system_pods())
        files["workloads.json"] = _json([dict(one) for one in (*objects.daemon_sets, *objects.deployments)])
    for item in facts.asked.config_maps:
        name = str(item["metadata"]["name"])
        if name.startswith(_MAPS):
            files[f"config-maps/{name}.json"] = _json(item.get("data") or {})
    for node in facts.nodes:
        if node.raw:
            files[f"hosts/{node.name}/look.txt"] = redacted(node.raw)
        if node.runtime is not None:
            files[f"hosts/{node.name}/containers.json"] = _json(
                [
                    {"pod": one.pod, "name": one.name, "attempt": one.attempt, "running": one.running,
                     "ended": str(one.ended) if one.ended else None}
                    for one in node.runtime.containers
                ]
            )  # fmt: skip
    return files


def _json(document: object) -> str:
    return json.dumps(redacted_data(document), indent=2, ensure_ascii=False) + "\n"


def write_bundle(path: Path, files: dict[str, str]) -> None:
    """Write the files as a tar archive that only the user can read. Raises `ConfigError` where `path` exists, or
    cannot be written."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        raise ConfigError(
            f"--collect: {path} exists already", hint="name another file", exit_code=ExitCode.USAGE
        ) from None
    except OSError as error:
        raise ConfigError(f"--collect: {path}: {error.strerror}", exit_code=ExitCode.USAGE) from error
    with os.fdopen(descriptor, "wb") as file, tarfile.open(fileobj=file, mode="w:gz") as archive:
        for name, text in files.items():
            data = text.encode()
            entry = tarfile.TarInfo(f"{_ROOT}/{name}")
            entry.size, entry.mode = len(data), 0o600
            archive.addfile(entry, io.BytesIO(data))
