"""What a run writes down of its phases, and a plan of what it would do."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any, ClassVar, cast

import pytest

from kubewright.events import Activity, Events
from kubewright.phases.phase import Action, Change, Phase
from kubewright.workflows.apply_run import ApplyRun, Outcome

TWO = [Change(Action.DELETE, "Node cp3"), Change(Action.UPDATE, "/etc/x", "lb1")]


class Both(Phase):
    """Two changes, each time."""

    name: ClassVar[str] = "both"
    title: ClassVar[str] = "both"

    async def look(self) -> list[Change]:
        return list(TWO)

    async def act(self, changes: Sequence[Change], activity: Activity) -> None:
        return


def run(*, dry: bool) -> ApplyRun:
    return cast(ApplyRun, SimpleNamespace(dry=dry, outcome=Outcome(), events=Events()))


@pytest.mark.parametrize("dry", [True, False])
async def test_a_plan_names_each_change_once(dry: bool) -> None:
    """Hosts that are looked at in two stages would change in the first alone."""
    found = run(dry=dry)
    for _ in range(2):
        assert await ApplyRun.do(found, Both()) == TWO
    assert found.outcome.changes == (TWO if dry else TWO * 2)


async def test_a_plan_for_a_new_cluster_names_the_proxies() -> None:
    """They cannot be looked at without the cluster's CA."""
    host: Any = SimpleNamespace(name="lb1")
    found: Any = run(dry=True)

    async def no_ca() -> None:
        return None

    found.ca, found.endpoint = no_ca, SimpleNamespace(hosts=[host])
    await ApplyRun.proxy(found, host)
    assert found.outcome.changes == [Change(Action.RUN, "set up the endpoint's proxy", "lb1")]


async def test_a_manifest_that_a_run_has_changed_is_known() -> None:
    """Its Pod is away for a moment then, and its kubelet is not restarted for that."""
    found, node = run(dry=False), cast(Any, SimpleNamespace(name="lb1"))
    await ApplyRun.do(found, Both())
    assert ApplyRun.has_updated(found, node, "/etc/x")
    assert not ApplyRun.has_updated(found, node, "/etc/y")
    assert not ApplyRun.has_updated(found, cast(Any, SimpleNamespace(name="lb2")), "/etc/x")
