"""Before a conversion goes on: kubelets that a run which was killed has stopped, to start them anew, run again."""

from __future__ import annotations

from collections.abc import Sequence

from kubewright.events import Events
from kubewright.model.conversion import Record
from kubewright.phases.node import Node
from kubewright.phases.restore_run import KubeletStarted
from kubewright.workflows.fleet import on_all


async def wake(nodes: Sequence[Node], record: Record, events: Events) -> None:
    """Start those that do not run, of the Nodes that there were: the check, which follows, waits for them."""

    async def start(node: Node) -> None:
        phase = KubeletStarted(node)
        if await phase.look():
            await phase.run(events)

    await on_all({node.name: start(node) for node in nodes if node.name in record.nodes})
