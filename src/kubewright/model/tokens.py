"""Bootstrap tokens: their form, their Secrets, and the signatures that they put on `cluster-info`."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import re
import secrets
import string
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from kubewright.errors import ConfigError
from kubewright.model.config.duration import timedelta_of
from kubewright.model.objects import SYSTEM, Object, metadata
from kubewright.secret import Secret

if TYPE_CHECKING:
    from kubewright.model.config.kubeadm_nodes import BootstrapTokenSpec

SECRET_TYPE = "bootstrap.kubernetes.io/token"  # noqa: S105
SECRET_PREFIX = "bootstrap-token-"  # noqa: S105
BOOTSTRAPPERS = "system:bootstrappers:kubeadm:default-node-token"
"""The group of a node that joins with a bootstrap token."""
USAGES = ("signing", "authentication")
TOKEN_LIFETIME = timedelta(hours=24)
"""Of a token for which no other was said."""

TOKEN = re.compile(r"([a-z0-9]{6})\.([a-z0-9]{16})", re.ASCII)
"""The form of a whole token: its id and its secret."""
_ID = re.compile(r"[a-z0-9]{6}", re.ASCII)
_GROUP = re.compile(r"system:bootstrappers:[a-z0-9:-]{0,255}[a-z0-9]", re.ASCII)
_ALPHABET = string.ascii_lowercase + string.digits
_USAGE_PREFIX = "usage-bootstrap-"


@dataclass(frozen=True, slots=True)
class BootstrapToken:
    """A token by which nodes join. Its id is public: it names the Secret and the signature."""

    id: str
    secret: Secret[str]
    expires: datetime | None = None
    """Aware of its time zone; None for a token that never expires."""
    description: str = ""
    usages: tuple[str, ...] = USAGES
    groups: tuple[str, ...] = (BOOTSTRAPPERS,)

    @property
    def text(self) -> Secret[str]:
        """The whole token, `id.secret`."""
        return Secret(f"{self.id}.{self.secret.reveal()}")

    def expired(self, now: datetime) -> bool:
        """Whether it is past its time."""
        return self.expires is not None and now >= self.expires


def generate_token() -> Secret[str]:
    """A new random token: 6 characters of id, 16 of secret; with keys, the only randomness of this package."""
    letters = [secrets.choice(_ALPHABET) for _ in range(22)]
    return Secret(f"{''.join(letters[:6])}.{''.join(letters[6:])}")


def parse_token(token: Secret[str], field: str = "token") -> tuple[str, Secret[str]]:
    """The id and secret of a token. Raises `ConfigError`, which names `field` and does not show the token."""
    match = TOKEN.fullmatch(token.reveal())
    if match is None:
        raise ConfigError(
            f"{field}: not a bootstrap token",
            hint="a token is six and sixteen lower-case letters or digits with a dot between; "
            "`kubewright token create` prints one",
        )
    return match[1], Secret(match[2])


def identity(text: Secret[str], field: str = "token") -> str:
    """The id in an id or a whole token. Raises `ConfigError`, which names `field` and does not show the text."""
    if _ID.fullmatch(text.reveal()):
        return text.reveal()
    return parse_token(text, field)[0]


def make_token(
    now: datetime,
    *,
    token: Secret[str] | None = None,
    ttl: timedelta | None = None,
    expires: datetime | None = None,
    description: str = "",
    usages: Sequence[str] = (),
    groups: Sequence[str] = (),
    field: str = "token",
) -> BootstrapToken:
    """A token to be created; what is not said has kubeadm's default, and a token is random.

    A `ttl` of zero is for ever; `now` must be aware of its time zone. Raises `ConfigError`, which names the part
    of `field` that is wrong.
    """
    usages = tuple(dict.fromkeys(usages)) or USAGES
    if unknown := [usage for usage in usages if usage not in USAGES]:
        raise ConfigError(f"{field}: usages: {unknown[0]!r} is not one of {', '.join(USAGES)}")
    authenticates = "authentication" in usages
    groups = tuple(dict.fromkeys(groups)) or ((BOOTSTRAPPERS,) if authenticates else ())
    if groups and not authenticates:
        raise ConfigError(
            f"{field}: groups: a token whose usages lack 'authentication' puts nobody in a group",
            hint="leave the groups out, or add the usage",
        )
    if wrong := [name for name in groups if not is_token_group(name)]:
        raise ConfigError(
            f"{field}: groups: {wrong[0]!r} is not a group for a token",
            hint="a group begins with system:bootstrappers: and goes on with lower-case letters, digits, "
            "colons and dashes",
        )
    if ttl is not None and ttl < timedelta(0):
        raise ConfigError(f"{field}: ttl: must not be negative", hint="0 is for ever")
    if expires is None and ttl != timedelta(0):
        expires = now + (TOKEN_LIFETIME if ttl is None else ttl)
    name, hidden = parse_token(token or generate_token(), field)
    return BootstrapToken(name, hidden, expires, description, tuple(usages), tuple(groups))


def of_specs(specs: Sequence[BootstrapTokenSpec], now: datetime) -> list[BootstrapToken]:
    """The tokens of an InitConfiguration's `bootstrapTokens`. Raises `ConfigError`, as `make_token` does."""
    return [
        make_token(
            now, token=spec.token, expires=spec.expires, description=spec.description, usages=spec.usages,
            groups=spec.groups if "groups" in spec.model_fields_set else (), field=f"bootstrapTokens[{index}]",
            ttl=None if spec.ttl is None else timedelta_of(spec.ttl),
        )
        for index, spec in enumerate(specs)
    ]  # fmt: skip


