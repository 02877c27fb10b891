"""The order in which a Node leaves, and what stops it before anything is changed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from tests.unit.phases.memory_host import MemoryHost

from kubewright.errors import ExitCode, HostError, KubewrightError
from kubewright.events import Events
from kubewright.hosts import Completed, FileWrite, HostFacts
from kubewright.model.config.cluster import HostSpec, Role
from kubewright.model.config.kubeadm_types import ClusterConfiguration
from kubewright.model.kept import Kept
from kubewright.model.objects import Object, to_yaml
from kubewright.phases import alive
from kubewright.phases.etcd_members import Leaver
from kubewright.phases.installed import Installed
from kubewright.phases.node import Node
from kubewright.phases.phase import Action, Change, Phase
from kubewright.workflows import remove, strays
from kubewright.workflows.remove import Removal, Staying
from kubewright.workflows.strays import make_room

FACTS = HostFacts(
    "x", "debian", "12", "", "amd64", "", 2, 4 << 30, 0, True, "systemd", 2, 0, "192.0.2.2", (), ()
)  # fmt: skip
CA = "/etc/kubernetes/pki/ca.crt"
ETCD = "/etc/kubernetes/manifests/etcd.yaml"
PHASES = (
    "EtcdLeaderAway", "Drain", "ServersGone", "EtcdMemberOut", "EndpointGone", "CleanUp",
    "PacketFilterGone", "PodNetworkGone", "ProxiesGone", "GoneNodes",
)  # fmt: skip


class Host(MemoryHost):
    boot = "b2"
    kubelet = 0

    async def run(self, argv: Any, **options: Any) -> Completed:
        if argv[:1] == ["systemctl"]:
            return Completed(tuple(argv), self.kubelet)
        if argv[:1] == ["cat"]:
            return Completed(tuple(argv), 0, self.boot.encode())
        return Completed(tuple(argv), 0)


def machine(name: str, *roles: Role, address: str = "192.0.2.2", ca: bytes = b"") -> Node:
    host = Host()
    if ca:
        host.files[CA] = FileWrite(CA, ca)
    return Node(HostSpec(name=name, address=address, roles=list(roles)), host, FACTS, address)


def live(name: str, *, ready: str = "True", plane: bool = True, boot: str = "b1") -> Object:
    labels = {"node-role.kubernetes.io/master": ""} if plane else {}
    return {
        "metadata": {"name": name, "labels": labels},
        "status": {
            "addresses": [{"type": "InternalIP", "address": "192.0.2.2"}],
            "conditions": [{"type": "Ready", "status": ready}],
            "nodeInfo": {"bootID": boot},
        },
    }


class Kube:
    """Nodes by name, and Leases that are renewed each time that they are read, where `renews`."""

    def __init__(self, *nodes: Object, renews: bool = True) -> None:
        self.nodes = {node["metadata"]["name"]: node for node in nodes}
        self.renews = renews
        self.reads = 0

    async def get(self, _version: str, kind: str, name: str, _namespace: str = "") -> Object | None:
        if kind == "Lease":
            self.reads += self.renews
            return {"spec": {"renewTime": str(self.reads)}}
        return self.nodes.get(name) if kind == "Node" else None


class World:
    """What is done, in order. Each phase finds one change, unless it refuses."""

    def __init__(
        self,
        monkeypatch: pytest.MonkeyPatch,
        kube: Kube,
        *,
        planes: int = 1,
        endpoint: str = "192.0.2.9:6443",
    ) -> None:
        self.done: list[str] = []
        self.looked: list[str] = []
        self.given: dict[str, tuple[Any, ...]] = {}
        self.refuses = ""
        for module in (remove, strays):
            for name in PHASES:
                if hasattr(module, name):
                    monkeypatch.setattr(module, name, self._stand_in(name))

        async def installed(_host: object) -> Installed:
            return self.installed

        self.installed = Installed("", "/run/x.sock", True, {})
        monkeypatch.setattr(remove, "read_installed", installed)
        cluster = ClusterConfiguration(control_plane_endpoint=endpoint)
        others = [
            machine(f"cp{number}", Role.CONTROL_PLANE, address=f"192.0.2.{10 + number}", ca=b"ours")
            for number in range(1, planes + 1)
        ]
        self.stay = Staying(kube, others, cluster, Events(), self.do, self.without)  # type: ignore[arg-type]

    def _stand_in(world, name: str) -> type[Phase]:  # noqa: N805
        class Recorded(Phase):
            title = name
            warnings = ()
            kept = (Kept(name, "it is somebody's"),)

            def __init__(self, *arguments: Any, **_: Any) -> None:
                self.name = name  # type: ignore[misc]
                world.given[name] = arguments

            async def look(self) -> Sequence[Change]:
                world.looked.append(name)
                if world.refuses == name:
                    raise KubewrightError("refused")
                return [Change(Action.RUN, name)]

            async def act(self, *_: object) -> None:
                world.done.append(name)

        return Recorded

    async def do(self, phase: Phase) -> Sequence[Change]:
        return await phase.run(Events())

    async def without(self, name: str) -> None:
        self.done.append(f"without {name}")


async def test_what_a_reset_leaves_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(monkeypatch, Kube(live("w1", plane=False)))

    async def left_behind(_host: object) -> list[Kept]:
        return [Kept("/root/.kube/config", "a user's own")]

    monkeypatch.setattr(remove, "left_behind", left_behind)
    removal = Removal(world.stay, "w1", machine("w1", Role.WORKER))
    await removal.run()
    assert [kept.what for kept in removal.kept] == [
        "CleanUp", "PacketFilterGone", "PodNetworkGone", "/root/.kube/config",
    ]  # fmt: skip


async def test_a_control_plane_serves_until_it_is_no_backend_and_its_node_goes_last(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world = World(monkeypatch, Kube(live("cp2")))
    await Removal(world.stay, "cp2", machine("cp2", Role.CONTROL_PLANE)).run()
    assert world.done == [
        "Drain", "EtcdLeaderAway", "without cp2", "ServersGone", "EtcdMemberOut", "EndpointGone", "CleanUp",
        "PacketFilterGone", "PodNetworkGone", "ProxiesGone", "GoneNodes",
    ]  # fmt: skip


async def test_a_worker_is_drained_and_reset(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(monkeypatch, Kube(live("w1", plane=False)))
    world.installed = Installed("w1", "/run/x.sock", False, {})
    await Removal(world.stay, "w1", machine("w1", Role.WORKER)).run()
    assert world.done == [
        "Drain",
        "CleanUp",
        "PacketFilterGone",
        "PodNetworkGone",
        "ProxiesGone",
        "GoneNodes",
    ]


async def test_a_dead_host_is_taken_out_by_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(monkeypatch, Kube(live("cp2", ready="Unknown")))
    await Removal(world.stay, "cp2", None).run()
    assert world.done == ["EtcdLeaderAway", "without cp2", "EtcdMemberOut", "EndpointGone", "GoneNodes"]
    assert world.given["EtcdMemberOut"][-1].dead


async def test_one_without_a_node_is_not_asked_where_it_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    """As after a Node that somebody has deleted by hand: its member of etcd stays."""
    world = World(monkeypatch, Kube())
    await Removal(world.stay, "cp2", None, dead=True).run()
    assert world.done == ["EtcdLeaderAway", "without cp2", "EtcdMemberOut", "EndpointGone", "GoneNodes"]
    assert world.given["EtcdMemberOut"][-1] == Leaver("cp2", dead=True)


async def test_a_host_that_ssh_does_not_reach_is_drained_where_its_kubelet_lives(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world = World(monkeypatch, Kube(live("w1", plane=False)))
    await Removal(world.stay, "w1", None).run()
    assert world.done == ["Drain", "GoneNodes"]


async def test_where_the_kubelet_was_stopped_nobody_waits_for_pods_to_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As after a run that was killed while it reset the host."""
    world = World(monkeypatch, Kube(live("cp2")))
    host = machine("cp2", Role.CONTROL_PLANE)
    assert isinstance(host.host, Host)
    host.host.kubelet = 3
    await Removal(world.stay, "cp2", host).run()
    assert "Drain" not in world.done
    assert world.done[-2:] == ["ProxiesGone", "GoneNodes"]


