"""What the hosts with the role `etcd` have to do: decided from what they hold and what the members say."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from kubewright.errors import ExitCode
from kubewright.model.arguments import ETCD_CLIENT_PORT, ETCD_PEER_PORT, EtcdMember, peer_url
from kubewright.model.etcd_unit import DATA_DIR, MEMBER_DIR, UNIT, Permit, StartState, names
from kubewright.model.preflight import Finding

PORTS = (ETCD_CLIENT_PORT, ETCD_PEER_PORT)


@dataclass(frozen=True, slots=True)
class EtcdHostLook:
    """What one host holds of etcd."""

    name: str
    address: str
    has_unit: bool = False
    has_data: bool = False
    permit: Permit | None = None
    active: bool = False
    """Whether its unit runs, or tries to."""
    listening: Mapping[int, str] = field(default_factory=dict)
    """TCP ports that are listened on, and by what."""

    @property
    def member(self) -> EtcdMember:
        """The member that it is or is to be."""
        return EtcdMember(self.name, peer_url(self.address))

    @property
    def settled(self) -> bool:
        """Whether it is a member for good, by its own account."""
        return self.has_data and self.permit is None

    def has_begun(self, permit: Permit) -> bool:
        """Whether it has data of the very start that `permit` is for, which goes on with what it has: what it has
        told the others is no more to be forgotten."""
        mine = self.permit
        return (
            self.has_data and mine is not None and mine.state is permit.state and self.member in mine.members
        )


@dataclass(frozen=True, slots=True)
class SeenMember:
    """A member as the others know it."""

    id: int
    name: str
    """Empty until it has started."""
    peer_url: str
    is_learner: bool = False
    healthy: bool = False

    @property
    def started(self) -> bool:
        """Whether it has ever run and reached the others."""
        return bool(self.name)

    def __str__(self) -> str:
        return f"{'learner' if self.is_learner else 'member'} {self.name or f'{self.id:x}'} ({self.peer_url})"


class Step(StrEnum):
    """What is done next about one member."""

    REMOVE = "remove"
    ADD = "add"
    START = "start"
    PROMOTE = "promote"
    SETTLE = "settle"


@dataclass(frozen=True, slots=True)
class Task:
    """One step, and what it is about."""

    step: Step
    peer_url: str
    host: str = ""
    """The host's name; empty for a member of none of ours."""
    member: SeenMember | None = None
    why: str = ""

    def __str__(self) -> str:
        about = f"etcd member {self.host}" if self.host else f"etcd {self.member}"
        return f"{about}{f' ({self.why})' if self.why else ''}"


def is_formed(looks: Sequence[EtcdHostLook]) -> bool:
    """Whether there is a cluster, running or not. Without one the hosts found it, or go on founding it.

    A founder keeps its permit until all founders serve, so that one who has data and none, or who was let into a
    cluster that existed, is proof of one.
    """
    return any(
        look.has_data and (look.permit is None or look.permit.state is StartState.EXISTING) for look in looks
    )


def founding(looks: Sequence[EtcdHostLook]) -> Permit:
    """The permit with which they found the cluster, the same on all of them."""
    return Permit(StartState.NEW, tuple(look.member for look in looks))


def host_findings(looks: Sequence[EtcdHostLook], absent: Collection[str] = ()) -> list[Finding]:
    """What must not be on these hosts before etcd is. `absent` are those that cannot be looked at."""
    return [*_foreign(looks), *taken_ports(looks), *([] if is_formed(looks) else _founding(looks, absent))]


def _foreign(looks: Sequence[EtcdHostLook]) -> Iterator[Finding]:
    for look in looks:
        if look.has_data and not look.has_unit:
            yield Finding(
                look.name, f"{DATA_DIR} holds the data of an etcd that Kubewright has not put there (P35)",
                f"move {MEMBER_DIR} away if nobody needs it, or take the host out of cluster.yaml",
                ExitCode.HOST_IN_OTHER_CLUSTER,
            )  # fmt: skip


