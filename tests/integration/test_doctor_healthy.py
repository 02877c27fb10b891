"""No false alarm: `doctor` and `preflight` have nothing to say, twenty times each, where all is well."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml
from cluster_fixtures import DOCTOR, ON_MACHINES, Kubewright, start_on, written

from kubewright.lab.lab import Lab, open_lab

pytestmark = [*ON_MACHINES, pytest.mark.soak]

RUNS = 20
FIRST, LATER, WORKERS = "cp1", ("cp2", "cp3"), ("w1", "w2")
LOAD = """
for n in 1 2; do (while :; do :; done) & done
[ -e /etc/kubernetes/admin.conf ] || { wait; exit; }
export KUBECONFIG=/etc/kubernetes/admin.conf
while :; do
  kubectl -n default create configmap load --from-literal n=$(date +%N)
  kubectl -n default delete configmap load
  kubectl -n default create deployment load --image k8s.gcr.io/pause:3.2 --replicas 5
  kubectl -n default delete deployment load
done
"""
"""Two processes that never rest on each machine, and writes, and Pods that come and go."""


class Healthy:
    """Machines for three control planes and two workers, of which the cluster has some."""

    def __init__(self, kubewright: Kubewright, lab: Lab, directory: Path) -> None:
        self.kubewright, self.lab = kubewright, lab
        self.document: dict[str, Any] = yaml.safe_load(lab.places.cluster_yaml.read_text())
        self.directory = directory
        self.config = directory / "kubeconfig"

    def file(self, *names: str) -> Path:
        """A cluster.yaml with these hosts; several control planes have an endpoint."""
        hosts = [host for host in self.document["hosts"] if host["name"] in names]
        document = {key: value for key, value in self.document.items() if key != "endpoint"}
        if names[1] in LATER:
            document["endpoint"] = {"type": "local"}
        return written(self.directory / f"{'-'.join(names)}.yaml", document | {"hosts": hosts})

    def apply(self, *names: str) -> Path:
        file = self.file(*names)
        self.kubewright("apply", "-f", file, "--no-merge", "--kubeconfig", self.config)
        return file

    def silent(self, file: Path) -> None:
        """Neither finds anything, in any of the runs."""
        for number in range(RUNS):
            for command in ("doctor", "preflight"):
                run = self.kubewright(command, "-f", file, "-o", "json", code=None)
                assert run.code == 0, f"run {number} of {command}: {run}"
                assert run.document["findings"] == [], json.dumps(run.document["findings"], indent=1)


@pytest.fixture(scope="module")
def healthy(kubewright: Kubewright, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Healthy]:
    kubewright("lab", "down", DOCTOR)
    try:
        names = ("--control-planes", "3", "--workers", "2")
        kubewright("lab", "up", "--name", DOCTOR, *names, "--machines-only")
        yield Healthy(kubewright, open_lab(DOCTOR), tmp_path_factory.mktemp("healthy"))
    finally:
        kubewright("lab", "down", DOCTOR, code=None)


@contextmanager
def load(lab: Lab, machines: tuple[str, ...]) -> Iterator[None]:
    with ExitStack() as stack:
        for machine in machines:
            stack.enter_context(start_on(lab, machine, LOAD))
        yield


def test_one_control_plane_and_two_workers(healthy: Healthy) -> None:
    healthy.silent(healthy.apply(FIRST, *WORKERS))


def test_under_load(healthy: Healthy) -> None:
    with load(healthy.lab, (FIRST, *WORKERS)):
        healthy.silent(healthy.file(FIRST, *WORKERS))


def test_just_after_a_reset(healthy: Healthy) -> None:
    """A worker has left; it is as fit for a cluster as any new host, and the others miss nothing."""
    with_it, without = healthy.file(FIRST, *WORKERS), healthy.file(FIRST, WORKERS[0])
    healthy.kubewright("node", "remove", WORKERS[1], "-f", with_it, "--yes")
    healthy.silent(without)
    assert healthy.kubewright("preflight", "-f", with_it, "-o", "json").document["findings"] == []
    healthy.apply(FIRST, *WORKERS)


def test_just_after_a_conversion(healthy: Healthy) -> None:
    file = healthy.file(FIRST, *LATER, *WORKERS)
    healthy.kubewright("convert", "--to-ha", "-f", file, "--no-merge")
    healthy.silent(file)


def test_three_control_planes_and_two_workers(healthy: Healthy) -> None:
    """The same cluster, later."""
    healthy.silent(healthy.file(FIRST, *LATER, *WORKERS))
