"""What a joining node may believe of `cluster-info`, by its token alone (kubeadm's bootstrap token design)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kubewright.errors import ConfigError
from kubewright.model import kubeconfig, tokens
from kubewright.model.stored import CLUSTER_INFO_KEY, SIGNATURE_PREFIX
from kubewright.secret import Secret


class UnsignedError(ConfigError):
    """There is no signature of the token: it is unknown, has expired (P10), or is too new."""


def verified_ca(config_map: Mapping[str, Any], token: Secret[str]) -> bytes:
    """The CA inside a `cluster-info` ConfigMap that is signed with `token`.

    Raises `UnsignedError` where the signature is missing, `ConfigError` where it is wrong.
    """
    identity, hidden = tokens.parse_token(token)
    data = config_map.get("data") or {}
    content = str(data.get(CLUSTER_INFO_KEY, ""))
    signature = data.get(SIGNATURE_PREFIX + identity)
    if not signature:
        raise UnsignedError(
            f"cluster-info is not signed with token {identity}: the token is unknown, or has expired",
            hint="`kubeadm token create --print-join-command` on a control plane makes a new one",
        )
    if not tokens.verify_jws(str(signature), content, identity, hidden):
        raise ConfigError(
            f"cluster-info's signature is not one of token {identity}",
            hint="is the token copied whole? or does the address lead to another cluster?",
        )
    document = kubeconfig.load(content.encode(), "cluster-info")
    for entry in document.get("clusters") or []:
        if ca := kubeconfig.embedded(entry.get("cluster") or {}, "certificate-authority-data"):
            return ca
    raise ConfigError("cluster-info holds no CA")
