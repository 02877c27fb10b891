"""The network agent in real network namespaces, with real CNI plugins, routes and iptables."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from network_fixtures import OUTSIDE, POD_SUBNET, FakeApi, Node, ask, echo_server, run
from waiting import until

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root"),
]

PREFIX = f"kwnet-{os.getpid()}"
NAMESPACES = Path("/run/netns")


class Net:
    """A switch with the API and the world outside on it, and the nodes and pods that a test asks for."""

    def __init__(self, directory: Path, api: FakeApi) -> None:
        self.directory, self.api = directory, api
        self.switch = self.namespace("sw")
        self.nodes: dict[str, Node] = {}

    def namespace(self, name: str) -> str:
        namespace = f"{PREFIX}-{name}"
        run("ip", "netns", "add", namespace)
        run("ip", "-n", namespace, "link", "set", "lo", "up")
        return namespace

    def node(self, number: int) -> Node:
        name, address = f"n{number}", f"172.29.77.{10 + number}"
        namespace = self.namespace(name)
        port = f"p{number}"
        veth = ["eth0", "mtu", "1400", "type", "veth", "peer", "name", port, "netns", self.switch]
        run("ip", "-n", namespace, "link", "add", *veth)
        run("ip", "-n", self.switch, "link", "set", port, "mtu", "1400", "master", "br0", "up")
        run("ip", "-n", namespace, "addr", "add", f"{address}/24", "dev", "eth0")
        run("ip", "-n", namespace, "link", "set", "eth0", "up")
        run("ip", "-n", namespace, "route", "add", "default", "via", OUTSIDE)
        run("ip", "netns", "exec", namespace, "sh", "-c", "echo 1 > /proc/sys/net/ipv4/ip_forward")
        directory = self.directory / name
        directory.mkdir()
        node = self.nodes[name] = Node(name, namespace, address, directory)
        return node

    def pod(self, node: Node, name: str, *, host_port: int = 0) -> tuple[str, str]:
        """A pod on a node: its namespace and address. `host_port` leads to its port 8080."""
        namespace = self.namespace(name)
        mapping = {"hostPort": host_port, "containerPort": 8080, "protocol": "tcp"}
        return namespace, node.attach(namespace, port_mappings=[mapping] if host_port else [])


@pytest.fixture
async def net(tmp_path: Path) -> AsyncIterator[Net]:
    # On a computer that never had a namespace, `ip` makes and mounts it.
    was, mounted = NAMESPACES.exists(), NAMESPACES.is_mount()
    before = run("ip", "netns", "list")
    api = FakeApi()
    net = Net(tmp_path, api)
    try:
        run("ip", "-n", net.switch, "link", "add", "br0", "type", "bridge")
        run("ip", "-n", net.switch, "addr", "add", f"{OUTSIDE}/24", "dev", "br0")
        run("ip", "-n", net.switch, "link", "set", "br0", "up")
        await api.start(net.switch, tmp_path)
        yield net
        # Whatever a test does, no agent may end by itself or write a traceback.
        for node in net.nodes.values():
            assert "Traceback" not in (node.log.read_text() if node.log.exists() else "")
            assert node.process is None or node.process.poll() is None, node.log.read_text()
    finally:
        for node in net.nodes.values():
            node.kill()
        await api.stop()
        for line in run("ip", "netns", "list").splitlines():
            if line.startswith(PREFIX):
                run("ip", "netns", "del", line.split()[0])
        assert run("ip", "netns", "list") == before
        if not mounted and not any(NAMESPACES.iterdir()):
            run("umount", str(NAMESPACES))
            if not was:
                NAMESPACES.rmdir()


async def put(net: Net, node: Node) -> None:
    await net.api.put(node.name, f"10.244.{node.name[1:]}.0/24", node.address)


async def all_ready(*nodes: Node) -> None:
    for node in nodes:
        await until(node.ready, f"{node.name} ready: {node.log.read_text()}")


async def test_pods_reach_each_other_across_nodes_and_the_world_sees_the_node(net: Net) -> None:
    nodes = [net.node(n) for n in (1, 2, 3)]
    nodes[1].run("iptables", "-P", "FORWARD", "DROP")  # as a container engine leaves it
    nodes[2].run("iptables", "-A", "FORWARD", "-j", "REJECT")  # as a firewall closes it
    for node in nodes:
        await put(net, node)
        node.start()
    await all_ready(*nodes)
    assert json.loads((nodes[0].cni_dir / "10-kubewright.conflist").read_text())["plugins"][0]["mtu"] == 1400
    pods = [net.pod(node, f"pod{n}{m}", host_port=9000 + m) for n, node in enumerate(nodes) for m in (1, 2)]
    servers = [await echo_server(pod, address, 8080) for pod, address in pods]
    servers.append(await echo_server(net.switch, OUTSIDE, 8080))
    servers += [await echo_server(node.namespace, node.address, 8080) for node in nodes]
    try:
        seen = {
            (source, target): await ask(namespace, target, 8080)
            for namespace, source in pods
            for _, target in pods
        }
        assert seen == {pair: pair[0] for pair in seen}
        for (namespace, source), node in zip(pods, [node for node in nodes for _ in (1, 2)], strict=True):
            assert await ask(namespace, OUTSIDE, 8080) == node.address
            assert await ask(namespace, node.address, 8080) == source
            assert await ask(node.namespace, source, 8080)
        assert await ask(net.switch, nodes[0].address, 9001) == OUTSIDE  # a hostPort
        # From a node to another node's pod, and to a pod that is not there: refused at once, not lost.
        assert await ask(nodes[0].namespace, pods[2][1], 8080) == nodes[0].address
        assert await ask(pods[0][0], "10.244.2.200", 8080, timeout=2) == "No route to host"
    finally:
        for server in servers:
            server.close()


async def test_nodes_come_and_go(net: Net) -> None:
    one, two = net.node(1), net.node(2)
    await put(net, one)
    one.start()
    await all_ready(one)
    assert one.routes("proto", "107") == ["unreachable 10.244.1.0/24"]
    run("ip", "-n", one.namespace, "route", "add", "10.77.0.0/16", "via", OUTSIDE, "proto", "static")
    await put(net, two)
    took = await until(lambda: len(one.routes("proto", "107")) == 2, "the new node's route")
    assert took < 1
    assert one.routes("proto", "107")[0] == f"10.244.2.0/24 via {two.address} dev eth0"
    # Its address changes, and then it is gone.
    await net.api.put("n2", "10.244.2.0/24", "172.29.77.99")
    await until(lambda: "via 172.29.77.99" in one.routes("proto", "107")[0], "the new address")
    await net.api.drop("n2")
    await until(lambda: one.routes("proto", "107") == ["unreachable 10.244.1.0/24"], "the route to go")
    assert one.routes("proto", "static") == [f"10.77.0.0/16 via {OUTSIDE} dev eth0"]
    # The API forgets its past, and then is away for a while: nothing is lost, and the agent comes back.
    lists = net.api.lists
    await net.api.compact()
    await until(lambda: net.api.lists > lists, "a new list after 410")
    net.api.broken = True
    async with net.api.news:
        net.api.news.notify_all()
    await until(lambda: "ERROR" in one.log.read_text(), "the API's trouble in the log")
    assert await one.ready()
    net.api.broken = False
    await put(net, two)
    await until(lambda: len(one.routes("proto", "107")) == 2, "the route after the API's return", 20)
    assert (await one.get("/healthz"))[0] == 200
    assert "kubewright_network_nodes 2.0" in (await one.get("/metrics"))[1]


async def test_what_others_remove_comes_back_and_what_others_own_stays(net: Net) -> None:
    one, two = net.node(1), net.node(2)
    for node in (one, two):
        await put(net, node)
    one.start()
    await all_ready(one)
    wanted, rules = one.routes("proto", "107"), one.rules()
    run("ip", "-n", one.namespace, "route", "del", "10.244.2.0/24")
    assert await until(lambda: one.routes("proto", "107") == wanted, "the deleted route") < 1
    run("ip", "-n", one.namespace, "link", "set", "eth0", "down")
    run("ip", "-n", one.namespace, "link", "set", "eth0", "up")
    run("ip", "-n", one.namespace, "route", "add", "default", "via", OUTSIDE)
    await until(lambda: one.routes("proto", "107") == wanted, "the routes that the link took with it")
    one.run("iptables", "-t", "nat", "-F")
    one.run("iptables", "-F", "KUBEWRIGHT-FORWARD")
    await until(lambda: one.rules() == rules, "the rules")
    # Somebody's own route to a range that a node gets: it stays, and the agent says so.
    run("ip", "-n", one.namespace, "route", "add", "10.244.3.0/24", "via", OUTSIDE, "proto", "static")
    await net.api.put("n3", "10.244.3.0/24", "172.29.77.13")
    await until(lambda: "is taken by" in one.log.read_text(), "the conflict in the log")
    assert one.routes("10.244.3.0/24") == [f"10.244.3.0/24 via {OUTSIDE} dev eth0 proto static"]
    assert "10.244.3.0/24 is taken by a route of protocol 4" in (await one.get("/readyz"))[1]
    run("ip", "-n", one.namespace, "route", "del", "10.244.3.0/24", "proto", "static")
    await until(one.ready, "ready again")


async def test_a_restart_changes_nothing(net: Net) -> None:
    one, two = net.node(1), net.node(2)
    for node in (one, two):
        await put(net, node)
    one.start()
    await all_ready(one)
    namespace, address = net.pod(one, "pod")
    conflist = one.cni_dir / "10-kubewright.conflist"
    before = (one.routes(), one.rules(), conflist.stat().st_mtime_ns)
    code, _ = one.stop()
    assert code == 0
    assert (one.routes(), one.rules(), conflist.stat().st_mtime_ns) == before
    server = await echo_server(namespace, address, 8080)
    assert await ask(one.namespace, address, 8080) == "10.244.1.1"  # pods work while no agent runs
    server.close()
    one.start()
    await all_ready(one)
    await until(lambda: net.api.watches >= 2, "the second watch")
    await asyncio.sleep(2.5)  # a round of the periodic look: what would churn shows in the counts
    counts = (await one.status())["counts"]
    assert counts["reconciles"] >= 2
    assert [counts.get(key, 0) for key in ("route_writes", "rule_writes", "cni_writes")] == [0, 0, 0]
    assert (one.routes(), one.rules(), conflist.stat().st_mtime_ns) == before


async def test_cleanup_leaves_the_node_as_it_was(net: Net) -> None:
    one, two = net.node(1), net.node(2)
    one.run("iptables", "-t", "nat", "-A", "POSTROUTING", "-s", "192.0.2.0/24", "-j", "MASQUERADE")
    one.run("iptables", "-A", "FORWARD", "-s", "192.0.2.0/24", "-j", "ACCEPT")
    one.cni_dir.mkdir()
    (one.cni_dir / "87-mine.conflist").write_text("{}")

    def look() -> tuple[list[str], ...]:
        links = run("ip", "-n", one.namespace, "-br", "link").splitlines()
        addresses = run("ip", "-n", one.namespace, "-br", "-4", "addr").splitlines()
        files = sorted(str(path) for path in one.directory.rglob("*") if path != one.log)
        return one.routes("table", "all"), one.rules(), links, addresses, files

    before = look()
    for node in (one, two):
        await put(net, node)
    one.start()
    await all_ready(one)
    assert look() != before
    one.stop()
    run(*one.argv("--cleanup"))
    assert look() == before
    assert "cleaned up" in run(*one.argv("--cleanup"))


async def test_it_waits_quietly_for_its_node_and_range(net: Net) -> None:
    """P40."""
    one = net.node(1)
    conflist = one.cni_dir / "10-kubewright.conflist"
    one.start()
    await until(lambda: "is not registered yet" in one.log.read_text(), "the wait for the Node")
    await net.api.put("n1", "", one.address)
    await until(lambda: "has no podCIDR yet" in one.log.read_text(), "the wait for the range")
    assert (await one.get("/healthz"))[0] == 200
    code, reason = await one.get("/readyz")
    assert code == 503
    assert "no podCIDR" in reason
    assert not conflist.exists()
    await put(net, one)
    assert await until(conflist.exists, "the CNI configuration") < 0.5
    await all_ready(one)
    assert "ERROR" not in one.log.read_text()
    # A node that was registered anew may get another range.
    await net.api.put("n1", "10.244.9.0/24", one.address)
    await until(lambda: one.routes("proto", "107") == ["unreachable 10.244.9.0/24"], "the new range's route")
    assert "10.244.9.0/24" in conflist.read_text()


def _shadow(net: Net, node: Node) -> None:
    (node.cni_dir / "05-old.conf").write_text("{}")


def _forwarding_off(net: Net, node: Node) -> None:
    node.run("sh", "-c", "echo 0 > /proc/sys/net/ipv4/ip_forward")


@pytest.mark.parametrize(
    ("damage", "reason"),
    [(_shadow, "05-old.conf comes before 10-kubewright.conflist"), (_forwarding_off, "ip_forward is 0")],
)
async def test_it_says_why_pods_have_no_network(
    net: Net, damage: Callable[[Net, Node], None], reason: str
) -> None:
    """P36, P46."""
    one = net.node(1)
    await put(net, one)
    one.start()
    await all_ready(one)
    damage(net, one)

    async def told() -> bool:
        code, text = await one.get("/readyz")
        return code == 503 and reason in text

    await until(told, reason)


async def test_a_node_behind_a_router_is_reported(net: Net) -> None:
    """P39: direct routes need nodes on one link."""
    one, two = net.node(1), net.node(2)
    for node in (one, two):
        await put(net, node)
    one.start()
    await all_ready(one)
    await net.api.put("n3", "10.244.3.0/24", "172.31.0.9", ready=False)

    async def problem() -> str:
        return "".join(node["problem"] for node in (await one.status())["nodes"])

    await until(problem, "the problem in /status")
    assert (
        await problem() == f"172.31.0.9 is behind the router {OUTSIDE}: direct routes need nodes on one link"
    )
    assert await one.ready()  # a node that is not Ready holds nobody up
    await net.api.put("n3", "10.244.3.0/24", "172.31.0.9")

    async def unready() -> bool:
        return not await one.ready()

    await until(unready, "unready for the node's sake")
    assert f"10.244.2.0/24 via {two.address} dev eth0" in one.routes("proto", "107")


async def test_a_clouds_network_unavailable_is_taken_back(net: Net) -> None:
    one = net.node(1)
    condition = {"type": "NetworkUnavailable", "status": "True", "reason": "NoRouteCreated"}
    await net.api.put("n1", "10.244.1.0/24", one.address, conditions=[condition])
    one.start()
    await until(lambda: net.api.patches, "the patch")
    assert net.api.patches[0]["status"]["conditions"][0]["status"] == "False"
    await asyncio.sleep(0.3)
    assert len(net.api.patches) == 1


async def test_a_wrong_command_line_is_one_line(net: Net) -> None:
    one = net.node(1)
    argv = one.argv()
    argv[argv.index(POD_SUBNET)] = "10.244.0.0/99"
    process = await asyncio.create_subprocess_exec(*argv, stdout=asyncio.subprocess.PIPE)
    out, _ = await process.communicate()
    assert process.returncode == 10
    assert out.decode().count("\n") == 1
    assert "--pod-subnet 10.244.0.0/99: not an IPv4 network" in out.decode()
