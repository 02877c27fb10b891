"""What an interrupted `join` left on its host: the next one goes on with what is of the same cluster (P34)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import yaml

from kubewright.model import kubeconfig, manifests, x509
from kubewright.model.arguments import peer_url
from kubewright.model.node import ControlPlaneNode
from kubewright.model.node_preflight import BOOTSTRAP_CONF, KUBELET_CONF, KUBELET_PORT, MANIFESTS, NodeChecks
from kubewright.model.objects import Object
from kubewright.phases.node import Node
from kubewright.workflows.leftovers import without_own


async def has_leftovers(node: Node, checks: NodeChecks) -> bool:
    """Whether the host has anything that only a node has."""
    return bool(await node.host.stat_files([*checks.absent_files, KUBELET_CONF], digest=False))


async def without_own_node(node: Node, checks: NodeChecks, ca_path: str, ca: bytes) -> NodeChecks:
    """The checks without what an earlier join to the cluster of this CA wrote.

    A kubeconfig of the kubelet with another CA or of a node of another name, or an authority's certificate that is
    another, is refused as ever (P35). The checks know then whether the host is a node of that cluster.
    """
    found = await node.host.read_files([KUBELET_CONF, ca_path, kubeconfig.KUBELET_CLIENT_CURRENT])
    own = set()
    if ca_path in found and found[ca_path].strip() == ca.strip():
        own.add(ca_path)
    ports, member = checks.ports, False
    name = x509.common_name(found.get(kubeconfig.KUBELET_CLIENT_CURRENT, b""))
    ours = name in ("", f"system:node:{node.name}")
    if ours and KUBELET_CONF in found and _ca_of(found[KUBELET_CONF]).strip() == ca.strip():
        own |= {KUBELET_CONF, BOOTSTRAP_CONF}
        ports, member = tuple(number for number in ports if number != KUBELET_PORT), True
    return replace(
        checks, ports=ports, member=member,
        absent_files=tuple(path for path in checks.absent_files if path not in own),
    )  # fmt: skip


async def without_own_pods(
    node: Node, checks: NodeChecks, pods: Mapping[str, Object], api: ControlPlaneNode
) -> NodeChecks:
    """The checks of a control plane without the manifests that say what we would write, and what runs by them.

    etcd's members change while a cluster grows: its manifest is ours by the member's name and address.
    """
    path = manifests.manifest_path(manifests.ETCD)
    content = await node.host.read_file(path)
    wanted = dict(pods)
    if content is not None and _is_member(content, api):
        wanted[manifests.ETCD] = yaml.safe_load(content)
    return await without_own(node, checks, wanted, api.bind_port)


async def without_own_directory(node: Node, checks: NodeChecks, pods: NodeChecks) -> NodeChecks:
    """The checks of the host without that of the manifests' directory, where all of its files are ours.

    `pods` are what `without_own_pods` left of the control plane's checks.
    """
    strange = set(pods.absent_files)
    done = await node.host.run(["ls", "-A", MANIFESTS], check=False)
    there = {f"{MANIFESTS}/{name}" for name in done.text.split()}
    known = {manifests.manifest_path(name) for name in _PODS}
    if not there or there - known or there & strange:
        return checks
    kept = tuple(path for path in checks.empty_directories if path != MANIFESTS)
    return replace(checks, empty_directories=kept)


_PODS = (manifests.API_SERVER, manifests.CONTROLLER, manifests.SCHEDULER_POD, manifests.ETCD)


def _ca_of(content: bytes) -> bytes:
    entries: list[Any] = kubeconfig.load(content, KUBELET_CONF).get("clusters") or []
    for entry in entries:
        if isinstance(entry, dict) and isinstance(entry.get("cluster"), dict):
            return kubeconfig.embedded(entry["cluster"], "certificate-authority-data")
    return b""


def _is_member(content: bytes, api: ControlPlaneNode) -> bool:
    try:
        command = yaml.safe_load(content)["spec"]["containers"][0]["command"]
    except (yaml.YAMLError, KeyError, IndexError, TypeError):
        return False
    wanted = {f"--name={api.name}", f"--initial-advertise-peer-urls={peer_url(api.advertise_address)}"}
    return isinstance(command, list) and wanted <= {str(word) for word in command}
