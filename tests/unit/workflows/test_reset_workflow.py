"""What a reset does not stumble over: the broken node is the one that is reset."""

from __future__ import annotations

import pytest
from tests.unit.phases.memory_host import MemoryHost
from tests.unit.workflows.test_join import node

from kubewright.events import Event, Events
from kubewright.hosts import FileWrite
from kubewright.model.config.kubeadm_nodes import ResetConfiguration
from kubewright.workflows.reset import Reset


@pytest.mark.parametrize("content", [b"", b"{half", b"kind: Config\n"])
async def test_a_damaged_kubeconfig_does_not_stop_it(content: bytes) -> None:
    here = node(control_plane=True)
    assert isinstance(here.host, MemoryHost)
    await here.host.write_files(
        [
            FileWrite("/etc/kubernetes/manifests/kube-apiserver.yaml", b"{}"),
            FileWrite("/etc/kubernetes/admin.conf", content),
        ]
    )
    seen: list[Event] = []
    run = Reset(here, ResetConfiguration(), Events(seen.append), kubeconfig_path="", dry=False)
    await run.update_cluster_status()
    assert any("keeps this node's endpoint" in str(one) for one in seen)
