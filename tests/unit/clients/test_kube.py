"""Where the client of the API connects to."""

from __future__ import annotations

import pytest

from kubewright.clients.kube import KubeClient
from kubewright.clients.server import Server


@pytest.mark.parametrize(
    ("address", "base"), [("127.0.0.1", "https://127.0.0.1:7000"), ("fd00::1", "https://[fd00::1]:7000")]
)
def test_a_tunnel_leads_to_an_address_of_either_family(address: str, base: str) -> None:
    kube = KubeClient(Server("https://[fd00::9]:6443", connect=(address, 7000)))
    url, options = kube._where("/version")
    assert url == f"{base}/version"
    assert (options["headers"]["Host"], options["server_hostname"]) == ("[fd00::9]:6443", "fd00::9")
