"""`upgrade plan` and `upgrade diff`: what an upgrade would bring, with nothing changed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from kubewright.clients.objects import ObjectClient
from kubewright.errors import ConfigError, ExitCode, HostError, KubewrightError
from kubewright.events import Events
from kubewright.model import upgrade as model
from kubewright.model.config.kubeadm_types import ClusterConfiguration
from kubewright.model.manifests import ETCD, manifest_path
from kubewright.model.patches import Patch
from kubewright.model.upgrade import CONTROL_PLANE, ClusterState, Upgrade
from kubewright.model.version import Version
from kubewright.phases.installed import read_installed, runtime_socket
from kubewright.phases.node import Node
from kubewright.workflows.upgrade_pods import wanted_pods
from kubewright.workflows.upgrade_state import (
    images_on,
    read_manifests,
    read_state,
    released,
    require_control_plane,
)


@dataclass(frozen=True, slots=True)
class Plan:
    """What can be upgraded to."""

    state: ClusterState
    upgrades: tuple[Upgrade, ...]
    notes: tuple[str, ...] = ()
    """What could not be found out."""


async def plan(
    node: Node,
    kube: ObjectClient,
    events: Events,
    *,
    version: str = "",
    prerelease: bool = False,
    candidates: bool = False,
    online: bool = True,
) -> Plan:
    """The upgrades that a cluster can have: to `version` or, without one, to the newest that can be had.

    Those are the ones of the project's index of releases (asked only where `online`), and those whose images or
    kubelet this host has, which need nobody else. Raises `KubewrightError`.
    """
    async with events.workflow("upgrade plan", "plan an upgrade") as activity:
        state = await read_state(node.host, kube)
        notes: list[str] = []
        if state.unready:
            notes.append(
                f"not Ready: {', '.join(state.unready)}; an upgrade begins with a healthy control plane"
            )
        try:
            socket = await runtime_socket(node.host, "", await read_installed(node.host))
            images: list[str] | None = await images_on(node.host, socket)
        except HostError as error:
            images = None
            notes.append(f"which images this host has is not known: {error.message}")
        if version:
            target = Version.parse(version, field="version")
            upgrades: tuple[Upgrade, ...] = (model.plan(state, target, "the version that was named", images),)
        else:
            known = await released(state.version) if online else []
            if not known:
                notes.append("the index of releases does not answer: only what this host has is shown")
            known += [*model.newest_images(images or ()), *await _kubelet(node)]
            found = model.targets(state.version, known, prerelease=prerelease, candidates=candidates)
            upgrades = tuple(model.plan(state, target, title, images) for target, title in found)
        activity.summary(f"{len(upgrades)} {'upgrade' if len(upgrades) == 1 else 'upgrades'}")
        return Plan(state, upgrades, tuple(notes))


async def _kubelet(node: Node) -> list[Version]:
    """The version of the kubelet that is installed, which may be newer than the one that runs."""
    done = await node.host.shell("kubelet --version", check=False)
    try:
        return [Version.parse(done.text.split()[-1])] if done.ok and done.text else []
    except ConfigError:
        return []


async def diff(
    node: Node,
    cluster: ClusterConfiguration,
    target: Version,
    events: Events,
    *,
    paths: Mapping[str, str] | None = None,
    patches: Sequence[Patch] = (),
    context: int = 3,
) -> dict[str, list[str]]:
    """Static Pods as they are and as another version has them: the lines of a unified diff by path.

    `paths` are those of manifests that are elsewhere than kubeadm puts them. Raises `HostError` on a host that is
    no control plane.
    """
    async with events.workflow("upgrade diff", f"compare with {target}") as activity:
        before = await read_manifests(node.host, paths)
        require_control_plane(node.host, before, paths)
        after = await wanted_pods(node, model.for_version(cluster, target), before, patches)
        found = {}
        for name in (*CONTROL_PLANE, ETCD):
            if name in after:
                path = (paths or {}).get(name) or manifest_path(name)
                found[path] = model.manifest_diff(path, before.get(name), after[name], context=context)
        count = sum(bool(lines) for lines in found.values())
        activity.summary(f"{count} of {len(found)} manifests differ")
        return found


def chosen_version(said: str, configured: str, cluster: str) -> Version:
    """The version that is compared with: the argument, else that of --config, else the cluster's own."""
    text = said or configured or cluster
    if not text:
        raise KubewrightError(
            "which version? none was named", hint="such as: kubewright upgrade diff v1.20.2",
            exit_code=ExitCode.USAGE,
        )  # fmt: skip
    return Version.parse(text, field="version")
