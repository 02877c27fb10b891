"""Ports of this computer that stay free until the test that asked binds them."""

from __future__ import annotations

import itertools
import os
import re
import socket
from collections.abc import Iterator
from contextlib import suppress

HERE = "127.0.0.1"
WORKERS = 32
"""Of pytest-xdist: each takes every 32nd port, so that no two can pick the same."""
FIRST, LAST = 12000, 30000
"""Below what the kernel gives away by itself (32768 to 60999, ip(7)) and what NodePorts take."""


def _numbers() -> Iterator[int]:
    worker = int(re.sub(r"\D", "", os.environ.get("PYTEST_XDIST_WORKER", "")) or 0) % WORKERS
    own = range(FIRST + worker, LAST, WORKERS)
    # Two runs on one computer begin at different places.
    return itertools.islice(itertools.cycle(own), os.getpid() % len(own), None)


_next = _numbers()


def free_port() -> int:
    """A port on which nothing listens, neither over TCP nor over UDP, and which nobody else is given."""
    for port in itertools.islice(_next, 500):
        with (
            socket.socket(socket.AF_INET, socket.SOCK_STREAM) as tcp,
            socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp,
            suppress(OSError),
        ):
            tcp.bind((HERE, port))
            udp.bind((HERE, port))
            return port
    raise AssertionError("no port is free for both protocols")
