"""Follows the cluster's Nodes: list, then watch, then list again, for as long as it takes."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable

from kubewright.clients.kube import KubeClient
from kubewright.clients.paths import Object
from kubewright.errors import ApiError

FIRST_LIST_TIMEOUT, LIST_TIMEOUT = 3.0, 30.0
"""Seconds. While kube-proxy has not set the API's service address up, a connection hangs, and the next one, a
moment later, goes through: so the first tries are short."""
WATCH_SECONDS = 60.0
"""A watch is asked to end after this long, so that a dead connection is noticed a quarter minute later at most."""
RELIST_SECONDS = 600.0
BACKOFF_FIRST, BACKOFF_MOST = 0.2, 5.0
STEADY_SECONDS = 5.0
"""A watch that lived this long ends a row of failures."""


def backoff(failures: int) -> float:
    """Seconds to wait after that many failures in a row, spread so that nodes do not come all at once."""
    most = min(BACKOFF_MOST, BACKOFF_FIRST * 2.0 ** min(failures - 1, 10))
    return random.uniform(most / 2, most)  # noqa: S311 - spreads load, guards nothing


async def follow_nodes(
    client: KubeClient,
    learn: Callable[[dict[str, Object]], None],
    trouble: Callable[[int, str], None],
) -> None:
    """Call `learn` with all Nodes by name whenever they may have changed; runs until cancelled.

    `trouble` hears how many tries have failed in a row, and why; 0 when the API answers again.
    """
    failures = 0
    while True:
        began = time.monotonic()
        try:
            nodes, version = await _list(client, FIRST_LIST_TIMEOUT if failures < 5 else LIST_TIMEOUT)
            learn(nodes)
            began = time.monotonic()
            if failures:
                trouble(0, "")
            await _watch(client, nodes, version, learn)
            failures = 0
        except ApiError as error:
            steady = time.monotonic() - began > STEADY_SECONDS and error.status == 0
            failures = 1 if steady else failures + 1
            if error.status != 410:  # 410: the version is too old to go on from, which a new list cures
                trouble(failures, error.message)
            await asyncio.sleep(backoff(failures))


async def _list(client: KubeClient, timeout: float) -> tuple[dict[str, Object], str]:
    try:
        async with asyncio.timeout(timeout):
            nodes, version = await client.list_with_version("v1", "Node")
    except TimeoutError:
        raise ApiError(f"{client.server.url}: no answer in {timeout:.0f} s") from None
    return {node["metadata"]["name"]: node for node in nodes}, version


async def _watch(
    client: KubeClient, nodes: dict[str, Object], version: str, learn: Callable[[dict[str, Object]], None]
) -> None:
    """Follow changes until it is time to list again. Raises `ApiError`."""
    relist = time.monotonic() + RELIST_SECONDS
    while time.monotonic() < relist:
        seconds = WATCH_SECONDS * random.uniform(0.8, 1.2)  # noqa: S311 - spreads load, guards nothing
        began = time.monotonic()
        async for kind, node in client.watch("v1", "Node", version=version, timeout=seconds):
            version = node["metadata"].get("resourceVersion", version)
            name = node["metadata"].get("name", "")
            if kind == "DELETED":
                nodes.pop(name, None)
            elif kind in ("ADDED", "MODIFIED"):
                nodes[name] = node
            else:
                continue
            learn(nodes)
        if time.monotonic() - began < 1:
            # The server ended the watch at once (it is stopping, perhaps): do not run round in circles.
            await asyncio.sleep(backoff(2))
