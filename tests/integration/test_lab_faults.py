"""Faults of machines: what the others see of them, how they are mended, and that `down` cleans up after them."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import AsyncIterator

import pytest
from cluster_fixtures import FAULTS, ON_MACHINES, Kubewright, Leftovers, on

from kubewright.errors import ExitCode
from kubewright.events import Events
from kubewright.lab import cgroups
from kubewright.lab.lab import Lab, down, open_lab
from kubewright.lab.proc import read

pytestmark = ON_MACHINES


@pytest.fixture(scope="module")
async def before() -> AsyncIterator[Leftovers]:
    await down(FAULTS, events=Events())
    found = Leftovers((FAULTS,))
    await found.begin()
    yield found
    await down(FAULTS, events=Events())


@pytest.fixture(scope="module")
def lab(before: Leftovers, kubewright: Kubewright) -> Lab:
    kubewright("lab", "up", "--name", FAULTS, "--workers", "2", "--machines-only")
    return open_lab(FAULTS)


def states(kubewright: Kubewright) -> dict[str, str]:
    labs = kubewright("lab", "list", "-o", "json").document["labs"]
    [found] = [row for row in labs if row["name"] == FAULTS]
    return {machine["name"]: machine["state"] for machine in found["machines"]}


def greeting(lab: Lab, machine: str) -> str:
    """What its sshd says within a second; "silence" where it is connected to and says nothing."""
    address = str(lab.machine(machine).plan.address)
    try:
        with socket.create_connection((address, 22), timeout=1) as connection:
            try:
                return connection.recv(100).decode()
            except TimeoutError:
                return "silence"
    except OSError:
        return "nobody"


def counter(lab: Lab, machine: str) -> int:
    """How far a process in the machine has counted, seen from outside."""
    pid = lab.machine(machine).pid()
    return int(read(f"/proc/{pid}/root/run/counter").strip() or 0)


def test_a_killed_machine_is_gone_without_a_word_and_starts_with_its_disk(
    lab: Lab, kubewright: Kubewright
) -> None:
    on(lab, "w1", "echo kept > /root/mark; sync")
    on(lab, "w2", "systemd-run -q --unit listen bash -c 'exec 3<>/dev/tcp/w1/22; read -r a <&3; cat <&3'")
    on(lab, "w2", "for i in $(seq 50); do ss -Htn dst w1 | grep -q ESTAB && exit; sleep 0.1; done; exit 1")
    kubewright("lab", "kill", FAULTS, "w1")
    assert states(kubewright) == {"cp1": "running", "w1": "stopped", "w2": "running"}
    assert not cgroups.members(FAULTS, "w1")
    assert greeting(lab, "w1") == "nobody"
    time.sleep(0.5)
    assert "ESTAB" in on(lab, "w2", "ss -Htn dst w1"), "whoever was connected has heard of nothing"
    assert "does not run" in kubewright("lab", "freeze", FAULTS, "w1", code=ExitCode.HOST_UNREACHABLE).err
    kubewright("lab", "kill", FAULTS, "w1")
    kubewright("lab", "start", FAULTS, "w1")
    assert on(lab, "w1", "cat /root/mark") == "kept\n"
    assert greeting(lab, "w1").startswith("SSH-2.0")
    on(lab, "w1", "ping -c1 -W2 w2")


def test_a_frozen_machine_accepts_and_never_answers(lab: Lab, kubewright: Kubewright) -> None:
    script = "i=0; while :; do i=$((i+1)); echo $i > /run/counter.new; mv /run/counter.new /run/counter; done"
    on(lab, "w1", f"systemd-run -q --unit count sh -c '{script}'")
    try:
        deadline = time.monotonic() + 10
        while not counter(lab, "w1"):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        kubewright("lab", "freeze", FAULTS, "w1")
        stopped = counter(lab, "w1")
        assert states(kubewright)["w1"] == "frozen"
        assert greeting(lab, "w1") == "silence"
        on(lab, "w2", "ping -c1 -W2 w1")
        assert "is frozen" in kubewright("lab", "exec", FAULTS, "w1", "--", "true", code=1).err
        assert counter(lab, "w1") == stopped
        again = kubewright("lab", "freeze", FAULTS, "w1", "-o", "json").events
        assert "phase.skipped" in [event["kind"] for event in again]
        kubewright("lab", "thaw", FAULTS, "w1")
        assert greeting(lab, "w1").startswith("SSH-2.0")
        assert counter(lab, "w1") > stopped
    finally:
        on(lab, "w1", "systemctl stop count")


def test_a_partitioned_machine_runs_on_alone(lab: Lab, kubewright: Kubewright) -> None:
    kubewright("lab", "partition", FAULTS, "w1", "w2")
    assert states(kubewright) == {"cp1": "running", "w1": "partitioned", "w2": "partitioned"}
    assert greeting(lab, "w1") == "nobody"
    # Not even "unreachable": nothing comes back, and the machine's own link has a carrier.
    assert "100% packet loss" in on(lab, "w1", "ping -c2 -i0.2 -W1 w2", code=1)
    assert on(lab, "w1", "cat /sys/class/net/eth0/carrier") == "1\n"
    on(
        lab,
        "w1",
        "ping -c1 -W1 $(ip -j route show default | grep -o '10[.0-9]*\\|1[79]2[.0-9]*' | head -1)",
        code=1,
    )
    kubewright("lab", "heal", FAULTS, "w1")
    on(lab, "w1", "ping -c1 -W2 cp1")
    on(lab, "w1", "ping -c1 -W1 w2", code=1)
    kubewright("lab", "heal", FAULTS, "w1", "w2")
    on(lab, "w1", "ping -c1 -W2 w2")


def test_names_are_looked_at_before_anything_is_done(lab: Lab, kubewright: Kubewright) -> None:
    assert "no machine 'w9'" in kubewright("lab", "kill", FAULTS, "w1", "w9", code=ExitCode.USAGE).err
    kubewright("lab", "kill", "none-of-ours", "w1", code=ExitCode.USAGE)
    kubewright("lab", "kill", FAULTS, code=ExitCode.USAGE)
    assert states(kubewright)["w1"] == "running"


@pytest.mark.parametrize("command", ["start", "up"])
def test_what_is_frozen_and_cut_off_goes_on(lab: Lab, kubewright: Kubewright, command: str) -> None:
    kubewright("lab", "freeze", FAULTS, "w1")
    kubewright("lab", "partition", FAULTS, "w1", "w2")
    pids = [machine.pid() for machine in lab.machines]
    if command == "start":
        kubewright("lab", "start", FAULTS, "w1", "w2")
    else:
        kubewright("lab", "up", "--name", FAULTS, "--workers", "2", "--machines-only")
    assert set(states(kubewright).values()) == {"running"}
    assert [machine.pid() for machine in lab.machines] == pids
    on(lab, "w1", "ping -c1 -W2 w2")


def test_a_frozen_machine_can_be_killed(lab: Lab, kubewright: Kubewright) -> None:
    kubewright("lab", "freeze", FAULTS, "w1")
    kubewright("lab", "kill", FAULTS, "w1")
    assert not cgroups.members(FAULTS, "w1")
    kubewright("lab", "start", FAULTS, "w1")
    on(lab, "w1", "true")


async def test_down_removes_frozen_and_cut_off_machines(
    lab: Lab, kubewright: Kubewright, before: Leftovers
) -> None:
    kubewright("lab", "kill", FAULTS, "cp1")
    kubewright("lab", "freeze", FAULTS, "w1")
    kubewright("lab", "partition", FAULTS, "w1", "w2")
    run = kubewright("lab", "down", FAULTS)
    assert run.seconds < 20
    left = await before.found()
    assert not left, "\n".join(map(str, left))
    assert FAULTS not in [
        row["name"] for row in json.loads(kubewright("lab", "list", "-o", "json").out)["labs"]
    ]
