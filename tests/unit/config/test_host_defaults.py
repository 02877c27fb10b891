"""Defaults that depend on the host: its name, address, container runtime, and the taints of its role."""

from __future__ import annotations

from typing import Any

import pytest
from tests.unit.config.kubeadm_files import FULL, TOKEN, text_of

from kubewright.errors import ConfigError
from kubewright.model.config.documents import default_documents, read_documents
from kubewright.model.config.host_defaults import HostDefaults, cluster_on, init_on, join_on
from kubewright.model.config.kubeadm_nodes import InitConfiguration, JoinConfiguration
from kubewright.model.versions import facts_for
from kubewright.secret import Secret

HOST = HostDefaults("CP1.Example.org", "192.0.2.11", "/run/containerd/containerd.sock")


def init_of(**fields: Any) -> InitConfiguration:
    kind = {"apiVersion": "kubeadm.k8s.io/v1beta3", "kind": "InitConfiguration", **fields}
    init = read_documents(text_of([kind])).init
    assert init is not None
    return init


@pytest.mark.parametrize(
    ("version", "keys"),
    [
        ("v1.20.2", ["node-role.kubernetes.io/master"]),
        ("v1.24.0", ["node-role.kubernetes.io/control-plane", "node-role.kubernetes.io/master"]),
        ("v1.31.0", ["node-role.kubernetes.io/control-plane"]),
    ],
)
def test_a_control_plane_gets_what_nobody_said_from_its_host(version: str, keys: list[str]) -> None:
    init = default_documents(version).init
    assert init is not None
    found = init_on(init, HOST, facts_for(version), Secret(TOKEN))
    node = found.node_registration
    assert (node.name, node.cri_socket) == ("cp1.example.org", "/run/containerd/containerd.sock")
    assert sorted(taint.key for taint in node.taints or []) == keys
    assert found.local_api_endpoint.advertise_address == "192.0.2.11"
    assert found.bootstrap_tokens[0].token == Secret(TOKEN)


def test_what_is_said_stays() -> None:
    init = init_of(
        nodeRegistration={"name": "n1", "criSocket": "/x.sock", "taints": []},
        localAPIEndpoint={"advertiseAddress": "192.0.2.99"},
        bootstrapTokens=[{"token": TOKEN}],
    )
    assert init_on(init, HOST, facts_for("v1.20.2"), Secret("x" * 6 + "." + "y" * 16)) == init


def test_any_address_is_that_of_the_default_route_and_there_must_be_one() -> None:
    init = init_of(localAPIEndpoint={"advertiseAddress": "0.0.0.0"})
    facts = facts_for("v1.20.2")
    assert init_on(init, HOST, facts).local_api_endpoint.advertise_address == "192.0.2.11"
    with pytest.raises(ConfigError, match="no default route"):
        init_on(init, HostDefaults("cp1"), facts)


def test_a_host_name_that_no_node_can_have_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"nodeRegistration\.name: 'my_host'.*'my-host' would do"):
        init_on(InitConfiguration(), HostDefaults("My_Host", "192.0.2.1"), facts_for("v1.20.2"))


def test_only_a_control_plane_that_joins_is_tainted() -> None:
    join = read_documents(text_of([FULL["v1beta3"][2]])).join
    assert join is not None
    facts = facts_for("v1.20.2")
    worker = JoinConfiguration(discovery=join.discovery)
    assert join_on(worker, HOST, facts).node_registration.taints is None
    control_plane = JoinConfiguration(discovery=join.discovery, control_plane=join.control_plane)
    taints = join_on(control_plane, HOST, facts).node_registration.taints
    assert [taint.key for taint in taints or []] == ["node-role.kubernetes.io/master"]


def test_an_endpoint_without_a_port_has_that_of_the_first_control_plane() -> None:
    kind = {
        "apiVersion": "kubeadm.k8s.io/v1beta3",
        "kind": "ClusterConfiguration",
        "controlPlaneEndpoint": "api",
    }
    cluster = read_documents(text_of([kind])).cluster
    assert cluster is not None
    init = init_of(localAPIEndpoint={"bindPort": 7443})
    assert cluster_on(cluster, init).control_plane_endpoint == "api:7443"
