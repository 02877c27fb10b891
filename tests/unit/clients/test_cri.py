"""The CRI client against a runtime that this process serves on a socket: the transport is the real one."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from grpclib.const import Cardinality, Handler, Status
from grpclib.exceptions import GRPCError
from grpclib.server import Server

from kubewright.clients.cri import CriClient, CriError, find_socket, open_cri, socket_path
from kubewright.clients.cri_messages import message
from kubewright.hosts.local import LocalHost


class FakeRuntime:
    """A runtime of two Pods and one image. `answers` replaces a method's answer by fields or an error."""

    def __init__(self, api: str = "runtime.v1", answers: Mapping[str, Any] | None = None) -> None:
        self.api = api
        self.answers: dict[str, Any] = {
            "Version": {"runtime_name": "containerd", "runtime_version": "1.6.20", "runtime_api_version": "v1"},
            "Status": {
                "status": {
                    "conditions": [
                        {"type": "RuntimeReady", "status": True},
                        {"type": "NetworkReady", "status": False, "message": "no network"},
                    ]
                }
            },
            "ListPodSandbox": {
                "items": [
                    {"id": "a", "metadata": {"name": "etcd-n1", "namespace": "kube-system", "uid": "u"}},
                    {"id": "b", "metadata": {"name": "web", "namespace": "default"}, "state": 1},
                ]
            },
            "ListContainers": {
                "containers": [
                    {
                        "id": "c", "pod_sandbox_id": "a", "metadata": {"name": "etcd", "attempt": 2},
                        "image": {"image": "sha256:1"}, "state": 1, "created_at": 5,
                    }
                ]
            },
            "ListImages": {"images": [{"id": "sha256:1", "repo_tags": ["k8s.gcr.io/pause:3.2"], "size": 7}]},
            "ImageStatus": {},
            "PullImage": {"image_ref": "sha256:2"},
            "StopPodSandbox": {},
            "RemovePodSandbox": {},
            **(answers or {}),
        }  # fmt: skip
        self.asked: list[tuple[str, Any]] = []

    def __mapping__(self) -> dict[str, Handler]:
        return {
            f"/{api}.{'ImageService' if 'Image' in name else 'RuntimeService'}/{name}": Handler(
                self._handler(name, api), Cardinality.UNARY_UNARY,
                message(f"{name}Request"), message(f"{name}Response"),
            )
            for name in self.answers
            for api in ("runtime.v1", "runtime.v1alpha2")
        }  # fmt: skip

    def _handler(self, name: str, api: str) -> Any:
        async def handle(stream: Any) -> None:
            request = await stream.recv_message()
            if api != self.api:
                raise GRPCError(Status.UNIMPLEMENTED, f"unknown service {api}.RuntimeService")
            self.asked.append((name, request))
            answer = self.answers[name]
            if isinstance(answer, Exception):
                raise answer
            await stream.send_message(message(f"{name}Response")(**answer))

        return handle


@asynccontextmanager
async def serving(runtime: FakeRuntime, folder: Path) -> AsyncIterator[CriClient]:
    path = folder / "cri.sock"
    server = Server([runtime])
    await server.start(path=str(path))
    try:
        async with open_cri(LocalHost("n1"), f"unix://{path}") as client:
            yield client
    finally:
        server.close()
        await server.wait_closed()


@pytest.mark.parametrize("api", ["runtime.v1", "runtime.v1alpha2"])
async def test_status_in_both_versions(api: str, tmp_path: Path) -> None:
    async with serving(FakeRuntime(api), tmp_path) as cri:
        found = await cri.check()
    assert (found.name, found.version, found.api) == ("containerd", "1.6.20", api)
    assert found.ready and not found.network_ready


async def test_not_ready_says_why(tmp_path: Path) -> None:
    condition = {"type": "RuntimeReady", "status": False, "message": "snapshotter is away"}
    runtime = FakeRuntime(answers={"Status": {"status": {"conditions": [condition]}}})
    async with serving(runtime, tmp_path) as cri:
        with pytest.raises(CriError, match="snapshotter is away"):
            await cri.check()


async def test_a_runtime_without_cri(tmp_path: Path) -> None:
    """What Docker's package of containerd does: the socket is there, its CRI plugin is not."""
    async with serving(FakeRuntime("another"), tmp_path) as cri:
        with pytest.raises(CriError, match="does not serve") as caught:
            await cri.status()
    assert "disabled_plugins" in caught.value.hint


async def test_pods_and_containers(tmp_path: Path) -> None:
    runtime = FakeRuntime()
    async with serving(runtime, tmp_path) as cri:
        pods = await cri.sandboxes()
        (container,) = await cri.containers()
        await cri.remove_sandbox("a")
    assert [(str(pod), pod.ready) for pod in pods] == [("kube-system/etcd-n1", True), ("default/web", False)]
    assert (container.name, container.sandbox, container.attempt, container.running) == ("etcd", "a", 2, True)
    removed = [(name, request.pod_sandbox_id) for name, request in runtime.asked[-2:]]
    assert removed == [("StopPodSandbox", "a"), ("RemovePodSandbox", "a")]


