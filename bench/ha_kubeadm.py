"""Real kubeadm, scripted as its guide to highly available clusters says, with haproxy in place beforehand."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass

from tools import kubeadm_hosts

from kubewright.hosts import Host
from kubewright.hosts.open import open_host
from kubewright.model import kubelet
from kubewright.model.config.cluster import ClusterSpec
from kubewright.model.objects import to_yaml

SKIP = "--skip-phases=preflight"
PORT = 6443

# Health is asked for as kubeadm's guide has it; what is down is out after two seconds.
_HAPROXY = """\
global
    maxconn 4000
defaults
    mode tcp
    timeout connect 2s
    timeout client 1h
    timeout server 1h
    option redispatch
    retries 3
frontend api
    bind *:{port}
    default_backend control-planes
backend control-planes
    balance roundrobin
    option httpchk GET /healthz
    http-check expect status 200
    default-server check check-ssl verify none inter 1s fall 2 rise 1 on-marked-down shutdown-sessions
{servers}
"""


@dataclass
class Script:
    """The machines, entered, and what kubeadm is told on all of them."""

    control_planes: Sequence[Host]
    workers: Sequence[Host]
    balancer: Host
    addresses: dict[str, str]

    @property
    def endpoint(self) -> str:
        """The load balancer's address and port."""
        return f"{self.addresses[self.balancer.name]}:{PORT}"

    async def place_balancer(self) -> None:
        """Start haproxy with all control planes behind it; those that are not there yet are down."""
        servers = "\n".join(
            f"    server {host.name} {self.addresses[host.name]}:{PORT}" for host in self.control_planes
        )
        await self.balancer.write_file(
            "/etc/haproxy/haproxy.cfg", _HAPROXY.format(port=PORT, servers=servers).encode()
        )
        await self.balancer.shell("systemctl unmask -q haproxy; systemctl restart haproxy")

    async def init(self) -> float:
        """Make the first control plane; the seconds that `kubeadm init` took."""
        first = self.control_planes[0]
        key = secrets.token_hex(32)
        documents = b"---\n".join(map(to_yaml, self._documents(key)))
        await first.write_file("/root/kubeadm.yaml", documents)
        seconds = await _timed(
            first, ["kubeadm", "init", "--config", "/root/kubeadm.yaml", "--upload-certs", SKIP]
        )
        token = await first.shell(
            "export KUBECONFIG=/etc/kubernetes/admin.conf; kubeadm token create --print-join-command"
        )
        await first.shell(kubeadm_hosts.UNTIL_SIGNED, timeout=120)
        self._join = [*token.text.split(), SKIP, "--cri-socket", kubelet.CONTAINERD_SOCKET]
        self._as_control_plane = ["--control-plane", "--certificate-key", key]
        return seconds

    async def join_control_planes(self) -> float:
        """Join the other control planes one after the other, as etcd demands it; the seconds of all joins."""
        seconds = 0.0
        for host in self.control_planes[1:]:
            own = ["--apiserver-advertise-address", self.addresses[host.name]]
            seconds += await _timed(host, [*self._join, *self._as_control_plane, *own])
        return seconds

    async def join_workers(self) -> float:
        """Join the workers, all at once; the seconds until the last has joined."""
        started = time.monotonic()
        async with asyncio.TaskGroup() as group:
            for host in self.workers:
                group.create_task(_timed(host, self._join))
        return time.monotonic() - started

    def _documents(self, key: str) -> list[dict[str, object]]:
        version = "kubeadm.k8s.io/v1beta2"
        return [
            {
                "apiVersion": version,
                "kind": "InitConfiguration",
                "certificateKey": key,
                "localAPIEndpoint": {"advertiseAddress": self.addresses[self.control_planes[0].name]},
                "nodeRegistration": {"criSocket": kubelet.CONTAINERD_SOCKET},
            },
            {
                "apiVersion": version,
                "kind": "ClusterConfiguration",
                "kubernetesVersion": "v1.20.2",
                "controlPlaneEndpoint": self.endpoint,
                "networking": {"podSubnet": "10.244.0.0/16", "serviceSubnet": "10.96.0.0/12"},
            },
            {
                "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
                "kind": "KubeProxyConfiguration",
                "conntrack": {"maxPerCore": 0, "min": 0},
            },
        ]


async def open_script(spec: ClusterSpec, balancer: str, stack: AsyncExitStack) -> Script:
    """Enter the hosts of a cluster.yaml; `balancer` is the one that gets haproxy."""
    hosts = {item.name: await stack.enter_async_context(open_host(item, spec.ssh)) for item in spec.hosts}
    return Script(
        [hosts[item.name] for item in spec.hosts if item.is_control_plane],
        [hosts[item.name] for item in spec.hosts if not item.is_control_plane and item.name != balancer],
        hosts[balancer],
        {item.name: item.address for item in spec.hosts},
    )


async def _timed(host: Host, command: Sequence[str]) -> float:
    started = time.monotonic()
    await host.run(command, timeout=400)
    return time.monotonic() - started
