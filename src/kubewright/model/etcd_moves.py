"""etcd moves from the control planes to hosts of its own: what stands in the way, who stays, leads and leaves."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from kubewright.errors import ConfigError, ExitCode
from kubewright.model import backup
from kubewright.model.arguments import client_url
from kubewright.model.config.kubeadm_types import LocalEtcd
from kubewright.model.convert_look import Room
from kubewright.model.etcd_hosts import EtcdHostLook, SeenMember, taken_ports
from kubewright.model.etcd_unit import DATA_DIR, MEMBER_DIR, UNIT, StartState
from kubewright.model.preflight import Finding
from kubewright.model.reset import container_flags, etcd_data_dir, quorum_without
from kubewright.model.status_etcd import MemberAnswer
from kubewright.model.version import Version
from kubewright.model.versions import VersionFacts

QUOTA = 2 << 30
"""Bytes that etcd's database may have where nothing else is said (etcd's documentation, "System limits"): a member
that comes with it and finds more makes the whole etcd read-only."""
_NEARLY = QUOTA * 9 // 10


@dataclass(frozen=True, slots=True)
class Stacked:
    """A control plane's member of etcd, as its static Pod describes it."""

    host: str
    name: str
    """etcd's --name."""
    peer_url: str
    client_urls: tuple[str, ...]
    """Where others reach it."""
    data_dir: str
    """On the host; empty where the Pod does not say."""

    def is_in(self, members: Sequence[SeenMember]) -> SeenMember | None:
        """It, as etcd knows it; None when it has left. One that has started is known by its name."""
        return next(
            (one for one in members if (one.name == self.name if one.started else one.peer_url == self.peer_url)),
            None,
        )  # fmt: skip


def stacked(host: str, address: str, pod: Mapping[str, Any] | None) -> Stacked | None:
    """The member of a static Pod on a host with this address; None where there is no Pod."""
    if not pod:
        return None
    member = backup.member_in(pod)
    told = container_flags(pod).get("advertise-client-urls", "")
    urls = tuple(url for url in told.split(",") if url) or (client_url(address),)
    return Stacked(host, member.name, member.peer_url, urls, etcd_data_dir(pod))


def aside(data_dir: str, backup_id: str) -> tuple[str, str]:
    """A member's data in its directory, and where it is kept when the member has left: its name says when."""
    return f"{data_dir}/member", f"{data_dir}/member.moved-{backup_id}"


def not_ready(members: Sequence[SeenMember], looks: Sequence[EtcdHostLook]) -> list[str]:
    """The hosts whose members cannot be relied on yet, each with why: nobody leaves before there are none."""
    known = {one.peer_url: one for one in members}
    found = []
    for look in looks:
        one = known.get(look.member.peer_url)
        if one is None:
            found.append(f"{look.name} is no member")
        elif one.is_learner or not one.started:
            found.append(f"{look.name} has no vote")
        elif not one.healthy:
            found.append(f"{look.name} does not serve")
    return found


def refusal(members: Sequence[SeenMember], looks: Sequence[EtcdHostLook], leaving: SeenMember) -> str:
    """Why a member must not leave now; empty where it may."""
    if waiting := not_ready(members, looks):
        return "; ".join(waiting)
    voters = [one for one in members if not one.is_learner]
    if leaving.is_learner:
        return ""
    return quorum_without(sum(one.healthy for one in voters if one.id != leaving.id), len(voters))


def heirs(members: Sequence[SeenMember], looks: Sequence[EtcdHostLook]) -> list[SeenMember]:
    """Who may lead: voters on the hosts that serve, in the hosts' order."""
    known = {one.peer_url: one for one in members if one.healthy and one.started and not one.is_learner}
    return [known[look.member.peer_url] for look in looks if look.member.peer_url in known]


# -- before anything is changed -----------------------------------------------------------------------------------


def host_findings(
    looks: Sequence[EtcdHostLook], etcd: Sequence[MemberAnswer], *, other_ca: Sequence[str] = ()
) -> list[Finding]:
    """What must not be on hosts to which etcd moves. Data there may be that of a member of this etcd, or of one
    that is being let in. `other_ca` names the hosts whose etcd's CA is another than the cluster's."""
    ours = {url for answer in etcd for member in answer.listed for url in member.peer_urls}
    found = [*_others_data(looks, ours), *taken_ports(looks)]
    found += [
        Finding(
            name, "it has the CA of another etcd in etcd/ca.crt below the certificates' directory",
            "take the host out of the etcd that it is in, and remove the file with its key",
            ExitCode.HOST_IN_OTHER_CLUSTER,
        )
        for name in other_ca
    ]  # fmt: skip
    return found


def _others_data(looks: Sequence[EtcdHostLook], ours: set[str]) -> Iterator[Finding]:
    for look in looks:
        permit = look.permit
        if permit is not None and permit.state is StartState.NEW:
            yield Finding(
                look.name, "a new etcd was begun there, and the cluster has one: its API would find nothing",
                f"if nobody needs it: `systemctl disable --now {UNIT}`, and remove {MEMBER_DIR} and "
                "/etc/kubernetes/etcd-start.env", ExitCode.HOST_IN_OTHER_CLUSTER,
            )  # fmt: skip
        elif look.has_data and permit is None and look.member.peer_url not in ours:
            yield Finding(
                look.name, f"{DATA_DIR} holds the data of another etcd (P35)",
                f"move {MEMBER_DIR} away if nobody needs it (`systemctl disable --now {UNIT}` first, where that "
                "runs), or take the host out of cluster.yaml", ExitCode.HOST_IN_OTHER_CLUSTER,
            )  # fmt: skip


def etcd_findings(
    etcd: Sequence[MemberAnswer], facts: VersionFacts, rooms: Mapping[str, Room]
) -> Iterator[Finding]:
    """What of the etcd that there is cannot be taken to the hosts: a newer version than theirs, a database larger
    than they take by default, or than there is room for. `rooms` are by host."""
    theirs = Version.parse(facts.etcd_tag, field="etcd")
    for one in etcd:
        if one.words is None or not one.words.version:
            continue
        try:
            its = Version.parse(one.words.version, field="etcd")
        except ConfigError:
            continue
        if (its.major, its.minor) > (theirs.major, theirs.minor):
            yield Finding(
                one.where, f"its etcd is {one.words.version}, and hosts would get {theirs}, which cannot join it",
                "its version is the one that kubeadm gives this version of Kubernetes; upgrade Kubernetes first",
            )  # fmt: skip
    size = max((one.words.database for one in etcd if one.words is not None), default=0)
    if size > _NEARLY:
        yield Finding(
            "etcd", f"its database has {size >> 20} MiB, and members on hosts take {QUOTA >> 20} MiB at most",
            "compact and defragment it (`etcdctl defrag`)",
        )  # fmt: skip
    need = max(64 << 20, 2 * size)
    for host, room in rooms.items():
        if room.free < need:
            yield Finding(
                host, f"{room.place} has {room.free >> 20} MiB free; etcd's member needs {need >> 20} MiB",
                "free some space or enlarge the file system", ExitCode.HOST_DISK_FULL,
            )  # fmt: skip


def left_behind(local: LocalEtcd | None) -> str:
    """What is to be said of arguments that a stacked etcd has by its user's wish, and members on hosts will not
    have; empty where there are none."""
    said = [f"--{name}={value}" for name, value in local.extra_args] if local is not None else []
    return f"etcd's own arguments do not come along to the hosts: {', '.join(said)}" if said else ""
