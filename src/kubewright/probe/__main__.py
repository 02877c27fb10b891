"""`python3 -m kubewright.probe serve|run`."""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from kubewright.probe.checks import KINDS, Check, Failed
from kubewright.probe.serve import server

TIMEOUT = 2.0
PAUSE = 0.1
"""Seconds between two tries."""
AT_ONCE = 64


def perform(check: Check) -> dict[str, Any]:
    """Try one check until it succeeds or its time is over; its result."""
    began = time.monotonic()
    timeout = float(check.get("timeout", TIMEOUT))
    deadline, tries, last = began + timeout, 0, ""
    most = int(check.get("tries", 0))
    result: dict[str, Any] = {"id": check.get("id"), "ok": False}
    try:
        work = KINDS[check["kind"]]
        while True:
            tries += 1
            try:
                # A lost packet must not use up all the time: a try ends before, and another begins.
                result["detail"], answer = work(
                    check, min(deadline, time.monotonic() + max(timeout / 2, 0.5))
                )
                result["ok"] = True
                if answer:
                    result["answer"] = answer
                break
            except Failed as failed:
                last = last if str(failed) == "out of time" and last else str(failed)
                if tries == most or time.monotonic() + PAUSE >= deadline:
                    result["detail"] = last
                    break
                time.sleep(PAUSE)
        if tries > 1:
            result["detail"] += f" ({tries} tries)"
    except (KeyError, TypeError, ValueError) as error:
        reason = f"no or unknown {error}" if isinstance(error, KeyError) else str(error)
        result["detail"] = f"the check itself is wrong: {reason}"
    result["seconds"], result["tries"] = round(time.monotonic() - began, 4), tries
    return result


def run(line: str) -> list[dict[str, Any]]:
    """All checks of a line at once; their results in its order. Raises `ValueError` for anything else."""
    checks = json.loads(line)
    if not isinstance(checks, list) or not all(isinstance(check, dict) for check in checks):
        raise ValueError("standard input: one line with a JSON list of checks is wanted")
    with ThreadPoolExecutor(min(AT_ONCE, len(checks) or 1)) as pool:
        return list(pool.map(perform, checks))


def main(argv: Sequence[str] | None = None) -> int:
    """`serve` or `run`; the exit code. Failed checks are results, not a failure of this program."""
    parser = argparse.ArgumentParser(prog="kubewright.probe", description="Checks a cluster from within.")
    commands = parser.add_subparsers(dest="command", required=True)
    serving = commands.add_parser("serve", help="answer HTTP with this pod's name and node")
    serving.add_argument("--port", type=int, default=8080)
    serving.add_argument("--host", default="0.0.0.0")  # noqa: S104 - it is there to be reached
    commands.add_parser("run", help="read checks from standard input and write results")
    given = parser.parse_args(argv)
    try:
        if given.command == "run":
            print(json.dumps(run(sys.stdin.readline()), separators=(",", ":")), flush=True)
            return 0
        # As process 1 of a container there is no default action for a signal.
        for signum in (signal.SIGTERM, signal.SIGINT):
            signal.signal(signum, lambda *_: os._exit(0))
        server(given.host, given.port).serve_forever()
    except (OSError, ValueError) as error:
        print(f"kubewright.probe: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
