"""Nodes made of network namespaces, and a double of the API server that serves Nodes to the network agent.

The double stands in for lists, watches and status patches of Nodes alone; the whole-cluster test covers the
real API. Namespaces, links, iptables rules and CNI plugins are real.
"""

from __future__ import annotations

import asyncio
import ctypes
import datetime
import ipaddress
import json
import os
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

POD_SUBNET = "10.244.0.0/16"
OUTSIDE = "172.29.77.1"
"""The address of the API server and of the world outside: it has no route to any pod."""
CNI_BIN = Path("/usr/lib/cni")
_CLONE_NEWNET = 0x40000000  # linux/sched.h


def run(*argv: str, stdin: str | None = None, check: bool = True, env: dict[str, str] | None = None) -> str:
    done = subprocess.run(
        argv,
        input=stdin,
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
        env=os.environ | (env or {}),
    )
    if check and done.returncode:
        raise AssertionError(f"{' '.join(argv)}: {done.returncode}: {done.stdout}{done.stderr}")
    return done.stdout


def socket_in(namespace: str) -> socket.socket:
    """A TCP socket in a network namespace.

    A thread enters the namespace and ends: a forked child would be a second pytest, and clear away at its end.
    """
    libc = ctypes.CDLL(None, use_errno=True)

    def enter() -> socket.socket:
        with Path("/run/netns", namespace).open() as file:
            if libc.setns(file.fileno(), _CLONE_NEWNET):
                raise OSError(ctypes.get_errno(), f"setns {namespace}")
        return socket.socket()

    with ThreadPoolExecutor(1) as thread:
        return thread.submit(enter).result()


class FakeApi:
    """Lists, watches and patches Nodes, over TLS."""

    def __init__(self) -> None:
        self.nodes: dict[str, dict[str, Any]] = {}
        self.version = 100
        self.oldest = 0
        self.log: list[tuple[int, str, dict[str, Any]]] = []
        self.news = asyncio.Condition()
        self.lists = self.watches = 0
        self.patches: list[dict[str, Any]] = []
        self.broken = False
        self._runner: web.AppRunner | None = None

    async def start(self, namespace: str, directory: Path) -> None:
        """Listen at OUTSIDE:6443 in a namespace; ca.crt and token are put into `directory`."""
        app = web.Application()
        app.router.add_get("/api/v1/nodes", self._nodes)
        app.router.add_patch("/api/v1/nodes/{name}/status", self._patch)
        self._runner = web.AppRunner(app, shutdown_timeout=0.1)
        await self._runner.setup()
        listener = socket_in(namespace)
        listener.bind((OUTSIDE, 6443))
        await web.SockSite(self._runner, listener, ssl_context=_certificate(directory)).start()
        (directory / "token").write_text("sesame\n")

    async def stop(self) -> None:
        assert self._runner is not None
        await self._runner.cleanup()

    async def put(
        self, name: str, cidr: str = "", address: str = "", *, ready: bool = True, **status: Any
    ) -> None:
        node: dict[str, Any] = {
            "metadata": {"name": name},
            "spec": {"podCIDR": cidr, "podCIDRs": [cidr]} if cidr else {},
            "status": {
                "addresses": [{"type": "InternalIP", "address": address}] if address else [],
                "conditions": [{"type": "Ready", "status": "True" if ready else "False"}],
            },
        }
        node["status"]["conditions"] += status.get("conditions", [])
        await self._record("MODIFIED" if name in self.nodes else "ADDED", node)

    async def drop(self, name: str) -> None:
        await self._record("DELETED", dict(self.nodes[name]))

    async def compact(self) -> None:
        """Forget the past: every watch gets 410 Gone."""
        async with self.news:
            self.version += 10
            self.oldest = self.version
            self.news.notify_all()

    async def _record(self, kind: str, node: dict[str, Any]) -> None:
        async with self.news:
            self.version += 1
            node["metadata"] = dict(node["metadata"], resourceVersion=str(self.version))
            name = node["metadata"]["name"]
            if kind == "DELETED":
                del self.nodes[name]
            else:
                self.nodes[name] = node
            self.log.append((self.version, kind, node))
            self.news.notify_all()

    async def _nodes(self, request: web.Request) -> web.StreamResponse:
        if self.broken or request.headers.get("Authorization") != "Bearer sesame":
            return web.json_response({"message": "no"}, status=500 if self.broken else 401)
        if request.query.get("watch") == "true":
            return await self._watch(request)
        self.lists += 1
        items = list(self.nodes.values())
        return web.json_response({"metadata": {"resourceVersion": str(self.version)}, "items": items})

    async def _watch(self, request: web.Request) -> web.StreamResponse:
        self.watches += 1
        response = web.StreamResponse()
        await response.prepare(request)
        seen = int(request.query["resourceVersion"])
        while True:
            async with self.news:
                await self.news.wait_for(partial(self._news_after, seen))
            if self.broken:
                return response
            if seen < self.oldest:
                gone = {"type": "ERROR", "object": {"code": 410, "reason": "Expired", "message": "too old"}}
                await response.write(json.dumps(gone).encode() + b"\n")
                return response
            for version, kind, node in [entry for entry in self.log if entry[0] > seen]:
                await response.write(json.dumps({"type": kind, "object": node}).encode() + b"\n")
                seen = version

    def _news_after(self, seen: int) -> bool:
        return self.broken or seen < self.oldest or self.version > seen

    async def _patch(self, request: web.Request) -> web.Response:
        assert request.content_type == "application/strategic-merge-patch+json"
        change = await request.json()
        self.patches.append(change)
        node = self.nodes[request.match_info["name"]]
        cidr, address = node["spec"]["podCIDR"], node["status"]["addresses"][0]["address"]
        await self.put(request.match_info["name"], cidr, address, conditions=change["status"]["conditions"])
        return web.json_response(self.nodes[request.match_info["name"]])


