"""Names, addresses and subnets of labs: pure arithmetic, and the file that keeps it."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network

import pytest

from kubewright.errors import ConfigError, KubewrightError
from kubewright.hosts.host import is_node_name
from kubewright.lab.plan import (
    MAX_MACHINES,
    POOLS,
    LabPlan,
    check_lab_name,
    choose_subnet,
    is_machine_name,
    plan_machines,
)
from kubewright.model.config.cluster import NetworkSpec

SUBNET = IPv4Network("10.213.7.0/24")


def test_a_machine_keeps_its_address_when_the_counts_change() -> None:
    few = {machine.name: machine for machine in plan_machines(SUBNET, 1, 2)}
    many = {machine.name: machine for machine in plan_machines(SUBNET, 3, 9)}
    assert list(few) == ["cp1", "w1", "w2"]
    assert all(many[name] == machine for name, machine in few.items())
    assert many["cp3"].address == IPv4Address("10.213.7.13")
    assert many["w9"].address == IPv4Address("10.213.7.109")


def test_no_two_machines_of_the_largest_lab_share_anything() -> None:
    machines = plan_machines(SUBNET, MAX_MACHINES, MAX_MACHINES)
    plan = LabPlan("big", SUBNET, machines)
    addresses = [machine.address for machine in machines] + [plan.gateway, plan.computer_address]
    for values in (
        [machine.name for machine in machines],
        [machine.mac for machine in machines],
        [machine.port for machine in machines],
        addresses,
    ):
        assert len(set(values)) == len(values)
    assert all(machine.address in SUBNET and is_node_name(machine.name) for machine in machines)
    assert SUBNET.broadcast_address not in {machine.address for machine in machines}


def test_names_of_links_fit_the_kernels_limit() -> None:
    for pool in POOLS:
        for subnet in pool.subnets(new_prefix=24):
            assert len(LabPlan("a", subnet, ()).link) <= 15
    assert all(len(machine.port) <= 15 for machine in plan_machines(SUBNET, MAX_MACHINES, MAX_MACHINES))


def test_every_subnet_has_a_link_name_of_its_own() -> None:
    subnets = [subnet for pool in POOLS for subnet in pool.subnets(new_prefix=24)]
    assert len({LabPlan("a", subnet, ()).link for subnet in subnets}) == len(subnets)


@pytest.mark.parametrize("counts", [(0, 2), (1, -1), (1, 100), (100, 0)])
def test_counts_out_of_range_are_refused(counts: tuple[int, int]) -> None:
    with pytest.raises(ConfigError):
        plan_machines(SUBNET, *counts)


def test_the_first_free_subnet_is_chosen() -> None:
    first = choose_subnet([])
    assert first == IPv4Network("10.213.0.0/24")
    assert choose_subnet([first, IPv4Network("10.213.1.128/25")]) == IPv4Network("10.213.2.0/24")
    assert choose_subnet([IPv4Network("10.0.0.0/8")]) == IPv4Network("172.29.0.0/24")
    assert choose_subnet([IPv4Network("0.0.0.0/0"), IPv4Network("192.0.2.7/32")]) == first


def test_no_free_subnet_says_which_are_taken() -> None:
    with pytest.raises(KubewrightError, match=r"10\.213\.0\.0/16"):
        choose_subnet(POOLS)


def test_no_pool_overlaps_the_default_networks_of_a_cluster() -> None:
    network = NetworkSpec()
    for pool in POOLS:
        assert not pool.overlaps(IPv4Network(network.pod_subnet))
        assert not pool.overlaps(IPv4Network(network.service_subnet))


def test_a_plan_is_read_as_it_was_written() -> None:
    plan = LabPlan("default", SUBNET, plan_machines(SUBNET, 1, 2))
    assert LabPlan.from_json(plan.to_json(), "lab.json") == plan


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"name": "a", "subnet": "10.0.0.0/99", "machines": {}}', "null"]
)
def test_a_damaged_plan_names_its_file(text: str) -> None:
    with pytest.raises(KubewrightError, match=r"some/lab\.json"):
        LabPlan.from_json(text, "some/lab.json")


@pytest.mark.parametrize("name", ["default", "a", "lab-2", "0", "x" * 32])
def test_good_names(name: str) -> None:
    assert check_lab_name(name) == name


@pytest.mark.parametrize("name", ["", "-a", "a-", "A", "a_b", "a/b", "..", "x" * 33, "a b", "ä"])
def test_bad_names(name: str) -> None:
    with pytest.raises(ConfigError):
        check_lab_name(name)


def test_machine_names() -> None:
    assert all(is_machine_name(name) for name in ("cp1", "w99"))
    assert not any(is_machine_name(name) for name in ("cp0", "w100", "n1", ".new-w1", "w", "w01"))
    plan = LabPlan("a", SUBNET, ())
    assert plan.machine_for("w3") == plan_machines(SUBNET, 1, 3)[-1]
