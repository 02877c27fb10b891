"""Which control planes begin an etcd together, which serve, and which are added: by what is on their hosts."""

from __future__ import annotations

import pytest

from kubewright.model import manifests
from kubewright.model.arguments import EtcdMember
from kubewright.model.config.kubeadm_types import ClusterConfiguration
from kubewright.model.formation import (
    EXISTING,
    NEW,
    Begun,
    EtcdRole,
    Formation,
    PlaneLook,
    begun_in,
    data_dir_in,
    formation,
    missed,
)
from kubewright.model.node import ControlPlaneNode
from kubewright.model.objects import to_yaml
from kubewright.model.versions import facts_for

FOUND, SERVE, GROW = EtcdRole.FOUND, EtcdRole.SERVE, EtcdRole.GROW
ADDRESSES = {f"cp{number}": f"192.0.2.{number}" for number in range(1, 6)}
THREE = tuple(EtcdMember(name, f"https://{ADDRESSES[name]}:2380") for name in ("cp1", "cp2", "cp3"))
TOGETHER = Begun(THREE, NEW)
ALONE = Begun((), "")
JOINED = Begun(THREE, EXISTING)


def plane(name: str, begun: Begun | None = None, *, data: bool = False, api: bool = False) -> PlaneLook:
    return PlaneLook(name, ADDRESSES[name], begun, data, api)


def roles(*planes: PlaneLook) -> list[EtcdRole]:
    return list(formation(planes).roles.values())


# -- a new cluster ------------------------------------------------------------------------------------------------


def test_without_any_etcd_all_begin_one_together() -> None:
    found = formation([plane("cp1"), plane("cp2"), plane("cp3")])
    assert found == Formation({"cp1": FOUND, "cp2": FOUND, "cp3": FOUND}, THREE)
    assert found.begun() == TOGETHER


def test_a_single_one_begins_as_kubeadm_writes_it() -> None:
    found = formation([plane("cp1")])
    assert found.roles == {"cp1": FOUND}
    assert found.begun() == ALONE


@pytest.mark.parametrize("data", [False, True])
def test_an_interrupted_foundation_goes_on_with_the_same_members(data: bool) -> None:
    """Killed when one of three manifests was there: with or without data, one alone has decided nothing."""
    found = formation([plane("cp1", TOGETHER, data=data, api=True), plane("cp2"), plane("cp3")])
    assert found.roles == {"cp1": SERVE if data else FOUND, "cp2": FOUND, "cp3": FOUND}
    assert found.begun() == TOGETHER


def test_the_order_of_the_file_does_not_change_who_founds() -> None:
    found = formation([plane("cp3"), plane("cp2", TOGETHER), plane("cp1")])
    assert found.founders == THREE


def test_whoever_came_to_the_file_meanwhile_is_added_later() -> None:
    found = formation([plane("cp1", TOGETHER, data=True), plane("cp2"), plane("cp3"), plane("cp4")])
    assert found.roles == {"cp1": SERVE, "cp2": FOUND, "cp3": FOUND, "cp4": GROW}


# -- a cluster that has a majority --------------------------------------------------------------------------------


def test_a_whole_cluster_serves() -> None:
    planes = [plane(name, TOGETHER, data=True, api=True) for name in ("cp1", "cp2", "cp3")]
    assert roles(*planes) == [SERVE, SERVE, SERVE]


def test_the_last_founder_is_added_when_the_others_have_a_majority() -> None:
    """It may have voted on a disk that was replaced; one that never started is taken up as it was announced."""
    planes = [plane("cp1", TOGETHER, data=True), plane("cp2", TOGETHER, data=True), plane("cp3")]
    assert roles(*planes) == [SERVE, SERVE, GROW]
    planes[2] = plane("cp3", TOGETHER)
    assert roles(*planes) == [SERVE, SERVE, GROW]


def test_a_founder_that_cannot_be_looked_at_may_have_data() -> None:
    """cp2 is out of reach: cp1 and it may be a majority, and cp3 must not begin anything."""
    assert roles(plane("cp1", TOGETHER, data=True), plane("cp3")) == [SERVE, GROW]


