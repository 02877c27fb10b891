"""Diagnoses of packets that nodes send: to Pods elsewhere, to Services, to cluster DNS (P04, P11, P39, P42)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import groupby

from kubewright.model.doctor.facts import DoctorFacts
from kubewright.model.doctor.finding import Finding, Severity
from kubewright.model.doctor.plan import PodTarget, large
from kubewright.model.doctor.probes import SMALL, Probed
from kubewright.model.objects import SYSTEM
from kubewright.model.port_probe import Reach

_ENOUGH = 2
"""Of so many nodes that all fail with one, that one is to blame, and not each pair."""
_SHOWN = 4
_NO_SUCH_NAME = 3
"""DNS' code: somebody has answered, and we may have asked for the wrong domain."""
_WAYS = {
    "flannel": "UDP 8472 (VXLAN), or UDP 8285",
    "calico": "IP-in-IP (protocol 4) or UDP 4789, and TCP 179",
    "canal": "UDP 8472 (VXLAN)",
    "cilium": "UDP 8472 (VXLAN)",
    "kubewright-network": "the Pods' own addresses, which are routed",
}


@dataclass(frozen=True, slots=True)
class _Pair:
    """A node, and the Pod of another that it has asked."""

    source: str
    target: PodTarget
    bad: bool
    seen: str = ""

    @property
    def line(self) -> str:
        return f"from {self.source} to {self.target.name} on {self.target.node}: {self.seen}"


def _asked(facts: DoctorFacts) -> dict[str, tuple[str, Probed]]:
    """By node, the name of its host, and what became of its questions."""
    return {facts.node_name(one): (one.name, one.probed) for one in facts.nodes if one.probed is not None}


def _alive(target: PodTarget, asked: Mapping[str, tuple[str, Probed]], *, whole: bool) -> bool:
    """Whether the Pod itself is known to answer: to anybody, or, where one node alone is asked, to its kubelet."""
    if any(probed.reaches(target.address, target.port) for _, probed in asked.values()):
        return True
    return not whole and target.proven


def _pairs(facts: DoctorFacts) -> list[_Pair]:
    """The pairs that can be judged. Where `ping` comes through, packets do, and somebody keeps off the port."""
    asked = _asked(facts)
    silent = {one.name for one in facts.nodes if not one.answers}
    found = []
    for source, (_, probed) in asked.items():
        for target in facts.plan.others(source):
            answer = probed.tcp.get((target.address, target.port))
            if answer is None or target.node in silent or not _alive(target, asked, whole=facts.whole):
                continue
            ping = probed.pings.get((target.address, SMALL), "")
            bad = answer.reach is not Reach.OPEN and ping in ("", "silent")
            also = ", nor to ping" if ping else ""
            found.append(
                _Pair(
                    source, target, bad, f"{target.address} port {target.port}: {answer}{also}" if bad else ""
                )
            )
    return found


def _large_pairs(facts: DoctorFacts) -> list[_Pair]:
    """The pairs between which small packets pass. A large one that is answered with a smaller MTU is no loss."""
    mtus = facts.mtus()
    found = []
    for source, (_, probed) in _asked(facts).items():
        for target in facts.plan.others(source):
            size = large(target.address, mtus.get(source, 0), mtus.get(target.node, 0))
            said = probed.pings.get((target.address, size))
            if size and said and probed.pings.get((target.address, SMALL)) == "open":
                whole = min(mtus[source], mtus[target.node])
                found.append(
                    _Pair(
                        source,
                        target,
                        said == "silent",
                        f"{target.address} answers a ping of {SMALL} bytes, and none in a packet of {whole}",
                    )
                )
    return found


def _guilty(pairs: list[_Pair], end: Callable[[_Pair], str]) -> set[str]:
    """The nodes with which all others fail."""
    ordered = sorted(pairs, key=end)
    groups = {name: [one.bad for one in group] for name, group in groupby(ordered, end)}
    return {name for name, bad in groups.items() if len(bad) >= _ENOUGH and all(bad)}


def _source(one: _Pair) -> str:
    return one.source


def _target(one: _Pair) -> str:
    return one.target.node


def _told(
    facts: DoctorFacts, pairs: list[_Pair], what: Callable[[str, tuple[str, ...]], Finding]
) -> Iterator[Finding]:
    """A finding for each node that is to blame, and one for each node with pairs that are left.

    `what` is given the sentence's end. A node that nobody reaches is named alone, and not each pair.
    """
    deaf, mute = _guilty(pairs, _target), _guilty(pairs, _source)
    hosts = {facts.node_name(one): one.name for one in facts.nodes}
    for name in sorted(deaf | mute):
        bad = [one for one in pairs if one.bad and (one.source == name or one.target.node == name)]
        if name in deaf:
            end = "to this node's Pods and from it" if name in mute else "to this node's Pods"
        else:
            end = "from this node to Pods on others"
        yield _with(what(end, (hosts.get(name, name),)), bad)
    left = [one for one in pairs if one.bad and one.source not in mute and one.target.node not in deaf]
    for name, group in groupby(sorted(left, key=_source), _source):
        bad = list(group)
        ends = sorted({one.target.node for one in bad})
        found = what(f"from {name} to Pods on {', '.join(ends)}", (hosts.get(name, name),))
        yield replace(_with(found, bad), about=tuple(hosts.get(end, end) for end in ends))


