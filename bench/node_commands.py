"""How long node commands that only ask take on a running cluster: wall time in milliseconds, over several runs.

    .venv/bin/python -m bench.node_commands [--runs 15] [--lab NAME]

The aim is 500 ms each. Without --lab a cluster of one machine is made, and removed at the end. `--host` goes over
SSH, login included; `--kubeconfig` is the API alone, as on the node itself.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.startup import milliseconds
from kubewright.lab.lab import Lab, open_lab

PROGRAM = shutil.which("kubewright", path=str(Path(sys.executable).parent)) or "kubewright"
OWN = "bench-node"


@contextmanager
def lab_of(name: str) -> Iterator[Lab]:
    """The lab of that name, or one of our own for as long as the context lasts."""
    if name:
        yield open_lab(name)
        return
    subprocess.run(
        [PROGRAM, "lab", "up", "--name", OWN, "--workers", "0"], check=True, stdout=subprocess.DEVNULL
    )
    try:
        yield open_lab(OWN)
    finally:
        subprocess.run([PROGRAM, "lab", "down", OWN], check=True, stdout=subprocess.DEVNULL)


def commands(lab: Lab) -> dict[str, list[str]]:
    """What is measured, by a name for the table."""
    over_ssh = [
        "--host", f"root@{lab.machines[0].plan.address}", "--ssh-key", str(lab.places.key),
        "--ssh-known-hosts", str(lab.places.known_hosts),
    ]  # fmt: skip
    return {
        "token list --kubeconfig": ["token", "list", "--kubeconfig", str(lab.places.kubeconfig)],
        "token list --host": ["token", "list", *over_ssh],
        "certs check-expiration --host": ["certs", "check-expiration", *over_ssh],
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="Measure node commands on a running cluster.")
    parser.add_argument("--runs", type=int, default=15)
    parser.add_argument("--lab", default="")
    arguments = parser.parse_args()
    with lab_of(arguments.lab) as lab:
        print(f"{'kubewright':<32}{'median':>9}{'fastest':>9}{'slowest':>9}   ms, {arguments.runs} runs")
        for name, words in commands(lab).items():
            command = [PROGRAM, *words]
            milliseconds(command)  # the first run writes byte code and warms the page cache
            times = sorted(milliseconds(command) for _ in range(arguments.runs))
            print(f"{name:<32}{statistics.median(times):>9.0f}{times[0]:>9.0f}{times[-1]:>9.0f}")


if __name__ == "__main__":
    main()
