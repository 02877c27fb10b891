"""What is needed of a host's container runtime: health, images, and the Pods that the kubelet has started.

It speaks the container runtime interface (CRI), as the kubelet does, on the runtime's own socket: containerd,
CRI-O and cri-dockerd all have it, and no program is needed on the host. Version v1 of the interface is asked for
first, then v1alpha2, which is all that runtimes had before 2021.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Collection
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from grpclib.client import Channel, UnaryUnaryMethod
from grpclib.const import Status
from grpclib.exceptions import GRPCError, ProtocolError, StreamTerminatedError

from kubewright.clients.cri_messages import message
from kubewright.errors import ExitCode, HostError
from kubewright.hosts import Host
from kubewright.hosts.units import unit_lines
from kubewright.model.objects import SYSTEM

CONTAINERD_SOCKET = "/run/containerd/containerd.sock"
CRIO_SOCKET = "/var/run/crio/crio.sock"
CRI_DOCKERD_SOCKET = "/run/cri-dockerd.sock"
SOCKETS = (CONTAINERD_SOCKET, CRIO_SOCKET, CRI_DOCKERD_SOCKET)
"""Where runtimes listen that serve CRI without the kubelet, containerd's first."""

PULL_ATTEMPTS = 5
"""As often kubeadm tries to pull an image (its constant PullImageRetry)."""

_APIS = ("runtime.v1", "runtime.v1alpha2")
_READY_SANDBOX = 0
_RUNNING_CONTAINER = 1
_POD_LABEL = "io.kubernetes.pod.uid"
_ENDED_CONTAINER = 2


class CriError(HostError):
    """A runtime refused a request or cannot be reached. `code` is gRPC's name for it, empty for no answer."""

    exit_code = ExitCode.HOST_NOT_FIT

    def __init__(self, message: str, *, code: str = "", hint: str = "", host: str = "") -> None:
        super().__init__(message, hint=hint, host=host)
        self.code = code


@dataclass(frozen=True, slots=True)
class Runtime:
    """Which runtime it is, and whether it says that it can run containers and connect them."""

    name: str
    version: str
    api: str
    ready: bool
    """Its condition RuntimeReady."""
    network_ready: bool
    """Its condition NetworkReady: false until there is a pod network, which is no fault of the runtime's."""
    message: str = ""
    """Why it is not ready."""


@dataclass(frozen=True, slots=True)
class RuntimeImage:
    """An image that the runtime has."""

    id: str
    tags: tuple[str, ...]
    digests: tuple[str, ...]
    size: int
    """In bytes."""


@dataclass(frozen=True, slots=True)
class Sandbox:
    """A Pod as its runtime knows it: the sandbox that holds its containers."""

    id: str
    name: str
    namespace: str
    uid: str
    attempt: int
    ready: bool
    by_kubelet: bool = True
    """Whether it bears the label that the kubelet gives to Pods; others can make some over CRI, too."""

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"


@dataclass(frozen=True, slots=True)
class RuntimeContainer:
    """A container of a Pod."""

    id: str
    sandbox: str
    name: str
    attempt: int
    running: bool
    image: str
    created: datetime | None = None
    """None where the runtime does not say."""


@dataclass(frozen=True, slots=True)
class ContainerEnd:
    """How a container has ended."""

    exit_code: int
    reason: str
    """One word: `Error`, `Completed`, `OOMKilled`, `StartError`…"""
    message: str
    at: datetime | None
    lasted: timedelta | None = None
    """For how long it had run."""


def socket_path(socket: str) -> str:
    """A CRI socket's path; kubeadm takes it with `unix://` and without."""
    return socket.removeprefix("unix://")


def _moment(nanoseconds: int) -> datetime | None:
    """A time as the interface tells it; 0 is none."""
    return datetime.fromtimestamp(nanoseconds / 1e9, UTC) if nanoseconds > 0 else None


async def find_socket(host: Host) -> str:
    """The socket of the host's runtime: the only one there is, or containerd's usual one where there is none.

    Raises `CriError` where there are several (P47), with their names.
    """
    # Where /var/run is a link to /run, both names lead to one socket.
    script = 'for path; do [ ! -S "$path" ] || echo "$path"; done'
    found = (await host.shell(script, *SOCKETS)).text.split()
    if len(found) > 1:
        raise CriError(
            f"{host.name} has several container runtimes (P47): {', '.join(found)}",
            hint="say which one with --cri-socket, or criSocket in nodeRegistration", host=host.name,
        )  # fmt: skip
    return found[0] if found else CONTAINERD_SOCKET


