"""What the members of etcd say of themselves, added up: who leads, who learns, who lags, and what is wrong."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

FAR_BEHIND = 5000
"""Entries of the raft log. etcd keeps as many for a member that is slow (its `SnapshotCatchUpEntries`); one that
is further behind needs the whole database anew. Less may just have been written between two of our questions."""


@dataclass(frozen=True, slots=True)
class ListedMember:
    """A member as the others list it."""

    id: int
    name: str
    """Empty until it has started for the first time."""
    peer_urls: tuple[str, ...] = ()
    client_urls: tuple[str, ...] = ()
    learner: bool = False

    @property
    def title(self) -> str:
        """Its name, else where its peers reach it, else its id."""
        return self.name or ", ".join(self.peer_urls) or f"{self.id:x}"


@dataclass(frozen=True, slots=True)
class MemberWords:
    """What a member says of itself. Sizes are in bytes; 0 as the leader is nobody."""

    id: int
    version: str = ""
    leader: int = 0
    learner: bool = False
    database: int = 0
    database_in_use: int = 0
    term: int = 0
    index: int = 0
    errors: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class MemberAnswer:
    """What became of asking one member."""

    where: str
    """The host that it was looked for on, else its endpoint."""
    words: MemberWords | None = None
    error: str = ""
    """Why there are no words."""
    ill: str = ""
    """Why it does not serve, in its own words."""
    listed: tuple[ListedMember, ...] = ()
    """All members as it knows them."""
    alarms: Mapping[int, tuple[str, ...]] = field(default_factory=dict)
    """The kinds of alarm that members, by their ids, have raised."""


@dataclass(frozen=True, slots=True)
class MemberStatus:
    """One member of etcd."""

    name: str
    id: str
    """In hexadecimal, as etcd's own tools write it; empty where it is not known."""
    answers: bool
    leader: bool = False
    learner: bool = False
    version: str = ""
    database: int = 0
    database_in_use: int = 0
    term: int = 0
    index: int = 0
    lag: int | None = None
    """Entries of the raft log that the leader has and this member has not; None where nobody leads."""
    alarms: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class EtcdStatus:
    """The cluster that etcd's members are."""

    external: bool
    leader: str
    """Empty where nobody leads."""
    voters: int
    """0 where nobody could say who they are."""
    answering: int
    """Of the voters."""
    members: tuple[MemberStatus, ...]
    problems: tuple[str, ...] = ()

    @property
    def quorum(self) -> int:
        """The voters that are needed for a decision."""
        return self.voters // 2 + 1

    @property
    def may_fail(self) -> int:
        """How many more voters may fail before nothing can be written."""
        return max(self.answering - self.quorum, 0)


def etcd_status(answers: Sequence[MemberAnswer], *, external: bool = False) -> EtcdStatus | None:
    """What all answers add up to; None where nobody was asked."""
    if not answers:
        return None
    heard = {answer.words.id: answer for answer in answers if answer.words is not None}
    leader = _leader(heard.values())
    listed = _listed(answers, leader)
    alarms = _alarms(answers)
    lost = {answer.where: answer for answer in answers if answer.words is None}
    rows = [
        _member(one, heard.get(one.id), _lost(one, lost), leader, alarms.get(one.id, ())) for one in listed
    ]
    known = {one.id for one in listed}
    rows += [_stranger(answer, listed=bool(listed)) for id_, answer in heard.items() if id_ not in known]
    rows += [
        MemberStatus(answer.where, "", answers=False, problems=(f"does not answer: {answer.error}",))
        for answer in lost.values()
        if not any(_is(one, answer.where) for one in listed)
    ]
    voters = [row for row, one in zip(rows, listed, strict=False) if not one.learner]
    status = EtcdStatus(
        external,
        next((row.name for row in rows if row.leader), ""),
        len(voters),
        sum(1 for row in voters if row.answers),
        tuple(rows),
    )
    return EtcdStatus(
        status.external,
        status.leader,
        status.voters,
        status.answering,
        status.members,
        tuple(_problems(status)),
    )


