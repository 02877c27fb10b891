"""What hosts of an etcd have to do, tried out on a cluster that is a list of members."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import pytest

from kubewright.model.arguments import EtcdMember, peer_url
from kubewright.model.config.kubeadm import default_cluster_configuration
from kubewright.model.config.load import parse_cluster
from kubewright.model.etcd_hosts import (
    EtcdHostLook,
    SeenMember,
    Step,
    founding,
    host_findings,
    is_formed,
    needed_for_restart,
    returned,
    tasks,
)
from kubewright.model.etcd_unit import (
    MEMBER_DIR,
    PERMIT_PATH,
    WAL_DIR,
    Permit,
    StartState,
    etcd_unit,
    read_permit,
)
from kubewright.model.node import ControlPlaneNode
from kubewright.model.versions import facts_for


def look(number: int, **fields: object) -> EtcdHostLook:
    base = EtcdHostLook(f"e{number}", f"192.0.2.{number}", has_unit=True, has_data=True, active=True)
    return replace(base, **fields)  # type: ignore[arg-type]


def blank(number: int, address: str = "") -> EtcdHostLook:
    return EtcdHostLook(f"e{number}", address or f"192.0.2.{number}")


def seen(number: int, **fields: object) -> SeenMember:
    base = SeenMember(number, f"e{number}", peer_url(f"192.0.2.{number}"), healthy=True)
    return replace(base, **fields)  # type: ignore[arg-type]


@dataclass
class Cluster:
    """etcd and its hosts, as far as the steps change them; with what etcd itself insists on."""

    members: list[SeenMember]
    looks: list[EtcdHostLook]
    absent: tuple[str, ...] = ()
    done: list[str] = field(default_factory=list)
    next_id: int = 100

    def run(self, steps: int = 50) -> list[str]:
        while (found := tasks(self.members, self.looks, self.absent)) and steps:
            steps -= 1
            task = found[0]
            self.done.append(f"{task.step} {task.host or (task.member and task.member.name) or '?'}")
            getattr(self, task.step)(task)
        return self.done

    def _member(self, url: str) -> SeenMember:
        return next(one for one in self.members if one.peer_url == url)

    def _change(self, url: str, **fields: object) -> None:
        self.members = [replace(m, **fields) if m.peer_url == url else m for m in self.members]  # type: ignore[arg-type]

    def _host(self, url: str, **fields: object) -> None:
        self.looks = [replace(one, **fields) if one.member.peer_url == url else one for one in self.looks]  # type: ignore[arg-type]

    def remove(self, task: object) -> None:
        leaving = task.member  # type: ignore[attr-defined]
        voters = [one for one in self.members if not one.is_learner and one.id != leaving.id]
        assert sum(one.healthy for one in voters) >= len(voters) // 2 + 1
        self.members = [one for one in self.members if one.id != leaving.id]

    def add(self, task: object) -> None:
        assert all(one.healthy for one in self.members if not one.is_learner), "etcd would refuse"
        assert not any(one.is_learner for one in self.members), "one learner at a time"
        self.next_id += 1
        self.members.append(SeenMember(self.next_id, "", task.peer_url, is_learner=True))  # type: ignore[attr-defined]

    def start(self, task: object) -> None:
        permit = Permit(StartState.EXISTING, ())
        self._host(task.peer_url, has_data=True, has_unit=True, permit=permit)  # type: ignore[attr-defined]
        self._change(task.peer_url, name=task.host, healthy=True)  # type: ignore[attr-defined]

    def promote(self, task: object) -> None:
        self._change(task.peer_url, is_learner=False)  # type: ignore[attr-defined]

    def settle(self, task: object) -> None:
        assert not self._member(task.peer_url).is_learner  # type: ignore[attr-defined]
        self._host(task.peer_url, permit=None)  # type: ignore[attr-defined]

    def whole(self) -> bool:
        return {one.peer_url for one in self.members} == {one.member.peer_url for one in self.looks} and all(
            one.settled for one in self.looks
        )


JOINING = Permit(StartState.EXISTING, (EtcdMember("e1", "x"),))


def test_a_whole_etcd_needs_nothing() -> None:
    cluster = Cluster([seen(1), seen(2), seen(3)], [look(1), look(2), look(3)])
    assert cluster.run() == []


def test_new_hosts_come_one_by_one() -> None:
    cluster = Cluster([seen(1)], [look(1), blank(2), blank(3)])
    one = ["start {0}", "promote {0}", "settle {0}"]
    assert cluster.run() == [
        "add e2", *(step.format("e2") for step in one), "add e3", *(step.format("e3") for step in one)
    ]  # fmt: skip
    assert cluster.whole()


def test_a_dead_host_that_another_replaces_leaves_before_the_other_comes() -> None:
    """etcd takes nobody in while a voter is away."""
    cluster = Cluster([seen(1), seen(2), seen(3, healthy=False)], [look(1), look(2), blank(4)])
    assert cluster.run()[:2] == ["remove e3", "add e4"]
    assert cluster.whole()


def test_a_new_host_may_have_the_dead_ones_name_or_its_address() -> None:
    by_name = Cluster([seen(1), seen(2), seen(3, healthy=False)], [look(1), look(2), blank(3, "192.0.2.9")])
    assert by_name.run()[:2] == ["remove e3", "add e3"]
    assert by_name.whole()
    by_address = Cluster([seen(1), seen(2), seen(3, healthy=False)], [look(1), look(2), blank(3)])
    assert by_address.run()[:2] == ["remove e3", "add e3"]
    assert by_address.whole()
    assert {one.id for one in by_address.members} == {1, 2, 101}


def test_a_host_that_serves_leaves_when_its_successor_does() -> None:
    cluster = Cluster([seen(1), seen(2), seen(3)], [look(1), look(2), blank(4)])
    assert cluster.run() == ["add e4", "start e4", "promote e4", "settle e4", "remove e3"]
    assert cluster.whole()


def test_an_even_number_shrinks() -> None:
    cluster = Cluster([seen(number) for number in range(1, 6)], [look(1), look(2), look(3)])
    assert cluster.run() == ["remove e4", "remove e5"]


def test_one_that_cannot_be_reached_stays() -> None:
    cluster = Cluster([seen(1), seen(2), seen(3, healthy=False)], [look(1), look(2)], absent=("e3",))
    assert cluster.run() == []


def test_what_was_begun_is_finished_at_every_point() -> None:
    """A run that was killed after each single step of the replacement of a member."""
    for killed_after in range(1, 6):
        cluster = Cluster([seen(1), seen(2), seen(3, healthy=False)], [look(1), look(2), blank(4)])
        cluster.run(steps=killed_after)
        again = Cluster(cluster.members, cluster.looks)
        again.run()
        assert again.whole(), killed_after


def test_an_announced_member_of_no_host_of_ours_is_taken_back() -> None:
    ghost = SeenMember(9, "", peer_url("192.0.2.9"), is_learner=True)
    cluster = Cluster([seen(1), seen(2), seen(3), ghost], [look(1), look(2), look(3)])
    assert cluster.run() == ["remove ?"]


def test_a_member_that_has_left_does_not_come_back_with_its_data() -> None:
    [task] = tasks([seen(1)], [look(1), look(2)])
    assert task.step is Step.ADD
    found = returned(task, look(2))
    assert found is not None
    assert MEMBER_DIR in found.hint
    assert returned(task, look(2, permit=JOINING)) is None, "of an attempt that was taken back"


@pytest.mark.parametrize(
    ("voters", "down", "needed"),
    [
        (1, [], []),
        (2, [], []),  # it always stops for a moment
        (2, [2], [2]),
        (3, [], []),
        (3, [3], [3]),
        (4, [4], [4]),
        (5, [5], []),
        (5, [4, 5], [4, 5]),
        (3, [1], []),
    ],
)
def test_a_member_restarts_where_the_others_that_serve_are_a_majority(
    voters: int, down: list[int], needed: list[int]
) -> None:
    members = [seen(number, healthy=number not in down) for number in range(1, voters + 1)]
    found = needed_for_restart(members, peer_url("192.0.2.1"))
    assert [one.id for one in found] == needed
    learner = seen(9, is_learner=True)
    assert needed_for_restart([*members, learner], learner.peer_url) == []
    assert needed_for_restart([*members, learner], peer_url("192.0.2.1")) == found, "it has no vote"


def test_data_of_the_same_start_goes_on_and_no_other() -> None:
    permit = Permit(StartState.EXISTING, (EtcdMember("e1", peer_url("192.0.2.1")), look(2).member))
    assert look(2, permit=permit).has_begun(permit)
    assert not look(2, permit=None).has_begun(permit), "of a member that has left"
    assert not look(2, permit=permit, has_data=False).has_begun(permit)
    assert not look(2, permit=founding([look(2)])).has_begun(permit)
    assert not look(3, permit=permit).has_begun(permit)


@pytest.mark.parametrize(
    ("looks", "formed"),
    [
        ([blank(1), blank(2), blank(3)], False),
        ([look(1), blank(2), blank(3)], True),
        ([look(1, permit=founding([blank(1), blank(2)])), blank(2)], False),
        ([look(1, permit=founding([blank(1), blank(2)])), look(2)], True),
        ([look(1, permit=JOINING), blank(2)], True),
        ([EtcdHostLook("e1", "192.0.2.1", permit=JOINING), blank(2)], False),
    ],
)
def test_who_has_data_and_no_permit_is_proof_of_a_cluster(looks: list[EtcdHostLook], formed: bool) -> None:
    assert is_formed(looks) is formed


def test_foreign_data_and_taken_ports_are_refused() -> None:
    foreign = look(1, has_unit=False, active=False, listening={2379: "etcd", 22: "sshd"})
    found = host_findings([foreign, look(2)])
    assert ["P35" in str(found[0]), "etcd listens on port 2379" in str(found[1])] == [True, True]
    assert len(found) == 2


def test_a_foundation_goes_on_with_the_same_hosts_or_not_at_all() -> None:
    permit = founding([blank(1), blank(2), blank(3)])
    begun = [look(1, permit=permit), blank(2), blank(3)]
    assert host_findings(begun) == []
    [finding] = host_findings([look(1, permit=permit), blank(2), blank(4)])
    assert "e1, e2, e3" in finding.message
    assert "e1, e2, e4" in finding.message
    [absent] = host_findings([blank(1), blank(2)], ["e3"])
    assert absent.host == "e3"
    assert host_findings([look(1), look(2)], ["e3"]) == []


def test_a_permit_is_read_as_it_was_written() -> None:
    permit = founding([blank(1), blank(2)])
    assert read_permit(permit.text("prod")) == permit
    assert b"ETCD_INITIAL_CLUSTER_TOKEN=prod\n" in permit.text("prod")
    assert read_permit(None) is None
    assert read_permit(b"ETCD_INITIAL_CLUSTER_STATE=maybe\n") is None


def test_the_unit_starts_with_data_or_a_permit_only() -> None:
    spec = parse_cluster("hosts: [{name: cp1, address: 192.0.2.1, roles: [control-plane]}]\n")
    cluster = default_cluster_configuration(spec)
    unit = etcd_unit(
        "/usr/local/bin/etcd", cluster, ControlPlaneNode("e1", "192.0.2.21"), facts_for("v1.20.2")
    )
    text = unit.decode()
    assert f"ConditionPathExists=|{WAL_DIR}\n" in text
    assert text.index("ETCD_INITIAL_CLUSTER_STATE=existing") < text.index(f"EnvironmentFile=-{PERMIT_PATH}")
    assert f"ConditionPathExists=|{PERMIT_PATH}\n" in text
    assert "--initial-cluster=" not in text
    assert "--initial-cluster-state" not in text
    for flag in (
        "--name=e1", "--data-dir=/var/lib/etcd", "--client-cert-auth=true", "--peer-client-cert-auth=true",
        "--listen-client-urls=https://127.0.0.1:2379,https://192.0.2.21:2379",
        "--initial-advertise-peer-urls=https://192.0.2.21:2380",
    ):  # fmt: skip
        assert f"  {flag}" in text, flag
