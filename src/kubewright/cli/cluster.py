"""`kubewright plan` and `kubewright apply`: a cluster.yaml against its hosts."""

from __future__ import annotations

from pathlib import Path

import click

from kubewright.cli.common import run
from kubewright.cli.node import ListOption
from kubewright.cli.output import output_option, print_document

FILE = click.option(
    "-f", "--file", "file", type=click.Path(path_type=Path), default=Path("cluster.yaml"), show_default=True,
    metavar="FILE", help="The cluster's description.",
)  # fmt: skip

KUBECONFIG = click.option(
    "--kubeconfig", "kubeconfig", type=click.Path(path_type=Path), default=None, metavar="FILE",
    help="Write the administrator's kubeconfig to this file, too.",
)  # fmt: skip
MERGE = click.option(
    "--merge/--no-merge", default=True, show_default=True,
    help="Add the cluster as a context to the kubeconfig that kubectl reads.",
)  # fmt: skip
_CONTENT = click.option(
    "--content", is_flag=True,
    help="Show the content of new files and objects, too; what differs in others is always shown.",
)  # fmt: skip


IGNORE = click.option(
    "--ignore-preflight-errors", "ignore", cls=ListOption, metavar="CHECKS",
    help="Checks whose errors are warnings, separated by commas: Swap,PortReach; 'all' for all that have a name.",
)  # fmt: skip


@click.command(
    epilog="""\b
Examples:
  kubewright apply -f cluster.yaml
  kubewright apply -f cluster.yaml --dry-run
  kubewright apply -f cluster.yaml -o json | jq -r .message"""
)
@FILE
@click.option("--dry-run", is_flag=True, help="Only say what would change, as `kubewright plan` does.")
@_CONTENT
@KUBECONFIG
@MERGE
@IGNORE
@output_option("text", "json")
def apply(
    file: Path,
    dry_run: bool,
    content: bool,
    kubeconfig: Path | None,
    merge: bool,
    ignore: tuple[str, ...],
    output: str,
) -> None:
    """Make the hosts of a cluster.yaml a cluster, or mend it.

    What is there already is looked at and kept; a run that was killed is finished by the next. With -o json
    the run is a stream of events, one JSON object a line.
    """
    if content and not dry_run:
        raise click.UsageError("--content is for --dry-run")
    if dry_run:
        _plan(file, content, ignore, output)
        return
    from kubewright.model.config.load import load_cluster
    from kubewright.model.node_preflight import ignored_checks
    from kubewright.workflows.apply import apply as workflow

    spec = load_cluster(file)
    ignored = ignored_checks(ignore)
    outcome = run(
        lambda events: workflow(
            spec, events, kubeconfig_out=kubeconfig, merge_kubeconfig=merge, ignored=ignored
        ),
        output=output,
    )
    if output == "text":
        from kubewright.cli.summary import print_summary

        print_summary(spec, outcome, which=f" -f {file}")


@click.command(
    epilog="""\b
Examples:
  kubewright plan -f cluster.yaml
  kubewright plan -f cluster.yaml -o json | jq '.changes[] | select(.host == "w1")'"""
)
@FILE
@_CONTENT
@IGNORE
@output_option("text", "json", "yaml")
def plan(file: Path, content: bool, ignore: tuple[str, ...], output: str) -> None:
    """Say what apply would change on which host; nothing is changed.

    The exit code is 0 whether or not there is something to change; `-o json` tells the two apart.
    """
    _plan(file, content, ignore, output)


def _plan(file: Path, content: bool, ignore: tuple[str, ...], output: str) -> None:
    from kubewright.model.config.load import load_cluster
    from kubewright.model.node_preflight import ignored_checks
    from kubewright.workflows.apply import plan as workflow

    spec = load_cluster(file)
    ignored = ignored_checks(ignore)
    outcome = run(lambda events: workflow(spec, events, ignored=ignored), output=output, stream=False)
    if output != "text":
        print_document(
            {"cluster": spec.name, "changes": [change.as_dict() for change in outcome.changes]}, output
        )
        return
    if not outcome.changes:
        click.echo(f"cluster {spec.name}: nothing to do")
        return
    by_host: dict[str, list[str]] = {}
    for change in outcome.changes:
        lines = by_host.setdefault(change.host or "the cluster", [])
        lines.append(f"  {change.action:<6} {change.target}")
        if content or change.action != "create":
            lines += [f"         {line}" for line in change.diff]
    for host, lines in by_host.items():
        click.echo(host)
        click.echo("\n".join(lines))
    count = len(outcome.changes)
    click.echo(f"\n{count} {'change' if count == 1 else 'changes'}; `kubewright apply -f {file}` makes them")
