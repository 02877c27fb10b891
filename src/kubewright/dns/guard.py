"""Watches over the upstreams: are they there, have they changed, and do they lead back to ourselves (P18)."""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import dns.name
from dns.edns import EDECode
from dns.rdatatype import HINFO

from kubewright.dns.forward import Forwarder
from kubewright.dns.metrics import Metrics
from kubewright.dns.resolver import Resolver
from kubewright.dns.upstream import Question, Upstream, UpstreamError, read_resolv_conf
from kubewright.dns.wire import Note

log = logging.getLogger(__name__)

_ROUND = 1.0
"""Seconds between two looks at resolv.conf and at upstreams that are down."""
_PATIENCE = 2.0
"""Seconds in which a probe that is going round comes back."""
_AGAIN = 30.0
"""Seconds between probes while a loop is there: it may have been mended on the other side."""


class Guard:
    """Keeps a forwarder's upstreams right. `resolv_conf` is None where they were given by hand."""

    def __init__(
        self, forwarder: Forwarder, resolver: Resolver, metrics: Metrics, resolv_conf: Path | None
    ) -> None:
        self._forwarder = forwarder
        self._resolver = resolver
        self._metrics = metrics
        self._resolv_conf = resolv_conf
        self._text = _text(resolv_conf)

    @property
    def looped(self) -> bool:
        """Whether an upstream leads back to this server."""
        return self._forwarder.stopped is not None

    async def run(self) -> None:
        """Probe for a loop, then look after the upstreams until cancelled. The sockets must be open before."""
        loop = asyncio.get_running_loop()
        await self.probe()
        probed = loop.time()
        while True:
            await asyncio.sleep(_ROUND)
            text = _text(self._resolv_conf)
            changed = text != self._text
            if changed and self._resolv_conf is not None:
                self._text = text
                self._forwarder.use(read_resolv_conf(self._resolv_conf))
                log.info("%s has changed: upstreams are %s", self._resolv_conf, self._names())
            if changed or (self.looped and loop.time() - probed > _AGAIN):
                await self.probe()
                probed = loop.time()
            down = [one for one in self._forwarder.upstreams if one.down]
            await asyncio.gather(*(self._check(one) for one in down))

    async def probe(self) -> None:
        """Ask each upstream for a name that nobody else can know; if that question reaches us, it is a loop."""
        upstreams = list(self._forwarder.upstreams)
        looping = await asyncio.gather(*(self._leads_back(one) for one in upstreams))
        bad = [one for one, yes in zip(upstreams, looping, strict=True) if yes]
        was = self.looped
        if not bad:
            self._forwarder.stopped = None
            if was:
                log.info(
                    "no upstream leads back here any more: names outside the cluster are forwarded again"
                )
            return
        where = str(self._resolv_conf) if self._resolv_conf is not None else "--upstream"
        names = ", ".join(map(str, bad))
        self._forwarder.stopped = Note(
            EDECode.OTHER, f"loop: upstream {names} of {where} leads back to this server"
        )
        if not was:
            log.critical(
                "loop: the upstream server %s, named by %s, sends its questions back to this server. Names "
                "outside the cluster are refused until that is mended; the cluster's own are answered. This pod's "
                "resolv.conf is its node's: give the kubelet one (resolvConf) that names neither a loopback "
                "address nor the cluster's DNS service, then delete this pod",
                names, where,
            )  # fmt: skip

    async def _leads_back(self, upstream: Upstream) -> bool:
        name = dns.name.from_text(f"{secrets.randbits(62)}.{secrets.randbits(62)}.")
        seen = asyncio.Event()
        self._resolver.probes[name] = seen.set
        try:
            async with asyncio.timeout(_PATIENCE):
                came = asyncio.create_task(seen.wait())
                asked = asyncio.create_task(_answered(upstream, Question(name, HINFO)))
                try:
                    await asyncio.wait((came, asked), return_when=asyncio.FIRST_COMPLETED)
                finally:
                    came.cancel()
                    asked.cancel()
        except TimeoutError:
            pass
        finally:
            del self._resolver.probes[name]
        return seen.is_set()

    async def _check(self, upstream: Upstream) -> None:
        if await upstream.alive(_ROUND):
            log.info("upstream %s answers again", upstream)
        else:
            self._metrics.unhealthy[str(upstream)] += 1

    def _names(self) -> str:
        return ", ".join(map(str, self._forwarder.upstreams)) or "none"


async def _answered(upstream: Upstream, question: Question) -> None:
    with suppress(UpstreamError):
        await upstream.ask(question, _PATIENCE)


def _text(path: Path | None) -> str:
    try:
        return path.read_text(errors="replace") if path is not None else ""
    except OSError:
        return ""


def upstreams(given: Sequence[str], resolv_conf: Path) -> list[Upstream]:
    """The upstreams given by hand, or else those of resolv.conf. Raises `ConfigError` for what is no address."""
    return [Upstream.parse(one) for one in given] if given else read_resolv_conf(resolv_conf)
