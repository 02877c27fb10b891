"""Bootstrap tokens, their Secrets, and the signatures on cluster-info."""

from __future__ import annotations

import base64
from datetime import UTC, datetime, timedelta

import pytest

from kubewright.errors import ConfigError
from kubewright.model import tokens
from kubewright.secret import Secret

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
SECRET = Secret("0123456789abcdef")
CONTENT = "apiVersion: v1\nkind: Config\n"
SIGNED = "eyJhbGciOiJIUzI1NiIsImtpZCI6ImFiY2RlZiJ9..vH_kT4yiol-nrAWgjfCYqvum5wsKETXe0S7OOp1VgnE"


def test_the_signature_is_the_bootstrap_signers() -> None:
    assert tokens.sign_jws(CONTENT, "abcdef", SECRET) == SIGNED
    assert tokens.verify_jws(SIGNED, CONTENT, "abcdef", SECRET)


@pytest.mark.parametrize(
    ("jws", "content", "token_id", "secret"),
    [
        (SIGNED, CONTENT + " ", "abcdef", "0123456789abcdef"),
        (SIGNED, CONTENT, "abcdeg", "0123456789abcdef"),
        (SIGNED, CONTENT, "abcdef", "0123456789abcdeg"),
        (SIGNED[:-1], CONTENT, "abcdef", "0123456789abcdef"),
        ("", CONTENT, "abcdef", "0123456789abcdef"),
        ("é..é", CONTENT, "abcdef", "0123456789abcdef"),
        ("bnVsbA..x", CONTENT, "abcdef", "0123456789abcdef"),
        # {"alg":"none","kid":"abcdef"} without a signature.
        ("eyJhbGciOiJub25lIiwia2lkIjoiYWJjZGVmIn0..", CONTENT, "abcdef", "0123456789abcdef"),
    ],
)
def test_anything_else_is_refused(jws: str, content: str, token_id: str, secret: str) -> None:
    assert not tokens.verify_jws(jws, content, token_id, Secret(secret))


def test_a_new_token_has_the_form_of_tokens() -> None:
    first, second = tokens.generate_token(), tokens.generate_token()
    assert first != second
    identity, secret = tokens.parse_token(first)
    assert f"{identity}.{secret.reveal()}" == first.reveal()


@pytest.mark.parametrize(
    "text", ["", "abcdef", "abcdef.0123", "ABCDEF.0123456789abcdef", "abcdef.0123456789abcdef\n"]
)
def test_what_is_no_token_is_not_shown(text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        tokens.parse_token(Secret(text), "discovery.bootstrapToken.token")
    assert caught.value.message == "discovery.bootstrapToken.token: not a bootstrap token"
    assert text == "" or text not in caught.value.hint


def test_the_secret_says_everything_and_reads_back() -> None:
    token = tokens.BootstrapToken("abcdef", SECRET, NOW + timedelta(hours=24), "for a join")
    made = tokens.token_secret(token)
    assert made["metadata"] == {"name": "bootstrap-token-abcdef", "namespace": "kube-system"}
    assert made["type"] == "bootstrap.kubernetes.io/token"
    assert {key: base64.b64decode(value).decode() for key, value in made["data"].items()} == {
        "auth-extra-groups": "system:bootstrappers:kubeadm:default-node-token",
        "description": "for a join",
        "expiration": "2026-03-02T12:00:00Z",
        "token-id": "abcdef",
        "token-secret": "0123456789abcdef",
        "usage-bootstrap-authentication": "true",
        "usage-bootstrap-signing": "true",
    }
    read = tokens.token_from_secret(made)
    assert set(read.usages) == set(token.usages)
    assert (read.expires, read.groups, read.description) == (token.expires, token.groups, token.description)
    assert read.text.reveal() == "abcdef.0123456789abcdef"
    assert not read.expired(NOW + timedelta(hours=23, minutes=59))
    assert read.expired(NOW + timedelta(hours=24))


def test_a_token_may_never_expire() -> None:
    made = tokens.token_secret(tokens.BootstrapToken("abcdef", SECRET))
    assert "expiration" not in made["data"]
    assert not tokens.token_from_secret(made).expired(NOW)


@pytest.mark.parametrize(
    ("key", "value"),
    [("token-id", "bm8="), ("token-id", "YWJjZGVn"), ("expiration", "c29vbg=="), ("token-secret", "*")],
)
def test_a_damaged_secret_is_named(key: str, value: str) -> None:
    made = tokens.token_secret(tokens.BootstrapToken("abcdef", SECRET))
    made["data"][key] = value
    with pytest.raises(ConfigError, match="kube-system/bootstrap-token-abcdef: not a bootstrap token"):
        tokens.token_from_secret(made)


def test_token_groups() -> None:
    assert tokens.is_token_group("system:bootstrappers:kubeadm:default-node-token")
    assert not tokens.is_token_group("system:masters")
