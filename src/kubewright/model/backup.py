"""What a conversion keeps of a cluster before it changes it: where, which files, and what etcd is told for it."""

from __future__ import annotations

import json
import posixpath
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from ipaddress import ip_address
from typing import Any
from urllib.parse import urlsplit

from kubewright.errors import ConfigError, ExitCode
from kubewright.model.arguments import EtcdMember
from kubewright.model.kubeconfig import KUBERNETES_DIR
from kubewright.model.kubelet import CONFIG_PATH, DROP_IN_PATH, FLAGS_PATH, INSTANCE_CONFIG_PATH, UNIT_PATH
from kubewright.model.manifests import ETCD, image_of
from kubewright.model.reset import KUBELET_DIR, container_flags

BACKUPS = "/var/lib/kubewright/backups"
"""On each host, 0700: private keys are in there."""
FILES = "files.tar"
ABSENT = "absent"
"""The kept paths that a host did not have, a line each: a restore removes them."""
SNAPSHOT = "etcd.db"
WHOLE = "cluster.json"
"""Which hosts have the backup. It is written last: without it a backup is none."""

KEPT = (
    KUBERNETES_DIR,
    CONFIG_PATH,
    FLAGS_PATH,
    INSTANCE_CONFIG_PATH,
    f"{KUBELET_DIR}/pki",
    UNIT_PATH,
    posixpath.dirname(DROP_IN_PATH),
)
"""The files and folders of a host that are kept, with all that is in them."""

_ID = re.compile(r"[0-9]{8}-[0-9]{6}")
_MARGIN = 64 * 2**20
_BUMP = 10**9
# etcd's configuration flags: what it does without --name and --initial-advertise-peer-urls.
_DEFAULT_NAME, _DEFAULT_PEER_URL = "default", "http://localhost:2380"
_DEFAULT_CLIENT_URL = "http://localhost:2379"


def new_id(now: datetime) -> str:
    """The name of a backup that is made now, in UTC."""
    return now.astimezone(UTC).strftime("%Y%m%d-%H%M%S")


def check_id(text: str, field: str = "--restore") -> str:
    """A backup's name as a user gives it. Raises `ConfigError` for what is none, such as a path."""
    if not _ID.fullmatch(text):
        raise ConfigError(
            f"{field}: {text!r} is no backup's name, which is a date and a time in UTC: 20261122-001500",
            exit_code=ExitCode.USAGE,
        )
    return text


def directory(backup_id: str) -> str:
    """Where a backup is on each of its hosts. Raises `ConfigError` for what is no backup's name."""
    return f"{BACKUPS}/{check_id(backup_id, 'backup')}"


def room_needed(files: int, db: int = 0) -> int:
    """The bytes that must be free for a backup: its files, etcd's snapshot, and the data that a restore makes of
    that, for `db` bytes of etcd's database; with some left for all others."""
    return files + 2 * db + _MARGIN


def restore_command(backup_id: str, config: str) -> str:
    """What a user types to have back what was, with the path of the cluster.yaml."""
    return f"kubewright convert --restore {backup_id} -f {config}"


# -- the hosts of a backup ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class BackedUp:
    """A host that is in a backup."""

    name: str
    ip: str
    control_plane: bool
    etcd: bool = False
    """Whether it has a member of etcd, as a static Pod."""


def whole_file(hosts: Sequence[BackedUp]) -> bytes:
    """What stands in `WHOLE`."""
    return json.dumps({"hosts": [asdict(host) for host in hosts]}, indent=2).encode() + b"\n"


def read_whole(content: bytes) -> list[BackedUp]:
    """The hosts that `WHOLE` names; none where it is damaged, which no backup has."""
    try:
        rows = json.loads(content)["hosts"]
        return [
            BackedUp(str(row["name"]), str(row["ip"]), bool(row["control_plane"]), bool(row["etcd"]))
            for row in rows
        ]
    except (ValueError, KeyError, TypeError):
        return []


# -- etcd -----------------------------------------------------------------------------------------------------


