"""Whether the etcd of a cluster that is to be converted is well, and on what its members listen."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from urllib.parse import urlsplit

from kubewright.model.objects import read_mapping
from kubewright.model.preflight import Finding
from kubewright.model.reset import container_flags
from kubewright.model.status_etcd import ListedMember, MemberAnswer

LOOPBACK = ("localhost", "127.0.0.1", "::1")
# What etcd listens on where nobody says it (etcd's documentation, "Configuration options").
_LISTENS = {"listen-client-urls": "http://localhost:2379", "listen-peer-urls": "http://localhost:2380"}
_MENDS = {
    "NOSPACE": "make room (compact and defragment, or raise --quota-backend-bytes), then `etcdctl alarm disarm`",
    "CORRUPT": "a member's data is damaged: replace that member, then `etcdctl alarm disarm`",
}


def listening(manifest: bytes) -> tuple[bool, bool]:
    """Whether the etcd of a manifest speaks plain http to clients or peers, and whether it serves either of them
    on a loopback address alone."""
    flags = container_flags(read_mapping(manifest) or {})
    groups = [
        [urlsplit(url.strip()) for url in flags.get(name, default).split(",")]
        for name, default in _LISTENS.items()
    ]
    plain = any(url.scheme == "http" for urls in groups for url in urls)
    return plain, any(all(url.hostname in LOOPBACK for url in urls) for urls in groups)


def etcd_findings(
    answers: Sequence[MemberAnswer], planes: Collection[str], *, resumed: bool
) -> Iterator[Finding]:
    """Members that do not serve, learners, members whom nobody hears of, and alarms.

    `planes` are the control planes that there are. In a conversion that goes on members of others are on their
    way, and need not be whole.
    """
    for one in answers:
        if one.words is None:
            yield Finding(one.where, f"etcd does not answer: {one.error}", _LOG)
        elif one.words.learner and not one.listed and not resumed:
            yield Finding(one.where, "its etcd is a learner", _LEARNER)
        elif one.ill:
            yield Finding(one.where, f"etcd does not serve: {one.ill}", _LOG)
    heard = {one.words.id: one for one in answers if one.words is not None}
    listed = {member.id: member for one in answers for member in one.listed}
    where = next((one.where for one in answers if one.listed), "etcd")
    for member in listed.values():
        if resumed and (member.learner or member.name not in planes):
            continue
        if member.learner:
            yield Finding(
                where, f"etcd has a learner, {member.title}: somebody is joining, or did not finish", _LEARNER
            )
        elif member.id not in heard and not _silent(member, answers):
            yield Finding(where, f"etcd has a member {member.title}, which is not heard of", _GONE)
    alarms = {(holder, kind) for one in answers for holder, kinds in one.alarms.items() for kind in kinds}
    for holder, kind in sorted(alarms):
        at = heard[holder].where if holder in heard else where
        yield Finding(at, f"etcd has raised the alarm {kind}", _MENDS.get(kind, "see `etcdctl alarm list`"))


_LOG = "see its log below /var/log/pods, and the kubelet's: journalctl -u kubelet"
_LEARNER = "let the join end first; a learner that nobody comes for goes with `etcdctl member remove`"
_GONE = "start it, or take it out: `kubewright node remove`, or `etcdctl member remove`"


def _silent(member: ListedMember, answers: Sequence[MemberAnswer]) -> bool:
    """Whether it is one that was asked and did not answer, which has been said."""
    return any(one.words is None and one.where in (member.name, *member.client_urls) for one in answers)
