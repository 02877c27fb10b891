"""Preflight of a cluster that is well: nothing at all, however often it is asked."""

from __future__ import annotations

from cluster_fixtures import ON_MACHINES, Kubewright

from kubewright.lab.lab import Lab

pytestmark = ON_MACHINES


def test_a_healthy_cluster_gives_no_finding_in_twenty_runs(cluster: Lab, kubewright: Kubewright) -> None:
    for _ in range(20):
        run = kubewright("preflight", "-f", cluster.places.cluster_yaml, "-o", "json")
        assert run.document["fit"]
        assert run.document["findings"] == []
        assert run.err == ""
