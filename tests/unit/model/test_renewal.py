"""What is shown of certificates, and what a cluster's configuration says about them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from kubewright.model import cert_settings, renewal
from kubewright.model.cert_settings import CertSettings
from kubewright.model.config.kubeadm_types import ClusterConfiguration
from kubewright.model.pki import KeyKind
from kubewright.model.renewal import Expiry

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
LEAVES = [
    Expiry("admin.conf", NOW + timedelta(days=364, hours=5), False, "ca"),
    Expiry("apiserver", NOW - timedelta(days=2), True, "ca"),
    Expiry("etcd-peer", None, False, "etcd-ca"),
]


def test_the_table_is_kubeadms() -> None:
    assert [renewal.leaf_row(one, NOW) for one in LEAVES] == [
        ["admin.conf", "Feb 28, 2027 17:00 UTC", "364d", "ca", "no"],
        ["apiserver", "Feb 27, 2026 12:00 UTC", "<invalid>", "ca", "yes"],
        ["!MISSING! etcd-peer", "", "", "", ""],
    ]
    root = Expiry("ca", NOW + timedelta(days=3649), True)
    assert renewal.root_row(root, NOW) == ["ca", "Feb 26, 2036 12:00 UTC", "9y", "yes"]


def test_the_document_is_kubeadms() -> None:
    document = renewal.document(LEAVES, [Expiry("ca", NOW + timedelta(seconds=90.5), True)], NOW)
    assert document["kind"] == "CertificateExpirationInfo"
    assert document["certificates"][1] == {
        "name": "apiserver", "expirationDate": "2026-02-27T12:00:00Z", "residualTime": -172800,
        "externallyManaged": True, "caName": "ca", "missing": False,
    }  # fmt: skip
    assert document["certificates"][2]["missing"] is True
    assert document["certificates"][2]["expirationDate"] is None
    assert document["certificateAuthorities"] == [
        {
            "name": "ca", "expirationDate": "2026-03-01T12:01:30Z", "residualTime": 90,
            "externallyManaged": True, "missing": False,
        }
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("document", "settings"),
    [
        ({}, CertSettings(external_etcd=False)),
        ({"certificatesDir": "/pki", "etcd": {"local": {}}}, CertSettings("/pki", False)),
        ({"etcd": {"external": {"endpoints": []}}}, CertSettings(external_etcd=True)),
        (
            {"featureGates": {"PublicKeysECDSA": True}},
            CertSettings(external_etcd=False, kind=KeyKind.ECDSA_P256),
        ),
        ({"encryptionAlgorithm": "RSA-4096"}, CertSettings(external_etcd=False, kind=KeyKind.RSA_4096)),
        (
            {"certificateValidityPeriod": "720h0m0s"},
            CertSettings(external_etcd=False, validity=timedelta(days=30)),
        ),
        ({"encryptionAlgorithm": "new", "certificateValidityPeriod": "x"}, CertSettings(external_etcd=False)),
    ],
)
def test_what_a_stored_configuration_says(document: dict[str, Any], settings: CertSettings) -> None:
    assert cert_settings.of_stored(document) == settings


def test_what_a_configuration_file_says() -> None:
    cluster = ClusterConfiguration.model_validate(
        {"certificatesDir": "/pki", "encryptionAlgorithm": "ECDSA-P384", "certificateValidityPeriod": "24h"}
    )
    assert cert_settings.of_configuration(cluster) == CertSettings(
        "/pki", False, KeyKind.ECDSA_P384, timedelta(days=1)
    )
