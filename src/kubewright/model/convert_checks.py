"""What stands in the way of a conversion, decided from what hosts, etcd and the API have said."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from kubewright.errors import ConfigError, ExitCode, HostError
from kubewright.model.config.cluster import ClusterSpec, HostSpec
from kubewright.model.config.endpoint import LOCAL_HOST, endpoint_hosts, endpoint_port
from kubewright.model.config.etcd import even_or_single
from kubewright.model.config.kubeadm_types import ClusterConfiguration
from kubewright.model.conversion import Mode
from kubewright.model.convert_etcd import etcd_findings
from kubewright.model.convert_hosts import plane_ports, proxy_port, resolution, room
from kubewright.model.convert_look import AUTHORITY_KEYS, ETCD_AUTHORITY, HostSeen
from kubewright.model.etcd_endpoints import switched
from kubewright.model.etcd_moves import left_behind
from kubewright.model.manifests import API_SERVER, ETCD
from kubewright.model.node import split_endpoint
from kubewright.model.preflight import Finding
from kubewright.model.status import NodeStatus
from kubewright.model.status_etcd import MemberAnswer
from kubewright.model.version import Version
from kubewright.model.versions import facts_for

FILE = "cluster.yaml"
"""Where a finding is that no host can mend."""
VALID = timedelta(days=1)
"""For how long certificates must be valid: nothing may end while a cluster is converted."""
_FIXED = (("pod_subnet", "podSubnet"), ("service_subnet", "serviceSubnet"), ("dns_domain", "dnsDomain"))


@dataclass(frozen=True, slots=True)
class ClusterSeen:
    """What the API says."""

    cluster: ClusterConfiguration
    """As `kubeadm-config` has it."""
    nodes: tuple[NodeStatus, ...]


@dataclass(frozen=True, slots=True)
class Seen:
    """All that is known before a conversion begins, or goes on."""

    spec: ClusterSpec
    wanted: ClusterConfiguration
    """What cluster.yaml means, its endpoints of an etcd elsewhere as the hosts have them."""
    mode: Mode
    now: datetime
    endpoint: str
    """`host:port`; empty where cluster.yaml has none."""
    hosts: Mapping[str, HostSeen]
    """By name, those that could be looked at."""
    lost: Mapping[str, HostError]
    """By name, those that could not be reached."""
    existing: tuple[str, ...]
    """The control planes that there are."""
    etcd: tuple[MemberAnswer, ...]
    api: ClusterSeen | None
    """None where no API server answers, which is a finding of whoever has asked."""
    resumed: bool = False
    """Whether a run before has begun it: some hosts are converted, and some are half so."""

    @property
    def coming(self) -> list[HostSpec]:
        """Who becomes a control plane."""
        return [host for host in self.spec.control_planes if host.name not in self.existing]

    @property
    def etcd_here(self) -> bool:
        """Whether the control planes that there are have members of etcd."""
        return any(ETCD in self.hosts[name].pods for name in self.existing if name in self.hosts)

    @property
    def etcd_size(self) -> int:
        """Of etcd's database, in bytes, as the member with the largest has it."""
        return max((one.words.database for one in self.etcd if one.words is not None), default=0)


def findings(seen: Seen) -> list[Finding]:
    """Everything that stands in the way, the connection to hosts first."""
    return [
        *_lost(seen.lost),
        *_shape(seen),
        *_certificates(seen),
        *_keys(seen),
        *etcd_findings(seen.etcd, seen.existing, resumed=seen.resumed),
        *_same_etcd(seen),
        *_cluster(seen),
        *_nodes(seen),
        *_hosts(seen),
    ]


def warnings(seen: Seen) -> list[str]:
    """What is to be said and stops nothing: a number of control planes that bears no more losses (P01)."""
    if seen.mode is Mode.EXTERNAL_ETCD:
        local = seen.api.cluster.etcd.local if seen.api is not None else None
        return [text for text in (even_or_single(len(seen.spec.etcd_hosts)), left_behind(local)) if text]
    if seen.mode is not Mode.TO_HA or seen.wanted.etcd.external is not None:
        return []
    text = even_or_single(len(seen.spec.control_planes))
    return [text] if text else []


def existing_planes(
    spec: ClusterSpec, hosts: Mapping[str, HostSeen], etcd: Sequence[MemberAnswer], *, resumed: bool
) -> tuple[str, ...]:
    """The names of the control planes that there are: those with an API server. In a conversion that goes on, one
    with a member of its own exists when that has its vote, as far as etcd says who has."""
    votes = {one.name for answer in etcd for one in answer.listed if not one.learner}
    return tuple(
        host.name
        for host in spec.control_planes
        if host.name in hosts
        and API_SERVER in hosts[host.name].pods
        and not (resumed and votes and ETCD in hosts[host.name].pods and host.name not in votes)
    )


