"""An upgrade that was interrupted after it wrote a manifest: the next one sees whether the program runs by it."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.unit.clients.test_cri import FakeRuntime, serving
from tests.unit.phases.memory_host import MemoryHost
from tests.unit.phases.test_join_phases import node

from kubewright.errors import ApiError, ExitCode, HostError
from kubewright.events import Activity, Events
from kubewright.hosts import Completed
from kubewright.model.objects import Object, to_yaml
from kubewright.phases.phase import Action, Change
from kubewright.phases.upgrade_pod import UpgradePod

PATH = "/etc/kubernetes/manifests/kube-scheduler.yaml"
BACKUPS = "/etc/kubernetes/tmp/kubeadm-backup-manifests-"
EARLIER = f"{BACKUPS}2026-01-02-03-04-05/kube-scheduler.yaml"


def pod(tag: str) -> Object:
    container = {
        "name": "kube-scheduler",
        "image": f"k8s.gcr.io/kube-scheduler:{tag}",
        "command": ["kube-scheduler"],
    }
    return {"kind": "Pod", "metadata": {"name": "kube-scheduler"}, "spec": {"containers": [container]}}


def mirror(tag: str, uid: str, *, image: str = "") -> Object:
    """The Pod that the API shows, with what admission may have added and changed."""
    shown = copy.deepcopy(pod(tag))
    shown["metadata"]["annotations"] = {"kubernetes.io/config.hash": uid}
    if image:
        shown["spec"]["containers"][0]["image"] = image
    shown["spec"]["containers"].insert(0, {"name": "sidecar", "image": "mesh:1"})
    return shown


class Host(MemoryHost):
    """One with a runtime, and with what earlier upgrades have kept."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.folder = folder

    def forward_unix(self, path: str) -> AbstractAsyncContextManager[Path]:
        @asynccontextmanager
        async def socket() -> AsyncIterator[Path]:
            yield self.folder / "cri.sock"

        return socket()

    async def run(self, argv: Any, **options: Any) -> Completed:
        """Shell commands: the search for what was kept, and diagnoses, which find nothing."""
        self.commands.append(tuple(argv))
        return Completed(tuple(argv), 0, EARLIER.encode() if f"{BACKUPS}*" in argv[2] else b"")


def runtime(*uids: str, running: bool = True) -> FakeRuntime:
    """One with a Pod of each `uid`, whose containers have the same ids."""
    metadata = {"name": "kube-scheduler-cp1", "namespace": "kube-system"}
    sandboxes = [{"id": f"pod-{uid}", "metadata": {**metadata, "uid": uid}} for uid in uids]
    containers = [
        {
            "id": uid,
            "pod_sandbox_id": f"pod-{uid}",
            "metadata": {"name": "kube-scheduler"},
            "state": int(running),
        }
        for uid in uids
    ]
    return FakeRuntime(
        answers={"ListPodSandbox": {"items": sandboxes}, "ListContainers": {"containers": containers}}
    )


class Upgrade(UpgradePod):
    """To v1.20.5, on a host that has its manifest already. `says` are what the API shows, one a request."""

    def __init__(self, folder: Path, *says: Object | ApiError | None, deadline: float = 5.0) -> None:
        self.memory = Host(folder)
        here = node(self.memory)
        self.says = list(says)
        self.ill: list[str | None] = [None]
        super().__init__(
            here, "kube-scheduler", pod("v1.20.5"), cri_socket="", backup=f"{BACKUPS}2026-11-21-10-00-00",
            healthy=self.healthy, reported=self.reported, deadline=deadline,
        )  # fmt: skip

    async def reported(self) -> Object | None:
        seen = self.says.pop(0) if len(self.says) > 1 else self.says[0]
        if isinstance(seen, ApiError):
            raise seen
        return seen

    async def healthy(self) -> str | None:
        return self.ill.pop(0) if len(self.ill) > 1 else self.ill[0]

    async def written(self) -> Upgrade:
        await self.memory.write_file(PATH, to_yaml(pod("v1.20.5")))
        return self


@pytest.mark.parametrize("image", ["", "mirror.test/kube-scheduler:v1.20.5"])
async def test_one_that_runs_by_its_manifest_is_left_alone(tmp_path: Path, image: str) -> None:
    async with serving(runtime("new"), tmp_path):
        assert await (await Upgrade(tmp_path, mirror("v1.20.5", "new", image=image)).written()).look() == []


@pytest.mark.parametrize(
    ("shown", "runs"),
    [
        (mirror("v1.20.2", "old"), runtime("old")),  # the kubelet has not read it yet
        (mirror("v1.20.5", "new"), runtime("old")),  # the old one still runs
        (mirror("v1.20.5", "new"), runtime("new", "old")),  # both do
        (mirror("v1.20.5", "new"), runtime("new", running=False)),  # it falls again and again
        (None, runtime("new")),
        (ApiError("it is away", status=503), runtime("new")),
    ],
)
async def test_one_that_does_not_is_seen(tmp_path: Path, shown: Any, runs: FakeRuntime) -> None:
    async with serving(runs, tmp_path):
        [change] = await (await Upgrade(tmp_path, shown).written()).look()
    assert change.action is Action.RUN
    assert change.target == "wait for kube-scheduler"


async def test_it_is_waited_for_and_nothing_is_written(tmp_path: Path) -> None:
    async with serving(runtime("new"), tmp_path):
        upgrade = await Upgrade(tmp_path, mirror("v1.20.2", "old"), None, mirror("v1.20.5", "new")).written()
        upgrade.ill = ["not yet", None]
        before = dict(upgrade.memory.files)
        assert len(await upgrade.run(Events())) == 1
    assert len(upgrade.says) == len(upgrade.ill) == 1
    assert upgrade.memory.files == before
    assert upgrade.memory.commands == []


async def test_one_that_never_runs_is_an_error_that_names_what_was_kept(tmp_path: Path) -> None:
    """Nobody knows here whether it once ran by this manifest, so that none is put back."""
    async with serving(runtime("old"), tmp_path):
        upgrade = await Upgrade(tmp_path, mirror("v1.20.5", "new"), deadline=0.3).written()
        with pytest.raises(HostError, match=f"kube-scheduler does not run by {PATH}") as caught:
            await upgrade.run(Events())
    error = caught.value
    assert error.exit_code is ExitCode.COMPONENT_FAILED
    assert f"the manifest before it: {EARLIER}" in error.evidence
    assert any("no container of its manifest runs" in line for line in error.evidence)
    assert upgrade.memory.files[PATH].data == to_yaml(pod("v1.20.5"))


async def test_the_old_one_must_have_ended(tmp_path: Path) -> None:
    """It answers on the same port until then: nobody knows whether the new one does."""
    runs = runtime("old")
    asked: list[int] = []

    class Overlapping(Upgrade):
        async def act(self, changes: Sequence[Change], activity: Activity) -> None:
            await super().act(changes, activity)
            runs.answers |= runtime("old", "new").answers
            asyncio.get_running_loop().call_later(0.1, lambda: runs.answers.update(runtime("new").answers))

        async def healthy(self) -> str | None:
            asked.append(len(runs.answers["ListContainers"]["containers"]))
            return await super().healthy()

    async with serving(runs, tmp_path):
        upgrade = Overlapping(tmp_path, None)
        await upgrade.memory.write_file(PATH, to_yaml(pod("v1.20.2")))
        await upgrade.run(Events())
    assert asked == [1]
