"""Asks a cluster's API ten times a second, or writes to it, in its own process, and keeps book of what failed.

    python -m tools.ha_probe probe --kubeconfig FILE --out FILE [--server URL]
    python -m tools.ha_probe write --kubeconfig FILE --out FILE [--server URL] --prefix NAME
    python -m tools.ha_probe watch --kubeconfig FILE --out FILE [--server URL]
    python -m tools.ha_probe get --kubeconfig FILE --out FILE --url URL [--url URL …]

It goes on until SIGTERM, then waits for what is under way and writes its book as JSON. Requests begin by the
clock, whether or not those before them have been answered, so that none is left out while nothing is served.
`probe` reads and writes objects of its own in four streams: with a connection for each request, and with one
that is kept, as kubelets and controllers keep theirs. `write` makes ConfigMaps one after the other, each by a name
that is never used again, and keeps those names that the cluster has acknowledged. `watch` follows them, goes on
where its connection ends, and keeps the names that it was told of. `get` asks HTTP servers in pods.

The integration tests and bench/ha.py use `Load` and `Book`; tools may be imported by both.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import aiohttp
from tools.http2 import Answer, Client

from kubewright.clients import kubeconfig
from kubewright.clients.server import Server

INTERVAL = 0.1
"""Seconds between two requests of a stream."""
TIMEOUT = 10.0
"""Seconds for one request: the leader election's renewals, the most impatient requests of a cluster, have ten."""
NAMESPACE = "kubewright-ha"
_TURNS = round(TIMEOUT / INTERVAL) + 10
"""How many objects the writes of a probe go to in turn. No two writes under way may meet: an API server tries a
patch again for as long as others come before it, and a slow cluster would never get out of that."""
STREAMS = ("read", "write", "read-kept", "write-kept")

# Something is written ten times a second: who says nothing for so long is dead.
_PATIENCE = aiohttp.ClientTimeout(total=None, sock_connect=3, sock_read=5)
_OBJECTS = f"/api/v1/namespaces/{NAMESPACE}/configmaps"


# -- what was seen --------------------------------------------------------------------------------------------


@dataclass
class Failure:
    """A request that failed. Times are seconds since the epoch."""

    at: float
    seconds: float
    why: str


@dataclass
class Gap:
    """The longest time between two answers. `at` is its beginning, in seconds since the epoch."""

    seconds: float = 0.0
    at: float = 0.0


@dataclass
class Stream:
    """What came of one kind of request."""

    answered: int = 0
    failures: list[Failure] = field(default_factory=list)
    gap: Gap = field(default_factory=Gap)
    slowest: float = 0.0

    def __str__(self) -> str:
        failed = len(self.failures)
        return f"{failed} of {self.answered + failed} failed, longest gap {self.gap.seconds:.2f} s"


@dataclass
class Book:
    """What a run has seen.

    `acknowledged` are the names that `write` has been told are stored, or of which `watch` was told.
    """

    began: float
    ended: float = 0.0
    streams: dict[str, Stream] = field(default_factory=dict)
    acknowledged: list[str] = field(default_factory=list)

    @property
    def failures(self) -> list[str]:
        """All failures, one line each, in the order of time."""
        rows = [(row.at, name, row) for name, stream in self.streams.items() for row in stream.failures]
        return [
            f"{at - self.began:7.2f} s: {name}: {row.why} (after {row.seconds:.2f} s)"
            for at, name, row in sorted(rows, key=lambda item: item[0])
        ]

    def gap(self, *names: str) -> float:
        """The longest gap of these streams, or of all, in seconds."""
        return max(self.streams[name].gap.seconds for name in names or self.streams)

    def __str__(self) -> str:
        return "; ".join(f"{name}: {stream}" for name, stream in self.streams.items())

    @classmethod
    def read(cls, file: Path) -> Book:
        """The book that a run has written."""
        document = json.loads(file.read_text())
        streams = {
            name: Stream(
                row["answered"],
                [Failure(**each) for each in row["failures"]],
                Gap(**row["gap"]),
                row["slowest"],
            )
            for name, row in document["streams"].items()
        }
        return cls(document["began"], document["ended"], streams, document["acknowledged"])


# -- running it in a process of its own -----------------------------------------------------------------------


