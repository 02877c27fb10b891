"""Who stays, leads and leaves when etcd moves to hosts of its own, and what must not be there before."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
import yaml

from kubewright.errors import ConfigError, ExitCode
from kubewright.model import moving
from kubewright.model.arguments import EtcdMember, peer_url
from kubewright.model.config.cluster import ClusterSpec
from kubewright.model.config.kubeadm import default_cluster_configuration, to_stored
from kubewright.model.config.kubeadm_types import ClusterConfiguration, Etcd, LocalEtcd
from kubewright.model.conversion import Mode
from kubewright.model.convert_checks import ClusterSeen, Seen, findings, warnings
from kubewright.model.convert_look import HostSeen, Room
from kubewright.model.etcd_hosts import EtcdHostLook, SeenMember
from kubewright.model.etcd_moves import (
    QUOTA,
    Stacked,
    aside,
    etcd_findings,
    heirs,
    host_findings,
    left_behind,
    not_ready,
    refusal,
    stacked,
)
from kubewright.model.etcd_unit import Permit, StartState
from kubewright.model.extra_args import ExtraArgs
from kubewright.model.status import NodeStatus
from kubewright.model.status_etcd import ListedMember, MemberAnswer, MemberWords
from kubewright.model.versions import facts_for

FACTS = facts_for("v1.31.12")
LOOKS = [
    EtcdHostLook(f"e{n}", f"192.0.2.{n}", has_unit=True, has_data=True, active=True) for n in (4, 5, 6)
]  # fmt: skip


def member(number: int, **fields: Any) -> SeenMember:
    name = f"cp{number}" if number < 4 else f"e{number}"
    base = SeenMember(number, name, peer_url(f"192.0.2.{number}"), healthy=True)
    return replace(base, **fields)


ALL = [member(number) for number in (1, 2, 3, 4, 5, 6)]


def changed(number: int, **fields: Any) -> list[SeenMember]:
    return [replace(one, **fields) if one.id == number else one for one in ALL]


# -- who leaves ---------------------------------------------------------------------------------------------------


def test_a_static_pod_says_which_member_it_is_and_where_its_data_is() -> None:
    flags = ["--name=cp1", "--initial-advertise-peer-urls=https://192.0.2.1:2380"]
    pod = {
        "spec": {
            "containers": [{"command": ["etcd", *flags]}],
            "volumes": [{"name": "etcd-data", "hostPath": {"path": "/data"}}],
        }
    }
    wanted = Stacked("a", "cp1", "https://192.0.2.1:2380", ("https://192.0.2.1:2379",), "/data")
    assert stacked("a", "192.0.2.1", pod) == wanted
    assert stacked("a", "192.0.2.1", None) is None
    assert aside("/data", "20261122-101500") == ("/data/member", "/data/member.moved-20261122-101500")


def test_a_member_is_known_by_its_name_and_before_it_has_one_by_its_address() -> None:
    mine = Stacked("a", "cp1", peer_url("192.0.2.1"), (), "")
    assert mine.is_in(ALL) == ALL[0]
    assert mine.is_in(ALL[1:]) is None
    taken_over = member(9, name="e9", peer_url=mine.peer_url)
    assert mine.is_in([taken_over]) is None
    assert mine.is_in([replace(taken_over, name="")]) is not None


@pytest.mark.parametrize(
    ("members", "why"),
    [
        (ALL, []),
        (ALL[:5], ["e6 is no member"]),
        (changed(5, is_learner=True), ["e5 has no vote"]),
        (changed(5, name=""), ["e5 has no vote"]),
        (changed(4, healthy=False), ["e4 does not serve"]),
    ],
)
def test_nobody_leaves_before_all_hosts_bear_it(members: list[SeenMember], why: list[str]) -> None:
    assert not_ready(members, LOOKS) == why
    assert refusal(members, LOOKS, ALL[0]) == "; ".join(why)


def test_nobody_leaves_at_the_cost_of_the_majority() -> None:
    """Two of three control planes are down: six voters, of whom the third is the fourth that serves."""
    down = [replace(one, healthy=one.id not in (1, 2)) for one in ALL]
    assert refusal(down, LOOKS, down[0]) == ""
    more = [*down, member(7, healthy=False), member(8, healthy=False)]
    assert "4 are needed" in refusal(more, LOOKS, more[2])


def test_voters_on_hosts_that_serve_may_lead() -> None:
    assert [one.name for one in heirs(changed(4, healthy=False), LOOKS)] == ["e5", "e6"]
    assert heirs(ALL[:3], LOOKS) == []


# -- what must not be there ---------------------------------------------------------------------------------------

BLANK = EtcdHostLook("e4", "192.0.2.4")
OURS = ListedMember(4, "e4", (peer_url("192.0.2.4"),))
KNOWN = [MemberAnswer("cp1", MemberWords(1, version="3.5.15", database=1 << 20), listed=(OURS,))]
JOINING = Permit(StartState.EXISTING, (EtcdMember("e4", "x"),))


@pytest.mark.parametrize(
    ("look", "answers", "said"),
    [
        (BLANK, [], ""),
        (replace(BLANK, has_unit=True), [], ""),
        (replace(BLANK, has_data=True), [], "e4: /var/lib/etcd holds the data of another etcd"),
        (
            replace(BLANK, has_data=True, has_unit=True),
            [],
            "e4: /var/lib/etcd holds the data of another etcd",
        ),
        (replace(BLANK, has_data=True, has_unit=True), KNOWN, ""),
        (replace(BLANK, has_data=True, has_unit=True, permit=JOINING), [], ""),
        (replace(BLANK, permit=Permit(StartState.NEW, ())), KNOWN, "e4: a new etcd was begun there"),
        (replace(BLANK, listening={2379: "etcd"}), [], "e4: etcd listens on port 2379"),
        (replace(BLANK, listening={2379: "etcd"}, active=True), [], ""),
    ],
)
def test_data_of_another_etcd(look: EtcdHostLook, answers: list[MemberAnswer], said: str) -> None:
    found = [str(one) for one in host_findings([look], answers)]
    assert (found[0] if found else "").startswith(said)
    assert len(found) == bool(said)


def test_another_ca() -> None:
    [found] = host_findings([BLANK], [], other_ca=["e4"])
    assert "CA of another etcd" in str(found)
    assert found.exit_code is ExitCode.HOST_IN_OTHER_CLUSTER


def words(**fields: Any) -> list[MemberAnswer]:
    return [MemberAnswer("cp1", MemberWords(1, **fields))]


def test_what_hosts_cannot_take() -> None:
    assert (
        list(etcd_findings(words(version="3.4.3", database=1 << 20), FACTS, {"e4": Room(QUOTA, "/")})) == []
    )
    assert list(etcd_findings(words(version="3.5.99"), FACTS, {})) == []
    [newer] = etcd_findings(words(version="3.9.0"), FACTS, {})
    assert "3.9.0" in str(newer)
    [large] = etcd_findings(words(database=QUOTA - 1), FACTS, {"e4": Room(8 * QUOTA, "/")})
    assert "2047 MiB" in str(large)
    [full] = etcd_findings(words(database=100 << 20), FACTS, {"e4": Room(150 << 20, "/")})
    assert str(full).startswith("e4: / has 150 MiB free; etcd's member needs 200 MiB")


def test_arguments_that_do_not_come_along() -> None:
    assert left_behind(None) == ""
    assert left_behind(LocalEtcd()) == ""
    assert "--quota-backend-bytes=1" in left_behind(
        LocalEtcd(extra_args=ExtraArgs((("quota-backend-bytes", "1"),)))
    )


# -- the conversion's own conditions ------------------------------------------------------------------------------


def spec_of(*roles: str, **fields: Any) -> ClusterSpec:
    hosts = [
        {"name": f"{role[0]}{n}", "address": f"192.0.2.{n}", "roles": [role]}
        for n, role in enumerate(roles, 1)
    ]
    return ClusterSpec.model_validate({"hosts": hosts, "endpoint": {"type": "local"}} | fields)


def a_look(spec: ClusterSpec, endpoint: str = "127.0.0.1:6444", **plane: Any) -> Seen:
    cluster = default_cluster_configuration(spec)
    stacked_etcd = cluster.model_copy(
        update={"etcd": Etcd(local=LocalEtcd()), "control_plane_endpoint": "127.0.0.1:6444"}
    )  # fmt: skip
    keys = frozenset(f"/etc/kubernetes/pki/{name}.key" for name in ("ca", "front-proxy-ca", "etcd/ca", "sa"))
    host = HostSeen(
        joined=True, pods=frozenset({"etcd", "kube-apiserver"}), present=keys,
        etcd_servers=("https://127.0.0.1:2379",), room=Room(1 << 30, "/"),
    )  # fmt: skip
    nodes = (
        NodeStatus(
            "c1", True, ("control-plane",), f"v{cluster.kubernetes_version.removeprefix('v')}", "", "", ()
        ),
    )
    etcd = (MemberAnswer("c1", MemberWords(1), listed=(ListedMember(1, "c1"),)),)
    return Seen(
        spec, cluster, Mode.EXTERNAL_ETCD, datetime(2026, 3, 1, tzinfo=UTC), endpoint,
        {"c1": replace(host, **plane)}, {}, ("c1",), etcd, ClusterSeen(stacked_etcd, nodes),
    )  # fmt: skip


def said(found: Seen) -> list[str]:
    return [str(one) for one in findings(found)]


def test_a_stacked_etcd_may_move() -> None:
    assert said(a_look(spec_of("control-plane", "etcd", "etcd", "etcd"))) == []


def test_it_moves_to_hosts_alone() -> None:
    own = {"endpoints": ["https://10.9.9.9:2379"], "caFile": "a", "certFile": "b", "keyFile": "c"}
    [text] = said(a_look(spec_of("control-plane", etcd=own)))
    assert "needs an etcd elsewhere" in text


def test_neither_the_endpoint_nor_the_control_planes_change_with_it() -> None:
    [text] = said(a_look(spec_of("control-plane", "etcd"), "192.0.2.99:6443"))
    assert "leaves the endpoint what it is (127.0.0.1:6444)" in text
    [text] = said(a_look(spec_of("control-plane", "etcd", "control-plane")))
    assert "adds no control planes, and c3 would be one" in text


def test_what_has_moved_is_no_hindrance_and_what_is_elsewhere_is() -> None:
    spec = spec_of("control-plane", "etcd")
    moved = frozenset({"kube-apiserver"})
    assert said(a_look(spec, pods=moved, etcd_servers=("https://192.0.2.2:2379",))) == []
    [text] = said(a_look(spec, pods=moved, etcd_servers=("https://10.9.9.9:2379",)))
    assert "uses etcd at https://10.9.9.9:2379" in text


def test_numbers_and_arguments_are_warned_about() -> None:
    assert warnings(a_look(spec_of("control-plane", "etcd", "etcd", "etcd"))) == []
    [text] = warnings(a_look(spec_of("control-plane", "etcd", "etcd")))
    assert "2 members, an even number" in text


# -- kubeadm-config -----------------------------------------------------------------------------------------------


def test_only_etcd_changes_in_kubeadm_config() -> None:
    cluster: ClusterConfiguration = default_cluster_configuration(spec_of("control-plane", "etcd"))
    wanted = to_stored(cluster)["etcd"]
    old = {
        "kind": "ClusterConfiguration",
        "etcd": {"local": {"dataDir": "/x"}},
        "networking": {"dnsDomain": "a"},
    }
    config = {"data": {"ClusterConfiguration": yaml.safe_dump(old), "ClusterStatus": "x"}}
    change = moving.kubeadm_config_etcd(config, wanted)
    assert list(change) == ["ClusterConfiguration"]
    document = yaml.safe_load(change["ClusterConfiguration"])
    assert document == old | {"etcd": wanted}
    assert document["etcd"]["external"]["certFile"] == "/etc/kubernetes/pki/apiserver-etcd-client.crt"
    assert moving.kubeadm_config_etcd({"data": change}, wanted) == {}
    with pytest.raises(ConfigError, match="kubeadm-config"):
        moving.kubeadm_config_etcd(None, wanted)
