"""A kubelet moves to another address of its API, also where a run was killed on the way."""

from __future__ import annotations

from typing import Any

import pytest
import yaml
from tests.unit.phases.memory_host import MemoryHost

from kubewright.errors import HostError, WaitTimeoutError
from kubewright.events import Events
from kubewright.hosts import Completed, FileWrite, HostFacts
from kubewright.model.config.cluster import HostSpec
from kubewright.phases import kubelet_server
from kubewright.phases.kubelet_server import KubeletServer
from kubewright.phases.node import Node

CONF = "/etc/kubernetes/kubelet.conf"
OLD, NEW = "https://192.0.2.1:6443", "https://api.example.com:6443"
FACTS = HostFacts(
    "w1", "debian", "12", "", "amd64", "", 2, 4 << 30, 0, True, "systemd", 2, 0, "192.0.2.9", (), ()
)


class Machine(MemoryHost):
    """A node whose kubelet reads its file when it starts, and renews its Lease by what it read."""

    def __init__(self, server: str = OLD) -> None:
        super().__init__()
        self.name = "w1"
        cluster = {"name": "kubernetes", "cluster": {"server": server}}
        self.files[CONF] = FileWrite(CONF, yaml.safe_dump({"kind": "Config", "clusters": [cluster]}).encode())
        self.active = True
        self.newer = False
        self.used = ""
        self.renewals = 1
        self.deaf = False

    async def run(self, argv: Any, **options: Any) -> Completed:
        if argv[0] == "sh":  # which files are newer than the unit
            return Completed(tuple(argv), 0, f"{CONF}\n".encode() if self.newer else b"")
        if argv[1] == "stop":
            self.active = False
        elif argv[1] == "start":
            self.active, self.newer = True, False
            self.used = yaml.safe_load(self.files[CONF].data)["clusters"][0]["cluster"]["server"]
            self.renewals += not self.deaf
        return Completed(tuple(argv), 0 if self.active or argv[1] != "is-active" else 3)

    async def get(self, _version: str, kind: str, name: str, namespace: str) -> dict[str, Any]:
        assert (kind, name, namespace) == ("Lease", "w1", "kube-node-lease")
        return {"spec": {"renewTime": str(self.renewals)}}


def phase(machine: Machine) -> KubeletServer:
    node = Node(HostSpec(name="w1", address="192.0.2.9"), machine, FACTS, "192.0.2.9")
    return KubeletServer(node, machine, NEW)  # type: ignore[arg-type]


async def test_it_reports_at_the_new_address() -> None:
    machine = Machine()
    changes = await phase(machine).run(Events())
    assert changes[0].diff == (f"# {OLD} becomes {NEW}",)
    assert machine.files[CONF].mode == 0o600
    assert (machine.active, machine.used) == (True, NEW)
    assert await phase(machine).run(Events()) == []


@pytest.mark.parametrize(("active", "newer"), [(False, False), (True, True)])
async def test_a_run_that_was_killed_after_the_file_is_finished(active: bool, newer: bool) -> None:
    machine = Machine(NEW)
    machine.active, machine.newer = active, newer
    assert len(await phase(machine).run(Events())) == 1
    assert (machine.active, machine.used) == (True, NEW)


async def test_one_that_does_not_report_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kubelet_server, "_DEADLINE", 0.0)
    machine = Machine()
    machine.deaf = True
    with pytest.raises(WaitTimeoutError, match="w1: the kubelet to report at"):
        await phase(machine).run(Events())


async def test_a_host_that_is_no_node_is_refused() -> None:
    machine = Machine()
    del machine.files[CONF]
    with pytest.raises(HostError, match="no node of a cluster"):
        await phase(machine).run(Events())
