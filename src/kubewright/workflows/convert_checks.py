"""The preconditions of `convert`: all hosts, etcd and the API are looked at at once, and nothing is changed."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from urllib.parse import urlsplit

from kubewright.clients.etcd import Credentials, EtcdClient
from kubewright.errors import ConfigError, ExitCode, HostError, KubewrightError
from kubewright.events import Events
from kubewright.model import convert_checks as checks
from kubewright.model import kubeconfig, renewal, stored
from kubewright.model.cert_settings import CertSettings
from kubewright.model.config.cluster import ClusterSpec
from kubewright.model.config.etcd import CLIENT_PORT, with_endpoints
from kubewright.model.config.kubeadm import default_cluster_configuration
from kubewright.model.config.kubeadm_types import ClusterConfiguration
from kubewright.model.conversion import Existing, Mode
from kubewright.model.convert_checks import ClusterSeen, Seen
from kubewright.model.convert_etcd import LOOPBACK, listening
from kubewright.model.convert_look import (
    AUTHORITY_KEYS,
    ETCD_AUTHORITY,
    LOOK,
    Certificate,
    HostSeen,
    arguments,
    parse_look,
)
from kubewright.model.etcd_endpoints import used_endpoints
from kubewright.model.etcd_unit import DATA_DIR
from kubewright.model.formation import data_dir_in
from kubewright.model.manifests import API_SERVER, ETCD, manifest_path
from kubewright.model.node import API_PORT, host_port, is_address, split_endpoint
from kubewright.model.objects import SYSTEM, Object, read_mapping
from kubewright.model.pki import CA
from kubewright.model.preflight import Finding, refuse
from kubewright.model.reset import container_flags
from kubewright.model.status import node_status
from kubewright.model.status_etcd import MemberAnswer
from kubewright.model.status_look import ADMIN_CONF, KUBELET_CONF
from kubewright.phases.etcd_reach import out_of_reach
from kubewright.phases.node import Node
from kubewright.phases.renewal import expiries
from kubewright.secret import Secret
from kubewright.workflows.any_plane import any_plane
from kubewright.workflows.convert_etcd_checks import etcd_host_findings
from kubewright.workflows.endpoint import Endpoint
from kubewright.workflows.join_desired import cluster_configuration
from kubewright.workflows.status_ask import ASK, ask_member

_PODS = {name: manifest_path(name) for name in (API_SERVER, ETCD)}
_KEYS = ("etcd-cafile", "etcd-certfile", "etcd-keyfile")
_PATIENCE = 60.0
_INTERVAL = 0.5


async def check(
    spec: ClusterSpec,
    nodes: Sequence[Node],
    *,
    mode: Mode,
    lost: Mapping[str, HostError],
    events: Events,
    resumed: bool = False,
    patience: float = _PATIENCE,
) -> Existing:
    """Refuse a conversion that could not be finished, with all that stands in its way; else what there is.

    `nodes` are the hosts that can be reached, `lost` those that cannot. With `resumed` a run before has begun it:
    control planes that are half added do not hinder, and what that run has just restarted is waited for, at most
    `patience` seconds. An endpoint of type `external` is asked here, too (`Endpoint.check`); that the certificates
    there do not have its name yet is no hindrance, for they get it.
    Raises `HostError` with all findings.
    """
    async with events.phase("convert-check", "check that the cluster can be converted") as activity:
        end = asyncio.get_running_loop().time() + (patience if resumed else 0.0)
        while True:
            look = _Look(spec, nodes, mode, lost, resumed=resumed)
            seen, others = await look.gather()
            found = [*checks.findings(seen), *others]
            if not found or asyncio.get_running_loop().time() >= end:
                break
            activity.progress(str(found[0]))
            await asyncio.sleep(_INTERVAL)
        for text in checks.warnings(seen):
            events.warn(text)
        refuse(found)
        existing = look.existing(seen)
        activity.summary(
            f"{len(existing.control_planes)} of {len(spec.control_planes)} control planes are there"
        )
        return existing


@dataclass(frozen=True, slots=True)
class _Plane:
    """A host with an API server: its files."""

    node: Node
    api_server: Object
    etcd: bytes
    """The manifest; empty where it has no member."""
    admin: bytes

    @property
    def flags(self) -> Mapping[str, str]:
        """The API server's."""
        return container_flags(self.api_server)

    @property
    def server(self) -> str:
        """The API's URL as its administrator has it, else as its API server has it."""
        own = host_port(self.flags.get("advertise-address") or self.node.ip, API_PORT)
        return kubeconfig.first_server(read_mapping(self.admin) or {}) or f"https://{own}"


