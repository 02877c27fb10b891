"""The result of a check as text: what works from where, and which pairs of nodes do not reach each other."""

from __future__ import annotations

from collections.abc import Iterable

from kubewright.cli.table import bad, faint, good, table
from kubewright.workflows.check_plan import Place, Report, Result, Source, Topic

_COLUMNS = {
    Topic.PODS: "PODS",
    Topic.SERVICE: "SERVICE",
    Topic.NODE_PORT: "NODEPORT",
    Topic.DNS: "DNS",
    Topic.API: "API",
}


def report_lines(report: Report) -> list[str]:
    """What `kubewright check` prints: a row for each place, and the pairs of nodes where some fail."""
    by_cell: dict[tuple[Source, Topic], list[Result]] = {}
    for result in report.results:
        by_cell.setdefault((result.check.source, result.check.topic), []).append(result)
    sources = dict.fromkeys(source for source, _ in by_cell)
    rows = []
    for node in report.nodes:
        for place in (Place.POD, Place.NODE):
            source = Source(place, node)
            if source in sources:
                cells = [_cell(by_cell.get((source, topic), ())) for topic in Topic]
                rows.append((node if place is Place.POD else "", f"from a {place}", *cells))
        if node in report.absent:
            rows.append((node, bad("took no part"), *("" for _ in Topic)))
    if (here := Source(Place.COMPUTER)) in sources:
        cells = [_cell(by_cell.get((here, topic), ())) for topic in Topic]
        rows.append(("this computer", "", *cells))
    lines = table(("NODE", "", *(_COLUMNS[topic] for topic in Topic)), rows)
    for place in (Place.POD, Place.NODE):
        lines += _pairs(report, place)
    lines += [f"Left out: {line}" for line in report.skipped]
    if report.ok:
        slowest = max(report.results, key=lambda result: result.seconds)
        lines += ["", good(f"All {len(report.results)} checks passed.")]
        lines[-1] += faint(f" The slowest took {slowest.seconds * 1000:.0f} ms: {_name(slowest)}.")
    return lines


def _cell(results: Iterable[Result]) -> str:
    results = list(results)
    if not results:
        return faint("-")
    passed = sum(1 for result in results if result.ok)
    text = f"{passed}/{len(results)}"
    return good(text) if passed == len(results) else bad(text)


def _pairs(report: Report, place: Place) -> list[str]:
    """Who reaches whose pods, node by node; nothing where all do."""
    mine = [
        result
        for result in report.results
        if result.check.topic is Topic.PODS and result.check.source.place is place
    ]
    if all(result.ok for result in mine):
        return []
    nodes = list(dict.fromkeys(result.check.target for result in mine))
    reached = {(result.check.source.node, result.check.target): result.ok for result in mine}
    rows = [
        (source, *((good("ok") if reached[source, target] else bad("FAIL")) for target in nodes))
        for source in nodes
        if (source, nodes[0]) in reached
    ]
    return ["", *table((f"{str(place).upper()} ON, TO POD ON", *nodes), rows)]


def _name(result: Result) -> str:
    return f"{result.check.topic} {result.check.target} from {result.check.source}"
