"""API servers as they answer, one by one and through the endpoint, and who leads among the controllers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from kubewright.model.status import failed_checks, parse_time, span

Object = Mapping[str, Any]

HERE = "here"
"""In the place of a host's name: this computer."""
LEADERS = {"kube-controller-manager": "controller manager", "kube-scheduler": "scheduler"}
"""Leases in kube-system, and whom the holder leads."""
_LATE = timedelta(seconds=15)
"""Clocks may differ by as much before a Lease is called stale."""


@dataclass(frozen=True, slots=True)
class ApiAnswer:
    """What became of asking an API server."""

    name: str
    """The node that it runs on; for the endpoint, the host that asked, or `HERE`."""
    url: str
    milliseconds: float | None = None
    """How long `/readyz` took; None where nothing answered."""
    version: str = ""
    readyz: str = ""
    """The text of `/readyz?verbose`."""
    error: str = ""
    """Why nothing answered."""


@dataclass(frozen=True, slots=True)
class ApiStatus:
    """An API server, or the endpoint as one host sees it."""

    name: str
    url: str
    answers: bool
    ready: bool
    milliseconds: float | None = None
    version: str = ""
    failed_checks: tuple[str, ...] = ()
    detail: str = ""
    """Why it does not answer, or is not ready."""


@dataclass(frozen=True, slots=True)
class LeaderStatus:
    """Who leads among the instances of a controller."""

    name: str
    """The Lease's."""
    holder: str
    """The node; empty where nobody leads."""
    since: str = ""
    """When it became the leader, as the Lease says it."""
    changes: int = 0
    """How often the leader has changed."""
    problem: str = ""


def api_status(answer: ApiAnswer) -> ApiStatus:
    """One API server's status. It is ready where it answers and no check of `/readyz` fails."""
    if answer.milliseconds is None:
        return ApiStatus(answer.name, answer.url, answers=False, ready=False, detail=answer.error)
    failed = failed_checks(answer.readyz)
    return ApiStatus(
        answer.name, answer.url, answers=True, ready=not failed, milliseconds=round(answer.milliseconds, 1),
        version=answer.version, failed_checks=failed,
        detail=f"not ready: {', '.join(failed)}" if failed else answer.error,
    )  # fmt: skip


def api_problems(servers: Iterable[ApiStatus], endpoint: Sequence[ApiStatus]) -> list[str]:
    """What is wrong with them; an endpoint that fails in one way for several hosts is one line."""
    lines = [
        f"API server {one.name}: {_trouble(one)}" for one in servers if not one.ready
    ]  # fmt: skip
    same: dict[tuple[str, str], list[str]] = {}
    for one in endpoint:
        if not one.ready:
            same.setdefault((one.url, _trouble(one)), []).append(one.name)
    return lines + [
        f"endpoint {url}, from {', '.join(names)}: {trouble}" for (url, trouble), names in same.items()
    ]


def _trouble(one: ApiStatus) -> str:
    return one.detail if one.answers else f"does not answer: {one.detail}"


def leader_status(leases: Iterable[Object], now: datetime) -> tuple[LeaderStatus, ...]:
    """The leaders as their Leases in kube-system name them, and those that have stopped to renew theirs (P21)."""
    found = {str(lease["metadata"]["name"]): lease.get("spec") or {} for lease in leases}
    return tuple(_leader(name, found[name], now) for name in LEADERS if name in found)


def _leader(name: str, spec: Object, now: datetime) -> LeaderStatus:
    identity = str(spec.get("holderIdentity") or "")
    # "<host name>_<uuid>": client-go's own identities; the part before is the node's name on most hosts.
    holder = identity.partition("_")[0]
    changes = int(spec.get("leaseTransitions") or 0)
    if not holder:
        return LeaderStatus(name, "", changes=changes, problem="nobody leads")
    problem = ""
    if spec.get("renewTime"):
        age = now - parse_time(str(spec["renewTime"]))
        if age > timedelta(seconds=int(spec.get("leaseDurationSeconds") or 15)) + _LATE:
            problem = f"nobody leads: {holder} has not renewed its Lease for {span(age)}"
    return LeaderStatus(name, "" if problem else holder, str(spec.get("acquireTime") or ""), changes, problem)
