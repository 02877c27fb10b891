"""`kubewright convert`: what it is told to do, and what it says of what was done."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from kubewright.cli import cli
from kubewright.cli.convert import words
from kubewright.errors import ExitCode
from kubewright.model.conversion import Mode
from kubewright.phases.phase import Action, Change
from kubewright.workflows import convert, convert_etcd, convert_restore
from kubewright.workflows.convert_restore import RestoreResult
from kubewright.workflows.convert_run import Report, Stage

FILE = "hosts: [{name: cp1, address: 192.0.2.1, roles: [control-plane]}]\n"
BEFORE, AFTER = "https://192.0.2.1:6443", "https://192.0.2.9:6443"


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What the workflows were asked to do."""
    calls: list[Any] = []

    async def workflow(_spec: object, mode: Mode, _events: object, **options: Any) -> Report:
        calls.append((mode, options["dry"]))
        stages = [
            Stage("config", "tell whoever joins", 1.25, [Change(Action.UPDATE, "ConfigMap a/b")]),
            Stage("clients", "kubelets", 3.0, [Change(Action.UPDATE, "/x", "w1")]),
        ]
        return Report(mode, BEFORE, AFTER, "20261122-101500", stages)

    async def to_external_etcd(spec: object, events: object, **options: Any) -> Report:
        return await workflow(spec, Mode.EXTERNAL_ETCD, events, **options)

    async def restore(_spec: object, backup_id: str, _events: object, *, dry: bool) -> RestoreResult:
        calls.append((backup_id, dry))
        return RestoreResult([Change(Action.UPDATE, "/x", "cp1")], BEFORE, ["cp1"], ["cp2", "cp3"])

    monkeypatch.setattr(convert, "convert", workflow)
    monkeypatch.setattr(convert_etcd, "to_external_etcd", to_external_etcd)
    monkeypatch.setattr(convert_restore, "restore", restore)
    return calls


def run(directory: Path, *words: str) -> Result:
    file = directory / "cluster.yaml"
    file.write_text("apiVersion: kubewright.dev/v1alpha1\nkind: Cluster\n" + FILE)
    return CliRunner().invoke(cli, ["convert", "-f", str(file), *words])


@pytest.mark.parametrize("words", [[], ["--to-ha", "--restore", "20261122-101500"]])
def test_one_thing_at_a_time(asked: list[Any], tmp_path: Path, words: list[str]) -> None:
    done = run(tmp_path, *words)
    assert done.exit_code == ExitCode.USAGE
    assert "--to-ha, --endpoint, --to-external-etcd and --restore ID" in done.output
    assert asked == []


def test_the_report_says_what_changed_where_and_in_which_order(asked: list[Any], tmp_path: Path) -> None:
    done = run(tmp_path, "--to-ha")
    assert done.output.splitlines() == [
        "tell whoever joins (1.2 s)",
        "  update ConfigMap a/b",
        "kubelets (3.0 s)",
        "  update w1: /x",
        "",
        f"The API is reached at {AFTER}; before, it was at {BEFORE}.",
    ]
    assert asked == [(Mode.TO_HA, False)]


def test_etcd_moves_by_a_workflow_of_its_own(asked: list[Any], tmp_path: Path) -> None:
    document = json.loads(run(tmp_path, "--to-external-etcd", "--dry-run", "-o", "json").stdout)
    assert document["mode"] == "to-external-etcd"
    assert asked == [(Mode.EXTERNAL_ETCD, True)]


def test_a_dry_run_names_no_times_and_json_has_it_all(asked: list[Any], tmp_path: Path) -> None:
    assert run(tmp_path, "--endpoint", "--dry-run").output.splitlines()[0] == "tell whoever joins"
    document = json.loads(run(tmp_path, "--endpoint", "--dry-run", "-o", "json").stdout)
    assert document["stages"][1] == {
        "name": "clients", "title": "kubelets", "seconds": 3.0,
        "changes": [{"action": "update", "target": "/x", "host": "w1"}],
    }  # fmt: skip
    assert (document["mode"], document["backup"]) == ("endpoint", "20261122-101500")
    assert asked == [(Mode.ENDPOINT, True)] * 2


def test_nobody_who_cannot_be_asked_goes_back_in_time(asked: list[Any], tmp_path: Path) -> None:
    done = run(tmp_path, "--restore", "20261122-101500")
    assert done.exit_code == ExitCode.USAGE
    assert "--yes" in done.output
    assert asked == []
    done = run(tmp_path, "--restore", "20261122-101500", "--yes")
    assert done.output.splitlines() == [
        f"The cluster is back at backup 20261122-101500, and its API at {BEFORE}.",
        "Reset, for they came later: cp2, cp3.",
    ]
    assert asked == [("20261122-101500", False)]


def test_a_dry_restore_shows_what_would_be_done(asked: list[Any], tmp_path: Path) -> None:
    words = ("--restore", "20261122-101500", "--dry-run")
    assert run(tmp_path, *words).output.splitlines() == ["  update cp1: /x"]
    document = json.loads(run(tmp_path, *words, "-o", "json").stdout)
    assert document == {"changes": [{"action": "update", "target": "/x", "host": "cp1"}]}
    assert asked == [("20261122-101500", True)] * 2


@pytest.mark.parametrize("stages", [[], [Stage("config", "tell", 1.0, [Change(Action.UPDATE, "x")])]])
def test_the_report_ends_with_what_is_left_for_the_user(stages: list[Stage]) -> None:
    report = Report(Mode.TO_HA, BEFORE, AFTER, "", stages, notes=["look there"])
    assert words(report, dry=False)[-2:] == ["", "look there"]


def test_the_workflow_knows_the_file_for_the_command_that_goes_back(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    async def workflow(*_: object, file: Path, **__: object) -> Report:
        return Report(Mode.TO_HA, BEFORE, AFTER, notes=[str(file)])

    monkeypatch.setattr(convert, "convert", workflow)
    assert str(tmp_path / "cluster.yaml") in run(tmp_path, "--to-ha").output
