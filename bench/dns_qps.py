"""How many questions the built-in DNS server answers in a second on one core, and how fast: `bench/dns_qps.py`.

The server runs in a process of its own, pinned to one core, with 10,000 services and a stand-in upstream; this
process asks, pinned to another. Prints one line a case; with --json, one object.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import multiprocessing
import os
import select
import socket
import statistics
import time
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path

import dns.message

LOOPBACK = "127.0.0.1"
SERVICES = 10_000
WINDOW = 32
"""Questions under way at once when the rate is measured; latency is measured with one."""


def serve(pipe: Connection, port: int, upstream: int, core: int | None) -> None:
    """The server's process: fill the index, say how much memory it takes, answer until killed."""
    from kubewright.dns import objects
    from kubewright.dns.options import Options
    from kubewright.dns.server import DnsServer

    if core is not None:
        os.sched_setaffinity(0, {core})

    class Filled:
        synced, missing = True, ""

        async def run(self) -> None:
            await asyncio.Event().wait()

    server = DnsServer(
        Options(
            listen=((LOOPBACK, port),), upstreams=(f"{LOOPBACK}:{upstream}",), metrics_port=0, health_port=0,
            ready_port=0, lameduck=0,
        )
    )  # fmt: skip
    server.knowledge = Filled()
    index = server.index
    for number in range(100):
        index.put_namespace(f"ns{number}")
    ports = (objects.Port("http", "tcp", 80),)
    for number in range(SERVICES):
        namespace, name = f"ns{number % 100}", f"svc{number}"
        index.put_service(
            objects.Service(namespace, name, (f"10.96.{number // 250}.{number % 250}",), ports=ports)
        )
    index.put_service(objects.Service("ns0", "head", headless=True))
    ends = tuple(objects.Endpoint(f"10.244.0.{n}", f"10-244-0-{n}", True) for n in range(1, 11))
    index.put_slice(objects.Slice("ns0", "head-x", "head", (objects.Subset(ends, ports),)))

    async def run() -> None:
        task = asyncio.create_task(server.run(asyncio.Event()))
        await server.opened.wait()
        resident = int(Path("/proc/self/statm").read_text().split()[1])
        pipe.send(resident * os.sysconf("SC_PAGESIZE"))
        await task

    asyncio.run(run())


def answer_all(pipe: Connection, port: int) -> None:
    """A stand-in upstream: one address for every name."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind((LOOPBACK, port))
        pipe.send(0)
        while True:
            data, peer = sock.recvfrom(4096)
            query = dns.message.from_wire(data)
            answer = dns.message.make_response(query)
            answer.answer.append(dns.rrset.from_text(query.question[0].name, 300, "IN", "A", "192.0.2.1"))
            sock.sendto(answer.to_wire(), peer)


def measure(port: int, questions: Iterator[bytes], seconds: float, window: int) -> tuple[float, list[float]]:
    """Answers a second, and each one's latency in seconds. What is lost is given up after a second."""
    sent: dict[int, float] = {}
    latencies: list[float] = []
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.connect((LOOPBACK, port))
        sock.setblocking(False)
        ident, began = 0, time.perf_counter()
        while (now := time.perf_counter()) < began + seconds:
            while len(sent) < window:
                ident = (ident + 1) % 65536
                sent[ident] = time.perf_counter()
                sock.send(ident.to_bytes(2, "big") + next(questions)[2:])
            if not select.select([sock], [], [], 1)[0]:
                sent.clear()
                continue
            while True:
                try:
                    data = sock.recv(4096)
                except BlockingIOError:
                    break
                started = sent.pop(int.from_bytes(data[:2], "big"), None)
                if started is not None:
                    latencies.append(time.perf_counter() - started)
        return len(latencies) / (now - began), latencies


def spelled(wire: bytes, salt: int) -> bytes:
    """A question with the letters of its name in another case, as resolvers do to keep forgers guessing."""
    name = wire[12:-15]
    return (
        wire[:12]
        + bytes(c ^ 0x20 if 97 <= c <= 122 and hash((salt, at)) & 1 else c for at, c in enumerate(name))
        + wire[-15:]
    )


def cases() -> dict[str, list[bytes]]:
    """What is asked in each case, ready-made."""

    def wires(names: list[str], rdtype: str = "A") -> list[bytes]:
        return [dns.message.make_query(name, rdtype, use_edns=0).to_wire() for name in names]

    services = [f"svc{number}.ns{number % 100}.svc.cluster.local" for number in range(SERVICES)]
    return {
        "one service": wires(services[:1]),
        "100 services": wires(services[:100]),
        "headless, 10 endpoints": wires(["head.ns0.svc.cluster.local"]),
        "search path (NXDOMAIN)": wires(["www.example.com.ns0.svc.cluster.local"]),
        "other name, cached": wires(["www.example.com"]),
        "10,000 services, each first asked": wires(services),
        "random spelling (0x20)": [spelled(wires(services[:1])[0], salt) for salt in range(500)],
        "other names, not cached": wires([f"{number}.example.com" for number in range(30_000)]),
    }  # fmt: skip


def start(target: Callable[..., None], *args: object) -> tuple[BaseProcess, int]:
    """A process of its own, once it is ready; and the number that it said then."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=target, args=(theirs, *args), daemon=True)
    process.start()
    if not ours.poll(30):
        raise SystemExit("the server did not start within 30 s")
    return process, int(ours.recv())


def free_port() -> int:
    """A port that is free now."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as sock:
        sock.bind((LOOPBACK, 0))
        return int(sock.getsockname()[1])


def main() -> None:
    """Run all cases."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=2.0, help="for each case")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    cores = sorted(os.sched_getaffinity(0))
    port, upstream_port = free_port(), free_port()
    upstream, _ = start(answer_all, upstream_port)
    server, memory = start(serve, port, upstream_port, cores[0] if len(cores) > 1 else None)
    if len(cores) > 1:
        os.sched_setaffinity(0, set(cores[1:]))
    results: dict[str, dict[str, float]] = {}
    try:
        for name, wires in cases().items():
            questions = itertools.cycle(wires)
            qps, _ = measure(port, questions, given.seconds, WINDOW)
            _, alone = measure(port, questions, given.seconds / 4, 1)
            ordered = sorted(alone)
            results[name] = {
                "qps": round(qps),
                "p50_us": round(statistics.median(ordered) * 1e6),
                "p99_us": round(ordered[int(len(ordered) * 0.99)] * 1e6),
            }
            if not given.json:
                row = results[name]
                print(
                    f"{name:34} {row['qps']:8.0f}/s   p50 {row['p50_us']:6.0f} µs   p99 {row['p99_us']:6.0f} µs"
                )
    finally:
        server.kill()
        upstream.kill()
    if given.json:
        print(json.dumps({"memory_bytes": memory, "services": SERVICES, "cases": results}))
    else:
        print(f"memory with {SERVICES} services: {memory / 2**20:.0f} MiB")


if __name__ == "__main__":
    main()