def _with(found: Finding, bad: list[_Pair]) -> Finding:
    lines = [one.line for one in bad[:_SHOWN]]
    more = (f"and {len(bad) - _SHOWN} more pairs",) if len(bad) > _SHOWN else ()
    return replace(found, evidence=(*lines, *more))


def _networks(facts: DoctorFacts) -> str:
    objects = facts.asked.objects
    names = [str(item["metadata"]["name"]) for item in (objects.daemon_sets if objects else ())]
    ways = [way for network, way in _WAYS.items() if any(network in name for name in names)]
    return ways[0] if ways else "VXLAN on UDP 8472 or 4789, IP-in-IP, or the Pods' own addresses"


def dropped(facts: DoctorFacts) -> Iterator[Finding]:
    """Packets to Pods on another node that are lost (P39, P42)."""

    def what(end: str, hosts: tuple[str, ...]) -> Finding:
        return Finding(
            "packets-dropped",
            Severity.ERROR,
            f"the pod network loses packets {end}",
            hosts=hosts,
            pitfall="P39",
            breaks="Pods on different nodes do not reach each other; Services and DNS fail now and then",
            mend=(
                f"let pass between the nodes, in both directions: {_networks(facts)}",
                "iptables -L FORWARD -n -v on both, and the firewall or security group between them",
                "tcpdump on both nodes shows where the packets end: kubewright doctor --explain P39",
            ),
        )

    yield from _told(facts, _pairs(facts), what)


def mtu(facts: DoctorFacts) -> Iterator[Finding]:
    """Large packets that are lost where small ones pass, and nobody says so to the sender (P39)."""

    def what(end: str, hosts: tuple[str, ...]) -> Finding:
        return Finding(
            "packets-too-large",
            Severity.ERROR,
            f"the pod network loses large packets {end}",
            hosts=hosts,
            pitfall="P39",
            breaks="a ping works, and downloads and TLS handshakes between these nodes hang",
            mend=(
                "ip -brief link on both: the pod network's MTU must be the link's, less 50 bytes for VXLAN",
                "does a switch, tunnel or cloud network between them have a smaller MTU than the hosts' links?",
            ),
        )

    yield from _told(facts, _large_pairs(facts), what)


def service_silent(facts: DoctorFacts) -> Iterator[Finding]:
    """The address of a Service that does not answer on a node, although all behind it do (P11)."""
    asked = _asked(facts)
    proxied = facts.asked.objects is not None and any(
        item["metadata"]["name"] == "kube-proxy" for item in facts.asked.objects.daemon_sets
    )
    for node, (host, probed) in asked.items():
        bad = []
        for one in facts.plan.services:
            # What stands in for kube-proxy need not serve the hosts themselves, but then it serves none of them.
            if not proxied and not any(other.reaches(one.address, one.port) for _, other in asked.values()):
                continue
            if probed.reaches(one.address, one.port) is not False:
                continue
            up = sum(probed.reaches(*endpoint) is True for endpoint in one.endpoints)
            # Each time kube-proxy may choose another of those behind it: of most of them it has met one by now.
            if 2 * up > len(one.endpoints):
                count = "all" if up == len(one.endpoints) else f"{up} of {len(one.endpoints)}"
                bad.append(
                    f"Service {one.name} from {node}, {one.address} port {one.port}: "
                    f"{probed.tcp[one.address, one.port]}; {count} behind it answer"
                )
        if bad:
            yield Finding(
                "service-silent",
                Severity.ERROR,
                "addresses of Services do not answer on this node",
                hosts=(host,),
                pitfall="P11",
                evidence=tuple(bad),
                breaks="Pods here reach neither the API nor other Services, or cannot resolve names",
                mend=(
                    "iptables-save -t nat | grep -c KUBE-SVC; with IPVS: ipvsadm -Ln",
                    f"kubectl -n {SYSTEM} get pods -o wide -l k8s-app=kube-proxy, and the log of the one here",
                ),
            )


def dns_silent(facts: DoctorFacts) -> Iterator[Finding]:
    """Cluster DNS that gives a node no answer (P04)."""
    for node, (host, probed) in _asked(facts).items():
        if not probed.dns or any(_resolved(one) for one in probed.dns):
            continue
        said = " and ".join(dict.fromkeys(_dns_words(one) for one in probed.dns))
        yield Finding(
            "dns-silent",
            Severity.ERROR,
            "cluster DNS resolves no name for this node",
            hosts=(host,),
            pitfall="P04",
            evidence=(f"{facts.plan.name} asked from {node}, of {facts.plan.dns} over UDP: {said}",),
            breaks="Pods here resolve no name of a Service or of the world",
            mend=(
                f"kubectl -n {SYSTEM} get pods -l k8s-app=kube-dns -o wide, and ask each by its own address",
                "UDP port 53 between this node and theirs",
            ),
        )


def _resolved(said: str) -> bool:
    kind, _, code = said.partition(" ")
    return kind == "answer" and code in ("0", str(_NO_SUCH_NAME))


def _dns_words(said: str) -> str:
    kind, _, rest = said.partition(" ")
    codes = {"2": "SERVFAIL", "5": "REFUSED"}
    if kind == "answer":
        return f"the answer is {codes.get(rest, f'code {rest}')}"
    return {"silent": "no answer in 2 s", "refused": "nobody listens there"}.get(kind, rest or kind)


DIAGNOSES = (dropped, mtu, service_silent, dns_silent)
