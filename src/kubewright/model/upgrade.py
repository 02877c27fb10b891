"""Upgrades: which versions a cluster can go to, what stands in the way, and what changes with one.

The rules are kubeadm's (cmd/kubeadm/app/phases/upgrade) and Kubernetes' version skew policy.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from kubewright.errors import ConfigError
from kubewright.model.arguments import EtcdMember
from kubewright.model.config.kubeadm_types import ClusterConfiguration
from kubewright.model.node import API_PORT, ControlPlaneNode
from kubewright.model.objects import to_yaml
from kubewright.model.pod_meaning import normal
from kubewright.model.reset import container_flags
from kubewright.model.version import Version
from kubewright.model.versions import facts_for, image_references
from kubewright.secret import without_passwords

CONTROL_PLANE = ("kube-apiserver", "kube-controller-manager", "kube-scheduler")
"""In the order in which they are upgraded, after etcd."""


@dataclass(frozen=True, slots=True)
class ComponentConfig:
    """A component's configuration that the cluster keeps, and the API version that is wanted of it."""

    group: str
    current: str
    """Empty where the cluster has none."""
    preferred: str

    @property
    def manual(self) -> bool:
        """Whether the user must rewrite it before an upgrade."""
        return bool(self.current) and self.current != self.preferred


@dataclass(frozen=True, slots=True)
class ClusterState:
    """What runs in a cluster now."""

    version: Version
    """The API server's."""
    cluster: ClusterConfiguration
    kubelets: Mapping[str, str]
    """Node name to its kubelet's version."""
    etcd: str = ""
    """The tag of the local etcd's image; empty where etcd is elsewhere."""
    dns: str = ""
    """The tag of cluster DNS's image; empty where there is none."""
    configs: tuple[ComponentConfig, ...] = ()
    unready: tuple[str, ...] = ()
    """Control planes that are not Ready."""


@dataclass(frozen=True, slots=True)
class Component:
    """One line of a plan."""

    name: str
    current: str
    target: str
    image: str = ""
    """What will run; empty for a kubelet."""
    present: bool | None = None
    """Whether this host has the image; None where nobody asked."""

    def as_dict(self) -> dict[str, Any]:
        """For `-o json`."""
        row: dict[str, Any] = {"name": self.name, "currentVersion": self.current, "newVersion": self.target}
        if self.image:
            row["image"] = self.image
        if self.present is not None:
            row["present"] = self.present
        return row


@dataclass(frozen=True, slots=True)
class Upgrade:
    """One version that the cluster can go to."""

    target: Version
    description: str
    kubelets: tuple[Component, ...]
    """Upgraded by hand, after the control plane; empty where all are there already."""
    components: tuple[Component, ...]
    obstacles: tuple[str, ...] = ()
    """What forbids it, or what `--force` is needed for."""

    def as_dict(self) -> dict[str, Any]:
        """For `-o json`."""
        return {
            "version": str(self.target),
            "description": self.description,
            "components": [one.as_dict() for one in (*self.kubelets, *self.components)],
            "obstacles": list(self.obstacles),
        }


@dataclass(frozen=True, slots=True)
class Verdict:
    """What speaks against an upgrade."""

    forbidden: tuple[str, ...] = ()
    forceable: tuple[str, ...] = ()
    """What `--force` overrides."""


def targets(
    current: Version, known: Iterable[Version], *, prerelease: bool = False, candidates: bool = False
) -> list[tuple[Version, str]]:
    """Of the versions that can be had, the newest of this minor version and of the next, with what each is.

    One minor version is one upgrade. `prerelease` allows alphas and betas, `candidates` release candidates.
    """
    found = []
    every = list(known)
    for minor, title in (
        (current.minor, "version in the {} series"),
        (current.minor + 1, "next minor version, {}"),
    ):
        fit = [
            one for one in every
            if (one.major, one.minor) == (current.major, minor) and one > current
            and (not one.prerelease or prerelease or (candidates and one.prerelease[0].startswith("rc")))
        ]  # fmt: skip
        if fit:
            best = max(fit)
            found.append((best, title.format(f"v{best.series}")))
    return found


def judge(
    state: ClusterState, target: Version, *, prerelease: bool = False, candidates: bool = False
) -> Verdict:
    """Whether the cluster may go to a version: no minor version is left out, and no kubelet left behind."""
    forbidden, forceable = [], []
    try:
        facts = facts_for(target)
    except ConfigError as error:
        return Verdict((f"{error.message} ({error.hint})",))
    if target.major != state.version.major or target.minor > state.version.minor + 1:
        forbidden.append(f"from {state.version} to {target} is more than one minor version; go one at a time")
    elif target.minor < state.version.minor - 1:
        forbidden.append(f"from {state.version} back to {target} is more than one minor version")
    elif target.minor != state.version.minor:
        forbidden.append(
            f"from {state.version} to {target} is another minor version, which `upgrade apply` cannot go to yet"
        )
    elif target < state.version:
        forceable.append(f"{target} is older than the cluster's {state.version}")
    if target.prerelease and not (prerelease or (candidates and target.prerelease[0].startswith("rc"))):
        flag = "--allow-release-candidate-upgrades" if target.prerelease[0].startswith("rc") else ""
        flag = flag or "--allow-experimental-upgrades"
        forceable.append(f"{target} is no release: {flag} allows it")
    old = sorted(
        f"{node} ({version})" for node, version in state.kubelets.items()
        if not facts.supports_kubelet(Version.parse(version, field=f"kubelet of {node}"))
        and Version.parse(version).minor < target.minor
    )  # fmt: skip
    if old:
        forceable.append(f"these kubelets are too old for {target}: {', '.join(old)}")
    newer = sorted(
        f"{node} ({version})" for node, version in state.kubelets.items()
        if Version.parse(version).minor > target.minor
    )  # fmt: skip
    if newer:
        forceable.append(f"these kubelets are newer than {target}: {', '.join(newer)}")
    forceable += [
        f"{config.group} is kept as {config.current}, not as {config.preferred}"
        for config in state.configs
        if config.manual
    ]
    return Verdict(tuple(forbidden), tuple(forceable))


