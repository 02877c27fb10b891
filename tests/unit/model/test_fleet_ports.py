"""Who must reach whom in a cluster, and what is told where that does not work."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from kubewright.model.config.cluster import ClusterSpec
from kubewright.model.fleet_ports import (
    Filter,
    Opening,
    Way,
    closed,
    openings,
    own_ports,
    reach_findings,
    ways,
)
from kubewright.model.port_probe import Answer, Reach, parse_answers, parse_report
from kubewright.model.preflight import Fix

ADDRESSES = {"w1": "192.0.2.7"}
SILENT, REFUSED, OPEN = Answer(Reach.SILENT), Answer(Reach.REFUSED), Answer(Reach.OPEN)


def spec(planes: int = 1, workers: int = 1, *others: tuple[str, str], **fields: Any) -> ClusterSpec:
    hosts = [("cp", "control-plane", planes), ("w", "worker", workers), *((*one, 1) for one in others)]
    names = [(f"{name}{n}", role) for name, role, count in hosts for n in range(1, count + 1)]
    return ClusterSpec.model_validate(
        {
            "hosts": [
                {"name": name, "address": f"192.0.{n >> 8}.{n & 255}", "roles": [role]}
                for n, (name, role) in enumerate(names, 1)
            ]
        }
        | fields
    )


def ports(cluster: ClusterSpec, user: str, target: str) -> list[int]:
    return sorted(way.port for way in ways(cluster) if (way.user, way.target) == (user, target))


def test_what_each_host_listens_on() -> None:
    cluster = spec(3, 1, endpoint={"type": "haproxy", "address": "api.test"})
    assert own_ports(cluster, cluster.hosts[0]) == [6443, 10259, 10257, 10250, 2379, 2380, 8443]
    assert own_ports(cluster, cluster.hosts[3]) == [10250]
    outside = spec(1, 0, ("e", "etcd"))
    assert own_ports(outside, outside.hosts[0]) == [6443, 10259, 10257, 10250]
    assert own_ports(outside, outside.hosts[1]) == [2379, 2380]


def test_the_ways_of_a_small_cluster() -> None:
    cluster = spec(1, 1)
    assert ports(cluster, "w1", "cp1") == [6443]
    assert ports(cluster, "cp1", "w1") == [10250, 30000, 32767]


def test_the_ways_between_control_planes() -> None:
    cluster = spec(3, 0, endpoint={"type": "local"})
    assert ports(cluster, "cp1", "cp2") == [2379, 2380, 6443, 10250, 30000, 32767]


def test_etcd_elsewhere_is_reached_by_control_planes_and_by_its_members() -> None:
    cluster = spec(1, 1, ("e", "etcd"), ("f", "etcd"))
    assert ports(cluster, "cp1", "e1") == [2379]
    assert ports(cluster, "e1", "f1") == [2379, 2380]
    assert ports(cluster, "e1", "cp1") == []
    own = spec(
        1, 0, etcd={"endpoints": ["https://192.0.2.9:2379"], "caFile": "a", "certFile": "b", "keyFile": "c"}
    )
    assert not any(way.port in (2379, 2380) for way in ways(own))


@pytest.mark.parametrize(
    ("endpoint", "to_plane", "to_balancer"),
    [
        ({"type": "haproxy"}, [], [6443]),
        ({"type": "local"}, [6443], []),
        ({"type": "external", "address": "api.test:443"}, [], []),
    ],
)
def test_workers_reach_the_api_through_the_endpoint(
    endpoint: dict[str, str], to_plane: list[int], to_balancer: list[int]
) -> None:
    balancer = [("lb", "load-balancer")] if endpoint["type"] == "haproxy" else []
    cluster = spec(2, 1, *balancer, endpoint=endpoint)
    assert ports(cluster, "w1", "cp1") == to_plane
    assert ports(cluster, "w1", "lb1") == to_balancer
    if balancer:
        assert ports(cluster, "lb1", "cp2") == [6443]


def test_the_ways_grow_with_the_hosts_and_not_with_their_square() -> None:
    counts = [
        sum(1 for _ in ways(spec(3, workers, endpoint={"type": "local"}))) for workers in (100, 200, 997)
    ]
    assert counts[1] - counts[0] == 100 * 3 * 4
    assert counts[2] < 1000 * 3 * 4 + 100


def test_a_refusal_tells_something_only_where_we_have_listened() -> None:
    api, kubelet = Way("w1", "cp1", 6443), Way("cp1", "w1", 10250)
    answers = {api: REFUSED, kubelet: REFUSED}
    assert closed([api, kubelet], answers, {"w1": {10250}}) == {kubelet: REFUSED}
    assert closed([api, kubelet], answers, {}) == {}
    assert closed([api], {api: SILENT}, {}) == {api: SILENT}
    assert closed([api], {api: OPEN}, {"cp1": {6443}}) == {}
    assert closed([api], {}, {"cp1": {6443}}) == {}


def told(shut: dict[Way, Answer], *fine: Way, filters: dict[str, Filter] | None = None) -> list[Any]:
    return list(reach_findings([*shut, *fine], shut, filters or {}, ADDRESSES))


def test_a_pair_of_hosts_is_one_finding_with_both_and_the_direction() -> None:
    shut = {Way("w1", "cp1", 6443): SILENT, Way("w2", "cp1", 6443): OPEN}
    del shut[Way("w2", "cp1", 6443)]
    (found,) = told(shut, Way("w2", "cp1", 6443))
    assert found.host == "cp1"
    assert found.message == "w1 cannot reach it on TCP 6443 (P44)"
    assert found.hint.startswith("open TCP 6443 of cp1 for w1, in its own packet filter")
    assert found.evidence == ("seen: no answer in 4 s",)
    assert found.check == "PortReach"
    assert found.about == {"w1"}
    assert found.fix is None


def test_all_ports_of_a_pair_stand_in_its_finding() -> None:
    shut = {Way("cp2", "cp1", port): REFUSED for port in (2379, 2380, 30000, 32767)}
    (found,) = told(shut, Way("cp2", "cp1", 6443))
    assert "TCP 2379, 2380, 30000-32767 (P44)" in found.message


def test_a_host_none_of_whose_ports_is_reached_is_one_finding() -> None:
    shut = {Way(user, "w1", port): SILENT for user in ("cp1", "cp2", "cp3") for port in (10250, 30000)}
    (found,) = told(shut)
    assert found.message == "none of its ports can be reached from cp1, cp2, cp3 (P44): TCP 10250, 30000"
    assert found.about == {"cp1", "cp2", "cp3"}


def test_a_host_that_is_cut_off_both_ways_is_one_finding() -> None:
    into = {Way("cp1", "w1", port): SILENT for port in (10250, 30000)}
    out = {Way("w1", target, 6443): SILENT for target in ("cp1", "cp2")}
    (found,) = told(into | out, Way("w2", "cp1", 6443), Way("w2", "cp2", 6443))
    assert found.host == "w1"
    assert found.message.endswith("TCP 10250, 30000; and it reaches none of those of cp1, cp2")
    some = told(into | out, Way("w2", "cp1", 6443), Way("w1", "cp3", 6443), Way("w2", "cp2", 6443))
    assert sorted(one.host for one in some) == ["cp1", "cp2", "w1"]


def test_of_very_many_hosts_the_first_are_named() -> None:
    shut = {Way(f"w{number:03}", "cp1", 6443): SILENT for number in range(997)}
    (found,) = told(shut)
    assert "from w000, w001, w002, w003, w004 and 992 others (P44)" in found.message
    assert len(found.about) == 997


def test_node_ports_alone_have_a_name_of_their_own() -> None:
    (found,) = told(
        {Way("cp1", "w1", 30000): SILENT, Way("cp1", "w1", 32767): SILENT}, Way("cp1", "w1", 10250)
    )
    assert found.check == "NodePorts"


def test_a_firewall_that_is_known_can_be_opened() -> None:
    shut = {Way("w1", "cp1", 6443): REFUSED}
    rules = (
        "-A INPUT -s 192.0.2.9 -j DROP",
        "-A INPUT -d 192.0.2.9 -j DROP",
        "-A INPUT -m conntrack --ctstate INVALID -j DROP",
        "-A INPUT -s 192.0.2.7 -j DROP",
    )
    (found,) = told(
        shut,
        Way("w2", "cp1", 6443),
        filters={"cp1": Filter("ufw", "\n".join(rules))},
    )
    assert found.fix is Fix.FIREWALL
    assert found.firewall == "ufw"
    assert found.evidence[1:] == ("ufw is active on cp1", "its packet filter: -A INPUT -s 192.0.2.7 -j DROP")


def test_a_firewall_is_opened_to_the_clusters_hosts_for_what_they_need() -> None:
    cluster = spec(2, 1, endpoint={"type": "local"})
    addresses = {host.name: host.address for host in cluster.hosts}
    found = {one.user: one for one in openings(cluster, "cp1", addresses)}
    assert found["cp2"] == Opening("cp2", "192.0.0.2", ("2379", "2380", "6443", "10250", "30000-32767"))
    assert found["w1"] == Opening("w1", "192.0.0.3", ("6443", "30000-32767"))
    assert "cp1" not in found
    outside = spec(1, 1, ("e", "etcd"))
    to_etcd = openings(outside, "e1", {host.name: host.address for host in outside.hosts})
    assert [(one.user, one.ports) for one in to_etcd] == [("cp1", ("2379",))]


def test_answers_as_the_program_prints_them() -> None:
    text = "192.0.2.1 6443 open\n192.0.2.1 22 failed No route to host\nperl: warning: x y z\n192.0.2.2 1 silent\n"
    found = parse_answers(text)
    assert Counter(answer.reach for answer in found.values()) == {
        Reach.OPEN: 1,
        Reach.FAILED: 1,
        Reach.SILENT: 1,
    }
    assert str(found["192.0.2.1", 22]) == "No route to host"
    assert parse_report("6443 Address already in use\n") == {6443: "Address already in use"}
