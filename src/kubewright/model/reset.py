"""What `reset` takes away from a host, as kubeadm does, and what it must not touch on the way."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from kubewright.errors import ConfigError, ExitCode
from kubewright.model.kept import Kept
from kubewright.model.kubeconfig import KUBERNETES_DIR
from kubewright.model.objects import Object, to_yaml
from kubewright.model.status import internal_ip

MANIFESTS_DIR = f"{KUBERNETES_DIR}/manifests"
TMP_DIR = f"{KUBERNETES_DIR}/tmp"  # noqa: S108 - kubeadm's own, below /etc
KUBELET_DIR = "/var/lib/kubelet"
CONFIG_FILES = tuple(
    f"{KUBERNETES_DIR}/{name}.conf"
    for name in ("admin", "super-admin", "kubelet", "bootstrap-kubelet", "controller-manager", "scheduler")
)
LOGS_DIR = "/var/log/pods"
LOG_LINKS_DIR = "/var/log/containers"
STATE_DIRECTORIES = ("/var/lib/dockershim", "/var/run/kubernetes", LOGS_DIR)
"""Besides the kubelet's own: their content goes, they themselves stay."""

_ETCD_VOLUME = "etcd-data"

# The kubelet mounts volumes below these two; what else is mounted in its directory, somebody else has mounted.
_KUBELET_MOUNTS = ("pods", "plugins")

_SYSTEM = frozenset(
    f"/{path}"
    for path in (
        "", "bin", "boot", "dev", "etc", "home", "lib", "lib32", "lib64", "media", "mnt", "opt", "proc", "root",
        "run", "sbin", "srv", "sys", "tmp", "usr", "var", "etc/ssl", "etc/ssl/certs", "etc/systemd", "usr/bin",
        "usr/lib", "usr/local", "usr/local/bin", "usr/sbin", "usr/share", "var/lib", "var/log", "var/run",
        "var/cache", "var/spool", "var/tmp", "run/systemd",
    )
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Emptying:
    """A directory whose entries are removed, all but those of `kept` (full paths)."""

    directory: str
    kept: tuple[str, ...] = ()


def check_directory(path: str, field: str) -> str:
    """The path without a slash at its end. Raises `ConfigError` where emptying it would ruin the host."""
    plain = re.sub(r"/+", "/", path).rstrip("/") or "/"
    if not path.startswith("/") or "/../" in f"{plain}/" or "/./" in f"{plain}/" or not path.isprintable():
        raise ConfigError(f"{field}: {path!r} is not a plain absolute path", exit_code=ExitCode.USAGE)
    if plain in _SYSTEM:
        raise ConfigError(
            f"{field}: {plain} belongs to the system; reset would empty it",
            hint="name the directory that holds nothing but the cluster's files, such as /etc/kubernetes/pki",
            exit_code=ExitCode.USAGE,
        )
    return plain


def mount_points(mountinfo: str) -> list[str]:
    """All mount points of /proc/self/mountinfo (proc(5)), in its order; blanks stand there as octal numbers."""
    rows = (line.split(" ") for line in mountinfo.splitlines())
    return [
        re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), row[4]) for row in rows if len(row) > 5
    ]


def kubelet_mounts(mounts: Iterable[str], kubelet_dir: str) -> list[str]:
    """Those that the kubelet has made, the deepest first and the last one on a path first, to be unmounted."""
    ours = tuple(f"{kubelet_dir}/{name}/" for name in _KUBELET_MOUNTS)
    found = [mount for mount in mounts if mount.startswith(ours)]
    found.reverse()
    return sorted(found, key=lambda mount: -mount.count("/"))


def others_mounts(directory: str, mounts: Iterable[str], unmounted: Iterable[str]) -> list[Kept]:
    """What is mounted below a directory that is emptied, and is not unmounted."""
    why = f"somebody else has mounted it there; nothing in {directory} is removed through it"
    ours = set(unmounted)
    found = dict.fromkeys(
        mount for mount in mounts if mount.startswith(f"{directory}/") and mount not in ours
    )
    return [Kept(mount, why) for mount in found]


