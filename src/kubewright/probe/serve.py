"""The answering half of the probe: a small HTTP server that says which pod it is."""

from __future__ import annotations

import json
import os
import socket
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


def own_addresses() -> list[str]:
    """This pod's addresses: POD_IPS if the manifest sets it, else the source of a packet to elsewhere."""
    if given := os.environ.get("POD_IPS", ""):
        return given.split(",")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # asks the routing table; a UDP connect sends nothing
        except OSError:
            return []
        return [str(probe.getsockname()[0])]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = 10

    def do_GET(self) -> None:
        """Say who this is and who asked."""
        if self.path == "/healthz":
            self._answer(200, b"ok\n", "text/plain")
        elif self.path == "/":
            who = {
                "pod": os.environ.get("POD_NAME", ""),
                "node": os.environ.get("NODE_NAME", ""),
                "addresses": own_addresses(),
                "client": self.client_address[0],
            }
            self._answer(200, json.dumps(who).encode() + b"\n", "application/json")
        else:
            self._answer(404, b"not found\n", "text/plain")

    def _answer(self, status: int, body: bytes, kind: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Requests are not logged."""


class _HttpServer(ThreadingHTTPServer):
    request_queue_size = 128  # every pair of pods at once; 5, the default, would drop connections
    daemon_threads = True


def server(host: str, port: int) -> ThreadingHTTPServer:
    """The answering server, bound and not yet running. Raises `OSError` where the address is taken."""
    return _HttpServer((host, port), _Handler)
