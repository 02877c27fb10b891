"""A cluster grows from one control plane to five and shrinks again, used or interrupted (docs/drills.md)."""

from __future__ import annotations

import random
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from cluster_fixtures import ON_MACHINES, Kubewright
from ha_cluster import ENDPOINTS, Factory, HaCluster

pytestmark = ON_MACHINES

ONE, THREE, FIVE = ["cp1"], ["cp1", "cp2", "cp3"], ["cp1", "cp2", "cp3", "cp4", "cp5"]
MOMENTS = 20
"""Of a soak; `make test` has one."""


@pytest.fixture(scope="module")
def factory(
    request: pytest.FixtureRequest, kubewright: Kubewright, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Factory]:
    """One control plane, and machines for more; `request.param` is the kind of endpoint, and for how many."""
    kind, planes = request.param
    made = Factory(kubewright, kind, tmp_path_factory.mktemp(kind), control_planes=planes)
    try:
        made.apply(ONE).healed()
        yield made
    finally:
        made.down()


on_one_kind = pytest.mark.parametrize("factory", [("haproxy", 3)], ids=["haproxy"], indirect=True)


# -- no request fails ---------------------------------------------------------------------------------------------


@on_one_kind
@pytest.mark.quiet
def test_nobody_notices_how_it_grows_and_shrinks(factory: Factory, tmp_path: Path) -> None:
    """The run that makes it grow is killed, too, and the next one finishes it."""
    grow_and_shrink(factory, tmp_path, [THREE, ONE], killed_after=random.uniform(2, 12))


@pytest.mark.quiet
@pytest.mark.soak
@pytest.mark.parametrize("factory", [(kind, 5) for kind in ENDPOINTS], ids=ENDPOINTS, indirect=True)
def test_nobody_notices_with_any_endpoint(factory: Factory, tmp_path: Path) -> None:
    grow_and_shrink(factory, tmp_path, [THREE, FIVE, THREE])


def grow_and_shrink(
    factory: Factory, directory: Path, sizes: Sequence[list[str]], *, killed_after: float = 0.0
) -> None:
    """From one to each of these: no request fails, no write is lost, and nothing is left of those that went.

    The first run may be killed after some seconds, and is begun again.
    """
    cluster = factory.apply(ONE)
    cluster.healed()
    print(f"\n{cluster.endpoint}:")
    acknowledged: list[str] = []
    failures: list[str] = []
    for size, planes in enumerate(sizes):
        with (
            cluster.load("probe", directory) as probe,
            cluster.load("write", directory, prefix=f"size-{size}") as writer,
        ):
            if killed_after and not size:
                killed(factory, killed_after)
            after, seconds = timed(factory, planes)
            after.healed()
        print(f"{len(cluster.control_planes)} to {len(planes)} in {seconds:.1f} s: {probe.book}", flush=True)
        failures += [*probe.book.failures, *writer.book.failures]
        acknowledged += writer.book.acknowledged
        after.verify(acknowledged)
        cluster = after
    assert not failures, "\n".join(failures)


def timed(factory: Factory, planes: Sequence[str]) -> tuple[HaCluster, float]:
    """`apply` for these control planes, and the seconds that it took."""
    started = time.monotonic()
    return factory.apply(planes), time.monotonic() - started


# -- apply is killed ----------------------------------------------------------------------------------------------


@pytest.mark.soak
@pytest.mark.timeout(4 * 3600)
@on_one_kind
def test_growth_is_killed_across_its_whole_length(factory: Factory, kubewright: Kubewright) -> None:
    """The next run completes each time.

    Between two moments the cluster shrinks to one again, so that each growth begins with machines that have been
    control planes and were reset.
    """
    factory.apply(ONE).healed()
    cluster, whole = timed(factory, THREE)
    cluster.healed()
    print(f"\na growth that nobody kills: {whole:.1f} s")
    for number in range(MOMENTS):
        part = (number + random.random()) / MOMENTS
        factory.apply(ONE).healed()
        while (ended := killed(factory, part * whole)) is not None:
            factory.apply(ONE).healed()
            whole = ended  # it was faster this time: once more, at an earlier moment
        cluster, seconds = timed(factory, THREE)
        cluster.healed()
        plan = kubewright("plan", "-f", factory.file(THREE), "-o", "json").document
        assert plan["changes"] == [], plan
        print(
            f"{number + 1:2}. killed after {part * whole:.1f} s; the next took {seconds:.1f} s: no stray member",
            flush=True,
        )


def killed(factory: Factory, moment: float) -> float | None:
    """Kill an `apply` from one to three after so many seconds; where it had ended before, after how many."""
    process = factory.start(THREE)
    started = time.monotonic()
    try:
        process.wait(moment)
    except subprocess.TimeoutExpired:
        return None
    else:
        return time.monotonic() - started
    finally:
        process.kill()
        process.wait()