def taken_ports(looks: Sequence[EtcdHostLook]) -> Iterator[Finding]:
    """P44: who else listens where etcd is to."""
    for look in looks:
        for port in PORTS:
            if port in look.listening and not look.active:
                who = look.listening[port] or "another process"
                yield Finding(
                    look.name, f"{who} listens on port {port}, which etcd needs (P44)",
                    f"stop it (Debian's own etcd: systemctl disable --now etcd); ours is {UNIT}",
                )  # fmt: skip


def _founding(looks: Sequence[EtcdHostLook], absent: Collection[str]) -> Iterator[Finding]:
    wanted = founding(looks)
    for look in looks:
        permit = look.permit
        if look.has_data and permit is not None and set(permit.members) != set(wanted.members):
            yield Finding(
                look.name,
                f"it has begun an etcd with {names(permit.members)}, and cluster.yaml names "
                f"{names(wanted.members)}",
                f"apply the cluster.yaml of before until etcd runs, and then this one; or move {MEMBER_DIR} away, "
                "which holds nothing yet",
            )
    for name in absent:
        yield Finding(
            name, "a new etcd starts with all of its hosts, and this one cannot be reached",
            "start it, or take it out of cluster.yaml", ExitCode.HOST_UNREACHABLE,
        )  # fmt: skip


def tasks(
    members: Sequence[SeenMember], looks: Sequence[EtcdHostLook], absent: Collection[str] = ()
) -> list[Task]:
    """What is left to do on a cluster that runs, in order; after each step the rest is decided anew.

    `absent` are names of hosts of the cluster that cannot be looked at: their members stay. What was begun is
    finished first; then who is gone leaves, because etcd takes nobody in while a voter is away; and who serves
    leaves only when its successors do.
    """
    by_peer = {look.member.peer_url: look for look in looks}
    known = {member.peer_url for member in members}
    strays = [one for one in members if one.peer_url not in by_peer and one.name not in absent]
    ours = [(one, by_peer[one.peer_url]) for one in members if one.peer_url in by_peer]
    found = [_removal(one, "announced, and never started") for one in strays if not one.started]
    found += [task for one, look in ours if (task := _unfinished(one, look))]
    found += [_removal(one, "gone") for one in strays if one.started and not one.healthy]
    found += [
        Task(Step.REMOVE, one.peer_url, look.name, one, "its data is gone")
        for one, look in ours
        if one.started and not look.has_data
    ]
    found += [Task(Step.ADD, peer, look.name) for peer, look in by_peer.items() if peer not in known]
    found += [
        Task(Step.ADD, one.peer_url, look.name, why="anew")
        for one, look in ours
        if one.started and not look.has_data
    ]
    found += [_removal(one, "no longer in cluster.yaml") for one in strays if one.started and one.healthy]
    return found


def needed_for_restart(members: Sequence[SeenMember], peer: str) -> list[SeenMember]:
    """The voters that do not serve, and without whom the member at `peer` must not end: those that serve would be
    no majority. Empty where it may restart, be it as one of two, for which there is no better moment."""
    voters = [one for one in members if not one.is_learner]
    others = [one for one in voters if one.peer_url != peer]
    down = [one for one in others if not one.healthy]
    if len(others) == len(voters) or len(others) - len(down) >= len(voters) // 2 + 1:
        return []
    return down


def _unfinished(member: SeenMember, look: EtcdHostLook) -> Task | None:
    if not member.started:
        return Task(Step.START, member.peer_url, look.name, member)
    if not look.has_data:
        return None
    if member.is_learner:
        return Task(Step.PROMOTE, member.peer_url, look.name, member)
    if look.permit is not None:
        return Task(Step.SETTLE, member.peer_url, look.name, member)
    return None


def _removal(member: SeenMember, why: str) -> Task:
    return Task(Step.REMOVE, member.peer_url, "", member, why)


def returned(task: Task, look: EtcdHostLook) -> Finding | None:
    """Why a host cannot be added: it holds the data of a member that has left, which etcd would refuse."""
    if task.step is not Step.ADD or not look.settled:
        return None
    return Finding(
        look.name, f"{MEMBER_DIR} holds the data of a member that has left this etcd",
        f"move it away on the host: `systemctl stop {UNIT} && mv {MEMBER_DIR} {DATA_DIR}/member.old`; then apply "
        "again",
    )  # fmt: skip