@pytest.mark.parametrize("phase", ["EtcdLeaderAway", "Drain"])
async def test_what_must_not_leave_is_refused_before_anything_is_done(
    monkeypatch: pytest.MonkeyPatch, phase: str
) -> None:
    world = World(monkeypatch, Kube(live("cp2")))
    world.refuses = phase
    with pytest.raises(KubewrightError, match="refused"):
        await Removal(world.stay, "cp2", machine("cp2", Role.CONTROL_PLANE)).run()
    assert world.done == []


async def test_the_only_control_plane_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(monkeypatch, Kube(live("cp2")), planes=0)
    with pytest.raises(KubewrightError, match="cp2 is the only control plane") as caught:
        await Removal(world.stay, "cp2", machine("cp2", Role.CONTROL_PLANE)).run()
    assert caught.value.exit_code is ExitCode.HOST_NOT_FIT
    assert world.done == []


async def test_the_host_that_is_the_endpoint_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(monkeypatch, Kube(live("cp2")), endpoint="192.0.2.2:6443")
    with pytest.raises(KubewrightError, match=r"192\.0\.2\.2:6443 is an address of this host"):
        await Removal(world.stay, "cp2", machine("cp2", Role.CONTROL_PLANE)).run()
    assert world.done == []


async def test_a_host_that_is_another_node_by_now_is_not_touched(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(monkeypatch, Kube(live("cp2")))
    world.installed = Installed("cp4", "", True, {})
    with pytest.raises(HostError, match="is Node cp4 by now"):
        await Removal(world.stay, "cp2", machine("cp2", Role.CONTROL_PLANE)).run()
    assert world.done == []


@pytest.mark.parametrize("name", ["cp2", ""])
async def test_a_host_of_another_cluster_is_not_touched(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """One that has the old one's name there, and one that has not got its kubelet's certificate yet."""
    world = World(monkeypatch, Kube(live("cp2")))
    world.installed = Installed(name, "", True, {})
    with pytest.raises(HostError, match=r"192\.0\.2\.2 is in another cluster by now") as caught:
        await Removal(world.stay, "cp2", machine("cp2", Role.CONTROL_PLANE, ca=b"theirs")).run()
    assert caught.value.exit_code is ExitCode.HOST_IN_OTHER_CLUSTER
    assert "node remove cp2 --gone" in caught.value.hint
    assert world.done == []


async def test_a_cluster_is_known_by_its_ca_wherever_that_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker that kubeadm has joined has it where kubeadm's default is."""
    world = World(monkeypatch, Kube(live("w1", plane=False)))
    world.installed = Installed("w1", "", False, {})
    own = "/etc/pki/kubernetes"
    plane = world.stay.planes[0].host
    await plane.write_files([FileWrite(f"{own}/ca.crt", b"ours\n"), FileWrite(CA, b"an older cluster's")])
    stay = replace(world.stay, cluster=ClusterConfiguration(certificates_dir=own))
    await Removal(stay, "w1", machine("w1", Role.WORKER, ca=b"ours")).run()
    assert "CleanUp" in world.done
    with pytest.raises(HostError, match="in another cluster"):
        await Removal(stay, "w1", machine("w1", Role.WORKER, ca=b"an older cluster's")).run()


async def test_a_new_host_under_a_dead_ones_name_finds_room(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(monkeypatch, Kube(live("cp2", ready="Unknown")))
    await make_room(world.stay, machine("cp2", Role.CONTROL_PLANE, address="192.0.2.3"))
    assert world.done == ["EtcdMemberOut", "EndpointGone", "GoneNodes"]
    # A learner that never started has no name: it is known by where the dead one was.
    assert world.given["EtcdMemberOut"][-1] == Leaver("cp2", ("192.0.2.2",), dead=True)


async def test_a_dead_ones_address_says_nothing_where_another_host_has_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world = World(monkeypatch, Kube(live("cp2", ready="Unknown")))
    taken = machine("cp1", Role.CONTROL_PLANE, address="192.0.2.2")
    new = machine("cp2", Role.CONTROL_PLANE, address="192.0.2.3")
    await make_room(replace(world.stay, planes=[taken, new]), new)
    assert world.given["EtcdMemberOut"][-1] == Leaver("cp2", dead=True)


async def test_no_room_is_made_for_a_host_that_is_a_member_already(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(monkeypatch, Kube(live("cp2")))
    host = machine("cp2", Role.CONTROL_PLANE)
    files = ("/etc/kubernetes/kubelet.conf", "/var/lib/etcd/member")
    await host.host.write_files([FileWrite(path, b"x") for path in files])
    await make_room(world.stay, host)
    # Nor for one whose kubeconfig somebody has deleted: the Node tells of this host, in this boot.
    world = World(monkeypatch, Kube(live("w1", plane=False, boot="b2")))
    await make_room(world.stay, machine("w1", Role.WORKER))
    assert world.done == []


async def test_the_member_of_a_host_that_was_reset_while_etcd_was_away_is_none_any_more(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Not restarted since: its Node tells of this boot."""
    world = World(monkeypatch, Kube(live("cp2", boot="b2")))
    await make_room(world.stay, machine("cp2", Role.CONTROL_PLANE))
    assert world.done == ["EtcdMemberOut"]
    assert world.given["EtcdMemberOut"][-1] == Leaver("cp2", dead=True)


@pytest.mark.parametrize("path", ["/var/lib/etcd/member", ETCD])
async def test_a_host_with_data_or_a_manifest_of_etcd_keeps_its_member(
    monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    world = World(monkeypatch, Kube(live("cp2", boot="b2")))
    host = machine("cp2", Role.CONTROL_PLANE)
    await host.host.write_files([FileWrite(path, b"{}")])
    await make_room(world.stay, host)
    assert world.done == []


@pytest.mark.parametrize("where", ["/var/lib/etcd", "/data/etcd", ""])
async def test_data_is_lost_only_where_the_manifest_has_it(
    monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    world = World(monkeypatch, Kube(live("cp2")))
    host = machine("cp2", Role.CONTROL_PLANE)
    volumes = [{"name": "etcd-data", "hostPath": {"path": where}}]
    pod = to_yaml({"spec": {"volumes": volumes if where else []}})
    await host.host.write_files([FileWrite(ETCD, pod), FileWrite("/etc/kubernetes/kubelet.conf", b"x")])
    await make_room(world.stay, host)
    assert world.done == (["EtcdMemberOut"] if where == "/var/lib/etcd" else [])


async def test_a_living_host_keeps_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(monkeypatch, Kube(live("w1", plane=False)))
    with pytest.raises(HostError, match="another host is alive as Node w1"):
        await make_room(world.stay, machine("w1", Role.WORKER))


@pytest.mark.parametrize(
    ("ready", "renews", "lives"), [("True", True, True), ("Unknown", True, False), ("True", False, False)]
)
async def test_a_kubelet_lives_while_it_renews_its_lease(ready: str, renews: bool, lives: bool) -> None:
    kube: Any = Kube(live("w1", ready=ready), renews=renews)
    assert await alive.reports(kube, kube.nodes["w1"], patience=0.01) is lives
