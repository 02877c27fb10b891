"""The static Pods of a control plane: etcd and the three servers, as kubeadm writes them."""

from __future__ import annotations

import posixpath
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import ceil
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from kubewright.model.arguments import (
    ETCD_METRICS_PORT,
    Arguments,
    EtcdMember,
    api_server_args,
    client_url,
    controller_manager_args,
    etcd_args,
    scheduler_args,
)
from kubewright.model.config.duration import parse_duration
from kubewright.model.extra_args import ExtraArgs
from kubewright.model.kubeconfig import CONTROLLER_MANAGER, KUBERNETES_DIR, SCHEDULER
from kubewright.model.node import ControlPlaneNode
from kubewright.model.objects import SYSTEM, Object, metadata
from kubewright.model.versions import ProbePaths, VersionFacts, image_references

if TYPE_CHECKING:
    from kubewright.model.config.kubeadm import ClusterConfiguration
    from kubewright.model.config.kubeadm_types import EnvVar

MANIFESTS_DIR = f"{KUBERNETES_DIR}/manifests"
MANIFEST_MODE = 0o600
ETCD = "etcd"
API_SERVER = "kube-apiserver"
CONTROLLER = "kube-controller-manager"
SCHEDULER_POD = "kube-scheduler"

CONTROLLER_PORT = 10257
SCHEDULER_PORT = 10259

OPTIONAL_CA_DIRS = (
    "/etc/pki",
    "/etc/pki/ca-trust",
    "/etc/pki/tls/certs",
    "/usr/share/ca-certificates",
    "/usr/local/share/ca-certificates",
    "/etc/ca-certificates",
)
"""What `VersionFacts.ca_dirs` may name."""

_HEALTHZ = ProbePaths(live="/healthz", startup="/healthz")
_PROBES = ("livenessProbe", "readinessProbe", "startupProbe")
_FLEX_VOLUMES = "/usr/libexec/kubernetes/kubelet-plugins/volume/exec"
_DIRECTORY, _FILE = "DirectoryOrCreate", "FileOrCreate"


@dataclass(frozen=True, slots=True)
class _Mount:
    name: str
    host_path: str
    mount_path: str
    read_only: bool
    path_type: str | None


def image_of(pod: Mapping[str, Any], name: str) -> str:
    """The image of a static Pod's container of this name, else of its first; empty where it does not say it."""
    containers = (pod.get("spec") or {}).get("containers") or []
    named = [one for one in containers if isinstance(one, dict)]
    found = next((one for one in named if one.get("name") == name), named[0] if named else {})
    return str(found.get("image") or "")


