"""Three control planes and two workers: Kubewright against real kubeadm, in turn, on fresh machines.

    .venv/bin/python -m bench.ha [PAIRS]

Before the clock starts, both sides find the same on their machines: containerd configured, the kubelet, its unit
and all images there. kubeadm also finds its load balancer (haproxy on a machine of its own) running, while
Kubewright sets up its own, on the same machine, within its time. kubeadm is scripted as its guide says: `init`,
the other control planes one after the other, then all workers at once; its clock runs only while kubeadm runs.
Kubewright's clock runs from the start of the process `kubewright apply` to the end of the last phase that does
what `kubeadm init` or `join` does; the whole of `apply`, which also waits for the pod network, DNS and all nodes
being Ready, is printed apart.

Then both grow a cluster of one control plane to three, in front of a probe that begins ten reads and ten writes a
second through the load balancer, each on a connection of its own, and as many on one that is kept: how many fail,
and for how long nothing is answered.
"""

from __future__ import annotations

import asyncio
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Collection, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

import yaml
from tools import kubeadm_hosts
from tools.ha_probe import Book, Load

from bench.ha_kubeadm import open_script
from bench.kubeadm import INIT, JOIN
from kubewright.events import Events
from kubewright.lab import lab
from kubewright.model.config.cluster import ClusterSpec
from kubewright.model.config.load import load_cluster

LAB = "bench-ha"
PLANES, WORKERS, BALANCER = ("cp1", "cp2", "cp3"), ("w1", "w2"), "w3"


@dataclass
class Times:
    """Seconds of one run of one side. `parts` are kubeadm's commands; `whole` is all of `apply`."""

    cluster: float
    parts: tuple[float, ...] = ()
    whole: float = 0.0


def description(names: Collection[str]) -> Path:
    """A cluster.yaml with these nodes, and haproxy on the machine for it."""
    places = lab.open_lab(LAB).places
    document = yaml.safe_load(places.cluster_yaml.read_text())
    hosts = [host for host in document["hosts"] if host["name"] in names]
    hosts += [host | {"roles": ["load-balancer"]} for host in document["hosts"] if host["name"] == BALANCER]
    file = places.directory / f"{len(hosts)}.yaml"
    file.write_text(yaml.safe_dump(document | {"endpoint": {"type": "haproxy"}, "hosts": hosts}))
    return file


async def machines(workers: Sequence[str]) -> ClusterSpec:
    """Fresh machines, prepared alike for both sides: control planes, these workers and the load balancer's."""
    events = Events()
    await lab.down(LAB, events=events)
    await lab.up(LAB, control_planes=len(PLANES), workers=len(WORKERS) + 1, events=events)
    spec = load_cluster(description([*PLANES, *workers]))
    nodes = spec.model_copy(update={"hosts": spec.nodes, "endpoint": None})
    await kubeadm_hosts.prepare(nodes, control_planes=PLANES)
    os.sync()  # what was copied is written now, not while the clock runs: the machines' disks are this computer's
    return spec


# -- a cluster from nothing -----------------------------------------------------------------------------------


async def kubeadm_cluster() -> Times:
    """Real kubeadm."""
    spec = await machines(WORKERS)
    async with AsyncExitStack() as stack:
        script = await open_script(spec, BALANCER, stack)
        await script.place_balancer()
        parts = (await script.init(), await script.join_control_planes(), await script.join_workers())
    return Times(sum(parts), parts)


async def kubewright_cluster() -> Times:
    """Kubewright."""
    await machines(WORKERS)
    return await timed_apply([*PLANES, *WORKERS])