def is_token_group(name: str) -> bool:
    """Whether a token may put its bearer in this group."""
    return _GROUP.fullmatch(name) is not None


def token_secret(token: BootstrapToken) -> Object:
    """The Secret of kube-system that makes a token known; the token cleaner removes it when it has expired."""
    data = {"token-id": token.id, "token-secret": token.secret.reveal()}
    data |= {f"{_USAGE_PREFIX}{usage}": "true" for usage in token.usages}
    if token.description:
        data["description"] = token.description
    if token.expires is not None:
        data["expiration"] = token.expires.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    if token.groups:
        data["auth-extra-groups"] = ",".join(token.groups)
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": metadata(SECRET_PREFIX + token.id, SYSTEM),
        "type": SECRET_TYPE,
        "data": {key: base64.b64encode(value.encode()).decode() for key, value in data.items()},
    }


def token_from_secret(secret: Mapping[str, Any]) -> BootstrapToken:
    """The token of a Secret. Raises `ConfigError` naming the Secret where it is not a well-formed one."""
    name = str(secret.get("metadata", {}).get("name", ""))
    try:
        data = {
            key: base64.b64decode(value, validate=True).decode()
            for key, value in (secret.get("data") or {}).items()
        }
        identity, hidden = parse_token(Secret(f"{data['token-id']}.{data['token-secret']}"))
        expires = datetime.fromisoformat(data["expiration"]) if data.get("expiration") else None
    except (KeyError, ValueError, ConfigError):
        identity = ""
    if not identity or name != SECRET_PREFIX + identity or (expires and expires.tzinfo is None):
        raise ConfigError(
            f"Secret {SYSTEM}/{name}: not a bootstrap token",
            hint=f"remove it: kubectl -n {SYSTEM} delete secret {name}",
        ) from None
    usages = sorted(
        key.removeprefix(_USAGE_PREFIX)
        for key, value in data.items()
        if key.startswith(_USAGE_PREFIX) and value == "true"
    )
    groups = tuple(item for item in data.get("auth-extra-groups", "").split(",") if item)
    return BootstrapToken(identity, hidden, expires, data.get("description", ""), tuple(usages), groups)


def sign_jws(content: str, token_id: str, token_secret: Secret[str]) -> str:
    """A token's signature of `cluster-info`: a JWS (RFC 7515) with HS256, its content detached (appendix F)."""
    header = _base64url(json.dumps({"alg": "HS256", "kid": token_id}, separators=(",", ":")).encode())
    signature = _mac(f"{header}.{_base64url(content.encode())}", token_secret)
    return f"{header}..{_base64url(signature)}"


def verify_jws(jws: str, content: str, token_id: str, token_secret: Secret[str]) -> bool:
    """Whether a detached signature is this token's, of this content; False for anything malformed."""
    header, _, rest = jws.partition("..")
    try:
        fields = json.loads(_unbase64url(header))
        given = _unbase64url(rest)
    except (ValueError, UnicodeDecodeError):
        return False
    if not isinstance(fields, dict) or fields.get("alg") != "HS256" or fields.get("kid") != token_id:
        return False
    return hmac.compare_digest(given, _mac(f"{header}.{_base64url(content.encode())}", token_secret))


def _mac(text: str, token_secret: Secret[str]) -> bytes:
    return hmac.new(token_secret.reveal().encode(), text.encode(), hashlib.sha256).digest()


def _base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def _unbase64url(text: str) -> bytes:
    return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
