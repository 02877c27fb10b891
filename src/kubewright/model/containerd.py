"""containerd's configuration: what Kubernetes needs of it, put into whatever the user has there (P48)."""

from __future__ import annotations

import copy
import tomllib
from typing import Any

import tomli_w

from kubewright.errors import ConfigError

CONFIG_PATH = "/etc/containerd/config.toml"
CNI_CONF_DIR = "/etc/cni/net.d"

_CRI = "io.containerd.grpc.v1.cri"
_RUNC = "io.containerd.runc.v2"
_RUNC_TYPES = frozenset({_RUNC, "io.containerd.runc.v1"})


def containerd_config(
    existing: bytes | None,
    *,
    sandbox_image: str,
    systemd_cgroup: bool,
    restrict_oom_score_adj: bool = False,
    cni_bin_dir: str = "",
) -> bytes:
    """`config.toml` as it must be; the user's other settings stay, and the very bytes where nothing is missing.

    `systemd_cgroup` is the kubelet's cgroup driver. `restrict_oom_score_adj` is for a host without
    CAP_SYS_RESOURCE, where runc could not lower the score; it is never taken back. `cni_bin_dir` is used where
    the file names none. Comments are lost where something has to be changed. Raises `ConfigError` for what
    cannot be read, or a version of the format other than 1 and 2.
    """
    found = _parse(existing or b"")
    wanted = copy.deepcopy(found)
    if "version" not in wanted and "plugins" not in wanted:
        wanted["version"] = 2
    version = wanted.get("version", 1)
    if version not in (1, 2):
        raise ConfigError(
            f"{CONFIG_PATH}: version {version} of the format is not supported",
            hint="containerd 1.6 and 1.7 read version 2; `containerd config default` prints one",
        )
    if wanted.get("disabled_plugins"):
        wanted["disabled_plugins"] = [
            item for item in wanted["disabled_plugins"] if item not in ("cri", _CRI)
        ]

    # Version 1 of the format names plugins without their type.
    cri = _table(wanted, "plugins", "cri" if version == 1 else _CRI)
    cri["sandbox_image"] = sandbox_image
    if restrict_oom_score_adj:
        cri["restrict_oom_score_adj"] = True
    cni = _table(cri, "cni")
    cni.setdefault("conf_dir", CNI_CONF_DIR)
    if cni_bin_dir:
        cni.setdefault("bin_dir", cni_bin_dir)
    runtimes = _table(cri, "containerd", "runtimes")
    # A runtime that is named at all must be named with its type: the built-in defaults no longer apply to it.
    _table(runtimes, "runc").setdefault("runtime_type", _RUNC)
    for name, runtime in runtimes.items():
        if isinstance(runtime, dict) and runtime.get("runtime_type") in _RUNC_TYPES:
            _table(runtimes, name, "options")["SystemdCgroup"] = systemd_cgroup

    if existing is not None and wanted == found:
        return existing
    return tomli_w.dumps(wanted).encode()


def cni_bin_dir(config: bytes | None) -> str:
    """Where containerd looks for CNI plugins; /opt/cni/bin where its configuration names no place."""
    plugins = _parse(config or b"").get("plugins", {})
    for name in (_CRI, "cri"):
        cni = plugins.get(name, {}).get("cni", {})
        if cni.get("bin_dir"):
            return str(cni["bin_dir"])
    return "/opt/cni/bin"


def _parse(content: bytes) -> dict[str, Any]:
    try:
        return tomllib.loads(content.decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"{CONFIG_PATH}: not TOML: {error}", hint="mend it, or remove it to get containerd's defaults"
        ) from None


def _table(document: dict[str, Any], *path: str) -> dict[str, Any]:
    """A table inside, made where it is missing. Raises `ConfigError` where something else stands there."""
    for name in path:
        inner = document.setdefault(name, {})
        if not isinstance(inner, dict):
            raise ConfigError(f"{CONFIG_PATH}: {name} is not a table", hint="mend it, or remove the file")
        document = inner
    return document
