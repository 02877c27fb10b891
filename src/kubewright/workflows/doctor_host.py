"""What `doctor` asks one host: its look in one round trip, its runtime, then the reserved addresses."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from kubewright.clients.cri import (
    CriClient,
    CriError,
    RuntimeContainer,
    find_socket,
    open_cri,
    socket_path,
)
from kubewright.clients.server import Server
from kubewright.errors import KubewrightError
from kubewright.hosts import Host
from kubewright.model.config.cluster import HostSpec
from kubewright.model.doctor.cni import pod_network
from kubewright.model.doctor.facts import Container, Ended, NodeFacts, RuntimeFacts
from kubewright.model.doctor.look import LOOK, Look, arguments, parse_look
from kubewright.model.doctor.probes import (
    LIFETIME,
    Probed,
    Question,
    parse_probed,
    probe_command,
    probe_input,
)
from kubewright.model.doctor.reserved import RESERVED, Reservation, parse_reserved
from kubewright.model.kubelet import INSTANCE_CONFIG_PATH
from kubewright.model.manifests import CONTROLLER, SCHEDULER_POD
from kubewright.model.objects import SYSTEM, read_mapping
from kubewright.phases.serving import not_serving
from kubewright.workflows.status_ask import ASK, bounded
from kubewright.workflows.status_ask import LOOK as PATIENCE
from kubewright.workflows.status_host import HostSource
from kubewright.workflows.status_parts import Wanted

_AGAIN = 4.0
"""Seconds for the look of a host whose look hung a moment ago."""
_WHOLE = 12.0
"""Seconds for a host's look, its runtime and its addresses together: a host that is slow in one is so in all."""
_ENDS = 16
"""Of so many containers that do not run it is asked how they have ended."""


class DoctorHost:
    """One host: `status`'s questions, and `doctor`'s own beside them on the same connection."""

    def __init__(
        self, spec: HostSpec, open_: Callable[[], Host], pki: str, wanted: Wanted, *, certain: bool
    ) -> None:
        self.name = spec.name
        self.heard = 0.0
        """When it had last said all that it says, by the event loop's clock."""
        self.answered = False
        """Whether it has said all that since `forget`."""
        self.on_answer: Callable[[], None] | None = None
        """Called when it has."""
        self._hung = False
        self._plane = spec.is_control_plane and certain
        self._pki = pki
        self._look: Look | None = None
        self._raw = ""
        self._error = ""
        self._runtime: RuntimeFacts | None = None
        self._reserved: tuple[Reservation, ...] = ()
        self._mute: dict[str, str] = {}
        self.probed: Probed | None = None
        self._host: Host | None = None
        self.source = HostSource(spec, open_, pki, wanted, self._ask)

    def forget(self) -> None:
        """Before another look."""
        self._look, self._raw, self._error, self._runtime, self._reserved = None, "", "", None, ()
        self._mute, self.probed, self._host = {}, None, None
        self.answered = False

    def facts(self, error: str) -> NodeFacts:
        """What was found; `error` is why the host did not let us in."""
        look = self._look
        plane = self._plane or (look is not None and look.has_plane)
        why = "" if look else error or self._error or "it was not asked"
        return NodeFacts(
            self.name, plane, why, look, self._runtime, self._reserved, self._mute, self.probed, self._raw
        )  # fmt: skip

    async def probe(self, asked: Sequence[Question]) -> None:
        """Send packets. Raises nothing: where it cannot be done, as without Perl, `probed` stays None."""
        if self._host is None:
            return
        done, _ = await bounded(
            self._host.run(probe_command(), stdin=probe_input(asked), check=False, timeout=LIFETIME + 2),
            LIFETIME + 2,
        )
        if done is not None:
            self.probed = parse_probed(done.stdout.decode(errors="replace"))

    async def _ask(self, host: Host) -> None:
        self._host = host
        loop = asyncio.get_running_loop()
        await self._ask_until(host, loop.time() + _WHOLE)
        if not self._hung:
            self.heard = loop.time()
            self.answered = True
            if self.on_answer is not None:
                self.on_answer()

    async def _ask_until(self, host: Host, end: float) -> None:
        within = _AGAIN if self._hung else PATIENCE
        done, error = await bounded(
            host.shell(LOOK, *arguments(self._pki), check=False, timeout=within), within
        )
        self._hung = done is None
        if done is None:
            self._error = f"its look: {error}"
            return
        self._raw = done.stdout.decode(errors="replace")
        look = parse_look(self._raw)
        if not look.complete:
            self._error = f"its look was cut off: {done.err or f'exit code {done.exit_code}'}"
            return
        self._look = look
        if not look.joined and not look.manifests:
            return
        within = min(PATIENCE, end - asyncio.get_running_loop().time())
        async with asyncio.TaskGroup() as group:
            mute = group.create_task(ask_controllers(host, look))
            self._runtime = runtime = await ask_runtime(host, look, within)
            network = pod_network(look)
            if runtime is not None and runtime.answers and network:
                self._reserved = await ask_reserved(host, network)
        if runtime is not None and runtime.answers:
            # Of one whose container does not run, that is what is to be said.
            self._mute = {name: why for name, why in mute.result().items() if runtime.runs(name)}


