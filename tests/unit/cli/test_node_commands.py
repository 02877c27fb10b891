"""`kubewright node`: what is asked before a Node leaves, and what is said afterwards."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from kubewright.cli import cli
from kubewright.errors import ExitCode
from kubewright.model.kept import Kept
from kubewright.phases.phase import Action, Change
from kubewright.workflows import node_remove
from kubewright.workflows.node_remove import Outcome

FILE = "hosts: [{name: cp1, address: 192.0.2.1, roles: [control-plane]}]\n"
CHANGES = [Change(Action.UPDATE, "Node w9 unschedulable"), Change(Action.DELETE, "/x", "w9")]


class Asked:
    """What the workflow is asked to do."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, **outcome: Any) -> None:
        self.calls: list[dict[str, Any]] = []

        async def workflow(_spec: object, name: str, _events: object, **options: Any) -> Outcome:
            self.calls.append(options)
            return Outcome(name, list(CHANGES), **outcome)

        monkeypatch.setattr(node_remove, "remove_node", workflow)


def run(directory: Path, *words: str) -> Result:
    file = directory / "cluster.yaml"
    file.write_text("apiVersion: kubewright.dev/v1alpha1\nkind: Cluster\n" + FILE)
    return CliRunner().invoke(cli, ["node", "remove", "w9", "-f", str(file), *words])


def test_nobody_who_cannot_be_asked_removes_a_node(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked = Asked(monkeypatch)
    done = run(tmp_path)
    assert done.exit_code == ExitCode.USAGE
    assert "--yes" in done.output
    assert asked.calls == []


def test_what_the_reset_of_its_host_leaves_is_shown(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    Asked(monkeypatch, host_reset=True, kept=[Kept("/root/.kube/config", "a user's own")])
    assert "\n  /root/.kube/config: a user's own\n" in run(tmp_path, "--dry-run").output
    assert "left alone, and why:\n  /root/.kube/config: a user's own\n" in run(tmp_path, "--yes").output
    document = json.loads(run(tmp_path, "--dry-run", "-o", "json").output)
    assert document["kept"] == [{"what": "/root/.kube/config", "why": "a user's own"}]


def test_a_dry_run_shows_what_would_be_done(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked = Asked(monkeypatch)
    done = run(tmp_path, "--dry-run")
    assert done.exit_code == 0
    assert done.output.splitlines() == ["  update Node w9 unschedulable", "  delete w9: /x"]
    assert [call["dry"] for call in asked.calls] == [True]


def test_the_options_reach_the_workflow_and_the_end_says_what_is_left_to_do(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    asked = Asked(monkeypatch, in_file=True, control_planes=2, host_reset=True, kubeconfig_may_name_it=True)
    done = run(tmp_path, "--yes", "--gone", "--force", "--timeout", "90s", "--grace-period", "0")
    assert done.exit_code == 0, done.output
    [call] = asked.calls
    assert (call["gone"], call["dry"]) == (True, False)
    assert (call["options"].deadline, call["options"].grace, call["options"].force) == (90.0, 0, True)
    for said in ("has left its cluster", "still names it", "2 control planes are left", "kubeconfig"):
        assert said in done.output


@pytest.mark.parametrize("text", ["soon", "0s", "-1m"])
def test_a_deadline_that_is_none_is_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, text: str
) -> None:
    Asked(monkeypatch)
    assert run(tmp_path, "--yes", "--timeout", text).exit_code == ExitCode.USAGE
