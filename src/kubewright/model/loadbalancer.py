"""What the programs of an endpoint have in common: the API servers behind it, names, paths and units."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from kubewright.model.node import host_port

DIRECTORY = "/etc/kubewright/endpoint"
"""Everything that the proxies read. haproxy's and nginx's own directories stay their users'."""
CA_PATH = f"{DIRECTORY}/ca.crt"
"""The cluster's CA, which is public: by it the proxies know an API server of this cluster."""
BACKENDS_PATH = f"{DIRECTORY}/backends"
"""The API servers, a line each: name, address and port."""
STREAM_MODULE = "/usr/lib/nginx/modules/ngx_stream_module.so"
"""What Debian's libnginx-mod-stream brings."""
BACKEND = "api"
"""The name of haproxy's checked backend, and of nginx's upstream."""

CHECK_NAME = "kubernetes"
"""A name that stands in every API server's certificate. (haproxy compares names alone, no addresses.)"""

IDLE = "4h"
"""How long a connection may be silent before a proxy ends it: watches may be, for hours (P31). Connections whose
other end is gone are found by TCP keepalives."""
OLD = "1h"
"""How long a proxy that was reloaded keeps connections that were opened before."""

PROGRAMS = {
    "haproxy": {"/usr/sbin/haproxy": "haproxy"},
    "nginx": {"/usr/sbin/nginx": "nginx", STREAM_MODULE: "libnginx-mod-stream", "/usr/bin/curl": "curl"},
    "keepalived": {"/usr/sbin/keepalived": "keepalived", "/usr/bin/curl": "curl"},
}
"""What each of them executes, and the Debian package that brings it."""


@dataclass(frozen=True, slots=True)
class Backend:
    """An API server behind the endpoint."""

    name: str
    address: str
    port: int

    @property
    def host_port(self) -> str:
        """`address:port`."""
        return host_port(self.address, self.port)


def unit_of(program: str) -> str:
    """The systemd unit of an endpoint's `haproxy`, `nginx` or `keepalived`. The packages' own units stay off."""
    return f"kubewright-{program}.service"


def run_directory(program: str) -> str:
    """Where a program keeps its sockets while it runs."""
    return f"/run/kubewright-{program}"


def health_socket(proxy: str) -> str:
    """The socket on which a proxy says that it runs, in HTTP."""
    return f"{run_directory(proxy)}/health.sock"


def stamp_path(program: str) -> str:
    """A file that is as old as the configuration that the program has read."""
    return f"{run_directory(program)}/loaded"


def backends_file(backends: Sequence[Backend]) -> bytes:
    """The API servers as a file, by name."""
    rows = sorted(backends, key=lambda one: one.name)
    return "".join(f"{one.name} {one.address} {one.port}\n" for one in rows).encode()


def read_backends(content: bytes) -> list[Backend]:
    """The API servers in such a file; lines that are none are passed over."""
    found = []
    for line in content.decode(errors="replace").splitlines():
        match line.split():
            case [name, address, port] if port.isdecimal():
                found.append(Backend(name, address, int(port)))
    return found


def port_holder(sockets: str, address: str) -> str:
    """Who listens where a proxy is to listen on `address`, out of the lines of `ss -Hltnp` for its port: a program
    and its process, or empty."""
    for line in sockets.splitlines():
        words = line.split()
        if len(words) < 4:
            continue
        there = words[3].rpartition(":")[0].strip("[]").partition("%")[0]
        if there == address or {there, address} & {"*", "0.0.0.0", "::"}:  # noqa: S104
            found = re.search(r'\(\("([^"]+)",pid=(\d+)', line)
            return f"{found[1]} (process {found[2]})" if found else "another program"
    return ""


def unit_file(program: str, what: str, service: str) -> bytes:
    """A unit of ours, from the lines that say how it is started, reloaded and stopped (systemd.service(5)).

    It starts again for as long as it fails: an interface or an address may come late when the host starts.
    """
    return f"""\
[Unit]
Description={program}, {what}
After=network-online.target
Wants=network-online.target
StartLimitIntervalSec=0

[Service]
ExecStartPre=/usr/bin/touch {stamp_path(program)}
{service}RuntimeDirectory=kubewright-{program}
LimitNOFILE=131072
Restart=always
RestartSec=1

[Install]
WantedBy=multi-user.target
""".encode()