def test_one_that_is_left_of_three_grows_again() -> None:
    """Its manifest names those that have left, and their hosts come back without data."""
    planes = [plane("cp1", TOGETHER, data=True, api=True), plane("cp2"), plane("cp3")]
    assert list(formation(planes, decided=True).roles.values()) == [SERVE, GROW, GROW]


def test_one_grows_to_three() -> None:
    assert roles(plane("cp1", ALONE, data=True, api=True), plane("cp2"), plane("cp3")) == [SERVE, GROW, GROW]


def test_before_the_first_one_has_data_the_others_wait_for_it() -> None:
    found = formation([plane("cp1", ALONE), plane("cp2"), plane("cp3")])
    assert found.roles == {"cp1": FOUND, "cp2": GROW, "cp3": GROW}
    assert found.begun() == ALONE


@pytest.mark.parametrize(
    ("data", "api", "role"), [(False, False, GROW), (True, False, GROW), (True, True, SERVE)]
)
def test_an_interrupted_growth_goes_on(data: bool, api: bool, role: EtcdRole) -> None:
    """Its API server comes when it has its vote: before that, its member must be looked after."""
    assert roles(plane("cp1", ALONE, data=True, api=True), plane("cp2", JOINED, data=data, api=api)) == [
        SERVE,
        role,
    ]


def test_those_that_joined_serve_when_all_founders_are_gone() -> None:
    planes = [
        plane("cp2", JOINED, data=True, api=True),
        plane("cp3", JOINED, data=True, api=True),
        plane("cp4"),
    ]
    assert roles(*planes) == [SERVE, SERVE, GROW]


def test_whose_disk_was_replaced_is_added_anew() -> None:
    assert roles(plane("cp1", ALONE, data=True, api=True), plane("cp2", JOINED, api=True)) == [SERVE, GROW]


def test_data_without_any_manifest_is_served_as_it_is() -> None:
    found = formation([plane("cp1", data=True), plane("cp2", data=True), plane("cp3")])
    assert found.roles == {"cp1": SERVE, "cp2": SERVE, "cp3": GROW}
    assert found.founders == THREE[:2]


# -- manifests ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("begun", [ALONE, TOGETHER, JOINED])
def test_a_manifest_says_with_whom_it_was_begun(begun: Begun) -> None:
    pods = manifests.static_pods(
        ClusterConfiguration(), ControlPlaneNode("cp1", ADDRESSES["cp1"]), facts_for("v1.20.2"),
        etcd_members=begun.members, etcd_state=begun.state,
    )  # fmt: skip
    assert begun_in(to_yaml(pods[manifests.ETCD])) == begun
    state = [word for word in pods["etcd"]["spec"]["containers"][0]["command"] if "cluster-state" in word]
    assert state == ([f"--initial-cluster-state={begun.state}"] if begun.state else [])


@pytest.mark.parametrize(
    "damaged", [None, b"", b"[", b"- 1", b"spec: 3", b"spec: {containers: [{command: [etcd]}]}"]
)
def test_what_is_no_manifest_says_nothing(damaged: bytes | None) -> None:
    assert begun_in(damaged) is None


def test_where_the_data_is_said_to_be() -> None:
    pods = manifests.static_pods(
        ClusterConfiguration.model_validate({"etcd": {"local": {"dataDir": "/srv/etcd"}}}),
        ControlPlaneNode("cp1", "192.0.2.1"), facts_for("1.20.2"), ca_dirs=(),
    )  # fmt: skip
    assert data_dir_in(to_yaml(pods[manifests.ETCD])) == "/srv/etcd"
    for nothing in (None, b"", b"kind: Pod", b"{", b"- 1"):
        assert data_dir_in(nothing) == ""


@pytest.mark.parametrize(
    ("count", "away", "said"),
    [(1, [], []), (2, [], []), (2, ["cp2"], ["cp2"]), (3, [], []), (3, ["cp2"], ["cp2"]), (5, ["cp2"], []),
     (5, ["cp2", "cp4"], ["cp2", "cp4"])],
)  # fmt: skip
def test_a_member_starts_anew_only_where_the_others_are_a_majority(
    count: int, away: list[str], said: list[str]
) -> None:
    """Two who are both there have none either way: nobody can be waited for."""
    names = list(ADDRESSES)[:count]
    assert missed(names, set(names) - set(away)) == said
