"""Preflight of a fleet, on real machines: firewalls, taken ports, clocks, clones; and mending what can be mended.

What this computer's kernel cannot show is provoked as near as it allows: a clock by a `date` that is wrong (the
machines share the computer's), a clone's MAC address and swap by files mounted over the kernel's.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from cluster_fixtures import (
    FIT,
    ON_MACHINES,
    Kubewright,
    Run,
    copied,
    lab_of,
    on,
    start_on,
    until_on,
    write,
    written,
)
from test_bad_input import LOOK, settled

from kubewright.errors import ExitCode
from kubewright.lab.lab import Lab

pytestmark = ON_MACHINES

LISTENERS = "ss -Hltn | wc -l; pgrep -c perl"


@pytest.fixture(scope="module")
def lab(kubewright: Kubewright) -> Iterator[Lab]:
    """Three machines that nobody has made nodes."""
    with lab_of(kubewright, FIT, workers=2) as found:
        yield found


class Fleet:
    """The machines' cluster.yaml, and what preflight says of it."""

    def __init__(self, kubewright: Kubewright, lab: Lab, directory: Path) -> None:
        self.kubewright = kubewright
        self.lab = lab
        self.file, self.document = copied(lab, directory / "cluster.yaml")

    def address(self, name: str) -> str:
        return str(self.lab.machine(name).plan.address)

    def run(self, *options: str, code: int | None = 0) -> Run:
        written(self.file, self.document)
        return self.kubewright("preflight", "-f", self.file, "-o", "json", *options, code=code)

    def findings(self, *options: str, code: int | None = 0) -> list[dict[str, Any]]:
        """What was found, but for the kernel settings that `apply` makes."""
        found = self.run(*options, code=code).document["findings"]
        return [one for one in found if not one.get("check", "").startswith("FileContent-")]

    def error(self, check: str, code: ExitCode = ExitCode.HOST_NOT_FIT) -> dict[str, Any]:
        """The one finding there is, an error, which `apply` refuses, too, before it changes anything."""
        [found] = self.findings(code=int(code))
        assert (found["check"], found["severity"]) == (check, "error"), found
        before = self.look()
        run = self.kubewright("apply", "-f", self.file, code=int(code))
        # Clocks go on, and which of those that agree is in the middle is chance.
        message = found["message"].partition(" that of ")[0]
        told = re.sub(r"\d+", r"\\d+", re.escape(f"{found['host']}: {message}"))
        assert re.search(told, run.err), run.err
        assert f"--ignore-preflight-errors={check}" in run.err
        assert settled(self.look, before) == before
        return found

    def look(self) -> dict[str, list[str]]:
        return {one.name: on(self.lab, one.name, LOOK).splitlines() for one in self.lab.machines}


@pytest.fixture
def fleet(kubewright: Kubewright, lab: Lab, tmp_path: Path) -> Fleet:
    return Fleet(kubewright, lab, tmp_path)


@contextmanager
def rules(lab: Lab, machine: str, *texts: str) -> Iterator[None]:
    """Rules of a machine's packet filter."""
    for text in texts:
        on(lab, machine, f"iptables -I {text}")
    try:
        yield
    finally:
        for text in texts:
            on(lab, machine, f"iptables -D {text}")


@contextmanager
def mounted(lab: Lab, machine: str, path: str, content: str) -> Iterator[None]:
    """A file over another one, such as one of the kernel's."""
    on(
        lab,
        machine,
        'printf "%s" "$2" >/run/over && mount --bind /run/over "$(readlink -f "$1")"',
        path,
        content,
    )
    try:
        yield
    finally:
        on(lab, machine, 'umount "$(readlink -f "$1")" 2>/dev/null; rm -f /run/over', path)


# -- bare machines ------------------------------------------------------------------------------------------------


def test_bare_machines_are_fit_and_stay_as_they_are(fleet: Fleet) -> None:
    before = fleet.look()
    listeners = {one.name: on(fleet.lab, one.name, f"{LISTENERS} || true") for one in fleet.lab.machines}
    for _ in range(3):
        assert fleet.findings() == []
    assert settled(fleet.look, before) == before
    assert {
        one.name: on(fleet.lab, one.name, f"{LISTENERS} || true") for one in fleet.lab.machines
    } == listeners


# -- ports (P44) --------------------------------------------------------------------------------------------------


def test_p44_a_port_closed_to_one_host_is_named_with_both(fleet: Fleet) -> None:
    with rules(fleet.lab, "cp1", f"INPUT -s {fleet.address('w1')} -p tcp --dport 6443 -j DROP"):
        found = fleet.error("PortReach")
    assert found["host"] == "cp1"
    assert found["message"] == "w1 cannot reach it on TCP 6443 (P44)"
    assert found["evidence"][0] == "seen: no answer in 4 s"
    assert "--dport 6443 -j DROP" in found["evidence"][1]
    assert found["otherHosts"] == ["w1"]


