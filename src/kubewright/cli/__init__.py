"""The command line: a table of commands whose modules are imported when they are called, and not before."""

from __future__ import annotations

import os
import signal
import sys
from typing import Any

import click

from kubewright.cli.lazy import LazyGroup
from kubewright.cli.verbosity import to_the_front, verbosity_option


class Root(LazyGroup):
    """The top of the command line: whatever goes wrong below becomes a message and an exit code here."""

    def make_context(
        self, info_name: str | None, args: list[str], *more: Any, **kwargs: Any
    ) -> click.Context:
        """Read our own options; see `invoke` for errors."""
        try:
            return super().make_context(info_name, to_the_front(args), *more, **kwargs)
        except click.UsageError as error:
            raise _usage(error) from None

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; every error is `cli.report`'s to show."""
        try:
            return super().invoke(ctx)
        except click.UsageError as error:
            raise _usage(error, output=ctx.meta.get("kubewright.output", "")) from None
        except (click.exceptions.Exit, click.ClickException, BrokenPipeError):
            raise
        except BaseException as error:
            from kubewright.cli.report import report  # imported late: most runs need no error's text

            raise click.exceptions.Exit(report(error, output=ctx.meta.get("kubewright.output", ""))) from None


def _usage(error: click.UsageError, *, output: str = "") -> Exception:
    """A wrong command line, in the form of all our errors; where no command was given, click shows the help."""
    if type(error).__name__ == "NoArgsIsHelpError":  # not in click 8.1, which prints the help by itself
        return error
    from kubewright.cli.report import report
    from kubewright.errors import ExitCode, KubewrightError

    words = error.format_message().split()  # click lists choices on lines of their own
    message = " ".join(words).removesuffix(".")
    path = error.ctx.command_path if error.ctx else "kubewright"
    mine = KubewrightError(
        message[:1].lower() + message[1:], hint=f"see {path} --help", exit_code=ExitCode.USAGE
    )
    return click.exceptions.Exit(report(mine, output=output))


def _print_version(ctx: click.Context, _param: click.Parameter, value: bool) -> None:
    if value and not ctx.resilient_parsing:
        from kubewright import __version__

        click.echo(f"kubewright {__version__}")
        ctx.exit()


def _quiet(ctx: click.Context, _param: click.Parameter, value: bool) -> None:
    ctx.meta["kubewright.quiet"] = value


cli = Root(
    "kubewright",
    help="Build Kubernetes clusters on machines that you own, and keep them alive.",
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    params=[
        click.Option(
            ["--version"], is_flag=True, is_eager=True, expose_value=False, callback=_print_version,
            help="Print the version and exit.",
        ),
        click.Option(
            ["-q", "--quiet"], is_flag=True, expose_value=False, callback=_quiet,
            help="Show no progress: results, warnings and errors only.",
        ),
        verbosity_option(),
    ],
    lazy={
        "adopt": ("kubewright.cli.adopt:adopt", "Write the cluster.yaml of a cluster that is there."),
        "alpha": ("kubewright.cli.alpha:alpha", "Names that certs and kubeconfig had in kubeadm 1.20."),
        "apply": ("kubewright.cli.cluster:apply", "Make the hosts of a cluster.yaml a cluster, or mend it."),
        "certs": ("kubewright.cli.certs:certs", "Look after the certificates of a control plane."),
        "check": ("kubewright.cli.check:check", "Test a cluster's networks, DNS and API from every node."),
        "completion": ("kubewright.cli.completion:completion", "Print the completion script of a shell."),
        "config": ("kubewright.cli.config:config", "Work with configuration files and their schema."),
        "convert": ("kubewright.cli.convert:convert", "Make a cluster that runs highly available."),
        "doctor": ("kubewright.cli.doctor:doctor", "Find what is wrong with a cluster or a node, and why."),
        "help": ("kubewright.cli.help:help_command", "Print the help of a command."),
        "init": ("kubewright.cli.init:init", "Make a host the first control plane of a new cluster."),
        "join": ("kubewright.cli.join:join", "Make a host a node of a cluster that exists."),
        "kubeconfig": ("kubewright.cli.kubeconfig:kubeconfig", "Make kubeconfigs."),
        "lab": ("kubewright.cli.lab:lab", "Make and remove clusters of machines on this computer."),
        "node": ("kubewright.cli.node_group:node", "Drain a cluster's nodes, and take them out of it."),
        "plan": ("kubewright.cli.cluster:plan", "Say what apply would change on which host."),
        "preflight": ("kubewright.cli.preflight:preflight", "Check the hosts of a cluster.yaml, and mend them."),
        "reset": ("kubewright.cli.reset:reset", "Take a host out of its cluster: undo what init or join did."),
        "status": ("kubewright.cli.status:status", "Show a cluster's nodes and the health of its parts."),
        "token": ("kubewright.cli.token:token", "Manage the tokens by which nodes join a cluster."),
        "upgrade": ("kubewright.cli.upgrade:upgrade", "Bring a cluster to a newer version."),
        "version": ("kubewright.cli.version:version", "Print the version."),
    },
    aliases={"certificates": "certs"},
    hidden={"alpha"},
)  # fmt: skip


def main() -> None:
    """Run `kubewright`; the process ends with a code of docs/exit-codes.md."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        cli.main(prog_name="kubewright")
    except BrokenPipeError:
        # The reader went away (`kubewright … | head`): what it did not want to read is no error. Standard output
        # is pointed elsewhere, so that the interpreter's last flush does not complain either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
