"""What a joining node may believe of `cluster-info`, and the errors that tell why it believes nothing (P10).

The design is kubeadm's: a token signs `cluster-info` (JWS), the hash of the CA's public key pins the cluster.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from kubewright.errors import ConfigError, ExitCode, KubewrightError
from kubewright.model import kubeconfig, tokens, x509
from kubewright.model.stored import CLUSTER_INFO, CLUSTER_INFO_KEY, SIGNATURE_PREFIX
from kubewright.secret import Secret

_HASH = re.compile(r"(?i:sha256):([0-9a-fA-F]{64})", re.ASCII)
_CLOCK_TOLERANCE = timedelta(minutes=5)
NEW_TOKEN = "on a control plane, `kubewright token create --print-join-command` prints a command that works"  # noqa: S105
_KEPT = "`kubewright token list` there shows the tokens that there are"


class DiscoveryError(KubewrightError):
    """The cluster cannot be known, or must not be trusted."""

    passes = False
    """Whether trying again may help."""
    passes_soon = False
    """Whether trying again may help for some seconds: a cluster that is new has not written all of it yet."""
    meanwhile = ""
    """What is said while it is waited for; the message, where this is empty."""


class UnreachableError(DiscoveryError):
    """Nothing answers at the endpoint."""

    exit_code = ExitCode.API_ERROR
    passes = True


class NotTheApiError(DiscoveryError):
    """Something answers at the endpoint that is no API server: a wrong port, or a proxy's own page."""

    exit_code = ExitCode.API_ERROR


class NotPublicError(DiscoveryError):
    """The API server shows no `cluster-info`: the cluster does not let nodes join by token."""

    exit_code = ExitCode.API_ERROR
    passes_soon = True


class UnsignedError(DiscoveryError, ConfigError):
    """There is no signature of the token: it is unknown, has expired, or is too new."""

    exit_code = ExitCode.API_ERROR
    passes = True
    meanwhile = "waiting for kube-controller-manager to sign cluster-info"


class UnknownTokenError(DiscoveryError):
    """The cluster does not know the token: it never did, or it was deleted."""

    exit_code = ExitCode.API_ERROR


class ExpiredTokenError(DiscoveryError):
    """The cluster has known the token, and accepts it no longer."""

    exit_code = ExitCode.API_ERROR


class WrongTokenError(DiscoveryError, ConfigError):
    """The token's id is known, its secret is another."""

    exit_code = ExitCode.API_ERROR


class OtherClusterError(DiscoveryError):
    """The CA is none of those that were named: another cluster, or somebody between."""

    exit_code = ExitCode.HOST_IN_OTHER_CLUSTER


class ClockError(DiscoveryError):
    """A certificate is not valid yet, or no longer, by one of two clocks."""

    exit_code = ExitCode.HOST_NOT_FIT


@dataclass(frozen=True, slots=True)
class ClusterInfo:
    """What the kubeconfig inside `cluster-info` says."""

    server: str
    """The URL that all clients are to use."""
    ca: bytes
    """PEM."""


def parse_hashes(texts: Sequence[str], field: str = "--discovery-token-ca-cert-hash") -> frozenset[str]:
    """The pins of `sha256:HEX`, in lower case. Raises `ConfigError`, which names `field`."""
    found = set()
    for text in texts:
        match = _HASH.fullmatch(text.strip())
        if match is None:
            raise ConfigError(
                f"{field}: {text[:80]!r} is not a hash of a CA's public key",
                hint=f"it is `sha256:` and 64 hexadecimal digits; {NEW_TOKEN}",
            )
        found.add(f"sha256:{match[1].lower()}")
    return frozenset(found)


def require_pins(hashes: Sequence[str], *, unsafe_skip_ca_verification: bool) -> frozenset[str]:
    """`parse_hashes`; without any, `ConfigError` unless the user takes the risk in words."""
    pins = parse_hashes(hashes)
    if not pins and not unsafe_skip_ca_verification:
        raise ConfigError(
            "--discovery-token-ca-cert-hash: without it anybody could pass for the cluster",
            hint=f"{NEW_TOKEN}; or take the risk: --discovery-token-unsafe-skip-ca-verification",
        )
    return pins


def cluster_of(config_map: Mapping[str, Any], where: str = CLUSTER_INFO) -> ClusterInfo:
    """The one cluster inside a `cluster-info` ConfigMap, believed or not. Raises `NotPublicError`."""
    content = str((config_map.get("data") or {}).get(CLUSTER_INFO_KEY) or "")
    entries: list[Any] = []
    if content:
        entries = kubeconfig.load(content.encode(), where).get("clusters") or []
    if len(entries) == 1 and isinstance(entries[0], dict):
        cluster = entries[0].get("cluster") or {}
        ca = kubeconfig.embedded(cluster, "certificate-authority-data")
        if ca and cluster.get("server"):
            return ClusterInfo(str(cluster["server"]), ca)
    raise NotPublicError(
        f"{where}: its {CLUSTER_INFO_KEY} does not name one cluster with its server and CA",
        hint="on a control plane, `kubewright init phase bootstrap-token` writes it anew",
    )


