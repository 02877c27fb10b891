"""What `doctor` asks one host: its look, its runtime, then the addresses; and what becomes of a silent host."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from tests.unit.clients.test_cri import FakeRuntime
from tests.unit.phases.memory_host import MemoryHost

from kubewright.errors import HostError
from kubewright.hosts import Completed
from kubewright.model.config.cluster import HostSpec, Role
from kubewright.model.doctor.look import LOOK, Look
from kubewright.model.doctor.probes import PROBE, Probed, Question
from kubewright.model.doctor.reserved import RESERVED
from kubewright.model.port_probe import Answer, Reach
from kubewright.workflows import doctor_host
from kubewright.workflows.doctor_host import DoctorHost, ask_controllers, runtime_socket
from kubewright.workflows.status_parts import Wanted

JOINED = """
@@ time
 1780315200

@@ name
 w1

@@ file:/etc/kubernetes/kubelet.conf
 apiVersion: v1

@@ file:/etc/cni/net.d/10-x.conflist
 {"name": "cbr0", "plugins": [{"type": "ptp", "ipam": {"type": "host-local"}}]}

@@ end
"""
RESERVATIONS = "1000\n10 10.244.1.2\n@@\n10.244.1.2:a\n"


class Machine(MemoryHost):
    """A host that prints what it is told to."""

    def __init__(
        self, look: str = JOINED, *, runtime: FakeRuntime | None = None, socket: Path | None = None
    ) -> None:
        super().__init__()
        self.name = "w1"
        self.look, self.runtime, self.socket = look, runtime, socket
        self.order: list[str] = []
        self.silent = False
        self.error: HostError | None = None

    async def read_files(self, paths: Iterable[str]) -> dict[str, bytes]:
        if self.error is not None:
            raise self.error
        return await super().read_files(paths)

    async def run(self, argv: Sequence[str], **_: Any) -> Completed:
        if LOOK in argv:
            self.order.append("look")
            if self.silent:
                await asyncio.sleep(60)
            return Completed(tuple(argv), 0, self.look.encode())
        if RESERVED in argv:
            self.order.append("reserved")
            return Completed(tuple(argv), 0, RESERVATIONS.encode())
        return Completed(tuple(argv), 0)

    @asynccontextmanager
    async def forward_unix(self, path: str) -> AsyncIterator[Path]:
        self.order.append("runtime")
        if self.socket is None:
            raise HostError(f"{path} on {self.name} cannot be connected to", host=self.name)
        yield self.socket


def source(machine: Machine, *roles: Role) -> DoctorHost:
    spec = HostSpec(name="w1", address="10.0.0.4", roles=list(roles or (Role.WORKER,)))
    return DoctorHost(spec, lambda: machine, "/etc/kubernetes/pki", Wanted(), certain=True)


async def ask(one: DoctorHost, error: str = "") -> Any:
    async with asyncio.timeout(20):
        read = await one.source.read(lambda _kube, _answer: None)
    await one.source.close()
    return one.facts(error or (read.error.message if read.error else ""))


async def test_a_runtime_that_is_away_says_so_with_its_units_state() -> None:
    found = await ask(source(Machine()))
    assert found.look is not None
    assert found.look.joined
    assert found.runtime is not None
    assert not found.runtime.answers
    assert "no container runtime listens" in found.runtime.error
    assert found.reserved == ()


@pytest.fixture
async def runtime(tmp_path: Path) -> AsyncIterator[tuple[FakeRuntime, Path]]:
    """A runtime that answers on a socket."""
    from grpclib.server import Server

    fake = FakeRuntime(
        answers={
            "ListContainers": {
                "containers": [
                    {"id": "c", "pod_sandbox_id": "a", "metadata": {"name": "etcd", "attempt": 2}, "state": 1},
                    {
                        "id": "d", "pod_sandbox_id": "a", "metadata": {"name": "etcd", "attempt": 1}, "state": 2,
                        "image": {"image": "sha256:9"},
                    },
                    {"id": "e", "pod_sandbox_id": "b", "metadata": {"name": "web"}, "state": 2},
                ]
            },
            "ImageStatus": {
                "image": {"id": "sha256:9"},
                "info": [{"key": "info", "value": '{"imageSpec": {"architecture": "arm64"}}'}],
            },
            "ContainerStatus": {
                "status": {
                    "id": "d", "state": 2, "exit_code": 137, "reason": "OOMKilled", "message": "gone",
                    "finished_at": 1_780_315_200_000_000_000,
                }
            },
        }
    )  # fmt: skip
    server = Server([fake])
    path = tmp_path / "cri.sock"
    await server.start(path=str(path))
    yield fake, path
    server.close()
    await server.wait_closed()


async def test_containers_of_kube_system_are_read_with_their_ends(runtime: tuple[FakeRuntime, Path]) -> None:
    machine = Machine(socket=runtime[1])
    found = await ask(source(machine))
    assert found.runtime is not None
    assert found.runtime.answers, found.runtime.error
    assert [(one.pod, one.name, one.attempt, one.running) for one in found.runtime.containers] == [
        ("etcd-n1", "etcd", 2, True), ("etcd-n1", "etcd", 1, False),
    ]  # fmt: skip
    end = found.runtime.containers[1].ended
    assert end is not None
    assert (end.code, end.reason, end.message) == (137, "OOMKilled", "gone")
    assert end.at == datetime(2026, 6, 1, 12, 0, tzinfo=UTC)
    assert str(end) == "ended with 137 (OOMKilled) at 12:00:00 UTC: gone"
    assert found.runtime.sandboxes == {"a", "b"}
    assert [one.architecture for one in found.runtime.containers] == ["", "arm64"], "asked of what has failed"
    assert [request.image.image for name, request in runtime[0].asked if name == "ImageStatus"] == [
        "sha256:9"
    ]


async def test_addresses_are_read_after_the_runtime(runtime: tuple[FakeRuntime, Path]) -> None:
    """The other way round, the address of a Pod that goes meanwhile would be taken for one that leaked."""
    machine = Machine(socket=runtime[1])
    found = await ask(source(machine))
    assert machine.order.index("reserved") > machine.order.index("runtime") > machine.order.index("look")
    assert [(one.network, one.address, one.container) for one in found.reserved] == [
        ("cbr0", "10.244.1.2", "a")
    ]


async def test_a_host_that_is_no_node_is_not_asked_for_a_runtime() -> None:
    found = await ask(source(Machine("\n@@ time\n 1\n\n@@ end\n")))
    assert found.runtime is None
    assert found.answers


async def test_a_look_that_was_cut_off_counts_as_none() -> None:
    found = await ask(source(Machine(JOINED.replace("@@ end", ""))))
    assert (found.look, found.runtime) == (None, None)
    assert "cut off" in found.error


async def test_a_look_that_hangs_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor_host, "PATIENCE", 0.1)
    machine = Machine()
    machine.silent = True
    found = await ask(source(machine))
    assert found.look is None
    assert found.error == "its look: no answer within 0.1 s"


async def test_a_host_that_refuses_us_says_why() -> None:
    machine = Machine()
    machine.error = HostError("w1 cannot be reached: no route", host="w1")
    found = await ask(source(machine))
    assert (found.answers, found.error) == (False, "w1 cannot be reached: no route")


async def test_what_one_look_found_is_forgotten_before_the_next() -> None:
    one = source(Machine())
    assert (await ask(one)).answers
    one.forget()
    assert not one.facts("").answers


async def test_a_host_is_a_control_plane_by_its_role_or_by_its_manifests() -> None:
    etcd = JOINED.replace("@@ end", "@@ file:/etc/kubernetes/manifests/etcd.yaml\n kind: Pod\n\n@@ end")
    assert (await ask(source(Machine(etcd)))).control_plane
    assert (await ask(source(Machine(), Role.CONTROL_PLANE))).control_plane
    assert not (await ask(source(Machine()))).control_plane


SHIM = "/var/run/dockershim.sock"


def test_the_kubelets_own_socket_goes_before_dockershims() -> None:
    flags = Look(
        command=("kubelet", "--container-runtime-endpoint=unix:///run/crio/crio.sock"), sockets=(SHIM,)
    )
    assert runtime_socket(flags) == "/run/crio/crio.sock"
    assert runtime_socket(Look(sockets=(SHIM,))) == SHIM
    assert runtime_socket(Look()) == ""


async def test_dockershim_is_not_missed_beside_a_dead_kubelet() -> None:
    """It is part of the kubelet: the one that is dead is named, and no runtime."""
    units = "@@ units\n Id=kubelet.service\n LoadState=loaded\n ActiveState=failed\n\n"
    shown = JOINED.replace("@@ end", f"{units}@@ sockets\n {SHIM}\n\n@@ end")
    machine = Machine(shown)
    found = await ask(source(machine))
    assert (found.runtime, "runtime" in machine.order) == (None, False)
    alive = await ask(source(Machine(shown.replace("failed", "active"))))
    assert alive.runtime is not None
    assert alive.runtime.socket == SHIM


async def test_controllers_are_asked_how_they_are(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[str] = []

    async def not_serving(_host: object, component: str, *_: object) -> str | None:
        asked.append(component)
        return "it hangs" if component == "kube-scheduler" else None

    monkeypatch.setattr(doctor_host, "not_serving", not_serving)
    files = {
        f"/etc/kubernetes/manifests/{name}.yaml": "kind: Pod"
        for name in ("kube-scheduler", "kube-controller-manager")
    }
    found = await ask_controllers(Machine(), Look(files=files))
    assert found == {"kube-scheduler": "it hangs"}
    assert sorted(asked) == ["kube-controller-manager", "kube-scheduler"]
    assert await ask_controllers(Machine(), Look()) == {}


# -- packets ------------------------------------------------------------------------------------------------------


class Sender(Machine):
    """A host on which the program of packets prints this, or cannot be run."""

    def __init__(self, printed: str = "", code: int = 0) -> None:
        super().__init__()
        self.printed, self.code = printed, code
        self.stdin = b""

    async def run(self, argv: Sequence[str], **options: Any) -> Completed:
        if PROBE not in argv:
            return await super().run(argv, **options)
        self.stdin = options["stdin"]
        return Completed(tuple(argv), self.code, self.printed.encode())


@pytest.mark.parametrize(
    ("sender", "found"),
    [
        (Sender("tcp 10.244.1.2 53 open\nend\n"), Probed({("10.244.1.2", 53): Answer(Reach.OPEN)})),
        (Sender("tcp 10.244.1.2 53 open\n", 142), None),
        (Sender("", 127), None),
    ],
)
async def test_a_host_sends_what_it_is_asked_to_or_is_silent_where_it_cannot(
    sender: Sender, found: Probed | None
) -> None:
    one = source(sender)
    async with asyncio.timeout(20):
        await one.source.read(lambda _kube, _answer: None)
        await one.probe([Question("tcp", "10.244.1.2", "53")])
    await one.source.close()
    assert one.probed == found
    assert sender.stdin == b"tcp 10.244.1.2 53\n"
    one.forget()
    assert one.probed is None
    await one.probe([Question("tcp", "10.244.1.2", "53")])
    assert one.probed is None
