"""Reading a kubeconfig on a host, with the files that it names there."""

from __future__ import annotations

import base64
import posixpath

from kubewright.errors import ConfigError, ExitCode, HostError
from kubewright.hosts import Host
from kubewright.model import kubeconfig
from kubewright.model.objects import Object

_TOKEN_FILE = "tokenFile"  # noqa: S105 - a field's name
_FILES = {
    "clusters": ("cluster", ("certificate-authority",)),
    "users": ("user", ("client-certificate", "client-key", _TOKEN_FILE)),
}


async def read_kubeconfig(host: Host, path: str) -> Object:
    """A host's kubeconfig with the content of the certificates, keys and tokens that it only names.

    No name of a file is left: it would be read on this computer, and a token be sent to whom the host says. Raises
    `HostError` where there is none, `ConfigError` where it or a file that it names cannot be read.
    """
    content = await host.read_file(path)
    if content is None:
        raise HostError(
            f"{host.name}: there is no {path}", host=host.name, exit_code=ExitCode.FAILURE,
            hint="is this a control plane? name another with --host, or a kubeconfig with --kubeconfig",
        )  # fmt: skip
    document = kubeconfig.load(content, path)
    named: list[tuple[Object, str, str]] = []
    for section, (inner, fields) in _FILES.items():
        for entry in document.get(section) or []:
            held = entry.get(inner) if isinstance(entry, dict) else None
            if not isinstance(held, dict):
                continue
            named += [
                (held, field, posixpath.join(posixpath.dirname(path), str(held[field])))
                for field in fields
                if held.get(field) and not held.get(f"{field}-data")
            ]
    if named:
        found = await host.read_files([file for _, _, file in named])
        for held, field, file in named:
            if file not in found:
                raise ConfigError(f"{path}: there is no {file}, which is its {field}")
            if field == _TOKEN_FILE:  # goes before a token that stands there, as with kubectl
                held["token"] = found[file].decode(errors="replace").strip()
            else:
                held[f"{field}-data"] = base64.b64encode(found[file]).decode()
    for section, (inner, fields) in _FILES.items():
        for entry in document.get(section) or []:
            if isinstance(entry, dict) and isinstance(entry.get(inner), dict):
                for field in fields:
                    entry[inner].pop(field, None)
    return document
