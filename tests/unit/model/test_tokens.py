"""Bootstrap tokens, their Secrets, and the signatures on cluster-info."""

from __future__ import annotations

import base64
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from kubewright.errors import ConfigError
from kubewright.model import token_text, tokens
from kubewright.model.config.duration import short_duration
from kubewright.model.config.kubeadm_nodes import BootstrapTokenSpec
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


def test_a_token_has_kubeadms_defaults() -> None:
    token = tokens.make_token(NOW)
    assert token.expires == NOW + timedelta(hours=24)
    assert token.usages == ("signing", "authentication")
    assert token.groups == ("system:bootstrappers:kubeadm:default-node-token",)
    assert tokens.make_token(NOW, ttl=timedelta(0)).expires is None
    assert tokens.make_token(NOW, usages=["signing"]).groups == ()


@pytest.mark.parametrize(
    ("said", "what"),
    [
        ({"usages": ["joining"]}, "usages: 'joining'"),
        ({"groups": ["system:masters"]}, "groups: 'system:masters'"),
        ({"usages": ["signing"], "groups": ["system:bootstrappers:a"]}, "groups: a token whose usages lack"),
        ({"ttl": timedelta(seconds=-1)}, "ttl: must not be negative"),
        ({"token": Secret("abcdef.0123")}, "not a bootstrap token"),
    ],
)
def test_what_a_token_cannot_be(said: dict[str, Any], what: str) -> None:
    with pytest.raises(ConfigError, match=f"here: {what}"):
        tokens.make_token(NOW, field="here", **said)


def test_tokens_of_a_configuration_file() -> None:
    specs = [
        BootstrapTokenSpec(token=Secret("abcdef.0123456789abcdef"), ttl="0s", description="for ever"),
        BootstrapTokenSpec(expires=NOW, usages=["signing"]),
    ]
    first, second = tokens.of_specs(specs, NOW)
    assert (first.id, first.expires, first.description) == ("abcdef", None, "for ever")
    assert (second.expires, second.usages, second.groups) == (NOW, ("signing",), ())


def test_an_id_and_a_whole_token_name_the_same() -> None:
    assert tokens.identity(Secret("abcdef")) == "abcdef"
    assert tokens.identity(Secret("abcdef.0123456789abcdef")) == "abcdef"
    with pytest.raises(ConfigError, match="TOKEN: not a bootstrap token"):
        tokens.identity(Secret("abcdefg"), "TOKEN")


def test_a_token_as_kubeadm_shows_it() -> None:
    token = tokens.BootstrapToken("abcdef", SECRET, NOW + timedelta(hours=23, minutes=59), "a join")
    group = "system:bootstrappers:kubeadm:default-node-token"
    assert token_text.table_row(token, NOW) == [
        "abcdef.0123456789abcdef", "23h", "2026-03-02T11:59:00Z", "signing,authentication", "a join", group,
    ]  # fmt: skip
    bare = tokens.BootstrapToken("abcdef", SECRET, None, "", (), ())
    assert token_text.table_row(bare, NOW)[1:] == ["<forever>", "<never>", "<none>", "<none>", "<none>"]
    assert token_text.document(bare) == {
        "apiVersion": "output.kubeadm.k8s.io/v1alpha3",
        "kind": "BootstrapToken",
        "token": "abcdef.0123456789abcdef",
    }


def test_the_command_that_joins_a_node() -> None:
    token, key = Secret("abcdef.0123456789abcdef"), Secret("00ff")
    words = "join [fd00::1]:6443 --token abcdef.0123456789abcdef"
    pins = " --discovery-token-ca-cert-hash sha256:a --discovery-token-ca-cert-hash sha256:b"
    url, both = "https://[fd00::1]:6443", ["sha256:a", "sha256:b"]
    assert token_text.join_command("kubeadm", url, token, both).reveal() == f"kubeadm {words}{pins}"
    command = token_text.join_command(
        "kubeadm", url, token, both, control_plane=True, certificate_key=key
    ).reveal()
    assert command == f"kubeadm {words}{pins} --control-plane --certificate-key 00ff"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-5, "<invalid>"), (-1.5, "0s"), (59.9, "59s"), (60, "1m"), (3599, "59m"), (86399, "23h"),
        (86400, "1d"), (31535999, "364d"), (31536000, "1y"), (315360000, "10y"),
    ],
)  # fmt: skip
def test_a_time_that_is_left_as_kubeadm_shows_it(seconds: float, text: str) -> None:
    assert short_duration(seconds) == text
