"""The modules of the kernel that kube-proxy needs."""

from __future__ import annotations

from typing import Any

import pytest

from kubewright.model.kernel_modules import BRIDGE, IPVS, modules_argument, proxy_modules


@pytest.mark.parametrize("configuration", [{}, {"mode": ""}, {"mode": "iptables"}, {"mode": "nftables"}])
def test_only_ipvs_needs_modules(configuration: dict[str, Any]) -> None:
    assert proxy_modules(configuration) == {}


def test_a_schedulers_module_is_needed_beside_the_others() -> None:
    assert proxy_modules({"mode": "ipvs", "ipvs": {"scheduler": "wlc"}}) == IPVS | {"ip_vs_wlc": "IP_VS_WLC"}


@pytest.mark.parametrize("ipvs", [None, {}, {"scheduler": ""}, {"scheduler": None}, {"scheduler": "rr; rm"}])
def test_a_scheduler_that_is_no_word_is_no_module(ipvs: Any) -> None:
    assert proxy_modules({"mode": "ipvs", "ipvs": ipvs}) == IPVS


def test_modules_as_the_look_takes_them() -> None:
    assert modules_argument(BRIDGE | {"ip_vs": "IP_VS"}) == "br_netfilter:BRIDGE_NETFILTER ip_vs:IP_VS"
    assert modules_argument({}) == ""