class _Look:
    """One look at everything. `gather` asks, and raises nothing that can be listed."""

    def __init__(
        self, spec: ClusterSpec, nodes: Sequence[Node], mode: Mode, lost: Mapping[str, HostError], *, resumed: bool
    ) -> None:  # fmt: skip
        self._spec = spec
        self._nodes = list(nodes)
        self._mode = mode
        self._lost = lost
        self._resumed = resumed
        self._wanted = _wanted(spec, nodes)
        self._endpoint = Endpoint(spec, nodes, lambda phase: phase.look())
        self._address = self._endpoint.address or self._wanted.control_plane_endpoint
        self._planes: dict[str, _Plane] = {}
        self._hosts: dict[str, HostSeen] = {}
        self._others: list[Finding] = []

    async def gather(self) -> tuple[Seen, list[Finding]]:
        """Everything, and the findings of whoever could not be asked."""
        async with asyncio.TaskGroup() as group:
            for node in self._nodes:
                group.create_task(self._host(node))
        planes = [self._planes[node.name] for node in self._nodes if node.name in self._planes]
        etcd = await _etcd(planes)
        moves = (
            self._mode is Mode.EXTERNAL_ETCD
        )  # then members that have left are no control planes that have not come
        names = checks.existing_planes(self._spec, self._hosts, etcd, resumed=self._resumed and not moves)
        existing = [plane for plane in planes if plane.node.name in names]
        async with asyncio.TaskGroup() as group:
            api = group.create_task(self._api([plane.node for plane in existing]))
            group.create_task(self._external(existing))
            if moves:
                group.create_task(self._etcd_hosts(existing, etcd))
            for node in self._nodes:
                if node.is_control_plane and node.name not in names and node.name in self._hosts:
                    group.create_task(self._reach(node, existing))
        seen = Seen(
            self._spec, self._wanted, self._mode, datetime.now(UTC), self._address, self._hosts, self._lost, names,
            etcd, api.result(), self._resumed,
        )  # fmt: skip
        return seen, self._others

    def existing(self, seen: Seen) -> Existing:
        """What there is, of a look without findings."""
        assert seen.api is not None
        planes = [self._planes[name] for name in seen.existing]
        ways = [listening(plane.etcd) for plane in planes if plane.etcd]
        # A member's peer URL is read off its flags when it is made, and never again: what etcd knows counts.
        listed = [member for one in seen.etcd for member in one.listed if ways]
        own = [urlsplit(peer) for member in listed for peer in member.peer_urls]
        url = urlsplit(planes[0].server)
        return Existing(
            seen.existing,
            tuple(node.name for node in seen.api.nodes),
            host_port(url.hostname or "", url.port or 443),
            planes[0].server,
            data_dir_in(planes[0].etcd) if planes[0].etcd else "",
            any(plain for plain, _ in ways) or any(peer.scheme == "http" for peer in own),
            any(loopback for _, loopback in ways) or any(peer.hostname in LOOPBACK for peer in own),
            seen.etcd_size,
            seen.api.cluster,
        )

    def _listed(self, host: str, error: KubewrightError) -> None:
        message = error.message.removeprefix(f"{host}: ")
        self._others.append(Finding(host, message, error.hint or "see `kubewright status`", error.exit_code))

    # -- one host -------------------------------------------------------------------------------------------------

    async def _host(self, node: Node) -> None:
        try:
            self._hosts[node.name] = await self._look_at(node)
        except KubewrightError as error:
            self._listed(node.name, error)

    async def _look_at(self, node: Node) -> HostSeen:
        name = split_endpoint(self._address)[0] if self._address else ""
        directory = self._wanted.certificates_dir
        keys = [f"{directory}/{key}" for key in (*AUTHORITY_KEYS, f"{ETCD_AUTHORITY}.crt")]
        local = self._wanted.etcd.local
        asked = arguments(
            "" if is_address(name) else name, [KUBELET_CONF, *_PODS.values(), *keys],
            local.data_dir if local is not None else DATA_DIR,
        )  # fmt: skip
        look = parse_look((await node.host.shell(LOOK, *asked, check=False)).stdout.decode(errors="replace"))
        look = replace(
            look,
            joined=KUBELET_CONF in look.present,
            pods=frozenset(pod for pod, path in _PODS.items() if path in look.present),
        )
        if not node.is_control_plane or API_SERVER not in look.pods:
            return look
        files = await node.host.read_files([*_PODS.values(), ADMIN_CONF])
        api_server = read_mapping(files.get(_PODS[API_SERVER], b"")) or {}
        plane = _Plane(node, api_server, files.get(_PODS[ETCD], b""), files.get(ADMIN_CONF, b""))
        self._planes[node.name] = plane
        own_etcd = ETCD in look.pods and f"{directory}/{ETCD_AUTHORITY}.crt" in look.present
        certificates, trouble = await _certificates(node, CertSettings(directory, not own_etcd))
        return replace(
            look,
            etcd_servers=tuple(used_endpoints(api_server)),
            certificates=certificates,
            unreadable=trouble,
        )

    async def _reach(self, node: Node, existing: Sequence[_Plane]) -> None:
        """Whether a new control plane can connect to those that there are. An etcd on a loopback address alone,
        which nobody can reach, is moved away from it first."""
        urls = []
        for plane in existing:
            address = plane.flags.get("advertise-address") or plane.node.ip
            alone = not plane.etcd or listening(plane.etcd)[1] or self._wanted.etcd.external is not None
            ports = (API_PORT,) if alone else (API_PORT, CLIENT_PORT, CLIENT_PORT + 1)
            urls += [f"https://{host_port(address, port)}" for port in ports]
        failures = await out_of_reach(node.host, urls)
        self._hosts[node.name] = replace(self._hosts[node.name], out_of_reach=tuple(failures))

    async def _etcd_hosts(self, existing: Sequence[_Plane], etcd: Sequence[MemberAnswer]) -> None:
        """The hosts to which etcd moves. They need not reach control planes whose members have left."""
        stacked = [plane for plane in existing if plane.etcd]
        reached = not any(any(listening(plane.etcd)) for plane in stacked)
        self._others += await etcd_host_findings(
            self._nodes, [plane.node for plane in stacked], etcd, self._wanted, self._hosts, reached=reached
        )

    # -- the cluster ----------------------------------------------------------------------------------------------

    async def _api(self, planes: Sequence[Node]) -> ClusterSeen | None:
        """What the API says, through the first control plane that serves."""
        if not planes:
            return None
        async with any_plane(planes) as (node, kube, failures):
            if node is None or kube is None:
                self._others.append(
                    Finding(
                        planes[0].name,
                        "no API server answers, so that Nodes and version are not known: "
                        + "; ".join(failures),
                        "mend what else is listed first: an API server whose certificate has ended serves nobody",
                        ExitCode.API_ERROR,
                    )
                )
                return None
            try:
                cluster = cluster_configuration(
                    await kube.get("v1", "ConfigMap", stored.KUBEADM_CONFIG, SYSTEM)
                )
                items = await kube.list("v1", "Node")
            except KubewrightError as error:
                self._listed(node.name, error)
                return None
        return ClusterSeen(cluster, tuple(node_status(item, datetime.now(UTC)) for item in items))

    async def _external(self, existing: Sequence[_Plane]) -> None:
        """An address of the user's own leads to this cluster or nowhere. A certificate without its name, which is
        what there is before a conversion, is none of another cluster."""
        if not existing:
            return
        through = existing[0].node
        try:
            ca = await through.host.read_file(CA.cert_path(self._wanted.certificates_dir))
            if ca is not None:
                await self._endpoint.check(through, ca, must_answer=False)
        except HostError as error:
            if error.exit_code is ExitCode.HOST_IN_OTHER_CLUSTER:
                self._listed(through.name, error)


