"""The kernel's main routing table over rtnetlink: read it, change our routes in it, hear of changes."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterable
from contextlib import suppress
from ipaddress import IPv4Address, IPv4Network
from typing import Any

from pyroute2 import AsyncIPRoute  # type: ignore[import-untyped]
from pyroute2.netlink import rtnl  # type: ignore[import-untyped]
from pyroute2.netlink.exceptions import NetlinkError  # type: ignore[import-untyped]

from kubewright.errors import KubewrightError
from kubewright.network.plan import ROUTE_PROTOCOL, FoundRoute, Reach, Route, RouteChange

MAIN_TABLE = 254
_UNICAST, _LOCAL, _UNREACHABLE = 1, 2, 7
_ESRCH, _EEXIST = 3, 17


class RoutingTable:
    """The main table, over one socket that `close` ends."""

    def __init__(self) -> None:
        self._netlink = AsyncIPRoute()

    def close(self) -> None:
        """End the socket."""
        self._netlink.close()

    async def found(self) -> list[FoundRoute]:
        """The routes of metric 0: those whose place ours would take. Default routes are not among them."""
        messages = await self._netlink.get_routes(family=socket.AF_INET, table=MAIN_TABLE)
        return [
            FoundRoute(_route(message), message["proto"])
            async for message in messages
            if message.get("RTA_DST") and not message.get("RTA_PRIORITY")
        ]

    async def reach(self, addresses: Iterable[IPv4Address]) -> dict[IPv4Address, Reach]:
        """How the kernel would send a packet to each address."""
        return {address: await self._reach(address) for address in addresses}

    async def _reach(self, address: IPv4Address) -> Reach:
        try:
            answer = await self._netlink.route("get", dst=str(address))
        except NetlinkError as error:
            return Reach(error=os.strerror(error.code).lower())
        message = next(iter(answer))
        gateway = message.get("RTA_GATEWAY")
        return Reach(
            message.get("RTA_OIF") or 0,
            IPv4Address(gateway) if gateway else None,
            message["type"] == _LOCAL,
        )

    async def apply(self, change: RouteChange) -> list[str]:
        """Make the change, old routes first; what the kernel refused, as text. Routes of others stay."""
        refused = []
        for command, routes in (("del", change.remove), ("add", change.add), ("replace", change.replace)):
            for route in routes:
                try:
                    await self._netlink.route(command, **_request(route))
                except NetlinkError as error:
                    if command == "del" and error.code == _ESRCH:
                        continue
                    # EEXIST: somebody set a route there after we looked. The next look names it.
                    refused.append(f"{command} {route}: {os.strerror(error.code).lower()}")
        return refused


def _route(message: Any) -> Route:
    destination = IPv4Network((message.get("RTA_DST"), message["dst_len"]))
    gateway = message.get("RTA_GATEWAY")
    # An odd link keeps a route that is neither ours by form nor unreachable from comparing equal to a wanted one.
    link = 0 if message["type"] == _UNREACHABLE else message.get("RTA_OIF") or -1
    return Route(destination, IPv4Address(gateway) if gateway else None, link)


def _request(route: Route) -> dict[str, Any]:
    request: dict[str, Any] = {"dst": str(route.destination), "proto": ROUTE_PROTOCOL, "table": MAIN_TABLE}
    if route.gateway is None:
        return request | {"type": "unreachable"}
    return request | {"gateway": str(route.gateway), "oif": route.link}


async def listen(changed: Callable[[], None]) -> None:
    """Call `changed` whenever a route of ours was removed, or an address or link of this node changed.

    The kernel drops a link's routes in silence when the link goes down, so links and addresses count too.
    Runs until cancelled; raises `KubewrightError` if the kernel ends the subscription.
    """
    netlink = AsyncIPRoute()
    try:
        await netlink.bind(rtnl.RTMGRP_IPV4_ROUTE | rtnl.RTMGRP_IPV4_IFADDR | rtnl.RTMGRP_LINK)
        while True:
            heard = False
            async for message in netlink.get():
                heard = True
                if _matters(message):
                    changed()
            if not heard:
                raise KubewrightError("the kernel ended the subscription to route changes")
    except (NetlinkError, OSError) as error:
        raise KubewrightError(f"listening for route changes: {error}") from error
    finally:
        with suppress(OSError):
            netlink.close()


def _matters(message: Any) -> bool:
    event = message["event"]
    if event == "RTM_DELROUTE":
        return bool(message["proto"] == ROUTE_PROTOCOL)
    # Every pod brings a veth and its address: what matters of them is cheap to look at (a dump of one table).
    return event in ("RTM_NEWADDR", "RTM_DELADDR", "RTM_NEWLINK", "RTM_DELLINK")
