"""A cluster's status as text."""

from __future__ import annotations

from collections.abc import Sequence

from kubewright.cli.table import bad, faint, good, table
from kubewright.model.status import NodeStatus, PartStatus
from kubewright.model.status_api import LEADERS, ApiStatus
from kubewright.model.status_etcd import EtcdStatus, MemberStatus
from kubewright.model.status_proxies import BackendStatus, ProxyStatus, state_text
from kubewright.model.status_report import StatusReport


def status_lines(status: StatusReport) -> list[str]:
    """What `kubewright status` prints."""
    return joined([[header(status)], *sections(status), verdict(status)])


def header(status: StatusReport) -> str:
    """Which cluster it is, in one line."""
    if not status.has_objects:
        return bad("No API server can be asked; this is what the hosts say over SSH.")
    return f"Kubernetes {status.cluster.version} at {status.cluster.server}"


def sections(status: StatusReport) -> list[list[str]]:
    """Blocks of lines, one a subject; those that there is nothing to say about are left out."""
    nodes = node_table(status.cluster.nodes) if status.cluster.nodes else ["no nodes"] * status.has_objects
    leaders = {LEADERS[one.name]: one.holder for one in status.leaders if one.holder}
    parts = [_part(part, leaders.get(part.name, "")) for part in status.cluster.parts]
    blocks = [
        nodes,
        table(("PART", "READY", "DETAIL"), parts) if parts else [],
        api_table(status.servers, status.endpoint),
        etcd_table(status.etcd) if status.etcd is not None else [],
        proxy_table(status.proxies),
        _certificates(status),
    ]
    return [block for block in blocks if block]


def verdict(status: StatusReport) -> list[str]:
    """The problems, or that there are none."""
    if status.healthy:
        return [good("Nothing is wrong as far as the API knows; `kubewright check` tries it out.")]
    count = len(status.problems)
    return [
        bad(f"{count} problem{'s' if count != 1 else ''}:"),
        *(f"  {problem}" for problem in status.problems),
    ]


def node_table(nodes: tuple[NodeStatus, ...]) -> list[str]:
    """One row a node."""
    rows = [
        (
            node.name,
            (good("Ready") if node.ready else bad("NotReady")) + ("" if node.schedulable else ", cordoned"),
            ",".join(node.roles) or "worker",
            node.version,
            node.address,
            node.pod_cidr,
            " ".join(node.taints),
        )
        for node in nodes
    ]
    return table(("NODE", "STATUS", "ROLES", "VERSION", "ADDRESS", "POD CIDR", "TAINTS"), rows)


def api_table(servers: Sequence[ApiStatus], endpoint: Sequence[ApiStatus]) -> list[str]:
    """One row an API server, and one for each way in which hosts see the endpoint."""
    if not servers and not any(not one.ready for one in endpoint):
        return []
    rows = [(one.name, _api_state(one), _time([one]), one.url, one.detail) for one in servers]
    groups: dict[tuple[str, bool, str], list[ApiStatus]] = {}
    for one in endpoint:
        groups.setdefault((one.url, one.ready, one.detail), []).append(one)
    for (url, _, detail), members in groups.items():
        seen_from = f"from {', '.join(one.name for one in members)}"
        said = f"{seen_from}: {detail}" if detail else seen_from
        rows.append(("endpoint", _api_state(members[0]), _time(members), url, said))
    return table(("API", "STATUS", "TIME", "ADDRESS", "DETAIL"), rows)


def _api_state(one: ApiStatus) -> str:
    if not one.answers:
        return bad("no answer")
    return good("ready") if one.ready else bad("not ready")


def _time(answers: Sequence[ApiStatus]) -> str:
    """The longest time that an answer took."""
    known = [one.milliseconds for one in answers if one.milliseconds is not None]
    return f"{max(known):.0f} ms" if known else ""


