"""What preflight refuses, decided from facts."""

from __future__ import annotations

import dataclasses

import pytest

from kubewright.errors import ExitCode, HostError
from kubewright.model import preflight
from kubewright.model.config.cluster import ClusterSpec
from kubewright.model.facts import HostFacts

GIB = 1 << 30
URL = "https://192.0.2.1:6443"

FIT = HostFacts(
    hostname="cp1", os_id="debian", os_version="12", os_name="Debian GNU/Linux 12", arch="amd64",
    kernel="6.1.0", cpus=2, memory=4 * GIB, swap=0, is_root=True, init="systemd", cgroup_version=2,
    capabilities=(1 << 41) - 1, default_address="192.0.2.1", addresses=("192.0.2.1",), routes=("192.0.2.0/24",),
    filesystems={"/etc": 9 * GIB, "/var/lib": 9 * GIB, "/usr/local": 9 * GIB, "/tmp": 9 * GIB},
    machine_id="a" * 32, macs=("02:00:00:00:00:01",),
)  # fmt: skip


def spec(**fields: object) -> ClusterSpec:
    document = {
        "name": "c",
        "hosts": [
            {"name": "cp1", "address": "192.0.2.1", "roles": ["control-plane"]},
            {"name": "w1", "address": "192.0.2.2"},
        ],
    } | fields
    return ClusterSpec.model_validate(document)


def findings(**changes: object) -> list[preflight.Finding]:
    cluster = spec()
    return preflight.check_host(cluster, cluster.hosts[0], dataclasses.replace(FIT, **changes))  # type: ignore[arg-type]


def test_a_fit_host_gives_no_finding() -> None:
    assert findings() == []


@pytest.mark.parametrize(
    ("changes", "words", "code"),
    [
        ({"os_id": "alpine", "os_name": "Alpine 3"}, "Alpine 3", ExitCode.HOST_UNSUPPORTED_OS),
        ({"os_version": "11"}, "not supported", ExitCode.HOST_UNSUPPORTED_OS),
        ({"init": "sh"}, "not systemd", ExitCode.HOST_UNSUPPORTED_OS),
        ({"swap": GIB}, "swap", ExitCode.HOST_NOT_FIT),
        ({"cpus": 1}, "1 CPU", ExitCode.HOST_NOT_FIT),
        ({"memory": GIB}, "1024 MiB of memory", ExitCode.HOST_NOT_FIT),
        ({"filesystems": {"/var/lib": 5 << 20}}, "/var/lib has 5 MiB free", ExitCode.HOST_DISK_FULL),
        ({"default_address": "", "addresses": ()}, "no address", ExitCode.HOST_NOT_FIT),
        ({"default_address": "10.96.1.1"}, "serviceSubnet", ExitCode.CONFIG_OVERLAPPING_SUBNETS),
    ],
)
def test_each_fault_is_one_finding(changes: dict[str, object], words: str, code: ExitCode) -> None:
    (found,) = findings(**changes)
    assert words in found.message
    assert found.exit_code is code
    assert found.host == "cp1"


def test_a_worker_may_be_small() -> None:
    cluster = spec()
    small = dataclasses.replace(FIT, cpus=1, memory=GIB)
    assert preflight.check_host(cluster, cluster.hosts[1], small) == []


