"""`endpoint` in a cluster.yaml: its two forms, what follows from it, and mistakes with their mend."""

# ruff: noqa: E501 (a mistake is a row of its table)
from __future__ import annotations

from typing import Any

import pytest
import yaml

from kubewright.errors import ConfigError, ExitCode
from kubewright.model.config.cluster import ClusterSpec
from kubewright.model.config.endpoint import (
    configured_address,
    endpoint_address,
    endpoint_hosts,
    endpoint_port,
)
from kubewright.model.config.kubeadm import default_cluster_configuration
from kubewright.model.config.load import parse_cluster

IPS = {
    "cp1": "10.0.0.1",
    "cp2": "10.0.0.2",
    "cp3": "10.0.0.3",
    "w1": "10.0.0.4",
    "lb1": "10.0.0.5",
    "lb2": "10.0.0.6",
}


def document(endpoint: Any = None, *, planes: int = 3, balancers: int = 0, **more: Any) -> dict[str, Any]:
    hosts: list[dict[str, Any]] = [
        {"name": f"cp{n}", "address": f"10.0.0.{n}", "roles": ["control-plane"]} for n in range(1, planes + 1)
    ]
    hosts.append({"name": "w1", "address": "10.0.0.4"})
    hosts += [
        {"name": f"lb{n}", "address": f"10.0.0.{4 + n}", "roles": ["load-balancer"]}
        for n in range(1, balancers + 1)
    ]
    return {"hosts": hosts} | ({"endpoint": endpoint} if endpoint is not None else {}) | more


def spec(endpoint: Any = None, **how: Any) -> ClusterSpec:
    return parse_cluster(yaml.safe_dump(document(endpoint, **how)))


def refusal(endpoint: Any = None, **how: Any) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        spec(endpoint, **how)
    return caught.value


def test_text_is_an_address_of_the_users_own() -> None:
    short, long = spec("api.example.com"), spec({"type": "external", "address": "api.example.com:6443"})
    assert short.endpoint == long.endpoint
    assert default_cluster_configuration(short).control_plane_endpoint == "api.example.com:6443"
    assert endpoint_hosts(short) == []


@pytest.mark.parametrize(
    ("endpoint", "how", "hosts", "address"),
    [
        ({"type": "haproxy"}, {"balancers": 1}, ["lb1"], "10.0.0.5:6443"),
        ({"type": "nginx"}, {"balancers": 1}, ["lb1"], "10.0.0.5:6443"),
        ({"type": "haproxy"}, {"planes": 1}, ["cp1"], "10.0.0.1:8443"),
        ({"type": "haproxy", "address": "api.example.com"}, {}, ["cp1", "cp2", "cp3"], "api.example.com:8443"),
        ({"type": "nginx", "address": "api.example.com:443"}, {"balancers": 2}, ["lb1", "lb2"], "api.example.com:443"),
        ({"type": "keepalived", "address": "10.0.0.9"}, {"balancers": 2}, ["lb1", "lb2"], "10.0.0.9:6443"),
        ({"type": "keepalived", "address": "10.0.0.9"}, {}, ["cp1", "cp2", "cp3"], "10.0.0.9:8443"),
        ({"type": "local"}, {}, ["cp1", "cp2", "cp3", "w1"], "127.0.0.1:6444"),
        ({"type": "local", "address": "127.0.0.1:7000"}, {"planes": 1}, ["cp1", "w1"], "127.0.0.1:7000"),
        (None, {"planes": 1}, [], ""),
    ],
)  # fmt: skip
def test_hosts_and_address_follow_from_the_type(
    endpoint: Any, how: dict[str, Any], hosts: list[str], address: str
) -> None:
    found = spec(endpoint, **how)
    assert [host.name for host in endpoint_hosts(found)] == hosts
    assert endpoint_address(found, IPS) == address
    assert configured_address(found) in ("", address)
    if address:
        assert address.endswith(f":{endpoint_port(found)}")


def test_a_load_balancer_or_etcd_host_is_no_node() -> None:
    hosts = [
        {"name": "cp1", "address": "10.0.0.1", "roles": ["control-plane", "etcd"]},
        {"name": "w1", "address": "10.0.0.4", "roles": ["worker", "load-balancer"]},
        {"name": "lb1", "address": "10.0.0.5", "roles": ["load-balancer"]},
    ]
    found = ClusterSpec.model_validate(
        {"hosts": hosts, "endpoint": {"type": "haproxy", "address": "api.example.com"}}
    )
    assert [host.name for host in found.nodes] == ["cp1", "w1"]
    assert [host.name for host in found.workers] == ["w1"]
    assert [host.name for host in found.load_balancers] == ["w1", "lb1"]
    assert [host.name for host in found.etcd_hosts] == ["cp1"]


