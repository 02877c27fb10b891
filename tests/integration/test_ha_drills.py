"""Three control planes survive what they are there for: power cuts, standstills, partitions (docs/drills.md)."""

from __future__ import annotations

import itertools
import random
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
from cluster_fixtures import HA, ON_MACHINES, Kubewright
from ha_cluster import ENDPOINTS, LONGEST_GAP, Factory, HaCluster
from tools.ha_probe import Book

from kubewright.lab.lab import lab_names

pytestmark = ON_MACHINES

THREE = ("cp1", "cp2", "cp3")
FAULTS = ("kill", "freeze", "partition")
MENDS = {"kill": "start", "freeze": "thaw", "partition": "heal"}
ROUNDS, LOST_ROUNDS = 20, 10
"""Of a soak; `make test` has one of each, and the lab's own endpoint."""


@pytest.fixture(
    scope="module",
    params=[
        pytest.param(kind, marks=pytest.mark.soak if number else ()) for number, kind in enumerate(ENDPOINTS)
    ],
)
def factory(
    request: pytest.FixtureRequest, kubewright: Kubewright, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Factory]:
    """The machines; `request.param` is the kind of endpoint."""
    made = Factory(kubewright, request.param, tmp_path_factory.mktemp(request.param), control_planes=3)
    yield made
    made.down()


@pytest.fixture(scope="module")
def three(factory: Factory) -> HaCluster:
    """Three control planes and two workers."""
    cluster = factory.apply(THREE)
    cluster.healed()
    return cluster


on_one_kind = pytest.mark.parametrize("factory", list(ENDPOINTS)[:1], indirect=True)  # its first, as with all
"""For drills in which the kind of endpoint matters less: the lab's own."""


# -- the machine of etcd's leader dies ----------------------------------------------------------------------------


@pytest.mark.quiet
def test_the_leaders_machine_dies(three: HaCluster, kubewright: Kubewright, tmp_path: Path) -> None:
    """Clients are without an answer for 5 s at most, and pods on other nodes keep answering."""
    urls = three.place_pods()
    if _moves(three):
        three.lead(three.holder())  # the worst that can happen: the address goes with the leader
    victim = three.leader()
    with (
        three.load("probe", tmp_path) as probe,
        three.load("get", tmp_path, urls=urls) as pods,
        three.load("write", tmp_path, prefix="leader") as writer,
    ):
        time.sleep(3)
        kubewright("lab", "kill", HA, victim)
        time.sleep(15)
    kubewright("lab", "start", HA, victim)
    healed = three.healed()
    print(f"\n{three.endpoint}: {victim} killed: {probe.book}; whole {healed} after its start")
    assert not pods.book.failures, pods.book.failures
    assert probe.book.gap() <= LONGEST_GAP, f"{probe.book}\n" + "\n".join(probe.book.failures)
    three.verify(writer.book.acknowledged)


def _moves(cluster: HaCluster) -> bool:
    """Whether the endpoint's address is on one control plane at a time, and on another when that one dies."""
    return cluster.endpoint.partition(":")[0] == str(cluster.lab.plan.subnet[200])


# -- one of three, again and again --------------------------------------------------------------------------------


class Drill:
    """Rounds of faults under a writing load; after each, the cluster is whole and no acknowledged write lost."""

    def __init__(self, cluster: HaCluster, kubewright: Kubewright, directory: Path, name: str) -> None:
        self._cluster, self._kubewright, self._directory, self._name = cluster, kubewright, directory, name
        self._acknowledged: list[str] = []
        self._healing: list[float] = []

    def round(self, number: int, fault: str, victims: Sequence[str], *, seconds: float) -> Book:
        """One round: the fault, for so many seconds, its mend, and then only waiting. Prints a line."""
        leader = self._cluster.leader()
        prefix = f"{self._name}-{number}"
        with self._cluster.load("write", self._directory, prefix=prefix) as writer:
            time.sleep(1)
            self._kubewright("lab", fault, HA, *victims)
            time.sleep(seconds)
            self._kubewright("lab", MENDS[fault], HA, *victims)
            healed = self._cluster.healed()
            time.sleep(1)
        book = writer.book
        self._acknowledged += book.acknowledged
        stored = self._cluster.verify(self._acknowledged)
        self._healing.append(healed.seconds)
        hurt = ", ".join(f"{victim} (leader)" if victim == leader else victim for victim in victims)
        print(
            f"{number:2}. {fault} {hurt} for {seconds:.1f} s: {len(book.acknowledged)} writes acknowledged, "
            f"{len(book.failures)} failed, longest gap {book.gap():.1f} s; whole {healed} after the mend; "
            f"all {len(self._acknowledged)} acknowledged writes are among {stored} stored",
            flush=True,
        )
        return book

    def summary(self) -> None:
        """The last line."""
        print(
            f"{len(self._healing)} rounds: no acknowledged write of {len(self._acknowledged)} lost; whole "
            f"{min(self._healing):.1f} to {max(self._healing):.1f} s after the mend"
        )


Rounds = Callable[[int], None]


@pytest.fixture
def one_lost(three: HaCluster, kubewright: Kubewright, tmp_path: Path) -> Rounds:
    """So many rounds, each with another fault than before, of control planes at random."""

    def run(count: int) -> None:
        print()
        drill = Drill(three, kubewright, tmp_path, f"one-{random.randrange(10**6)}")
        faults = itertools.cycle(random.sample(FAULTS, len(FAULTS)))
        for number, fault in zip(range(1, count + 1), faults, strict=False):
            book = drill.round(number, fault, [random.choice(THREE)], seconds=random.uniform(5, 15))
            assert book.acknowledged, "nothing was written while two of three were there"
        drill.summary()

    return run


@pytest.fixture
def two_lost(three: HaCluster, kubewright: Kubewright, tmp_path: Path) -> Rounds:
    """So many rounds in which two of three are lost: nothing can be written then, and nothing is lost."""

    def run(count: int) -> None:
        print()
        drill = Drill(three, kubewright, tmp_path, f"two-{random.randrange(10**6)}")
        faults = itertools.cycle(random.sample(FAULTS, len(FAULTS)))
        for number, fault in zip(range(1, count + 1), faults, strict=False):
            seconds = random.uniform(8, 15)
            book = drill.round(number, fault, random.sample(THREE, 2), seconds=seconds)
            assert book.gap() > seconds / 2, "something was written by one of three"
        drill.summary()

    return run


@on_one_kind
def test_one_of_three_is_lost(one_lost: Rounds) -> None:
    one_lost(1)


@on_one_kind
def test_two_of_three_are_lost_and_come_back(two_lost: Rounds) -> None:
    two_lost(1)


@pytest.mark.soak
@pytest.mark.timeout(4 * 3600)
@on_one_kind
def test_one_of_three_is_lost_many_times(one_lost: Rounds) -> None:
    one_lost(ROUNDS)


@pytest.mark.soak
@pytest.mark.timeout(4 * 3600)
@on_one_kind
def test_two_of_three_are_lost_many_times(two_lost: Rounds) -> None:
    two_lost(LOST_ROUNDS)


def test_no_lab_is_left(factory: Factory) -> None:
    """The last of each kind: what was frozen, cut off or killed on the way does not keep `down` from its work."""
    factory.down()
    assert HA not in lab_names()
