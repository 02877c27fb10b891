"""The cluster.yaml of a lab."""

from __future__ import annotations

from typing import Any

import yaml

from kubewright.lab.places import Places
from kubewright.lab.plan import LabPlan, is_machine_name
from kubewright.model.config.cluster import API_VERSION, Role

HEADER = """\
# Written by `kubewright lab up`, which keeps `name`, `ssh`, and the names, addresses and roles of `hosts` up to
# date and leaves every other field as it finds it.
"""


def cluster_name(lab: str) -> str:
    """The name of a lab's cluster, and so of its context in a kubeconfig."""
    return f"kubewright-{lab}"


def cluster_document(plan: LabPlan, places: Places, existing: dict[str, Any] | None = None) -> dict[str, Any]:
    """The cluster as cluster.yaml describes it; what a user added to `existing` stays."""
    before = existing or {}
    rows = before.get("hosts")
    known = {row.get("name"): row for row in rows if isinstance(row, dict)} if isinstance(rows, list) else {}
    hosts = [
        {
            **known.get(machine.name, {}),
            "name": machine.name,
            "address": str(machine.address),
            "roles": [str(Role.CONTROL_PLANE if machine.control_plane else Role.WORKER)],
        }
        for machine in plan.machines
    ]
    # A host that is none of ours was added by the user, and stays.
    hosts += [row for name, row in known.items() if not is_machine_name(str(name))]
    document: dict[str, Any] = {
        "apiVersion": API_VERSION,
        "kind": "Cluster",
        "name": cluster_name(plan.name),
        "ssh": {"user": "root", "keyFiles": [str(places.key)], "knownHosts": str(places.known_hosts)},
        "hosts": hosts,
    }
    rest = {key: value for key, value in before.items() if key not in document}
    if not before and sum(machine.control_plane for machine in plan.machines) > 1:
        rest["endpoint"] = {"type": "local"}
    # The table of connections is this computer's: no machine may size it (nf_conntrack_max is read-only there).
    rest.setdefault("kubeProxyConfiguration", {"conntrack": {"maxPerCore": 0, "min": 0}})
    return document | rest


def cluster_yaml(document: dict[str, Any]) -> str:
    """The document as text."""
    return HEADER + yaml.safe_dump(document, sort_keys=False, width=110)


def read_document(text: str) -> dict[str, Any]:
    """The document in `text`, or nothing where it is none: then it is written anew."""
    try:
        document = yaml.safe_load(text)
    except yaml.YAMLError:
        return {}
    return document if isinstance(document, dict) else {}