def test_p44_a_firewall_that_rejects_is_seen_too(fleet: Fleet) -> None:
    with rules(fleet.lab, "w2", "INPUT -p tcp --dport 10250 -j REJECT"):
        found = fleet.error("PortReach")
    assert (found["host"], found["message"]) == ("w2", "cp1 cannot reach it on TCP 10250 (P44)")
    assert found["evidence"][0] == "seen: connection refused"


def test_p44_a_host_behind_a_closed_firewall_is_one_finding(fleet: Fleet) -> None:
    closed = [f"INPUT -p tcp --dport {ports} -j DROP" for ports in ("10250", "30000:32767")]
    with rules(fleet.lab, "w2", *closed):
        found = fleet.error("PortReach")
    assert found["host"] == "w2"
    assert found["message"].startswith(
        "none of its ports can be reached from cp1 (P44): TCP 10250, 30000-32767"
    )


def test_p44_node_ports_can_be_given_up(fleet: Fleet) -> None:
    with rules(fleet.lab, "w1", "INPUT -p tcp --dport 30000:32767 -j DROP"):
        found = fleet.error("NodePorts")
        assert found["host"] == "w1"
        [ignored] = fleet.findings("--ignore-preflight-errors", "NodePorts")
        assert ignored["severity"] == "warning"


SQUAT = """exec perl -MIO::Socket::INET -e '
$0 = "squatter"; my $socket = IO::Socket::INET->new(LocalPort => %d, Listen => 1) or die $!; sleep'"""


@pytest.mark.parametrize(("machine", "port"), [("cp1", 6443), ("cp1", 2380), ("w1", 10250)])
def test_p44_a_port_that_is_taken_is_named_with_the_process(fleet: Fleet, machine: str, port: int) -> None:
    with start_on(fleet.lab, machine, SQUAT % port):
        until_on(fleet.lab, machine, f"ss -Hltn | grep -q ':{port} '")
        found = fleet.error(f"Port-{port}")
    assert found["host"] == machine
    assert found["message"] == f"port {port} is in use by squatter (P44)"


def test_findings_of_several_kinds_are_told_at_once(fleet: Fleet) -> None:
    with (
        start_on(fleet.lab, "w1", SQUAT % 10250),
        rules(fleet.lab, "cp1", f"INPUT -s {fleet.address('w2')} -p tcp --dport 6443 -j DROP"),
    ):
        until_on(fleet.lab, "w1", "ss -Hltn | grep -q ':10250 '")
        found = fleet.findings(code=int(ExitCode.HOST_NOT_FIT))
        assert {(one["host"], one["check"]) for one in found} == {("cp1", "PortReach"), ("w1", "Port-10250")}
        only = fleet.findings("--host", "w2", code=int(ExitCode.HOST_NOT_FIT))
        assert [(one["host"], one["check"]) for one in only] == [("cp1", "PortReach")]


# -- clocks -------------------------------------------------------------------------------------------------------


@contextmanager
def clock(lab: Lab, machine: str, shift: str) -> Iterator[None]:
    """A machine whose `date` is wrong."""
    write(
        lab,
        machine,
        "/usr/local/bin/date",
        f'#!/bin/sh\nexec /usr/bin/date -d "{shift}" "$@"\n'.encode(),
        0o755,
    )
    try:
        yield
    finally:
        on(lab, machine, "rm /usr/local/bin/date")


def test_a_clock_that_is_far_off_is_refused_and_one_that_is_near_is_warned_of(fleet: Fleet) -> None:
    with clock(fleet.lab, "w1", "+50 seconds"):
        found = fleet.error("Clock")
        assert found["host"] == "w1"
        assert "ahead of that of" in found["message"]
    with clock(fleet.lab, "w1", "-12 seconds"):
        [found] = fleet.findings()
        assert (found["check"], found["severity"]) == ("Clock", "warning")
        assert "behind that of" in found["message"]


# -- clones and other hosts that are unfit ------------------------------------------------------------------------


def test_p43_a_clones_mac_address(fleet: Fleet) -> None:
    link = on(fleet.lab, "w2", 'ip -o -4 route show default | sed "s/.* dev //; s/ .*//"').strip()
    path = f"/sys/class/net/{link}/address"
    first = on(fleet.lab, "cp1", f"cat {path}")
    with mounted(fleet.lab, "w2", path, first):
        found = fleet.error("UniqueMAC", ExitCode.CONFIG_DUPLICATE_HOST)
    assert found["host"] == "w2"
    assert f"has the same MAC address as cp1 (P43): {first.strip()}" in found["message"]


