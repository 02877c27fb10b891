"""keepalived, which gives an endpoint's virtual IP to one of several hosts: its configuration and its unit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from kubewright.model.loadbalancer import DIRECTORY, health_socket, run_directory, stamp_path, unit_file

KEEPALIVED_CONFIG = f"{DIRECTORY}/keepalived.conf"
PROXY_CHECK = f"{DIRECTORY}/check-proxy"

_RUN = run_directory("keepalived")
_PEER = "# host "


@dataclass(frozen=True, slots=True)
class VirtualIp:
    """An address that one of several hosts has at a time."""

    address: str
    router: int
    """VRRP's virtual router id."""
    proxy: str
    """The proxy that must run where the address is."""


def keepalived_config(virtual: VirtualIp, interface: str, own: str, peers: Mapping[str, str]) -> bytes:
    """keepalived's configuration on the host with address `own`, `peers` being the others' by name
    (keepalived.conf(5)).

    VRRP version 3 between these hosts alone (unicast), for many networks pass no multicast: its advertisements
    come every 0.5 s, so that another host has the address within 2 s. There is no password in it: version 3 has
    none. Whoever has the address keeps it when another comes back. A host whose proxy does not run gives it up.
    """
    priority = 200 - sorted([own, *peers.values()], key=_number).index(own)
    others = "".join(f"        {address} {_PEER}{name}\n" for name, address in sorted(peers.items()))
    unicast = f"    unicast_src_ip {own}\n    unicast_peer {{\n{others}    }}\n" if peers else ""
    return f"""\
# Written by kubewright; `kubewright apply` writes it anew.
global_defs {{
    router_id {own}
    vrrp_version 3
    script_user root
    enable_script_security
    vrrp_garp_master_refresh 10
    vrrp_priority -10
}}

vrrp_script proxy {{
    script {PROXY_CHECK}
    interval 1
    timeout 2
    fall 2
    rise 1
}}

vrrp_instance kubernetes {{
    state BACKUP
    nopreempt
    interface {interface}
    virtual_router_id {virtual.router}
    priority {priority}
    advert_int 0.5
{unicast}    virtual_ipaddress {{
        {virtual.address}/32 dev {interface}
    }}
    track_script {{
        proxy
    }}
}}
""".encode()


def read_peers(config: bytes) -> dict[str, str]:
    """The addresses of the other hosts in such a configuration, by name."""
    rows = (line.strip().partition(f" {_PEER}") for line in config.decode(errors="replace").splitlines())
    return {name: address for address, mark, name in rows if mark}


def _number(address: str) -> tuple[int, ...]:
    return tuple(int(part) for part in address.split("."))


def proxy_check(proxy: str) -> bytes:
    """The script by which keepalived asks the host's own proxy whether it runs."""
    return f"""\
#!/bin/sh
# Written by kubewright; `kubewright apply` writes it anew.
exec curl --silent --fail --output /dev/null --max-time 1 --unix-socket {health_socket(proxy)} http://proxy/
""".encode()


def keepalived_unit() -> bytes:
    """keepalived as a service of its own."""
    return unit_file(
        "keepalived",
        "the Kubernetes API's virtual IP",
        f"""\
Type=forking
PIDFile={_RUN}/pid
ExecStartPre=/usr/sbin/keepalived --config-test --use-file={KEEPALIVED_CONFIG}
ExecStart=/usr/sbin/keepalived --use-file={KEEPALIVED_CONFIG} --vrrp --pid={_RUN}/pid \\
    --vrrp_pid={_RUN}/vrrp.pid
ExecReload=/usr/bin/touch {stamp_path("keepalived")}
ExecReload=/bin/kill -HUP $MAINPID
KillMode=mixed
TimeoutStopSec=5
""",
    )
