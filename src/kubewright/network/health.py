"""What the network agent says of itself over HTTP: /healthz, /readyz, /status and /metrics."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from kubewright.errors import KubewrightError
from kubewright.network.plan import NodeInfo, RoutePlan

BIND_DEADLINE = 10.0
"""Seconds that a predecessor's port may take to become free while a DaemonSet rolls."""


@dataclass(slots=True)
class State:
    """What is known now. The agent writes it, the endpoints read it."""

    node: str
    waiting: str = "the API has not answered yet"
    """Why nothing is programmed yet; empty once the Node and its podCIDR are known. Waiting is no error (P40)."""
    own: NodeInfo | None = None
    nodes: dict[str, NodeInfo] = field(default_factory=dict)
    plan: RoutePlan = field(default_factory=lambda: RoutePlan((), {}))
    mtu: int = 0
    problems: dict[str, str] = field(default_factory=dict)
    """What is wrong now, by part: api, cni, routes, rules, forwarding."""
    last_error: str = ""
    counts: Counter[str] = field(default_factory=Counter)
    done: set[str] = field(default_factory=set)
    """The parts that have succeeded at least once."""
    beat: float = field(default_factory=time.monotonic)
    """When the reconciling loop last came round, on the monotonic clock."""
    beat_limit: float = 120.0

    def alive(self) -> bool:
        """Whether the reconciling loop still comes round."""
        return time.monotonic() - self.beat < self.beat_limit

    def unready(self) -> list[str]:
        """Why pods here may not reach all pods; empty when they can. An API that is away breaks no traffic."""
        if self.waiting:
            return [self.waiting]
        reasons = [f"{part}: {text}" for part, text in self.problems.items() if part != "api"]
        reasons += [f"{part}: not done yet" for part in ("cni", "routes", "rules") if part not in self.done]
        routed = {route.destination for route in self.plan.routes}
        for node in self.nodes.values():
            if node.ready and not node.deleting and node.pod_cidr and node.pod_cidr not in routed:
                reasons.append(f"node {node.name}: {self.plan.problems.get(node.name, 'not routed yet')}")
        return reasons

    def as_dict(self) -> dict[str, Any]:
        """The whole state, for /status."""
        routed = {str(route.destination) for route in self.plan.routes if route.gateway}
        return {
            "node": self.node,
            "ready": not self.unready(),
            "unready": self.unready(),
            "podCIDR": str(self.own.pod_cidr) if self.own and self.own.pod_cidr else "",
            "mtu": self.mtu,
            "nodes": [
                {
                    "name": node.name,
                    "podCIDR": str(node.pod_cidr or ""),
                    "address": str(node.address or ""),
                    "ready": node.ready,
                    "routed": str(node.pod_cidr) in routed,
                    "problem": self.plan.problems.get(node.name, ""),
                }
                for node in sorted(self.nodes.values(), key=lambda node: node.name)
            ],
            "routes": [str(route) for route in self.plan.routes],
            "problems": dict(self.problems),
            "lastError": self.last_error,
            "counts": dict(self.counts),
        }


_COUNTERS = {
    "route_writes": "Changes made to the routing table.",
    "rule_writes": "Tables of iptables rules that had to be written.",
    "cni_writes": "Times the CNI configuration was written.",
    "reconciles": "Times the routes were compared with the nodes.",
    "api_errors": "Lists and watches of Nodes that failed.",
}


class _Metrics:
    """Renders the state as metrics when it is scraped; prometheus_client is not loaded before that."""

    def __init__(self, state: State) -> None:
        self._state = state

    def collect(self) -> Iterator[Any]:
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

        state, prefix = self._state, "kubewright_network"
        gauges = {
            "ready": ("1 when pods here can reach all pods.", float(not state.unready())),
            "nodes": ("Nodes in the cluster.", float(len(state.nodes))),
            "routes": ("Routes that this node is to have.", float(len(state.plan.routes))),
            "unreachable_nodes": ("Nodes that cannot be routed to.", float(len(state.plan.problems))),
        }
        for name, (text, value) in gauges.items():
            yield GaugeMetricFamily(f"{prefix}_{name}", text, value=value)
        for name, text in _COUNTERS.items():
            yield CounterMetricFamily(f"{prefix}_{name}", text, value=float(state.counts[name]))


def application(state: State) -> web.Application:
    """The endpoints over `state`."""

    async def healthz(_: web.Request) -> web.Response:
        return _answer([] if state.alive() else ["the reconciling loop has stopped"])

    async def readyz(_: web.Request) -> web.Response:
        return _answer(state.unready())

    async def status(_: web.Request) -> web.Response:
        return web.json_response(state.as_dict())

    async def metrics(_: web.Request) -> web.Response:
        from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest

        registry = CollectorRegistry()
        registry.register(_Metrics(state))
        return web.Response(body=generate_latest(registry), headers={"Content-Type": CONTENT_TYPE_LATEST})

    app = web.Application()
    app.add_routes(
        [
            web.get("/healthz", healthz),
            web.get("/readyz", readyz),
            web.get("/status", status),
            web.get("/metrics", metrics),
        ]
    )
    return app


def _answer(reasons: list[str]) -> web.Response:
    return web.Response(text="\n".join(reasons or ["ok"]) + "\n", status=503 if reasons else 200)


async def serve(state: State, host: str, port: int) -> web.AppRunner:
    """Start answering; the caller cleans the runner up. Raises `KubewrightError` where the address stays taken."""
    runner = web.AppRunner(application(state), access_log=None, handle_signals=False, shutdown_timeout=0.1)
    await runner.setup()
    deadline = time.monotonic() + BIND_DEADLINE
    while True:
        try:
            await web.TCPSite(runner, host, port, reuse_address=True).start()
            return runner
        except OSError as error:
            if time.monotonic() > deadline:
                raise KubewrightError(
                    f"--health-address {host}:{port}: {error.strerror or error}",
                    hint="another program holds that port on this node; give another",
                ) from error
            await asyncio.sleep(0.2)