def static_pods(
    cluster: ClusterConfiguration,
    node: ControlPlaneNode,
    facts: VersionFacts,
    *,
    ca_dirs: Iterable[str] = (),
    etcd_members: Sequence[EtcdMember] = (),
    etcd_state: str = "existing",
    external_ca: bool = False,
    proxy_env: Mapping[str, str] | None = None,
) -> dict[str, Object]:
    """All static Pods of one control plane, by name; `etcd` only where etcd is ours.

    `ca_dirs` are those of `OPTIONAL_CA_DIRS` that the host has. With `etcd_members` (this one among them) the
    member joins a cluster that exists, or with `etcd_state` `new` starts one with them. `external_ca` says that
    the CA's key is not on the host, so that the controller manager signs nothing.
    """
    images = image_references(cluster, facts)
    startup = ceil(parse_duration(cluster.api_server.timeout_for_control_plane) / 10**10)
    certs_dir = cluster.certificates_dir
    shared = [
        _Mount("k8s-certs", certs_dir, certs_dir, True, _DIRECTORY),
        _Mount("ca-certs", "/etc/ssl/certs", "/etc/ssl/certs", True, _DIRECTORY),
        *(
            _Mount(path[1:].replace("/", "-"), path, path, True, _DIRECTORY)
            for path in ca_dirs
            if path in facts.ca_dirs
        ),
    ]
    controller_args = cluster.controller_manager.extra_args
    flex = controller_args.get("flex-volume-plugin-dir", _FLEX_VOLUMES)
    env = proxy_env or {}

    pods = {
        API_SERVER: _pod(
            API_SERVER,
            images,
            api_server_args(cluster, node, facts),
            [*shared, *_external_etcd_mounts(cluster, facts), *_extra(cluster.api_server.extra_volumes)],
            facts,
            cpu="250m",
            env=_environment(env, cluster.api_server.extra_envs),
            annotations={f"kubeadm.kubernetes.io/{API_SERVER}.advertise-address.endpoint": node.host_port},
            probes=_probes(
                _probe_address(node.advertise_address),
                node.bind_port,
                startup,
                ProbePaths(live="/livez", startup="/livez", ready="/readyz"),
            ),
        ),
        CONTROLLER: _pod(
            CONTROLLER,
            images,
            controller_manager_args(cluster, facts, external_ca=external_ca),
            [
                *shared,
                _kubeconfig_mount(CONTROLLER_MANAGER),
                *([_Mount("flexvolume-dir", flex, flex, False, _DIRECTORY)] if facts.flex_volumes else []),
                *_extra(cluster.controller_manager.extra_volumes),
            ],
            facts,
            cpu="200m",
            env=_environment(env, cluster.controller_manager.extra_envs),
            probes=_probes(_bind_address(controller_args), CONTROLLER_PORT, startup, _HEALTHZ),
        ),
        SCHEDULER_POD: _pod(
            SCHEDULER_POD,
            images,
            scheduler_args(cluster, facts),
            [_kubeconfig_mount(SCHEDULER), *_extra(cluster.scheduler.extra_volumes)],
            facts,
            cpu="100m",
            env=_environment(env, cluster.scheduler.extra_envs),
            probes=_probes(
                _bind_address(cluster.scheduler.extra_args), SCHEDULER_PORT, startup, facts.scheduler_probes
            ),
        ),
    }
    if cluster.etcd.external is None:
        pods[ETCD] = _etcd_pod(cluster, node, facts, images, startup, etcd_members, etcd_state)
    return pods


def manifest_path(name: str, directory: str = MANIFESTS_DIR) -> str:
    """Where a static Pod's manifest stands."""
    return posixpath.join(directory, f"{name}.yaml")


def _etcd_pod(
    cluster: ClusterConfiguration, node: ControlPlaneNode, facts: VersionFacts, images: Mapping[str, str],
    startup: int, members: Sequence[EtcdMember], state: str,
) -> Object:  # fmt: skip
    args = etcd_args(cluster, node, facts, members, state)
    certs = f"{cluster.certificates_dir}/etcd"
    told = dict(args)
    url = urlsplit(told["listen-metrics-urls"].split(",")[0])
    pod = _pod(
        ETCD,
        images,
        args,
        [
            _Mount("etcd-data", told["data-dir"], told["data-dir"], False, _DIRECTORY),
            _Mount("etcd-certs", certs, certs, False, _DIRECTORY),
        ],
        facts,
        cpu="100m",
        annotations={"kubeadm.kubernetes.io/etcd.advertise-client-urls": client_url(node.advertise_address)},
        env=_environment({}, cluster.etcd.local.extra_envs if cluster.etcd.local else []),
        probes=_probes(
            url.hostname or node.loopback, url.port or ETCD_METRICS_PORT, startup, facts.etcd_probes,
            scheme=url.scheme.upper(),
        ),
    )  # fmt: skip
    requests = pod["spec"]["containers"][0]["resources"]["requests"]
    requests["memory"] = "100Mi"
    if facts.etcd_ephemeral_storage:
        requests["ephemeral-storage"] = "100Mi"
    return pod


def _pod(
    name: str,
    images: Mapping[str, str],
    args: Arguments,
    mounts: Iterable[_Mount],
    facts: VersionFacts,
    *,
    cpu: str,
    probes: Object,
    annotations: Mapping[str, str] | None = None,
    env: Sequence[Object] = (),
) -> Object:
    chosen = sorted({mount.name: mount for mount in mounts}.values(), key=lambda mount: mount.name)
    container: Object = {
        "name": name,
        "image": images[name],
        "imagePullPolicy": "IfNotPresent",
        "command": [name, *(f"--{flag}={value}" for flag, value in args)],
        "resources": {"requests": {"cpu": cpu}},
        "volumeMounts": [
            {"name": mount.name, "mountPath": mount.mount_path}
            | ({"readOnly": True} if mount.read_only else {})
            for mount in chosen
        ],
        **probes,
    }
    if facts.probe_port:
        _name_the_port(container, facts.probe_port)
    if env:
        container["env"] = list(env)
    spec: Object = {
        "containers": [container],
        "hostNetwork": True,
        "priorityClassName": "system-node-critical",
        "volumes": [
            {
                "name": mount.name,
                "hostPath": {"path": mount.host_path}
                | ({"type": mount.path_type} if mount.path_type is not None else {}),
            }
            for mount in chosen
        ],
    }
    if facts.static_pod_priority is not None:
        spec["priority"] = facts.static_pod_priority
    if facts.static_pod_seccomp:
        spec["securityContext"] = {"seccompProfile": {"type": "RuntimeDefault"}}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": metadata(
            name, SYSTEM, labels={"component": name, "tier": "control-plane"}, annotations=annotations
        ),
        "spec": spec,
    }