def _leader(heard: Iterable[MemberAnswer]) -> MemberWords | None:
    """Who says that it leads; of two, the one with the later term: the other has not heard of its end yet."""
    words = [answer.words for answer in heard if answer.words is not None]
    leaders = [one for one in words if one.leader == one.id]
    return max(leaders, key=lambda one: one.term, default=None)


def _listed(answers: Sequence[MemberAnswer], leader: MemberWords | None) -> tuple[ListedMember, ...]:
    """The members as the leader lists them, else whoever is furthest."""
    lists = [(answer.words, answer.listed) for answer in answers if answer.words and answer.listed]
    for words, listed in lists:
        if leader is not None and words.id == leader.id:
            return listed
    return max(lists, key=lambda one: (one[0].term, one[0].index), default=(None, ()))[1]


def _alarms(answers: Iterable[MemberAnswer]) -> dict[int, tuple[str, ...]]:
    found: dict[int, set[str]] = {}
    for answer in answers:
        for id_, kinds in answer.alarms.items():
            found.setdefault(id_, set()).update(kinds)
    return {id_: tuple(sorted(kinds)) for id_, kinds in found.items()}


def _is(member: ListedMember, where: str) -> bool:
    return where == member.name or where in member.client_urls


def _lost(member: ListedMember, lost: Mapping[str, MemberAnswer]) -> str:
    """Why a member has not answered."""
    return next((answer.error for where, answer in lost.items() if _is(member, where)), "")


def _member(
    one: ListedMember,
    answer: MemberAnswer | None,
    error: str,
    leader: MemberWords | None,
    alarms: tuple[str, ...],
) -> MemberStatus:
    problems = [f"alarm {kind}" for kind in alarms]
    if answer is None or answer.words is None:
        never = "" if one.name else "it has never started; "
        problems.append(f"{never}does not answer: {error or 'nobody could ask it'}")
        return MemberStatus(
            one.title,
            f"{one.id:x}",
            answers=False,
            learner=one.learner,
            alarms=alarms,
            problems=tuple(problems),
        )
    words = answer.words
    lag = max(leader.index - words.index, 0) if leader is not None else None
    if leader is not None and words.leader != leader.id:
        problems.append("has no leader" if not words.leader else f"follows another leader, {words.leader:x}")
    elif lag is not None and lag > FAR_BEHIND:
        problems.append(f"is {lag} entries behind the leader")
    if answer.ill and leader is not None and words.leader == leader.id and not alarms:
        problems.append(f"does not serve: {answer.ill}")
    # An alarm and the missing leader stand among a member's errors, too, in other words.
    problems += [text for text in words.errors if "alarm" not in text and "no leader" not in text]
    return MemberStatus(
        one.title, f"{one.id:x}", answers=True, leader=leader is not None and words.id == leader.id,
        learner=words.learner, version=words.version, database=words.database,
        database_in_use=words.database_in_use, term=words.term, index=words.index, lag=lag, alarms=alarms,
        problems=tuple(problems),
    )  # fmt: skip


def _stranger(answer: MemberAnswer, *, listed: bool) -> MemberStatus:
    """One that answers and that the others do not list: it has been taken out, or is of another cluster."""
    words = answer.words
    assert words is not None
    problem = "is no member of this etcd: it was taken out, or belongs to another cluster"
    return MemberStatus(
        answer.where, f"{words.id:x}", answers=True, learner=words.learner, version=words.version,
        database=words.database, database_in_use=words.database_in_use, term=words.term, index=words.index,
        problems=(problem,) if listed else (),
    )  # fmt: skip


def _problems(status: EtcdStatus) -> Iterable[str]:
    if not status.leader and not status.voters:
        yield "etcd: nobody says who its members are"
    elif not status.leader:
        plural = "s" if status.answering != 1 else ""
        yield (
            f"etcd has no leader: {status.answering} of {status.voters} voters answer{'' if plural else 's'}, "
            f"{status.quorum} are needed"
        )
    for row in status.members:
        yield from (f"etcd member {row.name}: {problem}" for problem in row.problems)
