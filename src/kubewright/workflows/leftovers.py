"""What an interrupted `init` left on its host: the next one goes on with what it would write itself (P34)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from kubewright.model import kubeconfig, manifests
from kubewright.model.arguments import ETCD_CLIENT_PORT, ETCD_PEER_PORT
from kubewright.model.node_preflight import KUBELET_PORT, NodeChecks
from kubewright.model.objects import Object, to_yaml
from kubewright.model.pod_meaning import same_pod
from kubewright.phases.node import Node


async def without_own(node: Node, checks: NodeChecks, pods: Mapping[str, Object], port: int) -> NodeChecks:
    """The checks without the files and ports that belong to this very `init`.

    A static Pod's manifest is one of ours if it says what we would write: then it may be there, and its ports may
    be taken. Whoever asks for something else on a host that has a control plane is refused as ever (P35). `port`
    is the API server's.
    """
    kubelet_conf = f"{kubeconfig.KUBERNETES_DIR}/{kubeconfig.KUBELET}"
    paths = {name: manifests.manifest_path(name) for name in pods}
    found = await node.host.read_files([*paths.values(), kubelet_conf])
    own = {
        name for name, path in paths.items() if path in found and same_pod(found[path], to_yaml(pods[name]))
    }
    ports_of = {
        manifests.API_SERVER: (port,),
        manifests.CONTROLLER: (manifests.CONTROLLER_PORT,),
        manifests.SCHEDULER_POD: (manifests.SCHEDULER_PORT,),
        manifests.ETCD: (ETCD_CLIENT_PORT, ETCD_PEER_PORT),
    }
    ports = {number for name in own for number in ports_of[name]}
    if f"system:node:{node.name}" in _users(found.get(kubelet_conf, b"{}")):
        ports.add(KUBELET_PORT)
    return replace(
        checks,
        ports=tuple(number for number in checks.ports if number not in ports),
        absent_files=tuple(path for path in checks.absent_files if path not in {paths[name] for name in own}),
        empty_directories=() if manifests.ETCD in own else checks.empty_directories,
    )


def _users(content: bytes) -> list[str]:
    """The names of a kubeconfig's users."""
    entries = kubeconfig.load(content, kubeconfig.KUBELET).get("users") or []
    return [str(entry.get("name")) for entry in entries if isinstance(entry, dict)]
