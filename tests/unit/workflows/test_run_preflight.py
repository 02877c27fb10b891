"""Preflight as a whole: a real look at this computer, a runtime that is not there, and how findings are told."""

from __future__ import annotations

from pathlib import Path

import pytest
from grpclib.const import Status
from grpclib.exceptions import GRPCError
from tests.unit.clients.test_cri import FakeRuntime, serving

from kubewright.errors import ExitCode
from kubewright.events import Event, Events, Kind
from kubewright.hosts.local import LocalHost
from kubewright.model.config.cluster import HostSpec
from kubewright.model.node_checks import IPVS_CHECK
from kubewright.model.node_preflight import ExternalEtcd, NodeChecks, ignored_checks
from kubewright.phases.node import Node
from kubewright.workflows.preflight import PreflightError, look_and_check, pull_images, run_preflight


@pytest.fixture
async def node() -> Node:
    host = LocalHost("n1")
    return Node(HostSpec.model_construct(name="n1", address="local"), host, await host.facts(), "10.0.0.1")


async def test_all_errors_are_told_at_once(node: Node, tmp_path: Path) -> None:
    (tmp_path / "left").touch()
    left, socket = str(tmp_path / "left"), str(tmp_path / "none.sock")
    checks = NodeChecks("init", "n1", machine=True, cri_socket=socket, absent_files=(left,))
    seen: list[Event] = []
    with pytest.raises(PreflightError) as caught:
        await run_preflight(node, checks, events=Events(seen.append), ignore=ignored_checks(["CRI"]))
    error = caught.value
    assert error.exit_code is ExitCode.HOST_NOT_FIT
    name = f"FileAvailable-{left.replace('/', '-')}"
    assert name in error.message and name in error.hint
    assert any(line.startswith(f"[ERROR {name}]: {left} exists already") for line in error.evidence)
    warnings = [event.message for event in seen if event.kind is Kind.WARNING]
    assert any(line.startswith("[WARNING CRI]: no container runtime listens at") for line in warnings)


async def test_a_runtimes_last_lines_stand_below_its_finding(
    node: Node, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def lines(*_: object, **__: object) -> list[str]:
        return ["containerd: failed (Result: exit-code)", "level=fatal", "it is over"]

    monkeypatch.setattr("kubewright.clients.cri.unit_lines", lines)
    checks = NodeChecks("init", "n1", machine=True, cri_socket=str(tmp_path / "none.sock"))
    with pytest.raises(PreflightError) as caught:
        await run_preflight(node, checks, events=Events(lambda _: None))
    told = list(caught.value.evidence)
    [at] = [number for number, line in enumerate(told) if line.startswith("[ERROR CRI]")]
    assert "(P15); containerd: failed (Result: exit-code) (" in told[at]
    assert told[at + 1 : at + 3] == ["level=fatal", "it is over"]


async def test_a_runtime_that_answers_is_no_finding(node: Node, tmp_path: Path) -> None:
    checks = NodeChecks("join", "n1", machine=True, cri_socket=str(tmp_path / "cri.sock"))
    async with serving(FakeRuntime(), tmp_path):
        assert "CRI" not in {one.check for one in await look_and_check(node, checks)}


async def test_nothing_is_looked_at_where_nothing_is_asked(node: Node) -> None:
    assert await look_and_check(node, NodeChecks("reset", "n1")) == []


async def test_the_modules_of_this_kernel_are_looked_for(node: Node) -> None:
    """`kernel` stands below /sys/module on every Linux."""
    modules = {"kernel": "NO_SUCH", "no_such": "NO_SUCH"}
    found = await look_and_check(
        node, NodeChecks("init", "n1", machine=True, modules=modules, ipvs=(*modules,))
    )
    [one] = [one for one in found if one.check == IPVS_CHECK]
    assert one.message.endswith("the kernel has no no_such (P17)")


async def test_only_missing_images_are_pulled(tmp_path: Path) -> None:
    socket = str(tmp_path / "cri.sock")
    runtime = FakeRuntime(answers={"ImageStatus": {"image": {"id": "sha256:1"}}})
    async with serving(runtime, tmp_path):
        assert await pull_images(LocalHost("n1"), socket, ["a:1", "b:2"]) == []
        assert [name for name, _ in runtime.asked] == ["ImageStatus", "ImageStatus"]
        assert await pull_images(LocalHost("n1"), socket, ["a:1"], always=True) == []
        assert runtime.asked[-1][0] == "PullImage"


async def test_each_image_that_cannot_be_pulled_is_named(tmp_path: Path) -> None:
    refused = GRPCError(Status.UNKNOWN, "no such host")
    async with serving(FakeRuntime(answers={"PullImage": refused}), tmp_path):
        found = await pull_images(LocalHost("n1"), str(tmp_path / "cri.sock"), ["a:1", "b:2"], at_once=True)
    assert {one.check for one in found} == {"ImagePull"}
    assert sorted(one.message.split()[1] for one in found) == ["a:1", "b:2"]


async def test_an_etcd_that_does_not_answer(node: Node) -> None:
    etcd = ExternalEtcd(("http://127.0.0.1:1",))
    found = await look_and_check(node, NodeChecks("init", "n1", control_plane=True, etcd=etcd))
    [one] = [one for one in found if one.check == "ExternalEtcdVersion"]
    assert one.message.startswith("http://127.0.0.1:1 does not say its version")
