"""`kubewright status`."""

from __future__ import annotations

import click

from kubewright.cli.output import output_option, print_document
from kubewright.cli.target import Selection, target_options


@click.command(
    epilog="""\b
Examples:
  kubewright status
  kubewright status -f cluster.yaml
  kubewright status -o json | jq -r '.problems[]'"""
)
@target_options
@output_option("text", "json", "yaml")
def status(selection: Selection, output: str) -> None:
    """Show a cluster's nodes, the health of its parts, and what is wrong with it.

    The cluster is the one of -f, else of --kubeconfig or --context, else of KUBECONFIG, else the lab `default`.
    The exit code is 0 if the cluster could be read, healthy or not: see "healthy" in -o json, or use `check`.
    """
    from kubewright.cli.common import run
    from kubewright.cli.status_text import status_lines
    from kubewright.cli.target import connect
    from kubewright.events import Events
    from kubewright.model.status import ClusterStatus
    from kubewright.workflows.status import read_status

    async def workflow(_events: Events) -> ClusterStatus:
        async with connect(selection) as target:
            return await read_status(target.kube)

    found = run(workflow, output=output, stream=False)
    if output == "text":
        click.echo("\n".join(status_lines(found)))
    else:
        print_document(found.as_dict(), output)
