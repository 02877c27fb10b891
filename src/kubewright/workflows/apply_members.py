"""In what order control planes start and change: founders as soon as they are a majority, all others in turn."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection, Mapping
from contextlib import asynccontextmanager

from kubewright.clients.kube import KubeClient
from kubewright.model.arguments import peer_url
from kubewright.model.formation import EtcdRole, Formation
from kubewright.phases.etcd import unfinished
from kubewright.phases.node import Node
from kubewright.workflows.fleet import AbandonedError


class Founders:
    """Who begins a cluster, and waits until a majority can: an API server without an etcd that decides gives up,
    to be started again after a longer pause each time."""

    def __init__(self, formation: Formation) -> None:
        self._quorum = len(formation.founders) // 2 + 1
        # Those that have data have started, and those that cannot be reached may have: nobody waits for them.
        coming = {name for name, role in formation.roles.items() if role is EtcdRole.FOUND}
        self._coming = coming
        self._there = len(formation.founders) - len(coming)
        self._open = asyncio.Event()

    async def ready(self, name: str) -> None:
        """A host can start its member. Returns when a majority can; raises `AbandonedError` when it never will."""
        self._coming.discard(name)
        self._there += 1
        self._judge()
        await self._open.wait()
        if self._there < self._quorum:
            raise AbandonedError

    def ended(self, name: str) -> None:
        """A host's work has ended, well or not."""
        self._coming.discard(name)
        self._judge()

    def _judge(self) -> None:
        if self._there >= self._quorum or self._there + len(self._coming) < self._quorum:
            self._open.set()


class Restarts:
    """API servers that change, one after another. After one that does not serve again, no further one is touched.

    Those that do not serve take no turn: to start anew costs nobody anything, and the others wait for them.
    """

    def __init__(self) -> None:
        self._lock = asyncio.Lock()
        self._failed = False

    @asynccontextmanager
    async def turn(self, *, serves: bool) -> AsyncIterator[None]:
        """Inside, no other that serves is changed. Raises `AbandonedError` where one has failed before."""
        if not serves:
            yield
            return
        async with self._lock:
            if self._failed:
                raise AbandonedError
            self._failed = True
            yield
            self._failed = False


class Newcomers:
    """Who is added to a cluster: one after another, those first whom an interrupted run has announced."""

    def __init__(self, names: Collection[str]) -> None:
        self._ended = {name: asyncio.Event() for name in names}
        self._lock = asyncio.Lock()
        self._announced: set[str] | None = None

    def ended(self, name: str) -> None:
        """A host's work has ended, well or not."""
        if name in self._ended:
            self._ended[name].set()

    @asynccontextmanager
    async def turn(
        self, node: Node, kube: KubeClient, certificates_dir: str, addresses: Mapping[str, str]
    ) -> AsyncIterator[bool]:
        """Inside, no other member is added; whether this one has been announced before.

        As long as there is a learner etcd takes no second one. `addresses` are the hosts', by name.
        """
        async with self._lock:
            if self._announced is None:
                urls = await unfinished(node.host, kube, certificates_dir)
                self._announced = {name for name in self._ended if peer_url(addresses[name]) in urls}
        announced = node.name in self._announced
        if not announced:
            for name in self._announced:
                await self._ended[name].wait()
        try:
            async with self._lock:
                yield announced
        finally:
            self.ended(node.name)