def others_in_kubernetes(entries: Iterable[str], emptied: Iterable[str]) -> list[Kept]:
    """What stays of the entries of /etc/kubernetes, given as paths: what kubeadm has not put there."""
    gone = {*CONFIG_FILES, *emptied}
    return [
        Kept(path, "what upgrades have kept; --cleanup-tmp-dir empties it")
        if path == TMP_DIR
        else Kept(path, "kubeadm does not make it, so that somebody else has put it there")
        for path in entries
        if path not in gone
    ]


def emptying(directory: str, mounts: Sequence[str]) -> list[Emptying]:
    """How a directory is emptied without reaching through a mount point below it.

    Each mount point stays, with the directories that lead to it; all else in them goes.
    """
    below = sorted({mount for mount in mounts if mount.startswith(f"{directory}/")})
    kept: dict[str, set[str]] = {directory: set()}
    for mount in below:
        if any(mount.startswith(f"{other}/") for other in below if other != mount):
            continue  # it lies on another mount, which is not entered
        parent = directory
        for name in mount.removeprefix(f"{directory}/").split("/"):
            child = f"{parent}/{name}"
            kept.setdefault(parent, set()).add(child)
            parent = child
    return [Emptying(path, tuple(sorted(children))) for path, children in sorted(kept.items())]


def etcd_data_dir(pod: Mapping[str, Any]) -> str:
    """Where the etcd of a static Pod keeps its data on the host; empty where the Pod does not say."""
    for volume in _in_spec(pod, "volumes"):
        if volume.get("name") == _ETCD_VOLUME and isinstance(volume.get("hostPath"), dict):
            return str(volume["hostPath"].get("path") or "")
    return ""


def container_flags(pod: Mapping[str, Any]) -> dict[str, str]:
    """The flags of a static Pod's first container, without their dashes."""
    first, *_ = [*_in_spec(pod, "containers"), {}]
    words = [str(word) for word in (*(first.get("command") or ()), *(first.get("args") or ()))]
    pairs = (word.removeprefix("--").partition("=") for word in words if word.startswith("--"))
    return {name: value for name, _, value in pairs}


def _in_spec(pod: Mapping[str, Any], field: str) -> list[Mapping[str, Any]]:
    """The items of a list of a Pod; none where a damaged manifest has something else there."""
    spec = pod.get("spec")
    items = spec.get(field) if isinstance(spec, dict) else None
    return [item for item in items if isinstance(item, dict)] if isinstance(items, list) else []


def without_endpoint(status: Mapping[str, Any], node: str) -> str | None:
    """ClusterStatus without a node's API endpoint, as text; None where it has none."""
    endpoints = status.get("apiEndpoints") or {}
    if node not in endpoints:
        return None
    rest = {name: endpoint for name, endpoint in endpoints.items() if name != node}
    return to_yaml({**status, "apiEndpoints": rest}).decode()


def why_not_this_node(node: Object, *, machine_id: str, addresses: Collection[str]) -> str:
    """Why a Node object is not that of the host with this machine ID and these addresses; empty where it is."""
    status = node.get("status") or {}
    theirs = str((status.get("nodeInfo") or {}).get("machineID") or "")
    if theirs and machine_id and theirs != machine_id:
        return f"its machine ID is {theirs}, and this host's is {machine_id}"
    address = internal_ip(node)
    if address and address not in addresses:
        return f"its address is {address}, which this host has not"
    return ""


def quorum_without(healthy_others: int, voters: int) -> str:
    """Why one of `voters` cannot leave etcd: too few of the others are healthy. Empty where it can."""
    rest = voters - 1
    need = rest // 2 + 1
    if rest == 0 or healthy_others >= need:
        return ""
    return (
        f"without it {rest} voting members are left, of which {healthy_others} are healthy; {need} are needed"
    )
