"""What the stages of a conversion share: a phase runs or is only looked at, and its changes are the stage's."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from kubewright.errors import HostError
from kubewright.events import Event, Events
from kubewright.model.conversion import Mode
from kubewright.phases.phase import Action, Change, Phase
from kubewright.workflows.convert_run import ConversionRun, Report


class Step(Phase):
    name = "step"
    title = "a step"

    def __init__(self, *targets: str) -> None:
        self.left = list(targets)
        self.acted = 0

    async def look(self) -> list[Change]:
        return [Change(Action.UPDATE, target, "cp1") for target in self.left]

    async def act(self, changes: Sequence[Change], activity: object) -> None:
        self.acted += 1
        self.left.clear()


def new(*, dry: bool = False) -> tuple[ConversionRun, list[Event]]:
    seen: list[Event] = []
    report = Report(Mode.TO_HA, "https://a:6443", "https://b:6443", "20261122-101500")
    return ConversionRun(Events(seen.append), report, dry=dry), seen


async def test_a_stage_has_the_changes_of_its_phases_in_order() -> None:
    run, _ = new()
    async with run.stage("one", "the first"):
        await run.do(Step("a", "b"))
        await run.do(Step("c"))
    async with run.stage("two", "the second"):
        await run.do(Step("d"))
    assert [[change.target for change in stage.changes] for stage in run.report.stages] == [
        ["a", "b", "c"], ["d"],
    ]  # fmt: skip
    assert [change.target for change in run.report.changes] == ["a", "b", "c", "d"]
    assert run.report.stages[0].seconds > 0


async def test_a_stage_that_changed_nothing_is_not_reported() -> None:
    run, _ = new()
    async with run.stage("one", "the first"):
        await run.do(Step())
    assert run.report.stages == []


async def test_a_dry_run_looks_and_says_each_change_once() -> None:
    run, seen = new(dry=True)
    step = Step("a")
    async with run.stage("one", "the first"):
        await run.do(step)
        await run.do(Step("a", "b"))  # a phase that was looked at before, under another name
    assert [change.target for change in run.report.changes] == ["a", "b"]
    assert step.acted == 0
    assert seen == [], "nothing runs"


async def test_what_was_changed_before_a_failure_is_in_the_report() -> None:
    run, _ = new()
    with pytest.raises(HostError):
        async with run.stage("one", "the first"):
            await run.do(Step("a"))
            raise HostError("cp1: broken")
    assert [change.target for change in run.report.changes] == ["a"]


async def test_the_report_as_json_has_all_of_it() -> None:
    run, _ = new()
    async with run.stage("one", "the first"):
        await run.do(Step("a"))
    run.report.notes.append("look there")
    document = run.report.as_dict()
    assert document["stages"][0].pop("seconds") >= 0
    assert document == {
        "mode": "to-ha", "before": "https://a:6443", "after": "https://b:6443", "backup": "20261122-101500",
        "stages": [
            {
                "name": "one", "title": "the first",
                "changes": [{"action": "update", "target": "a", "host": "cp1"}],
            }
        ],
        "notes": ["look there"],
    }  # fmt: skip
