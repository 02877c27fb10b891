"""The static Pods that a control plane has after an upgrade."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from kubewright.clients.paths import Object
from kubewright.model import manifests, pki
from kubewright.model import upgrade as model
from kubewright.model.config.kubeadm_types import ClusterConfiguration
from kubewright.model.patches import Patch, patched
from kubewright.model.reset import container_flags
from kubewright.model.versions import facts_for
from kubewright.phases.controlplane import ca_directories
from kubewright.phases.node import Node


async def wanted_pods(
    node: Node,
    cluster: ClusterConfiguration,
    before: Mapping[str, Mapping[str, Any]],
    patches: Sequence[Patch],
) -> dict[str, Object]:
    """A control plane's static Pods at the version of `cluster`, by name.

    Out of those that it has (`before`) come its address, its proxies, and the members that its etcd joined.
    """
    facts = facts_for(cluster.kubernetes_version)
    api_server = before[manifests.API_SERVER]
    certificate, key = (pki.CA.cert_path(cluster.certificates_dir), pki.CA.key_path(cluster.certificates_dir))
    found = await node.host.stat_files([certificate, key], digest=False)
    pods = manifests.static_pods(
        cluster,
        model.control_plane_node(node.name, api_server),
        facts,
        ca_dirs=await ca_directories(node.host),
        etcd_members=model.etcd_members(container_flags(before.get(manifests.ETCD, {}))),
        external_ca=certificate in found and key not in found,
        proxy_env=model.proxy_environment(api_server),
    )
    return {name: patched(name, pod, patches) for name, pod in pods.items()}
