"""`kubewright preflight`: whether the hosts of a cluster.yaml are fit, and mending them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from kubewright.cli.cluster import FILE, IGNORE
from kubewright.cli.output import output_option, print_document

if TYPE_CHECKING:
    from kubewright.workflows.fleet_preflight import FleetReport


@click.command(
    epilog="""\b
Examples:
  kubewright preflight -f cluster.yaml
  kubewright preflight -f cluster.yaml --fix --dry-run
  kubewright preflight -f cluster.yaml -o json | jq '.findings[] | select(.fixable)'"""
)
@FILE
@click.option("--host", "hosts", multiple=True, metavar="NAME", help="Only what concerns this host of FILE.")
@click.option(
    "--fix", is_flag=True,
    help="Mend what can be mended: swap, kernel settings, SELinux' mode, ports in ufw and firewalld.",
)  # fmt: skip
@click.option("--dry-run", is_flag=True, help="With --fix: only say what would be changed.")
@IGNORE
@output_option("text", "json", "yaml")
def preflight(
    file: Path, hosts: tuple[str, ...], fix: bool, dry_run: bool, ignore: tuple[str, ...], output: str
) -> None:
    """Check the hosts of a cluster.yaml, and the ways between them, before or after apply.

    Everything that apply would refuse is told at once, with what mends it. Nothing is changed without --fix.
    For a moment new hosts listen on the ports that they will need, and other hosts connect to them.

    The exit code is 0 if all hosts are fit, and that of the first finding if any is not.
    """
    if dry_run and not fix:
        raise click.UsageError("--dry-run is for --fix: nothing else changes anything")
    from kubewright.cli.common import run
    from kubewright.errors import HostError
    from kubewright.model.config.load import load_cluster
    from kubewright.model.node_preflight import ignored_checks
    from kubewright.workflows.fleet_preflight import preflight_fleet

    spec = load_cluster(file)
    ignored = ignored_checks(ignore)
    report = run(
        lambda events: preflight_fleet(spec, events, hosts=hosts, ignored=ignored, fix=fix, dry=dry_run),
        output=output,
        stream=False,
    )
    if output == "text":
        click.echo("\n".join(report_lines(report, dry=dry_run)))
    else:
        print_document(report.as_dict(), output)
    if errors := report.errors:
        fixable = any(one.fix for one in errors) and not fix
        count = "one thing is" if len(errors) == 1 else f"{len(errors)} things are"
        raise HostError(
            f"cluster {report.cluster}: {count} wrong with its hosts", exit_code=errors[0].exit_code,
            hint=f"let `kubewright preflight -f {file} --fix` mend what it can" if fixable else "mend them",
        )  # fmt: skip


def report_lines(report: FleetReport, *, dry: bool = False) -> list[str]:
    """The report for a person: what was changed, then the findings, host by host."""
    from kubewright.cli.changes import change_lines

    lines = change_lines(report.changes)
    if lines:
        done = "would be changed; nothing was" if dry else "was changed"
        lines = [*lines, "", f"That {done}.", ""]
    host = ""
    for one in sorted(report.findings, key=lambda one: one.host):
        if one.host != host:
            host = one.host
            lines.append(host)
        name = f"{one.check}: " if one.check else ""
        lines.append(f"  {'error  ' if one.error else 'warning'}  {name}{one.message}")
        lines += [f"           {line}" for line in one.evidence]
        lines.append(f"           mend: {one.hint}" + ("  [--fix]" if one.fix else ""))
    errors, all_of_them = len(report.errors), len(report.findings)
    if all_of_them:
        warnings = all_of_them - errors
        lines += ["", f"{_count(errors, 'error')}, {_count(warnings, 'warning')}"]
    else:
        lines.append(f"cluster {report.cluster}: {_count(len(report.hosts), 'host')}, all fit")
    return lines


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"
