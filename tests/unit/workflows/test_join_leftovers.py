"""A join that was interrupted is finished by the next; what another cluster left is refused (P34, P35)."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from tests.unit.phases.memory_host import MemoryHost
from tests.unit.workflows.test_join import desired, node

from kubewright.hosts import Completed, FileWrite
from kubewright.model import kubeconfig, x509
from kubewright.model.arguments import EtcdMember
from kubewright.model.node_preflight import NodeChecks, for_join, for_join_control_plane
from kubewright.model.objects import to_yaml
from kubewright.workflows.join_leftovers import (
    has_leftovers,
    without_own_directory,
    without_own_node,
    without_own_pods,
)

CA, OTHER = b"-----ours", b"-----theirs"
CA_PATH, KUBELET = "/etc/kubernetes/pki/ca.crt", "/etc/kubernetes/kubelet.conf"
MANIFESTS = "/etc/kubernetes/manifests"


class Host(MemoryHost):
    """One that lists its directories."""

    async def run(self, argv: Any, **options: Any) -> Completed:
        names = [path.rpartition("/")[2] for path in self.files if path.startswith(f"{MANIFESTS}/")]
        return Completed(tuple(argv), 0, "\n".join(names).encode() if argv[0] == "ls" else b"")


async def worker(*files: tuple[str, bytes]) -> NodeChecks:
    here = node()
    await here.host.write_files([FileWrite(path, content) for path, content in files])
    checks = for_join(desired(here).settings.join)
    assert await has_leftovers(here, checks) == bool(files)
    return await without_own_node(here, checks, CA_PATH, CA)


def kubelet_conf(ca: bytes) -> bytes:
    return to_yaml(kubeconfig.after_bootstrap("https://192.0.2.10:6443", ca))


async def test_a_fresh_host_must_have_nothing() -> None:
    checks = await worker()
    assert {CA_PATH, KUBELET} < set(checks.absent_files)
    assert not checks.member
    assert 10250 in checks.ports


async def test_the_same_clusters_files_and_kubelet_may_be_there() -> None:
    checks = await worker((CA_PATH, CA + b"\n"), (KUBELET, kubelet_conf(CA)))
    assert not checks.absent_files
    assert 10250 not in checks.ports
    assert checks.member


@pytest.mark.parametrize(("name", "ours"), [("n1", True), ("other", False)])
async def test_a_kubelet_of_another_name_may_not(name: str, ours: bool) -> None:
    """Its certificate names a Node that this one cannot register as."""
    spec = kubeconfig.node_client_cert(name)
    cert = x509.self_signed_ca(spec, x509.new_key(spec.key_kind), datetime.now(UTC)).cert
    checks = await worker(
        (CA_PATH, CA), (KUBELET, kubelet_conf(CA)), (kubeconfig.KUBELET_CLIENT_CURRENT, cert)
    )
    assert (KUBELET not in checks.absent_files) == ours


@pytest.mark.parametrize(
    "files", [((CA_PATH, OTHER), (KUBELET, kubelet_conf(OTHER))), ((KUBELET, b"nonsense: 1"),)]
)
async def test_another_clusters_may_not(files: tuple[tuple[str, bytes], ...]) -> None:
    checks = await worker(*files)
    assert KUBELET in checks.absent_files
    assert 10250 in checks.ports
    assert not checks.member


async def plane(*, strange: bool = False, **etcd: str) -> tuple[NodeChecks, NodeChecks]:
    """The checks of the host and of the control plane, where a join has written all static Pods."""
    here = node(control_plane=True)
    host = Host()
    object.__setattr__(here, "host", host)
    want = desired(here, control_plane=True)
    pods = want.static_pods(ca_dirs=[], external_ca=False)
    members = [EtcdMember("cp1", "https://192.0.2.9:2380"), EtcdMember("n1", "https://192.0.2.1:2380")]
    text = to_yaml(want.etcd_pod(members)).decode()
    for old, new in etcd.items():
        text = text.replace({"name": "--name=n1"}[old], new)
    written = {name: to_yaml(pod) for name, pod in pods.items()} | {"etcd": text.encode()}
    if strange:
        written["strange"] = b"{}"
    await host.write_files(
        [FileWrite(f"{MANIFESTS}/{name}.yaml", content) for name, content in written.items()]
    )
    join = want.settings.join
    checks = for_join_control_plane(join, want.cluster, want.facts)
    left = await without_own_pods(here, checks, pods, want.control_plane)
    return await without_own_directory(here, for_join(join), left), left


async def test_our_own_control_plane_may_be_there_with_what_runs_by_it() -> None:
    host, left = await plane()
    assert not left.absent_files
    assert not left.ports
    assert not left.empty_directories  # etcd's data
    assert MANIFESTS not in host.empty_directories


async def test_an_etcd_of_another_member_may_not() -> None:
    host, left = await plane(name="--name=other")
    assert left.absent_files == (f"{MANIFESTS}/etcd.yaml",)
    assert 2379 in left.ports
    assert MANIFESTS in host.empty_directories


async def test_a_manifest_of_somebody_else_may_not() -> None:
    host, _ = await plane(strange=True)
    assert MANIFESTS in host.empty_directories
