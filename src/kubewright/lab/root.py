"""The Debian root that all machines share, read only: made once, kept in the cache by what it is made of."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kubewright.components.apt import Apt
from kubewright.components.cache import Cache
from kubewright.events import Events
from kubewright.lab.proc import run

KIND = "machine-root"

# What a small Debian server has, the programs that Kubernetes expects of a host, and load balancers.
PACKAGES = (
    "ca-certificates",
    "conntrack",
    "containerd",
    "containernetworking-plugins",
    "curl",
    "dbus",
    "ebtables",
    "ethtool",
    "haproxy",
    "iproute2",
    "ipset",
    "iptables",
    "iputils-ping",
    "keepalived",
    "kmod",
    "less",
    "libnginx-mod-stream",
    "mount",
    "nftables",
    "nginx",
    "openssh-server",
    "openssl",
    "procps",
    "runc",
    "socat",
    "systemd",
    "systemd-sysv",
    "util-linux",
    "zstd",
)

# A machine without an endpoint has no use for them, and nginx would take port 80.
_NOT_STARTED = ("haproxy.service", "keepalived.service", "nginx.service")


async def machine_root(events: Events, cache: Cache | None = None) -> Path:
    """The root's directory, made where the cache has none for today's packages. Raises `ComponentError`."""
    cache = cache or Cache()
    apt = Apt(cache)
    async with events.phase("machine-root", "Debian root for the machines") as phase:
        versions = await apt.resolve(
            PACKAGES, variant="minbase", enough=lambda found: cache.has(KIND, _inputs(found)), activity=phase
        )
        made = False

        async def build(target: Path) -> Mapping[str, Any]:
            nonlocal made
            made = True
            root = target / "root"
            await apt.make_root(PACKAGES, versions, root, variant="minbase", activity=phase)
            await asyncio.to_thread(_strip, root)
            await asyncio.to_thread(_leave_out, root)
            _, out, _ = await run(["du", "--summarize", "--bytes", str(root)], timeout=60)
            return {"bytes": int(out.split()[0])}

        entry = await cache.entry(KIND, _inputs(versions), build, waiting=phase.progress)
        size = f"{entry.info.get('bytes', 0) / 1e6:.0f} MB"
        phase.data.update(entry.info)
        if made:
            phase.summary(f"Debian root for the machines made: {size}")
        else:
            phase.skip(f"Debian root for the machines is in the cache: {size}")
    return entry.path / "root"


def _inputs(versions: Mapping[str, str]) -> dict[str, Any]:
    return {"packages": dict(versions), "recipe": 3}


def _strip(root: Path) -> None:
    """Remove what must not be the same on two machines, and what they have no use for."""
    for pattern in ("etc/ssh/ssh_host_*", "etc/machine-id", "var/lib/dbus/machine-id", "var/lib/apt/lists/*_*",
                    "var/cache/apt/archives/*.deb", "var/log/*.log", "var/log/apt/*"):  # fmt: skip
        for path in root.glob(pattern):
            if not path.is_dir():
                path.unlink()


def _leave_out(root: Path) -> None:
    """Start none of `_NOT_STARTED`. A machine boots without an id, so that systemd goes by its presets and would
    enable all of them again (systemd.preset(5))."""
    units = root / "etc/systemd/system"
    for wants in units.glob("*.wants"):
        for unit in _NOT_STARTED:
            (wants / unit).unlink(missing_ok=True)
    preset = root / "etc/systemd/system-preset/50-kubewright.preset"
    preset.parent.mkdir(parents=True, exist_ok=True)
    preset.write_text("".join(f"disable {unit}\n" for unit in _NOT_STARTED))
