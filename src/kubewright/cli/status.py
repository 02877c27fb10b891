"""`kubewright status`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from kubewright.cli.output import output_option, print_document
from kubewright.cli.target import Selection, target_options

if TYPE_CHECKING:
    from kubewright.events import Events
    from kubewright.model.status_report import StatusReport
    from kubewright.workflows.status import StatusReader

_A_MOMENT = 1.0
"""Seconds that a look may take without a word."""


@click.command(
    epilog="""\b
Examples:
  kubewright status
  kubewright status -f cluster.yaml
  kubewright status -f cluster.yaml --watch
  kubewright status -o json | jq -r '.problems[]'"""
)
@target_options
@click.option("-w", "--watch", is_flag=True, help="Look again and again, until it is interrupted.")
@click.option(
    "--interval",
    type=click.FloatRange(min=0.5, max=3600),
    default=2.0,
    show_default=True,
    metavar="SECONDS",
    help="The pause between two looks of --watch.",
)
@output_option("text", "json", "yaml")
def status(selection: Selection, watch: bool, interval: float, output: str) -> None:
    """Show a cluster's nodes, the health of its parts, and what is wrong with it.

    The cluster is the one of -f, else of --kubeconfig or --context, else of KUBECONFIG, else the lab `default`.
    With -f the hosts are asked over SSH as well: for etcd, certificates and load balancers, and for what they know
    when no API server answers.

    The exit code is 0 if the cluster could be read, healthy or not: see "healthy" in -o json, or use `check`.
    """
    from kubewright.cli.common import run
    from kubewright.cli.status_text import status_lines

    if watch:
        from kubewright.cli.status_watch import watch_status

        watch_status(lambda: _reader(selection), interval=interval, output=output)
        return

    async def workflow(events: Events) -> StatusReport:
        async with _reader(selection) as reader:
            return await _read(reader, events)

    found = run(workflow, output=output, stream=False)
    if output == "text":
        click.echo("\n".join(status_lines(found)))
    else:
        print_document(found.as_dict(), output)


async def _read(reader: StatusReader, events: Events) -> StatusReport:
    """One look, which is spoken of where it takes longer than a moment. Raises what it raises."""
    import asyncio

    look = asyncio.ensure_future(reader.read())
    try:
        if not (await asyncio.wait([look], timeout=_A_MOMENT))[0]:
            async with events.phase("status-ask", "ask the API and the hosts"):
                return await look
        return await look
    finally:
        look.cancel()  # where we are cancelled ourselves
        await asyncio.wait([look])


def _reader(selection: Selection) -> StatusReader:
    """Whoever can say something about the cluster that is meant."""
    from kubewright.cli.target import known_servers, kubeconfig_files
    from kubewright.clients import kubeconfig
    from kubewright.clients.server import Server
    from kubewright.workflows.status import StatusReader

    if selection.file is not None:
        from kubewright.model.config.load import load_cluster

        spec = load_cluster(selection.file)
        return StatusReader(known_servers(spec, selection.file), spec)
    files, _ = kubeconfig_files(selection)
    return StatusReader([Server.from_kubeconfig(kubeconfig.load(files), context=selection.context)])
