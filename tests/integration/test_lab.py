"""Labs of real machines: made, entered, found again after kills, and removed without a trace."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from cluster_fixtures import ON_MACHINES, Leftovers

from kubewright.errors import ExitCode, KubewrightError
from kubewright.events import Events, Kind
from kubewright.lab import cgroups
from kubewright.lab.lab import Lab, down, lab_names, up
from kubewright.lab.places import RUN, lab_lock
from kubewright.lab.proc import namespace_pids, read

pytestmark = ON_MACHINES

OURS = ("itlab-a", "itlab-b", "itlab-kill")


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "kubewright", "lab", *arguments]


def call(*arguments: str, stdin: str = "", code: int = 0) -> str:
    done = subprocess.run(command(*arguments), input=stdin, capture_output=True, text=True, timeout=120)
    assert done.returncode == code, f"{arguments}: {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
async def before() -> AsyncIterator[Leftovers]:
    for name in OURS:
        await down(name, events=Events())
    found = Leftovers(OURS)
    await found.begin()
    yield found
    for name in OURS:
        await down(name, events=Events())


@pytest.fixture(scope="module")
async def lab(before: Leftovers) -> Lab:
    return await up("itlab-a", control_planes=1, workers=1, events=Events())


async def test_a_machine_is_a_computer_of_its_own(lab: Lab) -> None:
    for machine in lab.machines:
        text = call("exec", lab.name, machine.name, "--", "sh", "-c",
                    "hostname; cat /proc/1/comm; systemctl is-system-running; cat /etc/machine-id")  # fmt: skip
        hostname, init, state, machine_id = text.split()
        assert (hostname, init) == (machine.name, "systemd")
        assert state == "running", call("exec", lab.name, machine.name, "--", "systemctl", "--failed")
        assert len(machine_id) == 32
        pid = machine.pid()
        assert pid is not None
        assert namespace_pids(pid)[1] == 1
    ids = {call("exec", lab.name, machine.name, "--", "cat", "/etc/machine-id") for machine in lab.machines}
    assert len(ids) == len(lab.machines)


async def test_machines_reach_each_other_by_name_and_nothing_else(lab: Lab) -> None:
    call("exec", lab.name, "cp1", "--", "ping", "-c1", "-W2", "w1")
    call("exec", lab.name, "w1", "--", "ping", "-c1", "-W2", str(lab.plan.computer_address))
    # An address without a way must be refused, not waited for.
    refused = call("exec", lab.name, "w1", "--", "ping", "-c1", "-W5", "192.0.2.77", code=1)
    assert "Unreachable" in refused
    # The kubelet of old asks a cloud's metadata service and must hear at once that there is none.
    text = call("exec", lab.name, "w1", "--", "ip", "route", "show", "169.254.169.254")
    assert text.startswith("unreachable")


async def test_a_machine_is_entered_by_ssh_with_its_host_key_checked(lab: Lab) -> None:
    assert call("ssh", lab.name, "w1", "hostname").strip() == "w1"
    modes = {path.name: oct(path.stat().st_mode & 0o777) for path in (lab.places.key, lab.places.directory)}
    assert modes == {"id_ed25519": "0o600", lab.name: "0o700"}
    right = lab.places.known_hosts.read_text()
    swapped = [line.split() for line in right.splitlines()]
    try:
        lab.places.known_hosts.write_text(
            f"{swapped[0][0]} {' '.join(swapped[1][1:])}\n{swapped[1][0]} {' '.join(swapped[0][1:])}\n"
        )
        call("ssh", lab.name, "w1", "true", code=255)
    finally:
        lab.places.known_hosts.write_text(right)


async def test_exec_passes_input_output_and_the_exit_code(lab: Lab) -> None:
    assert call("exec", lab.name, "w1", "--", "cat", stdin="to be passed on\n") == "to be passed on\n"
    call("exec", lab.name, "w1", "--", "sh", "-c", "exit 7", code=7)
    assert call("exec", lab.name, "w1", "--", "echo", "--", "-n", "a b") == "-- -n a b\n"
    call("exec", lab.name, "w9", "--", "true", code=int(ExitCode.USAGE))
    call("exec", "itlab-none", "w1", "--", "true", code=int(ExitCode.USAGE))


async def test_the_kubelets_way_is_free(lab: Lab) -> None:
    """Writable cgroups whose root is the machine's own, and settings that do not reach this computer."""
    here = Path("/proc/sys/vm/overcommit_memory").read_text()
    there = "1" if here.strip() != "1" else "0"
    script = """
        set -e
        for h in /sys/fs/cgroup/*/; do mkdir "$h/kubepods-try"; rmdir "$h/kubepods-try"; done
        test "$(cut -d: -f3 /proc/self/cgroup | sort -u | grep -v '^/init.scope$')" = /
        echo "$1" > /proc/sys/vm/overcommit_memory
        cat /proc/sys/vm/overcommit_memory
        sysctl --system > /dev/null
    """
    assert call("exec", lab.name, "w1", "--", "sh", "-c", script, "sh", there).strip() == there
    assert Path("/proc/sys/vm/overcommit_memory").read_text() == here
    text = call(
        "exec",
        lab.name,
        "w1",
        "--",
        "sh",
        "-c",
        "sysctl -n net.ipv4.ip_forward; stat -fc %T /var/lib/containerd",
    )
    assert text.split()[0] == "0", "a machine begins as a host that nobody has prepared for Kubernetes"
    assert text.split()[1] != "overlayfs"