def test_the_address_may_stand_in_kubeadms_configuration() -> None:
    passed = {"controlPlaneEndpoint": "api.example.com"}
    found = spec({"type": "haproxy"}, balancers=2, clusterConfiguration=passed)
    assert found.endpoint is not None
    assert (found.endpoint.type, found.endpoint.address) == ("haproxy", "api.example.com:6443")
    found = spec(clusterConfiguration=passed)
    assert found.endpoint is not None
    assert found.endpoint.type == "external"


@pytest.mark.parametrize(
    ("endpoint", "how", "message", "hint"),
    [
        (None, {}, "hosts: 3 control planes (cp1, cp2, cp3) need an endpoint", "{type: local}"),
        (None, {"planes": 1, "balancers": 1}, "hosts[2].roles (lb1): load-balancer: there is no endpoint", "{type: haproxy}"),
        ("api.example.com", {"balancers": 1}, "hosts[4].roles (lb1): load-balancer: an endpoint of type external", "take the role away"),
        ({"type": "local"}, {"balancers": 1}, "hosts[4].roles (lb1): load-balancer: type local has its proxy on every node", "take the role away"),
        ({"type": "external"}, {}, "endpoint: type external needs an address", "address: api.example.com:6443"),
        ({"type": "keepalived"}, {}, "endpoint: type keepalived needs an address, its virtual IP", "that nobody has"),
        ({"type": "keepalived", "address": "api.example.com"}, {}, "endpoint.address: 'api.example.com' is not an IP address", "certSANs"),
        ({"type": "keepalived", "address": "10.0.0.4"}, {}, "endpoint.address: 10.0.0.4 is the address of hosts[3] (w1)", "that nobody has"),
        ({"type": "keepalived", "address": "fd00::9"}, {}, "endpoint.address: a virtual IP of IPv6", "IPv4"),
        ({"type": "haproxy"}, {}, "endpoint: 3 proxies (cp1, cp2, cp3) need an address that leads to all of them", "keepalived"),
        ({"type": "nginx"}, {"balancers": 2}, "endpoint: 2 proxies (lb1, lb2) need an address", "api.example.com:6443"),
        ({"type": "haproxy", "address": "10.0.0.9:6443"}, {}, "endpoint.address: port 6443 on cp1 is its API server's", "8443"),
        ({"type": "local", "address": "127.0.0.1:6443"}, {}, "endpoint.address: port 6443 on cp1 is its API server's", "8443"),
        ({"type": "local", "address": "10.0.0.9"}, {}, "endpoint.address: type local is at 127.0.0.1 on every node", "leave the address out"),
        ({"type": "haproxy", "proxy": "nginx"}, {"balancers": 1}, "endpoint.proxy: type haproxy does not have it", "leave it out"),
        ({"type": "local", "virtualRouterID": 7}, {}, "endpoint.virtualRouterID: type local does not have it", "leave it out"),
        ({"type": "keepalived", "address": "10.0.0.9", "virtualRouterID": 256}, {}, "endpoint.virtualRouterID: 256 must be at most 255", ""),
        ({"type": "keepalived", "address": "10.0.0.9", "interface": "eth0/1"}, {}, "endpoint.interface: 'eth0/1' is not an interface's name", ""),
        ({"type": "traefik"}, {}, "endpoint.type: 'traefik' is not", ""),
        ({"address": "api.example.com"}, {}, "endpoint: field 'type' is missing", ""),
        ("https://api:6443", {}, "endpoint: 'https://api:6443' is not host[:port]", ""),
        ({"type": "haproxy"}, {"balancers": 1, "clusterConfiguration": {"controlPlaneEndpoint": "10.244.0.1:6443"}}, "clusterConfiguration.controlPlaneEndpoint: 10.244.0.1 is inside", "choose another"),
    ],
)  # fmt: skip
def test_a_contradiction_names_its_field_and_the_mend(
    endpoint: Any, how: dict[str, Any], message: str, hint: str
) -> None:
    error = refusal(endpoint, **how)
    assert message in f"{error.message}"
    assert hint in error.hint


def test_a_host_that_is_no_node_has_no_labels() -> None:
    wrong = document({"type": "haproxy"}, balancers=1)
    wrong["hosts"][-1]["labels"] = {"disk": "ssd"}
    with pytest.raises(ConfigError, match=r"hosts\[4\].labels \(lb1\): with no role but load-balancer"):
        parse_cluster(yaml.safe_dump(wrong))


def test_an_unknown_field_of_the_endpoint_is_named() -> None:
    error = refusal({"type": "keepalived", "adress": "10.0.0.9"})
    assert error.exit_code is ExitCode.CONFIG_UNKNOWN_FIELD
    assert "endpoint: unknown field 'adress' (did you mean 'address'?)" in error.message