async def timed_apply(names: Collection[str]) -> Times:
    """Run `apply` for these nodes."""
    started = time.time()
    config = lab.open_lab(LAB).places.kubeconfig
    process = await asyncio.create_subprocess_exec(
        str(Path(sys.executable).parent / "kubewright"), "apply", "-f", str(description(names)), "--no-merge",
        "--kubeconfig", str(config), "-o", "json",
        stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    out, _ = await process.communicate()
    whole = time.time() - started
    ended = [
        event["at"]
        for event in map(json.loads, out.splitlines())
        if event.get("name") in INIT | JOIN and event["kind"] in ("phase.done", "phase.skipped")
    ]
    if process.returncode or not ended:
        raise SystemExit(f"kubewright apply failed:\n{out.decode()[-2000:]}")
    return Times(max(ended) - started, whole=whole)


# -- one control plane grows to three -------------------------------------------------------------------------


async def kubeadm_growth(directory: Path) -> Book:
    """Real kubeadm: what the probe sees while the second and third control plane join."""
    spec = await machines(())
    async with AsyncExitStack() as stack:
        script = await open_script(spec, BALANCER, stack)
        await script.place_balancer()
        await script.init()
        config = directory / "admin.conf"
        config.write_bytes(await script.control_planes[0].read_file("/etc/kubernetes/admin.conf") or b"")
        load = probe(config, directory)
        try:
            await script.join_control_planes()
            return load.stop()
        finally:
            load.kill()


async def kubewright_growth(directory: Path) -> Book:
    """Kubewright: the same while `apply` makes one control plane three."""
    await machines(())
    await timed_apply(PLANES[:1])
    load = probe(lab.open_lab(LAB).places.kubeconfig, directory)
    try:
        await timed_apply(PLANES)
        return load.stop()
    finally:
        load.kill()


def probe(config: Path, directory: Path) -> Load:
    """Begin to ask through the load balancer, which is what the kubeconfig names, or is put in its place."""
    balancer = lab.open_lab(LAB).machine(BALANCER).plan.address
    load = Load("probe", config, directory / "probe.json", server=f"https://{balancer}:6443").started()
    time.sleep(2)
    return load


# -- both -----------------------------------------------------------------------------------------------------


def report(
    kubeadm: Sequence[Times], kubewright: Sequence[Times], growth: Sequence[tuple[Book, Book]]
) -> None:
    """The tables, and the ratio of the medians."""
    print("three control planes and two workers, machines booted, images there")
    print(f"{'pair':<8}{'kubeadm':>10}{'init':>8}{'planes':>8}{'workers':>9}", end="")
    print(f"{'kubewright':>13}{'ratio':>7}{'whole apply':>13}")
    for number, (a, b) in enumerate(zip(kubeadm, kubewright, strict=True), 1):
        init, planes, workers = a.parts
        print(f"{number:<8}{a.cluster:>8.1f} s{init:>6.1f} s{planes:>6.1f} s{workers:>7.1f} s", end="")
        print(f"{b.cluster:>11.1f} s{b.cluster / a.cluster:>7.2f}{b.whole:>11.1f} s")
    a_median = statistics.median(times.cluster for times in kubeadm)
    b_median = statistics.median(times.cluster for times in kubewright)
    print(f"{'median':<8}{a_median:>8.1f} s{b_median:>42.1f} s{b_median / a_median:>7.2f}")
    print("\nthe API through the load balancer while one control plane grows to three")
    print(
        f"{'pair':<8}{'kubeadm: failed':>18}{'longest gap':>13}{'kubewright: failed':>21}{'longest gap':>13}"
    )
    for number, (theirs, ours) in enumerate(growth, 1):
        print(
            f"{number:<8}{counted(theirs):>18}{theirs.gap():>11.1f} s{counted(ours):>21}{ours.gap():>11.1f} s"
        )


def counted(book: Book) -> str:
    """How many requests failed, of how many."""
    failed = len(book.failures)
    return f"{failed} of {failed + sum(stream.answered for stream in book.streams.values())}"


async def main(pairs: int) -> None:
    """Alternate which side goes first, so that neither has the warmer caches."""
    kubeadm: list[Times] = []
    kubewright: list[Times] = []
    growth: list[tuple[Book, Book]] = []
    try:
        with tempfile.TemporaryDirectory(prefix="kubewright-bench-") as directory:
            for pair in range(pairs):
                sides = [(kubeadm, kubeadm_cluster), (kubewright, kubewright_cluster)]
                for times, run in sides if pair % 2 == 0 else reversed(sides):
                    times.append(await run())
                print(f"pair {pair + 1} of {pairs}: {kubeadm[-1]} {kubewright[-1]}", file=sys.stderr)
                theirs = await kubeadm_growth(Path(directory))
                ours = await kubewright_growth(Path(directory))
                growth.append((theirs, ours))
                print(f"kubeadm grows: {theirs}\nkubewright grows: {ours}", file=sys.stderr)
    finally:
        await lab.down(LAB, events=Events())
    report(kubeadm, kubewright, growth)


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else 3))