def _apart(one: str, other: str) -> bool:
    """Whether two endpoints, `host:port` or a host alone, are different ones; empty for none."""
    return (one and split_endpoint(one)) != (other and split_endpoint(other))


def _nodes_of(seen: Seen) -> list[HostSpec]:
    return [host for host in seen.spec.nodes if host.name in seen.hosts]


def _lost(lost: Mapping[str, HostError]) -> Iterator[Finding]:
    for name, error in lost.items():
        message = error.message.removeprefix(f"{name}: ")
        yield Finding(
            name, message, error.hint or "is it running, and does its network work?", error.exit_code
        )


# -- cluster.yaml -------------------------------------------------------------------------------------------------


def _shape(seen: Seen) -> Iterator[Finding]:
    """What cluster.yaml must say for this conversion."""
    planes = [host.name for host in seen.spec.control_planes]
    option = f"--{seen.mode}"

    def finding(message: str, hint: str) -> Finding:
        return Finding(FILE, message, hint, ExitCode.CONFIG_INVALID)

    if seen.mode is Mode.EXTERNAL_ETCD:
        if not seen.spec.etcd_hosts:
            yield finding(
                f"{option} needs an etcd elsewhere",
                "give hosts the role etcd; to an etcd of your own data is moved by a snapshot, by hand",
            )
        if seen.api is not None and _apart(seen.endpoint, seen.api.cluster.control_plane_endpoint):
            yield finding(
                f"{option} leaves the endpoint what it is ({seen.api.cluster.control_plane_endpoint or 'none'}), "
                f"and it is {seen.endpoint or 'none'} here", "convert with --endpoint or --to-ha first",
            )  # fmt: skip
    elif not seen.endpoint:
        yield finding(
            f"{option} needs an endpoint", "add `endpoint: {type: local}`, or a type of your choice"
        )
    if not seen.existing and not seen.lost:
        yield finding(
            "none of its control planes has a cluster",
            "make one with `kubewright apply`, or name other hosts",
        )
    if seen.mode is Mode.TO_HA and len(planes) < 2:
        yield finding(f"{option} needs more than one control plane", "add hosts with the role control-plane")
    elif seen.mode is not Mode.TO_HA and seen.existing and not seen.lost and seen.coming:
        yield finding(
            f"{option} adds no control planes, and {', '.join(host.name for host in seen.coming)} would be one",
            "take them out of it, or convert with --to-ha"
            + (" when etcd has moved" if seen.mode is Mode.EXTERNAL_ETCD else ""),
        )
    for node in seen.api.nodes if seen.api is not None else ():
        if node.is_control_plane and node.name not in planes:
            yield finding(
                f"{node.name} is a control plane of the cluster, and none here",
                "name it with the role control-plane; it can leave when the cluster is converted",
            )


# -- the control planes that there are ----------------------------------------------------------------------------


def _certificates(seen: Seen) -> Iterator[Finding]:
    addresses = {host.name: host.address for host in seen.spec.hosts}
    for name in seen.existing:
        there = "" if addresses[name] == "local" else f" --host {addresses[name]}"
        for trouble in seen.hosts[name].unreadable:
            yield Finding(name, trouble, f"make it anew: `kubewright init phase certs`{there}")
        for one in seen.hosts[name].certificates:
            if one.ends - seen.now >= VALID:
                continue
            when = f"{one.ends:%Y-%m-%d %H:%M} UTC"
            said = f"ended on {when}" if one.ends <= seen.now else f"ends on {when}, in less than a day"
            yield Finding(
                name, f"{one.path} {said} (P22)",
                f"kubewright certs renew {one.renewal}{there}" if one.renewal else
                "a CA is not renewed: the cluster needs a new one, and all certificates made anew by it",
            )  # fmt: skip


def _keys(seen: Seen) -> Iterator[Finding]:
    """The keys that new certificates are signed with. An etcd that never had a CA of its own is given one."""
    known = [name for name in seen.existing if name in seen.hosts]
    if not known:
        return
    held = {path for name in known for path in seen.hosts[name].present}
    directory = seen.wanted.certificates_dir
    for key in AUTHORITY_KEYS:
        if key == f"{ETCD_AUTHORITY}.key" and (
            not seen.etcd_here or f"{directory}/{ETCD_AUTHORITY}.crt" not in held
        ):
            continue
        if f"{directory}/{key}" not in held:
            yield Finding(
                known[0], f"there is no {directory}/{key}" + (" on any control plane" if known[1:] else ""),
                "restore it; a cluster whose CA is kept elsewhere cannot be converted by Kubewright",
            )  # fmt: skip


