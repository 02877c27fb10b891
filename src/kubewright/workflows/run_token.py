"""The bootstrap token of one run of `apply`: made when the first join asks for it, and deleted at the end."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta

from kubewright.clients.kube import KubeClient
from kubewright.errors import ApiError, KubewrightError
from kubewright.model import tokens
from kubewright.model.objects import PUBLIC
from kubewright.model.stored import CLUSTER_INFO, CLUSTER_INFO_KEY, SIGNATURE_PREFIX
from kubewright.secret import Secret

# Long enough for a slow host's join, short enough that a token that a killed run left is no risk.
_LIFETIME = timedelta(minutes=30)


class RunToken:
    """One token for all joins of a run. `api` waits for the cluster's API."""

    def __init__(self, api: Callable[[], Awaitable[KubeClient]]) -> None:
        self._api = api
        self._made: asyncio.Future[Secret[str]] | None = None
        self._identity = ""
        self._until = datetime.min.replace(tzinfo=UTC)

    async def text(self) -> Secret[str]:
        """The token, which is made for whoever asks first, and anew for a join in whose middle it might end."""
        if self._made is None or (self._made.done() and datetime.now(UTC) > self._until - _LIFETIME / 2):
            self._made = asyncio.ensure_future(self._make())
        return await asyncio.shield(self._made)

    async def _make(self) -> Secret[str]:
        kube = await self._api()
        text = tokens.generate_token()
        identity, hidden = tokens.parse_token(text)
        self._identity = identity
        self._until = datetime.now(UTC) + _LIFETIME
        token = tokens.BootstrapToken(
            identity,
            hidden,
            description="joins of one run of kubewright apply",
            expires=self._until,
        )
        await kube.create(tokens.token_secret(token))
        with suppress(ApiError):  # the controllers will do it, if later
            await self._sign(kube, identity, hidden)
        return text

    async def _sign(self, kube: KubeClient, identity: str, hidden: Secret[str]) -> None:
        """Sign cluster-info as kube-controller-manager will, which comes to it long after the API is there."""
        info = await kube.get("v1", "ConfigMap", CLUSTER_INFO, PUBLIC) or {}
        if content := (info.get("data") or {}).get(CLUSTER_INFO_KEY):
            signature = {f"{SIGNATURE_PREFIX}{identity}": tokens.sign_jws(content, identity, hidden)}
            await kube.merge("v1", "ConfigMap", CLUSTER_INFO, {"data": signature}, PUBLIC)

    async def forget(self) -> None:
        """Delete it, if there is one. Where that cannot be done it expires by itself, as do those before it."""
        if not self._identity:
            return
        with suppress(KubewrightError):
            kube = await self._api()
            await kube.delete("v1", "Secret", tokens.SECRET_PREFIX + self._identity, "kube-system")
            signature = {f"{SIGNATURE_PREFIX}{self._identity}": None}
            await kube.merge("v1", "ConfigMap", CLUSTER_INFO, {"data": signature}, PUBLIC)
