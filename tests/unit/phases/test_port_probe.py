"""Ports probed between real local sockets, by the very programs that hosts run."""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from tests.free_ports import free_port

from kubewright.hosts import Completed
from kubewright.hosts.local import LocalHost
from kubewright.model.node_look import parse_listening
from kubewright.model.port_probe import NAME, Answer, Reach, listen_command, without_ours
from kubewright.phases import port_probe
from kubewright.phases.port_probe import Listener, connect, listening

pytestmark = pytest.mark.skipif(shutil.which("perl") is None, reason="hosts have Perl")
HERE = "127.0.0.1"


@pytest.fixture
def ports() -> list[int]:
    """Three ports that nobody has."""
    return [free_port() for _ in range(3)]


@pytest.fixture
def taken() -> Iterator[int]:
    with closing(socket.create_server((HERE, 0))) as server:
        yield server.getsockname()[1]


async def test_what_is_listened_on_is_open_and_only_for_as_long(ports: list[int]) -> None:
    first, second, nobody = ports
    ways = [(HERE, port) for port in ports]
    async with listening({"t": (LocalHost("t"), HERE, [first, second])}) as listeners:
        assert listeners["t"].ports == {first, second}
        assert listeners["t"].trouble == ""
        answers = await connect({"u": (LocalHost("u"), ways)})
        again = await connect({name: (LocalHost(name), ways) for name in ("a", "b", "c")})
    expected = {(HERE, first): "open", (HERE, second): "open", (HERE, nobody): "refused"}
    for found in (answers["u"], *again.values()):
        assert {way: str(answer.reach) for way, answer in found.items()} == expected
    after = await connect({"u": (LocalHost("u"), ways)})
    assert {answer.reach for answer in after["u"].values()} == {Reach.REFUSED}


async def test_a_port_that_is_taken_is_told_and_the_others_are_listened_on(
    ports: list[int], taken: int
) -> None:
    async with listening({"t": (LocalHost("t"), HERE, [taken, ports[0]])}) as listeners:
        assert listeners["t"].ports == {ports[0]}
        assert listeners["t"].failed == {taken: "Address already in use"}


async def test_no_port_is_left_waiting_for_the_next_who_binds_it(ports: list[int]) -> None:
    async with listening({"t": (LocalHost("t"), HERE, ports[:1])}):
        await connect({"u": (LocalHost("u"), [(HERE, ports[0])])})
    with closing(socket.socket()) as plain:  # without SO_REUSEADDR
        plain.bind((HERE, ports[0]))


async def test_many_connections_at_once(ports: list[int]) -> None:
    """More than are made at once, and than a listener has in its queue."""
    addresses = [f"127.0.{high}.{low}" for high in (1, 2) for low in range(1, 251)]
    async with listening({"t": (LocalHost("t"), "0.0.0.0", ports[:1])}):
        answers = await connect({"u": (LocalHost("u"), [(address, ports[0]) for address in addresses])})
    assert len(answers["u"]) == 500
    assert {answer.reach for answer in answers["u"].values()} == {Reach.OPEN}


async def test_a_network_without_a_way_is_told_in_the_systems_words() -> None:
    answers = await connect({"u": (LocalHost("u"), [("255.255.255.255", 9)])})
    [answer] = answers["u"].values()
    assert answer.reach is Reach.FAILED
    assert str(answer)


async def test_a_host_without_perl_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ports: list[int]
) -> None:
    monkeypatch.setattr("kubewright.hosts.local.SYSTEM_PATH", str(tmp_path))
    (tmp_path / "env").symlink_to("/usr/bin/env")
    monkeypatch.setenv("PATH", str(tmp_path))
    host = LocalHost("t")
    listener = Listener(host, HERE, ports)
    await listener.start()
    await listener.stop()
    assert "perl" in listener.trouble
    assert not listener.ports
    assert await connect({"u": (host, [(HERE, ports[0])])}) == {}