def _wanted(spec: ClusterSpec, nodes: Sequence[Node]) -> ClusterConfiguration:
    """What cluster.yaml means, hosts of etcd with the addresses that they have."""
    wanted = default_cluster_configuration(spec)
    if spec.etcd is not None or not spec.etcd_hosts:
        return wanted
    ips = {node.name: node.ip for node in nodes}
    places = [ips.get(host.name) or host.node_ip or host.address for host in spec.etcd_hosts]
    return with_endpoints(wanted, [f"https://{host_port(place, CLIENT_PORT)}" for place in places])


async def _certificates(
    node: Node, settings: CertSettings
) -> tuple[tuple[Certificate, ...], tuple[str, ...]]:
    """When a control plane's certificates end; or why they cannot be read. Those that are missing are passed over:
    whoever needs one says so itself."""
    try:
        leaves, roots = await expiries(node.host, settings)
    except ConfigError as error:
        return (), (error.message,)
    paths = {one.name: one.path(settings.directory) for one in renewal.MANAGED}
    authorities = {one.name: one.cert_path(settings.directory) for one in renewal.AUTHORITIES}
    found = [Certificate(paths[one.name], one.name, one.ends) for one in leaves if one.ends is not None]
    found += [Certificate(authorities[one.name], "", one.ends) for one in roots if one.ends is not None]
    return tuple(found), ()


