"""`kubewright check`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from kubewright.cli.output import output_option, print_document
from kubewright.cli.target import Selection, target_options

if TYPE_CHECKING:
    from kubewright.workflows.check_plan import Report


@click.command(
    epilog="""\b
Examples:
  kubewright check
  kubewright check -f cluster.yaml
  kubewright check -o json | jq '.results[] | select(.ok | not)'"""
)
@target_options
@click.option(
    "--image",
    default="",
    metavar="REFERENCE",
    help="Image with the probe program; default: the pod network's.",
)
@output_option("text", "json", "yaml")
def check(selection: Selection, image: str, output: str) -> None:
    """Test a cluster: its pod network, services, NodePorts, DNS and API, from every node.

    Pods are started on every node, in a namespace that is removed again, also after Ctrl-C. The cluster is the
    one of -f, else of --kubeconfig or --context, else of KUBECONFIG, else the lab `default`.

    The exit code is 0 if everything works on every node, and 31 if anything does not.
    """
    from kubewright.cli.check_text import report_lines
    from kubewright.cli.common import run
    from kubewright.cli.target import connect
    from kubewright.errors import ExitCode, KubewrightError
    from kubewright.events import Events
    from kubewright.workflows.check import CheckOptions
    from kubewright.workflows.check import check as workflow_check
    from kubewright.workflows.check_diagnosis import diagnose

    async def workflow(events: Events) -> Report:
        async with connect(selection) as target:
            return await workflow_check(target.kube, events, CheckOptions(image=image))

    report = run(workflow, output=output, stream=False)
    diagnosis = diagnose(report)
    if output == "text":
        click.echo("\n".join(report_lines(report)))
    else:
        print_document(report.as_dict(diagnosis), output)
    if not report.ok:
        raise KubewrightError(
            _summary(report),
            evidence=diagnosis,
            hint="`kubewright status` shows the state of nodes and pods",
            exit_code=ExitCode.CHECK_FAILED,
        )


def _summary(report: Report) -> str:
    failed, absent = len(report.failures), len(report.absent)
    checks = f"{failed or 'none'} of {len(report.results)} checks failed"
    return f"{absent} of {len(report.nodes)} nodes took no part, {checks}" if absent else checks
