"""What control planes share, on its way through the cluster."""

from __future__ import annotations

import base64
from datetime import UTC, datetime, timedelta

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from kubewright.errors import ConfigError
from kubewright.model import copy_certs, tokens
from kubewright.model.config.kubeadm_types import ClusterConfiguration, Etcd, ExternalEtcd
from kubewright.model.objects import Object
from kubewright.secret import Secret

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
OWNER: Object = {"metadata": {"name": "bootstrap-token-abcdef", "uid": "11111111-2222"}}
KEY = Secret(bytes(range(32)))
FILES = copy_certs.shared_files(ClusterConfiguration())


def sealed() -> tuple[Object, dict[str, bytes]]:
    contents = {file.path: file.name.encode() for file in FILES}
    return copy_certs.certs_secret(FILES, contents, KEY, OWNER), contents


def test_the_files_and_their_names_are_kubeadms() -> None:
    assert {file.data_key: (file.path, file.mode) for file in FILES} == {
        "ca.crt": ("/etc/kubernetes/pki/ca.crt", 0o644),
        "ca.key": ("/etc/kubernetes/pki/ca.key", 0o600),
        "front-proxy-ca.crt": ("/etc/kubernetes/pki/front-proxy-ca.crt", 0o644),
        "front-proxy-ca.key": ("/etc/kubernetes/pki/front-proxy-ca.key", 0o600),
        "etcd-ca.crt": ("/etc/kubernetes/pki/etcd/ca.crt", 0o644),
        "etcd-ca.key": ("/etc/kubernetes/pki/etcd/ca.key", 0o600),
        "sa.key": ("/etc/kubernetes/pki/sa.key", 0o600),
        "sa.pub": ("/etc/kubernetes/pki/sa.pub", 0o600),
    }


def test_an_external_etcd_brings_its_clients_files_instead_of_its_authority() -> None:
    external = ExternalEtcd(
        endpoints=["https://192.0.2.9:2379"], ca_file="/e/ca.crt", cert_file="/e/c.crt", key_file="/e/c.key"
    )
    files = copy_certs.shared_files(ClusterConfiguration(etcd=Etcd(external=external)))
    found = {file.data_key: file.path for file in files}
    assert "etcd-ca.crt" not in found
    assert found["external-etcd-ca.crt"] == "/e/ca.crt"
    assert found["external-etcd.crt"] == "/e/c.crt"
    assert found["external-etcd.key"] == "/e/c.key"


def test_what_is_sealed_can_be_opened_and_shows_nothing() -> None:
    secret, contents = sealed()
    assert copy_certs.files_of_secret(secret, FILES, KEY) == contents
    assert secret["metadata"]["ownerReferences"][0]["uid"] == "11111111-2222"
    raw = base64.b64decode(secret["data"]["ca.key"])
    assert b"ca.key" not in raw
    # 12 bytes of nonce, then what AES-GCM gives: Go's Seal(nonce, nonce, data, nil).
    assert AESGCM(KEY.reveal()).decrypt(raw[:12], raw[12:], None) == b"ca.key"


def test_a_file_that_is_not_there_is_empty_and_left_out() -> None:
    contents = {file.path: b"x" for file in FILES if file.name != "ca.key"}
    secret = copy_certs.certs_secret(FILES, contents, KEY, OWNER)
    assert secret["data"]["ca.key"] == ""
    assert copy_certs.files_of_secret(secret, FILES, KEY) == contents


def test_a_wrong_key_an_expired_and_an_incomplete_secret_are_told_apart() -> None:
    secret, _ = sealed()
    with pytest.raises(copy_certs.CertificateKeyError, match=r"does not open ca\.crt"):
        copy_certs.files_of_secret(secret, FILES, Secret(bytes(32)))
    with pytest.raises(copy_certs.CertsExpiredError, match="two hours") as expired:
        copy_certs.files_of_secret(None, FILES, KEY)
    assert "upload-certs" in expired.value.hint
    del secret["data"]["sa.pub"]
    with pytest.raises(copy_certs.CertsIncompleteError, match=r"has no sa\.pub"):
        copy_certs.files_of_secret(secret, FILES, KEY)


@pytest.mark.parametrize("damaged", ["AAAA", "no base64", "/w=="])
def test_a_damaged_secret_is_an_error_of_the_key(damaged: str) -> None:
    secret, _ = sealed()
    secret["data"]["ca.key"] = damaged
    with pytest.raises(copy_certs.CertificateKeyError):
        copy_certs.files_of_secret(secret, FILES, KEY)


def test_certificate_keys() -> None:
    text = copy_certs.new_certificate_key()
    assert len(text.reveal()) == 64
    assert len(copy_certs.parse_certificate_key(text).reveal()) == 32
    for wrong in ("", "abc", "00" * 31, "zz" * 32):
        with pytest.raises(ConfigError, match="not a certificate key") as caught:
            copy_certs.parse_certificate_key(Secret(wrong))
        assert not wrong or wrong not in str(caught.value)


def test_the_owner_lives_for_two_hours_and_lets_nobody_in() -> None:
    owner = copy_certs.owner_token(NOW)
    assert owner.expires == NOW + timedelta(hours=2)
    data = tokens.token_secret(owner)["data"]
    assert sorted(data) == ["description", "expiration", "token-id", "token-secret"]


def test_joining_nodes_may_read_it_and_nothing_else() -> None:
    role, binding = copy_certs.certs_readers()
    assert role["rules"] == [
        {"apiGroups": [""], "resources": ["secrets"], "resourceNames": ["kubeadm-certs"], "verbs": ["get"]}
    ]
    assert binding["subjects"][0]["name"] == "system:bootstrappers:kubeadm:default-node-token"
