"""Whether an etcd outside the control planes will do: judged from what its members answered each control plane."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from kubewright.errors import ConfigError, ExitCode
from kubewright.model.manifests import API_SERVER, ETCD, manifest_path
from kubewright.model.preflight import Finding
from kubewright.model.reset import container_flags
from kubewright.model.version import Version

OLDEST = Version(3, 4, 0)
"""Older ones have no gateway by which their members could be asked."""

_SWITCH = (
    "apply does not move data: `kubewright convert --to-external-etcd` does, from control planes to hosts with "
    "the role etcd; for any other etcd, take a snapshot and restore it there"
)


@dataclass(frozen=True, slots=True)
class EndpointAnswer:
    """What one endpoint answered one control plane."""

    host: str
    endpoint: str
    trouble: str = ""
    """Why it does not serve; empty where it does."""
    untrusted: bool = False
    """Whether it is somebody else: TLS could not be verified, or it is no etcd that we know."""
    version: str = ""
    members: frozenset[int] = frozenset()
    """The ids of all members of its cluster."""
    voters: int = 0


def findings(answers: Sequence[EndpointAnswer], count: int) -> list[Finding]:
    """Why this etcd will not do. `count` is the number of its endpoints, of which each control plane must reach
    more than half; what is not to be trusted will not do at all."""
    found = [
        Finding(
            one.host, f"etcd at {one.endpoint}: {one.trouble}",
            "the CA must have signed the member's certificate, which must name this address, and the client's",
        )
        for one in answers
        if one.untrusted
    ]  # fmt: skip
    for host in dict.fromkeys(one.host for one in answers):
        mine = [one for one in answers if one.host == host]
        ill = [one for one in mine if one.trouble and not one.untrusted]
        if count - len(ill) < count // 2 + 1:
            said = "; ".join(f"{one.endpoint}: {one.trouble}" for one in ill)
            found.append(
                Finding(
                    host, f"{len(ill)} of etcd's {count} endpoints do not serve it: {said}",
                    "is etcd up there, and may this host reach it?",
                )
            )  # fmt: skip
    return found + _of_other_clusters(answers) + _too_old(answers)


def _of_other_clusters(answers: Sequence[EndpointAnswer]) -> list[Finding]:
    serving = [one for one in answers if one.members]
    return [
        Finding(
            one.host, f"{one.endpoint} and {serving[0].endpoint} are members of different etcd clusters",
            "name the endpoints of one of them",
        )
        for one in serving[1:]
        if not one.members & serving[0].members
    ][:1]  # fmt: skip


def _too_old(answers: Sequence[EndpointAnswer]) -> list[Finding]:
    found = {}
    for one in answers:
        try:
            old = bool(one.version) and Version.parse(one.version, field="etcd") < OLDEST
        except ConfigError:
            continue
        if old:
            found[one.endpoint] = Finding(
                one.host, f"etcd at {one.endpoint} is {one.version}; {OLDEST} is the oldest", "upgrade it"
            )
    return list(found.values())


def warnings(answers: Sequence[EndpointAnswer]) -> list[str]:
    """What is worth saying of an etcd that will do: the endpoints that do not serve, each once."""
    ill: dict[str, tuple[str, list[str]]] = {}
    for one in answers:
        if one.trouble:
            ill.setdefault(one.endpoint, (one.trouble, []))[1].append(one.host)
    return [
        f"etcd at {endpoint} does not serve {', '.join(hosts)}: {trouble}"
        for endpoint, (trouble, hosts) in ill.items()
    ]


def used_endpoints(api_server: Mapping[str, Any] | None) -> list[str]:
    """The endpoints of etcd that an API server's static Pod names."""
    flags = container_flags(api_server) if api_server else {}
    return [url for url in flags.get("etcd-servers", "").split(",") if url]


def kept_endpoints(wanted: Sequence[tuple[str, bool]], used: Sequence[str]) -> list[str]:
    """The endpoints that API servers are to have, where not all hosts of etcd can be asked for theirs.

    `wanted` are the hosts' in the file's order, each with whether it is sure; empty where not even a guess is
    known. `used` are those that an API server has: what is no other host's there is taken for those that are not
    sure, in this order. Otherwise each host that is away for a while would restart all API servers, twice.
    """
    known = {url for url, _ in wanted}
    spare = [url for url in dict.fromkeys(used) if url not in known]
    found = [spare.pop(0) if not sure and url not in used and spare else url for url, sure in wanted]
    return [url for url in found if url]


def leftovers(host: str, has_etcd_pod: bool) -> list[Finding]:
    """A local etcd on a control plane whose etcd is elsewhere (P02)."""
    if not has_etcd_pod:
        return []
    return [
        Finding(
            host, f"{manifest_path(ETCD)} runs an etcd of its own here, and cluster.yaml has etcd elsewhere",
            f"is it a leftover? remove it, or reset the host; {_SWITCH}", ExitCode.HOST_IN_OTHER_CLUSTER,
        )
    ]  # fmt: skip


def switched(host: str, used: Sequence[str], wanted: Iterable[str], *, founded: bool = True) -> list[Finding]:
    """An API server whose etcd is not the one of cluster.yaml: with another one its cluster would be empty.

    `used` are the endpoints that it has, none where there is no API server yet; `founded` says whether the etcd of
    cluster.yaml exists already.
    """
    if not used or (founded and {*used} & {*wanted}):
        return []
    return [
        Finding(
            host, f"{manifest_path(API_SERVER)} uses etcd at {', '.join(used)}, and cluster.yaml has another one",
            f"name that one, or replace fewer than half of its members at a time; {_SWITCH}",
            ExitCode.HOST_IN_OTHER_CLUSTER,
        )
    ]  # fmt: skip
