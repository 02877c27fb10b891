"""A load balancer that cannot be reached, whose address for SSH is not the one that its clients use."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import pytest
from tests.unit.phases.memory_host import MemoryHost
from tests.unit.phases.test_endpoint_services import FACTS

from kubewright.clients.paths import Object
from kubewright.hosts import FileWrite
from kubewright.model import kubeconfig, stored
from kubewright.model.config.cluster import ClusterSpec
from kubewright.model.config.kubeadm import default_cluster_configuration, to_stored
from kubewright.model.pki import CA
from kubewright.model.versions import facts_for
from kubewright.phases.node import Node
from kubewright.phases.phase import Change, Phase
from kubewright.workflows import lost_balancers
from kubewright.workflows.desired import Desired
from kubewright.workflows.endpoint import Endpoint
from kubewright.workflows.lost_balancers import keep_lost

IPS = {"cp1": "10.0.0.1", "lb1": "10.0.0.5", "lb2": "10.0.0.6"}
"""Their own addresses; cluster.yaml has others, for SSH."""


def cluster(balancers: int, **endpoint: str) -> ClusterSpec:
    names = ["cp1", *(f"lb{number + 1}" for number in range(balancers))]
    hosts = [
        {"name": name, "address": IPS[name].replace("10.0.0", "192.0.2"),
         "roles": ["control-plane" if name == "cp1" else "load-balancer"]}
        for name in names
    ]  # fmt: skip
    return ClusterSpec.model_validate({"hosts": hosts, "endpoint": {"type": "haproxy", **endpoint}})


@dataclass
class Run:
    """What a run with these hosts reachable comes to."""

    endpoint: str
    names: list[str]


class Api:
    def __init__(self, config: Object | None) -> None:
        self.config = config
        self.asked = 0

    async def get(self, *_: Any) -> Object | None:
        self.asked += 1
        return self.config


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch) -> Api:
    """What answers for the cluster, if it is asked."""
    api = Api(None)

    @asynccontextmanager
    async def over(_: object) -> AsyncIterator[tuple[None, Api, list[str]]]:
        yield None, api, []

    monkeypatch.setattr(lost_balancers, "any_plane", over)
    return api


async def run(spec: ClusterSpec, *reachable: str, server: str = "") -> Run:
    """What certificates and kubeconfigs are given."""

    async def do(_: Phase) -> list[Change]:
        return []

    plane = MemoryHost()
    if server:
        admin = kubeconfig.KubeconfigSpec("admin.conf", server, "kubernetes", CA)
        document = kubeconfig.dump(kubeconfig.with_rotating_certificate(admin, b"ca"))
        plane.files["/etc/kubernetes/admin.conf"] = FileWrite("/etc/kubernetes/admin.conf", document.reveal())
    nodes = [Node(host, plane, FACTS, IPS[host.name]) for host in spec.hosts if host.name in reachable]
    version = default_cluster_configuration(spec)
    want = Desired(spec, version, facts_for(version.kubernetes_version), {}, False)
    spec, want = await keep_lost(spec, want, nodes)
    endpoint = Endpoint(spec, nodes, do)
    found = want.with_endpoint(endpoint.address, endpoint.names).cluster
    return Run(found.control_plane_endpoint, found.api_server.cert_sans)


def uploaded(spec: ClusterSpec, names: list[str]) -> Object:
    """`kubeadm-config`, with these names."""
    config = default_cluster_configuration(spec)
    config = config.model_copy(
        update={"api_server": config.api_server.model_copy(update={"cert_sans": names})}
    )
    return stored.kubeadm_config(to_stored(config), None)[0]


NAMES = ["lb1", "10.0.0.5", "lb2", "10.0.0.6"]


@pytest.mark.parametrize("lost", ["lb1", "lb2"])
async def test_certificates_keep_its_address(api: Api, lost: str) -> None:
    spec = cluster(2, address="api.example.com:6443")
    assert (await run(spec, *IPS)).names == NAMES
    assert api.asked == 0, "nothing but the hosts is needed"
    api.config = uploaded(spec, NAMES)
    assert (await run(spec, *(IPS.keys() - {lost}))).names == NAMES


async def test_without_an_answer_no_certificate_must_have_another_address(api: Api) -> None:
    spec = cluster(2, address="api.example.com:6443")
    assert (await run(spec, "cp1", "lb2")).names == ["lb1", "lb2", "10.0.0.6"]


async def test_the_endpoint_stays_where_it_is(api: Api) -> None:
    spec = cluster(1)
    assert (await run(spec, "cp1", "lb1")).endpoint == "10.0.0.5:6443"
    api.config = uploaded(spec, ["lb1"])
    found = await run(spec, "cp1", server="https://10.0.0.5:6443")
    assert (found.endpoint, found.names) == ("10.0.0.5:6443", ["lb1"])
