"""How long `doctor` takes on ten nodes: all up, and with one host dead and one frozen.

    .venv/bin/python -m bench.doctor [RUNS]

Three control planes and seven workers of the lab. The aim is 15 s with everything up, and 30 s with the two away.
kubeadm has no command to compare it with.
"""

from __future__ import annotations

import asyncio
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from kubewright.events import Events
from kubewright.lab import faults, lab

LAB = "bench-doctor"
PLANES, WORKERS = 3, 7
DEAD, FROZEN = "w7", "w6"


def doctor() -> tuple[float, list[str]]:
    """Seconds of one run, and what it found."""
    program = Path(sys.executable).parent / "kubewright"
    file = lab.open_lab(LAB).places.cluster_yaml
    began = time.perf_counter()
    done = subprocess.run(
        [program, "doctor", "-f", file, "-o", "json"],
        stdout=subprocess.PIPE, stdin=subprocess.DEVNULL, check=False,
    )  # fmt: skip
    seconds = time.perf_counter() - began
    found = json.loads(done.stdout)["findings"]
    return seconds, [f"{one['kind']} ({', '.join(one['hosts'])})" for one in found]


def measure(title: str, runs: int, aim: float, run: Callable[[], tuple[float, list[str]]]) -> None:
    """Print the times of some runs, and what they found."""
    times, found = zip(*(run() for _ in range(runs)), strict=True)
    said = sorted({"; ".join(one) or "nothing" for one in found})
    print(
        f"{title:<28}{statistics.median(times):>9.1f} s{max(times):>9.1f} s{aim:>8.0f} s   {' | '.join(said)}"
    )


def main(runs: int) -> None:
    """Make the cluster, measure, and take it down."""
    events = Events()
    asyncio.run(lab.down(LAB, events=events))
    try:
        program = Path(sys.executable).parent / "kubewright"
        words = ["lab", "up", "--name", LAB, "--control-planes", str(PLANES), "--workers", str(WORKERS)]
        subprocess.run([program, *words, "--no-merge"], check=True, stdout=subprocess.DEVNULL)
        print(f"{'ten nodes':<28}{'median':>11}{'slowest':>11}{'aim':>10}   found, {runs} runs")
        measure("all up, just made", runs, 15, doctor)
        asyncio.run(faults.kill(LAB, [DEAD], events))
        asyncio.run(faults.freeze(LAB, [FROZEN], events))
        measure("one dead, one frozen", runs, 30, doctor)
        time.sleep(60)  # the controllers give up on the two nodes, and move their Pods
        measure("the same, a minute later", runs, 30, doctor)
    finally:
        asyncio.run(lab.down(LAB, events=events))


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 5)
