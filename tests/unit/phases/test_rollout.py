"""What a workload still waits for, also where nodes are gone that it was on."""

from __future__ import annotations

from typing import Any

import pytest

from kubewright.phases.rollout import unfinished


def deployment(ready: int, *, replicas: int = 2, pods: int = 2) -> dict[str, Any]:
    status = {"observedGeneration": 1, "replicas": pods, "updatedReplicas": pods, "readyReplicas": ready}
    return {
        "kind": "Deployment",
        "metadata": {"generation": 1},
        "spec": {"replicas": replicas},
        "status": status,
    }


@pytest.mark.parametrize(
    ("ready", "pods", "gone", "said"),
    [
        (2, 2, 0, ""),
        (1, 2, 0, "1 of 2 ready"),
        (1, 2, 1, ""),
        (0, 2, 1, "0 of 1 ready"),
        (0, 2, 5, "0 of 1 ready"),
        (2, 3, 0, "old pods are still going"),
        (2, 3, 1, ""),
    ],
)
def test_a_deployment_need_not_be_where_nobody_is(ready: int, pods: int, gone: int, said: str) -> None:
    """What was on a dead node stays in the count for five minutes; one server must be elsewhere (P53)."""
    assert unfinished(deployment(ready, pods=pods), without=gone) == said


def test_none_is_wanted_of_none() -> None:
    assert unfinished(deployment(0, replicas=0, pods=0), without=1) == ""
