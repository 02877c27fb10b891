"""From failed checks to what they have in common, in plain words."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence

from kubewright.workflows.check_plan import Place, Report, Result, Source, Topic

_TRIES = re.compile(r" \(\d+ tries\)$")
CANNOT_RUN = "the probe could not be run: "
"""How the detail of each check begins whose pod could not run the probe program at all."""


def diagnose(report: Report) -> list[str]:
    """One line for each pattern among the failures; the most basic ones first. Empty where all is well."""
    lines = [f"node {node} took no part: {why}" for node, why in report.absent.items()]
    lines += _not_run(report.results)
    tried = [result for result in report.results if not result.detail.startswith(CANNOT_RUN)]
    by_topic = {topic: [result for result in tried if result.check.topic is topic] for topic in Topic}
    between = [*_pods(by_topic[Topic.PODS]), *_node_to_pods(by_topic[Topic.PODS])]
    if between:
        return lines + between + _follows(by_topic)
    service = by_topic[Topic.SERVICE]
    lines += [*_service(service), *_node_port(by_topic[Topic.NODE_PORT])]
    # DNS and the API are behind service addresses: where none of those works, nothing is learnt from them.
    deaf = {
        source for source in _sources(service) if not any(r.ok for r in service if r.check.source == source)
    }
    lines += _dns([result for result in by_topic[Topic.DNS] if result.check.source not in deaf])
    lines += _api([result for result in by_topic[Topic.API] if result.check.source not in deaf])
    return lines


def _follows(by_topic: Mapping[Topic, Sequence[Result]]) -> list[str]:
    """Where pods do not reach each other, one line for all that builds on it."""
    names = {Topic.SERVICE: "service", Topic.NODE_PORT: "NodePort", Topic.DNS: "DNS", Topic.API: "API"}
    counts = [
        f"{bad} of {len(by_topic[topic])} {name} checks"
        for topic, name in names.items()
        if (bad := sum(1 for result in by_topic[topic] if not result.ok))
    ]
    return [f"this may be why {', '.join(counts)} failed, too"] if counts else []


def _not_run(results: Iterable[Result]) -> list[str]:
    why = {
        str(result.check.source): result.detail.removeprefix(CANNOT_RUN)
        for result in results
        if not result.ok and result.detail.startswith(CANNOT_RUN)
    }
    return [f"{source}: no command can be run there: {detail}" for source, detail in why.items()]


def _pods(results: Sequence[Result]) -> Iterator[str]:
    """Which nodes' pods cannot reach which."""
    mine = [result for result in results if result.check.source.place is Place.POD]
    failed = {_pair(result): result.detail for result in mine if not result.ok}
    across = {pair for pair in map(_pair, mine) if pair[0] != pair[1]}
    for node in dict.fromkeys(target for source, target in failed if source == target):
        yield f"pods on {node} do not reach the pod on their own node{_why([failed[node, node]])}"
    bad = [pair for pair in failed if pair in across]
    if len(across) > 2 and len(bad) == len(across):
        yield (
            "no pod reaches a pod on another node: are the routes between the nodes there, "
            f"and does nothing filter them{_why(failed[pair] for pair in bad)}"
        )
        return
    explained: set[tuple[str, str]] = set()
    deaf = [node for node in _names(across, 1) if _all(across, failed, 1, node)] if len(across) > 2 else []
    mute = [node for node in _names(across, 0) if _all(across, failed, 0, node)] if len(across) > 2 else []
    for node in deaf:
        pairs = [pair for pair in bad if pair[1] == node or (node in mute and pair[0] == node)]
        explained.update(pairs)
        both = ", and reach no other node" if node in mute else ""
        yield f"pods on {node} cannot be reached from any other node{both}{_why(failed[p] for p in pairs)}"
    for node in mute:
        if node not in deaf:
            pairs = [pair for pair in bad if pair[0] == node]
            explained.update(pairs)
            yield f"pods on {node} reach no pod on another node{_why(failed[p] for p in pairs)}"
    for source, target in bad:
        if (source, target) not in explained:
            back = "" if (target, source) in failed else "; the other way round works"
            yield f"pods on {source} cannot reach the pod on {target}{back}{_why([failed[source, target]])}"


