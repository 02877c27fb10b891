"""One host that `status` asks: silent, bare, or with a control plane of which nothing answers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from tests.unit.phases.memory_host import MemoryHost

from kubewright.errors import HostError
from kubewright.hosts import Completed, FileStat, FileWrite, Host
from kubewright.model import kubeconfig, x509
from kubewright.model.config.cluster import HostSpec, Role
from kubewright.model.loadbalancer import BACKENDS_PATH
from kubewright.model.nginx import UPSTREAM_PATH
from kubewright.model.pki import CA, KeyKind
from kubewright.workflows import status_host
from kubewright.workflows.status_host import HostRead, HostSource
from kubewright.workflows.status_parts import Wanted, proxies

PKI = "/etc/kubernetes/pki"


class Machine(MemoryHost):
    """Files, and nothing that listens anywhere."""

    def __init__(self, *, silent: bool = False, error: HostError | None = None) -> None:
        super().__init__()
        self.silent, self.error = silent, error
        self.closed = 0
        self.states = b"inactive\nactive\n\n2: eth0 inet 10.0.0.9/32 scope global eth0"

    async def read_files(self, paths: Iterable[str]) -> dict[str, bytes]:
        if self.silent:
            await asyncio.sleep(60)
        if self.error is not None:
            raise self.error
        return await super().read_files(paths)

    async def stat_files(self, paths: Iterable[str], *, digest: bool = True) -> dict[str, FileStat]:
        return await super().stat_files(paths, digest=digest)

    async def run(self, argv: Sequence[str], **_: Any) -> Completed:
        if kubeconfig.KUBELET_CLIENT_CURRENT in argv:
            return Completed(tuple(argv), 0)
        return Completed(tuple(argv), 0, self.states)

    @asynccontextmanager
    async def forward_tcp(self, address: str, port: int) -> AsyncIterator[tuple[str, int]]:
        """A port of ours on which nobody listens."""
        server = await asyncio.start_server(lambda _reader, writer: writer.close(), "127.0.0.1", 0)
        async with server:
            host, free = server.sockets[0].getsockname()
            yield host, free

    @asynccontextmanager
    async def forward_unix(self, path: str) -> AsyncIterator[Path]:
        raise HostError(f"{path} on {self.name} cannot be connected to", host=self.name)
        yield Path()

    async def close(self) -> None:
        self.closed += 1


def source(host: Host, *roles: Role, wanted: Wanted | None = None) -> HostSource:
    spec = HostSpec(name="cp1", address="10.0.0.1", roles=list(roles or (Role.CONTROL_PLANE,)))
    return HostSource(spec, lambda: host, PKI, wanted or Wanted())


async def read(one: HostSource) -> tuple[HostRead, tuple[Any, Any]]:
    """What it says, and what it entered into the race."""
    entered: list[tuple[Any, Any]] = []
    async with asyncio.timeout(20):
        found = await one.read(lambda kube, answer: entered.append((kube, answer)))
    await one.close()
    assert len(entered) == 1
    return found, entered[0]


async def test_a_silent_host_is_given_up_and_opened_anew_the_next_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(status_host, "REACH", 0.1)
    machine = Machine(silent=True)
    one = source(machine)
    found, entered = await read(one)
    assert found.status.problems == ("does not answer over SSH within 0.1 s",)
    assert (found.status.answers, entered) == (False, (None, None))
    assert machine.closed == 1
    machine.silent = False
    found, _ = await read(one)
    assert found.status.answers


async def test_a_host_that_refuses_us_says_why() -> None:
    error = HostError("cp1 cannot be reached: no route to 10.0.0.1", host="cp1")
    found, _ = await read(source(Machine(error=error)))
    assert found.error is error
    assert found.status.problems == ("cannot be reached: no route to 10.0.0.1",)


async def test_a_bare_host_has_nothing_of_a_cluster() -> None:
    found, entered = await read(source(Machine()))
    assert (found.status.answers, found.status.joined, found.server) == (True, False, None)
    assert found.status.problems == ("there is nothing of a cluster on it",)
    assert entered == (None, None)


async def test_a_load_balancer_alone_is_asked_for_its_units() -> None:
    wanted = Wanted(("haproxy", "keepalived"), "10.0.0.9")
    found, _ = await read(source(Machine(), Role.LOAD_BALANCER, wanted=wanted))
    assert [(one.kind, one.runs, one.has_address, one.problem) for one in found.proxies] == [
        ("haproxy", False, None, "its unit is inactive"),
        ("keepalived", True, True, ""),
    ]
    assert found.status.problems == ()


@pytest.mark.parametrize(
    ("states", "problem", "backends"),
    [
        (b"active\nactive\n\n", "", [("cp1", True)]),
        (b"active\nfailed\n\n", "nobody checks its backends: kubewright-nginx-check.service is failed", []),
        (b"failed\ninactive\n\n", "its unit is failed", []),
    ],
)
async def test_nginx_whose_health_checks_are_dead(
    states: bytes, problem: str, backends: list[tuple[str, bool]]
) -> None:
    machine = Machine()
    machine.states = states
    for path, content in (
        (BACKENDS_PATH, b"cp1 10.0.0.1 6443\n"),
        (UPSTREAM_PATH, b"server 10.0.0.1:6443 max_fails=1;\n"),
    ):
        machine.files[path] = FileWrite(path, content)
    [found] = await proxies(machine, Wanted(("nginx",)))
    assert found.problem == problem
    assert [(one.name, one.up) for one in found.backends] == backends


async def test_a_control_plane_of_which_nothing_answers() -> None:
    """Each question says for itself that nobody answers it; the certificates are read all the same."""
    now = datetime.now(UTC)
    pair = x509.self_signed_ca(CA, x509.new_key(KeyKind.ECDSA_P256), now)
    spec = kubeconfig.KubeconfigSpec("admin.conf", "https://10.0.0.5:6443", "kubernetes", CA)
    machine = Machine()
    admin = kubeconfig.dump(kubeconfig.with_certificate(spec, pair.cert, pair)).reveal()
    for path, content in (
        ("/etc/kubernetes/admin.conf", admin),
        (f"{PKI}/ca.crt", pair.cert),
        (f"{PKI}/etcd/ca.crt", pair.cert),
        (f"{PKI}/etcd/healthcheck-client.crt", pair.cert),
        (f"{PKI}/etcd/healthcheck-client.key", pair.key.reveal()),
    ):
        machine.files[path] = FileWrite(path, content)
    found, entered = await read(source(machine))
    assert entered[0] is None
    assert found.server is not None
    assert (found.server.url, found.server.milliseconds) == ("https://10.0.0.1:6443", None)
    assert found.endpoint is not None
    assert found.endpoint.url == "https://10.0.0.5:6443"
    assert found.server.error == found.endpoint.error == "nothing listens there"
    assert [(one.where, one.words) for one in found.etcd] == [("cp1", None)]
    assert found.etcd[0].error == "nothing listens there"
    assert found.status.containers is None
    assert [line.partition(":")[0] for line in found.status.problems] == ["its container runtime"]
    assert {one.name for one in found.certs} == {"admin.conf", "ca", "etcd-ca", "etcd-healthcheck-client"}
