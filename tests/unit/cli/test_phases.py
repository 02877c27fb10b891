"""The `phase` subcommands that are made from a tree, and the options that node commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result

from kubewright.cli.node import ListOption, NodeOptions, node_options
from kubewright.cli.phases import PhasedCommand, PhaseOption, skip_phases_option
from kubewright.errors import KubewrightError
from kubewright.workflows.tree import Step

CALLS: list[dict[str, Any]] = []

STEPS: tuple[Step[None], ...] = (
    Step("preflight", "Check the host", flags=("bind-port", "only-phases")),
    Step(
        "certs",
        "Make certificates",
        flags=("cert-dir", "bind-port"),
        steps=(Step("ca", "Make the CA", flags=("cert-dir",)), Step("server", "Make the server's")),
    ),
    Step("etcd", "Write etcd", steps=(Step("local", "Write the local etcd"),), all_at_once=False),
    Step("secret", "Nobody sees this", hidden=True),
    Step("upload-config", "Upload it", aliases=("uploadconfig",)),
)


@click.command(cls=PhasedCommand, steps=f"{__name__}:STEPS")
@click.argument("endpoint", default="")
@click.option("--cert-dir", default="/pki")
@click.option("--bind-port", type=int, default=6443)
@click.option("--sans", cls=ListOption)
@click.option("--nothing")
@click.option("--flag", is_flag=True)
@click.option("--only-phases", cls=PhaseOption)
@skip_phases_option
@node_options("dry-run", "ignore-preflight-errors", "config")
def command(**given: Any) -> None:
    """Make something."""
    CALLS.append(given)


def call(*args: str) -> dict[str, Any]:
    CALLS.clear()
    result = CliRunner().invoke(command, args, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return CALLS.pop()


def refused(*args: str) -> Result:
    CALLS.clear()
    result = CliRunner().invoke(command, args)
    assert result.exit_code != 0
    assert not CALLS
    return result


def test_the_command_itself() -> None:
    given = call(
        "10.0.0.1:6443", "--cert-dir", "/x", "--sans", "a,b", "--sans=c", "--skip-phases=certs/ca,etcd"
    )
    assert given["only"] == ""
    assert given["endpoint"] == "10.0.0.1:6443"
    assert given["sans"] == ("a", "b", "c")
    assert given["skip_phases"] == ("certs/ca", "etcd")
    assert given["node"] == NodeOptions()


@pytest.mark.parametrize(
    "words", [["extra", "more"], ["10.0.0.1:6443", "extra"], ["10.0.0.1:6443", "phase", "certs", "ca"]]
)
def test_a_word_too_many_runs_nothing(words: list[str]) -> None:
    assert "unexpected extra argument" in refused(*words).output


def test_options_before_the_word_phase_are_the_phases() -> None:
    given = call("--cert-dir", "/x", "--dry-run", "phase", "certs", "ca")
    assert (given["only"], given["cert_dir"], given["node"].dry_run) == ("certs/ca", "/x", True)
    assert "No such option" in refused("--flag", "phase", "certs", "ca").output


def test_one_phase_with_its_own_options_and_the_others_defaults() -> None:
    given = call("phase", "certs", "ca", "--cert-dir", "/x", "--dry-run", "--host", "root@h:2222")
    assert given["only"] == "certs/ca"
    assert (given["cert_dir"], given["bind_port"], given["endpoint"], given["sans"]) == ("/x", 6443, "", ())
    assert (given["nothing"], given["flag"], given["skip_phases"]) == (None, False, ())
    assert given["node"].dry_run
    assert given["node"].host == "root@h:2222"
    assert given["node"].said == {"dry_run", "host"}


def test_all_of_a_phase() -> None:
    assert call("phase", "certs", "all", "--bind-port", "1")["only"] == "certs"
    assert call("phase", "etcd", "local")["only"] == "etcd/local"
    assert call("phase", "secret")["only"] == "secret"
    assert "no command 'all'" in refused("phase", "etcd", "all").output


def test_a_phase_takes_only_its_options() -> None:
    assert "--bind-port" in refused("phase", "certs", "ca", "--bind-port", "1").output
    assert "--skip-phases" in refused("phase", "certs", "all", "--skip-phases", "certs/ca").output


def test_an_option_of_phases_alone() -> None:
    assert call("phase", "preflight", "--only-phases", "x")["only_phases"] == "x"
    assert call()["only_phases"] is None
    assert "--only-phases" in refused("--only-phases", "x").output
    assert "--only-phases" not in CliRunner().invoke(command, ["--help"]).output


def test_unknown_phases_are_named() -> None:
    assert "did you mean 'certs'" in refused("phase", "cert").output.replace("\n", " ")
    error = refused("--skip-phases", "server").exception
    assert isinstance(error, KubewrightError)
    assert "did you mean 'certs/server'" in error.message


def test_help_lists_phases_in_their_order_without_the_hidden() -> None:
    text = CliRunner().invoke(command, ["phase", "--help"]).output
    assert text.index("preflight") < text.index("certs") < text.index("etcd")
    assert "secret" not in text
    text = CliRunner().invoke(command, ["phase", "certs"]).output
    assert text.index("  all") < text.index("  ca ") < text.index("  server")


def test_the_commands_help_lists_the_paths_of_its_phases() -> None:
    """As kubeadm's does: `--skip-phases` takes them."""
    text = CliRunner().invoke(command, ["--help"]).output
    _, _, listed = text.partition("Phases, as --skip-phases takes them:\n")
    assert [line.strip().split(", ") for line in listed.splitlines()] == [
        ["preflight"],
        ["certs", "certs/ca", "certs/server"],
        ["etcd", "etcd/local"],
        ["upload-config"],
    ]


def test_ssh_options_need_a_host() -> None:
    assert "--host" in refused("--ssh-key", "k").output
    node = call(
        "--host", "h", "--ssh-key", "k", "--ssh-key", "l", "--ignore-preflight-errors", "Swap,Port-6443"
    )["node"]
    assert node.ssh_keys == (Path("k"), Path("l"))
    assert node.ignore_preflight_errors == ("Swap", "Port-6443")


@pytest.mark.parametrize(
    ("host", "address", "port", "user"),
    [
        ("10.0.0.1", "10.0.0.1", 22, None),
        ("root@cp1:2222", "cp1", 2222, "root"),
        ("me@[fd00::1]:22", "fd00::1", 22, "me"),
        ("fd00::1", "fd00::1", 22, None),
    ],
)
def test_where_the_host_is(host: str, address: str, port: int, user: str | None) -> None:
    from kubewright.cli.node import _host_spec

    spec = _host_spec(NodeOptions(host=host), "cp1")
    assert (spec.address, spec.ssh.port, spec.ssh.user, spec.name) == (address, port, user, "cp1")
    assert _host_spec(NodeOptions(host=host), "").name == address


@pytest.mark.parametrize("host", ["@", "root@", "h:0", "h:x", "local"])
def test_hosts_that_are_none(host: str) -> None:
    from kubewright.cli.node import _host_spec

    with pytest.raises(KubewrightError, match="--host"):
        _host_spec(NodeOptions(host=host), "cp1")


def test_a_phase_has_second_names() -> None:
    assert call("phase", "uploadconfig")["only"] == "upload-config"
    assert "uploadconfig" not in CliRunner().invoke(command, ["phase", "--help"]).output
