"""Bootstrap tokens as commands show them: kubeadm's table, its documents, and the command that a token is for."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit

from kubewright.model.config.duration import short_duration
from kubewright.model.tokens import BootstrapToken
from kubewright.secret import Secret

HEADER = ("TOKEN", "TTL", "EXPIRES", "USAGES", "DESCRIPTION", "EXTRA GROUPS")
OUTPUT_API_VERSION = "output.kubeadm.k8s.io/v1alpha3"
"""The newest API version of what kubeadm prints; the fields of older ones are the same."""


def table_row(token: BootstrapToken, now: datetime) -> list[str]:
    """A token as a row of `token list`, under `HEADER`. The whole token stands in it, as with kubeadm."""
    left, until = "<forever>", "<never>"
    if token.expires is not None:
        left, until = short_duration((token.expires - now).total_seconds()), _time(token.expires)
    return [
        token.text.reveal(), left, until, ",".join(token.usages) or "<none>", token.description or "<none>",
        ",".join(token.groups) or "<none>",
    ]  # fmt: skip


def document(token: BootstrapToken) -> dict[str, Any]:
    """A token as `token list -o json` prints it; what is empty is left out."""
    row: dict[str, Any] = {
        "apiVersion": OUTPUT_API_VERSION,
        "kind": "BootstrapToken",
        "token": token.text.reveal(),
        "description": token.description,
        "expires": _time(token.expires) if token.expires is not None else "",
        "usages": list(token.usages),
        "groups": list(token.groups),
    }
    return {name: value for name, value in row.items() if value}


def join_command(
    program: str,
    server: str,
    token: Secret[str],
    pins: Sequence[str],
    *,
    control_plane: bool = False,
    certificate_key: Secret[str] | None = None,
) -> Secret[str]:
    """The command that joins a node, on one line; with `control_plane`, as one more control plane.

    `server` is the API's URL and `pins` are the hashes of its CAs (`x509.ca_hashes`); `program` is the
    name of who joins: kubeadm takes the same words.
    """
    words = [program, "join", urlsplit(server).netloc, "--token", token.reveal()]
    for pin in pins:
        words += ["--discovery-token-ca-cert-hash", pin]
    if control_plane:
        words.append("--control-plane")
        if certificate_key is not None:
            words += ["--certificate-key", certificate_key.reveal()]
    return Secret(" ".join(words))


def _time(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
