"""`kubewright adopt`: a cluster.yaml for a cluster that is there."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from kubewright.cli.node import NodeOptions, node_options
from kubewright.errors import ConfigError, ExitCode

if TYPE_CHECKING:
    from kubewright.events import Events
    from kubewright.model.config.cluster import ClusterSpec

_MODE = 0o600
"""Arguments of servers are in the file, and some of them are nobody else's business."""


@click.command(
    epilog="""\b
Examples:
  kubewright adopt --host root@192.168.7.11
  kubewright adopt --host admin@cp1.example.com -f clusters/shop.yaml
  kubewright adopt -f - | less"""
)
@click.option(
    "-f", "--file", "file", type=click.Path(path_type=Path, allow_dash=True), default=Path("cluster.yaml"),
    show_default=True, metavar="FILE", help="Where to write it; '-' is standard output.",
)  # fmt: skip
@click.option("--force", is_flag=True, help="Replace FILE if it is there.")
@node_options("kubeconfig")
def adopt(file: Path, force: bool, node: NodeOptions) -> None:
    """Write the cluster.yaml of a cluster that Kubewright did not make.

    The cluster, such as one of kubeadm's, is read through one of its control planes: this computer, or --host.
    Nothing is changed there. What the file cannot say, and what was guessed, is told on standard error: read that,
    and what `plan` says of the file, before the first `apply`.
    """
    from kubewright.cli.common import program, run
    from kubewright.cli.upgrade_shared import opened_with_api
    from kubewright.workflows.adopt import adopt as workflow

    to_file = str(file) != "-"
    if to_file and not force and file.exists():
        raise ConfigError(
            f"{file} is there already", exit_code=ExitCode.USAGE,
            hint="write to another file (-f), or replace this one (--force)",
        )  # fmt: skip

    async def work(events: Events) -> tuple[str, ClusterSpec]:
        async with opened_with_api(node) as (through, kube):
            return await workflow(through, kube, events)

    text, spec = run(work, stream=False)
    if not to_file:
        click.echo(text, nl=False)
        return
    from kubewright.clients.filelock import replace_file

    replace_file(file, text.encode(), mode=_MODE)
    counts = [
        f"{count} {title}{'' if count == 1 else 's'}"
        for count, title in ((len(spec.control_planes), "control plane"), (len(spec.workers), "worker"))
        if count
    ]
    click.echo(f"{file} describes cluster {spec.name}: {', '.join(counts)}.")
    click.echo(f"Look before you apply it:\n  {program()} status -f {file}\n  {program()} plan -f {file}")
