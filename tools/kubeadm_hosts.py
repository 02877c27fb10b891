"""Hosts on which kubeadm and we can make nodes alike: runtime, programs, kubelet unit and images are there.

The integration tests and bench/kubeadm.py begin with such hosts. It stands here because both may import from
tools, and neither from the other.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection

from kubewright.components.open import open_source
from kubewright.components.source import Form, Want
from kubewright.events import Events
from kubewright.hosts import FileWrite
from kubewright.model import kubelet
from kubewright.model.config.cluster import ClusterSpec, Role
from kubewright.phases.install import Images, Programs
from kubewright.phases.node import Node
from kubewright.phases.prepare import Kernel, Packages, Runtime
from kubewright.workflows.desired import KUBELET_PROGRAM, Artifacts, Desired
from kubewright.workflows.fleet import open_fleet

UNTIL_SIGNED = """
for i in $(seq 600); do
  kubectl --kubeconfig /etc/kubernetes/admin.conf -n kube-public get configmap cluster-info -o yaml 2>/dev/null |
    grep -q jws-kubeconfig && exit 0
  sleep 0.1
done
exit 1
"""
"""A script that waits until the controller manager has signed cluster-info: before that nobody can join."""


async def prepare(spec: ClusterSpec, *, control_planes: Collection[str] = ()) -> None:
    """Put on all hosts of a cluster.yaml what a node needs before kubeadm or we initialise it, and kubeadm itself.

    The images of a control plane go to the hosts named in `control_planes`, by default to all.
    """
    source, events = open_source(spec.source), Events()
    want = await Desired.of(spec, source)
    artifacts = Artifacts(source, events)

    async def one(node: Node) -> None:
        more = [
            Want(name, want.cluster.kubernetes_version, node.facts.arch, Form.BINARY)
            for name in ("kubeadm", "kubectl")
        ]
        programs = list(dict.fromkeys([*want.programs(node), *more]))
        is_control_plane = not control_planes or node.name in control_planes
        first, rest = want.node_images(_as_control_plane(node) if is_control_plane else node)
        await artifacts.fetch([*programs, *first, *rest])
        for phase in (
            Packages(node), Kernel(node),
            Runtime(node, pause_image=want.images["pause"], cgroup_driver="cgroupfs"),
            Programs(node, artifacts.of(programs)), Images(node, artifacts.of([*first, *rest])),
        ):  # fmt: skip
            await phase.run(events)
        await node.host.write_files(
            [
                FileWrite(kubelet.UNIT_PATH, kubelet.kubelet_unit(KUBELET_PROGRAM)),
                FileWrite(kubelet.DROP_IN_PATH, kubelet.kubelet_drop_in(KUBELET_PROGRAM)),
            ]
        )
        await node.host.shell("systemctl daemon-reload && systemctl enable -q kubelet")

    async with open_fleet(spec, None, events) as nodes, asyncio.TaskGroup() as group:
        for node in nodes:
            group.create_task(one(node))


def _as_control_plane(node: Node) -> Node:
    """The same node in the role of a control plane."""
    spec = node.spec.model_copy(update={"roles": [Role.CONTROL_PLANE]})
    return Node(spec, node.host, node.facts, node.ip)
