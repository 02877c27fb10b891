"""What is found out before etcd moves to hosts of its own, and in a run that goes on with it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
import yaml
from tests.unit.workflows.test_convert_checks_run import (
    API_SERVER,
    ETCD,
    PKI,
    PLAIN,
    Cluster,
    Etcd,
    Machine,
    live,
    pod,
)

from kubewright.errors import CommandError
from kubewright.hosts import Completed
from kubewright.model.conversion import Mode
from kubewright.model.convert_look import LOOK
from kubewright.model.etcd_unit import MEMBER_DIR, UNIT_PATH

HOSTS = [
    {"name": "cp1", "address": "10.0.0.11", "roles": ["control-plane"]},
    {"name": "w1", "address": "10.0.0.21"},
    *({"name": f"e{n}", "address": f"10.0.0.3{n}", "roles": ["etcd"]} for n in (1, 2, 3)),
]  # fmt: skip
URLS = [f"https://10.0.0.3{n}:2379" for n in (1, 2, 3)]


class EtcdMachine(Machine):
    """A machine that also says what it holds of etcd, and whom it does not reach."""

    def __init__(self, name: str, port: int) -> None:
        super().__init__(name, port)
        self.closed: list[str] = []
        self.active = False

    async def run(self, argv: Any, **options: Any) -> Completed:
        if argv[2] == LOOK:
            return await super().run(argv, **options)
        if self.broken:
            raise CommandError(f"{self.name}: sh: cannot fork", host=self.name)
        if argv[2].startswith("\nsystemctl is-active"):
            rows = ["active" if self.active else "inactive"]
            rows += ["unit"] if UNIT_PATH in self.files else []
            rows += ["data"] if MEMBER_DIR in self.files else []
            return Completed(tuple(argv), 0, "\n".join([*rows, self.listening]).encode())
        text = "".join(f"{place}: no answer in 5 s\n" for place in argv[4:] if place in self.closed)
        return Completed(tuple(argv), 0, text.encode())


@pytest.fixture
def etcd() -> Etcd:
    return Etcd()


@pytest.fixture
async def cluster(etcd: Etcd) -> AsyncIterator[Cluster]:
    async with etcd.serving() as port:
        made = Cluster(port, hosts=HOSTS)
        machines = {name: EtcdMachine(name, port) for name in made.machines}
        for name, machine in machines.items():
            machine.files = made.machines[name].files if name in ("cp1", "w1") else {}
        made.machines = dict(machines)
        made.kube.nodes = [live("cp1"), live("w1")]
        made.machines["cp1"].put(
            ETCD,
            pod(
                "etcd",
                "--listen-client-urls=https://10.0.0.11:2379",
                "--listen-peer-urls=https://10.0.0.11:2380",
                data="/data",
            ),
        )
        etcd.members = [
            {"ID": "1", "name": "cp1", "peerURLs": ["https://10.0.0.11:2380"], "clientURLs": [PLAIN]}
        ]  # fmt: skip
        assert made.kube.config is not None
        stored = yaml.safe_load(made.kube.config["data"]["ClusterConfiguration"])
        text = yaml.safe_dump(stored | {"etcd": {"local": {"dataDir": "/data"}}})
        made.kube.config["data"]["ClusterConfiguration"] = text
        yield made


async def test_bare_hosts_are_fit(cluster: Cluster) -> None:
    found = await cluster.check(Mode.EXTERNAL_ETCD)
    assert (found.control_planes, found.etcd_data) == (("cp1",), "/data")


async def test_everything_about_the_hosts_is_listed_at_once(cluster: Cluster) -> None:
    e1, e2 = cluster.machines["e1"], cluster.machines["e2"]
    e1.put(MEMBER_DIR)
    e1.put(f"{PKI}/etcd/ca.crt", b"another")
    cluster.machines["cp1"].put(f"{PKI}/etcd/ca.crt", b"ours")
    cluster.machines["cp1"].put(f"{PKI}/etcd/ca.key")
    e2.listening = 'LISTEN 0 9 *:2380 *:* users:(("python3",pid=7,fd=3))'
    assert isinstance(e2, EtcdMachine)
    e2.closed = ["10.0.0.33 2380", "10.0.0.11 2379"]
    plane = cluster.machines["cp1"]
    assert isinstance(plane, EtcdMachine)
    plane.closed = ["10.0.0.31 2379"]
    said = "\n".join(await cluster.refused(mode=Mode.EXTERNAL_ETCD))
    for part in (
        "e1: /var/lib/etcd holds the data of another etcd", "e1: it has the CA of another etcd",
        "e2: python3 listens on port 2380", "e2: it cannot reach e3 (10.0.0.33:2380): no answer in 5 s",
        "e2: it cannot reach cp1 (10.0.0.11:2379)", "cp1: it cannot reach e1 (10.0.0.31:2379)",
    ):  # fmt: skip
        assert part in said


async def test_a_host_that_cannot_be_looked_at_is_a_finding(cluster: Cluster) -> None:
    cluster.machines["e3"].broken = True
    assert any("e3: sh: cannot fork" in line for line in await cluster.refused(mode=Mode.EXTERNAL_ETCD))


async def test_a_run_goes_on_when_members_are_half_added(cluster: Cluster, etcd: Etcd) -> None:
    e1 = cluster.machines["e1"]
    e1.put(MEMBER_DIR)
    e1.put(UNIT_PATH)
    etcd.members.append({"ID": "2", "name": "e1", "peerURLs": ["https://10.0.0.31:2380"], "isLearner": True})
    found = await cluster.check(Mode.EXTERNAL_ETCD, resumed=True)
    assert found.control_planes == ("cp1",)


async def test_a_control_plane_whose_member_has_left_is_one_still(cluster: Cluster, etcd: Etcd) -> None:
    """Killed between the member's removal and its manifest's."""
    etcd.members = [{"ID": "1", "name": "e1", "peerURLs": ["https://10.0.0.31:2380"], "clientURLs": [PLAIN]}]
    assert (await cluster.check(Mode.EXTERNAL_ETCD, resumed=True)).control_planes == ("cp1",)


async def test_what_has_moved_may_be_asked_for_again(
    cluster: Cluster, etcd: Etcd, monkeypatch: pytest.MonkeyPatch
) -> None:
    del cluster.machines["cp1"].files[ETCD]
    plain = ",".join(url.replace("https:", "http:") for url in URLS)
    cluster.machines["cp1"].put(API_SERVER, pod("kube-apiserver", f"--etcd-servers={plain}"))
    said = await cluster.refused(mode=Mode.EXTERNAL_ETCD)
    assert "uses etcd at http://10.0.0.31:2379" in said[0], "it is another one, without TLS"


async def test_a_member_is_asked_where_the_api_server_asks_and_not_taken_for_the_planes_own(
    cluster: Cluster, etcd: Etcd
) -> None:
    """All API servers use the hosts, and the control plane's member has not left."""
    plain = ",".join(url.replace("https:", "http:") for url in URLS)
    cluster.machines["cp1"].put(API_SERVER, pod("kube-apiserver", f"--etcd-servers={plain}"))
    etcd.number = "2"
    etcd.members = [
        {"ID": "2", "name": "e1", "peerURLs": ["https://10.0.0.31:2380"], "clientURLs": ["http://10.0.0.31:2379"]},
        {"ID": "1", "name": "cp1", "peerURLs": ["https://10.0.0.11:2380"], "clientURLs": [PLAIN]},
    ]  # fmt: skip
    found = await cluster.check(Mode.EXTERNAL_ETCD, resumed=True)
    assert found.control_planes == ("cp1",)
