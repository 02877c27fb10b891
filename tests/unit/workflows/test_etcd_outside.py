"""etcd on hosts of its own in one `apply`: what the API servers are told while one of its hosts is away."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from tests.unit.phases.memory_host import MemoryHost
from tests.unit.phases.test_etcd_host_phases import FACTS, Etcd, Machine

from kubewright.events import Events
from kubewright.hosts import FileWrite
from kubewright.model.config.cluster import ClusterSpec
from kubewright.model.config.kubeadm import default_cluster_configuration
from kubewright.model.config.load import parse_cluster
from kubewright.model.etcd_unit import MEMBER_DIR, UNIT_PATH
from kubewright.model.manifests import API_SERVER, manifest_path
from kubewright.model.versions import facts_for
from kubewright.phases.node import Node
from kubewright.phases.phase import Change, Phase
from kubewright.workflows.desired import Desired
from kubewright.workflows.etcd_hosts import OutsideEtcd

URLS = [f"https://192.0.2.{number}:2379" for number in (1, 2, 3)]
MANIFEST = """apiVersion: v1
kind: Pod
spec:
  containers:
  - name: kube-apiserver
    command: [kube-apiserver, "--etcd-servers={}"]
"""


def cluster(second: str, further: str = "") -> ClusterSpec:
    return parse_cluster(
        f"""hosts:
- {{name: cp1, address: 192.0.2.9, roles: [control-plane]}}
- {{name: e1, address: e1.example.com, roles: [etcd]}}
- {{name: e2, address: {second}{further}, roles: [etcd]}}
- {{name: e3, address: e3.example.com, roles: [etcd]}}
"""
    )


async def outside(spec: ClusterSpec, *reachable: int, used: Sequence[str] = URLS) -> list[str]:
    """The endpoints that API servers are to have, with the hosts of these members reachable."""

    async def do(_: Phase) -> Sequence[Change]:
        return []

    plane = MemoryHost()
    if used:
        path = manifest_path(API_SERVER)
        plane.files[path] = FileWrite(path, MANIFEST.format(",".join(used)).encode())
    nodes = [Node(spec.hosts[0], plane, FACTS, "192.0.2.9")]
    for number in reachable:
        host = Machine(Etcd(), number)
        host.active = True
        host.files = {path: FileWrite(path, b"") for path in (MEMBER_DIR, UNIT_PATH)}
        nodes.append(Node(spec.hosts[number], host, FACTS, host.address))
    version = default_cluster_configuration(spec)
    want = Desired(spec, version, facts_for(version.kubernetes_version), {}, False)
    etcd = OutsideEtcd(want, nodes, do, Events(), dry=True)
    await etcd.check()
    external = etcd.want.cluster.etcd.external
    assert external is not None
    return external.endpoints


@pytest.mark.parametrize("address", ["e2.example.com", "198.51.100.2"])
async def test_a_host_that_is_away_changes_no_api_server(address: str) -> None:
    """It is known by a name, or by an address that is not the one of its member."""
    assert await outside(cluster(address), 1, 2, 3) == URLS
    assert await outside(cluster(address), 1, 3) == URLS


async def test_an_address_that_the_file_gives_a_member_counts() -> None:
    moved = cluster("e2.example.com", ", nodeIP: 192.0.2.7")
    assert await outside(moved, 1, 3) == [URLS[0], "https://192.0.2.7:2379", URLS[2]]
