"""What a restore does with hosts to which etcd had moved: they are reset, and keep what they knew."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.unit.phases.rooted_host import AS_ROOT, rooted, rooted_node
from tests.unit.workflows import test_convert_restore
from tests.unit.workflows.test_convert_restore import ID, Cluster, cluster

from kubewright.errors import HostError
from kubewright.events import Events
from kubewright.model.config.cluster import HostSpec, Role
from kubewright.model.etcd_unit import MEMBER_DIR, PERMIT_PATH, UNIT, UNIT_PATH
from kubewright.phases.etcd_host_reset import EtcdHostReset
from kubewright.phases.node import Node

__all__ = ["cluster"]

PKI = "/etc/kubernetes/pki"
SYSTEMCTL = r"""
case "$1" in
disable) echo inactive >"$ROOT/state" ;;
is-active) [ "$(cat "$ROOT/state")" = active ] ;;
esac
"""
pytestmark = pytest.mark.skipif(not AS_ROOT, reason="files are given owners: root only")


def etcd_host(root: Path, name: str, ip: str, ca: str) -> Node:
    node = rooted_node(root, name, ip, worker=True)
    host = rooted(node)
    host.program("systemctl", SYSTEMCTL)
    host.put("/state", "active\n")
    for path in (
        UNIT_PATH,
        PERMIT_PATH,
        f"{MEMBER_DIR}/wal/0",
        f"{PKI}/etcd/ca.key",
        f"{PKI}/etcd/server.key",
    ):
        host.put(path, "later")
    host.put(f"{PKI}/etcd/ca.crt", ca)
    host.put("/etc/hosts", "mine")
    return replace(node, spec=HostSpec(name=name, address=ip, roles=[Role.ETCD]))


def whole(cluster: Cluster, tmp_path: Path) -> list[Node]:
    nodes = [
        etcd_host(tmp_path, "e1", "192.0.2.5", "etcd's CA"), etcd_host(tmp_path, "e2", "192.0.2.6", "another's"),
    ]  # fmt: skip
    cluster.nodes += nodes
    return nodes


async def test_hosts_to_which_etcd_had_moved_are_reset(cluster: Cluster, tmp_path: Path) -> None:
    cluster.host("cp1").put(f"{PKI}/etcd/ca.crt", "etcd's CA")
    await cluster.backed("cp1")
    mine, others = (rooted(node) for node in whole(cluster, tmp_path))
    before = others.tree()
    cluster.host("cp1").at("/var/lib/etcd/member").rename(
        cluster.host("cp1").at(f"/var/lib/etcd/member.moved-{ID}")
    )
    result = await cluster.restore()
    assert result.reset == ["cp2", "e1"]
    assert mine.at("/state").read_text() == "inactive\n"
    assert mine.at(f"{MEMBER_DIR}.before-restore-{ID}/wal/0").read_text() == "later"
    assert not mine.at(MEMBER_DIR).exists()
    assert {path.name for path in mine.at("/etc").rglob("*") if path.is_file()} == {"hosts"}
    assert others.tree() == before, "its etcd is another cluster's"
    cp1 = cluster.host("cp1")
    assert cp1.at("/var/lib/etcd/member/snap/db").exists()
    assert cp1.at(f"/var/lib/etcd/member.moved-{ID}/snap/db").read_text() == "later"


async def test_an_etcd_that_was_elsewhere_before_stays(
    cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The backup has no member of etcd: these hosts had it then."""
    monkeypatch.setattr(test_convert_restore, "PODS", test_convert_restore.PODS[1:])
    cluster.host("cp1").put(f"{PKI}/etcd/ca.crt", "etcd's CA")
    await cluster.backed("cp1")
    for node in (cluster.node("cp1"), cluster.node("w1")):
        whole_file = rooted(node).at(f"/var/lib/kubewright/backups/{ID}/cluster.json")
        if whole_file.exists():
            whole_file.write_text(whole_file.read_text().replace('"etcd": true', '"etcd": false'))
    cluster.host("cp1").at(f"/var/lib/kubewright/backups/{ID}/etcd.db").unlink()
    mine = rooted(whole(cluster, tmp_path)[0])
    before = mine.tree()
    assert (await cluster.restore()).reset == ["cp2"]
    assert mine.tree() == before


async def test_a_member_that_does_not_stop_keeps_everything(tmp_path: Path) -> None:
    node = etcd_host(tmp_path, "e1", "192.0.2.5", "x")
    rooted(node).program("systemctl", "true")
    before: Any = rooted(node).tree()
    phase = EtcdHostReset(node, PKI, ID)
    with pytest.raises(HostError) as caught:
        await phase.run(Events())
    assert UNIT in "".join([caught.value.message, *caught.value.evidence])
    assert rooted(node).tree() == before
    rooted(node).program("systemctl", SYSTEMCTL)
    await phase.run(Events())
    assert await phase.run(Events()) == []