class Load:
    """A run of this module in another process, from `start` to `stop`.

    `server` stands in place of the kubeconfig's address; `network_of` is a process in whose network it runs (a
    machine's PID 1: only there does an address on 127.0.0.1 lead to the machine's own proxy).
    """

    def __init__(
        self,
        what: str,
        config: Path,
        out: Path,
        *,
        server: str = "",
        network_of: int | None = None,
        prefix: str = "",
        urls: Sequence[str] = (),
    ) -> None:
        self._out = out
        self._ready = out.with_suffix(".ready")
        self._ready.unlink(missing_ok=True)
        command = [
            sys.executable,
            "-m",
            "tools.ha_probe",
            what,
            "--kubeconfig",
            str(config),
            "--out",
            str(out),
        ]
        command += ["--server", server] if server else []
        command += ["--prefix", prefix] if prefix else []
        command += [word for url in urls for word in ("--url", url)]
        if network_of is not None:
            command = ["nsenter", f"--net=/proc/{network_of}/ns/net", "--", *command]
        self._errors = out.with_suffix(".err")
        root = Path(__file__).resolve().parent.parent
        paths = [str(root), str(root / "src"), *os.environ.get("PYTHONPATH", "").split(os.pathsep)]
        with self._errors.open("wb") as errors:
            self._process = subprocess.Popen(
                command, env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, paths))},
                stdin=subprocess.DEVNULL, stdout=errors, stderr=errors, start_new_session=True,
            )  # fmt: skip

    def started(self, timeout: float = 30) -> Load:
        """Wait until every kind of request has been answered once."""
        deadline = time.monotonic() + timeout
        while not self._ready.exists():
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.kill()
                raise RuntimeError(f"the probe does not start: {self._errors.read_text()[-2000:]}")
            time.sleep(0.02)
        return self

    def stop(self) -> Book:
        """End it; what it has seen."""
        self._process.terminate()
        try:
            code = self._process.wait(TIMEOUT + 10)
        finally:
            self.kill()
        if code:
            raise RuntimeError(f"the probe ended with {code}: {self._errors.read_text()[-2000:]}")
        return Book.read(self._out)

    def kill(self) -> None:
        """End it, whatever becomes of what it has seen."""
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()


# -- what runs there ------------------------------------------------------------------------------------------


