"""Where `apply` takes Nodes out: the dead before others come, those that live when all others serve."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from kubewright.clients.kube import KubeClient
from kubewright.model.pki import CA
from kubewright.phases.node import Node
from kubewright.workflows.any_plane import any_plane
from kubewright.workflows.remove import Staying
from kubewright.workflows.strays import Strays, make_room

if TYPE_CHECKING:
    from kubewright.workflows.apply_run import ApplyRun


async def clear_the_way(run: ApplyRun, is_gone: Callable[[str], bool]) -> None:
    """Before anybody joins: take out dead Nodes that the file names no more, and what is left of dead hosts whose
    names new ones have. Nothing where no API answers: there is no cluster yet, or it is starting."""
    async with any_plane(run.planes) as (through, kube, _):
        if through is None or kube is None:
            return
        stay = _staying(run, kube, through)
        found = Strays(stay, run.spec, is_gone)
        await found.remove_dead()
        run.leaving = await found.serving()
        for node in run.nodes:
            await make_room(stay, node)


async def remove_strays(run: ApplyRun, kube: KubeClient, through: Node) -> bool:
    """When all others serve: take out the Nodes that the file names no more; whether there were any."""
    before = len(run.outcome.changes)
    await Strays(_staying(run, kube, through), run.spec).remove_all()
    return len(run.outcome.changes) > before


def _staying(run: ApplyRun, kube: KubeClient, through: Node) -> Staying:
    async def without(name: str) -> None:
        run.leaving.pop(name, None)
        ca = await through.host.read_file(CA.cert_path(run.want.cluster.certificates_dir))
        if ca is not None:
            await run.endpoint.ensure(run.backends, ca)

    planes = [through, *(node for node in run.planes if node is not through)]
    return Staying(kube, planes, run.want.cluster, run.events, run.do, without)
