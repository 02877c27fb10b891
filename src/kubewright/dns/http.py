"""The server's own state over HTTP: /health, /ready and /metrics, each on the port where CoreDNS has it."""

from __future__ import annotations

import socket
from collections.abc import Callable

from aiohttp import web

from kubewright.dns.listen import bound
from kubewright.dns.metrics import Metrics
from kubewright.errors import KubewrightError

_TEXT = "text/plain; version=0.0.4; charset=utf-8"


def application(
    health: Callable[[], str], ready: Callable[[], str], metrics: Callable[[], Metrics]
) -> web.Application:
    """The three endpoints. `health` and `ready` say what is wrong, in words; nothing for all is well."""

    async def answer_health(_: web.Request) -> web.Response:
        return _said(health())

    async def answer_ready(_: web.Request) -> web.Response:
        return _said(ready())

    async def answer_metrics(_: web.Request) -> web.Response:
        return web.Response(body=metrics().text(), headers={"Content-Type": _TEXT})

    app = web.Application()
    app.add_routes(
        [
            web.get("/health", answer_health),
            web.get("/ready", answer_ready),
            web.get("/metrics", answer_metrics),
        ]
    )
    return app


def _said(problem: str) -> web.Response:
    return web.Response(text=problem or "OK", status=503 if problem else 200)


async def serve(app: web.Application, host: str, ports: dict[str, int]) -> tuple[web.AppRunner, list[int]]:
    """Answer on each port; the runner, to clean up, and the ports taken. `ports` are by the flag that gave them.

    Raises `KubewrightError` naming the flag of a port that is taken.
    """
    runner = web.AppRunner(app, access_log=None, handle_signals=False, shutdown_timeout=0.1)
    await runner.setup()
    try:
        for flag, port in ports.items():
            try:
                await web.SockSite(runner, bound(host, port, socket.SOCK_STREAM)).start()
            except OSError as error:
                raise KubewrightError(
                    f"{flag} {port}: {error.strerror or error}", hint="another program listens there"
                ) from error
    except BaseException:
        await runner.cleanup()
        raise
    return runner, [address[1] for address in runner.addresses]