class CriClient:
    """One runtime. `timeout`, in seconds, is a request's; pulling an image takes longer and has its own."""

    def __init__(self, path: Path, *, host: str = "", socket: str = "", timeout: float = 30.0) -> None:
        self._channel = Channel(path=str(path))
        self._host = host
        self._where = f"the container runtime at {socket or path}" + (f" on {host}" if host else "")
        self._timeout = timeout
        self._api = ""

    def close(self) -> None:
        """End the connection."""
        self._channel.close()

    # -- the runtime ------------------------------------------------------------------------------------------

    async def status(self) -> Runtime:
        """Which runtime it is and how it is. Raises `CriError` where none answers."""
        version = await self._ask("RuntimeService", "Version", {})
        status = await self._ask("RuntimeService", "Status", {})
        conditions = {condition.type: condition for condition in status.status.conditions}
        runtime, network = conditions.get("RuntimeReady"), conditions.get("NetworkReady")
        return Runtime(
            version.runtime_name, version.runtime_version, self._api,
            runtime is None or runtime.status, network is not None and network.status,
            runtime.message if runtime is not None and not runtime.status else "",
        )  # fmt: skip

    async def check(self) -> Runtime:
        """`status`; raises `CriError` where it says that it is not ready."""
        found = await self.status()
        if not found.ready:
            raise CriError(
                f"{self._where} is not ready: {found.message or 'it does not say why'}",
                hint="look at its unit's journal", host=self._host,
            )  # fmt: skip
        return found

    # -- images -----------------------------------------------------------------------------------------------

    async def images(self) -> list[RuntimeImage]:
        """All images."""
        answer = await self._ask("ImageService", "ListImages", {})
        return [_image(item) for item in answer.images]

    async def image(self, reference: str) -> RuntimeImage | None:
        """The image that a reference names on this host, None where there is none."""
        answer = await self._ask("ImageService", "ImageStatus", {"image": {"image": reference}})
        return _image(answer.image) if answer.image.id else None

    async def image_architecture(self, reference: str) -> str:
        """What an image is for, by Go's name, as `amd64`; empty where the runtime does not say.

        Runtimes put an image's configuration as JSON into what they add for people.
        """
        fields = {"image": {"image": reference}, "verbose": True}
        answer = await self._ask("ImageService", "ImageStatus", fields)
        told = next((item.value for item in answer.info if item.key == "info"), "")
        try:
            return str(json.loads(told)["imageSpec"]["architecture"])
        except (ValueError, KeyError, TypeError):
            return ""

    async def pull(self, reference: str, *, attempts: int = PULL_ATTEMPTS, timeout: float = 600.0) -> str:
        """Pull an image; its id. `timeout` is an attempt's, in seconds.

        Raises `CriError` with what the registry answered to the last attempt (P33).
        """
        for attempt in range(1, attempts + 1):
            try:
                answer = await self._ask(
                    "ImageService", "PullImage", {"image": {"image": reference}}, timeout=timeout
                )
                return str(answer.image_ref)
            except CriError as error:
                if not error.code or error.code == Status.UNIMPLEMENTED.name:
                    raise  # the runtime itself is away
                if attempt == attempts:
                    raise CriError(
                        f"image {reference} could not be pulled: {error.message}", code=error.code,
                        host=self._host,
                        hint="is the registry reachable from the host? imageRepository names another; images that "
                        "the runtime has already are not pulled",
                    ) from error  # fmt: skip
        raise AssertionError("a pull has at least one attempt")

    # -- Pods -------------------------------------------------------------------------------------------------

    async def sandboxes(self) -> list[Sandbox]:
        """All Pods' sandboxes, also those that have stopped. What others run in the same runtime is not listed."""
        answer = await self._ask("RuntimeService", "ListPodSandbox", {})
        return [
            Sandbox(
                item.id, item.metadata.name, item.metadata.namespace, item.metadata.uid, item.metadata.attempt,
                item.state == _READY_SANDBOX, any(label.key == _POD_LABEL for label in item.labels),
            )
            for item in answer.items
        ]  # fmt: skip

    async def containers(self) -> list[RuntimeContainer]:
        """All containers of Pods, also those that have ended."""
        answer = await self._ask("RuntimeService", "ListContainers", {})
        return [
            RuntimeContainer(
                item.id, item.pod_sandbox_id, item.metadata.name, item.metadata.attempt,
                item.state == _RUNNING_CONTAINER, item.image.image, _moment(item.created_at),
            )
            for item in answer.containers
        ]  # fmt: skip

    async def container_end(self, identity: str) -> ContainerEnd | None:
        """How a container has ended; None for one that runs, has never run, or is gone by now."""
        try:
            answer = await self._ask("RuntimeService", "ContainerStatus", {"container_id": identity})
        except CriError as error:
            if error.code in (Status.NOT_FOUND.name, Status.UNKNOWN.name):
                return None
            raise
        status = answer.status
        if status.state != _ENDED_CONTAINER:
            return None
        span = status.finished_at - status.started_at if 0 < status.started_at <= status.finished_at else 0
        lasted = timedelta(microseconds=span / 1000) if span else None
        return ContainerEnd(
            status.exit_code, status.reason, status.message, _moment(status.finished_at), lasted
        )

    async def remove_sandbox(self, identity: str) -> None:
        """Stop a Pod's containers, take it off the pod network, and remove it. One that is gone is no error."""
        for method in ("StopPodSandbox", "RemovePodSandbox"):
            try:
                await self._ask("RuntimeService", method, {"pod_sandbox_id": identity}, timeout=120)
            except CriError as error:
                if error.code != Status.NOT_FOUND.name:
                    raise

    # -- requests ---------------------------------------------------------------------------------------------

    async def _ask(self, service: str, method: str, fields: dict[str, Any], *, timeout: float = 0.0) -> Any:
        """One request, in the first version of the interface that the runtime has."""
        unknown: CriError | None = None
        for api in [self._api] if self._api else _APIS:
            try:
                answer = await self._call(
                    f"/{api}.{service}/{method}", method, fields, timeout or self._timeout
                )
            except CriError as error:
                if error.code != Status.UNIMPLEMENTED.name:
                    raise
                unknown = error
            else:
                self._api = api
                return answer
        raise CriError(
            f"{self._where} does not serve the container runtime interface",
            hint="containerd: take `cri` out of disabled_plugins in /etc/containerd/config.toml and restart it",
            code=Status.UNIMPLEMENTED.name, host=self._host,
        ) from unknown  # fmt: skip

    async def _call(self, path: str, method: str, fields: dict[str, Any], timeout: float) -> Any:
        request = message(f"{method}Request")(**fields)
        call = UnaryUnaryMethod[Any, Any](self._channel, path, type(request), message(f"{method}Response"))
        try:
            return await call(request, timeout=timeout)
        except GRPCError as error:
            raise CriError(
                f"{self._where}: {error.message or error.status.name.lower()}", code=error.status.name,
                host=self._host,
            ) from error  # fmt: skip
        except TimeoutError:
            raise CriError(
                f"{self._where} did not answer {method} within {timeout:g} s", host=self._host,
                hint="look at its unit's journal",
            ) from None  # fmt: skip
        except (StreamTerminatedError, ProtocolError, OSError) as error:
            raise CriError(
                f"{self._where} does not answer: {error}", host=self._host, hint="is its unit running?"
            ) from error


