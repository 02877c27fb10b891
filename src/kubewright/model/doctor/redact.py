"""Text without secrets, for a bundle that is sent to somebody."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

GONE = "<redacted>"

_KEYS = re.compile(r"-----BEGIN ([A-Z0-9 ]*PRIVATE KEY)-----.*?(?:-----END \1-----|\Z)", re.DOTALL)
# A key's middle, where a line of a log or a head of a file has only that, is no text of anybody's: long base64.
_BASE64 = re.compile(r"(?<![\w+/=-])(?=[\w+/]*[A-Z])(?=[\w+/]*[a-z])(?=[\w+/]*\d)[A-Za-z0-9+/]{64,}={0,2}")
_BOOTSTRAP = re.compile(r"(?<![a-z0-9.-])([a-z0-9]{6})\.[a-z0-9]{16}(?![a-z0-9])")
_CERTIFICATE_KEY = re.compile(r"(?<![0-9A-Fa-f:@])[0-9A-Fa-f]{64}(?![0-9A-Fa-f])")
_JWT = re.compile(r"eyJ[\w-]{8,}\.[\w-]{8,}\.[\w-]*")
_URL = re.compile(r"(://)[^\s/@\"']+@")
_AUTHORIZATION = re.compile(r"(?i)\b(authorization[\"']?\s*[:=]\s*[\"']?\s*)(?:(bearer|basic)\s+)?[^\s\"',]+")
_BEARER = re.compile(r"(?i)\b(bearer|basic)\s+(?!auth|token)[\w.~+/=-]{8,}")
# A name is looked at from its beginning alone: from anywhere in it, long words would take quadratic time.
_FIELDS = re.compile(
    r"(?im)((?<![\w.-])(?:[\w.-]*(?:password|passwd|secret|private[-_]?key|api[-_]?key|access[-_]?key|certificate-key"
    r"|token)|client-key-data|auth-provider|auth)[\"']?\s*[:=]\s*)"
    r"(?!\s*[\[{|>&]|\s*$|[\"']?/|[\"']?(?:true|false|null|none)\b|<redacted>)(\"[^\"]*\"|'[^']*'|[^\s,}]+)"
)
# A container's environment in YAML, as manifests have it: what a variable is called tells little of its value.
_ENV = re.compile(r"(?m)^([ \t]*(?:- +)?name: *[^\n]*\n[ \t]*value: *)(?!\s*$)[^\n]*$")
_ENV_TURNED = re.compile(r"(?m)^([ \t]*- +value: *)(?!<redacted>)[^\n]*(\n[ \t]*name: )")
_SECRET_KINDS = ("Secret", "SecretList")
_SECRET_FIELDS = re.compile(
    r"(?i)^(.*(password|passwd|secret|private[-_]?key|api[-_]?key|access[-_]?key|certificate-?key)"
    r"|client-key-data|(.*[-_.])?token|auth|id-token|refresh-token|identitytoken|registrytoken)$"
)


def redacted(text: str) -> str:
    """The text without private keys, tokens, certificate keys, passwords, and whatever looks like one.

    It rather takes too much than too little; digests of images (`sha256:…`) stay.

    >>> redacted("kubeadm join --token abcdef.0123456789abcdef")
    'kubeadm join --token abcdef.<redacted>'
    """
    text = _KEYS.sub(GONE, text)
    text = _JWT.sub(GONE, text)
    text = _URL.sub(rf"\1{GONE}@", text)
    text = _AUTHORIZATION.sub(rf"\1{GONE}", text)
    text = _BEARER.sub(rf"\1 {GONE}", text)
    text = _FIELDS.sub(rf"\1{GONE}", text)
    text = _ENV.sub(rf"\1{GONE}", text)
    text = _ENV_TURNED.sub(rf"\1{GONE}\2", text)
    text = _BOOTSTRAP.sub(rf"\1.{GONE}", text)
    text = _CERTIFICATE_KEY.sub(GONE, text)
    return _BASE64.sub(GONE, text)


def redacted_data(value: Any) -> Any:
    """Plain data without secrets: fields that are called so, Secrets' data, environments' values, and texts."""
    if isinstance(value, Mapping):
        if value.get("kind") in _SECRET_KINDS:
            return {key: one for key, one in value.items() if key in ("kind", "apiVersion")} | {"data": GONE}
        if "name" in value and "value" in value and isinstance(value["value"], str):
            return {**{key: redacted_data(one) for key, one in value.items()}, "value": GONE}
        return {
            key: GONE if isinstance(one, str) and _SECRET_FIELDS.match(str(key)) else redacted_data(one)
            for key, one in value.items()
        }
    if isinstance(value, str):
        return _redacted_json(value) or redacted(value)
    if isinstance(value, Sequence) and not isinstance(value, bytes):
        return [redacted_data(one) for one in value]
    return value if isinstance(value, bool | int | float | None) else redacted(str(value))


def _redacted_json(text: str) -> str:
    """A text that is JSON, as kubectl's `last-applied-configuration` is; empty where it is none."""
    if not text.lstrip().startswith(("{", "[")):
        return ""
    try:
        found = json.loads(text)
    except ValueError:
        return ""
    return json.dumps(redacted_data(found), ensure_ascii=False)
