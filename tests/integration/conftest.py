"""What tests share: a home directory, the `kubewright` in it, the real kubeadm, and one cluster."""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
from collections.abc import AsyncIterator, Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import pytest
import yaml
from cluster_fixtures import CLUSTER, OURS, THREE, Kubewright, Leftovers, Run, remove_labs
from xdist.scheduler import LoadScopeScheduling  # type: ignore[import-untyped]

from kubewright.components.debian import DebianSource
from kubewright.components.debian_images import local_arch
from kubewright.components.source import Form, Want
from kubewright.events import Events
from kubewright.lab.lab import Lab, open_lab

USERS_KUBECONFIG = {
    "apiVersion": "v1",
    "kind": "Config",
    "clusters": [{"name": "work", "cluster": {"server": "https://192.0.2.1:6443"}}],
    "contexts": [{"name": "work", "context": {"cluster": "work", "user": "me", "namespace": "web"}}],
    "users": [{"name": "me", "user": {"token": "not-a-real-one"}}],
    "current-context": "work",
}


def pytest_configure(config: pytest.Config) -> None:
    """Let SIGTERM end a run as Ctrl-C does, so that labs are removed; a forked child has nothing to remove."""
    run = os.getpid()

    def end(number: int, frame: FrameType | None) -> None:
        if os.getpid() != run:
            os._exit(128 + number)
        signal.default_int_handler(number, frame)

    signal.signal(signal.SIGTERM, end)


ALONE = ("test_ha_", "test_node_remove")
"""Modules with three control planes and more, whose tests bear no other such cluster beside them."""


class ByModule(LoadScopeScheduling):  # type: ignore[misc]
    """Where workers share the tests, one of them has all of a module, all of the modules with one cluster, and all
    of those that bear no other of their kind."""

    def _split_scope(self, nodeid: str) -> str:
        module = nodeid.partition("::")[0]
        name = Path(module).name
        if name.startswith("test_cluster"):
            return "cluster"
        return "alone" if name.startswith(ALONE) else module


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> ByModule:
    """Named after what xdist looks for."""
    return ByModule(config, log)


@contextmanager
def _turn(item: pytest.Item, *, quiet: bool = False) -> Iterator[None]:
    """Whatever a worker does, it does beside the others, or while they do nothing; who wants quiet need not wait
    for a gap, because nobody gets past the gate meanwhile."""
    if not os.environ.get("PYTEST_XDIST_WORKER"):
        yield
        return
    locks = item.config.cache.mkdir("quiet")
    with (locks / "gate").open("w") as gate, (locks / "computer").open("w") as computer:
        fcntl.flock(gate, fcntl.LOCK_EX)
        fcntl.flock(computer, fcntl.LOCK_EX if quiet else fcntl.LOCK_SH)
        fcntl.flock(gate, fcntl.LOCK_UN)
        yield


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> Generator[None]:
    """Clusters are made beside whatever else there is."""
    with _turn(item):
        return (yield)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None]:
    """A test that is marked so waits until the other worker has ended its test, and keeps it from the next."""
    with _turn(item, quiet=item.get_closest_marker("quiet") is not None):
        return (yield)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_teardown(item: pytest.Item) -> Generator[None]:
    """As they are made."""
    with _turn(item):
        return (yield)


@pytest.fixture(scope="session")
def kubewright(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kubewright]:
    """The console script, with a kubeconfig in its home that has a context of the user's own."""
    found = Kubewright(tmp_path_factory.mktemp("home"))
    found.kubeconfig.parent.mkdir()
    found.kubeconfig.write_text(yaml.safe_dump(USERS_KUBECONFIG))
    remove_labs(found)
    yield found
    remove_labs(found)


@pytest.fixture(scope="session")
async def real_kubeadm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The real kubeadm 1.20.2, to be run here or copied into a machine."""
    want = Want("kubeadm", "v1.20.2", local_arch(), Form.BINARY)
    [artifact] = await DebianSource().fetch([want], Events())
    program = tmp_path_factory.mktemp("bin") / "kubeadm"
    shutil.copyfile(artifact.path, program)
    program.chmod(0o755)
    return program


@pytest.fixture(scope="session")
async def leftovers(kubewright: Kubewright) -> AsyncIterator[Leftovers]:
    """This computer as it was before the cluster."""
    found = Leftovers(OURS)
    await found.begin()
    yield found


@pytest.fixture(scope="session")
def first_up(kubewright: Kubewright, leftovers: Leftovers) -> Run:
    """The command that made the cluster, from no machines at all."""
    return kubewright("lab", "up", "--name", CLUSTER, "-o", "json")


@pytest.fixture(scope="session")
def made_at_once(kubewright: Kubewright) -> Run:
    """The command that made three control planes and two workers of nothing."""
    kubewright("lab", "down", THREE)
    return kubewright(
        "lab", "up", "--name", THREE, "--control-planes", "3", "--workers", "2", "-o", "json", timeout=600
    )


@pytest.fixture(scope="session")
def three(made_at_once: Run) -> Lab:
    """Those, for test_ha_made.py and test_ha_status.py, which comes next and removes them."""
    return open_lab(THREE)


@pytest.fixture(scope="session")
def cluster(first_up: Run) -> Lab:
    """One control plane and two workers, shared by all tests; the last of test_cluster_removed.py removes it."""
    return open_lab(CLUSTER)
