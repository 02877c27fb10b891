"""How long the command line takes to start: wall time in milliseconds, over several runs.

    python bench/startup.py [--runs 15]

The aim is 150 ms for `version` and 250 ms for `--help`, on 2 cores with a warm page cache.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path

COMMANDS = (("version",), ("--help",), ("lab", "--help"), ("status", "--help"), ("check", "--help"))


def milliseconds(command: list[str]) -> float:
    """The wall time of one run."""
    began = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return (time.perf_counter() - began) * 1000


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="Measure start-up times.")
    parser.add_argument("--runs", type=int, default=15)
    runs = parser.parse_args().runs
    program = shutil.which("kubewright", path=str(Path(sys.executable).parent)) or "kubewright"
    print(f"{'command':<28}{'median':>9}{'fastest':>9}{'slowest':>9}   ms, {runs} runs")
    for words in COMMANDS:
        command = [program, *words]
        milliseconds(command)  # the first run writes byte code and warms the page cache
        times = sorted(milliseconds(command) for _ in range(runs))
        name = " ".join(["kubewright", *words])
        print(f"{name:<28}{statistics.median(times):>9.0f}{times[0]:>9.0f}{times[-1]:>9.0f}")


if __name__ == "__main__":
    main()