class _Run:
    """Keeps book of requests."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self._url = urlsplit(server.url)
        self._loop = asyncio.get_running_loop()
        self._headers = (("authorization", f"Bearer {server.token}"),) if server.token else ()
        self._last: dict[str, float] = {}
        self.book = Book(time.time())

    def client(self, *, keep: bool) -> Client:
        """A client of the server."""
        host, port = self._url.hostname or "", self._url.port or 443
        return Client(host, port, self.server.ssl_context, keep=keep, timeout=TIMEOUT)

    async def ask(
        self, client: Client, method: str, path: str, body: Any = None, kind: str = "application/json"
    ) -> Answer:
        """One request, `OSError` where it was not answered or not with success."""
        data = json.dumps(body).encode() if body is not None else b""
        headers = (
            *self._headers,
            ("accept", "application/json"),
            *([("content-type", kind)] if data else []),
        )
        answer = await client.request(method, path, headers=headers, body=data)
        if answer.status not in (200, 201):
            raise OSError(f"{answer.status}: {answer.body.decode(errors='replace')[:200].strip()}")
        return answer

    async def count(self, name: str, request: Awaitable[object]) -> bool:
        """Note how a request ends; whether it was answered."""
        stream = self.book.streams[name]
        at, began = time.time(), self._loop.time()
        try:
            await request
        except OSError as error:
            why = str(error) or type(error).__name__
            stream.failures.append(Failure(at, self._loop.time() - began, why))
            return False
        stream.slowest = max(stream.slowest, self._loop.time() - began)
        self.answered(name)
        return True

    def answered(self, name: str) -> None:
        """Note an answer."""
        self.book.streams[name].answered += 1
        self._answered(name, self._loop.time())

    def begin(self, names: Sequence[str]) -> None:
        """From now on what is counted under these names counts."""
        self.book.began = time.time()
        for name in names:
            self.book.streams[name] = Stream()
            self._last[name] = self._loop.time()

    def end(self) -> Book:
        """Nothing counts any more."""
        self.book.ended = time.time()
        return self.book

    def _answered(self, name: str, now: float) -> None:
        gap = now - self._last[name]
        if gap > self.book.streams[name].gap.seconds:
            self.book.streams[name].gap = Gap(gap, time.time() - gap)
        self._last[name] = now

    def close_gaps(self) -> None:
        """The time since the last answer is a gap, too."""
        for name in self._last:
            self._answered(name, self._loop.time())


async def _by_the_clock(stop: asyncio.Event, run: _Run, act: Callable[[int], Awaitable[object]]) -> None:
    """Begin `act` every `INTERVAL`, until `stop`; then wait for all that has begun."""
    loop = asyncio.get_running_loop()
    began, number = loop.time(), 0
    async with asyncio.TaskGroup() as group:
        while not stop.is_set():
            group.create_task(_awaited(act(number)))
            number += 1
            try:
                async with asyncio.timeout_at(began + number * INTERVAL):
                    await stop.wait()
            except TimeoutError:
                if (behind := loop.time() - began - number * INTERVAL) > 1:
                    began += behind  # this computer was too busy for us: no volley to catch up
        run.close_gaps()


async def _awaited(awaitable: Awaitable[object]) -> None:
    await awaitable


async def _prepare(run: _Run, client: Client, *names: str) -> None:
    """Make the namespace and objects that are not there; the cluster may need a moment for each."""
    deadline = time.monotonic() + 20
    at_once = asyncio.Semaphore(10)

    async def make(path: str, obj: dict[str, Any]) -> None:
        while True:
            try:
                async with at_once:
                    await run.ask(client, "POST", path, obj)
            except OSError as error:
                if str(error).startswith("409"):
                    return
                if time.monotonic() > deadline:
                    raise
                await asyncio.sleep(0.1)
            else:
                return

    await make(
        "/api/v1/namespaces", {"kind": "Namespace", "apiVersion": "v1", "metadata": {"name": NAMESPACE}}
    )
    async with asyncio.TaskGroup() as group:
        for name in names:
            group.create_task(make(_OBJECTS, _object(name)))


def _object(name: str) -> dict[str, Any]:
    return {"kind": "ConfigMap", "apiVersion": "v1", "metadata": {"name": name}, "data": {"value": name}}


async def _probe(run: _Run, stop: asyncio.Event, begun: Callable[[], None]) -> None:
    kept, single = run.client(keep=True), run.client(keep=False)
    own = [f"probe-{os.getpid()}{suffix}" for suffix in ("", "-kept")]
    await _prepare(run, kept, *(f"{name}-{number}" for name in own for number in range(_TURNS)))

    def requests(number: int) -> list[Awaitable[bool]]:
        patch = {"data": {"value": str(number)}}
        return [
            run.count(f"{verb}{suffix}", run.ask(client, *what))
            for client, name, suffix in ((single, own[0], ""), (kept, own[1], "-kept"))
            for path in [f"{_OBJECTS}/{name}-{number % _TURNS}"]
            for verb, what in (
                ("read", ("GET", path)),
                ("write", ("PATCH", path, patch, "application/merge-patch+json")),
            )
        ]

    run.begin(STREAMS)
    begun()
    await _by_the_clock(stop, run, lambda number: asyncio.gather(*requests(number)))
    kept.close()


async def _write(run: _Run, stop: asyncio.Event, begun: Callable[[], None], prefix: str) -> None:
    kept, single = run.client(keep=True), run.client(keep=False)
    await _prepare(run, kept)

    async def one(number: int) -> None:
        name = f"{prefix}-{number:06}"
        client = kept if number % 2 else single
        if await run.count("create", run.ask(client, "POST", _OBJECTS, _object(name))):
            run.book.acknowledged.append(name)

    run.begin(("create",))
    begun()
    await _by_the_clock(stop, run, one)
    kept.close()


async def _watch(run: _Run, stop: asyncio.Event, begun: Callable[[], None]) -> None:
    """An answer is a connection that was opened; a failure is one after which events are missing: everything is
    listed anew then, as client-go's informers do."""
    await _prepare(run, run.client(keep=False))
    context = run.server.ssl_context()
    headers = {"Authorization": f"Bearer {run.server.token}"} if run.server.token else {}
    async with aiohttp.ClientSession(headers=headers, connector=aiohttp.TCPConnector(ssl=context)) as session:
        version, _ = await _listed(run, session)
        run.begin(("watch",))
        begun()
        follow = asyncio.ensure_future(_follow(run, session, version))
        await stop.wait()
        await asyncio.sleep(1)  # what is written to the end is told a moment later
        follow.cancel()
        await asyncio.gather(follow, return_exceptions=True)


