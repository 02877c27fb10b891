"""A member that leaves etcd, against a gateway of our own: never at the cost of those that stay."""

from __future__ import annotations

import pytest
from tests.unit.phases import test_etcd_phase as joining
from tests.unit.phases.test_etcd_phase import MANIFEST, PEER, Machine

from kubewright.errors import KubewrightError
from kubewright.events import Events
from kubewright.hosts import FileWrite
from kubewright.model.objects import to_yaml
from kubewright.phases.leave import EtcdMemberGone

machine = joining.machine
POD = {
    "spec": {
        "containers": [
            {
                "command": [
                    "etcd",
                    "--advertise-client-urls=https://192.0.2.2:2379",
                    f"--initial-advertise-peer-urls={PEER}",
                    f"--initial-cluster=cp1=https://192.0.2.1:2380,cp2={PEER}",
                ]
            }
        ],
        "volumes": [{"name": "etcd-data", "hostPath": {"path": "/var/lib/etcd"}}],
    }
}


@pytest.fixture
async def leaving(machine: Machine) -> EtcdMemberGone:
    """cp2's phase, where cp1 and cp2 are the members."""
    machine.gateway.starts = False
    machine.gateway.members.append({"ID": "2", "peerURLs": [PEER]})
    machine.gateway.run()
    await machine.write_files([FileWrite(MANIFEST, to_yaml(POD))])
    return EtcdMemberGone(joining.member(machine)._node, "/etc/kubernetes/pki")


async def test_a_member_that_the_others_do_without_leaves(machine: Machine, leaving: EtcdMemberGone) -> None:
    assert len(await leaving.run(Events())) == 1
    assert [one["name"] for one in machine.gateway.members] == ["cp1"]
    assert leaving.data_dir == "/var/lib/etcd"
    assert await leaving.look() == []


async def test_one_that_the_others_need_stays(machine: Machine, leaving: EtcdMemberGone) -> None:
    machine.gateway.ill = ("192.0.2.1",)
    with pytest.raises(KubewrightError, match="1 voting members are left, of which 0 are healthy"):
        await leaving.run(Events())
    assert "remove" not in machine.gateway.asked


@pytest.mark.parametrize("started", [True, False])
async def test_the_last_that_votes_need_not_leave(
    machine: Machine, leaving: EtcdMemberGone, started: bool
) -> None:
    """A join that was interrupted leaves a learner, and etcd never lets its last voter go."""
    other = machine.gateway.members[0]
    other["isLearner"] = True
    if not started:
        other.update(name="", clientURLs=[])
    assert await leaving.run(Events()) == []
    assert "remove" not in machine.gateway.asked
    assert leaving.data_dir == "/var/lib/etcd"


async def test_a_member_that_cannot_be_told_from_the_others_is_not_passed_over(
    machine: Machine, leaving: EtcdMemberGone
) -> None:
    """A manifest that somebody has rewritten, with a flag and its value apart."""
    text = to_yaml(POD).decode().replace(f"urls={PEER}", f"urls\n    - {PEER}")
    await machine.write_files([FileWrite(MANIFEST, text.encode())])
    assert await leaving.run(Events()) == []
    assert "etcdctl member remove" in leaving.note
