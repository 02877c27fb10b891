"""`kubewright node`: let a Node take no Pods, drain it, or take it out of its cluster."""

from __future__ import annotations

import click

from kubewright.cli.node_remove import remove
from kubewright.cli.output import output_option
from kubewright.cli.target import Selection, target_options


@click.group()
def node() -> None:
    """Drain a cluster's nodes, and take them out of it."""


def _drain_options(function: click.decorators.FC) -> click.decorators.FC:
    """The options that say how a Node is drained."""
    from kubewright.cli.node_remove import FORCE, GRACE, TIMEOUT

    return TIMEOUT(GRACE(FORCE(function)))


@node.command(
    epilog="""\b
Examples:
  kubewright node drain w1
  kubewright node drain w1 -f cluster.yaml --timeout 10m"""
)
@click.argument("name", metavar="NAME")
@_drain_options
@click.option("--dry-run", is_flag=True, help="Only say which Pods would leave.")
@target_options
@output_option("text", "json")
def drain(
    selection: Selection,
    name: str,
    timeout: float,
    grace_period: int | None,
    force: bool,
    dry_run: bool,
    output: str,
) -> None:
    """Let a node's Pods leave, and no new ones come.

    Each is evicted, which heeds PodDisruptionBudgets; those of DaemonSets and static Pods stay, for they belong to
    the node. What an emptyDir holds goes with its Pod. The node takes Pods again after `kubewright node uncordon`.
    """
    from kubewright.cli.node_remove import run_phase
    from kubewright.phases.drain import Drain

    run_phase(
        selection,
        lambda kube: Drain(kube, name, deadline=timeout, grace=grace_period, force=force),
        output=output,
        dry=dry_run,
        done=f"Node {name} is drained.",
    )


def _closing(command: str, closed: bool, title: str, example: str) -> click.Command:
    @click.command(command, help=title, epilog=f"\b\nExamples:\n  {example}")
    @click.argument("name", metavar="NAME")
    @target_options
    @output_option("text", "json")
    def close(selection: Selection, name: str, output: str) -> None:
        from kubewright.cli.node_remove import run_phase
        from kubewright.phases.drain import Cordon

        takes = "no new Pods" if closed else "Pods"
        run_phase(
            selection,
            lambda kube: Cordon(kube, name, closed=closed),
            output=output,
            dry=False,
            done=f"Node {name} takes {takes}.",
        )

    return close


node.add_command(
    _closing("cordon", True, "Let no new Pods come to a node.", "kubewright node cordon w1 -f cluster.yaml")
)
node.add_command(_closing("uncordon", False, "Let Pods come to a node again.", "kubewright node uncordon w1"))
node.add_command(remove)
