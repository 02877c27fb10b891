"""What only the cluster knows of load balancers that cannot be reached: cluster.yaml has their address for SSH,
which may be another than the one that clients use."""

from __future__ import annotations

from collections.abc import Sequence

from kubewright.model import kubeconfig, stored
from kubewright.model.config.cluster import ClusterSpec
from kubewright.model.config.endpoint import configured_address
from kubewright.model.objects import SYSTEM, read_mapping
from kubewright.phases.node import Node
from kubewright.workflows.any_plane import any_plane
from kubewright.workflows.desired import Desired
from kubewright.workflows.join_desired import cluster_configuration

_ADMIN = f"{kubeconfig.KUBERNETES_DIR}/{kubeconfig.ADMIN}"


async def keep_lost(spec: ClusterSpec, want: Desired, hosts: Sequence[Node]) -> tuple[ClusterSpec, Desired]:
    """Both with what the cluster has for load balancers that are not among `hosts`: the endpoint's address, where
    the file says none, and the names of API servers' certificates. Where no API answers, those stay as they are
    on the hosts, for a certificate may have more names than it must.
    """
    there = {node.name for node in hosts}
    if all(host.name in there for host in spec.load_balancers):
        return spec, want
    planes = [node for node in hosts if node.is_control_plane]
    if not configured_address(spec):
        spec = await _with_address(spec, planes)
    async with any_plane(planes) as (_, kube, _):
        config = kube and await kube.get("v1", "ConfigMap", stored.KUBEADM_CONFIG, SYSTEM)
    if config:
        want = want.with_names(cluster_configuration(config).api_server.cert_sans)
    return spec, want


async def _with_address(spec: ClusterSpec, planes: Sequence[Node]) -> ClusterSpec:
    """With the endpoint's address as a control plane of the cluster has it."""
    for node in planes:
        server = kubeconfig.first_server(read_mapping(await node.host.read_file(_ADMIN) or b"") or {})
        if spec.endpoint is not None and server:
            endpoint = spec.endpoint.model_copy(update={"address": server.removeprefix("https://")})
            return spec.model_copy(update={"endpoint": endpoint})
    return spec
