"""An endpoint's programs on their hosts: units that are dead, units of before, and who has the virtual IP."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

import pytest
from tests.unit.phases.memory_host import MemoryHost

from kubewright.errors import WaitTimeoutError
from kubewright.events import Events
from kubewright.hosts import Completed, FileWrite, HostFacts
from kubewright.model import keepalived, nginx
from kubewright.model.config.cluster import HostSpec
from kubewright.model.keepalived import VirtualIp
from kubewright.model.loadbalancer import Backend, unit_of
from kubewright.phases import endpoint_service, virtual_ip
from kubewright.phases.loadbalancer import LoadBalancer
from kubewright.phases.node import Node
from kubewright.phases.virtual_ip import VirtualAddress, VirtualIpHeld
from kubewright.secret import Secret

BACKENDS = [Backend("cp1", "10.0.0.1", 6443)]
FACTS = HostFacts(
    "lb1", "debian", "12", "", "amd64", "id-1", 2, 4 << 30, 0, True, "systemd", 2, 0, "10.0.0.5",
    ("10.0.0.5",), (),
)  # fmt: skip


class Systemd(MemoryHost):
    """Files in memory, and a shell in which `systemctl` says what the folder has."""

    def __init__(self, folder: Path, **units: str) -> None:
        super().__init__()
        self._folder = folder
        (folder / "bin").mkdir()
        (folder / "states").mkdir()
        stub = folder / "bin/systemctl"
        stub.write_text(
            f"""#!/bin/sh
word=$1 status=0; shift
[ "$1" = -q ] && quiet=1 && shift || quiet=
for unit; do
  said=$(cat "{folder}/states/$unit.$word" 2>/dev/null || echo not)
  [ -n "$quiet" ] || echo "$said"
  case $word$said in is-activeactive | is-enabledenabled) ;; *) status=3 ;; esac
