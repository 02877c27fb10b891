"""What `apply` and `lab up` say at the end: the nodes, the kubeconfig, and what to type next."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from kubewright.cli.common import program
from kubewright.cli.status_text import node_table
from kubewright.cli.table import faint
from kubewright.clients import kubeconfig
from kubewright.clients.kube import KubeClient
from kubewright.clients.kubeconfig import Merged
from kubewright.clients.server import Server
from kubewright.errors import KubewrightError, leaves
from kubewright.model.status import NodeStatus
from kubewright.workflows.status import read_nodes

if TYPE_CHECKING:
    from kubewright.model.config.cluster import ClusterSpec
    from kubewright.workflows.apply import Outcome

_PATIENCE = 5.0
"""Seconds for reading the nodes: the summary is no place to wait."""


def print_summary(spec: ClusterSpec, outcome: Outcome, *, which: str, kubectl: str = "") -> None:
    """Print the summary of a run.

    `which` are the arguments that name this cluster to `status` and `check`; `kubectl` is a command of ours that
    runs one in the cluster, for a computer that has none.
    """
    nodes = _nodes(outcome)
    lines = node_table(nodes) if nodes else [f"nodes: {', '.join(host.name for host in spec.hosts)}"]
    click.echo("\n".join([*lines, "", *next_lines(outcome.kubeconfig, outcome.context, which, kubectl)]))


def next_lines(file: Path | None, merged: Merged | None, which: str, kubectl: str = "") -> list[str]:
    """Where the kubeconfig is and what to type next, the shortest way that works."""
    places = []
    if merged:
        current = "the current one" if merged.current else "not the current one"
        places.append(f"{_short(merged.path)}  context {merged.context}, {current}")
    if file:
        places.append(_short(file))
    me = program()
    if not shutil.which("kubectl"):
        command = f"{me} {kubectl}" if kubectl else ""
    elif merged:
        command = "kubectl" if merged.current else f"kubectl --context {merged.context}"
    else:
        command = f"kubectl --kubeconfig {file}" if file else ""
    commands = [f"{command} get nodes" if command else "", f"{me} status{which}", f"{me} check{which}"]
    return [*_labelled("kubeconfig", places), *_labelled("next", [line for line in commands if line])]


def _short(path: Path) -> str:
    home = Path.home()
    return f"~/{path.relative_to(home)}" if path.is_relative_to(home) else str(path)


def _labelled(label: str, values: Sequence[str]) -> list[str]:
    return [f"{faint((label if index == 0 else '').ljust(12))}{value}" for index, value in enumerate(values)]


def _nodes(outcome: Outcome) -> tuple[NodeStatus, ...]:
    """The nodes as the API has them; none where it does not answer this computer (behind SSH alone)."""
    if outcome.kubeconfig:
        files, context = [outcome.kubeconfig], ""
    elif outcome.context:
        files, context = [outcome.context.path], outcome.context.context
    else:
        return ()
    try:
        server = Server.from_kubeconfig(kubeconfig.load(files), context=context)
        return asyncio.run(_read(server))
    except (KubewrightError, TimeoutError, ExceptionGroup) as error:
        if any(not isinstance(leaf, KubewrightError | TimeoutError) for leaf in leaves(error)):
            raise
        return ()


async def _read(server: Server) -> tuple[NodeStatus, ...]:
    async with asyncio.timeout(_PATIENCE), KubeClient(server, timeout=_PATIENCE) as kube:
        return await read_nodes(kube)