def _name_the_port(container: Object, name: str) -> None:
    """Let the probes name their port, which the container lists then."""
    probes = [container[probe] for probe in _PROBES if probe in container]
    number = probes[0]["httpGet"]["port"]
    for probe in probes:
        probe["httpGet"]["port"] = name
    container["ports"] = [{"containerPort": number, "name": name, "protocol": "TCP"}]


def _probes(
    host: str,
    port: int,
    startup_failures: int,
    paths: ProbePaths,
    *,
    scheme: str = "HTTPS",
) -> Object:
    """kubeadm's probes: a start may take `startup_failures` times 10 s, eight failures end the container."""

    def get(path: str) -> Object:
        action: Object = {"path": path, "port": port, "scheme": scheme}
        return action | ({"host": host} if host else {})

    slow = {"initialDelaySeconds": 10, "periodSeconds": 10, "timeoutSeconds": 15}
    probes: Object = {
        "livenessProbe": {"httpGet": get(paths.live), "failureThreshold": 8, **slow},
        "startupProbe": {"httpGet": get(paths.startup), "failureThreshold": startup_failures, **slow},
    }
    if paths.ready:
        probes["readinessProbe"] = {
            "httpGet": get(paths.ready), "failureThreshold": 3, "periodSeconds": 1, "timeoutSeconds": 15,
        }  # fmt: skip
    return probes


def _probe_address(address: str) -> str:
    """The address to probe; empty (the Pod's own) for a server that listens everywhere."""
    return "" if address in ("0.0.0.0", "::") else address  # noqa: S104


def _bind_address(extra_args: ExtraArgs) -> str:
    return _probe_address(extra_args.get("bind-address", "127.0.0.1"))


def _kubeconfig_mount(file: str) -> _Mount:
    path = f"{KUBERNETES_DIR}/{file}"
    return _Mount("kubeconfig", path, path, True, _FILE)


def _environment(proxies: Mapping[str, str], extra: Sequence[EnvVar]) -> list[Object]:
    """The proxy's variables under the user's, by their names; the last one of a name counts."""
    named: dict[str, Object] = {name: {"name": name, "value": value} for name, value in proxies.items()}
    named |= {item.name: _without_empty(item.model_dump(by_alias=True)) for item in extra}
    return [named[name] for name in sorted(named)]


def _without_empty(value: Mapping[str, Any]) -> Object:
    return {
        name: _without_empty(inner) if isinstance(inner, Mapping) else inner
        for name, inner in value.items()
        if inner not in (None, "", False)
    }


def _extra(volumes: Iterable[Any]) -> list[_Mount]:
    """The user's own mounts; one with a name of ours takes its place."""
    return [
        _Mount(item.name, item.host_path, item.mount_path, bool(item.read_only), item.path_type or "")
        for item in volumes
    ]


def _external_etcd_mounts(cluster: ClusterConfiguration, facts: VersionFacts) -> list[_Mount]:
    """The directories of an external etcd's certificates that no other mount covers, each parent once."""
    external = cluster.etcd.external
    if external is None:
        return []
    files = (external.ca_file, external.cert_file, external.key_file)
    directories = sorted({posixpath.dirname(file) for file in files if file})
    covered = [*facts.ca_dirs, "/etc/ssl/certs", cluster.certificates_dir]
    mounts: list[_Mount] = []
    for directory in directories:
        if not any(directory == path or directory.startswith(f"{path}/") for path in covered):
            covered.append(directory)
            mounts.append(_Mount(f"etcd-certs-{len(mounts)}", directory, directory, True, _DIRECTORY))
    return mounts
