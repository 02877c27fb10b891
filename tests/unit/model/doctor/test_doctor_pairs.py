"""Two faults at once: both causes are named, and no third, also where one could follow from the other."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from tests.unit.model.doctor.doctor_world import (
    NAMES,
    NOW,
    facts,
    kinds,
    member,
    node,
    node_object,
    objects,
    server,
    unit,
    with_files,
    without,
)

from kubewright.model.doctor.facts import DoctorFacts, Ended, NodeFacts, RuntimeFacts
from kubewright.model.doctor.look import FORWARD, SWAPS
from kubewright.model.manifests import manifest_path

STOPPED = unit(active="inactive", sub="dead", up=None)
FAILS = unit(active="activating", sub="auto-restart", result="exit-code", up=None, restarts=9)
NO_RUNTIME = RuntimeFacts(False, "nobody listens at /run/containerd/containerd.sock")
SWAP = "Filename\n/dev/sda2 partition 1 0 -2"


def cluster(*nodes: NodeFacts, silent: tuple[str, ...] = (), **changes: Any) -> DoctorFacts:
    """The world with these hosts; the nodes of `silent` are not Ready, as the API says after 40 s."""
    shown = [node_object(name, ready=name not in silent) for name in NAMES]
    return facts(nodes, **({"objects": replace(objects(), nodes=shown)} | changes))


def units(name: str, runs: RuntimeFacts | None = None, **more: Any) -> NodeFacts:
    """A host with other units."""
    one = node(name)
    assert one.look is not None
    found = {**one.look.units, **more}
    return replace(one, look=replace(one.look, units=found), runtime=runs or one.runtime)


def found(world: DoctorFacts) -> set[tuple[str, tuple[str, ...]]]:
    return set(kinds(world))


def test_a_kubelet_that_was_stopped_beside_a_runtime_that_was_stopped() -> None:
    """The kubelet did not end because of the runtime: its unit says that it was stopped."""
    world = cluster(units("w1", NO_RUNTIME, kubelet=STOPPED, containerd=STOPPED), silent=("w1",))
    assert found(world) == {("kubelet-stopped", ("w1",)), ("runtime-dead", ("w1",))}


def test_a_kubelet_that_ends_because_of_its_runtime_is_no_fault_of_its_own() -> None:
    world = cluster(units("w1", NO_RUNTIME, kubelet=FAILS, containerd=STOPPED), silent=("w1",))
    assert found(world) == {("runtime-dead", ("w1",))}


def test_a_manifest_that_was_taken_away_beside_an_etcd_that_has_ended() -> None:
    ended = {"etcd": Ended(1, at=NOW)}
    broken = with_files(
        "cp1",
        {manifest_path("kube-scheduler"): None},
        runs=without(
            "cp1", "etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", ended=ended
        ),
    )
    world = cluster(
        broken,
        etcd=[member("cp1", error="nothing listens there"), member("cp2", leader=2), member("cp3", leader=2)],
        servers=[server("cp1", error="nothing listens there"), server("cp2"), server("cp3")],
    )
    assert found(world) == {("etcd-member-down", ("cp1",)), ("scheduler-removed", ("cp1",))}


def test_swap_on_one_host_and_forwarding_off_on_another() -> None:
    swapped = replace(with_files("w1", {SWAPS: SWAP}))
    assert swapped.look is not None
    swapped = replace(swapped, look=replace(swapped.look, units={**swapped.look.units, "kubelet": FAILS}))
    world = cluster(swapped, with_files("cp2", {FORWARD: "0"}), silent=("w1",))
    assert found(world) == {("swap-on", ("w1",)), ("ip-forward-off", ("cp2",))}


def test_a_dead_host_and_a_full_etcd() -> None:
    alarm = {1: ("NOSPACE",)}
    world = cluster(
        NodeFacts("cp3", control_plane=True, error="no answer within 6 s"),
        silent=("cp3",),
        etcd=[member("cp1", alarms=alarm), member("cp2"), member("cp3", error="no answer within 4 s")],
        servers=[server("cp1"), server("cp2"), server("cp3", error="no answer within 4 s")],
    )
    assert found(world) == {("host-silent", ("cp3",)), ("etcd-alarm", ("cp1",))}


@pytest.mark.parametrize("name", ["kube-scheduler", "kube-controller-manager"])
def test_a_controller_that_has_ended_beside_a_kubelet_that_was_stopped(name: str) -> None:
    """A kubelet that is stopped ends no container: the controller has ended by itself."""
    kind = {"kube-scheduler": "scheduler-down", "kube-controller-manager": "controller-manager-down"}[name]
    world = cluster(units("cp1", without("cp1", name), kubelet=STOPPED), silent=("cp1",))
    assert found(world) == {("kubelet-stopped", ("cp1",)), (kind, ("cp1",))}
