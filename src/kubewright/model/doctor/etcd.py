"""Diagnoses of etcd: members that are away, a majority that is missing, and alarms (P01, P20)."""

from __future__ import annotations

from collections.abc import Iterator

from kubewright.model.doctor.facts import DoctorFacts, NodeFacts
from kubewright.model.doctor.finding import Finding, Severity
from kubewright.model.doctor.look import Unit
from kubewright.model.doctor.pods import last_words
from kubewright.model.etcd_unit import UNIT
from kubewright.model.status_etcd import EtcdStatus, MemberStatus

_NO_UNIT = Unit("not-found", "", "", "", "")
_NAME = UNIT.removesuffix(".service")
_WITHOUT_ETCD = "nothing can be written or read: kubectl fails, nothing is scheduled, no Pod is replaced"


def member_down(facts: DoctorFacts) -> Iterator[Finding]:
    """Members that do not answer, each with what its container or unit says (P01)."""
    status = facts.status.etcd
    if status is None:
        return
    for one in status.members:
        if one.answers:
            continue
        node = facts.node(one.name)
        stacked = None if status.external else node
        words = (
            (*_unit(node), *(last_words(node, "etcd") if node.look and node.look.joined else ()))
            if node
            else ()
        )
        why = [problem for problem in one.problems if not problem.startswith("alarm ")]
        yield Finding(
            "etcd-removed" if _removed(stacked) else "etcd-member-down",
            Severity.ERROR,
            _what(stacked),
            hosts=(one.name,),
            pitfall="P01",
            evidence=(*(f"etcd member {one.name}: {line}" for line in why), *words),
            breaks=_breaks(status, led=_led(facts)),
            mend=_mend(status, one, node),
        )


def _unit(node: NodeFacts) -> tuple[str, ...]:
    """The state of an etcd that is a unit on a host of its own."""
    unit = node.look.units.get(_NAME) if node.look else None
    return (f"{UNIT}: {unit.words}",) if unit is not None and unit.exists else ()


def _removed(node: NodeFacts | None) -> bool:
    """Whether the manifest of a stacked etcd has been taken away."""
    look, runtime = (node.look, node.runtime) if node else (None, None)
    return (
        look is not None
        and runtime is not None
        and runtime.answers
        and look.joined
        and look.has_plane
        and "etcd" not in look.manifests
        and not look.units.get(_NAME, _NO_UNIT).exists
    )


def _what(node: NodeFacts | None) -> str:
    if _removed(node):
        return "etcd is not started: its manifest is gone"
    runtime = node.runtime if node else None
    if runtime is not None and runtime.answers and not runtime.runs("etcd"):
        return "etcd does not run"
    return "this member of etcd does not answer"


def _breaks(status: EtcdStatus, *, led: bool) -> str:
    if status.voters and status.answering >= status.quorum:
        if status.may_fail:
            return f"{status.answering} of {status.voters} voters go on; {status.may_fail} more may fail"
        return f"{status.answering} of {status.voters} voters go on, and no more may fail"
    if led:
        return f"{status.answering} of {status.voters} voters answer us; they say that somebody leads"
    return _WITHOUT_ETCD


def _mend(status: EtcdStatus, member: MemberStatus, node: NodeFacts | None) -> tuple[str, ...]:
    look = node.look if node else None
    if node is not None and look is None:
        return (
            f"bring host {member.name} back, or take it out for good: kubewright node remove {member.name}",
        )
    if not status.external and _removed(node):
        return (f"write its manifest again: kubewright apply -f cluster.yaml (on {member.name})",)
    if look is not None and (unit := look.units.get(_NAME)) is not None and unit.exists:
        return (f"systemctl restart {UNIT}", f"journalctl -u {UNIT} -n 50")
    steps = ["journalctl -u kubelet -n 50", "tail -n 50 /var/log/pods/kube-system_etcd-*/etcd/*.log"]
    if status.voters == 1:
        steps.append(
            "where its data is damaged: restore a snapshot; three control planes keep one loss from mattering"
        )
    return tuple(steps)