async def test_removing_a_pod_that_is_gone(tmp_path: Path) -> None:
    gone = GRPCError(Status.NOT_FOUND, "no such sandbox")
    async with serving(FakeRuntime(answers={"RemovePodSandbox": gone}), tmp_path) as cri:
        await cri.remove_sandbox("a")


async def test_a_pod_that_cannot_be_stopped_is_not_removed(tmp_path: Path) -> None:
    runtime = FakeRuntime(answers={"StopPodSandbox": GRPCError(Status.UNKNOWN, "cni is broken")})
    async with serving(runtime, tmp_path) as cri:
        with pytest.raises(CriError, match="cni is broken"):
            await cri.remove_sandbox("a")
    assert [name for name, _ in runtime.asked] == ["StopPodSandbox"]


async def test_images(tmp_path: Path) -> None:
    runtime = FakeRuntime(answers={"ImageStatus": {"image": {"id": "sha256:1"}}})
    async with serving(runtime, tmp_path) as cri:
        (image,) = await cri.images()
        found = await cri.image("k8s.gcr.io/pause:3.2")
    assert (image.tags, image.size) == (("k8s.gcr.io/pause:3.2",), 7)
    assert found is not None and runtime.asked[-1][1].image.image == "k8s.gcr.io/pause:3.2"
    async with serving(FakeRuntime(), tmp_path) as cri:
        assert await cri.image("another") is None


async def test_a_pull_is_tried_again_and_names_image_and_answer(tmp_path: Path) -> None:
    runtime = FakeRuntime(
        answers={"PullImage": GRPCError(Status.UNKNOWN, "lookup registry.test: no such host")}
    )
    async with serving(runtime, tmp_path) as cri:
        with pytest.raises(CriError, match=r"registry\.test/etcd:3.*no such host"):
            await cri.pull("registry.test/etcd:3", attempts=3)
    assert [name for name, _ in runtime.asked] == ["PullImage"] * 3


async def test_no_runtime(tmp_path: Path) -> None:
    with pytest.raises(CriError, match=r"P15") as caught:
        async with open_cri(LocalHost("n1"), str(tmp_path / "none.sock")):
            pass
    assert caught.value.evidence


async def test_find_socket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = (tmp_path / "one.sock", tmp_path / "two.sock")
    monkeypatch.setattr("kubewright.clients.cri.SOCKETS", tuple(map(str, paths)))
    host = LocalHost("n1")
    assert await find_socket(host) == "/run/containerd/containerd.sock"
    servers = []
    for path in paths:
        server = Server([])
        await server.start(path=str(path))
        servers.append(server)
        if path == paths[0]:
            assert await find_socket(host) == str(path)
    with pytest.raises(CriError, match="P47") as caught:
        await find_socket(host)
    assert str(paths[0]) in caught.value.message and str(paths[1]) in caught.value.message
    for server in servers:
        server.close()
        await server.wait_closed()


def test_socket_path() -> None:
    assert socket_path("unix:///run/a.sock") == socket_path("/run/a.sock") == "/run/a.sock"


async def test_how_a_container_has_ended(tmp_path: Path) -> None:
    status = {
        "id": "c",
        "state": 2,
        "exit_code": 1,
        "reason": "Error",
        "message": "m",
        "started_at": 4_000_000_000,
        "finished_at": 5_000_000_000,
    }
    async with serving(FakeRuntime(answers={"ContainerStatus": {"status": status}}), tmp_path) as cri:
        end = await cri.container_end("c")
    assert end is not None
    assert end.lasted == timedelta(seconds=1)
    assert (end.exit_code, end.reason, end.message, end.at) == (
        1,
        "Error",
        "m",
        datetime(1970, 1, 1, 0, 0, 5, tzinfo=UTC),
    )


@pytest.mark.parametrize(
    "answer",
    [{"status": {"id": "c", "state": 1}}, GRPCError(Status.NOT_FOUND, "no such container")],
    ids=["runs", "gone"],
)
async def test_a_container_that_has_not_ended_has_no_end(answer: Any, tmp_path: Path) -> None:
    async with serving(FakeRuntime(answers={"ContainerStatus": answer}), tmp_path) as cri:
        assert await cri.container_end("c") is None


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        ('{"chainID": "sha256:1", "imageSpec": {"architecture": "arm64", "os": "linux"}}', "arm64"),
        ('{"imageSpec": null}', ""),
        ("no JSON", ""),
        (None, ""),
    ],
)
async def test_an_images_architecture_is_in_what_a_runtime_adds(
    told: str | None, expected: str, tmp_path: Path
) -> None:
    info = [] if told is None else [{"key": "info", "value": told}]
    runtime = FakeRuntime(answers={"ImageStatus": {"image": {"id": "sha256:1"}, "info": info}})
    async with serving(runtime, tmp_path) as cri:
        assert await cri.image_architecture("sha256:1") == expected
    assert runtime.asked[-1][1].verbose
