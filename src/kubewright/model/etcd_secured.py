"""What a stacked etcd lacks that listens without TLS or on loopback only, before others can become its members.

etcd's documentation ("Configuration options") has the flags and their defaults; kubeadm 1.13 and newer write them
so that other control planes reach the member, older versions did not.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import SplitResult, urlsplit

from kubewright.errors import ConfigError, ExitCode, HostError
from kubewright.model.arguments import ETCD_CLIENT_PORT
from kubewright.model.manifests import API_SERVER, ETCD
from kubewright.model.reset import container_flags

CLIENT_LISTEN, CLIENT_TOLD = "listen-client-urls", "advertise-client-urls"
PEER_LISTEN, PEER_TOLD = "listen-peer-urls", "initial-advertise-peer-urls"
_DEFAULTS = {
    CLIENT_LISTEN: "http://localhost:2379",
    CLIENT_TOLD: "http://localhost:2379",
    PEER_LISTEN: "http://localhost:2380",
    PEER_TOLD: "http://localhost:2380",
}
_FILES = (
    "cert-file", "key-file", "trusted-ca-file", "peer-cert-file", "peer-key-file", "peer-trusted-ca-file",
)  # fmt: skip
_AUTH = ("client-cert-auth", "peer-client-cert-auth")
_SERVERS = "etcd-servers"
_SERVER_FILES = ("etcd-cafile", "etcd-certfile", "etcd-keyfile")

Pod = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Due:
    """What is still to be done, each as lines that say what becomes what; nothing where it is done."""

    member: tuple[str, ...] = ()
    """The only member's peer URLs, as etcd knows them, are to become `peer_urls`."""
    etcd: tuple[str, ...] = ()
    """Flags in etcd's manifest."""
    api_server: tuple[str, ...] = ()
    """Flags in the API server's manifest."""
    peer_urls: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.member or self.etcd or self.api_server)


def due(
    host: str, present: Mapping[str, Pod], wanted: Mapping[str, Pod], members: Sequence[Sequence[str]]
) -> Due:
    """Which steps are due on a control plane. `present` and `wanted` are its Pods `etcd` and `kube-apiserver`, and
    `members` the peer URLs of each member, as etcd says them.

    Raises `HostError` where etcd has several members, or would find no data where it is to look for it, and
    `ConfigError` where `wanted` does not mend it.
    """
    etcd, api = present[ETCD], present[API_SERVER]
    lacking, hidden = _lacks(etcd), [urls for urls in members if not is_reached(urls)]
    if (lacking or hidden) and len(members) > 1:
        raise HostError(
            f"{host}: etcd has {len(members)} members, and is without TLS or on loopback only: "
            + "; ".join(lacking or [f"one is known at {','.join(hidden[0])}"]),
            host=host, exit_code=ExitCode.HOST_NOT_FIT,
            hint="only the one member of a cluster with one control plane is moved; give each of these TLS and "
            "its own address first (etcd's documentation: runtime reconfiguration)",
        )  # fmt: skip
    future = wanted[ETCD] if lacking else etcd
    if lacking:
        _check_wanted(wanted[ETCD])
        _check_data(host, etcd, wanted[ETCD])
    told = tuple(_urls(future, PEER_TOLD))
    cut_off = not _reaches(api, future)
    if cut_off and not _reaches(wanted[API_SERVER], future):
        raise ConfigError(
            f"kube-apiserver would not reach etcd: --{_SERVERS}="
            f"{container_flags(wanted[API_SERVER]).get(_SERVERS, '')}, or without its TLS files",
            hint="take etcd's flags out of apiServer.extraArgs in clusterConfiguration",
        )
    return Due(
        tuple(_became("peer URL", ",".join(urls), ",".join(told)) for urls in hidden),
        _changes(etcd, wanted[ETCD], (*_DEFAULTS, *_FILES, *_AUTH)) if lacking else (),
        _changes(api, wanted[API_SERVER], (_SERVERS, *_SERVER_FILES)) if cut_off else (),
        told,
    )


def asked_at(etcd: Pod) -> list[str]:
    """Where an etcd serves clients, for one who asks on its host."""
    return list(dict.fromkeys(_near(url) for url in _urls(etcd, CLIENT_LISTEN)))


def named_files(wanted: Mapping[str, Pod]) -> list[str]:
    """The certificates and keys that etcd and the API server's client of it read when they start."""
    flags = container_flags(wanted[ETCD]) | container_flags(wanted[API_SERVER])
    return [path for name in (*_FILES, *_SERVER_FILES) if (path := flags.get(name))]


def _check_wanted(etcd: Pod) -> None:
    if lacks := _lacks(etcd):
        raise ConfigError(
            f"etcd would stay without TLS or on loopback only: {'; '.join(lacks)}",
            hint="take these out of etcd.local.extraArgs in clusterConfiguration",
        )


