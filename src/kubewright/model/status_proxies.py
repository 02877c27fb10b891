"""Load balancers as their hosts see them, and what haproxy says of the API servers behind it."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

from kubewright.model.haproxy import UNCHECKED
from kubewright.model.loadbalancer import read_backends
from kubewright.model.status import span

SHOW_STAT = "show stat"
_OURS = {"FRONTEND", "BACKEND"}
"""Rows of sums among those of servers."""


@dataclass(frozen=True, slots=True)
class BackendStatus:
    """An API server as a load balancer sees it."""

    name: str
    address: str
    up: bool
    state: str
    """In the load balancer's own words: `UP`, `DOWN`, `MAINT`, `UP 1/2`."""
    sessions: int = 0
    """Connections now."""
    for_seconds: int = 0
    """How long it has been in this state; 0 where the load balancer does not say it."""
    detail: str = ""
    """What the last health check found."""


@dataclass(frozen=True, slots=True)
class ProxyStatus:
    """A load balancer on a host."""

    host: str
    kind: str
    """`haproxy`, `nginx` or `keepalived`."""
    runs: bool
    backends: tuple[BackendStatus, ...] = ()
    has_address: bool | None = None
    """keepalived: whether the virtual IP is on this host."""
    problem: str = ""


def backends(text: str) -> tuple[BackendStatus, ...]:
    """The servers in haproxy's answer to `show stat`: CSV, whose first line has the names of its columns
    (haproxy's Management Guide, 9.1). A server that nobody checks is taken for one that is up."""
    rows = csv.DictReader(text.removeprefix("# ").splitlines())
    return tuple(
        BackendStatus(
            row.get("svname") or "", row.get("addr") or "", _is_up(row.get("status") or ""),
            row.get("status") or "", _number(row.get("scur")), _number(row.get("lastchg")),
            " ".join(part for part in (row.get("check_status"), row.get("last_chk")) if part),
        )
        for row in rows
        if row.get("svname") and row["svname"] not in _OURS and row.get("pxname") != UNCHECKED
    )  # fmt: skip


def nginx_backends(servers: bytes, names: bytes) -> tuple[BackendStatus, ...]:
    """The servers in nginx's own file of them, and the names of their addresses out of the endpoint's."""
    known = {one.host_port: one.name for one in read_backends(names)}
    rows = [line.rstrip(";").split() for line in servers.decode(errors="replace").splitlines()]
    return tuple(
        BackendStatus(known.get(row[1], row[1]), row[1], "down" not in row, "DOWN" if "down" in row else "UP")
        for row in rows
        if row[:1] == ["server"] and len(row) > 1
    )


def _is_up(state: str) -> bool:
    return state.startswith("UP") or state == "no check"


def _number(text: str | None) -> int:
    return int(text) if text and text.isdecimal() else 0


def proxy_problems(proxies: Sequence[ProxyStatus]) -> list[str]:
    """What is wrong with them; a server that several load balancers miss is one line."""
    lines, down = [], dict[tuple[str, str], list[str]]()
    for proxy in proxies:
        if proxy.problem:
            lines.append(f"{proxy.kind} on {proxy.host}: {proxy.problem}")
        for backend in proxy.backends:
            if not backend.up:
                state = f"{backend.state}{f' ({backend.detail})' if backend.detail else ''}"
                down.setdefault((backend.name, state), []).append(proxy.host)
        if proxy.backends and not any(backend.up for backend in proxy.backends):
            lines.append(f"{proxy.kind} on {proxy.host}: none of its backends is up")
    keepers = [proxy for proxy in proxies if proxy.has_address is not None]
    holders = [proxy.host for proxy in keepers if proxy.has_address]
    if keepers and len(holders) != 1:
        lines.append(f"the virtual IP is on {' and '.join(holders) if holders else 'none of the hosts'}")
    return lines + [
        f"backend {name}: {state}, as {', '.join(hosts)} see{'s' if len(hosts) == 1 else ''} it"
        for (name, state), hosts in down.items()
    ]


def state_text(backend: BackendStatus) -> str:
    """A backend's state and since when: `UP for 3h`."""
    if not backend.for_seconds:
        return backend.state
    return f"{backend.state} for {span(timedelta(seconds=backend.for_seconds))}"
