"""A conversion of a cluster that runs: what it is to become, what there was before, and the record of one."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from kubewright.errors import ConfigError, ExitCode

if TYPE_CHECKING:
    from kubewright.model.config.kubeadm_types import ClusterConfiguration

RECORD = "/var/lib/kubewright/conversion.json"
"""On every control plane that there was when the conversion began."""

_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", re.ASCII)


class Mode(StrEnum):
    """What a cluster is converted to."""

    TO_HA = "to-ha"
    """Several control planes behind an endpoint."""
    ENDPOINT = "endpoint"
    """The same control planes behind an endpoint, which they did not have or which was another."""
    EXTERNAL_ETCD = "to-external-etcd"
    """etcd on hosts of its own."""


@dataclass(frozen=True, slots=True)
class Existing:
    """The cluster as it is before anything is changed; of a conversion that goes on, as it is now."""

    control_planes: tuple[str, ...]
    """Their names, in cluster.yaml's order. One that is only half added is not among them."""
    nodes: tuple[str, ...]
    """The names of all Nodes."""
    address: str
    """`host:port` by which the API is reached now, as the first control plane's administrator has it."""
    server: str
    """The same as a URL."""
    etcd_data: str
    """Where the first control plane's etcd keeps its data; empty where etcd is elsewhere."""
    etcd_plain: bool
    """Whether etcd speaks plain http to clients or peers on some control plane."""
    etcd_loopback: bool
    """Whether etcd serves clients or peers on a loopback address alone on some control plane."""
    etcd_size: int
    """Of etcd's database on disk, in bytes."""
    cluster: ClusterConfiguration
    """The ClusterConfiguration that the cluster has stored."""


@dataclass(frozen=True, slots=True)
class Record:
    """A conversion that has begun, so that the next run knows what there was before."""

    id: str
    """The backup's."""
    mode: Mode
    began: datetime
    came_from: str
    """The URL by which the API was reached before."""
    to: str
    """The endpoint's `host:port`; of an etcd that moves, the names of its hosts."""
    control_planes: tuple[str, ...]
    """The names of those that there were before."""
    nodes: tuple[str, ...]
    """The names of the Nodes that there were before."""
    ended: datetime | None = None
    """None while it is unfinished."""

    @property
    def unfinished(self) -> bool:
        """Whether the next run must finish it."""
        return self.ended is None

    def refuse_mode(self, mode: Mode, restore: str) -> None:
        """Raise `ConfigError` where this one moves etcd and `mode` does not, or the other way round. `restore` is
        the command that brings back what was."""
        if self.mode is not mode and Mode.EXTERNAL_ETCD in (self.mode, mode):
            raise ConfigError(
                f"a conversion --{self.mode} is under way (backup {self.id})",
                exit_code=ExitCode.CONFIG_INVALID,
                hint=f"finish it with --{self.mode}, or bring back what was: {restore}",
            )

    def text(self) -> bytes:
        """The record as it is kept: JSON, times as ISO 8601 in UTC."""
        document = {
            "id": self.id,
            "mode": str(self.mode),
            "began": _shown(self.began),
            "from": self.came_from,
            "to": self.to,
            "controlPlanes": list(self.control_planes),
            "nodes": list(self.nodes),
            "ended": None if self.ended is None else _shown(self.ended),
        }
        return (json.dumps(document, indent=2) + "\n").encode()


_FIELDS = ("id", "mode", "began", "from", "to", "controlPlanes", "nodes", "ended")


def parse_record(content: bytes, where: str) -> Record:
    """The record in a file. Raises `ConfigError` naming the file, `where`, and the field that is wrong."""
    try:
        document = json.loads(content)
    except ValueError:  # also what is no UTF-8
        raise _damaged(where, "it is no JSON") from None
    if not isinstance(document, dict):
        raise _damaged(where, "it is no JSON object")
    if missing := [name for name in _FIELDS if name not in document]:
        raise _damaged(where, f"{missing[0]} is missing")
    if unknown := sorted(document.keys() - {*_FIELDS}):
        raise _damaged(where, f"{unknown[0]} is not known: was it written by a newer Kubewright?")
    try:
        mode = Mode(document["mode"])
    except ValueError:
        raise _damaged(where, f"mode is none of {', '.join(Mode)}") from None
    if not _ID.fullmatch(_text(document, "id", where)):
        raise _damaged(where, "id is no name of a backup")
    return Record(
        document["id"],
        mode,
        _moment(document, "began", where),
        _text(document, "from", where),
        _text(document, "to", where),
        _names(document, "controlPlanes", where),
        _names(document, "nodes", where),
        None if document["ended"] is None else _moment(document, "ended", where),
    )


def _text(document: Mapping[str, Any], field: str, where: str) -> str:
    if not isinstance(document[field], str) or not document[field]:
        raise _damaged(where, f"{field} is no text")
    return str(document[field])


def _names(document: Mapping[str, Any], field: str, where: str) -> tuple[str, ...]:
    found = document[field]
    if not isinstance(found, list) or not found or not all(isinstance(name, str) and name for name in found):
        raise _damaged(where, f"{field} is no list of names")
    return tuple(found)


def _moment(document: Mapping[str, Any], field: str, where: str) -> datetime:
    try:
        found = datetime.fromisoformat(_text(document, field, where))
    except ValueError:
        raise _damaged(where, f"{field} is no time") from None
    if found.utcoffset() != timedelta(0):
        raise _damaged(where, f"{field} is no time in UTC")
    return found.astimezone(UTC)


def _shown(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat().removesuffix("+00:00") + "Z"


def _damaged(where: str, why: str) -> ConfigError:
    return ConfigError(
        f"{where} is damaged: {why}",
        hint="another control plane has the same file; else move it away, if no conversion is under way",
    )