def _check_data(host: str, present: Pod, wanted: Pod) -> None:
    for flag in ("data-dir", "wal-dir"):
        was, will = _host_path(present, flag), _host_path(wanted, flag)
        if was != will or (flag == "data-dir" and not was):
            raise HostError(
                f"{host}: etcd's --{flag} is at {was or 'no place of the host'}, and would be at {will or 'none'}",
                host=host, exit_code=ExitCode.HOST_NOT_FIT,
                hint="set etcd.local.dataDir in clusterConfiguration to where its data is: without them the "
                "cluster would be empty",
            )  # fmt: skip


def _host_path(pod: Pod, flag: str) -> str:
    """Where on the host a container has the directory that a flag names; empty where it is not the host's."""
    inside = container_flags(pod).get(flag, "").rstrip("/")
    if not inside:
        return ""
    spec = pod["spec"]
    volumes = {one["name"]: (one.get("hostPath") or {}).get("path", "") for one in spec.get("volumes") or []}
    mounts = {
        str(one["mountPath"]).rstrip("/"): str(volumes.get(one["name"], "")).rstrip("/")
        for one in spec["containers"][0].get("volumeMounts") or []
    }
    for mount in sorted(mounts, key=len, reverse=True):
        if f"{inside}/".startswith(f"{mount}/"):
            return mounts[mount] + inside.removeprefix(mount) if mounts[mount] else ""
    return ""


def _lacks(etcd: Pod) -> list[str]:
    """What keeps others from reaching an etcd by TLS; nothing where they can."""
    flags = container_flags(etcd)
    found = [
        f"--{name}={','.join(urls)}"
        for name in _DEFAULTS
        if not (_listens if name in (CLIENT_LISTEN, PEER_LISTEN) else is_reached)(urls := _urls(etcd, name))
    ]
    found += [f"no --{name}" for name in _FILES if not flags.get(name)]
    # A flag without a value is true.
    return found + [f"no --{name}" for name in _AUTH if name not in flags or flags[name] not in ("", "true")]


def _reaches(api: Pod, etcd: Pod) -> bool:
    """Whether an API server is a client of `etcd`, by TLS and where that listens."""
    flags = container_flags(api)
    listens = [_parts(url) for url in _urls(etcd, CLIENT_LISTEN)]

    def served(url: str) -> bool:
        parts = _parts(url)
        return parts.scheme == "https" and any(
            _port(parts) == _port(one) and (_everywhere(one) or _same_host(parts, one)) for one in listens
        )

    servers = [url for url in flags.get(_SERVERS, "").split(",") if url]
    return bool(servers) and all(map(served, servers)) and all(flags.get(name) for name in _SERVER_FILES)


def _changes(present: Pod, wanted: Pod, names: Sequence[str]) -> tuple[str, ...]:
    was, will = container_flags(present), container_flags(wanted)
    return tuple(
        _became(f"--{name}", was.get(name, _DEFAULTS.get(name, "")), will.get(name, _DEFAULTS.get(name, "")))
        for name in names
        if was.get(name) != will.get(name)
    )


def _became(what: str, old: str, new: str) -> str:
    return f"# {what}: {old or 'nothing'} becomes {new or 'nothing'}"


def _urls(etcd: Pod, name: str) -> list[str]:
    return [url for url in (container_flags(etcd).get(name) or _DEFAULTS[name]).split(",") if url]


def _listens(urls: Sequence[str]) -> bool:
    """Whether all are TLS, and one of them is heard by other hosts."""
    parts = [_parts(url) for url in urls]
    return all(one.scheme == "https" for one in parts) and not all(map(_loopback, parts))


def is_reached(urls: Sequence[str]) -> bool:
    """Whether all are TLS, and lead from other hosts to this one."""
    parts = [_parts(url) for url in urls]
    return bool(parts) and all(
        one.scheme == "https" and not _loopback(one) and not _everywhere(one) for one in parts
    )


def _parts(url: str) -> SplitResult:
    return urlsplit(url.strip())


def _port(parts: SplitResult) -> int:
    try:
        return parts.port or ETCD_CLIENT_PORT
    except ValueError:
        return 0


def _address(parts: SplitResult) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(parts.hostname or "")
    except ValueError:
        return None


def _loopback(parts: SplitResult) -> bool:
    address = _address(parts)
    return parts.hostname == "localhost" if address is None else address.is_loopback


def _everywhere(parts: SplitResult) -> bool:
    address = _address(parts)
    return address is not None and address.is_unspecified


def _same_host(one: SplitResult, other: SplitResult) -> bool:
    return one.hostname == other.hostname or (_loopback(one) and _loopback(other))


def _near(url: str) -> str:
    """A URL to connect to for one that is listened on."""
    parts = _parts(url)
    if not _everywhere(parts):
        return url.strip()
    name = "[::1]" if ":" in (parts.hostname or "") else "127.0.0.1"
    return f"{parts.scheme}://{name}:{_port(parts)}"