async def _listed(run: _Run, session: aiohttp.ClientSession) -> tuple[str, list[str]]:
    """All objects' names, and the resourceVersion from which a watch goes on."""
    async with session.get(f"{run.server.url}{_OBJECTS}", timeout=_PATIENCE, raise_for_status=True) as answer:
        document = await answer.json()
    return document["metadata"]["resourceVersion"], [item["metadata"]["name"] for item in document["items"]]


async def _follow(run: _Run, session: aiohttp.ClientSession, version: str) -> None:
    """Watch from `version` on, for ever. Only who is told that events are missing lists again."""
    told = run.book.acknowledged
    while True:
        try:
            if not version:
                version, names = await _listed(run, session)
                told += sorted(set(names) - set(told))
            url = f"{run.server.url}{_OBJECTS}?watch=true&resourceVersion={version}"
            async with session.get(url, timeout=_PATIENCE) as answer:
                if answer.status == 200:
                    run.answered("watch")
                async for line in answer.content:
                    event = json.loads(line)
                    meta = (event.get("object") or {}).get("metadata") or {}
                    if event.get("type") == "ERROR" or event.get("kind") == "Status":
                        why = line.decode(errors="replace")[:300]
                        run.book.streams["watch"].failures.append(Failure(time.time(), 0.0, why))
                        version = ""
                        break
                    version = meta["resourceVersion"]
                    if event["type"] == "ADDED":
                        told.append(meta["name"])
        except (aiohttp.ClientError, OSError, TimeoutError, ValueError):
            await asyncio.sleep(0.1)


async def _get(run: _Run, stop: asyncio.Event, begun: Callable[[], None], urls: Sequence[str]) -> None:
    """Services are there before their rules are on every node: each URL must have answered once."""
    async with asyncio.TaskGroup() as group:
        for url in urls:
            group.create_task(_answers(url))
    run.begin(urls)
    begun()
    await _by_the_clock(stop, run, lambda _: asyncio.gather(*(run.count(url, _page(url)) for url in urls)))


async def _answers(url: str) -> None:
    deadline = time.monotonic() + 30
    while True:
        try:
            return await _page(url)
        except OSError:
            if time.monotonic() > deadline:
                raise
            await asyncio.sleep(0.1)


async def _page(url: str) -> None:
    """Ask for a page, on a connection of its own. Raises `OSError` where it does not come."""
    parts = urlsplit(url)
    try:
        async with asyncio.timeout(TIMEOUT):
            reader, writer = await asyncio.open_connection(parts.hostname, parts.port or 80)
            try:
                writer.write(f"GET {parts.path} HTTP/1.0\r\nHost: {parts.netloc}\r\n\r\n".encode())
                line = (await reader.readline()).decode(errors="replace").split()
            finally:
                writer.close()
    except TimeoutError:
        raise TimeoutError(f"no answer within {TIMEOUT:g} s") from None
    if line[1:2] != ["200"]:
        raise OSError(f"answered with {' '.join(line) or 'nothing'}")


async def _main(arguments: argparse.Namespace) -> None:
    server = Server.from_kubeconfig(kubeconfig.load([arguments.kubeconfig]))
    if arguments.server:
        server = Server(arguments.server, server.ca, server.client_cert, server.client_key, server.token)
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    run = _Run(server)

    def begun() -> None:
        arguments.out.with_suffix(".ready").touch()

    if arguments.what == "probe":
        await _probe(run, stop, begun)
    elif arguments.what == "watch":
        await _watch(run, stop, begun)
    elif arguments.what == "get":
        await _get(run, stop, begun, arguments.url)
    else:
        await _write(run, stop, begun, arguments.prefix)
    arguments.out.write_text(json.dumps(asdict(run.end())))


def main() -> None:
    """Run until SIGTERM."""
    parser = argparse.ArgumentParser(
        description="Ask or write to a cluster's API by the clock, and keep book."
    )
    parser.add_argument("what", choices=("probe", "write", "watch", "get"))
    parser.add_argument("--kubeconfig", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--server", default="", help="https://HOST:PORT in place of the kubeconfig's")
    parser.add_argument("--prefix", default="w", help="what the names begin with that `write` makes")
    parser.add_argument("--url", action="append", default=[], help="what `get` asks for")
    asyncio.run(_main(parser.parse_args()))


if __name__ == "__main__":
    main()
