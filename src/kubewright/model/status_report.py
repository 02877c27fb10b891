"""All that `kubewright status` knows, from whomever it was learnt, and the document that it prints."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

from kubewright.model.status import CONTROL_PLANE_PARTS, ClusterStatus, Seen, digest
from kubewright.model.status_api import (
    LEADERS,
    ApiAnswer,
    ApiStatus,
    LeaderStatus,
    api_problems,
    api_status,
    leader_status,
)
from kubewright.model.status_certs import CertsStatus, SeenCert, cert_problems, certs_status
from kubewright.model.status_etcd import EtcdStatus, MemberAnswer, MemberStatus, etcd_status
from kubewright.model.status_hosts import HostStatus, container_parts, container_words, host_problems
from kubewright.model.status_proxies import ProxyStatus, proxy_problems

Object = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Facts:
    """What all sources said in one look, or that they said nothing. `now` is the time of the look."""

    now: datetime
    objects: Seen | None = None
    """None where no API server let us read them."""
    objects_error: str = ""
    """Why there are none."""
    leases: Sequence[Object] = ()
    config_maps: Sequence[Object] = ()
    """Those of kube-system; none where they were not asked for, or may not be read."""
    services: Sequence[Object] = ()
    """Those of the API and of cluster DNS, with their endpoints, where ConfigMaps were asked for."""
    endpoints: Sequence[Object] = ()
    policies: Sequence[Object] = ()
    """The network policies of all namespaces."""
    servers: Sequence[ApiAnswer] = ()
    endpoint: Sequence[ApiAnswer] = ()
    etcd: Sequence[MemberAnswer] = ()
    external_etcd: bool = False
    proxies: Sequence[ProxyStatus] = ()
    certs: Sequence[SeenCert] = ()
    hosts: Sequence[HostStatus] = ()


@dataclass(frozen=True, slots=True)
class StatusReport:
    """The whole status."""

    now: datetime
    cluster: ClusterStatus
    """What the objects say; without an API, what the hosts' containers say in their place."""
    has_objects: bool
    servers: tuple[ApiStatus, ...] = ()
    endpoint: tuple[ApiStatus, ...] = ()
    etcd: EtcdStatus | None = None
    leaders: tuple[LeaderStatus, ...] = ()
    proxies: tuple[ProxyStatus, ...] = ()
    certs: CertsStatus | None = None
    """None where nobody was asked."""
    hosts: tuple[HostStatus, ...] = ()
    problems: tuple[str, ...] = field(default=())

    @property
    def healthy(self) -> bool:
        """Whether there is nothing to complain about."""
        return not self.problems

    def as_dict(self) -> dict[str, Any]:
        """The document that `-o json` prints."""
        document = self.cluster.as_dict()
        problems, failed = document.pop("problems"), document.pop("failedApiChecks")
        del problems  # they are among ours
        return document | {
            "healthy": self.healthy,
            "time": _time(self.now),
            "apiServers": [_plain(one) for one in self.servers],
            "endpoint": [{"from": one.name} | _plain(one, without="name") for one in self.endpoint],
            "etcd": self._etcd(),
            "leaders": [_plain(one) for one in self.leaders],
            "loadBalancers": [_plain(one) for one in self.proxies],
            "certificates": self._certs(),
            "hosts": [_plain(one) for one in self.hosts],
            "failedApiChecks": failed,
            "problems": list(self.problems),
        }

    def _etcd(self) -> dict[str, Any] | None:
        if self.etcd is None:
            return None
        found = self.etcd
        return {
            "external": found.external,
            "leader": found.leader,
            "voters": found.voters,
            "answering": found.answering,
            "mayFail": found.may_fail,
            "members": [_member(one) for one in found.members],
        }

    def _certs(self) -> dict[str, Any] | None:
        if self.certs is None:
            return None
        return {
            "read": self.certs.read,
            "firstEnd": _time(self.certs.first_end) if self.certs.first_end else None,
            "ending": [
                {"name": one.name, "hosts": list(one.hosts), "ends": _time(one.ends), "ended": one.ended}
                for one in self.certs.ending
            ],
        }


def report(facts: Facts) -> StatusReport:
    """The status that all facts add up to."""
    runtimes = {host.name: host for host in facts.hosts}
    servers = tuple(_with_container(api_status(one), runtimes.get(one.name)) for one in facts.servers)
    endpoint = tuple(api_status(one) for one in facts.endpoint)
    etcd = etcd_status(facts.etcd, external=facts.external_etcd)
    leaders = leader_status(facts.leases, facts.now)
    hosts, proxies = tuple(facts.hosts), tuple(facts.proxies)
    certs = certs_status(facts.certs, facts.now) if facts.certs or hosts else None
    if facts.objects is not None:
        cluster = digest(facts.objects)
    else:
        answering = {one.name for one in servers if one.answers}
        parts = container_parts(hosts, answering, without=("etcd",) if facts.external_etcd else ())
        error = f": {facts.objects_error}" if facts.objects_error else ""
        lost = f"no API server can be asked for the cluster's objects{error}"
        silent = {host.name for host in hosts if not host.answers}
        broken = (
            f"{part.name} on {detail}"
            for part in parts
            if part.name != CONTROL_PLANE_PARTS["kube-apiserver"]  # each has been asked, and has its own line
            for detail in _of_others(part.detail, silent)
        )
        cluster = ClusterStatus("", "", (), parts, (lost, *broken))
    problems = (
        *host_problems(hosts),
        *api_problems(servers, endpoint),
        *(etcd.problems if etcd is not None else ()),
        *(f"{LEADERS[one.name]}: {one.problem}" for one in leaders if one.problem),
        *proxy_problems(proxies),
        *cluster.problems,
        *(cert_problems(certs) if certs is not None else ()),
    )
    return StatusReport(
        facts.now, cluster, facts.objects is not None, servers, endpoint, etcd, leaders, proxies, certs, hosts,
        problems,
    )  # fmt: skip


def _with_container(one: ApiStatus, host: HostStatus | None) -> ApiStatus:
    """An API server that does not answer, with what its host's container runtime says of it."""
    words = container_words(host, "kube-apiserver") if host is not None and not one.answers else ""
    return replace(one, detail=f"{one.detail}; {words}") if words else one


def _of_others(detail: str, silent: Collection[str]) -> list[str]:
    """What a part says of hosts other than those that say nothing at all, which is a problem of its own."""
    return [one for one in detail.split("; ") if one and one.partition(":")[0] not in silent]


def _member(one: MemberStatus) -> dict[str, Any]:
    row = _plain(one)
    row["databaseBytes"] = row.pop("database")
    row["databaseInUseBytes"] = row.pop("databaseInUse")
    return row


def _plain(one: Any, *, without: str = "") -> dict[str, Any]:
    """A status as plain data, its fields in camel case."""
    return {_camel(key): _data(item) for key, item in asdict(one).items() if key != without}


def _data(value: Any) -> Any:
    if isinstance(value, dict):
        return {_camel(key): _data(item) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return [_data(item) for item in value]
    return value


def _camel(key: str) -> str:
    first, *rest = key.split("_")
    return first + "".join(word.capitalize() for word in rest)


def _time(when: datetime) -> str:
    return when.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