async def ask_runtime(host: Host, look: Look, within: float = PATIENCE) -> RuntimeFacts | None:
    """What a node's runtime says of itself and of the Pods' containers. Raises nothing.

    None where it is the kubelet that would have to answer, and does not run.
    """
    socket = runtime_socket(look)
    if socket in look.sockets and (look.kubelet is None or look.kubelet.active != "active"):
        return None
    try:
        async with asyncio.timeout(within):
            socket = socket or await find_socket(host)
            async with open_cri(host, socket, timeout=ASK) as cri:
                return await _of_runtime(cri)
    except TimeoutError:
        return RuntimeFacts(False, f"no answer within {within:.0f} s", socket=socket)
    except KubewrightError as error:
        return RuntimeFacts(False, error.message, error.evidence, socket=socket)


def runtime_socket(look: Look) -> str:
    """The socket that the kubelet uses; empty where its files do not say."""
    instance = read_mapping(look.files.get(INSTANCE_CONFIG_PATH, "")) or {}
    flag = look.kubelet_flags.get("container-runtime-endpoint", "")
    configured = instance.get("containerRuntimeEndpoint") or look.kubelet_config.get(
        "containerRuntimeEndpoint"
    )
    return socket_path(flag or str(configured or "") or next(iter(look.sockets), ""))


async def _of_runtime(cri: CriClient) -> RuntimeFacts:
    found = await cri.status()
    # Containers first: of one that is listed, the sandbox is there a moment later, too.
    listed = await cri.containers()
    sandboxes = {one.id: one for one in await cri.sandboxes()}
    system = [
        one for one in listed if one.sandbox in sandboxes and sandboxes[one.sandbox].namespace == SYSTEM
    ]
    ended = [one for one in system if not one.running]
    ended.sort(key=lambda one: -one.attempt)
    async with asyncio.TaskGroup() as group:
        tasks = {one.id: group.create_task(_end(cri, one)) for one in ended[:_ENDS]}
    ends = {identity: task.result() for identity, task in tasks.items()}
    failed = {
        one.image for one in ended if (end := ends.get(one.id)) is not None and end.code != 0 and one.image
    }
    async with asyncio.TaskGroup() as group:
        images = {image: group.create_task(_architecture(cri, image)) for image in failed}
    made_for = {image: task.result() for image, task in images.items()}
    return RuntimeFacts(
        True, name=found.name, ready=found.ready, network_ready=found.network_ready, message=found.message,
        sandboxes=frozenset(sandboxes),
        containers=tuple(
            Container(
                sandboxes[one.sandbox].name, one.name, one.attempt, one.running, ends.get(one.id), one.image,
                made_for.get(one.image, ""), one.created,
            )
            for one in system
        ),
        pods=frozenset(one.name for one in sandboxes.values() if one.namespace == SYSTEM and one.ready),
    )  # fmt: skip


async def _end(cri: CriClient, one: RuntimeContainer) -> Ended | None:
    try:
        end = await cri.container_end(one.id)
    except CriError:
        return None
    return Ended(end.exit_code, end.reason, end.message, end.at, end.lasted) if end else None


async def _architecture(cri: CriClient, image: str) -> str:
    try:
        return await cri.image_architecture(image)
    except CriError:
        return ""


async def ask_controllers(host: Host, look: Look) -> dict[str, str]:
    """Of the controllers that the host should run, those that do not say that they are well. Raises nothing."""
    pods = {name: read_mapping(look.manifests.get(name, "")) for name in (CONTROLLER, SCHEDULER_POD)}
    nobody = Server("")  # controllers say it to everybody
    async with asyncio.TaskGroup() as group:
        tasks = {
            name: group.create_task(bounded(not_serving(host, name, pod, nobody, ""), ASK + 1))
            for name, pod in pods.items()
            if pod is not None
        }
    said = {name: task.result() for name, task in tasks.items()}
    return {name: why or error for name, (why, error) in said.items() if why or error}


async def ask_reserved(host: Host, network: str) -> tuple[Reservation, ...]:
    """The addresses that host-local has reserved for a network. Raises nothing."""
    done, _ = await bounded(host.shell(RESERVED, network, check=False, timeout=ASK))
    return parse_reserved(done.stdout.decode(errors="replace"), network) if done is not None else ()
