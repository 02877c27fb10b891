"""haproxy as an endpoint's proxy: its configuration, its unit, and what it says of itself."""

from __future__ import annotations

import csv
from collections.abc import Sequence

from kubewright.model.loadbalancer import (
    BACKEND,
    CA_PATH,
    CHECK_NAME,
    DIRECTORY,
    IDLE,
    OLD,
    Backend,
    health_socket,
    run_directory,
    stamp_path,
    unit_file,
)
from kubewright.model.node import host_port

HAPROXY_CONFIG = f"{DIRECTORY}/haproxy.cfg"
STATS_SOCKET = f"{run_directory('haproxy')}/stats.sock"
"""Where haproxy answers questions (its Management Guide, 9.3), to root alone."""
STATE_PATH = f"{run_directory('haproxy')}/state"
"""The health of its servers before a reload, which the new process begins with: it would take all for well."""
SHOW_STATE = f"show servers state {BACKEND}"
UNCHECKED = "unchecked"
"""Its backend for when no check succeeds: better an API server that is ill than none at all."""


def haproxy_config(backends: Sequence[Backend], address: str, port: int) -> bytes:
    """haproxy's configuration (its Configuration Manual, 2.4 and later): TLS is passed through.

    Each API server is asked for /readyz every second. One that fails three times is out (all are silent for a
    moment while etcd elects a leader), and its connections are cut. A machine that is gone takes less: the kernel
    ends connections to it after 2 s (`tcp-ut`), and one that cannot be made in 0.5 s is tried at another server.
    `address` is what it listens on.
    """
    servers = sorted(backends, key=lambda one: one.name)
    # Servers take `tcp-ut` from no default-server (seen with 2.6).
    checked = "".join(f"    server {one.name} {one.host_port} check tcp-ut 2s\n" for one in servers)
    unchecked = "".join(f"    server {one.name} {one.host_port} tcp-ut 2s\n" for one in servers)
    return f"""\
# Written by kubewright; `kubewright apply` writes it anew.
global
    log stdout format raw daemon notice
    user haproxy
    group haproxy
    stats socket {STATS_SOCKET} mode 600 level admin expose-fd listeners
    hard-stop-after {OLD}
    server-state-file {STATE_PATH}

defaults
    log global
    mode tcp
    option dontlognull
    timeout connect 500ms
    timeout check 2s
    timeout queue 5s
    timeout client {IDLE}
    timeout server {IDLE}
    timeout client-fin 30s
    timeout server-fin 30s
    retries 3
    option redispatch 1
    option clitcpka
    clitcpka-idle 30s
    clitcpka-intvl 10s
    clitcpka-cnt 3
    option srvtcpka
    srvtcpka-idle 2s
    srvtcpka-intvl 1s
    srvtcpka-cnt 3

frontend kubernetes
    bind {host_port(address, port)} tcp-ut 30s
    use_backend {UNCHECKED} if {{ nbsrv({BACKEND}) eq 0 }}
    default_backend {BACKEND}

backend {BACKEND}
    balance leastconn
    load-server-state-from-file global
    option httpchk
    http-check send meth GET uri /readyz
    # 401 is all that one says which lets no anonymous user ask.
    http-check expect status 200,401
    default-server check-ssl ca-file {CA_PATH} verify required verifyhost {CHECK_NAME}
    default-server inter 1s fastinter 300ms downinter 1s fall 3 rise 1 on-marked-down shutdown-sessions
{checked}
backend {UNCHECKED}
    balance leastconn
{unchecked}
frontend health
    mode http
    timeout client 2s
    bind unix@{health_socket("haproxy")} mode 600
    monitor-uri /
""".encode()


def haproxy_unit() -> bytes:
    """haproxy as a service of its own. `-Ws` is a master whose workers are replaced by a reload, which hands the
    open listening sockets over, so that no connection is refused meanwhile (Management Guide, 4)."""
    check = f"/usr/sbin/haproxy -c -q -f {HAPROXY_CONFIG}"
    return unit_file(
        "haproxy",
        "the Kubernetes API's load balancer",
        f"""\
Type=notify
ExecStartPre={check}
ExecStart=/usr/sbin/haproxy -Ws -f {HAPROXY_CONFIG} -p {run_directory("haproxy")}/pid
ExecReload={check}
ExecReload=/usr/bin/touch {stamp_path("haproxy")}
ExecReload=/bin/kill -USR2 $MAINPID
KillMode=mixed
SuccessExitStatus=143
TimeoutStopSec=5
""",
    )


def stat_servers(text: str) -> set[tuple[str, str]]:
    """The names and addresses of the checked servers in an answer to `show stat` (Management Guide, 9.1)."""
    rows = csv.DictReader(text.removeprefix("# ").splitlines())
    return {
        (row["svname"], row["addr"])
        for row in rows
        if row.get("pxname") == BACKEND and row.get("svname") not in ("FRONTEND", "BACKEND", None)
    }
