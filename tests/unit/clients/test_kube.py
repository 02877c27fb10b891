"""Where the client of the API connects to, and what it keeps of answers."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from kubewright.clients.kube import KubeClient
from kubewright.clients.server import Server


@pytest.mark.parametrize(
    ("address", "base"), [("127.0.0.1", "https://127.0.0.1:7000"), ("fd00::1", "https://[fd00::1]:7000")]
)
def test_a_tunnel_leads_to_an_address_of_either_family(address: str, base: str) -> None:
    kube = KubeClient(Server("https://[fd00::9]:6443", connect=(address, 7000)))
    url, options = kube._where("/version")
    assert url == f"{base}/version"
    assert (options["headers"]["Host"], options["server_hostname"]) == ("[fd00::9]:6443", "fd00::9")


@pytest.mark.parametrize(
    ("date", "moment"),
    [
        ("Sat, 21 Nov 2026 17:22:25 GMT", datetime(2026, 11, 21, 17, 22, 25, tzinfo=UTC)),
        ("yesterday", None),
    ],
)
async def test_the_servers_clock_is_known_from_its_answers(date: str, moment: datetime | None) -> None:
    async def answer(_request: web.Request) -> web.Response:
        return web.json_response({}, headers={"Date": date})

    application = web.Application()
    application.router.add_get("/version", answer)
    async with TestServer(application) as server, KubeClient(Server(str(server.make_url("")))) as kube:
        await kube.json("GET", "/version")
        assert kube.said_at == moment