async def test_up_again_changes_nothing(lab: Lab) -> None:
    seen: list[str] = []
    pids = [machine.pid() for machine in lab.machines]
    files = {path: path.stat().st_mtime_ns for path in lab.places.directory.iterdir() if path.is_file()}
    await up(lab.name, control_planes=1, workers=1,
             events=Events(lambda event: seen.append(event.kind) if event.name else None))  # fmt: skip
    assert Kind.PHASE_DONE not in seen
    assert pids == [machine.pid() for machine in lab.machines]
    assert files == {
        path: path.stat().st_mtime_ns for path in lab.places.directory.iterdir() if path.is_file()
    }


async def test_a_machine_that_was_killed_starts_again_with_its_disk(lab: Lab) -> None:
    call("exec", lab.name, "w1", "--", "sh", "-c", "echo kept > /root/mark; sync")
    call("exec", lab.name, "w1", "--", "sh", "-c", "echo kept > /var/lib/containerd/mark")
    other = lab.machine("cp1").pid()
    assert cgroups.kill(lab.name, "w1")
    await up(lab.name, control_planes=1, workers=1, events=Events())
    marks = call("exec", lab.name, "w1", "--", "cat", "/root/mark", "/var/lib/containerd/mark")
    assert marks.split() == ["kept", "kept"]
    assert call("ssh", lab.name, "w1", "hostname").strip() == "w1"
    assert lab.machine("cp1").pid() == other


async def test_a_machine_can_be_rebooted_from_inside(lab: Lab) -> None:
    boot_id = call("exec", lab.name, "w1", "--", "cat", "/proc/sys/kernel/random/boot_id")
    call("exec", lab.name, "w1", "--", "systemctl", "reboot")
    machine = lab.machine("w1")
    for _ in range(100):
        await asyncio.sleep(0.1)
        pid = machine.pid()
        if pid and read(f"/proc/{pid}/root/proc/sys/kernel/random/boot_id") not in ("", boot_id):
            break
    await machine.ready()
    assert call("exec", lab.name, "w1", "--", "cat", "/proc/sys/kernel/random/boot_id") != boot_id
    call("exec", lab.name, "w1", "--", "ping", "-c1", "-W2", "cp1")