def test_p17_ipvs_where_the_kernel_lacks_it(fleet: Fleet) -> None:
    if on(fleet.lab, "w1", "[ ! -e /proc/net/ip_vs ] || echo there"):
        pytest.skip("this kernel has IPVS")
    fleet.document["kubeProxyConfiguration"] = {"mode": "ipvs"}
    found = fleet.findings(code=int(ExitCode.HOST_NOT_FIT))
    assert {one["host"] for one in found} == {"cp1", "w1", "w2"}
    assert {one["check"] for one in found} == {"RequiredIPVSKernelModulesAvailable"}
    assert all("the kernel has no ip_vs" in one["message"] for one in found)


def test_p47_another_runtime_is_spoken_of(fleet: Fleet) -> None:
    script = (
        "mkdir -p /run/crio && exec perl -MIO::Socket::UNIX -e "
        "'my $s = IO::Socket::UNIX->new(Local => \"/run/crio/crio.sock\", Listen => 1) or die; sleep'"
    )
    try:
        with start_on(fleet.lab, "w1", script):
            until_on(fleet.lab, "w1", "[ -S /run/crio/crio.sock ]")
            [found] = fleet.findings()
    finally:
        on(fleet.lab, "w1", "rm -rf /run/crio")
    assert (found["host"], found["check"], found["severity"]) == ("w1", "CRI", "warning")
    assert "/run/crio/crio.sock" in found["message"]


def test_p14_a_name_that_leads_nowhere_but_home(fleet: Fleet) -> None:
    with mounted(fleet.lab, "w1", "/etc/hosts", "127.0.0.1 localhost\n127.0.1.1 w1\n"):
        [found] = fleet.findings()
    assert (found["host"], found["check"], found["severity"]) == ("w1", "Hostname", "warning")
    assert "127.0.1.1, where only this host is reached (P14)" in found["message"]


# -- mending ------------------------------------------------------------------------------------------------------

SWAPS = "Filename Type Size Used Priority\n/swapfile file 1048572 0 -2\n"
SWAPOFF = b'#!/bin/sh\n[ "$1" = -a ] && umount /proc/swaps\n'
LINE = "/swapfile none swap sw 0 0"


def test_p16_swap_is_turned_off_for_good_only_when_asked(fleet: Fleet) -> None:
    """Swap is the computer's own: the kernel's list of it is another, and so is what turns it off."""
    on(fleet.lab, "w1", 'cp -p /etc/fstab /run/fstab 2>/dev/null; echo "$1" >>/etc/fstab', LINE)
    write(fleet.lab, "w1", "/usr/local/bin/swapoff", SWAPOFF, 0o755)
    try:
        with mounted(fleet.lab, "w1", "/proc/swaps", SWAPS):
            found = fleet.error("Swap")
            assert (found["host"], found["fixable"]) == ("w1", True)
            dry = fleet.run("--fix", "--dry-run", code=int(ExitCode.HOST_NOT_FIT)).document
            targets = {change["target"] for change in dry["changes"] if change["host"] == "w1"}
            assert {"/etc/fstab", "swapoff -a"} <= targets
            [fstab] = [change for change in dry["changes"] if change["target"] == "/etc/fstab"]
            assert f"-{LINE}" in fstab["diff"]
            assert on(fleet.lab, "w1", "cat /etc/fstab").splitlines()[-1] == LINE
            fixed = fleet.run("--fix", "--host", "w1").document
            assert fixed["fit"]
            assert on(fleet.lab, "w1", "cat /etc/fstab").splitlines()[-1] == f"# {LINE}"
    finally:
        on(
            fleet.lab,
            "w1",
            "rm /usr/local/bin/swapoff; mv /run/fstab /etc/fstab 2>/dev/null || rm /etc/fstab",
        )


def test_p46_kernel_settings_are_made_when_asked(fleet: Fleet) -> None:
    """The last test on these machines: they are no longer bare after it."""
    name = "FileContent--proc-sys-net-ipv4-ip_forward"
    on(fleet.lab, "w2", "sysctl -q -w net.ipv4.ip_forward=0")
    found = [one for one in fleet.run("--host", "w2").document["findings"] if one.get("check") == name]
    assert [(one["host"], one["severity"], one["fixable"]) for one in found] == [("w2", "warning", True)]
    assert on(fleet.lab, "w2", "sysctl -n net.ipv4.ip_forward").strip() == "0"
    fixed = fleet.run("--fix", "--host", "w2").document
    assert fixed["findings"] == []
    assert on(fleet.lab, "w2", "sysctl -n net.ipv4.ip_forward").strip() == "1"
    on(fleet.lab, "w2", "test -s /etc/sysctl.d/99-kubernetes.conf")
