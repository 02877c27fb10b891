"""`kubewright node remove`, and what the commands of `kubewright node` share."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from kubewright.cli.output import output_option, print_document
from kubewright.errors import ConfigError, ExitCode

if TYPE_CHECKING:
    from kubewright.cli.target import Selection
    from kubewright.clients.kube import KubeClient
    from kubewright.events import Events
    from kubewright.phases.phase import Change, Phase
    from kubewright.workflows.node_remove import Outcome


def _seconds(_ctx: click.Context, param: click.Parameter, value: str) -> float:
    """A duration as Kubernetes' tools write it (90s, 5m), in seconds."""
    from kubewright.model.config.duration import parse_duration

    try:
        found = parse_duration(value) / 1e9
    except ValueError as error:
        raise click.BadParameter(str(error), param=param) from None
    if found <= 0:
        raise click.BadParameter("it must be more than nothing", param=param)
    return found


TIMEOUT = click.option(
    "--timeout", default="5m", show_default=True, metavar="DURATION", callback=_seconds,
    help="How long to wait for the node's Pods to leave, such as 90s or 10m.",
)  # fmt: skip
GRACE = click.option(
    "--grace-period", type=click.IntRange(min=0), default=None, metavar="SECONDS",
    help="A Pod's time to end; default: its own.",
)  # fmt: skip
FORCE = click.option(
    "--force", is_flag=True, help="Delete Pods, too, that no controller would make anew elsewhere."
)


@click.command(
    epilog="""\b
Examples:
  kubewright node remove w2 -f cluster.yaml
  kubewright node remove cp3 -f cluster.yaml --dry-run
  kubewright node remove cp2 -f cluster.yaml --gone --yes"""
)
@click.argument("name", metavar="NAME")
@click.option(
    "-f", "--file", "file", type=click.Path(path_type=Path), default=Path("cluster.yaml"), show_default=True,
    metavar="FILE", help="The cluster's description, with this node or without.",
)  # fmt: skip
@click.option(
    "--gone", is_flag=True, help="The host is gone for good: do not look for it, and do not reset it."
)
@TIMEOUT
@GRACE
@FORCE
@click.option("--dry-run", is_flag=True, help="Only say what would be done.")
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@output_option("text", "json")
def remove(
    name: str,
    file: Path,
    gone: bool,
    timeout: float,
    grace_period: int | None,
    force: bool,
    dry_run: bool,
    yes: bool,
    output: str,
) -> None:
    """Take a node out of its cluster.

    It is drained, its API server goes from behind the endpoint and stops, its member leaves etcd, never at the
    cost of a majority, and its host is reset. A host that is dead is taken out through the others. A run that was
    interrupted is finished by the same command.
    """
    from kubewright.cli.common import run
    from kubewright.model.config.load import load_cluster
    from kubewright.workflows.node_remove import remove_node
    from kubewright.workflows.remove import DrainOptions

    spec = load_cluster(file)
    options = DrainOptions(timeout, grace_period, force)

    def once(dry: bool, stream: bool) -> Outcome:
        def work(events: Events) -> Any:
            return remove_node(spec, name, events, options=options, gone=gone, dry=dry)

        outcome: Outcome = run(work, output=output, stream=stream)
        return outcome

    asks = not (yes or dry_run)
    if asks and not sys.stdin.isatty():
        raise ConfigError(
            f"this takes Node {name} out of its cluster and resets its host, and nobody can be asked here: "
            "standard input is no terminal",
            hint="look first with --dry-run, then say --yes", exit_code=ExitCode.USAGE,
        )  # fmt: skip
    if dry_run or asks:
        planned = once(dry=True, stream=False)
        if output == "json":
            print_document(_document(planned), output)
        else:
            print_changes(planned.changes)
            for line in _kept_lines(planned, "What the reset of its host leaves alone, and why:"):
                click.echo(line)
        if dry_run:
            return
        if not click.confirm(f"Remove Node {name}?", default=False, err=True):
            raise click.exceptions.Exit(ExitCode.FAILURE)
    done = once(dry=False, stream=True)
    if output == "text":
        for line in _words(done, file):
            click.echo(line)


def _document(planned: Outcome) -> dict[str, Any]:
    """The plan as plain data."""
    return {
        "changes": [change.as_dict() for change in planned.changes],
        "kept": [kept.as_dict() for kept in planned.kept],
    }


def _kept_lines(outcome: Outcome, title: str) -> list[str]:
    return [title, *(f"  {kept}" for kept in outcome.kept)] if outcome.kept else []


def _words(done: Outcome, file: Path) -> list[str]:
    """What a user must know afterwards."""
    lines = [f"Node {done.name} has left its cluster."]
    if done.host_reset:
        lines.append("Its host is reset; docs/reset.md lists what stays there, and why.")
    lines += _kept_lines(done, "The reset has left alone, and why:")
    if done.in_file:
        lines.append(f"{file} still names it: take it out there, or the next apply makes it a node again.")
    if done.kubeconfig_may_name_it:
        lines.append("A kubeconfig may lead to its API server: the next apply gives you one that does not.")
    if done.control_planes and done.control_planes % 2 == 0:
        lines.append(
            f"{done.control_planes} control planes are left: no more of them may fail than with one fewer (P01)."
        )
    return lines


def print_changes(changes: Sequence[Change]) -> None:
    """A line for each change, as a dry run shows them."""
    if not changes:
        click.echo("nothing to do")
    for change in changes:
        host = f"{change.host}: " if change.host else ""
        click.echo(f"  {change.action:<6} {host}{change.target}")


def run_phase(
    selection: Selection,
    phase: Callable[[KubeClient], Phase],
    *,
    output: str,
    dry: bool,
    done: str,
) -> None:
    """Run one phase on the cluster that is meant, and say how it ended; with `dry` only look."""
    from kubewright.cli.common import run
    from kubewright.cli.target import connect

    async def work(events: Events) -> list[Change]:
        async with connect(selection) as target:
            one = phase(target.kube)
            return list(await (one.look() if dry else one.run(events)))

    changes = run(work, output=output, stream=not dry)
    if dry and output == "json":
        print_document({"changes": [change.as_dict() for change in changes]}, output)
    elif dry:
        print_changes(changes)
    elif output == "text":
        click.echo(done)
