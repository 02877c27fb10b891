"""`kubewright doctor`."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from kubewright.cli.node import NodeOptions, node_options
from kubewright.cli.output import output_option, print_document

if TYPE_CHECKING:
    from kubewright.events import Events
    from kubewright.hosts import Host
    from kubewright.model.doctor.finding import Fix
    from kubewright.workflows.doctor import Doctor, Examination


@click.command(
    epilog="""\b
Examples:
  kubewright doctor -f cluster.yaml
  kubewright doctor --host root@192.168.7.11
  kubewright doctor -f cluster.yaml --fix
  kubewright doctor -f cluster.yaml --collect bundle.tar.gz
  kubewright doctor --explain P37
  kubewright doctor -f cluster.yaml -o json | jq -r '.findings[].cause'"""
)
@click.option(
    "-f",
    "--file",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Look at all hosts of this cluster.yaml; default: at this host, or the one of --host, alone.",
)
@node_options()
@click.option(
    "--fix", is_flag=True, help="Mend what can be mended safely; ask before what interrupts service."
)
@click.option("-y", "--yes", is_flag=True, help="With --fix: do not ask.")
@click.option(
    "--collect",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Write what was seen into this tar.gz file, without secrets.",
)
@click.option(
    "--explain", default="", metavar="ID", help="Print the page of a pitfall, such as P37, and end."
)
@output_option("text", "json", "yaml")
def doctor(
    node: NodeOptions,
    file: Path | None,
    fix: bool,
    yes: bool,
    collect: Path | None,
    explain: str,
    output: str,
) -> None:
    """Find what is wrong with a cluster, or with one of its nodes, and why.

    Hosts are asked over SSH, whether an API server answers or not. Causes are named, with what was seen, what they
    break and what mends them; what only follows from a cause is not. Nothing is changed without --fix.

    The exit code is 0 if nothing was found, 35 if there are warnings alone, and 36 if something is broken.
    """
    if explain:
        from kubewright.model.pitfalls import page

        click.echo(page(explain), nl=False)
        return
    if file is not None and node.host:
        raise click.UsageError("-f names all hosts already: leave --host out")
    if yes and not fix:
        raise click.UsageError("--yes is for --fix")
    from kubewright.cli.doctor_text import examination_lines
    from kubewright.workflows.doctor_fix import offered

    found = _examine(file, node, output)
    if fix and (chosen := _chosen(offered(found.findings), yes)):
        _repair(file, node, chosen, found)
        found = _examine(file, node, output)
    if collect is not None:
        from kubewright.workflows.doctor_bundle import contents, write_bundle

        write_bundle(collect, contents(found))
        click.echo(f"what was seen is in {collect}", err=True)
    if output == "text":
        click.echo("\n".join(examination_lines(found)))
    else:
        print_document(found.as_dict(), output)
    if found.exit_code:
        raise click.exceptions.Exit(int(found.exit_code))


def _examine(file: Path | None, node: NodeOptions, output: str) -> Examination:
    from kubewright.cli.common import run
    from kubewright.workflows.doctor import examined

    @asynccontextmanager
    async def whom(events: Events) -> AsyncIterator[Doctor]:
        async with _opened(file, node, events) as (one, _):
            yield one

    return run(lambda events: examined(whom(events), events), output=output, stream=False)


def _repair(file: Path | None, node: NodeOptions, fixes: list[Fix], found: Examination) -> None:
    from kubewright.cli.common import run
    from kubewright.workflows.doctor_fix import repair

    async def workflow(events: Events) -> None:
        async with _opened(file, node, events) as (_, hosts):
            await repair(fixes, hosts, found.facts, events)

    # Progress goes to standard error: standard output is the report's.
    run(workflow, stream=True)


@asynccontextmanager
async def _opened(
    file: Path | None, node: NodeOptions, events: Events
) -> AsyncIterator[tuple[Doctor, dict[str, Callable[[], Host]]]]:
    """Whom to ask, and how each host is reached."""
    from functools import partial

    from kubewright.hosts.open import open_host
    from kubewright.workflows.doctor import Doctor

    if file is not None:
        from kubewright.cli.target import known_servers
        from kubewright.model.config.load import load_cluster

        spec = load_cluster(file)
        async with Doctor.of_cluster(spec, known_servers(spec, file)) as one:
            yield one, {host.name: partial(open_host, host, spec.ssh) for host in spec.hosts}
        return
    from kubewright.cli.node import opened_node

    async with AsyncExitStack() as stack:
        async with events.phase("connect", "connect and look"):
            opened = await stack.enter_async_context(opened_node(node, is_node=True))
        own = opened.spec.model_copy(update={"node_ip": opened.ip})
        host = opened.host
        async with Doctor.of_host(own, lambda: host) as one:
            yield one, {host.name: lambda: host}


def _chosen(fixes: list[Fix], yes: bool) -> list[Fix]:
    """Those to do: all that interrupt nothing, and of the others what the user agrees to."""
    chosen = []
    for fix in fixes:
        if not fix.interrupts or yes:
            chosen.append(fix)
        elif not sys.stdin.isatty():
            click.echo(
                f"{fix.host}: left out, for nobody can be asked: {fix.title} ({fix.interrupts})", err=True
            )
        elif click.confirm(f"{fix.host}: {fix.title}? {fix.interrupts}", default=False, err=True):
            chosen.append(fix)
    return chosen
