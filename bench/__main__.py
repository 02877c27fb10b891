"""`make bench`: every benchmark in turn. Each is a module of its own, `.venv/bin/python -m bench.NAME`."""

from __future__ import annotations

import subprocess
import sys

BENCHMARKS = ("startup", "dns_qps", "ssh_upload", "node_commands", "doctor", "kubeadm", "ha")


def main() -> None:
    """Run them; the exit code is that of the first that failed."""
    failed = 0
    for name in BENCHMARKS:
        print(f"== {name}", flush=True)
        failed = subprocess.run([sys.executable, "-m", f"bench.{name}"], check=False).returncode or failed
    sys.exit(failed)


if __name__ == "__main__":
    main()
