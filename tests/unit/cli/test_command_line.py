"""The command line from outside: its table of commands, its start, its ends."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from kubewright import __version__
from kubewright.cli import cli

HEAVY = ("asyncio", "aiohttp", "asyncssh", "cryptography", "pydantic", "rich", "yaml")


def kubewright(*args: str, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "kubewright", *args], capture_output=True, text=True, timeout=30, check=False,
        env=os.environ | (env or {}),
    )  # fmt: skip


@pytest.mark.parametrize("name", sorted(cli.lazy))
def test_every_command_of_the_table_is_there(name: str) -> None:
    module, _, attribute = cli.lazy[name][0].partition(":")
    command = getattr(import_module(module), attribute)
    assert isinstance(command, click.Command)
    assert command.name == name
    assert CliRunner().invoke(cli, [name, "--help"]).exit_code == 0


@pytest.mark.parametrize("args", [["version"], ["--version"], ["--help"], ["completion", "zsh"]])
def test_nothing_heavy_is_imported_for_small_answers(args: list[str]) -> None:
    script = (
        "import sys\nfrom kubewright.cli import cli\n"
        f"try: cli.main({args!r}, prog_name='kubewright')\nexcept SystemExit as end: assert end.code == 0\n"
        f"print([name for name in {HEAVY!r} if name in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=30
    )
    assert done.stdout
    assert done.stderr.strip() == "[]"


def test_version_in_every_form() -> None:
    runner = CliRunner()
    assert runner.invoke(cli, ["version"]).output == f"kubewright {__version__}\n"
    assert runner.invoke(cli, ["--version"]).output == f"kubewright {__version__}\n"
    assert json.loads(runner.invoke(cli, ["version", "-o", "json"]).output)["version"] == __version__
    assert f"version: {__version__}\n" in runner.invoke(cli, ["version", "-o", "yaml"]).output
    assert runner.invoke(cli, ["version", "-o", "short"]).output == f"v{__version__}\n"
    kubeadms = json.loads(runner.invoke(cli, ["version", "-o", "json"]).output)["clientVersion"]
    assert kubeadms["gitVersion"] == f"v{__version__}"


@pytest.mark.parametrize(
    "args", [["aply"], ["version", "-o", "xml"], ["--nonsense"], ["status", "-f", "a", "--context", "b"]]
)
def test_a_usage_error_is_2_and_changes_nothing(args: list[str]) -> None:
    done = kubewright(*args)
    assert done.returncode == 2
    assert done.stdout == ""
    error, mend = done.stderr.splitlines()
    assert error.startswith("error: ")
    assert mend.startswith("mend: see kubewright")


def test_a_usage_error_is_one_line() -> None:
    """click writes the choices of a missing argument on lines of their own."""
    done = CliRunner().invoke(cli, ["completion"])
    assert done.stderr.splitlines()[0].endswith("Choose from: bash, zsh, fish")


def test_no_command_at_all_shows_the_help() -> None:
    assert "Commands:" in kubewright().stderr + kubewright("lab").stderr


def commands(group: click.Group, *path: str) -> list[tuple[tuple[str, ...], click.Command]]:
    found: list[tuple[tuple[str, ...], click.Command]] = []
    ctx = click.Context(group)
    for name in group.list_commands(ctx):
        command = group.get_command(ctx, name)
        assert command is not None
        found.append(((*path, name), command))
        if isinstance(command, click.Group):
            found += commands(command, *path, name)
    return found


@pytest.mark.parametrize(
    ("path", "command"), [pytest.param(*each, id=" ".join(each[0])) for each in commands(cli)]
)
def test_every_option_is_explained_and_no_list_of_commands_is_cut(
    path: tuple[str, ...], command: click.Command
) -> None:
    for option in command.params:
        assert not isinstance(option, click.Option) or option.help, (path, option.name)
    if isinstance(command, click.Group):
        shown = CliRunner().invoke(cli, [*path, "--help"], terminal_width=80).output
        listed = shown.partition("Commands:")[2].partition("Examples:")[0]
        assert listed
        assert "..." not in listed


def test_a_misspelt_command_is_answered_with_the_right_one() -> None:
    assert "did you mean 'apply'?" in kubewright("aply").stderr.lower()


def test_no_cluster_is_a_clear_error(tmp_path: Path) -> None:
    done = kubewright("status", "--kubeconfig", str(tmp_path / "none"), "-o", "json")
    assert done.returncode == 10
    assert json.loads(done.stderr)["message"] == f"{tmp_path}/none: no such kubeconfig file"
    refused = tmp_path / "config"
    server = {"server": "https://127.0.0.1:1", "insecure-skip-tls-verify": True}
    refused.write_text(json.dumps({
        "current-context": "c", "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
        "clusters": [{"name": "c", "cluster": server}],
        "users": [{"name": "u", "user": {}}],
    }))  # fmt: skip
    done = kubewright("check", "--kubeconfig", str(refused))
    assert done.returncode == 32
    assert done.stdout == ""
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_completion_scripts(shell: str) -> None:
    done = kubewright("completion", shell)
    assert done.returncode == 0
    assert "_KUBEWRIGHT_COMPLETE" in done.stdout


def test_completion_knows_the_commands() -> None:
    done = kubewright(
        env={"_KUBEWRIGHT_COMPLETE": "zsh_complete", "COMP_WORDS": "kubewright ap", "COMP_CWORD": "1"}
    )
    # click names the variable after the program; `python -m` is called the same here.
    assert "apply" in done.stdout


@pytest.mark.parametrize(
    ("line", "wanted"),
    [
        ("kubewright tok", {"token"}),
        ("kubewright token ", {"create", "delete", "generate", "list"}),
        ("kubewright certs renew apiserver-", {"apiserver-etcd-client", "apiserver-kubelet-client"}),
        ("kubewright certs renew all --csr", {"--csr-dir", "--csr-only"}),
        ("kubewright kubeconfig user --cl", {"--client-name"}),
        ("kubewright version -o s", {"short"}),
    ],
)
def test_bash_completes_down_to_options(line: str, wanted: set[str]) -> None:
    """The script itself, in a bash that is given a command line as readline gives it."""
    words = line.split() + ([""] if line.endswith(" ") else [])
    script = (
        'program() { "$PYTHON" -m kubewright "$@"; }\n'
        'source /dev/stdin <<<"$(program completion bash | sed "s/\\$1)/\\"\\$PYTHON\\" -m kubewright)/")"\n'
        'COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _kubewright_completion kubewright\n'
        'printf "%s\\n" "${COMPREPLY[@]}"'
    )
    done = subprocess.run(
        ["bash", "-c", script, "bash", *words], capture_output=True, text=True, timeout=30, check=True,
        env=os.environ | {"PYTHON": sys.executable},
    )  # fmt: skip
    assert set(done.stdout.split()) == wanted, done.stderr


def test_kubeadms_old_names_are_there_and_not_shown() -> None:
    assert "alpha" not in CliRunner().invoke(cli, ["--help"]).output
    for old in (["certs", "renew", "all"], ["kubeconfig", "user"], ["certs", "certificate-key"]):
        assert CliRunner().invoke(cli, ["alpha", *old, "--help"]).exit_code == 0


WAITS = """
import asyncio, sys
from kubewright.cli.common import run
from kubewright.cli.report import report