def etcd_table(etcd: EtcdStatus) -> list[str]:
    """One row a member, and whether one more may fail."""
    rows = [
        (
            one.name,
            _role(one),
            one.version,
            f"{size(one.database)}, {size(one.database_in_use)} used" if one.answers else "",
            "" if one.lag is None else str(one.lag),
            bad(" ".join(one.alarms)) if one.alarms else "",
            "; ".join(_shortened(one.problems)),
        )
        for one in etcd.members
    ]
    lines = table(("ETCD", "ROLE", "VERSION", "DATABASE", "LAG", "ALARMS", "DETAIL"), rows)
    outside = "external; " if etcd.external else ""
    more = "no more may fail" if not etcd.may_fail else f"{etcd.may_fail} more may fail"
    if not etcd.voters:
        return [*lines, bad(f"{outside}nobody says who the members are")]
    if etcd.answering < etcd.quorum:
        more = bad(f"{etcd.quorum} are needed: nothing can be written")
    return [*lines, faint(f"{outside}{etcd.answering} of {etcd.voters} voters answer; ") + more]


def _shortened(problems: Sequence[str]) -> list[str]:
    """The problems of a member without what its row says in another column."""
    return [
        problem.replace("does not answer: ", "") for problem in problems if not problem.startswith("alarm ")
    ]


def _role(one: MemberStatus) -> str:
    if not one.answers:
        return bad("no answer")
    return good("leader") if one.leader else "learner" if one.learner else "follower"


def proxy_table(proxies: Sequence[ProxyStatus]) -> list[str]:
    """One row a backend of each load balancer; one for a load balancer that says nothing of any."""
    rows = []
    for proxy in proxies:
        state = good("runs") if proxy.runs else bad("does not run")
        for index, backend in enumerate(proxy.backends):
            own = (proxy.host, proxy.kind, state) if index == 0 else ("", "", "")
            rows.append((*own, *_backend(backend)))
        if not proxy.backends:
            where = {True: "has the virtual IP", False: "", None: ""}[proxy.has_address]
            rows.append((proxy.host, proxy.kind, state, "", "", "", proxy.problem or where))
    header = ("LOAD BALANCER", "KIND", "STATUS", "BACKEND", "STATE", "SESSIONS", "DETAIL")
    return table(header, rows) if rows else []


def _backend(one: BackendStatus) -> tuple[str, str, str, str]:
    state = state_text(one)
    return (
        f"{one.name} {one.address}".strip(), good(state) if one.up else bad(state), str(one.sessions),
        "" if one.up else one.detail,
    )  # fmt: skip


def _certificates(status: StatusReport) -> list[str]:
    """What ends soon; that nothing does, where certificates were read."""
    certs = status.certs
    if certs is None or certs.first_end is None:
        return []
    if not certs.ending:
        return [faint(f"{certs.read} certificates read; the first ends on {certs.first_end:%Y-%m-%d}.")]
    rows = [
        (one.name, ", ".join(one.hosts), f"{one.ends:%Y-%m-%d %H:%M} UTC", bad(one.text))
        for one in certs.ending
    ]
    return table(("CERTIFICATE", "ON", "ENDS", "DETAIL"), rows)


def _part(part: PartStatus, leader: str) -> tuple[str, str, str]:
    count = f"{part.ready}/{part.wanted}"
    detail = "; ".join(word for word in (part.detail, f"leader: {leader}" if leader else "") if word)
    return part.name, good(count) if part.healthy else bad(count), detail


def size(count: int) -> str:
    """Bytes in a unit that fits: `812 kB`, `3.1 MB`."""
    if count < 1_000_000:
        return f"{count / 1000:.0f} kB"
    return f"{count / 1e6:.1f} MB" if count < 1_000_000_000 else f"{count / 1e9:.1f} GB"


def joined(blocks: Sequence[Sequence[str]]) -> list[str]:
    """The blocks' lines, with an empty line between two blocks."""
    lines: list[str] = []
    for block in blocks:
        lines += ["", *block] if lines else block
    return lines
