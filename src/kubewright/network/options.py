"""The network agent's command line."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv4Network
from pathlib import Path

from kubewright.clients.server import SERVICE_ACCOUNT, Server
from kubewright.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Options:
    """What the agent is told. Everything has a default that fits the DaemonSet, but for the pod subnet."""

    pod_subnet: IPv4Network
    node_name: str
    health_host: str = "127.0.0.1"
    health_port: int = 9879
    cni_dir: Path = Path("/etc/cni/net.d")
    ipam_dir: str = ""
    """host-local's dataDir; empty for the plugin's own default, /var/lib/cni/networks."""
    mtu: int = 0
    """Bytes; 0 takes what the node's links carry."""
    api_server: str = ""
    service_account: Path = SERVICE_ACCOUNT
    resync: float = 30.0
    """Seconds between looks at routes and rules when nothing is heard of them."""
    cleanup: bool = False

    def server(self) -> Server:
        """The API server: the one named, or the one that a pod sees. Raises `ConfigError` outside a pod."""
        if not self.api_server:
            return Server.in_cluster()
        try:
            ca = (self.service_account / "ca.crt").read_bytes()
        except OSError as error:
            raise ConfigError(f"--service-account {self.service_account}: {error.strerror}") from error
        return Server(self.api_server, ca, token_file=self.service_account / "token")


def parse(argv: Sequence[str]) -> Options:
    """Read the command line and NODE_NAME. Raises `ConfigError` naming the flag."""
    parser = argparse.ArgumentParser(
        prog="kubewright.network.agent", description="Keeps a node's part of the pod network."
    )
    parser.add_argument("--pod-subnet", required=True, metavar="CIDR")
    parser.add_argument("--node-name", default=os.environ.get("NODE_NAME", ""), help="default: NODE_NAME")
    parser.add_argument("--health-address", default="127.0.0.1:9879", metavar="HOST:PORT")
    parser.add_argument("--cni-dir", type=Path, default=Path("/etc/cni/net.d"))
    parser.add_argument("--ipam-dir", default="", help="host-local's dataDir; default: its own")
    parser.add_argument("--mtu", type=int, default=0, help="bytes; default: what the node's links carry")
    parser.add_argument("--api-server", default="", metavar="URL", help="default: the pod's environment")
    parser.add_argument("--service-account", type=Path, default=SERVICE_ACCOUNT, metavar="DIR")
    parser.add_argument(
        "--resync", type=float, default=30.0, help="seconds between looks at routes and rules"
    )
    parser.add_argument("--cleanup", action="store_true", help="remove all of it from this node and end")
    given = parser.parse_args(argv)
    try:
        subnet = IPv4Network(given.pod_subnet)
    except ValueError as error:
        raise ConfigError(f"--pod-subnet {given.pod_subnet}: not an IPv4 network ({error})") from error
    host, _, port = given.health_address.rpartition(":")
    if not port.isdecimal():
        raise ConfigError(f"--health-address {given.health_address}: not HOST:PORT")
    if not given.node_name and not given.cleanup:
        raise ConfigError("NODE_NAME is not set", hint="the DaemonSet sets it from spec.nodeName")
    return Options(
        pod_subnet=subnet,
        node_name=given.node_name,
        health_host=host.strip("[]"),
        health_port=int(port),
        cni_dir=given.cni_dir,
        ipam_dir=given.ipam_dir,
        mtu=given.mtu,
        api_server=given.api_server,
        service_account=given.service_account,
        resync=given.resync,
        cleanup=given.cleanup,
    )
