"""kubeadm's `-v LEVEL`: taken anywhere, and from 5 on the way to see where an unexpected error came from."""

from __future__ import annotations

import pytest
from click.testing import CliRunner

from kubewright.cli import cli
from kubewright.cli.verbosity import to_the_front


@pytest.mark.parametrize(
    ("said", "meant"),
    [
        (["init", "-v=5", "--dry-run"], ["-v=5", "init", "--dry-run"]),
        (["init", "--v=5"], ["--v=5", "init"]),
        (["token", "-v5", "list"], ["-v5", "token", "list"]),
        (["token", "list", "--v", "7"], ["--v", "7", "token", "list"]),
        (["token", "list", "-v", "x"], ["token", "list", "-v", "x"]),
        (["token", "list", "-v"], ["token", "list", "-v"]),
        (["lab", "exec", "l", "m", "kubeadm", "-v", "5"], ["lab", "exec", "l", "m", "kubeadm", "-v", "5"]),
        (["-q", "lab", "ssh", "l", "m", "ssh", "-v5"], ["-q", "lab", "ssh", "l", "m", "ssh", "-v5"]),
        (["lab", "exec", "m", "--", "tar", "-v", "5"], ["lab", "exec", "m", "--", "tar", "-v", "5"]),
    ],
)
def test_it_stands_before_the_command(said: list[str], meant: list[str]) -> None:
    assert to_the_front(said) == meant


@pytest.mark.parametrize(("word", "shown"), [("-v=5", True), ("--v=10", True), ("-v4", False)])
def test_five_shows_the_stack(monkeypatch: pytest.MonkeyPatch, word: str, shown: bool) -> None:
    monkeypatch.setenv("KUBEWRIGHT_DEBUG", "")
    import os

    assert CliRunner().invoke(cli, ["version", word]).exit_code == 0
    assert bool(os.environ["KUBEWRIGHT_DEBUG"]) is shown


def test_a_level_is_a_number() -> None:
    done = CliRunner().invoke(cli, ["-v=much", "version"])
    assert done.exit_code == 2
    assert "'=much' is no number" in done.output
