"""A cluster's status as text."""

from __future__ import annotations

from kubewright.cli.table import bad, good, table
from kubewright.model.status import ClusterStatus, NodeStatus, PartStatus


def status_lines(status: ClusterStatus) -> list[str]:
    """What `kubewright status` prints."""
    lines = [f"Kubernetes {status.version} at {status.server}", ""]
    lines += node_table(status.nodes) if status.nodes else ["no nodes"]
    if status.parts:
        lines += ["", *table(("PART", "READY", "DETAIL"), [_part(part) for part in status.parts])]
    lines.append("")
    if status.healthy:
        lines.append(good("Nothing is wrong as far as the API knows; `kubewright check` tries it out."))
    else:
        lines.append(bad(f"{len(status.problems)} problem{'s' if len(status.problems) != 1 else ''}:"))
        lines += [f"  {problem}" for problem in status.problems]
    return lines


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


def _part(part: PartStatus) -> tuple[str, str, str]:
    count = f"{part.ready}/{part.wanted}"
    return part.name, good(count) if part.healthy else bad(count), part.detail
