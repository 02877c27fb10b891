"""`kubewright check`: pods on every node try out the pod network, services, NodePorts, DNS and the API."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import yaml

from kubewright.clients.kube import KubeClient
from kubewright.clients.paths import Object
from kubewright.errors import ApiError, ConfigError
from kubewright.events import Events
from kubewright.model.status import NodeStatus, parse_time
from kubewright.workflows import check_objects as objects
from kubewright.workflows.check_clean import remove_leftovers, remove_namespace
from kubewright.workflows.check_plan import Member, Place, Report, Setting, plan
from kubewright.workflows.check_pods import Pods, started_pods
from kubewright.workflows.check_probe import Prober, reachable_from_here
from kubewright.workflows.status import read_nodes

IMAGE_DAEMON_SET = "kubewright-network"
"""Its image holds the probe program, too, and every node has it."""


@dataclass(frozen=True, slots=True)
class CheckOptions:
    """What a user may choose. Times are in seconds."""

    image: str = ""
    """Default: the pod network's own image, which is on every node already."""
    start_deadline: float = 60.0
    """For the pods to run on every node that is Ready."""
    settle: float = 6.0
    """For endpoints and names to become known everywhere: what fails is tried again that long."""


async def check(kube: KubeClient, events: Events, options: CheckOptions) -> Report:
    """Try a cluster out and leave nothing behind, however it ends.

    Nodes that are not Ready, or whose pods do not start, are reported as absent, and the others are checked.
    Raises `ApiError` where the API itself cannot be used, and `ConfigError` where the image is not known.
    """
    async with events.workflow("check", f"Try the cluster at {kube.server.url} out") as activity:
        nodes = await read_nodes(kube)
        image = options.image or await _image(kube)
        domain = await _dns_domain(kube)
        name = objects.NAMESPACE_PREFIX + secrets.token_hex(3)
        try:
            async with events.phase("check-start", "start pods on every node") as phase:
                made = await kube.create(objects.namespace(name))
                await remove_leftovers(kube, events, now=parse_time(made["metadata"]["creationTimestamp"]))
                services = await _make(kube, name, image)
                addresses = {node.name: node.address for node in nodes if node.ready}
                pods = await started_pods(kube, name, addresses, phase, options.start_deadline)
                absent = {
                    node.name: "; ".join(node.problems) for node in nodes if not node.ready
                } | pods.absent
                phase.summary(f"pods run on {len(pods.members)} of {len(nodes)} nodes")
            report = await _try_out(
                kube, events, options, pods, absent, nodes, await _setting(kube, name, domain, services)
            )
        finally:
            async with events.phase("check-remove", f"remove namespace {name}"):
                await remove_namespace(kube, events, name)
        failed = len(report.failures)
        activity.summary(
            f"{len(report.results)} checks on {len(report.nodes)} nodes, {failed or 'none'} failed"
        )
        return report


async def _try_out(
    kube: KubeClient,
    events: Events,
    options: CheckOptions,
    pods: Pods,
    absent: Mapping[str, str],
    nodes: Sequence[NodeStatus],
    setting: Setting,
) -> Report:
    async with events.phase("check-probe", "try every way from every node") as phase:
        here, skipped = await _from_here(pods.members)
        checks = plan(setting, pods.members, computer=here)
        phase.progress(f"{len(checks)} checks")
        prober = Prober(kube, setting.namespace, pods.names, phase)
        results = await prober.run(checks, settle=options.settle)
        failed = sum(1 for result in results if not result.ok)
        phase.summary(f"{len(results)} checks, {failed or 'none'} failed")
    return Report(tuple(node.name for node in nodes), tuple(results), absent, skipped)


async def _make(kube: KubeClient, name: str, image: str) -> dict[str, Object]:
    """Make all objects; the Services as the API server completed them, by name."""
    await kube.create(objects.service_account(name))
    async with asyncio.TaskGroup() as group:
        made = [group.create_task(kube.create(service)) for service in objects.services(name)]
        group.create_task(_until_admitted(kube, name, image))
    # Only now: a DaemonSet whose pods are refused at first waits longer and longer before it tries again.
    for place in (Place.POD, Place.NODE):
        await kube.create(objects.daemon_set(name, place, image))
    return {task.result()["metadata"]["name"]: task.result() for task in made}


async def _until_admitted(kube: KubeClient, name: str, image: str) -> None:
    """Wait until a pod would be taken: before Kubernetes 1.24, its account needs a token first."""
    path = f"/api/v1/namespaces/{name}/pods"
    deadline = asyncio.get_running_loop().time() + 30
    while True:
        try:
            await kube.request("POST", path, params={"dryRun": "All"}, body=objects.first_pod(name, image))
            return
        except ApiError as error:
            if error.status not in (403, 500) or asyncio.get_running_loop().time() > deadline:
                raise
        await asyncio.sleep(0.1)


async def _setting(kube: KubeClient, name: str, domain: str, services: Mapping[str, Object]) -> Setting:
    kubernetes = await kube.get("v1", "Service", "kubernetes", "default") or {}
    return Setting(
        namespace=name,
        domain=domain,
        service_ip=services["probe"]["spec"]["clusterIP"],
        node_port=services[objects.NODE_PORT_SERVICE]["spec"]["ports"][0]["nodePort"],
        kubernetes_ip=(kubernetes.get("spec") or {}).get("clusterIP", ""),
    )


async def _image(kube: KubeClient) -> str:
    """The image of the running pod network."""
    found = await kube.get("apps/v1", "DaemonSet", IMAGE_DAEMON_SET, "kube-system")
    if found is None:
        raise ConfigError(
            f"this cluster has no DaemonSet kube-system/{IMAGE_DAEMON_SET} whose image holds the probe program",
            hint="name an image that has python3 and kubewright with --image",
        )
    return str(found["spec"]["template"]["spec"]["containers"][0]["image"])


async def _dns_domain(kube: KubeClient) -> str:
    """The cluster's DNS domain, as `kubeadm-config` says; `cluster.local` where it does not."""
    stored = await kube.get("v1", "ConfigMap", "kubeadm-config", "kube-system") or {}
    text = (stored.get("data") or {}).get("ClusterConfiguration") or ""
    document = yaml.safe_load(text) or {}
    return str((document.get("networking") or {}).get("dnsDomain") or "cluster.local")


async def _from_here(members: tuple[Member, ...]) -> tuple[bool, tuple[str, ...]]:
    """Whether this computer reaches the nodes' addresses, and if not, a line that says so."""
    unreachable = [m.node for m in members if not await reachable_from_here(m.address)]
    if not unreachable:
        return True, ()
    return False, (f"NodePorts from this computer: it has no way to {', '.join(unreachable)}",)
