"""How the control planes of a stacked etcd come together: as one new cluster, or one by one into one that runs.

A member's manifest says with whom it was begun, and etcd reads that once, before it has data. So the manifests and
the data that are on the hosts tell what an interrupted run was about.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import yaml

from kubewright.model.arguments import EtcdMember, peer_url
from kubewright.model.reset import container_flags, etcd_data_dir

NEW = "new"
EXISTING = "existing"


@dataclass(frozen=True, slots=True)
class Begun:
    """With whom a member was begun: what its manifest says."""

    members: tuple[EtcdMember, ...]
    """Empty for the only member of a new cluster, as kubeadm writes it."""
    state: str
    """`new`, `existing`, or empty where the manifest does not say it, which means new."""

    @property
    def joined(self) -> bool:
        """Whether it was added to a cluster that was there."""
        return self.state == EXISTING


@dataclass(frozen=True, slots=True)
class PlaneLook:
    """What one control plane's host holds of etcd."""

    name: str
    address: str
    begun: Begun | None = None
    """None without a manifest."""
    has_data: bool = False
    has_api_server: bool = False
    """Whether its API server's manifest is there, which comes when an added member has its vote."""
    has_ca: bool = False
    """Whether the cluster's CA is there, without which a control plane is none any more."""

    @property
    def is_member(self) -> bool:
        """Whether it is a member for good, of a cluster that may be whole or not."""
        return self.begun is not None and self.has_data and (self.has_api_server or not self.begun.joined)


class EtcdRole(StrEnum):
    """What a control plane's member of etcd has to do now."""

    FOUND = "found"
    """It starts as one of a new cluster's members, or is about to."""
    SERVE = "serve"
    """It is a member."""
    GROW = "grow"
    """It is added to the cluster that runs, or its addition is finished."""
    COME = "come"
    """It has no member, because etcd is elsewhere, and comes to a cluster that other control planes have begun."""


@dataclass(frozen=True, slots=True)
class Formation:
    """Who does what, by name."""

    roles: dict[str, EtcdRole]
    founders: tuple[EtcdMember, ...] = ()
    """The members of the new cluster; the same, in the same order, on all of them."""

    def begun(self) -> Begun:
        """What a founder's manifest says. The only one says it as kubeadm does."""
        return Begun(self.founders, NEW) if len(self.founders) > 1 else Begun((), "")


def data_dir_in(manifest: bytes | None) -> str:
    """Where on its host the etcd of a manifest keeps its data; empty where the manifest does not say."""
    return etcd_data_dir(_pod_in(manifest))


def begun_in(manifest: bytes | None) -> Begun | None:
    """What an etcd manifest says; None where there is none, or no etcd in it."""
    flags = container_flags(_pod_in(manifest))
    if "initial-cluster" not in flags:
        return None
    rows = [item.partition("=") for item in flags["initial-cluster"].split(",")]
    members = tuple(EtcdMember(name, url) for name, _, url in rows)
    state = flags.get("initial-cluster-state", "")
    return Begun((), "") if len(members) == 1 and not state else Begun(members, state)


def _pod_in(manifest: bytes | None) -> dict[str, Any]:
    try:
        pod = yaml.safe_load(manifest or b"")
    except yaml.YAMLError:
        return {}
    return pod if isinstance(pod, dict) else {}


def formation(planes: Sequence[PlaneLook], *, decided: bool = False) -> Formation:
    """What each control plane has to do.

    Without any etcd they all found one. Where manifests name founders of whom so few have data that they cannot
    have decided anything, the foundation was interrupted, and goes on with the same ones: who has never voted may
    start as a founder. In all other cases there is a cluster, and who has no data is added to it. A founder whose
    host cannot be looked at may have data. `decided` says that those with data have been a cluster, whatever the
    manifests name: most of its founders have left it since.
    """
    founders = _founders(planes)
    names = {member.name for member in founders}
    without = {plane.name for plane in planes if plane.name in names and not plane.has_data}
    unfinished = not decided and len(founders) - len(without) < len(founders) // 2 + 1
    roles = {}
    for plane in planes:
        if plane.is_member or (plane.has_data and plane.name in names):
            roles[plane.name] = EtcdRole.SERVE
        elif unfinished and plane.name in without:
            roles[plane.name] = EtcdRole.FOUND
        else:
            roles[plane.name] = EtcdRole.GROW
    return Formation(roles, founders)


def without_etcd(planes: Sequence[PlaneLook]) -> Formation:
    """What each control plane is where etcd is elsewhere: who has an API server has begun the cluster."""
    begun = [plane.name for plane in planes if plane.has_api_server]
    return Formation(
        {
            plane.name: EtcdRole.SERVE if plane.name in begun or not begun else EtcdRole.COME
            for plane in planes
        }
    )


def missed(planes: Sequence[str], there: Collection[str]) -> list[str]:
    """Of all control planes those who are not `there`, where the others have no majority of etcd as long as one of
    them starts anew; empty where they have, and where nobody is missed."""
    away = [name for name in planes if name not in there]
    return away if away and len(planes) - len(away) - 1 < len(planes) // 2 + 1 else []


def _founders(planes: Sequence[PlaneLook]) -> tuple[EtcdMember, ...]:
    """Those who began the cluster: as a manifest says, or where there is none those with data, or all."""
    for plane in planes:
        if plane.begun is not None and not plane.begun.joined:
            return plane.begun.members or (_member(plane),)
    if any(plane.begun is not None for plane in planes):
        return ()
    return tuple(map(_member, [plane for plane in planes if plane.has_data] or planes))


def _member(plane: PlaneLook) -> EtcdMember:
    return EtcdMember(plane.name, peer_url(plane.address))