def _same_etcd(seen: Seen) -> Iterator[Finding]:
    """Where etcd is to stay, cluster.yaml must name the one that there is."""
    external = seen.wanted.etcd.external
    for name in seen.existing:
        host = seen.hosts[name]
        if seen.mode is Mode.EXTERNAL_ETCD:
            if ETCD not in host.pods and external is not None:  # it has moved, or was never here
                yield from switched(name, host.etcd_servers, external.endpoints)
        elif external is not None:
            yield from switched(name, host.etcd_servers, external.endpoints)
        elif ETCD not in host.pods:
            yield from switched(name, host.etcd_servers, [])


# -- what the API says --------------------------------------------------------------------------------------------


def _cluster(seen: Seen) -> Iterator[Finding]:
    """The version, and what cannot be changed in a cluster that runs."""
    if seen.api is None:
        return
    stored = seen.api.cluster

    def finding(message: str, hint: str, code: ExitCode = ExitCode.CONFIG_INVALID) -> Finding:
        return Finding(FILE, message, hint, code)

    try:
        live = facts_for(stored.kubernetes_version).version
    except ConfigError as error:
        yield finding(error.message, error.hint, error.exit_code)
    else:
        if live != Version.parse(seen.wanted.kubernetes_version):
            yield finding(
                f"kubernetesVersion is {seen.wanted.kubernetes_version}, and the cluster's is {live}",
                f"write {live}; another version is an upgrade, before or after",
            )
        for node in seen.api.nodes:
            if node.version and _newer(node.version, live):
                yield Finding(
                    node.name, f"its kubelet is {node.version}, newer than the cluster's {live}",
                    f"install {live} there, or upgrade the cluster first",
                )  # fmt: skip
    fixed = [
        (f"networking.{title}", getattr(stored.networking, name), getattr(seen.wanted.networking, name))
        for name, title in _FIXED
    ]
    for title, old, new in (
        *fixed,
        ("certificatesDir", stored.certificates_dir, seen.wanted.certificates_dir),
    ):
        if old != new:
            yield finding(
                f"{title} is {new or 'empty'}, and the cluster's is {old or 'empty'}: a conversion does not "
                "change it",
                f"let it be {old!r} in cluster.yaml",
            )


def _newer(kubelet: str, cluster: Version) -> bool:
    try:
        return Version.parse(kubelet) > cluster
    except ConfigError:
        return False


def _nodes(seen: Seen) -> Iterator[Finding]:
    """Every Node is up and in cluster.yaml, and every host that is a node is a Node."""
    if seen.api is None:
        return
    named = {host.name for host in seen.spec.nodes}
    halves = {host.name for host in seen.coming} if seen.resumed else set()
    for node in seen.api.nodes:
        if not node.ready and node.name not in halves:
            why = node.problems[0] if node.problems else "not Ready"
            yield Finding(
                node.name, f"its Node is {why}", "mend it, or take it out: `kubewright node remove`"
            )
        if node.name not in named and not node.is_control_plane:
            yield Finding(
                node.name, "the cluster has this Node, and cluster.yaml has not",
                "add it, so that it learns the endpoint, too; or take it out: `kubewright node remove`",
            )  # fmt: skip
    there = {node.name for node in seen.api.nodes}
    for host in _nodes_of(seen):
        if seen.hosts[host.name].joined and host.name not in there | halves:
            yield Finding(
                host.name, "it has a kubelet.conf, and the cluster has no such Node",
                "is its kubelet running, under this name? else `kubewright reset` it first",
            )  # fmt: skip


# -- hosts --------------------------------------------------------------------------------------------------------


def _hosts(seen: Seen) -> Iterator[Finding]:
    for plane in seen.coming:
        look = seen.hosts.get(plane.name)
        if look is not None:
            # Of one that is half added, what listens there is its own.
            half = seen.resumed and bool(look.pods & {ETCD, API_SERVER})
            yield from plane_ports(plane.name, look, etcd=seen.wanted.etcd.external is None, own=half)
    local = seen.spec.endpoint is not None and seen.spec.endpoint.type == "local"
    for host in endpoint_hosts(seen.spec):
        if host.name in seen.hosts:
            address = LOCAL_HOST if local else "0.0.0.0"  # noqa: S104 - where the proxy is to listen
            yield from proxy_port(host.name, seen.hosts[host.name], address, endpoint_port(seen.spec))
    yield from resolution(
        seen.endpoint, {host.name: seen.hosts[host.name].resolved for host in _nodes_of(seen)}
    )
    if seen.resumed:
        return  # it has its backup
    for host in _nodes_of(seen):
        look = seen.hosts[host.name]
        if look.joined or host.name in seen.existing:
            data = seen.etcd_size if host.name in seen.existing and ETCD in look.pods else 0
            yield from room(host.name, look, data)