done
exit $status
"""
        )
        stub.chmod(0o755)
        for program, state in units.items():
            self.has(unit_of(program.replace("_", "-")), state)

    def has(self, unit: str, state: str) -> None:
        """A unit that is enabled, in this state."""
        (self._folder / unit).touch()
        (self._folder / f"states/{unit}.is-active").write_text(state)
        (self._folder / f"states/{unit}.is-enabled").write_text("enabled")

    async def run(
        self, argv: Sequence[str], *, stdin: bytes | Secret[bytes] | None = None, timeout: float = 60.0,
        check: bool = True, env: Mapping[str, str] | None = None,
    ) -> Completed:  # fmt: skip
        path = f"{self._folder}/bin:/usr/bin:/bin"
        process = await asyncio.create_subprocess_exec(
            *argv, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE, env={"PATH": path}
        )
        out, err = await process.communicate()
        return Completed(tuple(argv), process.returncode or 0, out, err)


def node(host: MemoryHost, name: str = "lb1", ip: str = "10.0.0.5") -> Node:
    host.name = name
    return Node(HostSpec(name=name, address=ip, roles=["load-balancer"]), host, FACTS, ip)


async def wanted(phase: LoadBalancer) -> list[str]:
    """What it would run."""
    return [change.target for change in await phase.look() if change.action == "run"]


def balancer(host: Systemd, proxy: str, *, virtual: bool = False) -> LoadBalancer:
    kind: Literal["haproxy", "nginx"] = "nginx" if proxy == "nginx" else "haproxy"
    return LoadBalancer(
        node(host), kind, BACKENDS, b"ca", address="0.0.0.0", port=6443, virtual=virtual
    )  # fmt: skip


# -- units --------------------------------------------------------------------------------------------------------


async def test_health_checks_that_are_dead_are_started(tmp_path: Path) -> None:
    host = Systemd(tmp_path, nginx="active", nginx_check="failed")
    assert f"start {nginx.CHECK_UNIT}" in await wanted(balancer(host, "nginx"))


async def test_with_all_units_alive_nothing_is_started(tmp_path: Path) -> None:
    host = Systemd(tmp_path, nginx="active", nginx_check="active")
    phase = balancer(host, "nginx")
    await host.write_files(await phase.files())
    assert await wanted(balancer(host, "nginx")) == (
        [] if Path("/usr/sbin/nginx").exists() else ["reload kubewright-nginx.service"]
    )


async def test_dead_health_checks_are_not_taken_for_running(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(endpoint_service, "SETTLED", 0.2)
    phase = balancer(Systemd(tmp_path, nginx="active", nginx_check="activating"), "nginx")
    with pytest.raises(WaitTimeoutError) as caught:
        async with Events().phase("x", "x") as activity:
            await phase.verify(activity)
    assert caught.value.evidence[0] == f"last seen: {nginx.CHECK_UNIT} is activating"


@pytest.mark.parametrize("proxy", ["haproxy", "nginx"])
async def test_a_virtual_ip_of_before_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, proxy: str
) -> None:
    monkeypatch.setattr(endpoint_service, "UNITS", str(tmp_path))
    host = Systemd(tmp_path, keepalived="active", **{proxy: "active"})
    stop = "stop kubewright-keepalived.service"
    assert stop in await wanted(balancer(host, proxy))
    assert stop not in await wanted(balancer(host, proxy, virtual=True))


# -- the virtual IP -----------------------------------------------------------------------------------------------


async def test_the_real_address_of_a_peer_that_cannot_be_asked_stays(tmp_path: Path) -> None:
    host, virtual = Systemd(tmp_path), VirtualIp("10.0.0.9", 51, "haproxy")
    before = keepalived.keepalived_config(virtual, "eth0", "10.0.0.5", {"lb2": "10.0.0.6", "lb3": "10.0.0.7"})
    host.files[keepalived.KEEPALIVED_CONFIG] = FileWrite(keepalived.KEEPALIVED_CONFIG, before)
    by_ssh = {"lb2": "192.0.2.6", "lb3": "10.0.0.8"}
    phase = VirtualAddress(node(host), virtual, by_ssh, interface="eth0", keep={"lb2"})
    [config] = [file for file in await phase.files() if file.path == keepalived.KEEPALIVED_CONFIG]
    assert keepalived.read_peers(config.data) == {"lb2": "10.0.0.6", "lb3": "10.0.0.8"}


class Holder(MemoryHost):
    """A host that has the virtual IP, or not, at each look after another."""

    def __init__(self, *looks: bool) -> None:
        super().__init__()
        self._looks = list(looks)
        self.asked = 0

    async def run(
        self, argv: Sequence[str], *, stdin: bytes | Secret[bytes] | None = None, timeout: float = 60.0,
        check: bool = True, env: Mapping[str, str] | None = None,
    ) -> Completed:  # fmt: skip
        if "ip -o addr" not in argv[2]:
            return Completed(tuple(argv), 0, b"ActiveState=active\n@@\n")
        has = self._looks[min(self.asked, len(self._looks) - 1)]
        self.asked += 1
        return Completed(tuple(argv), 0, b"2: eth0 inet 10.0.0.9/32" if has else b"")


async def held(*hosts: Holder, after: float = 0.0) -> None:
    nodes = [node(host, f"lb{number}", f"10.0.0.{number}") for number, host in enumerate(hosts, 1)]
    await VirtualIpHeld(nodes, "10.0.0.9", after=after).run(Events())


async def test_one_host_has_the_virtual_ip() -> None:
    hosts = Holder(False), Holder(True)
    await held(*hosts)
    assert [host.asked for host in hosts] == [1, 1]


async def test_the_loser_of_an_election_is_waited_for() -> None:
    hosts = Holder(True), Holder(True, True, False)
    await held(*hosts)
    assert [host.asked for host in hosts] == [3, 3]


@pytest.mark.parametrize(
    ("hosts", "seen"),
    [
        ([True, True], "lb1 and lb2 both have 10.0.0.9"),
        ([True, True, True], "lb1, lb2 and lb3 all have 10.0.0.9"),
        ([False, False], "none of lb1, lb2 has 10.0.0.9"),
    ],
)
async def test_two_holders_are_no_virtual_ip(
    monkeypatch: pytest.MonkeyPatch, hosts: list[bool], seen: str
) -> None:
    monkeypatch.setattr(virtual_ip, "SETTLED", 0.2)
    with pytest.raises(WaitTimeoutError) as caught:
        await held(*map(Holder, hosts))
    assert caught.value.evidence[0] == f"last seen: {seen}"
    assert "IP protocol 112" in caught.value.hint


async def test_nobody_is_asked_before_the_election_is_over() -> None:
    now = asyncio.get_running_loop().time()
    await held(Holder(True), after=now + 0.3)
    assert asyncio.get_running_loop().time() >= now + 0.3
