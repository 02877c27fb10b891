"""Which certificates there are, and for whom."""

from __future__ import annotations

from datetime import timedelta

import pytest

from kubewright.errors import ConfigError
from kubewright.model import pki
from kubewright.model.config.kubeadm import ClusterConfiguration
from kubewright.model.node import ControlPlaneNode, endpoint_url, nth_address, split_endpoint

NODE = ControlPlaneNode("cp1", "10.11.12.13")


def specs(**fields: object) -> dict[str, pki.CertSpec]:
    cluster = ClusterConfiguration.model_validate(fields)
    found = [*pki.cluster_cas(cluster), *pki.control_plane_certs(cluster, NODE)]
    assert len({spec.base for spec in found}) == len(found)
    return {spec.name: spec for spec in found}


def test_the_files_are_kubeadms() -> None:
    assert {spec.base for spec in specs().values()} == {
        "ca", "apiserver", "apiserver-kubelet-client", "front-proxy-ca", "front-proxy-client", "etcd/ca",
        "etcd/server", "etcd/peer", "etcd/healthcheck-client", "apiserver-etcd-client",
    }  # fmt: skip
    assert specs()["etcd-server"].key_path() == "/etc/kubernetes/pki/etcd/server.key"
    assert all(spec.is_ca == (name.endswith("ca")) for name, spec in specs().items())


def test_every_name_in_use_is_in_the_serving_certificate() -> None:
    spec = specs(
        controlPlaneEndpoint="lb.example.test:8443",
        networking={"serviceSubnet": "10.33.0.0/20", "dnsDomain": "blue.test"},
        apiServer={"certSANs": ["192.0.2.7", "api.example.test", "cp1"]},
    )["apiserver"]
    assert spec.dns_names == (
        "api.example.test", "cp1", "kubernetes", "kubernetes.default", "kubernetes.default.svc",
        "kubernetes.default.svc.blue.test", "lb.example.test",
    )  # fmt: skip
    assert spec.addresses == ("10.33.0.1", "10.11.12.13", "192.0.2.7")
    assert specs(controlPlaneEndpoint="192.0.2.1:6443")["apiserver"].addresses[-1] == "192.0.2.1"


def test_etcd_serves_and_asks_under_the_nodes_names() -> None:
    found = specs(etcd={"local": {"serverCertSANs": ["etcd.example.test"], "peerCertSANs": ["192.0.2.9"]}})
    server, peer = found["etcd-server"], found["etcd-peer"]
    assert server.dns_names == ("cp1", "etcd.example.test", "localhost")
    assert peer.addresses == ("10.11.12.13", "127.0.0.1", "::1", "192.0.2.9")
    assert server.common_name == peer.common_name == "cp1"
    assert set(server.usages) == set(peer.usages) == set(pki.Usage)


def test_who_may_do_everything() -> None:
    masters = {name for name, spec in specs().items() if spec.organizations}
    assert masters == {"apiserver-kubelet-client", "etcd-healthcheck-client", "apiserver-etcd-client"}


@pytest.mark.parametrize(
    ("version", "groups"),
    [("v1.28.0", ("system:masters",)), ("v1.29.0", ("kubeadm:cluster-admins",)), ("v1.36.1", ())],
)
def test_the_groups_of_the_kubelets_client(version: str, groups: tuple[str, ...]) -> None:
    assert specs(kubernetesVersion=version)["apiserver-kubelet-client"].organizations == groups


def test_an_external_etcd_has_its_own_certificates() -> None:
    cluster = ClusterConfiguration.model_validate(
        {"etcd": {"external": {"endpoints": ["https://192.0.2.1:2379"]}}}
    )
    found = [*pki.cluster_cas(cluster), *pki.control_plane_certs(cluster, NODE)]
    assert [spec.name for spec in found if "etcd" in spec.name] == []


def test_the_kind_of_key_is_the_clusters() -> None:
    assert {spec.key_kind for spec in specs().values()} == {pki.KeyKind.RSA_2048}
    found = specs(featureGates={"PublicKeysECDSA": True})
    assert {spec.key_kind for spec in found.values()} == {pki.KeyKind.ECDSA_P256}
    for kind in pki.KeyKind:
        found = specs(encryptionAlgorithm=str(kind))
        assert {spec.key_kind for spec in found.values()} == {kind}


def test_lifetimes_are_the_clusters() -> None:
    found = specs(certificateValidityPeriod="100h", caCertificateValidityPeriod="1000h30m")
    assert found["ca"].validity == timedelta(hours=1000, minutes=30)
    assert {spec.validity for spec in found.values() if not spec.is_ca} == {timedelta(hours=100)}
    assert specs()["ca"].validity == pki.CA_VALIDITY
    assert specs()["apiserver"].validity == pki.LEAF_VALIDITY


@pytest.mark.parametrize(
    ("endpoint", "host", "port"),
    [
        ("lb.test", "lb.test", 6443),
        ("lb.test:8443", "lb.test", 8443),
        ("192.0.2.1", "192.0.2.1", 6443),
        ("[fd00::1]:8443", "fd00::1", 8443),
        ("[fd00::1]", "fd00::1", 6443),
        ("fd00::1", "fd00::1", 6443),
    ],
)
def test_endpoints(endpoint: str, host: str, port: int) -> None:
    assert split_endpoint(endpoint) == (host, port)


@pytest.mark.parametrize(
    "endpoint", ["", ":6443", "lb.test:", "lb.test:0", "lb.test:70000", "a:b:c", "lb.test:x"]
)
def test_bad_endpoints_are_named(endpoint: str) -> None:
    with pytest.raises(ConfigError, match="controlPlaneEndpoint"):
        split_endpoint(endpoint)


def test_the_endpoint_falls_back_to_the_nodes_own_port_and_address() -> None:
    node = ControlPlaneNode("cp1", "fd00::5", 7443)
    assert endpoint_url("", node) == "https://[fd00::5]:7443"
    assert endpoint_url("lb.test", node) == "https://lb.test:7443"
    assert endpoint_url("lb.test:8443", node) == "https://lb.test:8443"


def test_service_addresses() -> None:
    assert nth_address("10.96.0.0/12", 10) == "10.96.0.10"
    assert nth_address("10.96.0.0/12,fd00::/112", 1) == "10.96.0.1"
    with pytest.raises(ConfigError, match="serviceSubnet"):
        nth_address("10.96.0.0/30", 10)