@pytest.mark.parametrize(("role", "space"), [("etcd", 2 * GIB), ("load-balancer", 1 << 20)])
def test_a_host_that_becomes_no_node_may_have_swap_and_less_space(role: str, space: int) -> None:
    cluster = spec(hosts=[{"name": "e1", "address": "192.0.2.3", "roles": [role]}])
    places = {"/var/lib": space, "/usr/local": GIB // 16, "/etc": 1 << 20}
    host = dataclasses.replace(FIT, cpus=1, memory=GIB, swap=GIB, filesystems=places)
    assert preflight.check_host(cluster, cluster.hosts[0], host) == []


def test_a_node_ip_that_the_host_lacks_is_refused_with_those_it_has() -> None:
    cluster = spec(hosts=[{"name": "cp1", "address": "h", "roles": ["control-plane"], "nodeIP": "192.0.2.9"}])
    (found,) = preflight.check_host(cluster, cluster.hosts[0], FIT)
    assert "192.0.2.9" in found.message
    assert "192.0.2.1" in found.hint


def test_a_route_into_the_pod_subnet_is_refused() -> None:
    cluster = spec()
    facts = dataclasses.replace(FIT, routes=("10.244.3.0/24", "192.0.2.0/24"))
    (found,) = preflight.foreign_routes(cluster, cluster.hosts[0], facts)
    assert "10.244.3.0/24" in found.message
    assert found.exit_code is ExitCode.CONFIG_OVERLAPPING_SUBNETS
    unknown = spec(network={"plugin": "none", "podSubnet": ""})
    assert preflight.foreign_routes(unknown, unknown.hosts[0], facts) == []


def test_clones_are_found_by_any_mark() -> None:
    other = dataclasses.replace(FIT, machine_id="b" * 32)
    (found,) = preflight.check_fleet({"cp1": FIT, "w1": other})
    assert "MAC" in found.message
    assert "cp1" in found.message
    assert found.host == "w1"
    assert preflight.check_fleet({"cp1": FIT, "w1": dataclasses.replace(other, macs=())}) == []


def test_refuse_lists_all_findings_and_takes_the_first_exit_code() -> None:
    with pytest.raises(HostError) as caught:
        preflight.refuse(findings(init="sh", swap=GIB))
    assert caught.value.exit_code is ExitCode.HOST_UNSUPPORTED_OS
    assert any("swap" in line for line in caught.value.evidence)


def kubeconfig(server: str = URL, name: str = "c") -> dict[str, object]:
    return {"clusters": [{"name": name, "cluster": {"server": server}}]}


def belonging(
    ca: bytes | None = None, manifests: bool = False, **files: dict[str, object]
) -> preflight.Belonging:
    return preflight.Belonging(
        ca, {f"/etc/kubernetes/{k.replace('_', '-')}.conf": v for k, v in files.items()}, manifests
    )


NOTHING = belonging()
OURS = belonging(b"ours", True, admin=kubeconfig(), kubelet=kubeconfig())


@pytest.mark.parametrize(
    ("control_plane", "worker", "foreign"),
    [
        (NOTHING, NOTHING, ""),
        (belonging(b"ours"), NOTHING, ""),  # killed after the first certificate
        (OURS, NOTHING, ""),
        (OURS, belonging(b"ours", kubelet=kubeconfig()), ""),
        (OURS, belonging(b"ours", bootstrap_kubelet=kubeconfig()), ""),
        (OURS, belonging(b"theirs", kubelet=kubeconfig()), "w1"),
        (OURS, belonging(b"ours", kubelet=kubeconfig("https://192.0.2.77:6443")), "w1"),
        (OURS, belonging(None, True), "w1"),
        (NOTHING, belonging(b"theirs", kubelet=kubeconfig()), "w1"),
        (belonging(b"x", True, admin=kubeconfig(name="other")), NOTHING, "cp1"),
        (belonging(b"x", True, kubelet=kubeconfig("https://192.0.2.77:6443")), NOTHING, "cp1"),
        (belonging(b"x", True, scheduler=kubeconfig("https://127.0.0.1:6443")), NOTHING, ""),
    ],
)
def test_which_host_is_in_another_cluster(
    control_plane: preflight.Belonging, worker: preflight.Belonging, foreign: str
) -> None:
    cluster = spec()
    found = preflight.check_belonging(
        cluster, URL, [(cluster.hosts[0], control_plane), (cluster.hosts[1], worker)]
    )
    assert [item.host for item in found] == ([foreign] if foreign else [])
    assert all(item.exit_code is ExitCode.HOST_IN_OTHER_CLUSTER for item in found)


def test_a_node_under_another_name_is_refused() -> None:
    cluster = spec()
    renamed = preflight.Belonging(b"ours", {}, False, "system:node:w7")
    (found,) = preflight.check_belonging(
        cluster, URL, [(cluster.hosts[0], OURS), (cluster.hosts[1], renamed)]
    )
    assert found.host == "w1"
    assert "'w7'" in found.message
    assert found.exit_code is ExitCode.HOST_NOT_FIT


def test_another_endpoint_of_the_same_cluster_is_no_other_cluster() -> None:
    cluster = spec()
    files = {"/etc/kubernetes/admin.conf": kubeconfig("https://192.0.2.77:6443")}
    moved = preflight.Belonging(b"ours", files, True, "system:node:cp1")
    (found,) = preflight.check_belonging(
        cluster, URL, [(cluster.hosts[0], moved), (cluster.hosts[1], NOTHING)]
    )
    assert "reached at https://192.0.2.77:6443" in found.message
    assert "does not move a cluster" in found.message
    assert "kubewright convert --endpoint" in found.hint
    assert found.exit_code is ExitCode.CONFIG_INVALID


def test_where_the_api_moves_hosts_may_name_any_address() -> None:
    cluster = spec()
    before = kubeconfig("https://192.0.2.77:6443")
    hosts = [
        (cluster.hosts[0], preflight.Belonging(b"ours", {"/etc/kubernetes/admin.conf": before}, True, "")),
        (cluster.hosts[1], preflight.Belonging(b"ours", {"/etc/kubernetes/kubelet.conf": before}, False, "")),
    ]
    assert preflight.check_belonging(cluster, URL, hosts, moves=True) == []
    theirs = (cluster.hosts[1], preflight.Belonging(b"theirs", {}, False, ""))
    (found,) = preflight.check_belonging(cluster, URL, [hosts[0], theirs], moves=True)
    assert found.exit_code is ExitCode.HOST_IN_OTHER_CLUSTER