async def workflow(events):
    async with events.workflow("wait", "wait for ever"):
        try:
            events.note("ready")
            await asyncio.sleep(60)
        finally:
            await asyncio.sleep(CLEAN)
            events.note("cleaned up")

try:
    run(workflow, output="text")
except BaseException as error:
    sys.exit(report(error))
"""


def waiting(clean: float) -> subprocess.Popen[str]:
    script = WAITS.replace("CLEAN", str(clean))
    process = subprocess.Popen([sys.executable, "-c", script], stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    for line in process.stderr:
        if "ready" in line:
            return process
    raise AssertionError("it never began")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_lets_a_run_clean_up_and_ends_with_130(number: signal.Signals) -> None:
    process = waiting(0.1)
    process.send_signal(number)
    _, err = process.communicate(timeout=10)
    assert process.returncode == 130
    assert "cleaned up" in err
    assert err.rstrip().endswith("interrupted; run the same command again to go on")
    assert "Traceback" not in err


def test_a_second_signal_ends_the_cleaning_up_too() -> None:
    process = waiting(60)
    process.send_signal(signal.SIGINT)
    assert process.stderr is not None
    assert "cleaning up" in process.stderr.readline()
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=10)
    assert process.returncode == 130


def test_a_reader_who_goes_away_is_no_error() -> None:
    done = subprocess.run(
        ["bash", "-c", f"set -o pipefail; {sys.executable} -m kubewright completion zsh | head -c 1 >/dev/null"],
        capture_output=True, text=True, check=False, timeout=30,
    )  # fmt: skip
    assert "Traceback" not in done.stderr
    assert "Exception ignored" not in done.stderr
