"""A cluster that is well: neither preflight nor doctor has anything to say, however often it is asked."""

from __future__ import annotations

import pytest
from cluster_fixtures import ON_MACHINES, Kubewright

from kubewright.lab.lab import Lab

pytestmark = ON_MACHINES


@pytest.mark.parametrize("command", ["preflight", "doctor"])
def test_a_healthy_cluster_gives_no_finding(cluster: Lab, kubewright: Kubewright, command: str) -> None:
    """Twenty runs, in more states than this one, are in test_doctor_healthy.py."""
    for _ in range(5):
        run = kubewright(command, "-f", cluster.places.cluster_yaml, "-o", "json")
        assert run.document["findings"] == []
        assert run.err == ""
