"""The bootstrap tokens of a running cluster: making, listing and deleting them."""

from __future__ import annotations

from collections.abc import Sequence

from kubewright.clients.objects import ObjectClient
from kubewright.errors import ApiError, ConfigError, KubewrightError
from kubewright.events import Events
from kubewright.model.objects import SYSTEM
from kubewright.model.tokens import (
    SECRET_PREFIX,
    SECRET_TYPE,
    BootstrapToken,
    token_from_secret,
    token_secret,
)


async def list_tokens(kube: ObjectClient, events: Events) -> list[BootstrapToken]:
    """All tokens, by id. A Secret of their type that is none is warned of and left out, as with kubeadm."""
    found = []
    for secret in await kube.list("v1", "Secret", SYSTEM, fields=f"type={SECRET_TYPE}"):
        try:
            found.append(token_from_secret(secret))
        except ConfigError as error:
            events.warn(error.message)
    return sorted(found, key=lambda token: token.id)


async def create_tokens(kube: ObjectClient, tokens: Sequence[BootstrapToken]) -> None:
    """Make tokens known to the cluster. Raises `KubewrightError` for one whose id is taken."""
    for token in tokens:
        try:
            await kube.create(token_secret(token))
        except ApiError as error:
            if error.status != 409:
                raise
            raise KubewrightError(
                f"there is a token with the id {token.id} already",
                hint=f"`kubewright token delete {token.id}` removes it; a token that you leave out is random",
            ) from None


async def present_tokens(kube: ObjectClient, ids: Sequence[str]) -> list[str]:
    """Those of the ids that `delete_tokens` would delete."""
    return [one for one in ids if await kube.get("v1", "Secret", SECRET_PREFIX + one, SYSTEM) is not None]


async def delete_tokens(kube: ObjectClient, ids: Sequence[str]) -> list[str]:
    """Delete tokens; the ids of those that were there."""
    return [one for one in ids if await kube.delete("v1", "Secret", SECRET_PREFIX + one, SYSTEM)]
