"""`kubewright help COMMAND`, and second names of commands."""

from __future__ import annotations

import click
from click.testing import CliRunner

from kubewright.cli import cli
from kubewright.cli.lazy import LazyGroup


def test_help_prints_what_the_option_does() -> None:
    runner = CliRunner()
    for path in ([], ["config"], ["config", "schema"]):
        asked = runner.invoke(cli, ["help", *path], prog_name="kubewright")
        option = runner.invoke(cli, [*path, "--help"], prog_name="kubewright")
        assert asked.exit_code == option.exit_code == 0
        assert asked.output == option.output
        assert asked.output.startswith(f"Usage: {' '.join(['kubewright', *path])} ")


def test_help_of_what_does_not_exist_is_an_error() -> None:
    done = CliRunner().invoke(cli, ["help", "config", "nonsense"])
    assert done.exit_code == 2
    assert "there is no command 'config nonsense'" in done.output


def test_an_alias_is_the_command_and_is_not_listed() -> None:
    group = LazyGroup("top", lazy={}, aliases={"second": "first"})
    first = click.Command("first")
    group.add_command(first)
    context = click.Context(group)
    assert group.get_command(context, "second") is first
    assert group.list_commands(context) == ["first"]
