"""How fast a file travels to a host over SSH: `python -m bench.ssh_upload`, as root, against a real local sshd.

It prints MiB/s for each cipher into a command that throws the data away, then for a whole upload with its
checksum. Both ends share this computer's processors.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "tests" / "integration"))

from ssh_fixtures import Sshd, World

from kubewright.hosts import ssh_login
from kubewright.hosts.ssh import SshHost

SIZE = 200
ROUNDS = 3


async def measure(sshd: Sshd, folder: Path, data: Path, digest: str) -> None:
    """Print the best of some rounds for each way to send."""

    def host() -> SshHost:
        return SshHost(
            "bench",
            "127.0.0.1",
            port=sshd.port,
            user="root",
            key_files=[sshd.key],
            known_hosts=sshd.known_hosts,
        )

    ciphers = ssh_login.CIPHERS
    for cipher in ciphers:
        ssh_login.CIPHERS = (cipher,)
        async with host() as target:
            await target.run(["true"])
            best, cpu = float("inf"), 0.0
            for _ in range(ROUNDS):
                wall, used = time.monotonic(), time.process_time()
                await target.run_with_file(["sh", "-c", "cat >/dev/null"], data)
                if time.monotonic() - wall < best:
                    best, cpu = time.monotonic() - wall, time.process_time() - used
        print(f"{cipher:32} {SIZE / best:6.0f} MiB/s, {cpu / SIZE * 1000:.1f} ms of our CPU time a MiB")
    ssh_login.CIPHERS = ciphers
    async with host() as target:
        await target.run(["true"])
        best = float("inf")
        for _ in range(ROUNDS):
            wall = time.monotonic()
            await target.upload(data, str(folder / "there"), sha256=digest)
            best = min(best, time.monotonic() - wall)
        print(f"{'upload with checksum and sync':32} {SIZE / best:6.0f} MiB/s")
        wall = time.monotonic()
        for _ in range(50):
            await target.run(["true"])
        print(f"{'a command':32} {(time.monotonic() - wall) / 50 * 1000:6.1f} ms")


def main() -> None:
    """Make the sshd and the file, and measure."""
    with tempfile.TemporaryDirectory(prefix="kubewright-bench-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        data = folder / "data"
        block = os.urandom(1 << 20)
        data.write_bytes(block * SIZE)
        with Sshd(World(folder / "world"), folder / "sshd") as sshd:
            asyncio.run(measure(sshd, folder, data, hashlib.sha256(data.read_bytes()).hexdigest()))


if __name__ == "__main__":
    main()