async def system_containers(cri: CriClient, names: Collection[str]) -> list[tuple[RuntimeContainer, Sandbox]]:
    """The containers with these names in kube-system, also those that have ended, each with its Pod."""
    pods = {pod.id: pod for pod in await cri.sandboxes() if pod.namespace == SYSTEM}
    return [
        (one, pods[one.sandbox])
        for one in await cri.containers()
        if one.name in names and one.sandbox in pods
    ]


@asynccontextmanager
async def open_cri(host: Host, socket: str, *, timeout: float = 30.0) -> AsyncIterator[CriClient]:
    """A client of the runtime that listens on a host's `socket`, through the host's own connection.

    Raises `CriError` where there is no such socket, with its unit's state as evidence (P15).
    """
    path = socket_path(socket)
    async with AsyncExitStack() as stack:
        try:
            local = await stack.enter_async_context(host.forward_unix(path))
        except HostError as error:
            if error.exit_code is ExitCode.HOST_NO_PRIVILEGE:
                raise
            raise await _away(host, path, error) from error
        client = CriClient(local, host=host.name, socket=path, timeout=timeout)
        stack.callback(client.close)
        yield client


async def _away(host: Host, path: str, why: HostError) -> CriError:
    """The error for a socket that nobody listens on, with what systemd knows of the runtime behind it."""
    unit = {CRIO_SOCKET: "crio", CRI_DOCKERD_SOCKET: "cri-docker"}.get(path, "containerd")
    evidence: list[str] = []
    with suppress(HostError, asyncio.TimeoutError):
        evidence = await unit_lines(host, unit, 5, of_failure=True)
    error = CriError(
        f"no container runtime listens at {path} on {host.name} (P15)", host=host.name,
        hint=f"install one, or start it: systemctl enable --now {unit}",
    )  # fmt: skip
    error.evidence = tuple(evidence or [why.message])
    return error


def _image(item: Any) -> RuntimeImage:
    return RuntimeImage(item.id, tuple(item.repo_tags), tuple(item.repo_digests), int(item.size))