def _certificate(directory: Path) -> ssl.SSLContext:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "double")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(minutes=5))
        .not_valid_after(now + datetime.timedelta(hours=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(OUTSIDE))]), critical=False
        )
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    (directory / "ca.crt").write_bytes(certificate.public_bytes(pem))
    (directory / "key").write_bytes(
        key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(directory / "ca.crt", directory / "key")
    return context


class Node:
    """A namespace with a link to the switch, and the agent that runs in it."""

    def __init__(self, name: str, namespace: str, address: str, directory: Path) -> None:
        self.name, self.namespace, self.address = name, namespace, address
        self.directory = directory
        self.cni_dir, self.ipam_dir = directory / "net.d", directory / "ipam"
        self.log = directory / "log"
        self.process: subprocess.Popen[bytes] | None = None

    def run(self, *argv: str, **options: Any) -> str:
        return run("ip", "netns", "exec", self.namespace, *argv, **options)

    def routes(self, *words: str) -> list[str]:
        lines = run("ip", "-4", "-n", self.namespace, "route", "show", *words).splitlines()
        return sorted(line.strip() for line in lines)

    def rules(self) -> list[str]:
        saved = self.run("iptables-save").splitlines()
        return [line.split(" [")[0] for line in saved if not line.startswith("#")]

    def argv(self, *more: str) -> list[str]:
        return [
            "ip", "netns", "exec", self.namespace, sys.executable, "-m", "kubewright.network.agent",
            "--pod-subnet", POD_SUBNET, "--node-name", self.name, "--api-server", f"https://{OUTSIDE}:6443",
            "--service-account", str(self.directory.parent), "--cni-dir", str(self.cni_dir),
            "--ipam-dir", str(self.ipam_dir), "--resync", "2", *more,
        ]  # fmt: skip

    def start(self) -> None:
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(self.argv(), stdout=log, stderr=log)

    def stop(self) -> tuple[int, float]:
        """SIGTERM; the exit code and the seconds until it was gone."""
        assert self.process is not None
        began = time.monotonic()
        self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(timeout=10)
        self.process = None
        return code, time.monotonic() - began

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()

    async def get(self, path: str) -> tuple[int, str]:
        """GET from the agent's health address, inside the namespace."""
        try:
            connection = socket_in(self.namespace)
            connection.setblocking(False)
            await asyncio.get_running_loop().sock_connect(connection, ("127.0.0.1", 9879))
            reader, writer = await asyncio.open_connection(sock=connection)
            writer.write(f"GET {path} HTTP/1.0\r\n\r\n".encode())
            answer = (await reader.read()).decode()
            writer.close()
        except OSError as error:
            return 0, str(error)
        head, _, body = answer.partition("\r\n\r\n")
        return int(head.split()[1]), body

    async def ready(self) -> bool:
        return (await self.get("/readyz"))[0] == 200

    async def status(self) -> dict[str, Any]:
        answer: dict[str, Any] = json.loads((await self.get("/status"))[1])
        return answer

    def attach(self, pod: str, *, port_mappings: Sequence[dict[str, Any]] = ()) -> str:
        """Do as a runtime does: run each plugin of the configuration list; the pod's address."""
        conflist = json.loads((self.cni_dir / "10-kubewright.conflist").read_text())
        result: dict[str, Any] | None = None
        for plugin in conflist["plugins"]:
            config = plugin | {"cniVersion": conflist["cniVersion"], "name": conflist["name"]}
            if result is not None:
                config["prevResult"] = result
            if plugin.get("capabilities", {}).get("portMappings"):
                config["runtimeConfig"] = {"portMappings": list(port_mappings)}
            out = self.run(str(CNI_BIN / plugin["type"]), stdin=json.dumps(config), env={
                "CNI_COMMAND": "ADD", "CNI_CONTAINERID": pod, "CNI_NETNS": f"/run/netns/{pod}",
                "CNI_IFNAME": "eth0", "CNI_PATH": str(CNI_BIN),
            })  # fmt: skip
            result = json.loads(out)
        assert result is not None
        return str(result["ips"][0]["address"]).partition("/")[0]


async def echo_server(namespace: str, address: str, port: int) -> asyncio.Server:
    """A server in a namespace that tells each caller which address it comes from."""
    listener = socket_in(namespace)
    listener.setsockopt(1, 2, 1)
    listener.bind((address, port))

    async def answer(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(str(writer.get_extra_info("peername")[0]).encode())
        writer.close()

    return await asyncio.start_server(answer, sock=listener)


async def ask(namespace: str, address: str, port: int, *, timeout: float = 3.0) -> str:
    """Connect from a namespace; the address that the server saw, or what went wrong."""
    connection = socket_in(namespace)
    connection.setblocking(False)
    try:
        async with asyncio.timeout(timeout):
            await asyncio.get_running_loop().sock_connect(connection, (address, port))
            reader, writer = await asyncio.open_connection(sock=connection)
            seen = (await reader.read()).decode()
            writer.close()
            return seen
    except TimeoutError:
        return "timed out"
    except OSError as error:
        return os.strerror(error.errno or 0)
    finally:
        connection.close()
