"""What the answers of etcd's members add up to."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from kubewright.model.status_etcd import (
    FAR_BEHIND,
    EtcdStatus,
    ListedMember,
    MemberAnswer,
    MemberWords,
    etcd_status,
)

NAMES = ("cp1", "cp2", "cp3")
LISTED = tuple(
    ListedMember(number, name, (f"https://10.0.0.{number}:2380",), (f"https://10.0.0.{number}:2379",))
    for number, name in enumerate(NAMES, 1)
)


def words(id_: int, **more: Any) -> MemberWords:
    said: dict[str, Any] = {"version": "3.4.23", "leader": 1, "term": 5, "index": 100, "database": 4096}
    return MemberWords(id_, **said | more)


def answer(id_: int, **more: Any) -> MemberAnswer:
    return MemberAnswer(NAMES[id_ - 1], words(id_, **more), listed=LISTED)


def silent(name: str) -> MemberAnswer:
    return MemberAnswer(name, error="nothing listens there")


def status(*answers: MemberAnswer, external: bool = False) -> EtcdStatus:
    found = etcd_status(answers, external=external)
    assert found is not None
    return found


def test_nobody_was_asked() -> None:
    assert etcd_status([]) is None


def test_three_of_three() -> None:
    found = status(answer(1), answer(2, index=97), answer(3, index=101))
    assert (found.leader, found.voters, found.answering, found.may_fail) == ("cp1", 3, 3, 1)
    assert [(row.name, row.leader, row.lag, row.id) for row in found.members] == [
        ("cp1", True, 0, "1"), ("cp2", False, 3, "2"), ("cp3", False, 0, "3"),
    ]  # fmt: skip
    assert found.problems == ()


def test_one_that_is_silent_is_named_with_its_reason() -> None:
    found = status(answer(1), answer(2), silent("cp3"))
    assert (found.answering, found.may_fail) == (2, 0)
    assert found.problems == ("etcd member cp3: does not answer: nothing listens there",)


def test_one_whose_host_nobody_could_ask_is_known_by_the_others() -> None:
    found = status(answer(1), answer(2))
    assert [row.answers for row in found.members] == [True, True, False]
    assert found.problems == ("etcd member cp3: does not answer: nobody could ask it",)


def test_no_quorum() -> None:
    found = status(answer(2, leader=0), silent("cp1"), silent("cp3"))
    assert (found.leader, found.answering, found.quorum) == ("", 1, 2)
    assert found.problems[0] == "etcd has no leader: 1 of 3 voters answers, 2 are needed"
    assert next(row for row in found.members if row.name == "cp2").lag is None


def test_all_are_silent() -> None:
    found = status(*(silent(name) for name in NAMES))
    assert (found.voters, found.answering, found.may_fail) == (0, 0, 0)
    assert found.problems[0] == "etcd: nobody says who its members are"
    assert len(found.problems) == 4


def test_a_leader_of_an_earlier_term_does_not_count() -> None:
    """cp1 is cut off and has not heard of the election."""
    found = status(
        answer(1, term=5, index=90), answer(2, leader=2, term=6), answer(3, leader=2, term=6, index=99)
    )
    assert found.leader == "cp2"
    assert found.problems == ("etcd member cp1: follows another leader, 1",)


def test_a_member_without_a_leader_is_named() -> None:
    found = status(answer(1), answer(2), answer(3, leader=0, errors=("etcdserver: no leader",)))
    assert found.problems == ("etcd member cp3: has no leader",)


def test_a_learner_has_no_vote_and_is_no_problem() -> None:
    listed = (*LISTED[:2], replace(LISTED[2], learner=True))
    found = status(
        replace(answer(1), listed=listed), answer(2), MemberAnswer("cp3", words(3, learner=True, index=10))
    )
    assert (found.voters, found.answering, found.may_fail) == (2, 2, 0)
    assert [(row.learner, row.lag) for row in found.members][2] == (True, 90)
    assert found.problems == ()


def test_one_that_has_never_started_is_named_by_its_address() -> None:
    new = ListedMember(9, "", ("https://10.0.0.9:2380",), learner=True)
    found = status(*(replace(answer(number), listed=(*LISTED, new)) for number in (1, 2, 3)))
    assert found.voters == 3
    assert found.problems == (
        "etcd member https://10.0.0.9:2380: it has never started; does not answer: nobody could ask it",
    )


def test_far_behind_is_a_problem_and_a_little_is_none() -> None:
    def found(behind: int) -> EtcdStatus:
        return status(answer(1, index=10**6), answer(2, index=10**6), answer(3, index=10**6 - behind))

    assert found(FAR_BEHIND).problems == ()
    assert found(FAR_BEHIND + 1).problems == ("etcd member cp3: is 5001 entries behind the leader",)


def test_alarms_are_said_once_whoever_tells_them() -> None:
    said = {2: ("NOSPACE",)}
    full = replace(answer(2, errors=("memberID:2 alarm:NOSPACE ",)), alarms=said, ill="ALARM NOSPACE")
    found = status(replace(answer(1), alarms=said), full, answer(3))
    assert found.members[1].alarms == ("NOSPACE",)
    assert found.problems == ("etcd member cp2: alarm NOSPACE",)


def test_one_that_does_not_serve_says_why() -> None:
    found = status(answer(1), answer(2), replace(answer(3), ill="RAFT NO LEADER"))
    assert found.problems == ("etcd member cp3: does not serve: RAFT NO LEADER",)


def test_one_that_was_taken_out_and_runs_is_no_voter() -> None:
    stranger = MemberAnswer("cp4", words(9, leader=9, term=2), listed=(ListedMember(9, "cp4"),))
    found = status(answer(1), answer(2), answer(3), stranger)
    assert (found.voters, found.answering, found.leader) == (3, 3, "cp1")
    assert found.problems == (
        "etcd member cp4: is no member of this etcd: it was taken out, or belongs to another cluster",
    )


def test_members_of_an_external_etcd_go_by_their_urls() -> None:
    answers = [replace(answer(number), where=LISTED[number - 1].client_urls[0]) for number in (1, 2)]
    lost = replace(silent("cp3"), where="https://10.0.0.3:2379")
    found = status(*answers, lost, external=True)
    assert [row.name for row in found.members] == list(NAMES)
    assert found.problems == ("etcd member cp3: does not answer: nothing listens there",)
