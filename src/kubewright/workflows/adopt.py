"""`adopt`: reading a cluster that Kubewright did not make, and describing it. Nothing is changed anywhere."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from kubewright.clients.objects import ObjectClient
from kubewright.errors import ConfigError
from kubewright.events import Events
from kubewright.model import addons, addons_builtin, stored
from kubewright.model.adopt import Seen
from kubewright.model.adopt import adopt as described
from kubewright.model.config.cluster import ClusterSpec, HostSpec, SshSpec
from kubewright.model.objects import SYSTEM, Object
from kubewright.model.status import internal_ip
from kubewright.model.versions import facts_for
from kubewright.phases.installed import read_installed
from kubewright.phases.node import Node
from kubewright.workflows.join_desired import cluster_configuration
from kubewright.workflows.upgrade_state import KUBE_PROXY, stored_component


async def adopt(through: Node, kube: ObjectClient, events: Events) -> tuple[str, ClusterSpec]:
    """The text of a cluster.yaml for the cluster of a control plane, and the same as it is read.

    What the file cannot say and what was guessed are warnings and notes. Raises `ApiError` where no API answers,
    and `ConfigError` for a cluster that was not made by kubeadm, has a version that is not supported, or has what
    no cluster.yaml can describe.
    """
    async with events.workflow("adopt", f"read the cluster of {through.name}") as activity:
        seen = await _look(kube)
        name = seen.cluster.cluster_name
        comment = f"Cluster {name}, as `kubewright adopt` found it on {datetime.now(UTC):%Y-%m-%d}."
        text, spec, remarks = described(seen, await _reached(through, seen.nodes), comment)
        for warning in remarks.warnings:
            events.warn(warning)
        for note in remarks.notes:
            events.note(note)
        activity.summary(
            f"cluster {name} has {len(spec.nodes)} {'Node' if len(spec.nodes) == 1 else 'Nodes'}"
        )
        return text, spec


async def _look(kube: ObjectClient) -> Seen:
    """What the API says. It is asked for one thing first, so that one that does not answer is one error."""
    config = await kube.get("v1", "ConfigMap", stored.KUBEADM_CONFIG, SYSTEM)
    if config is None:
        raise ConfigError(
            f"there is no ConfigMap {SYSTEM}/{stored.KUBEADM_CONFIG}: this cluster was not made by kubeadm, or "
            "has lost its configuration",
            hint="clusters of other tools cannot be adopted; what was lost, `kubewright init phase upload-config "
            "kubeadm --config FILE` writes anew",
        )
    cluster = cluster_configuration(config)
    facts = facts_for(cluster.kubernetes_version)
    async with asyncio.TaskGroup() as group:
        kubelet = group.create_task(stored_component(kube, facts.kubelet_config_map, "kubelet"))
        proxy = group.create_task(stored_component(kube, KUBE_PROXY, "config.conf"))
        proxies = group.create_task(kube.get("apps/v1", "DaemonSet", KUBE_PROXY, SYSTEM))
        nodes = group.create_task(kube.list("v1", "Node"))
        servers = group.create_task(kube.list("v1", "Pod", SYSTEM, labels="component=kube-apiserver"))
        dns = group.create_task(kube.get("apps/v1", "Deployment", addons.COREDNS, SYSTEM))
        corefile = group.create_task(kube.get("v1", "ConfigMap", addons.COREDNS, SYSTEM))
        network = group.create_task(kube.get("apps/v1", "DaemonSet", addons_builtin.NETWORK, SYSTEM))
        version = group.create_task(kube.json("GET", "/version"))
    return Seen(
        cluster=cluster,
        kubelet=kubelet.result().document,
        kube_proxy=proxy.result().document,
        has_kube_proxy=proxies.result() is not None,
        nodes=nodes.result(),
        api_servers=servers.result(),
        dns=dns.result() or {},
        corefile=str(((corefile.result() or {}).get("data") or {}).get("Corefile", "")),
        own_network=network.result() is not None,
        version=str(version.result().get("gitVersion", "")),
    )


async def _reached(through: Node, nodes: Sequence[Object]) -> HostSpec:
    """The control plane that was asked, as cluster.yaml has it: its paths work wherever the file lies.

    It has a nodeIP if its kubelet was told one, or uses another address than that of the host's default route,
    which Kubewright would take.
    """
    told = (await read_installed(through.host)).kubelet_flags.get("node-ip", "")
    used = next((internal_ip(node) for node in nodes if node["metadata"]["name"] == through.name), "")
    candidates = (told, used if used != through.facts.default_address else "")
    own = [address for address in candidates if address in through.facts.addresses and ":" not in address]
    ssh = through.spec.ssh
    update = {
        "key_files": [_absolute(file) for file in ssh.key_files] if ssh.key_files else None,
        "known_hosts": _absolute(ssh.known_hosts) if ssh.known_hosts else None,
    }
    found: SshSpec = ssh.model_copy(update=update)
    return through.spec.model_copy(update={"ssh": found, "node_ip": own[0] if own else None})


def _absolute(path: str) -> str:
    return os.path.normpath(Path(path).expanduser().absolute())