def _node_to_pods(results: Sequence[Result]) -> Iterator[str]:
    """From the nodes themselves: only what the pods' own failures do not say already."""
    pods_failed = {_pair(r) for r in results if not r.ok and r.check.source.place is Place.POD}
    for result in results:
        if result.check.source.place is Place.NODE and not result.ok and _pair(result) not in pods_failed:
            source, target = _pair(result)
            yield f"node {source} cannot reach the pod on {target}, pods there can{_why([result.detail])}"


def _service(results: Sequence[Result]) -> Iterator[str]:
    failed = [result for result in results if not result.ok]
    if not failed:
        return
    good = {result.check.source for result in results if result.ok}
    dead = _sources(result for result in failed if result.check.source not in good)
    address = failed[0].check.target
    details = [result.detail for result in failed]
    if dead and not good:
        yield f"the service address {address} answers nobody: look at kube-proxy on each node{_why(details)}"
        return
    for node in dict.fromkeys(source.node for source in dead):
        places = [source.place for source in dead if source.node == node]
        who = f"pods and processes on {node}" if len(places) > 1 else f"{_plural(places[0])} on {node}"
        yield f"{who} get no answer from service addresses: look at kube-proxy there{_why(details)}"
    for source in _sources(result for result in failed if result.check.source in good):
        bad = sum(1 for result in failed if result.check.source == source)
        total = sum(1 for result in results if result.check.source == source)
        yield f"{source}: {bad} of {total} requests to the service address failed{_why(details)}"


def _node_port(results: Sequence[Result]) -> Iterator[str]:
    failed = [result for result in results if not result.ok]
    for node in dict.fromkeys(result.check.target for result in failed):
        asked = [result for result in results if result.check.target == node]
        bad = [result for result in asked if not result.ok]
        why = _why(result.detail for result in bad)
        if len(bad) == len(asked):
            yield f"the NodePort on {node} answers nobody: look at kube-proxy there{why}"
        else:
            who = ", ".join(str(result.check.source) for result in bad)
            yield f"the NodePort on {node} does not answer {who}{why}"


def _dns(results: Sequence[Result]) -> Iterator[str]:
    failed = [result for result in results if not result.ok]
    if not failed:
        return
    if len(failed) == len(results):
        yield f"cluster DNS answers nobody: are its pods running{_why(result.detail for result in failed)}"
        return
    for source in _sources(failed):
        mine = [result for result in results if result.check.source == source]
        if not any(result.ok for result in mine):
            yield f"pods on {source.node} get no answer from cluster DNS{_why(r.detail for r in mine)}"
            failed = [result for result in failed if result.check.source != source]
    for name in dict.fromkeys(result.check.target for result in failed):
        bad = [result for result in failed if result.check.target == name]
        where = ", ".join(result.check.source.node for result in bad)
        yield f"DNS: {name} is not answered as it should be, asked from {where}{_why(r.detail for r in bad)}"


def _api(results: Sequence[Result]) -> Iterator[str]:
    failed = [result for result in results if not result.ok]
    if not failed:
        return
    where = "any node" if len(failed) == len(results) else ", ".join(r.check.source.node for r in failed)
    yield f"pods on {where} cannot use the API by its service address{_why(r.detail for r in failed)}"


def _pair(result: Result) -> tuple[str, str]:
    return result.check.source.node, result.check.target


def _names(pairs: Iterable[tuple[str, str]], side: int) -> list[str]:
    return sorted({pair[side] for pair in pairs})


def _all(across: Iterable[tuple[str, str]], failed: Iterable[tuple[str, str]], side: int, node: str) -> bool:
    mine = {pair for pair in across if pair[side] == node}
    return bool(mine) and mine <= set(failed)


def _sources(results: Iterable[Result]) -> list[Source]:
    return list(dict.fromkeys(result.check.source for result in results))


def _plural(place: Place) -> str:
    return "pods" if place is Place.POD else "processes"


def _why(details: Iterable[str]) -> str:
    """The first detail, and the first of another kind, in brackets; how often it was tried is noise here."""
    by_kind: dict[str, str] = {}
    for detail in details:
        if text := _TRIES.sub("", detail):
            by_kind.setdefault(text.rpartition(": ")[2], text)
    return f" ({'; '.join(list(by_kind.values())[:2])})" if by_kind else ""
