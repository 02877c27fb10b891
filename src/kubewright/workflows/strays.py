"""Nodes that a cluster.yaml names no more, and new hosts in the place of dead ones, as `apply` treats them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress

from kubewright.errors import ExitCode, HostError, KubewrightError, leaves
from kubewright.hosts.open import open_at
from kubewright.model import preflight
from kubewright.model.config.cluster import ClusterSpec, HostSpec, Role
from kubewright.model.formation import data_dir_in
from kubewright.model.loadbalancer import Backend
from kubewright.model.manifests import ETCD, manifest_path
from kubewright.model.node import API_PORT
from kubewright.model.node_origin import Origin, origin, strays
from kubewright.model.objects import Object
from kubewright.model.status import internal_ip, is_plane
from kubewright.phases.alive import reports
from kubewright.phases.etcd_members import EtcdMemberOut, Leaver
from kubewright.phases.gone import GoneNodes
from kubewright.phases.kubelet_join import KUBELET_CONF
from kubewright.phases.leave import EndpointGone
from kubewright.phases.node import Node
from kubewright.workflows.fleet import on_all, raise_all
from kubewright.workflows.remove import Removal, Staying, other_cluster


class Strays:
    """The Nodes that the file named once, and does not any more.

    The dead among them leave before others come: etcd takes no new member while one is away. Those that live leave
    afterwards, when all others serve.
    """

    def __init__(
        self, stay: Staying, spec: ClusterSpec, is_gone: Callable[[str], bool] = lambda _: False
    ) -> None:
        """`is_gone` knows by its name whose machine is no more; others must be missed for a while."""
        self._stay = stay
        self._spec = spec
        self._is_gone = is_gone
        self._told: set[str] = set()

    async def remove_dead(self) -> None:
        """Take those out whose hosts cannot be reached and whose kubelets are silent; failures as `remove_all`."""
        failures: list[KubewrightError] = []
        for node in await self._find():
            name = node["metadata"]["name"]
            try:
                if self._is_gone(name) or await self._is_dead(node):
                    await Removal(self._stay, name, None, dead=True).run()
            except KubewrightError as error:
                failures.append(error)
        raise_all(failures)

    @asynccontextmanager
    async def _reached(self, node: Object) -> AsyncIterator[tuple[Node | None, str]]:
        """As `open_stray`; where its host was, one of another cluster is none of ours."""
        async with open_stray(node, self._spec) as (host, why):
            with suppress(HostError):  # one that cannot be asked is there; its removal says what is wrong
                if host is not None and (foreign := await other_cluster(self._stay, host)):
                    host, why = None, foreign
            yield host, why

    async def _is_dead(self, node: Object) -> bool:
        async with self._reached(node) as (host, _):
            return host is None and not await reports(self._stay.kube, node)

    async def remove_all(self) -> None:
        """Take all of them out: workers at once, then control planes one after another. Who cannot leave keeps no
        other; all failures are raised in the end."""
        nodes = await self._find()
        workers = [node for node in nodes if not is_plane(node)]
        failures: list[KubewrightError] = []
        for some in (workers, *([node] for node in nodes if is_plane(node))):
            try:
                await on_all({node["metadata"]["name"]: self._remove(node) for node in some})
            except* KubewrightError as group:
                failures += [one for one in leaves(group) if isinstance(one, KubewrightError)]
        raise_all(failures)

    async def serving(self) -> dict[str, Backend]:
        """The API servers of the control planes among them, which serve until they leave."""
        found = {}
        for node in await self._find():
            if is_plane(node) and (address := internal_ip(node)):
                found[node["metadata"]["name"]] = Backend(node["metadata"]["name"], address, API_PORT)
        return found

    async def _find(self) -> list[Object]:
        """They; what others have made is left to them, and said once."""
        nodes = {node["metadata"]["name"]: node for node in await self._stay.kube.list("v1", "Node")}
        ours, foreign = strays(nodes.values(), {host.name for host in self._spec.hosts})
        for name in foreign:
            if name not in self._told:
                self._told.add(name)
                self._stay.events.note(
                    f"Node {name} is not in the file and was not made by one; it stays. "
                    f"`kubewright node remove {name}` takes it out"
                )
        return [nodes[name] for name in ours]

    async def _remove(self, node: Object) -> None:
        name = node["metadata"]["name"]
        async with self._reached(node) as (host, why):
            if host is None:
                self._stay.events.warn(
                    f"Node {name} is taken out of the cluster, and its host is not reset: {why}"
                )
            await Removal(self._stay, name, host).run()


async def make_room(stay: Staying, node: Node) -> None:
    """Take out what is left of a dead host before a new one of its name becomes a Node.

    What a host is on its way to be, or was interrupted in, stays. Raises `HostError` where another host is alive
    under that name, and `KubewrightError` where etcd needs the old member.
    """
    live = None
    if not await node.host.stat_files([KUBELET_CONF], digest=False):
        live = await stay.kube.get("v1", "Node", node.name)
    same = live is not None and await _is_of(live, node)
    if live is not None and not same and await reports(stay.kube, live):
        raise HostError(
            f"{node.name}: another host is alive as Node {node.name}", host=node.name,
            exit_code=ExitCode.HOST_IN_OTHER_CLUSTER,
            hint=f"give this one another name, or take the other out: kubewright node remove {node.name}",
        )  # fmt: skip
    if node.is_control_plane and stay.stacked and stay.planes and await _has_no_data(stay, node, same):
        # A member that has run has data; one that has lost it would have forgotten its votes.
        addresses = () if same else _left_by(live, node, stay)
        leaver = Leaver(node.name, addresses, dead=True)
        await stay.do(EtcdMemberOut(stay.planes[0], stay.kube, stay.cluster.certificates_dir, leaver))
    if live is None or same:
        return
    if is_plane(live):
        await stay.do(EndpointGone(stay.kube, node.name))
    await stay.do(GoneNodes(stay.kube, lambda one: one == node.name))


async def _has_no_data(stay: Staying, node: Node, same: bool) -> bool:
    """Whether a member of this name is lost: its host has none of its data. Where a manifest says that the data is
    elsewhere than the file does, nothing is known of it. `same` says that the Node tells of this very host: then
    only a reset has taken the data away, which leaves no manifest."""
    local = stay.cluster.etcd.local
    data = local.data_dir if local is not None else ""
    manifest = await node.host.read_file(manifest_path(ETCD))
    if manifest is not None and (same or data_dir_in(manifest) != data):
        return False
    return not await node.host.stat_files([f"{data}/member"], digest=False)


def _left_by(live: Object | None, node: Node, stay: Staying) -> tuple[str, ...]:
    """The address by which a member is known that the dead host of a Node never started; none where another has it
    by now."""
    address = internal_ip(live) if live is not None else ""
    taken = {plane.ip for plane in stay.planes if plane.name != node.name}
    return (address,) if address and address not in taken else ()


async def _is_of(live: Object, node: Node) -> bool:
    """Whether it is this host, in this boot, that the Node tells of."""
    boot = await node.host.run(["cat", "/proc/sys/kernel/random/boot_id"], check=False)
    said = ((live.get("status") or {}).get("nodeInfo") or {}).get("bootID")
    return boot.ok and bool(said) and said == boot.text


@asynccontextmanager
async def open_stray(node: Object, spec: ClusterSpec) -> AsyncIterator[tuple[Node | None, str]]:
    """The host of a Node that is not in the file, by its annotation; None, and why, where it cannot be reached."""
    name = node["metadata"]["name"]
    where = origin(node)
    taken = {host.address for host in spec.hosts}
    if where is None:
        yield None, f"Node {name} does not say where its host is"
    elif where.address in taken:
        yield None, f"{where.address} is another host's address by now"
    else:
        async with _opened(name, where, spec, is_plane(node)) as found:
            yield found


@asynccontextmanager
async def _opened(
    name: str, where: Origin, spec: ClusterSpec, plane: bool
) -> AsyncIterator[tuple[Node | None, str]]:
    ssh = spec.ssh
    async with open_at(
        name, where.address, user=where.user or ssh.user or "", port=where.port or ssh.port or 0,
        key_files=ssh.key_files or (), known_hosts=ssh.known_hosts or "", jump=ssh.jump or "",
    ) as host:  # fmt: skip
        try:
            facts = await host.facts()
        except HostError as error:
            failure = error.message
        else:
            failure = ""
        if failure:
            yield None, failure
            return
        roles = [Role.CONTROL_PLANE if plane else Role.WORKER]
        item = HostSpec(name=name, address=where.address, roles=roles)
        yield Node(item, host, facts, preflight.node_ip(item, facts)), ""
