"""What a joining node believes of cluster-info."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from kubewright.errors import ConfigError
from kubewright.model import discovery, pki, stored, tokens, x509
from kubewright.model.objects import Object
from kubewright.secret import Secret

TOKEN = Secret("abcdef.0123456789abcdef")


@pytest.fixture(scope="module")
def ca() -> bytes:
    return x509.self_signed_ca(pki.CA, x509.new_key(), datetime.now(UTC)).cert


def signed(ca: bytes, secret: str = "0123456789abcdef") -> Object:
    config_map = stored.cluster_info("https://192.0.2.1:6443", ca)[0]
    content = config_map["data"][stored.CLUSTER_INFO_KEY]
    config_map["data"]["jws-kubeconfig-abcdef"] = tokens.sign_jws(content, "abcdef", Secret(secret))
    return config_map


def test_the_ca_of_a_signed_cluster_info(ca: bytes) -> None:
    discovery.verify_signature(signed(ca), TOKEN)
    assert discovery.cluster_of(signed(ca)).ca == ca


def test_an_unknown_token_is_told_from_a_wrong_one(ca: bytes) -> None:
    unsigned = stored.cluster_info("https://192.0.2.1:6443", ca)[0]
    with pytest.raises(ConfigError, match="unknown, or has expired") as unknown:
        discovery.verify_signature(unsigned, TOKEN)
    with pytest.raises(ConfigError, match="not one of token abcdef") as wrong:
        discovery.verify_signature(signed(ca, "fedcba9876543210"), TOKEN)
    for caught in (unknown, wrong):
        assert "0123456789abcdef" not in str(caught.value)


def test_a_changed_content_is_refused(ca: bytes) -> None:
    config_map = signed(ca)
    config_map["data"][stored.CLUSTER_INFO_KEY] = config_map["data"][stored.CLUSTER_INFO_KEY].replace(
        "192.0.2.1", "192.0.2.66"
    )
    with pytest.raises(ConfigError):
        discovery.verify_signature(config_map, TOKEN)
