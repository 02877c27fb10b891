"""What is taken away by name is what the pod network's agent makes."""

from __future__ import annotations

from ipaddress import IPv4Network

from kubewright.model import own_network
from kubewright.network.plan import CNI_FILE, ROUTE_PROTOCOL
from kubewright.network.rules import own_chains


def test_names_are_those_of_the_agent() -> None:
    assert str(ROUTE_PROTOCOL) == own_network.OWN_ROUTES
    assert own_network.OWN_CNI_FILE.rpartition("/")[2] == CNI_FILE
    chains = own_chains(IPv4Network("10.244.0.0/16"))
    assert tuple((chain.table, chain.parent, chain.name) for chain in chains) == own_network.OWN_CHAINS
    assert all(f'--comment "{own_network.OWN_COMMENT}"' in chain.jump for chain in chains)
