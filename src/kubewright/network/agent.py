"""The pod network's program on each node: keeps CNI configuration, routes and rules as the Nodes say.

It runs as a DaemonSet on the host's network: `python3 -m kubewright.network.agent --pod-subnet CIDR`.
docs/network.md says how it works.
"""

from __future__ import annotations

import asyncio
import importlib
import signal
import sys
import time
from collections.abc import Collection, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from kubewright.clients.kube import KubeClient
from kubewright.clients.paths import Object
from kubewright.errors import ApiError, KubewrightError, leaves
from kubewright.network import files, iptables, plan
from kubewright.network.follow import BACKOFF_MOST, backoff, follow_nodes
from kubewright.network.health import State, serve
from kubewright.network.log import say
from kubewright.network.options import Options, parse
from kubewright.network.rules import own_chains

if TYPE_CHECKING:
    from kubewright.network.netlink import RoutingTable

SETTLE_SECONDS = 0.02
"""Changes that come together (ten nodes joining) are worked on together."""
QUIET_FAILURES = 2
"""So many failures in a row are a start like any other: kube-proxy or the API server is not there yet (P40)."""

AGAIN_SECONDS = 2.0
"""Between looks while something is wrong here: what somebody mends is seen soon."""


def pause(problems: Collection[str], resync: float) -> float:
    """Seconds until the node is looked at again, where nothing tells of a change before."""
    return min(AGAIN_SECONDS, resync) if {*problems} - {"api"} else resync


class Agent:
    """Three loops around one state: follow the Nodes, keep routes and CNI configuration, keep rules."""

    def __init__(self, options: Options, client: KubeClient, backend: plan.Backend | None = None) -> None:
        self.options = options
        self.state = State(options.node_name, beat_limit=4 * options.resync)
        self._client = client
        self._backend = backend or plan.DirectRoutes()
        self._changed = asyncio.Event()
        self._table: RoutingTable | None = None
        self._unavailable = False
        self._api_said = 0.0

    async def run(self) -> None:
        """Work until cancelled. Routes, rules and configuration stay then: pods keep working in a rollout."""
        runner = await serve(self.state, self.options.health_host, self.options.health_port)
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(follow_nodes(self._client, self._learn, self._api_trouble))
                group.create_task(self._keep_routes())
                group.create_task(self._keep_rules())
        finally:
            await runner.cleanup()

    # -- the Nodes --------------------------------------------------------------------------------------------

    def _learn(self, objects: dict[str, Object]) -> None:
        state, name = self.state, self.state.node
        nodes = {key: plan.node_info(node) for key, node in objects.items()}
        self._unavailable = name in objects and plan.network_unavailable(objects[name])
        if nodes == state.nodes and not state.waiting and not self._unavailable:
            return
        for gone in sorted(state.nodes.keys() - nodes.keys()):
            say("info", "a node left", node=gone)
        state.nodes, state.own = nodes, nodes.get(name)
        if state.own is None:
            waiting = f"Node {name} is not registered yet"
        elif state.own.pod_cidr is None:
            waiting = (
                f"Node {name} has no podCIDR yet; kube-controller-manager gives it (--allocate-node-cidrs)"
            )
        else:
            waiting = ""
        if waiting and waiting != state.waiting:
            say("info", "waiting", reason=waiting)
        state.waiting = waiting
        if not waiting:
            self._changed.set()

    def _api_trouble(self, failures: int, reason: str) -> None:
        if not failures:
            self._solved("api")
            return
        self.state.counts["api_errors"] += 1
        if failures > QUIET_FAILURES and time.monotonic() - self._api_said > self.options.resync:
            self._api_said = time.monotonic()
            self._problem("api", reason)

    # -- CNI configuration and routes -------------------------------------------------------------------------

    async def _keep_routes(self) -> None:
        try:
            async with asyncio.TaskGroup() as group:
                while True:
                    with suppress(TimeoutError):
                        async with asyncio.timeout(pause(self.state.problems, self.options.resync)):
                            await self._changed.wait()
                    self._changed.clear()
                    self.state.beat = time.monotonic()
                    if self.state.waiting:
                        continue
                    self._configure()
                    if self._table is None:
                        # Loaded only now: the runtime finds its configuration while these 0.15 s pass.
                        netlink = await asyncio.to_thread(
                            importlib.import_module, "kubewright.network.netlink"
                        )
                        self._table = netlink.RoutingTable()
                        group.create_task(self._listen())
                    try:
                        await self._route()
                        await self._announce()
                    except KubewrightError as error:
                        self._problem("routes", error.message)
                    await asyncio.sleep(SETTLE_SECONDS)
        finally:
            if self._table is not None:
                self._table.close()

    def _configure(self) -> None:
        """Write the CNI configuration, and look at what else decides whether pods get a network."""
        state, options = self.state, self.options
        assert state.own is not None
        assert state.own.pod_cidr is not None
        try:
            routes = files.PROC_ROUTE.read_text()
            state.mtu = options.mtu or files.pod_mtu(state.own.address, routes, files.link_mtu)
            content = plan.cni_config(state.own.pod_cidr, state.mtu, ipam_dir=options.ipam_dir)
            if files.write_cni(options.cni_dir, content):
                state.counts["cni_writes"] += 1
                say("info", "CNI configuration written", podCIDR=state.own.pod_cidr, mtu=state.mtu)
            state.done.add("cni")
            first = plan.shadowing(path.name for path in options.cni_dir.iterdir())
            forwarding = files.forwarding()
        except OSError as error:
            self._problem("cni", f"{error.filename or options.cni_dir}: {error.strerror}")
            return
        if first:
            self._problem(
                "cni", f"{options.cni_dir / first} comes before {plan.CNI_FILE}: the runtime uses it"
            )
        elif not state.own.pod_cidr.subnet_of(options.pod_subnet):
            self._problem("cni", f"podCIDR {state.own.pod_cidr} is not in --pod-subnet {options.pod_subnet}")
        else:
            self._solved("cni")
        if forwarding:
            self._solved("forwarding")
        else:
            self._problem(
                "forwarding", "net.ipv4.ip_forward is 0: nothing passes between pods and links (P46)"
            )

    async def _route(self) -> None:
        """Make the routes what the Nodes say. Raises `KubewrightError`."""
        state, table = self.state, self._table
        assert table is not None
        assert state.own is not None
        nodes = list(state.nodes.values())
        addresses = {node.address for node in nodes if node.address and node.name != state.node}
        wanted = self._backend.wanted_routes(nodes, state.own, await table.reach(sorted(addresses)))
        for name, problem in wanted.problems.items():
            if state.plan.problems.get(name) != problem:
                say("warning", "no route to a node's pods", node=name, reason=problem)
        change = plan.route_change(wanted.routes, await table.found())
        refused = await table.apply(change) if change else []
        state.counts["reconciles"] += 1
        state.plan = wanted
        if change:
            state.counts["route_writes"] += len(change.add) + len(change.replace) + len(change.remove)
            say(
                "info", "routes changed", added=len(change.add), replaced=len(change.replace),
                removed=len(change.remove), wanted=len(wanted.routes),
            )  # fmt: skip
        refused += [
            f"{f.route.destination} is taken by a route of protocol {f.protocol}" for f in change.conflicts
        ]
        if refused:
            raise KubewrightError("; ".join(refused))
        state.done.add("routes")
        self._solved("routes")

    async def _announce(self) -> None:
        """Take back a NetworkUnavailable that a cloud's controller set. Elsewhere nothing needs to be written."""
        if not self._unavailable or self.state.unready():
            return
        condition = {
            "type": "NetworkUnavailable",
            "status": "False",
            "reason": "KubewrightIsUp",
            "message": "CNI configuration, routes and rules are in place",
        }
        try:
            await self._client.patch(
                "v1", "Node", self.state.node, {"status": {"conditions": [condition]}}, subresource="status"
            )
            self._unavailable = False
            say("info", "NetworkUnavailable set to False")
        except ApiError as error:
            self._problem("api", error.message)

    async def _listen(self) -> None:
        from kubewright.network import netlink

        while True:
            try:
                await netlink.listen(self._changed.set)
            except KubewrightError as error:
                say("warning", "not listening to the kernel for a while", reason=error.message)
                await asyncio.sleep(backoff(4))
                self._changed.set()

    # -- rules ------------------------------------------------------------------------------------------------

    async def _keep_rules(self) -> None:
        chains = own_chains(self.options.pod_subnet)
        while True:
            try:
                if written := await iptables.ensure(chains):
                    self.state.counts["rule_writes"] += written
                    say("info", "iptables rules written", tables=written)
                self.state.done.add("rules")
                self._solved("rules")
                self._changed.set()  # what waits for everything to be ready looks again
                await asyncio.sleep(self.options.resync)
            except KubewrightError as error:
                self._problem("rules", error.message)
                await asyncio.sleep(min(self.options.resync, BACKOFF_MOST))

    # -- what is wrong ----------------------------------------------------------------------------------------

    def _problem(self, part: str, text: str) -> None:
        if self.state.problems.get(part) != text:
            say("error", part, reason=text)
        self.state.problems[part] = self.state.last_error = text

    def _solved(self, part: str) -> None:
        if self.state.problems.pop(part, None):
            say("info", f"{part}: solved")


