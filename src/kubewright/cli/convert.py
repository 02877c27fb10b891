"""`kubewright convert`: a cluster that serves gets an endpoint, control planes behind it, or an etcd elsewhere."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from kubewright.cli.cluster import FILE, KUBECONFIG, MERGE
from kubewright.cli.output import output_option, print_document
from kubewright.errors import ConfigError, ExitCode

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from kubewright.model.config.cluster import ClusterSpec
    from kubewright.model.conversion import Mode
    from kubewright.workflows.convert_run import Report


@click.command(
    epilog="""\b
Examples:
  kubewright convert --to-ha -f cluster.yaml --dry-run
  kubewright convert --to-ha -f cluster.yaml
  kubewright convert --endpoint -f cluster.yaml
  kubewright convert --to-external-etcd -f cluster.yaml
  kubewright convert --restore 20261122-101500 -f cluster.yaml"""
)
@click.option(
    "--to-ha", "mode", flag_value="to-ha",
    help="Give the cluster the endpoint of FILE, and the control planes that FILE has besides.",
)  # fmt: skip
@click.option(
    "--endpoint", "mode", flag_value="endpoint",
    help="Give the cluster the endpoint of FILE, and no further control plane.",
)  # fmt: skip
@click.option(
    "--to-external-etcd", "mode", flag_value="to-external-etcd",
    help="Move etcd from the control planes to the hosts of FILE with the role etcd.",
)  # fmt: skip
@click.option("--restore", "backup_id", metavar="ID", help="Bring back what was before a conversion.")
@FILE
@click.option("--dry-run", is_flag=True, help="Only say what would be done.")
@click.option("-y", "--yes", is_flag=True, help="With --restore: do not ask.")
@KUBECONFIG
@MERGE
@output_option("text", "json")
def convert(
    mode: str | None,
    backup_id: str | None,
    file: Path,
    dry_run: bool,
    yes: bool,
    kubeconfig: Path | None,
    merge: bool,
    output: str,
) -> None:
    """Make a cluster that runs highly available, or move its etcd to hosts of its own, while it serves.

    All conditions are looked at first, and everything that will be changed is kept on its host: the command that
    brings it back is printed before the first change. A run that was interrupted is finished by the same command.
    """
    if (mode is None) == (backup_id is None):
        raise click.UsageError("say one of --to-ha, --endpoint, --to-external-etcd and --restore ID")
    from kubewright.cli.common import run
    from kubewright.model.config.load import load_cluster

    spec = load_cluster(file)
    if backup_id is not None:
        _restore(spec, backup_id, dry=dry_run, yes=yes, output=output)
        return
    from kubewright.model.conversion import Mode

    assert mode is not None
    workflow = _workflow(Mode(mode))
    report: Report = run(
        lambda events: workflow(
            spec, events, file=file, kubeconfig_out=kubeconfig, merge_kubeconfig=merge, dry=dry_run
        ),
        output=output, stream=not dry_run,
    )  # fmt: skip
    if output == "json":  # a run's last event has the report
        if dry_run:
            print_document(report.as_dict(), output)
        return
    for line in words(report, dry=dry_run):
        click.echo(line)
    if not dry_run and report.outcome is not None:
        from kubewright.cli.summary import print_summary

        click.echo()
        print_summary(spec, report.outcome, which=f" -f {file}")


def _restore(spec: ClusterSpec, backup_id: str, *, dry: bool, yes: bool, output: str) -> None:
    from kubewright.cli.common import run
    from kubewright.cli.node_remove import print_changes
    from kubewright.workflows.convert_restore import restore

    if not (yes or dry):
        _ask(backup_id)
    done = run(lambda events: restore(spec, backup_id, events, dry=dry), output=output, stream=not dry)
    if dry and output == "json":
        print_document({"changes": [change.as_dict() for change in done.changes]}, output)
    elif dry:
        print_changes(done.changes)
    elif output == "text":
        click.echo(f"The cluster is back at backup {backup_id}, and its API at {done.server}.")
        if done.reset:
            click.echo(f"Reset, for they came later: {', '.join(done.reset)}.")


def _workflow(mode: Mode) -> Callable[..., Coroutine[Any, Any, Report]]:
    """What is run for a mode."""
    from kubewright.model.conversion import Mode

    if mode is Mode.EXTERNAL_ETCD:
        from kubewright.workflows.convert_etcd import to_external_etcd

        return to_external_etcd
    from kubewright.workflows.convert import convert as workflow

    return lambda spec, events, **options: workflow(spec, mode, events, **options)


def _ask(backup_id: str) -> None:
    """Whoever goes back in time loses what came after."""
    what = f"this takes the cluster back to backup {backup_id}: what was written to its API since is lost"
    if not sys.stdin.isatty():
        raise ConfigError(
            f"{what}, and nobody can be asked here: standard input is no terminal",
            hint="look first with --dry-run, then say --yes", exit_code=ExitCode.USAGE,
        )  # fmt: skip
    if not click.confirm(f"{what[0].upper()}{what[1:]}. Go on?", default=False, err=True):
        raise click.exceptions.Exit(ExitCode.FAILURE)


def words(report: Report, *, dry: bool) -> list[str]:
    """The report: each stage, and what it changed where, in order."""
    lines: list[str] = []
    for stage in report.stages:
        lines.append(stage.title if dry else f"{stage.title} ({stage.seconds:.1f} s)")
        for change in stage.changes:
            where = f"{change.host}: " if change.host else ""
            lines.append(f"  {change.action:<6} {where}{change.target}")
    notes = ["", *report.notes] if report.notes else []
    if not lines:
        return [f"nothing to do: the cluster is reached at {report.after}", *notes]
    if report.before != report.after:
        lines += ["", f"The API is reached at {report.after}; before, it was at {report.before}."]
    return [*lines, *notes]
