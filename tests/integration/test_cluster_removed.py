"""After `lab down`, with a whole cluster and its Pods on the machines, this computer is as it was before."""

from __future__ import annotations

import yaml
from cluster_fixtures import CLUSTER, ON_MACHINES, Kubewright, Leftovers, remove_labs
from conftest import USERS_KUBECONFIG

from kubewright.lab.lab import Lab, lab_names

pytestmark = ON_MACHINES


async def test_nothing_is_left_of_a_cluster(
    kubewright: Kubewright, cluster: Lab, leftovers: Leftovers
) -> None:
    """Item by item: processes, mounts, network namespaces, links, addresses, routes, rules, packet filters,
    cgroups, kernel settings, temporary files."""
    link = cluster.plan.link
    assert any(link in str(difference) for difference in await leftovers.found(seconds=0)), "it sees nothing"
    kubewright("lab", "down", CLUSTER)
    assert CLUSTER not in lab_names()
    remove_labs(kubewright)
    left = await leftovers.found()
    assert not left, "\n".join(map(str, left))
    assert kubewright("lab", "down", CLUSTER).out.startswith("there is no lab")


def test_the_users_kubeconfig_is_what_it_was(kubewright: Kubewright) -> None:
    assert yaml.safe_load(kubewright.kubeconfig.read_text()) == USERS_KUBECONFIG
    assert [path.name for path in kubewright.kubeconfig.parent.iterdir()] == ["config"]