def no_quorum(facts: DoctorFacts) -> Iterator[Finding]:
    """No majority of voters, or no leader among those that answer (P01)."""
    status = facts.status.etcd
    if status is None or status.leader or not status.members or _led(facts):
        return
    if status.voters and status.answering >= status.quorum:
        yield Finding(
            "etcd-no-quorum",
            Severity.ERROR,
            "etcd has no leader although enough of its members answer",
            pitfall="P01",
            evidence=_all_problems(status),
            breaks=_WITHOUT_ETCD,
            mend=("look at the disks and clocks of its hosts, and whether port 2380 is open between them",),
        )
    else:
        known = f"{status.answering} of {status.voters} voters answer, {status.quorum} are needed"
        yield Finding(
            "etcd-no-quorum",
            Severity.ERROR,
            "etcd has lost its majority",
            pitfall="P01",
            evidence=(known if status.voters else "nobody says who its members are", *_all_problems(status)),
            breaks=_WITHOUT_ETCD,
            mend=(
                "bring the members back that are named; where they are lost, restore a snapshot on one host",
            ),
        )


def _led(facts: DoctorFacts) -> bool:
    """Whether a member says that somebody leads: then there is a majority, although we may not reach it."""
    return any(answer.words is not None and answer.words.leader for answer in facts.asked.etcd)


def _all_problems(status: EtcdStatus) -> tuple[str, ...]:
    return tuple(f"etcd member {one.name}: {problem}" for one in status.members for problem in one.problems)


def alarms(facts: DoctorFacts) -> Iterator[Finding]:
    """Alarms that members have raised: no room in the database, or data that differs."""
    status = facts.status.etcd
    for one in status.members if status else ():
        if "NOSPACE" in one.alarms:
            yield Finding(
                "etcd-alarm",
                Severity.ERROR,
                "etcd's database has reached its quota, and takes no more writes",
                hosts=(one.name,),
                pitfall="P20",
                evidence=(
                    f"etcd member {one.name}: alarm NOSPACE, database of {one.database // 1_000_000} MB, "
                    f"{one.database_in_use // 1_000_000} MB of it in use",
                ),
                breaks="nothing can be written: no Pod is made or moved, no Lease renewed",
                mend=(
                    "etcdctl compact REVISION && etcdctl defrag --cluster && etcdctl alarm disarm",
                    "raise --quota-backend-bytes in /etc/kubernetes/manifests/etcd.yaml if that is not enough",
                ),
            )
        if "CORRUPT" in one.alarms:
            yield Finding(
                "etcd-alarm",
                Severity.ERROR,
                "etcd has found that a member's data differs from the others'",
                hosts=(one.name,),
                evidence=(f"etcd member {one.name}: alarm CORRUPT",),
                breaks="the cluster may answer differently from member to member",
                mend=(f"kubewright node remove {one.name}, and join it again with empty data",),
            )


def strangers(facts: DoctorFacts) -> Iterator[Finding]:
    """Members that answer and do not do their part: far behind, with another leader, or taken out."""
    status = facts.status.etcd
    if status is None or not status.leader:
        return
    for one in status.members:
        problems = [problem for problem in one.problems if not problem.startswith("alarm ")]
        if one.answers and problems:
            yield Finding(
                "etcd-member-ill",
                Severity.ERROR,
                "a member of etcd answers, and does not do its part",
                hosts=(one.name,),
                pitfall="P01",
                evidence=tuple(f"etcd member {one.name}: {problem}" for problem in problems),
                breaks=_breaks(status, led=True),
                mend=(
                    "tail -n 50 /var/log/pods/kube-system_etcd-*/etcd/*.log",
                    "is its disk slow, or its clock wrong?",
                ),
            )


DIAGNOSES = (member_down, no_quorum, alarms, strangers)
