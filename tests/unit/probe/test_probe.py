"""The probe against servers of this computer: who answers, retries, deadlines, DNS and TLS."""

from __future__ import annotations

import datetime
import ipaddress
import json
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import dns.flags
import dns.message
import dns.rcode
import dns.rdatatype
import dns.resolver
import dns.rrset
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from tests.free_ports import free_port

from kubewright.probe import checks
from kubewright.probe.__main__ import main, perform, run
from kubewright.probe.serve import own_addresses, server


@pytest.fixture(autouse=True)
def short_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kubewright.probe.__main__.PAUSE", 0.01)


@contextmanager
def running(instance: ThreadingHTTPServer) -> Iterator[int]:
    """Serve in a thread; the port."""
    thread = threading.Thread(target=instance.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield instance.server_address[1]
    finally:
        instance.shutdown()
        instance.server_close()
        thread.join()


@pytest.fixture
def port(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    monkeypatch.setenv("POD_NAME", "check-a")
    monkeypatch.setenv("NODE_NAME", "w1")
    monkeypatch.setenv("POD_IPS", "10.244.1.5,fd00::5")
    with running(server("127.0.0.1", 0)) as port:
        yield port


def http_check(port: int, path: str = "/", **more: Any) -> dict[str, Any]:
    return perform(
        {
            "id": "x",
            "kind": "http",
            "url": f"http://127.0.0.1:{port}{path}",
            "timeout": 10,
            "tries": 2,
            **more,
        }
    )


def test_http_says_who_answered(port: int) -> None:
    result = http_check(port, expect_node="w1", expect_pod="check-a")
    assert result.pop("seconds") >= 0
    assert result == {
        "id": "x", "ok": True, "tries": 1, "detail": "pod check-a on w1",
        "answer": {"pod": "check-a", "node": "w1", "addresses": ["10.244.1.5", "fd00::5"], "client": "127.0.0.1"},
    }  # fmt: skip
    healthy = http_check(port, "/healthz")
    assert healthy["ok"]
    assert healthy["detail"] == "3 bytes"


@pytest.mark.parametrize(
    ("path", "more", "detail"),
    [
        ("/", {"expect_node": "w2"}, "answered by node w1, not w2"),
        ("/", {"expect_pod": "check-b"}, "answered by pod check-a, not check-b"),
        ("/healthz", {"expect_node": "w2"}, "answered by node unknown, not w2"),
        ("/none", {}, "HTTP 404 from 127.0.0.1"),
    ],
)
def test_http_failures(port: int, path: str, more: dict[str, Any], detail: str) -> None:
    result = http_check(port, path, **more)
    assert not result["ok"]
    assert result["detail"].startswith(detail)
    assert " tries)" in result["detail"]


def test_http_is_tried_again_until_the_server_is_there() -> None:
    port = free_port()
    threading.Timer(0.25, lambda: started.append(running(server("127.0.0.1", port)))).start()
    started: list[Any] = []

    def start_late() -> None:
        while not started:
            time.sleep(0.01)
        started[0].__enter__()

    thread = threading.Thread(target=start_late, daemon=True)
    thread.start()
    try:
        result = http_check(port, timeout=20, tries=0)
        assert result["ok"]
        assert "tries" in result["detail"]
    finally:
        thread.join()
        started[0].__exit__(None, None, None)


def test_http_ends_at_its_deadline() -> None:
    refused = http_check(free_port(), timeout=0.3, tries=0)
    assert not refused["ok"]
    assert refused["detail"].startswith("127.0.0.1:")
    assert "connection refused" in refused["detail"]
    assert refused["tries"] > 1
    with socket.create_server(("127.0.0.1", 0)) as silent:  # takes connections and says nothing
        result = http_check(silent.getsockname()[1], timeout=0.6)
    assert not result["ok"]
    assert "no answer" in result["detail"]
    assert result["seconds"] >= 0.4


@pytest.mark.parametrize(
    ("check", "detail"),
    [
        ({}, "no or unknown 'kind'"),
        ({"kind": "ping"}, "no or unknown 'ping'"),
        ({"kind": "http"}, "no or unknown 'url'"),
        ({"kind": "http", "url": "ftp://x"}, "url ftp://x: not http://host[:port]/path"),
        ({"kind": "api", "by": ["magic"]}, "no or unknown 'magic'"),
    ],
)
def test_a_wrong_check_is_told_at_once(check: dict[str, Any], detail: str) -> None:
    result = perform(check)
    assert not result["ok"]
    assert result["detail"] == f"the check itself is wrong: {detail}"


def test_checks_run_at_once_and_keep_their_order(port: int) -> None:
    silent = socket.create_server(("127.0.0.1", 0))
    with silent:
        slow = {"kind": "http", "url": f"http://127.0.0.1:{silent.getsockname()[1]}/", "timeout": 0.6}
        quick = {"kind": "http", "url": f"http://127.0.0.1:{port}/", "timeout": 2}
        results = run(json.dumps([slow | {"id": n} for n in range(8)] + [quick | {"id": 8}]))
    assert [result["id"] for result in results] == list(range(9))
    assert [result["ok"] for result in results] == [False] * 8 + [True]


# -- dns ------------------------------------------------------------------------------------------------------

RECORDS = {
    ("web.default.svc.cluster.local.", "A"): ["10.96.0.7"],
    ("web.default.svc.cluster.local.", "SRV"): ["0 100 80 web.default.svc.cluster.local."],
    ("two.default.svc.cluster.local.", "A"): ["10.244.1.5", "10.244.2.5"],
    ("7.0.96.10.in-addr.arpa.", "PTR"): ["web.default.svc.cluster.local."],
    ("kubernetes.default.svc.cluster.local.", "A"): ["127.0.0.1"],
}


@pytest.fixture
def nameserver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """A nameserver of RECORDS that resolv.conf names; the questions it got."""
    asked: list[str] = []
    udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    udp.bind(("127.0.0.1", 0))

    def answer() -> None:
        while True:
            data, peer = udp.recvfrom(4096)
            if data == b"stop":
                return
            query = dns.message.from_wire(data)
            name, kind = str(query.question[0].name), dns.rdatatype.to_text(query.question[0].rdtype)
            asked.append(name)
            response = dns.message.make_response(query)
            response.flags |= dns.flags.RA
            if found := RECORDS.get((name, kind)):
                response.answer.append(dns.rrset.from_text(name, 5, "IN", kind, *found))
            elif name not in {known for known, _ in RECORDS}:
                response.set_rcode(dns.rcode.NXDOMAIN)
            udp.sendto(response.to_wire(), peer)

    thread = threading.Thread(target=answer, daemon=True)
    thread.start()
    conf = tmp_path / "resolv.conf"
    conf.write_text(
        "nameserver 127.0.0.1\nsearch default.svc.cluster.local svc.cluster.local cluster.local\noptions ndots:5\n"
    )
    monkeypatch.setattr(checks, "RESOLV_CONF", str(conf))
    real = dns.resolver.Resolver

    def resolver(path: str) -> dns.resolver.Resolver:
        made = real(path)
        made.port = udp.getsockname()[1]
        return made

    monkeypatch.setattr(dns.resolver, "Resolver", resolver)
    yield asked
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stop:
        stop.sendto(b"stop", udp.getsockname())
    thread.join()
    udp.close()


@pytest.mark.parametrize(
    ("name", "kind", "expect"),
    [
        ("web.default.svc.cluster.local", "A", ["10.96.0.7"]),
        ("web", "A", ["10.96.0.7"]),
        ("web.default.svc.cluster.local", "SRV", ["0 100 80 web.default.svc.cluster.local."]),
        ("two.default.svc.cluster.local", "A", ["10.244.2.5", "10.244.1.5"]),
        ("7.0.96.10.in-addr.arpa", "PTR", ["web.default.svc.cluster.local."]),
    ],
)
def test_dns(nameserver: list[str], name: str, kind: str, expect: list[str]) -> None:
    result = perform({"id": "d", "kind": "dns", "name": name, "type": kind, "expect": expect})
    assert result["ok"], result
    assert all(value in result["detail"] for value in expect)


@pytest.mark.parametrize(
    ("check", "detail"),
    [
        ({"name": "web", "expect": ["10.96.0.8"]}, "web A is 10.96.0.7, not 10.96.0.8"),
        ({"name": "gone.example"}, "gone.example A: no such name"),
        ({"name": "web", "type": "AAAA"}, "web AAAA: the name has no such record"),
    ],
)
def test_dns_failures(nameserver: list[str], check: dict[str, Any], detail: str) -> None:
    result = perform({"kind": "dns", "timeout": 10, "tries": 2, **check})
    assert not result["ok"]
    assert result["detail"].startswith(detail)


def test_a_name_with_a_dot_is_asked_as_it_stands(nameserver: list[str]) -> None:
    perform({"kind": "dns", "name": "web.default.svc.cluster.local"})
    assert nameserver == ["web.default.svc.cluster.local."]


def test_dns_without_a_server_that_answers(nameserver: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
        silent.bind(("127.0.0.1", 0))
        made = dns.resolver.Resolver

        def mute(path: str) -> dns.resolver.Resolver:
            resolver = made(path)
            resolver.port = silent.getsockname()[1]
            return resolver

        monkeypatch.setattr(dns.resolver, "Resolver", mute)
        result = perform({"kind": "dns", "name": "web", "timeout": 0.7})
    assert not result["ok"]
    assert result["detail"].startswith("web A: no answer from")
    assert "127.0.0.1" in result["detail"]


def test_http_resolves_names_as_the_pod_would(nameserver: list[str], port: int) -> None:
    check = {"kind": "http", "url": f"http://kubernetes:{port}/", "expect_node": "w1"}
    assert perform(check)["ok"]


# -- api ------------------------------------------------------------------------------------------------------


class _Version(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        trusted = self.headers["Authorization"] == "Bearer sesame" and self.path == "/version"
        body = b'{"gitVersion": "v1.20.2"}' if trusted else b"{}"
        self.send_response(200 if trusted else 401)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def api(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., None]]:
    """Starts an API server's likeness whose certificate is for the names given."""
    monkeypatch.setattr(checks, "SERVICE_ACCOUNT", tmp_path)
    stack: list[Any] = []

    def start(*names: str, token: str = "sesame") -> None:
        context = _context(tmp_path, names)
        instance = ThreadingHTTPServer(("127.0.0.1", 0), _Version)
        instance.socket = context.wrap_socket(instance.socket, server_side=True)
        instance.handle_error = lambda *_: None  # type: ignore[method-assign]
        stack.append(running(instance))
        monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "127.0.0.1")
        monkeypatch.setenv("KUBERNETES_SERVICE_PORT", str(stack[0].__enter__()))
        (tmp_path / "token").write_text(token)

    yield start
    for server_of_test in stack:
        server_of_test.__exit__(None, None, None)


def _context(directory: Path, names: tuple[str, ...]) -> ssl.SSLContext:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "kube-apiserver")])
    now = datetime.datetime.now(datetime.UTC)
    sans = [x509.IPAddress(ipaddress.ip_address(n)) if n[0].isdigit() else x509.DNSName(n) for n in names]
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(minutes=5))
        .not_valid_after(now + datetime.timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName(sans), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    plain = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    (directory / "ca.crt").write_bytes(certificate.public_bytes(pem))
    (directory / "key").write_bytes(plain)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(directory / "ca.crt", directory / "key")
    return context


def test_api_by_address_and_by_name(api: Callable[..., None], nameserver: list[str]) -> None:
    api("127.0.0.1", "kubernetes.default.svc")
    result = perform({"kind": "api"})
    assert result["ok"], result
    assert result["detail"].startswith("v1.20.2 by address, v1.20.2 by name")


def test_api_with_a_certificate_for_another_name(api: Callable[..., None], nameserver: list[str]) -> None:
    """P26."""
    api("127.0.0.1")
    result = perform({"kind": "api", "timeout": 10, "tries": 2})
    assert not result["ok"]
    assert "certificate: Hostname mismatch" in result["detail"]
    assert perform({"kind": "api", "by": ["address"]})["ok"]


def test_api_with_a_refused_token(api: Callable[..., None]) -> None:
    api("127.0.0.1", token="wrong")
    result = perform({"kind": "api", "by": ["address"], "timeout": 10, "tries": 2})
    assert not result["ok"]
    assert "HTTP 401" in result["detail"]
    assert "wrong" not in json.dumps(result)


def test_api_outside_a_pod(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    assert (
        "KUBERNETES_SERVICE_HOST is not set" in perform({"kind": "api", "timeout": 10, "tries": 2})["detail"]
    )


# -- the program ----------------------------------------------------------------------------------------------


def test_own_addresses_without_the_manifests_help(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("POD_IPS", raising=False)
    for address in own_addresses():
        assert ipaddress.ip_address(address).version == 4


def test_run_reads_one_line_and_does_not_wait_for_the_end_of_input(port: int) -> None:
    checks_line = json.dumps([{"id": "a", "kind": "http", "url": f"http://127.0.0.1:{port}/"}])
    argv = [sys.executable, "-m", "kubewright.probe", "run"]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(checks_line + "\n")
        process.stdin.flush()
        (result,) = json.loads(process.stdout.readline())
        assert result["ok"]
        assert process.wait(timeout=10) == 0


def test_serve_ends_at_sigterm() -> None:
    port = free_port()
    argv = [sys.executable, "-m", "kubewright.probe", "serve", "--host", "127.0.0.1", "--port", str(port)]
    with subprocess.Popen(argv) as process:
        assert http_check(port, "/healthz", timeout=30, tries=0)["ok"]
        process.terminate()
        assert process.wait(timeout=5) == 0


def test_wrong_input_is_one_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    for text in ("{}", "[1]", "nonsense", ""):
        monkeypatch.setattr(sys.stdin, "readline", lambda text=text: text, raising=False)
        assert main(["run"]) == 1
        assert capsys.readouterr().err.count("\n") == 1


def test_it_starts_without_what_is_slow_to_import() -> None:
    """A check starts it on every node; measured at 0.07 s here."""
    slow = ("aiohttp", "asyncio", "dns")
    code = f"import sys, kubewright.probe.__main__; print([m for m in {slow} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_tries_say_when_to_give_up() -> None:
    check = {"id": "x", "kind": "http", "url": "http://127.0.0.1:1/", "timeout": 5.0, "tries": 2}
    result = perform(check)
    assert (result["ok"], result["tries"]) == (False, 2)