def signing_tokens(config_map: Mapping[str, Any]) -> list[str]:
    """The ids of all tokens that have signed; ids are no secret."""
    data = config_map.get("data") or {}
    return sorted(key.removeprefix(SIGNATURE_PREFIX) for key in data if key.startswith(SIGNATURE_PREFIX))


def verify_signature(config_map: Mapping[str, Any], token: Secret[str]) -> None:
    """Raise `UnsignedError` where the token's signature is missing, `WrongTokenError` where it is wrong."""
    identity, hidden = tokens.parse_token(token)
    data = config_map.get("data") or {}
    content = str(data.get(CLUSTER_INFO_KEY) or "")
    signature = data.get(SIGNATURE_PREFIX + identity)
    if not signature:
        raise unsigned(identity, signing_tokens(config_map))
    if not tokens.verify_jws(str(signature), content, identity, hidden):
        raise WrongTokenError(
            f"cluster-info's signature is not one of token {identity}: its second half is wrong",
            hint=f"is the token copied whole? or does the address lead to another cluster? {NEW_TOKEN}",
        )


def pinned(ca: bytes, hashes: frozenset[str], endpoint: str) -> bytes:
    """Of the certificates in `ca` those that `hashes` pin: anybody may put his own beside them, and until the
    signature is verified it is not to be believed. Raises `OtherClusterError` where there is none."""
    by_hash = [(x509.ca_hash(cert), cert) for cert in x509.certs_of(ca)]
    known = [cert for pin, cert in by_hash if pin in hashes]
    if not known:
        found = [pin for pin, _ in by_hash]
        raise OtherClusterError(
            f"the cluster at {endpoint} has another CA than the hash says: {', '.join(found)}",
            hint=f"another cluster is at that address, somebody stands between, or the hash is old; {NEW_TOKEN}",
        )
    return b"".join(known)


def clock_trouble(ca: bytes, now: datetime, server_time: datetime | None) -> str:
    """Why the CA is not valid by a joining host's clock; empty where it is."""
    cert = x509.load_cert(ca)
    if now < cert.not_valid_before_utc - _CLOCK_TOLERANCE:
        why = f"the cluster's CA is not valid before {cert.not_valid_before_utc:%Y-%m-%d %H:%M:%S} UTC"
    elif now >= cert.not_valid_after_utc:
        why = f"the cluster's CA has expired at {cert.not_valid_after_utc:%Y-%m-%d %H:%M:%S} UTC"
    else:
        return ""
    theirs = f", {server_time:%Y-%m-%d %H:%M:%S} by the API server's" if server_time else ""
    return f"{why}, and it is {now:%Y-%m-%d %H:%M:%S} by this host's clock{theirs}"


# -- the errors, in words -----------------------------------------------------------------------------------------


def unsigned(identity: str, others: Sequence[str]) -> UnsignedError:
    """`cluster-info` is there, without this token's signature."""
    alive = f"tokens that sign it: {', '.join(others)}" if others else "no token at all signs it"
    return UnsignedError(
        f"cluster-info is not signed with token {identity}: the token is unknown, or has expired",
        hint="is kube-controller-manager up to sign it? "
        f"`kubectl -n kube-system get pods -l component=kube-controller-manager`; else {NEW_TOKEN}",
        evidence=[alive],
    )


def unsigned_but_known(identity: str) -> UnsignedError:
    """The token lets its bearer in, and nobody signs with it."""
    return UnsignedError(
        f"cluster-info is not signed with token {identity}, which the API server accepts",
        hint="kube-controller-manager signs it, where the token may sign: on a control plane, "
        "`kubectl -n kube-system get pods -l component=kube-controller-manager` and `kubewright token list`",
    )


def unknown(identity: str, endpoint: str, others: Sequence[str]) -> UnknownTokenError:
    """Neither a signature nor the API server knows the token."""
    alive = f"tokens that sign cluster-info: {', '.join(others)}" if others else "no token signs cluster-info"
    return UnknownTokenError(
        f"the cluster at {endpoint} does not know token {identity}: it was deleted, has been cleaned away after "
        "its time, or is another cluster's",
        hint=f"{NEW_TOKEN}; {_KEPT}",
        evidence=[alive],
    )


def expired(identity: str, endpoint: str) -> ExpiredTokenError:
    """cluster-info still bears the token's signature, and the API server refuses the token."""
    return ExpiredTokenError(
        f"token {identity} has expired, or is none to join with: cluster-info still bears its signature, and the "
        f"API server at {endpoint} does not accept it",
        hint=f"a token lives for 24 hours unless --ttl says otherwise; {NEW_TOKEN}",
    )


def bootstrap_refused(identity: str, endpoint: str) -> UnknownTokenError:
    """The token of the TLS bootstrap, which is another than that of the discovery, is refused."""
    return UnknownTokenError(
        f"the API server at {endpoint} does not accept token {identity} for the TLS bootstrap: it has expired, "
        "was deleted, or may not authenticate",
        hint=f"{NEW_TOKEN}; {_KEPT}",
    )


def clocks(why: str) -> ClockError:
    """One of two clocks is wrong."""
    return ClockError(
        why,
        hint="compare `date -u` here and on a control plane, and let both be set: `timedatectl set-ntp true`; a "
        "certificate that has really expired is renewed there by `kubewright certs renew all`",
    )
