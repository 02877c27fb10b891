"""What node commands, above all `reset` and `upgrade`, refuse before they look at a host."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from click.testing import CliRunner, Result

from kubewright.cli import cli, upgrade_apply
from kubewright.cli.upgrade_text import applied_lines
from kubewright.errors import ExitCode, KubewrightError
from kubewright.model.kept import Kept
from kubewright.phases.phase import Action, Change
from kubewright.workflows.reset import ResetResult
from kubewright.workflows.reset_tree import STEPS
from kubewright.workflows.tree import paths
from kubewright.workflows.upgrade import UpgradeOutcome
from kubewright.workflows.upgrade_tree import NODE


def run(*words: str, text: str | None = None) -> Result:
    return CliRunner().invoke(cli, list(words), input=text, prog_name="kubewright")


def test_phases_have_kubeadms_names() -> None:
    """But for the one that kubeadm has not."""
    assert [path for path, _ in paths(STEPS)] == [
        "preflight", "update-cluster-status", "remove-node", "remove-etcd-member", "cleanup-node",
    ]  # fmt: skip
    assert [path for path, _ in paths(NODE)] == ["preflight", "control-plane", "kubelet-config"]


@pytest.mark.parametrize("words", [("reset",), ("reset", "phase", "preflight")])
def test_a_reset_that_nobody_can_confirm(words: tuple[str, ...]) -> None:
    done = run(*words, text="y\n")
    assert done.exit_code == ExitCode.USAGE
    assert "--force" in done.output


@pytest.mark.parametrize("directory", ["/", "/etc", "/usr/local/"])
def test_a_reset_of_the_systems_directories(directory: str) -> None:
    done = run("reset", "--dry-run", "--cert-dir", directory)
    assert done.exit_code == ExitCode.USAGE
    assert "belongs to the system" in done.output


PLAN = ResetResult(
    [Change(Action.DELETE, "what is in /var/lib/kubelet", "n1"), Change(Action.DELETE, "Node n1")],
    "n1",
    [Kept("link br0", "no file here shows whose it is", "ip link delete br0"), Kept("/etc/x", "an owner's")],
)


@pytest.fixture
def planned(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """A reset that is planned as `PLAN`, and the options that it was given."""
    given: list[dict[str, Any]] = []

    @asynccontextmanager
    async def opened(_: object, **__: object) -> AsyncIterator[None]:
        yield None

    async def workflow(*_: object, **options: Any) -> ResetResult:
        given.append(options)
        return PLAN

    monkeypatch.setattr("kubewright.cli.node.opened_node", opened)
    monkeypatch.setattr("kubewright.workflows.reset.reset", workflow)
    return given


@pytest.mark.parametrize(("output", "load"), [("json", json.loads), ("yaml", yaml.safe_load)])
def test_a_plan_as_data_says_what_stays_and_why(
    planned: list[dict[str, Any]], output: str, load: Callable[[str], Any]
) -> None:
    done = run("reset", "--dry-run", "-o", output)
    assert load(done.stdout) == {
        "changes": [
            {"action": "delete", "target": "what is in /var/lib/kubelet", "host": "n1"},
            {"action": "delete", "target": "Node n1"},
        ],
        "kept": [
            {"what": "link br0", "why": "no file here shows whose it is", "mend": "ip link delete br0"},
            {"what": "/etc/x", "why": "an owner's"},
        ],
    }


def test_a_plan_in_words_says_what_stays_and_why(planned: list[dict[str, Any]]) -> None:
    done = run("reset", "--dry-run")
    assert done.stdout.splitlines() == [
        "On this host (node n1):",
        "  delete what is in /var/lib/kubelet",
        "  delete Node n1",
        "What it leaves alone, and why:",
        "  link br0: no file here shows whose it is (ip link delete br0)",
        "  /etc/x: an owner's",
    ]


@pytest.mark.parametrize("words", [(), ("--keep-node",)])
def test_the_node_is_kept_where_that_is_wanted(planned: list[dict[str, Any]], words: tuple[str, ...]) -> None:
    assert run("reset", "--force", *words).exit_code == 0
    assert [(one["keep_node"], one["dry"]) for one in planned] == [(bool(words), False)]


def test_yaml_is_for_a_plan(planned: list[dict[str, Any]]) -> None:
    done = run("reset", "--force", "-o", "yaml")
    assert (done.exit_code, planned) == (ExitCode.USAGE, [])
    assert "--dry-run" in done.output


def test_a_phase_that_does_not_exist() -> None:
    done = run("reset", "--force", "--skip-phases", "remove-etcd")
    assert done.exit_code == ExitCode.USAGE
    assert "did you mean 'remove-etcd-member'" in done.output


def test_a_file_and_options_that_say_the_same(tmp_path: Path) -> None:
    config = tmp_path / "reset.yaml"
    config.write_text("apiVersion: kubeadm.k8s.io/v1beta4\nkind: ResetConfiguration\nforce: true\n")
    done = run("reset", "--config", str(config), "--cert-dir", "/srv/pki")
    assert done.exit_code == ExitCode.USAGE
    assert "--config and --cert-dir" in done.output


def test_a_file_that_says_nothing_of_a_reset(tmp_path: Path) -> None:
    config = tmp_path / "init.yaml"
    config.write_text("apiVersion: kubeadm.k8s.io/v1beta3\nkind: InitConfiguration\n")
    done = run("reset", "--force", "--config", str(config))
    assert done.exit_code == ExitCode.CONFIG_INVALID
    assert "init.yaml: it has no ResetConfiguration" in done.output


@pytest.mark.parametrize(
    "words",
    [
        ("reset", "--force"),
        ("init", "--dry-run", "--kubernetes-version", "v1.20.2"),
        ("join", "--dry-run", "--discovery-file", "cluster.conf"),
    ],
)
def test_all_and_single_checks(words: tuple[str, ...]) -> None:
    """It is told before anything is begun."""
    done = run(*words, "--ignore-preflight-errors", "all,Swap")
    assert done.exit_code == ExitCode.USAGE
    assert done.output.startswith("error: --ignore-preflight-errors: 'all' and single checks")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("apply",), "which version?"),
        (("apply", "v1.20.2"), "--yes"),
        (("apply", "v1.20.2", "--yes", "--feature-gates", "Nonsense=true"), "is no gate of kubeadm"),
        (("apply", "v1.20.2", "--yes", "--feature-gates", "PublicKeysECDSA=true"), "cannot be changed"),
        (("apply", "v1.20.2", "--etcd-upgrade=perhaps"), "perhaps"),
        (("diff", "--context-lines", "-1"), "-1"),
    ],
)
def test_upgrades_that_cannot_be_meant(words: tuple[str, ...], said: str) -> None:
    done = run("upgrade", *words)
    assert done.exit_code == ExitCode.USAGE
    assert said in done.output


def test_an_upgrade_looks_before_it_asks(monkeypatch: pytest.MonkeyPatch) -> None:
    @asynccontextmanager
    async def opened(_: object, **__: object) -> AsyncIterator[None]:
        raise KubewrightError("looked at the cluster")
        yield

    monkeypatch.setattr(upgrade_apply, "opened_with_api", opened)
    monkeypatch.setattr(upgrade_apply, "sys", SimpleNamespace(stdin=SimpleNamespace(isatty=lambda: True)))
    done = run("upgrade", "apply", "v1.20.15")
    assert done.output == "error: looked at the cluster\n"


def test_an_upgrade_does_not_change_the_configuration(tmp_path: Path) -> None:
    config = tmp_path / "kubeadm.yaml"
    config.write_text("apiVersion: kubeadm.k8s.io/v1beta2\nkind: ClusterConfiguration\n")
    done = run("upgrade", "apply", "v1.20.2", "--yes", "--config", str(config))
    assert done.exit_code == ExitCode.USAGE
    assert "cannot be changed by an upgrade" in done.output


def test_what_is_left_to_do_after_an_upgrade() -> None:
    done = UpgradeOutcome("v1.20.15", backup="/etc/kubernetes/tmp/backup")
    first, kept, then = applied_lines(done, others=True)
    assert (first, "/etc/kubernetes/tmp/backup" in kept) == ("The cluster is at v1.20.15.", True)
    assert "`kubewright upgrade node` on every other node" in then
    assert "other" not in applied_lines(done, others=False)[-1]
