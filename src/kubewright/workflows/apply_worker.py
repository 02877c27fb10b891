"""The workers of one `apply`: prepared beside the control planes, and joined when the API answers."""

from __future__ import annotations

import asyncio

from kubewright.model import x509
from kubewright.model.objects import to_yaml
from kubewright.model.pki import CA
from kubewright.phases.bootstrap import Issuer
from kubewright.phases.join import Join
from kubewright.phases.kubelet_join import KUBELET_CONF
from kubewright.phases.node import Node
from kubewright.phases.phase import Action, Change
from kubewright.workflows.apply_run import ApplyRun
from kubewright.workflows.fleet import AbandonedError


async def worker(run: ApplyRun, node: Node) -> None:
    """All that a worker needs, and its Node."""
    try:
        changed = await run.prepare(node)
        async with asyncio.TaskGroup() as before:
            before.create_task(run.images(node, first=True))
            before.create_task(run.proxy(node))
        async with asyncio.TaskGroup() as group:
            group.create_task(run.images(node, first=False))
            group.create_task(_join(run, node, changed))
    finally:
        run.imported[node.name].set()  # whoever waits for it need not wait for a host that failed


async def _join(run: ApplyRun, node: Node, program_changed: bool) -> None:
    # In a plan for hosts without a cluster there is no API to ask, and the join is all there is to say.
    try:
        kube, ca = await asyncio.shield(run.api)
    except AbandonedError:
        if run.dry and not await node.host.stat_files([KUBELET_CONF], digest=False):
            run.outcome.changes.append(Change(Action.RUN, "join the cluster", node.name))
        raise
    want = run.want
    join = Join(
        node,
        endpoint=run.outcome.endpoint,
        token=run.token.text,
        ca_hashes=[x509.ca_hash(ca)],
        facts=want.facts,
        kubelet_files=lambda text: want.kubelet_files(node, text),
        admin=kube,
        issuer=None if (authority := await run.authority()) is None else Issuer(kube, authority),
        ca_path=CA.cert_path(want.cluster.certificates_dir),
    )
    if any(change.action is Action.RUN for change in await run.do(join)):
        if not run.dry:
            run.joined.append(node)
    else:
        config = to_yaml(want.kubelet_config(run.lead)).decode()
        # A kubelet registers its Node when it starts: one whose Node was deleted must start again.
        unknown = await kube.get("v1", "Node", node.name) is None
        files = want.kubelet_files(node, config)
        await run.kubelet(node, files, program_changed=program_changed or unknown)
    await run.do(run.marks(kube, node))
