"""Kubeconfigs: what is in them, when one is unfit, and what merging leaves alone."""

from __future__ import annotations

import base64
from datetime import UTC, datetime, timedelta

import pytest
import yaml

from kubewright.errors import ConfigError
from kubewright.model import kubeconfig, x509
from kubewright.model.config.kubeadm import ClusterConfiguration
from kubewright.model.node import ControlPlaneNode
from kubewright.model.pki import CA, KeyKind

NOW = datetime(2026, 3, 1, tzinfo=UTC)
NODE = ControlPlaneNode("cp1", "10.11.12.13")
CLUSTER = ClusterConfiguration.model_validate(
    {"controlPlaneEndpoint": "lb.test:8443", "clusterName": "blue", "featureGates": {"PublicKeysECDSA": True}}
)
SPECS = {spec.file: spec for spec in kubeconfig.control_plane_kubeconfigs(CLUSTER, NODE)}


@pytest.fixture(scope="module")
def ca() -> x509.KeyPair:
    return x509.self_signed_ca(CA, x509.new_key(KeyKind.ECDSA_P256), NOW)


@pytest.fixture(scope="module")
def admin(ca: x509.KeyPair) -> bytes:
    pair = x509.sign(SPECS["admin.conf"].cert, x509.new_key(KeyKind.ECDSA_P256), ca, NOW)
    return kubeconfig.dump(kubeconfig.with_certificate(SPECS["admin.conf"], ca.cert, pair)).reveal()


def test_who_connects_where() -> None:
    rows = {file: (spec.user, spec.cert.organizations, spec.server) for file, spec in SPECS.items()}
    shared, own = "https://lb.test:8443", "https://10.11.12.13:6443"
    assert rows == {
        "admin.conf": ("kubernetes-admin", ("system:masters",), shared),
        "kubelet.conf": ("system:node:cp1", ("system:nodes",), shared),
        "controller-manager.conf": ("system:kube-controller-manager", (), own),
        "scheduler.conf": ("system:kube-scheduler", (), own),
    }


def test_names_are_kubeadms(admin: bytes) -> None:
    document = yaml.safe_load(admin)
    assert document["current-context"] == "kubernetes-admin@blue"
    assert document["contexts"][0]["context"] == {"cluster": "blue", "user": "kubernetes-admin"}


def test_a_rotating_kubelet_holds_no_key(ca: x509.KeyPair) -> None:
    document = kubeconfig.with_rotating_certificate(SPECS["kubelet.conf"], ca.cert)
    pem = "/var/lib/kubelet/pki/kubelet-client-current.pem"
    assert document["users"][0]["user"] == {"client-certificate": pem, "client-key": pem}
    assert (
        kubeconfig.reasons(kubeconfig.dump(document).reveal(), SPECS["kubelet.conf"], ca.cert, now=NOW) == []
    )


def test_a_kubelet_after_its_tls_bootstrap(ca: x509.KeyPair) -> None:
    document = kubeconfig.after_bootstrap("https://lb.test:8443", ca.cert)
    pem = "/var/lib/kubelet/pki/kubelet-client-current.pem"
    cluster, user = kubeconfig.current(document)
    assert cluster["server"] == "https://lb.test:8443"
    assert user == {"client-certificate": pem, "client-key": pem}
    assert document["current-context"] == "default-context"


def test_cluster_info(ca: x509.KeyPair) -> None:
    info = kubeconfig.cluster_info("https://lb.test:8443", ca.cert)
    assert info["users"] is None
    assert base64.b64decode(info["clusters"][0]["cluster"]["certificate-authority-data"]) == ca.cert


def test_reasons(ca: x509.KeyPair, admin: bytes) -> None:
    from dataclasses import replace

    spec = SPECS["admin.conf"]
    assert kubeconfig.reasons(admin, spec, ca.cert, now=NOW) == []
    moved = replace(spec, server="https://other:6443")
    assert kubeconfig.reasons(admin, moved, ca.cert, now=NOW) == [
        "uses https://lb.test:8443, not https://other:6443"
    ]
    late = kubeconfig.reasons(admin, spec, ca.cert, now=NOW + timedelta(days=366))
    assert late == ["expired 2027-03-01 00:00:00 UTC"]
    other = x509.self_signed_ca(CA, x509.new_key(KeyKind.ECDSA_P256), NOW).cert
    assert kubeconfig.reasons(admin, spec, other, now=NOW) == ["holds another CA", "signed by another CA"]


@pytest.mark.parametrize("content", [b"", b"\xff", b"a: [", b"- a", b"kind: Config\nclusters: null\n"])
def test_damaged_files_are_reasons_too(ca: x509.KeyPair, content: bytes) -> None:
    assert len(kubeconfig.reasons(content, SPECS["admin.conf"], ca.cert, now=NOW)) == 1


def test_a_missing_certificate_is_a_reason(ca: x509.KeyPair, admin: bytes) -> None:
    document = yaml.safe_load(admin)
    document["users"][0]["user"] = {}
    content = kubeconfig.dump(document).reveal()
    assert kubeconfig.reasons(content, SPECS["admin.conf"], ca.cert, now=NOW) == ["not a PEM certificate"]


def test_loading_names_the_file_only() -> None:
    with pytest.raises(ConfigError) as caught:
        kubeconfig.load(b"token: [geheim", "admin.conf")
    assert "geheim" not in str(caught.value)
    assert "admin.conf" in str(caught.value)


def test_certificates_live_as_long_as_the_configuration_says() -> None:
    cluster = ClusterConfiguration.model_validate({"certificateValidityPeriod": "48h"})
    specs = kubeconfig.control_plane_kubeconfigs(cluster, ControlPlaneNode("cp1", "192.0.2.1"))
    assert {spec.cert.validity for spec in specs} == {timedelta(hours=48)}
