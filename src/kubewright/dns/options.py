"""The DNS server's command line."""

from __future__ import annotations

import argparse
import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import dns.exception
import dns.name

from kubewright.dns.upstream import Upstream
from kubewright.dns.zone import PodMode
from kubewright.errors import ConfigError

Listen = tuple[str, int]


@dataclass(frozen=True, slots=True)
class Options:
    """What the server is told. The defaults are kubeadm's configuration of CoreDNS."""

    domain: str = "cluster.local"
    listen: tuple[Listen, ...] = (("0.0.0.0", 53),)  # noqa: S104 - a DNS server is for others
    upstreams: tuple[str, ...] = ()
    resolv_conf: Path = Path("/etc/resolv.conf")
    pods: PodMode = "insecure"
    ttl: int = 30
    """Seconds."""
    metrics_port: int = 9153
    health_port: int = 8080
    ready_port: int = 8181
    lameduck: float = 5.0
    """Seconds from SIGTERM to the end, in which questions still come and are answered."""


def parse(argv: Sequence[str]) -> Options:
    """Read the command line. Raises `ConfigError` naming the flag."""
    default = Options()
    parser = argparse.ArgumentParser(prog="kubewright.dns.server", description="Answers a cluster's names.")
    parser.add_argument("--domain", default=default.domain, help="default: cluster.local")
    parser.add_argument(
        "--listen", action="append", metavar="ADDRESS:PORT", help="may be repeated; default: 0.0.0.0:53"
    )
    parser.add_argument(
        "--upstream", action="append", default=[], metavar="ADDRESS[:PORT]",
        help="where other names are asked; may be repeated; default: those of --resolv-conf",
    )  # fmt: skip
    parser.add_argument("--resolv-conf", type=Path, default=default.resolv_conf, metavar="FILE")
    parser.add_argument("--pods", choices=("verified", "insecure", "disabled"), default=default.pods)
    parser.add_argument("--ttl", type=int, default=default.ttl, help="seconds; default: 30")
    parser.add_argument("--metrics-port", type=int, default=default.metrics_port)
    parser.add_argument("--health-port", type=int, default=default.health_port)
    parser.add_argument("--ready-port", type=int, default=default.ready_port)
    parser.add_argument("--lameduck", type=float, default=default.lameduck, help="seconds; default: 5")
    given = parser.parse_args(argv)
    try:
        dns.name.from_text(given.domain)
    except dns.exception.DNSException as error:
        raise ConfigError(f"--domain {given.domain}: not a domain name ({error})") from error
    if not 0 <= given.ttl <= 3600:
        raise ConfigError(f"--ttl {given.ttl}: not between 0 and 3600 seconds")
    for upstream in given.upstream:
        Upstream.parse(upstream)
    listen = tuple(_listen(one) for one in given.listen) if given.listen else default.listen
    return Options(
        given.domain, listen, tuple(given.upstream), given.resolv_conf, cast(PodMode, given.pods), given.ttl,
        given.metrics_port, given.health_port, given.ready_port, max(0.0, given.lameduck),
    )  # fmt: skip


def _listen(text: str) -> Listen:
    host, _, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    try:
        ipaddress.ip_address(host)
        number = int(port)
    except ValueError:
        number = -1
    if not 0 < number < 65536:
        raise ConfigError(f"--listen {text}: not ADDRESS:PORT", hint="for example 0.0.0.0:53, or [::]:53")
    return host, number
