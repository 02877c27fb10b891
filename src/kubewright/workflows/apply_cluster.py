"""What `apply` does in the cluster itself: its objects, once, and waiting until all of it runs."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

from kubewright.clients.kube import KubeClient
from kubewright.model import kubeconfig, stored
from kubewright.model.manifests import API_SERVER, manifest_path
from kubewright.model.own_network import OWN_CNI_FILE
from kubewright.phases.controllers import ControllersUp
from kubewright.phases.gone import GoneNodes
from kubewright.phases.kubelet_finalize import NetworkReported, StaticPodsReported
from kubewright.phases.local_kubeconfig import LocalKubeconfig
from kubewright.phases.node import Node
from kubewright.phases.nodes import NodesReady
from kubewright.phases.objects import Objects
from kubewright.phases.rollout import Rollout
from kubewright.workflows.apply_run import ApplyRun
from kubewright.workflows.apply_strays import remove_strays


class Cluster:
    """The cluster of one run, reached through the first control plane that answers."""

    def __init__(self, run: ApplyRun) -> None:
        self._run = run
        self.through: Node | None = None
        """The control plane that gives the cluster its objects."""

    async def reached(self, node: Node, kube: KubeClient, ca: bytes, admin: bytes) -> None:
        """A control plane answers. The first to do so gives the cluster its objects, on behalf of all."""
        if self.through is not None:
            return
        self.through = node
        run = self._run
        try:
            run.admin = kubeconfig.load(admin, kubeconfig.ADMIN)
            known = None
            if run.want.facts.cluster_status_kept:
                config = await kube.get("v1", "ConfigMap", stored.KUBEADM_CONFIG, "kube-system")
                known = stored.cluster_status_in(config)
            objects = run.want.bootstrap_objects(node, ca, known)
            await run.do(Objects(kube, objects, "upload-config", "upload the configuration"))
            run.api.set_result((kube, ca))
        finally:
            run.give_up(run.api)
        addons = {
            "kube-proxy": (run.want.proxy_objects(node), "deploy kube-proxy"),
            "network": (run.want.network_objects(node), "deploy the pod network"),
        }
        async with asyncio.TaskGroup() as group:
            group.create_task(run.endpoint.check(node, ca, must_answer=True))
            # A Pod that finds its image missing waits for its next turn, longer each time.
            for imported in run.imported.values():
                await imported.wait()
            for name, (items, title) in addons.items():
                group.create_task(run.do(Objects(kube, items, name, title)))

    async def settle(self, is_gone: Callable[[str], bool]) -> None:
        """Wait until all of it runs.

        DNS comes when all nodes can take Pods: its replicas go to different ones then, and stay there (P05).
        """
        run, kube = self._run, await self._run.kube()
        assert self.through is not None
        await run.do(ControllersUp(self.through, kube, run.want.leases()))
        await run.do(GoneNodes(kube, is_gone))
        network = OWN_CNI_FILE if run.want.has_network else ""
        async with asyncio.TaskGroup() as group:
            for node in run.planes:
                # A Pod whose manifest was changed is away for a moment, and its kubelet need not be told.
                if not run.has_updated(node, manifest_path(API_SERVER)):
                    group.create_task(run.do(StaticPodsReported(node, kube, network=network)))
            for node in run.joined if network else ():
                group.create_task(run.do(NetworkReported(node, kube, network=network)))
        if run.want.has_network:
            await run.do(NodesReady(kube, run.nodes))
        else:
            run.events.note("network.plugin is none: nodes become Ready when you install a pod network")
        await run.do(Objects(kube, run.want.dns_objects(), "dns", "deploy cluster DNS"))
        await run.do(Rollout(kube, run.want.workloads(), run.outcome.nodes))
        if await remove_strays(run, kube, self.through):
            await run.do(Rollout(kube, run.want.workloads(), run.outcome.nodes))
        await run.endpoint.settled()

    async def hand_over(self, out: Path | None, merge: bool) -> None:
        """The administrator's kubeconfig for this computer; nothing where there is no cluster yet."""
        run = self._run
        if run.dry or self.through is None or not run.admin:
            return
        admin = kubeconfig.with_server(run.admin, run.endpoint.admin_url(self.through))
        local = LocalKubeconfig(run.spec.name, admin, out, merge=merge)
        await run.do(local)
        if local.trouble is not None:
            run.events.warn(f"{local.trouble.message}; {local.trouble.hint}")
        run.outcome.kubeconfig = out
        run.outcome.context = local.merged