def snapshot_arguments(pod: Mapping[str, Any], path: str) -> list[str]:
    """The arguments of `etcdctl` that save a snapshot to `path`, for the etcd of a static Pod.

    Over TLS it is asked with the certificate by which kubeadm's own probes ask it; over plain HTTP, as kubeadm
    has never written it and some have since, with none.
    """
    flags = container_flags(pod)
    url = _client_endpoint(flags.get("listen-client-urls", ""))
    options = [f"--endpoints={url}"]
    if url.startswith("https://"):
        folder = posixpath.dirname(flags.get("trusted-ca-file", "")) or f"{KUBERNETES_DIR}/pki/etcd"
        options += [
            f"--cacert={folder}/ca.crt",
            f"--cert={folder}/healthcheck-client.crt",
            f"--key={folder}/healthcheck-client.key",
        ]
    return [*options, "snapshot", "save", path]


def status_arguments(path: str) -> list[str]:
    """The arguments of `etcdutl`, or until etcd 3.5 of `etcdctl`, that tell what is in a snapshot, as JSON."""
    return ["snapshot", "status", path, "--write-out=json"]


def good_snapshot(status: str) -> bool:
    """Whether what a snapshot's status says is that of a Kubernetes cluster's: it has keys."""
    try:
        told = json.loads(status)
        return int(told["totalKey"]) > 0 and int(told["revision"]) > 0
    except (ValueError, KeyError, TypeError):
        return False


def restore_arguments(
    own: EtcdMember,
    members: Sequence[EtcdMember],
    *,
    snapshot: str,
    data_dir: str,
    token: str,
    bump: bool = False,
) -> list[str]:
    """The arguments of `etcdutl`, or until etcd 3.5 of `etcdctl`, that make a member's data of a snapshot.

    `members` are all of the new cluster, whose `token` tells it from the one before. With `bump`, which newer
    releases know, no revision comes a second time: who has watched the cluster until now sees that it must list
    anew (etcd's documentation, "Disaster recovery"; etcd 3.4.27, 3.5.10 and 3.6).
    """
    return [
        "snapshot", "restore", snapshot,
        f"--name={own.name}",
        f"--data-dir={data_dir}",
        f"--initial-cluster={','.join(f'{one.name}={one.peer_url}' for one in members)}",
        f"--initial-advertise-peer-urls={own.peer_url}",
        f"--initial-cluster-token={token}",
        *([f"--bump-revision={_BUMP}", "--mark-compacted"] if bump else []),
    ]  # fmt: skip


def member_in(pod: Mapping[str, Any]) -> EtcdMember:
    """The member that a static Pod of etcd is, by its flags."""
    flags = container_flags(pod)
    urls = flags.get("initial-advertise-peer-urls") or _DEFAULT_PEER_URL
    return EtcdMember(flags.get("name") or _DEFAULT_NAME, urls.split(",")[0])


def etcd_image(pod: Mapping[str, Any]) -> str:
    """The image of a static Pod's etcd; empty where the Pod does not say it."""
    return image_of(pod, ETCD)


def image_names(image: str) -> list[str]:
    """The names under which containerd may have an image that a Pod names: whole, with the registry that a short
    name leaves out, and with tag or digest alone where it says both."""
    first, slash, _ = image.partition("/")
    full = image
    if not slash:
        full = f"docker.io/library/{image}"
    elif not ({".", ":"} & {*first} or first == "localhost"):
        full = f"docker.io/{image}"
    name, at, digest = full.partition("@")
    tagged = ":" in posixpath.basename(name)
    if not at:
        return list(dict.fromkeys([image, full if tagged else f"{full}:latest"]))
    bare = name[: name.rindex(":")] if tagged else name
    return list(dict.fromkeys([image, full, f"{bare}@{digest}", *([name] if tagged else [])]))


def _client_endpoint(listen: str) -> str:
    """Where on its own host an etcd is asked: at a loopback address, or else at its first."""
    urls = [url for url in listen.split(",") if url] or [_DEFAULT_CLIENT_URL]
    found = next((url for url in urls if _is_loopback(urlsplit(url).hostname or "")), urls[0])
    for everywhere, here in (("0.0.0.0", "127.0.0.1"), ("[::]", "[::1]")):  # noqa: S104 - it is asked, not bound
        found = found.replace(f"//{everywhere}:", f"//{here}:")
    return found


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
