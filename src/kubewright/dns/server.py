"""The cluster's DNS server: `python3 -m kubewright.dns.server`, in CoreDNS' place where its image cannot be had.

docs/dns.md says what it answers, and how it differs from CoreDNS.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import signal
import sys
from collections.abc import Iterable, Sequence
from typing import Protocol

from kubewright.clients.kube import KubeClient
from kubewright.clients.server import Server
from kubewright.dns import http, options
from kubewright.dns.forward import Forwarder
from kubewright.dns.guard import Guard, upstreams
from kubewright.dns.index import Index, Tag
from kubewright.dns.listen import Answerer, TcpListener, UdpListener
from kubewright.dns.metrics import Metrics
from kubewright.dns.options import Options
from kubewright.dns.resolver import Resolver
from kubewright.dns.watch import Watcher
from kubewright.dns.zone import Zone
from kubewright.errors import ExitCode, KubewrightError, leaves

log = logging.getLogger("kubewright.dns")


class Knowledge(Protocol):
    """Whoever fills the index."""

    @property
    def synced(self) -> bool:
        """Whether it was filled once."""
        ...

    @property
    def missing(self) -> str:
        """What it still lacks, in words."""
        ...

    async def run(self) -> None:
        """Fill it, and keep it true until cancelled."""
        ...


class DnsServer:
    """All parts together: the index and who fills it, the resolver, the sockets."""

    def __init__(self, opts: Options) -> None:
        self.options = opts
        self.metrics = Metrics()
        self.index = Index()
        self.knowledge: Knowledge | None = None
        self.stopping = False
        self.opened = asyncio.Event()
        """Set once all sockets answer."""
        zone = Zone(self.index, opts.domain, ttl=opts.ttl, pods=opts.pods)
        self.forwarder = Forwarder(upstreams(opts.upstreams, opts.resolv_conf), self.metrics)
        self._resolver = Resolver(zone, self.forwarder, synced=lambda: self.synced)
        self.guard = Guard(
            self.forwarder, self._resolver, self.metrics, None if opts.upstreams else opts.resolv_conf
        )
        self.udp: list[UdpListener] = []
        self.tcp: list[TcpListener] = []
        self.http_ports: list[int] = []
        self.metrics.gauges |= {
            "kubewright_dns_synced": ("1 once the cluster was listed.", lambda: float(self.synced)),
            "kubewright_dns_loop": ("1 while an upstream leads back here.", lambda: float(self.guard.looped)),
            "kubewright_dns_services": ("Services known.", lambda: float(len(self.index.services()))),
            "kubewright_dns_answers_cached": ("Finished answers.", lambda: float(sum(map(len, self.udp)))),
            "coredns_cache_entries": ("Forwarded names known.", lambda: float(len(self.forwarder))),
        }

    @property
    def synced(self) -> bool:
        """Whether the cluster is known."""
        return self.knowledge is not None and self.knowledge.synced

    def changed(self, tags: Iterable[Tag]) -> None:
        """Forget the finished answers that a change made stale."""
        if tags:
            for listener in self.udp:
                listener.forget(tags)

    def health(self) -> str:
        """Why this server should not be used any more; empty while it should."""
        return "shutting down" if self.stopping else ""

    def ready(self) -> str:
        """Why this server should not be asked; empty when it should. An API that went away changes nothing."""
        if self.stopping:
            return "shutting down"
        if self.synced:
            return ""
        return f"not listed yet: {self.knowledge.missing}" if self.knowledge else "starting"

    async def run(self, stop: asyncio.Event) -> None:
        """Serve until `stop`, and then for `lameduck` seconds more. Raises `KubewrightError` for a taken port."""
        opts = self.options
        app = http.application(self.health, self.ready, lambda: self.metrics)
        ports = {
            "--metrics-port": opts.metrics_port,
            "--health-port": opts.health_port,
            "--ready-port": opts.ready_port,
        }
        runner, self.http_ports = await http.serve(app, opts.listen[0][0], ports)
        try:
            self._open()
            for listener in self.tcp:
                await listener.start()
            for each in self.udp:
                each.start()
            self.opened.set()
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(self.guard.run())]
                if self.knowledge is not None:
                    tasks.append(group.create_task(self.knowledge.run()))
                await stop.wait()
                self.stopping = True
                # Endpoints are taken off this pod now; until every node knows, questions still come here.
                await asyncio.sleep(opts.lameduck)
                for task in tasks:
                    task.cancel()
        finally:
            for each in self.udp:
                each.close()
            for listener in self.tcp:
                await listener.close()
            await runner.cleanup()

    def _open(self) -> None:
        answerer = Answerer(self._resolver, self.metrics)
        for host, port in self.options.listen:
            try:
                self.udp.append(UdpListener(host, port, answerer, self.metrics))
                self.tcp.append(TcpListener(host, port, answerer, self.metrics))
            except OSError as error:
                raise KubewrightError(
                    f"--listen {host}:{port}: {error.strerror}",
                    hint="ports below 1024 need the capability NET_BIND_SERVICE"
                    if isinstance(error, PermissionError)
                    else "another program may listen there, or no interface has that address",
                ) from error


async def _main(opts: Options) -> None:
    server = DnsServer(opts)
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    task = asyncio.current_task()
    assert task is not None

    def terminate() -> None:
        if stop.is_set():  # asked twice: at once
            task.cancel()
        stop.set()

    loop.add_signal_handler(signal.SIGTERM, terminate)
    loop.add_signal_handler(signal.SIGINT, task.cancel)
    where = ", ".join(f"{host}:{port}" for host, port in opts.listen)
    log.info("answering %s on %s; upstreams: %s", opts.domain, where,
             ", ".join(map(str, server.forwarder.upstreams)) or "none")  # fmt: skip
    async with KubeClient(Server.in_cluster()) as client:
        server.knowledge = Watcher(
            client, server.index, server.changed, server.metrics, pods=opts.pods == "verified"
        )
        # What was loaded so far stays for ever: the collector need not look at it again and again.
        gc.freeze()
        await server.run(stop)
    log.info("ended")


def main(argv: Sequence[str] | None = None) -> int:
    """Run; the exit code. An error is one line, without a traceback."""
    logging.basicConfig(level=logging.INFO, stream=sys.stdout, format="%(asctime)s %(levelname)s %(message)s")
    try:
        asyncio.run(_main(options.parse(sys.argv[1:] if argv is None else argv)))
    except (KubewrightError, ExceptionGroup) as error:
        causes = leaves(error)
        for cause in causes:
            if not isinstance(cause, KubewrightError):
                raise
            log.error("%s%s", cause.message, f" ({cause.hint})" if cause.hint else "")
        return int(causes[0].exit_code) if isinstance(causes[0], KubewrightError) else int(ExitCode.FAILURE)
    except (asyncio.CancelledError, KeyboardInterrupt):
        return int(ExitCode.INTERRUPTED)
    return 0


if __name__ == "__main__":
    sys.exit(main())
