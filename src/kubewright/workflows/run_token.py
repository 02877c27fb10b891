"""The bootstrap token of one run of `apply`: made when the first join asks for it, and deleted at the end."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta

from kubewright.clients.kube import KubeClient
from kubewright.errors import KubewrightError
from kubewright.model import tokens
from kubewright.secret import Secret

# Long enough for a slow host's join, short enough that a token that a killed run left is no risk.
_LIFETIME = timedelta(minutes=30)


class RunToken:
    """One token for all joins of a run. `api` waits for the cluster's API."""

    def __init__(self, api: Callable[[], Awaitable[KubeClient]]) -> None:
        self._api = api
        self._made: asyncio.Future[Secret[str]] | None = None

    async def text(self) -> Secret[str]:
        """The token, which is made for whoever asks first."""
        if self._made is None:
            self._made = asyncio.ensure_future(self._make())
        return await asyncio.shield(self._made)

    async def _make(self) -> Secret[str]:
        kube = await self._api()
        text = tokens.generate_token()
        identity, hidden = tokens.parse_token(text)
        token = tokens.BootstrapToken(
            identity,
            hidden,
            description="joins of one run of kubewright apply",
            expires=datetime.now(UTC) + _LIFETIME,
        )
        await kube.create(tokens.token_secret(token))
        # We could sign cluster-info, too, and let the kubelets start at once. But a kubelet without a certificate
        # asks for its Node in vain, longer apart each time, and gives up after some 20 s: the controllers' own
        # signature is also the sign that they will answer it.
        return text

    async def forget(self) -> None:
        """Delete it, if there is one. Where that cannot be done it expires by itself."""
        if self._made is None:
            return
        with suppress(KubewrightError):
            identity, _ = tokens.parse_token(await self._made)
            kube = await self._api()
            await kube.delete("v1", "Secret", tokens.SECRET_PREFIX + identity, "kube-system")