def for_version(cluster: ClusterConfiguration, target: Version) -> ClusterConfiguration:
    """The ClusterConfiguration of the same cluster at another version.

    A repository that was the old version's default becomes the new one's, as kubeadm has it (k8s.gcr.io was
    followed by registry.k8s.io).
    """
    update: dict[str, Any] = {"kubernetes_version": str(target)}
    old, new = facts_for(cluster.kubernetes_version), facts_for(target)
    if cluster.image_repository == old.image_repository:
        update["image_repository"] = new.image_repository
    return cluster.model_copy(update=update)


def plan(
    state: ClusterState, target: Version, description: str, present: Iterable[str] | None = None
) -> Upgrade:
    """What an upgrade changes; `present` are the images that the host has."""
    facts = facts_for(target)
    images = image_references(for_version(state.cluster, target), facts)
    have = None if present is None else frozenset(present)

    def component(name: str, current: str) -> Component:
        image = images[name]
        own = name in ("etcd", "coredns")
        return Component(
            name,
            current,
            tag_of(image) if own else str(target),
            image,
            None if have is None else image in have,
        )

    counts: dict[str, int] = {}
    for version in state.kubelets.values():
        counts[version] = counts.get(version, 0) + 1
    kubelets = [
        Component("kubelet", f"{count} x {version}", str(target))
        for version, count in sorted(counts.items())
        if Version.parse(version) != target
    ]
    components = [component(name, str(state.version)) for name in (*CONTROL_PLANE, "kube-proxy")]
    if state.dns:
        components.append(component("coredns", state.dns))
    if "etcd" in images:
        components.append(component("etcd", state.etcd))
    verdict = judge(state, target, prerelease=True)
    return Upgrade(
        target, description, tuple(kubelets), tuple(components), (*verdict.forbidden, *verdict.forceable)
    )


def same_program(shown: Mapping[str, Any], manifest: Mapping[str, Any], name: str) -> bool:
    """Whether the API shows a static Pod with the version and the command line that its manifest has.

    What admission may have done to the Pod in the API does not matter: other containers, another registry.
    """

    def program(pod: Mapping[str, Any]) -> tuple[str, Any] | None:
        for one in (pod.get("spec") or {}).get("containers") or ():
            if one.get("name") == name:
                return tag_of(str(one.get("image"))), one.get("command")
        return None

    return program(shown) == program(manifest) is not None


def manifest_hash(shown: Mapping[str, Any]) -> str:
    """The hash of its manifest that the API shows of a static Pod: its id in the container runtime."""
    annotations = (shown.get("metadata") or {}).get("annotations") or {}
    return str(annotations.get("kubernetes.io/config.hash", "none"))


def manifest_diff(
    path: str, before: Mapping[str, Any] | None, after: Mapping[str, Any], *, context: int = 3
) -> list[str]:
    """A unified diff of two static Pods, written in one style so that only their content differs; without the
    passwords of URLs."""
    old = to_yaml(normal(before)).decode().splitlines() if before is not None else []
    new = to_yaml(normal(after)).decode().splitlines()
    lines = difflib.unified_diff(old, new, path, "new manifest", n=context, lineterm="")
    return [without_passwords(line) for line in lines]


def etcd_members(flags: Mapping[str, str]) -> list[EtcdMember]:
    """The members that a joined etcd's Pod names in its flags; none for one that began a cluster.

    They are read only by a member without data; but a Pod that differs in them would be restarted for nothing.
    """
    if flags.get("initial-cluster-state") != "existing":
        return []
    pairs = (pair.partition("=") for pair in flags.get("initial-cluster", "").split(","))
    return [EtcdMember(name, url) for name, equals, url in pairs if equals]


def proxy_environment(pod: Mapping[str, Any]) -> dict[str, str]:
    """The proxies that a static Pod has in its environment, which its successor keeps."""
    containers = (pod.get("spec") or {}).get("containers") or [{}]
    return {
        str(one["name"]): str(one.get("value", ""))
        for one in containers[0].get("env") or ()
        if str(one.get("name", "")).lower() in ("http_proxy", "https_proxy", "no_proxy", "ftp_proxy")
    }


def control_plane_node(name: str, api_server: Mapping[str, Any]) -> ControlPlaneNode:
    """This node as its own API server's Pod has it. Raises `ConfigError` where that names no address."""
    flags = container_flags(api_server)
    if not flags.get("advertise-address"):
        raise ConfigError(
            "the static Pod kube-apiserver has no --advertise-address",
            hint="was it made by kubeadm or Kubewright? others cannot be upgraded",
        )
    port = flags.get("secure-port", "")
    return ControlPlaneNode(name, flags["advertise-address"], int(port) if port.isdigit() else API_PORT)


def tag_of(image: str) -> str:
    """The tag of an image reference; empty where it has none."""
    name = image.rpartition("/")[2].partition("@")[0]
    return name.partition(":")[2]


def newest_images(images: Iterable[str]) -> list[Version]:
    """The versions of Kubernetes whose API server's image is among these references."""
    found = set()
    for image in images:
        name, _, tag = image.rpartition("/")[2].partition(":")
        if name == "kube-apiserver" and tag:
            try:
                found.add(Version.parse(tag.replace("_", "+")))
            except ConfigError:
                continue
    return sorted(found)