async def test_counts_are_changed_with_the_machines_that_stay_untouched(lab: Lab) -> None:
    pids = [machine.pid() for machine in lab.machines]
    more = await up(lab.name, control_planes=1, workers=2, events=Events())
    assert [machine.pid() for machine in more.machines[:2]] == pids
    call("exec", lab.name, "w1", "--", "ping", "-c1", "-W2", "w2")
    assert "w2" in more.places.cluster_yaml.read_text()
    less = await up(lab.name, control_planes=1, workers=1, events=Events())
    assert [machine.pid() for machine in less.machines] == pids
    assert not (less.places.machines / "w2").exists()
    assert not cgroups.members(lab.name, "w2")
    assert "w2" not in less.places.cluster_yaml.read_text()


async def test_a_lab_beside_it_has_a_subnet_of_its_own(lab: Lab) -> None:
    other = await up("itlab-b", control_planes=1, workers=0, events=Events())
    assert not other.plan.subnet.overlaps(lab.plan.subnet)
    call("exec", "itlab-b", "cp1", "--", "ping", "-c1", "-W2", str(lab.plan.machines[0].address), code=1)
    rows = {row["name"]: row for row in json.loads(call("list", "-o", "json"))["labs"]}
    assert [machine["name"] for machine in rows[lab.name]["machines"]] == ["cp1", "w1"]
    assert all(machine["pid"] for name in ("itlab-a", "itlab-b") for machine in rows[name]["machines"])
    await down("itlab-b", events=Events())
    assert call("ssh", lab.name, "w1", "hostname").strip() == "w1"


async def test_one_process_at_a_time_changes_a_lab(lab: Lab) -> None:
    async with lab_lock(lab.name):
        with pytest.raises(KubewrightError, match=str(os.getpid())) as caught:
            await up(lab.name, control_planes=1, workers=1, events=Events())
    assert caught.value.exit_code == ExitCode.BUSY


async def test_nothing_is_left_of_a_lab(lab: Lab, before: Leftovers) -> None:
    assert await down(lab.name, events=Events())
    assert not await down(lab.name, events=Events()), "a second down finds nothing"
    left = await before.found()
    assert not left, "\n".join(map(str, left))
    assert not (RUN / f"{lab.name}.lock").exists()


async def test_a_lab_whose_plan_is_damaged_can_be_removed(before: Leftovers) -> None:
    made = await up("itlab-b", control_planes=1, workers=0, events=Events())
    made.places.plan.write_text("{")
    with pytest.raises(KubewrightError, match="damaged") as caught:
        await up("itlab-b", control_planes=1, workers=0, events=Events())
    assert "lab down" in caught.value.hint
    assert "itlab-b" in call("list")
    assert await down("itlab-b", events=Events())
    left = await before.found()
    assert not left, "\n".join(map(str, left))


def moments() -> Iterator[float]:
    """In seconds: from the choice of the subnet to machines that boot."""
    yield from (0.15, 0.25, 0.3, 0.35, 0.4, 0.45, 0.5, 0.6, 0.8, 1.1)


def kill_at(moment: float, *arguments: str) -> bool:
    """Start a command and kill it after `moment` seconds; whether it was still running."""
    process = subprocess.Popen(command(*arguments), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        process.wait(moment)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        return True
    return False


async def test_a_killed_run_is_finished_by_the_next(before: Leftovers) -> None:
    name = "itlab-kill"
    killed = 0
    for number, moment in enumerate(moments()):
        killed += kill_at(moment, "up", "--name", name, "--machines-only", "--workers", "1")
        if number % 2:
            made = await up(name, control_planes=1, workers=1, events=Events())
            for machine in made.machines:
                assert call("ssh", name, machine.name, "hostname").strip() == machine.name
            kill_at(0.2 + 0.03 * number, "down", name)
        await down(name, events=Events())
        assert name not in lab_names()
    assert killed >= 5, "the moments are too late to kill anything"
    left = await before.found()
    assert not left, "\n".join(map(str, left))
