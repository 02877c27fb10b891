"""Looking at a cluster and a control plane before an upgrade."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from kubewright.clients.cri import open_cri
from kubewright.clients.objects import ObjectClient
from kubewright.errors import ConfigError, ExitCode, HostError
from kubewright.hosts import Host
from kubewright.model import stored
from kubewright.model.manifests import ETCD, manifest_path
from kubewright.model.objects import SYSTEM, read_mapping
from kubewright.model.upgrade import CONTROL_PLANE, ClusterState, ComponentConfig, tag_of
from kubewright.model.version import Version
from kubewright.model.versions import facts_for
from kubewright.workflows.join_desired import cluster_configuration

KUBE_PROXY = "kube-proxy"
_DNS_LABEL = "k8s-app=kube-dns"
_INDEX = "https://dl.k8s.io/release"
"""Where the Kubernetes project says which releases there are (kubeadm's constant DefaultCILabel and its kin)."""
_INDEX_TIMEOUT = 5.0


@dataclass(frozen=True, slots=True)
class StoredComponent:
    """A component's configuration as the cluster keeps it."""

    document: Mapping[str, Any]
    """Empty where there is none."""
    by_user: bool
    """Whether somebody wrote it, rather than kubeadm or we."""


async def read_state(host: Host, kube: ObjectClient) -> ClusterState:
    """What runs in a cluster; of the host only etcd's static Pod is read. Raises `ApiError` and `ConfigError`."""
    async with asyncio.TaskGroup() as group:
        version = group.create_task(kube.json("GET", "/version"))
        config = group.create_task(kube.get("v1", "ConfigMap", stored.KUBEADM_CONFIG, SYSTEM))
        nodes = group.create_task(kube.list("v1", "Node"))
        dns = group.create_task(kube.list("apps/v1", "Deployment", SYSTEM, labels=_DNS_LABEL))
        pods = group.create_task(read_manifests(host))
    current = Version.parse(str(version.result().get("gitVersion", "")), field="the API server's version")
    cluster = cluster_configuration(config.result())
    facts = facts_for(current)
    async with asyncio.TaskGroup() as group:
        kubelet = group.create_task(stored_component(kube, facts.kubelet_config_map, "kubelet"))
        proxy = group.create_task(stored_component(kube, KUBE_PROXY, "config.conf"))
    labels = ("node-role.kubernetes.io/control-plane", "node-role.kubernetes.io/master")
    return ClusterState(
        current,
        cluster,
        {
            node["metadata"]["name"]: node["status"]["nodeInfo"]["kubeletVersion"]
            for node in nodes.result()
            if (node.get("status") or {}).get("nodeInfo", {}).get("kubeletVersion")
        },
        etcd=tag_of(_image(pods.result().get(ETCD))) if cluster.etcd.external is None else "",
        dns=coredns_tag(dns.result()),
        configs=(
            _config("kubelet.config.k8s.io", kubelet.result(), facts.kubelet_api_version),
            _config("kubeproxy.config.k8s.io", proxy.result(), facts.kube_proxy_api_version),
        ),
        unready=tuple(
            sorted(
                node["metadata"]["name"] for node in nodes.result()
                if any(label in (node["metadata"].get("labels") or {}) for label in labels) and not _ready(node)
            )
        ),
    )  # fmt: skip


def coredns_tag(deployments: Sequence[Mapping[str, Any]]) -> str:
    """The tag of the cluster's CoreDNS; empty where its DNS is another program, or where it has none."""
    for deployment in deployments:
        for container in deployment["spec"]["template"]["spec"].get("containers") or ():
            image = str(container.get("image", ""))
            if image.rpartition("/")[2].partition(":")[0] == "coredns":
                return tag_of(image)
    return ""


async def read_manifests(host: Host, elsewhere: Mapping[str, str] | None = None) -> dict[str, dict[str, Any]]:
    """The control plane's static Pods on a host, by name; without those that are not there or cannot be read.

    `elsewhere` are the paths of manifests that are not where kubeadm puts them.
    """
    paths = {name: manifest_path(name) for name in (ETCD, *CONTROL_PLANE)} | dict(elsewhere or {})
    found = await host.read_files(paths.values())
    pods = {name: read_mapping(found.get(path, b"")) for name, path in paths.items()}
    return {name: pod for name, pod in pods.items() if pod is not None}


def require_control_plane(
    host: Host, pods: Mapping[str, Any], elsewhere: Mapping[str, str] | None = None
) -> None:
    """Raise `HostError` where a static Pod is missing (kubeadm's check StaticPodManifest)."""
    paths = {name: manifest_path(name) for name in CONTROL_PLANE} | dict(elsewhere or {})
    missing = [paths[name] for name in CONTROL_PLANE if name not in pods]
    if missing:
        raise HostError(
            f"{host.name} is no control plane: {', '.join(missing)} cannot be read",
            host=host.name, exit_code=ExitCode.HOST_NOT_FIT,
            hint="run it on a control plane, or name one with --host; a worker is upgraded by `upgrade node`",
        )  # fmt: skip


async def stored_component(kube: ObjectClient, name: str, key: str) -> StoredComponent:
    """A component's configuration out of its ConfigMap, and whether a user wrote it: kubeadm signs its own."""
    found = await kube.get("v1", "ConfigMap", name, SYSTEM)
    data = (found or {}).get("data") or {}
    document = yaml.safe_load(data.get(key) or "{}")
    annotations = ((found or {}).get("metadata") or {}).get("annotations") or {}
    generated = stored.signature(data).items() <= annotations.items()
    return StoredComponent(document if isinstance(document, dict) else {}, not generated and bool(document))


async def images_on(host: Host, socket: str) -> list[str]:
    """The references of the images that a host's runtime has. Raises `CriError`."""
    async with open_cri(host, socket) as cri:
        return [tag for image in await cri.images() for tag in image.tags]


async def released(current: Version) -> list[Version]:
    """The newest releases of this minor version and of the next, by the project's index.

    Empty where the index cannot be reached within a few seconds: who is offline names a version.
    """
    import aiohttp

    from kubewright.clients.resolver import Resolver

    found = []
    timeout = aiohttp.ClientTimeout(total=_INDEX_TIMEOUT)

    async def ask(session: aiohttp.ClientSession, minor: int) -> None:
        try:
            async with session.get(f"{_INDEX}/stable-{current.major}.{minor}.txt") as answer:
                if answer.status == 200:
                    found.append(Version.parse((await answer.text()).strip()))
        except (aiohttp.ClientError, OSError, TimeoutError, ConfigError, UnicodeDecodeError):
            return

    connector = aiohttp.TCPConnector(resolver=Resolver(_INDEX_TIMEOUT))
    async with (
        aiohttp.ClientSession(timeout=timeout, trust_env=True, connector=connector) as session,
        asyncio.TaskGroup() as group,
    ):
        for minor in (current.minor, current.minor + 1):
            group.create_task(ask(session, minor))
    return sorted(found)


def _config(group: str, found: StoredComponent, preferred: str) -> ComponentConfig:
    version = str(found.document.get("apiVersion", ""))
    return ComponentConfig(group, version.rpartition("/")[2], preferred.rpartition("/")[2])


def _image(pod: Mapping[str, Any] | None) -> str:
    containers = ((pod or {}).get("spec") or {}).get("containers") or [{}]
    return str(containers[0].get("image", ""))


def _ready(node: Mapping[str, Any]) -> bool:
    conditions = (node.get("status") or {}).get("conditions") or ()
    return any(one.get("type") == "Ready" and one.get("status") == "True" for one in conditions)