async def cleanup(options: Options) -> None:
    """Remove everything of ours from this node: routes, rules, CNI configuration and reservations.

    The pods' own links go with the pods. Raises `KubewrightError`.
    """
    from kubewright.network.netlink import RoutingTable

    table = RoutingTable()
    try:
        change = plan.route_change((), await table.found())
        refused = await table.apply(change)
    finally:
        table.close()
    written = await iptables.remove(own_chains(options.pod_subnet))
    try:
        removed = files.remove_cni(options.cni_dir, Path(options.ipam_dir or "/var/lib/cni/networks"))
    except OSError as error:
        raise KubewrightError(f"{error.filename}: {error.strerror}") from error
    say("info", "cleaned up", routes=len(change.remove), tables=written, files=",".join(removed))
    if refused:
        raise KubewrightError("; ".join(refused))


async def _main(argv: Sequence[str]) -> None:
    options = parse(argv)
    if options.cleanup:
        await cleanup(options)
        return
    task = asyncio.current_task()
    assert task is not None
    for signum in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(signum, task.cancel)
    say("info", "started", node=options.node_name, podSubnet=options.pod_subnet)
    async with KubeClient(options.server()) as client:
        with suppress(asyncio.CancelledError):
            await Agent(options, client).run()
    say("info", "ended; routes, rules and CNI configuration stay")


def main(argv: Sequence[str] | None = None) -> int:
    """Run; the exit code. An error is one line on standard output."""
    try:
        asyncio.run(_main(sys.argv[1:] if argv is None else argv))
    except (KubewrightError, ExceptionGroup) as error:
        causes = leaves(error)
        for cause in causes:
            if not isinstance(cause, KubewrightError):
                raise
            say("error", cause.message, **({"hint": cause.hint} if cause.hint else {}))
        return int(causes[0].exit_code) if isinstance(causes[0], KubewrightError) else 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