async def test_a_listener_ends_when_nobody_reads_it_any_more(ports: list[int]) -> None:
    """As it is when the SSH connection dies."""
    process = await asyncio.create_subprocess_exec(
        *listen_command("kubewright-probe-test", HERE, ports[:1]), stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    await process.stdout.read(1)
    listened = parse_listening((await LocalHost("t").run(["ss", "-Hltnp"])).text)
    assert listened[ports[0]] == NAME
    assert ports[0] not in without_ours(listened)
    process.stdout._transport.close()  # type: ignore[attr-defined]
    async with asyncio.timeout(20):
        assert await process.wait() != 0


async def test_a_listener_that_has_ended_by_itself_proves_nothing(
    monkeypatch: pytest.MonkeyPatch, ports: list[int]
) -> None:
    monkeypatch.setattr("kubewright.model.port_probe.LIFETIME", 1)
    async with listening({"t": (LocalHost("t"), HERE, ports[:1])}) as listeners:
        listener = listeners["t"]
        assert listener.ports == {ports[0]}
        assert listener._running is not None
        await listener._running
    assert listener.ports == frozenset()


async def test_fewer_open_files_than_connections(tmp_path: Path, ports: list[int]) -> None:
    class Poor(LocalHost):
        async def _exec(self, argv: Any, stdin: Any, output: Any) -> int:
            return await super()._exec(["sh", "-c", 'ulimit -n 24; exec "$@"', "sh", *argv], stdin, output)

    ways = [(f"127.0.3.{low}", ports[0]) for low in range(1, 101)]
    async with listening({"t": (LocalHost("t"), "0.0.0.0", ports[:1])}):
        answers = await connect({"u": (Poor("u"), ways)})
    assert [str(answer) for answer in answers["u"].values()] == ["open"] * 100


async def test_a_run_that_is_cancelled_leaves_no_listener(ports: list[int]) -> None:
    started = asyncio.Event()

    async def work() -> None:
        async with listening({"t": (LocalHost("t"), HERE, ports[:1])}):
            started.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(work())
    await started.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    after = await connect({"u": (LocalHost("u"), [(HERE, ports[0])])})
    assert after["u"][HERE, ports[0]] == Answer(Reach.REFUSED)


FIREWALLED = """
import asyncio
import os
from kubewright.hosts import Completed
from kubewright.hosts.local import LocalHost
from kubewright.phases.port_probe import connect, listening

async def main():
    ports = [6443, 2379, 2380, 10250]
    async with listening({"t": (LocalHost("t"), "127.0.0.2", ports)}):
        answers = await connect({"u": (LocalHost("u"), [("127.0.0.2", port) for port in ports])})
    print(*(f"{port}={answer}" for (_, port), answer in sorted(answers["u"].items())), sep=chr(10))

asyncio.run(main())
"""
RULES = """
ip link set lo up || exit 77
iptables -A INPUT -p tcp --dport 6443 -j DROP || exit 77
iptables -A INPUT -p tcp --dport 2379 -j REJECT || exit 77
iptables -A INPUT -p tcp --dport 2380 -j REJECT --reject-with icmp-host-prohibited || exit 77
exec "$1" -c "$2"
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="a network of its own is root's to make")
async def test_a_real_firewall_is_seen_for_what_it_does() -> None:
    """In a network of its own."""
    done = await asyncio.create_subprocess_exec(
        "unshare", "--net", "sh", "-c", RULES, "sh", sys.executable, FIREWALLED, stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    out, error = await done.communicate()
    if done.returncode == 77:
        pytest.skip(f"no packet filter here: {error.decode()}")
    assert done.returncode == 0, error.decode()
    assert out.decode().splitlines() == [
        "2379=connection refused", "2380=No route to host", "6443=no answer in 4 s", "10250=open",
    ]  # fmt: skip


async def test_where_only_one_session_is_allowed_nothing_waits_for_ever(
    monkeypatch: pytest.MonkeyPatch, ports: list[int]
) -> None:
    class Narrow(LocalHost):
        turn = asyncio.Semaphore(1)

        async def run(self, argv: Any, **options: Any) -> Completed:
            async with self.turn:
                return await super().run(argv, **options)

    monkeypatch.setattr(port_probe, "_START", 0.5)
    host = Narrow("t")
    async with listening({"t": (host, HERE, ports[:1])}) as listeners:
        assert "did not start" in listeners["t"].trouble
        assert listeners["t"].ports == frozenset()
    assert await connect({"t": (host, [(HERE, ports[0])])})
