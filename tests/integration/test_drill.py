"""Killed with SIGKILL at any moment, `apply` is finished by the next run."""

from __future__ import annotations

import json
import random
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from cluster_fixtures import DRILL, ON_MACHINES, TEN, Kubewright, check_is_green

from kubewright.lab.lab import Lab, open_lab

pytestmark = ON_MACHINES

MOMENTS = 20


@pytest.fixture(autouse=True)
def no_labs(kubewright: Kubewright) -> Iterator[None]:
    """Nothing stays of a drill, however it ends."""
    yield
    for name in (DRILL, TEN):
        kubewright("lab", "down", name, code=None)


def fresh_machines(kubewright: Kubewright, *, workers: int) -> Lab:
    """Machines on which nothing has been done yet."""
    kubewright("lab", "down", DRILL)
    kubewright("lab", "up", "--name", DRILL, "--workers", str(workers), "--machines-only")
    return open_lab(DRILL)


def killed(process: subprocess.Popen[str]) -> bool:
    """Kill it; whether it was still running."""
    running = process.poll() is None
    process.kill()
    process.wait()
    return running


def finished(kubewright: Kubewright, lab: Lab, nodes: int) -> float:
    """Run `apply` again: it completes, nothing is left to do, and the cluster works. The seconds it took."""
    again = kubewright("apply", "-f", lab.places.cluster_yaml)
    assert kubewright("plan", "-f", lab.places.cluster_yaml, "-o", "json").document["changes"] == []
    check_is_green(kubewright, lab, nodes)
    return again.seconds


# -- moments, by what is going on ---------------------------------------------------------------------------

EVENTS: dict[str, Callable[[dict[str, Any]], bool]] = {
    "early": lambda event: event.get("name") == "images",
    "middle": lambda event: event.get("name") == "join" and event.get("message") == "start the kubelet",
    "late": lambda event: event.get("name") == "rollout",
}


@pytest.mark.parametrize(
    ("moment", "workers"),
    [
        pytest.param("early", 0, marks=pytest.mark.soak),
        pytest.param("middle", 1, marks=pytest.mark.soak),
        ("late", 1),
    ],
)
def test_a_killed_apply_is_finished_by_the_next(kubewright: Kubewright, moment: str, workers: int) -> None:
    lab = fresh_machines(kubewright, workers=workers)
    process = kubewright.start("apply", "-f", lab.places.cluster_yaml, "-o", "json")
    assert process.stdout is not None
    with process.stdout as stream:
        for line in stream:
            if EVENTS[moment](json.loads(line)):
                break
        time.sleep(random.uniform(0, 0.5))
        assert killed(process), f"it ended before {moment}"
    finished(kubewright, lab, nodes=1 + workers)


# -- twenty moments, by the clock ---------------------------------------------------------------------------------


@pytest.mark.soak
def test_apply_is_killed_across_its_whole_length(kubewright: Kubewright, tmp_path: Path) -> None:
    lab = fresh_machines(kubewright, workers=2)
    whole = kubewright("apply", "-f", lab.places.cluster_yaml).seconds
    print(f"\nan apply that nobody kills: {whole:.1f} s")
    rows = []
    for number in range(MOMENTS):
        moment = (number + random.random()) / MOMENTS * whole
        while True:
            lab = fresh_machines(kubewright, workers=2)
            seen = kill_at(kubewright, lab, moment, tmp_path / f"events-{number}")
            if seen is not None:
                break
            moment *= 0.95  # this run was faster than the one that was measured
        seconds = finished(kubewright, lab, nodes=3)
        rows.append(seconds)
        print(
            f"{number + 1:2}. killed after {moment:5.1f} s, {seen}; the next run took {seconds:.1f} s: green"
        )
    print(f"{len(rows)} moments; next runs took {min(rows):.1f} to {max(rows):.1f} s")


def kill_at(kubewright: Kubewright, lab: Lab, moment: float, file: Path) -> str | None:
    """Start `apply`, kill it after `moment` seconds; the phases it was in, or None where it had ended by then."""
    with file.open("w") as out:
        process = kubewright.start("apply", "-f", lab.places.cluster_yaml, "-o", "json", out=out)
        time.sleep(moment)
        running = killed(process)
    if not running:
        return None
    under_way: dict[str, None] = {}
    for line in file.read_text().splitlines():
        try:
            event = json.loads(line)
        except ValueError:
            break  # killed while it wrote
        place = f"{event.get('name', '')} {event.get('host', '')}".strip()
        if event["kind"] == "phase.started":
            under_way[place] = None
        elif event["kind"] in ("phase.done", "phase.skipped"):
            under_way.pop(place, None)
    return f"in {', '.join(under_way) or 'no phase'}"


# -- ten nodes ----------------------------------------------------------------------------------------------------


@pytest.mark.soak
def test_ten_nodes(kubewright: Kubewright) -> None:
    """What each node beyond three costs, measured; the cluster of ten works."""
    kubewright("lab", "down", TEN)
    three = kubewright("lab", "up", "--name", TEN, "--workers", "2").seconds
    kubewright("lab", "down", TEN)
    ten = kubewright("lab", "up", "--name", TEN, "--workers", "9", timeout=900).seconds
    each = (ten - three) / 7
    print(f"\n3 nodes: {three:.1f} s, 10 nodes: {ten:.1f} s: {each:.2f} s for each node beyond three")
    lab = open_lab(TEN)
    document = check_is_green(kubewright, lab, nodes=10)
    print(f"{document['checks']} checks passed")
    assert kubewright("plan", "-f", lab.places.cluster_yaml, "-o", "json").document["changes"] == []
