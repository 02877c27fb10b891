"""`init` and a worker's join: Kubewright against real kubeadm, in turn, on fresh machines with the same binaries.

    .venv/bin/python -m bench.kubeadm [PAIRS]

Before the clock starts, both sides find the same on their machines: containerd configured, the kubelet, its unit
and all images there. kubeadm's preflight is skipped (its runtime checks need crictl, which Debian has not), which
is in its favour. Its clock runs from the start of `kubeadm init` on the machine to its end, and for the join
likewise, when its controller manager has signed cluster-info. Kubewright's clock runs from the start of the
process `kubewright apply` on this computer, imports, SSH and preflight included, to the end of the last phase that
does what `kubeadm init` (or `join`) does. The whole of `apply`, which also waits for the pod network, DNS and all
nodes being Ready, is printed apart.
"""

from __future__ import annotations

import asyncio
import json
import os
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml
from tools import kubeadm_hosts

from kubewright.components.open import open_source
from kubewright.events import Events
from kubewright.lab import lab
from kubewright.model import kubelet
from kubewright.model.config.cluster import ClusterSpec
from kubewright.model.config.load import load_cluster
from kubewright.model.objects import to_yaml
from kubewright.phases.node import Node
from kubewright.workflows.desired import Desired
from kubewright.workflows.fleet import open_fleet

LAB = "bench"
# What ends last of the phases that stand for `kubeadm init` and `kubeadm join`.
INIT = {"wait-control-plane", "controllers", "upload-config", "kube-proxy", "mark-node"}
JOIN = {"join", "mark-node"}


@dataclass
class Times:
    """Seconds of one run of one side."""

    init: float
    join: float
    whole: float = 0.0


async def machines() -> ClusterSpec:
    """Fresh machines, prepared alike for both sides."""
    events = Events()
    await lab.down(LAB, events=events)
    made = await lab.up(LAB, control_planes=1, workers=1, events=events)
    spec = load_cluster(made.places.cluster_yaml)
    await kubeadm_hosts.prepare(spec, control_planes=[spec.hosts[0].name])
    os.sync()  # what was copied is written now, not while the clock runs: the machines' disks are this computer's
    return spec


async def kubeadm_run() -> Times:
    """Real kubeadm."""
    spec = await machines()
    want = await Desired.of(spec, open_source(spec.source))
    async with open_fleet(spec, None, Events()) as nodes:
        first, worker = nodes
        config = b"---\n".join(to_yaml(document) for document in kubeadm_documents(want, first))
        await first.host.write_file("/root/kubeadm.yaml", config)
        started = time.monotonic()
        await first.host.run(
            ["kubeadm", "init", "--config", "/root/kubeadm.yaml", "--skip-phases=preflight"], timeout=300
        )
        init = time.monotonic() - started
        token = await first.host.shell(
            "export KUBECONFIG=/etc/kubernetes/admin.conf; kubeadm token create --print-join-command"
        )
        await first.host.shell(kubeadm_hosts.UNTIL_SIGNED, timeout=120)
        command = [*token.text.split(), "--skip-phases=preflight", "--cri-socket", kubelet.CONTAINERD_SOCKET]
        started = time.monotonic()
        await worker.host.run(command, timeout=300)
        return Times(init, time.monotonic() - started)


def kubeadm_documents(want: Desired, first: Node) -> list[dict[str, object]]:
    """The configuration that gives kubeadm the same cluster."""
    version = "kubeadm.k8s.io/v1beta2"
    return [
        {
            "apiVersion": version,
            "kind": "InitConfiguration",
            "localAPIEndpoint": {"advertiseAddress": first.ip},
            "nodeRegistration": {"criSocket": kubelet.CONTAINERD_SOCKET},
        },
        {
            "apiVersion": version,
            "kind": "ClusterConfiguration",
            "kubernetesVersion": want.cluster.kubernetes_version,
            "networking": {
                "podSubnet": want.cluster.networking.pod_subnet,
                "serviceSubnet": want.cluster.networking.service_subnet,
            },
        },
        {
            "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
            "kind": "KubeProxyConfiguration",
            "conntrack": {"maxPerCore": 0, "min": 0},
        },
    ]


async def kubewright_run() -> Times:
    """Kubewright: a cluster of one, then the same file with the worker in it."""
    spec = await machines()
    directory = lab.open_lab(LAB).places.directory
    document = yaml.safe_load((directory / "cluster.yaml").read_text())
    alone = directory / "alone.yaml"
    alone.write_text(yaml.safe_dump(document | {"hosts": document["hosts"][:1]}))
    both = directory / "both.yaml"
    both.write_text(yaml.safe_dump(document))
    init, whole = await timed_apply(alone, spec.hosts[0].name, INIT)
    join, _ = await timed_apply(both, spec.hosts[1].name, JOIN)
    return Times(init, join, whole)


async def timed_apply(file: Path, host: str, phases: set[str]) -> tuple[float, float]:
    """Seconds from the process's start to the end of the last of `phases`, and to its own end."""
    started = time.time()
    process = await asyncio.create_subprocess_exec(
        str(Path(sys.executable).parent / "kubewright"), "apply", "-f", str(file), "--no-merge", "-o", "json",
        stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    out, _ = await process.communicate()
    whole = time.time() - started
    ended = [
        event["at"]
        for event in map(json.loads, out.splitlines())
        if event.get("name") in phases
        and event.get("host", host) == host
        and event["kind"] in ("phase.done", "phase.skipped")
    ]
    if process.returncode or not ended:
        raise SystemExit(f"kubewright apply failed:\n{out.decode()[-2000:]}")
    return max(ended) - started, whole


def report(kubeadm: Sequence[Times], kubewright: Sequence[Times]) -> None:
    """The table, and the ratios of the medians."""
    print(f"{'pair':<8}{'init: kubeadm':>14}{'kubewright':>12}{'ratio':>7}", end="")
    print(f"{'join: kubeadm':>16}{'kubewright':>12}{'ratio':>7}{'whole apply':>14}")
    rows = [(str(n), a, b) for n, (a, b) in enumerate(zip(kubeadm, kubewright, strict=True), 1)]

    def median(side: Sequence[Times]) -> Times:
        return Times(
            statistics.median(t.init for t in side), statistics.median(t.join for t in side),
            statistics.median(t.whole for t in side),
        )  # fmt: skip

    for name, a, b in [*rows, ("median", median(kubeadm), median(kubewright))]:
        print(f"{name:<8}{a.init:>12.1f} s{b.init:>10.1f} s{b.init / a.init:>7.2f}", end="")
        print(f"{a.join:>14.1f} s{b.join:>10.1f} s{b.join / a.join:>7.2f}{b.whole:>12.1f} s")


async def main(pairs: int) -> None:
    """Alternate which side goes first, so that neither has the warmer caches."""
    kubeadm: list[Times] = []
    kubewright: list[Times] = []
    try:
        for pair in range(pairs):
            sides = [(kubeadm, kubeadm_run), (kubewright, kubewright_run)]
            for times, run in sides if pair % 2 == 0 else reversed(sides):
                times.append(await run())
            print(f"pair {pair + 1} of {pairs}: {kubeadm[-1]} {kubewright[-1]}", file=sys.stderr)
    finally:
        await lab.down(LAB, events=Events())
    report(kubeadm, kubewright)


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else 5))
