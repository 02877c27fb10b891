"""A bundle has no secrets: each kind of them, in the places where they stand."""

from __future__ import annotations

import base64
import json

import pytest

from kubewright.model.doctor.redact import GONE, redacted, redacted_data

HEX = "3f" * 32
KEY = base64.b64encode(
    b"-----BEGIN RSA PRIVATE KEY-----\nMIIEpAIBAAKCAQEA1234567890abcdefghijklmnop\n"
).decode()
PEM = "-----BEGIN RSA PRIVATE KEY-----\nMIIEpAIBAAKCAQEAsekrit\nmore\n-----END RSA PRIVATE KEY-----"


@pytest.mark.parametrize(
    ("text", "secret"),
    [
        (PEM, "sekrit"),
        (PEM.replace("RSA ", ""), "sekrit"),
        (PEM.partition("-----END")[0], "sekrit"),
        ("kubeadm join 10.0.0.1:6443 --token abcdef.0123456789abcdef --x", "0123456789abcdef"),
        ("token abcdef.0123456789abcdef not found", "0123456789abcdef"),
        (f"--certificate-key {HEX}", HEX),
        (f"certificateKey: {HEX}", HEX),
        (f"    client-key-data: {KEY}\n", KEY),
        ("    token: abc123longtokenvalue\n", "abc123longtokenvalue"),
        ('{"token": "abc123longtokenvalue"}', "abc123longtokenvalue"),
        ("Authorization: Bearer abc123longtokenvalue", "abc123longtokenvalue"),
        ("authorization: Basic dXNlcjpodW50ZXIy", "dXNlcjpodW50ZXIy"),
        ("HTTPS_PROXY=http://me:hunter2@proxy:3128", "hunter2"),
        ("https://ghp_0123456789@github.com/x", "ghp_0123456789"),
        ("password = \"hunter2\"", "hunter2"),
        ("dbPassword: hunter2", "hunter2"),
        ('auth = "dXNlcjpodW50ZXIy"', "dXNlcjpodW50ZXIy"),
        ("AWS_SECRET=hunter2hunter2", "hunter2hunter2"),
        ("eyJhbGciOiJSUzI1NiJ9.eyJpc3MiOiJrdWJlIn0.c2lnbmF0dXJl", "eyJpc3MiOiJrdWJlIn0"),
        (f"data: {'aB3d' * 20}==", "aB3d" * 20),
    ],
)  # fmt: skip
def test_a_secret_is_taken_out(text: str, secret: str) -> None:
    assert secret in text
    assert secret not in redacted(text)
    assert GONE in redacted(text)


@pytest.mark.parametrize(
    "text",
    [
        f"image: k8s.gcr.io/pause@sha256:{HEX}",
        "--service-account-key-file=/etc/kubernetes/pki/sa.pub",
        "tokenFile: /var/run/secrets/token",
        "10.0.0.1:6443 node cp1 is Ready, kubelet v1.20.2",
        "https://10.0.0.1:6443/healthz",
        "kube-system_etcd-cp1_cf2ec8db7d0826f5827b7c6aab7ec10a",
        "rotateCertificates: true",
        "discovery-token-ca-cert-hash sha256:" + HEX,
    ],
)
def test_what_is_no_secret_stays(text: str) -> None:
    assert redacted(text) == text


def test_redacting_twice_changes_nothing_more() -> None:
    text = f"{PEM}\ntoken: abcdef.0123456789abcdef\nhttp://a:b@c\n--certificate-key {HEX}"
    assert redacted(redacted(text)) == redacted(text)


def test_secret_objects_keep_nothing_but_their_kind() -> None:
    secret = {
        "kind": "Secret",
        "metadata": {"annotations": {"last-applied": "hunter2"}},
        "data": {"p": "aHVudGVyMg=="},
    }
    assert redacted_data(secret) == {"kind": "Secret", "data": GONE}
    assert "hunter2" not in str(redacted_data({"items": [{"kind": "SecretList", "items": [secret]}]}))


def test_values_of_environments_and_fields_that_are_called_so_are_taken_out() -> None:
    pod = {
        "env": [{"name": "LICENCE", "value": "hunter2"}, {"name": "NODE", "valueFrom": {"ref": {"path": "x"}}}],
        "users": [{"user": {"token": "hunter2", "clientKey": "open", "password": "hunter2"}}],
        "count": 3, "on": True, "nothing": None, "words": ("a", PEM),
    }  # fmt: skip
    found = redacted_data(pod)
    assert "hunter2" not in str(found)
    assert "sekrit" not in str(found)
    assert (found["count"], found["on"], found["nothing"]) == (3, True, None)
    assert found["env"][1]["valueFrom"] == {"ref": {"path": "x"}}


def test_json_in_a_field_is_read_as_what_it_is() -> None:
    """kubectl keeps what it has applied in an annotation."""
    pod = {"spec": {"containers": [{"name": "a", "env": [{"name": "MOTTO", "value": "not for everybody"}]}]}}
    known = redacted_data({"metadata": {"annotations": {"last-applied-configuration": json.dumps(pod)}}})
    assert "not for everybody" not in str(known)
    assert "MOTTO" in str(known)
    assert redacted_data({"note": "{not json"}) == {"note": "{not json"}


@pytest.mark.parametrize(
    "text",
    [
        "   env:\n    - name: MOTTO\n      value: not for everybody\n    image: x",
        "   env:\n    - value: not for everybody\n      name: MOTTO\n    image: x",
    ],
)
def test_a_containers_environment_in_a_manifest_is_taken_out(text: str) -> None:
    known = redacted(text)
    assert "everybody" not in known
    assert "name: MOTTO" in known
    assert known.endswith("    image: x")