# -- etcd ---------------------------------------------------------------------------------------------------------


async def _etcd(planes: Sequence[_Plane]) -> tuple[MemberAnswer, ...]:
    """What all members say: each control plane's own, one elsewhere through the first control plane, and then
    those that they know of and nobody has asked."""
    own = [plane for plane in planes if plane.etcd]
    elsewhere = [plane for plane in planes if not plane.etcd][: 0 if own else 1]
    places = [
        (plane, url, plane.node.name if _is_own(plane, url) else url)
        for plane in own
        for url in used_endpoints(plane.api_server)[:1]
    ]
    places = list({(where, url): (plane, url, where) for plane, url, where in reversed(places)}.values())[
        ::-1
    ]
    places += [(plane, url, url) for plane in elsewhere for url in used_endpoints(plane.api_server)]
    answers = await _ask(places)
    heard = {one.words.id for one in answers if one.words is not None}
    asked = {where for _, _, where in places}
    others = {
        member.id: member
        for one in answers
        for member in one.listed
        if member.client_urls and member.id not in heard and not asked & {member.name, *member.client_urls}
    }
    through = next(iter([*own, *elsewhere]), None)
    if through is None:
        return ()
    more = [(through, member.client_urls[0], member.name or member.title) for member in others.values()]
    return (*answers, *await _ask(more))


def _is_own(plane: _Plane, url: str) -> bool:
    """Whether an API server's endpoint of etcd is its own control plane's member. One is asked once: when etcd has
    moved, all API servers have the same."""
    host = urlsplit(url).hostname or ""
    return host in ("localhost", "127.0.0.1", "::1", plane.node.ip, plane.flags.get("advertise-address"))


async def _ask(places: Sequence[tuple[_Plane, str, str]]) -> list[MemberAnswer]:
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(_ask_one(*place)) for place in places]
    return [task.result() for task in tasks]


async def _ask_one(plane: _Plane, url: str, where: str) -> MemberAnswer:
    """What a member says to a control plane's host, which has the files by which its API server asks."""
    keys: Credentials | None = None
    if not url.startswith("http://"):
        paths = [plane.flags.get(name, "") for name in _KEYS]
        try:
            files = await plane.node.host.read_files([path for path in paths if path])
        except KubewrightError as error:
            return MemberAnswer(where, error=error.message)
        if missing := [path or name for path, name in zip(paths, _KEYS, strict=True) if path not in files]:
            return MemberAnswer(where, error=f"there is no {missing[0]}, by which etcd is asked")
        keys = Credentials(files[paths[0]], files[paths[1]], Secret(files[paths[2]]))
        try:
            keys.context()
        except (ssl.SSLError, ValueError):
            return MemberAnswer(where, error=f"{paths[1]} or its key or CA cannot be used")
    async with EtcdClient([url], keys, plane.node.host.forward_tcp, timeout=ASK - 0.5) as etcd:
        return await ask_member(etcd, url, where)
