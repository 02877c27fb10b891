"""The checks of a fleet's hosts, decided from what was seen."""

from __future__ import annotations

import dataclasses
import subprocess
from typing import Any

import pytest
from tests.unit.test_preflight import FIT, NOTHING, OURS, spec

from kubewright.errors import ExitCode
from kubewright.model.fleet_checks import (
    MARKS,
    check_between,
    check_new_host,
    check_settings,
    is_new,
    node_checks,
    wanted_modules,
)
from kubewright.model.fleet_look import FLEET_LOOK, FleetLook, parse_fleet_look
from kubewright.model.kernel_modules import IPVS
from kubewright.model.node_checks import IPVS_CHECK, KERNEL_OPTIONS
from kubewright.model.node_look import NodeLook
from kubewright.model.preflight import Finding, Fix, without_ignored
from kubewright.model.versions import facts_for

V1_20 = facts_for("v1.20.2")
LOOKED = NodeLook(
    listening={22: "sshd"}, existing=frozenset(), filled=frozenset(), programs=frozenset(), units={}, contents={},
    name_addresses=("192.0.2.1",), kubelet_version="", proxies={},
    kernel_config=dict.fromkeys(KERNEL_OPTIONS, "y"),
    cgroups=frozenset({"cpu", "cpuset", "memory", "pids", "hugetlb"}), modules={"br_netfilter": "module"},
)  # fmt: skip
FORWARD, BRIDGED = "/proc/sys/net/ipv4/ip_forward", "/proc/sys/net/bridge/bridge-nf-call-iptables"
SEEN = FleetLook(sockets=("/run/containerd/containerd.sock",))


def found(look: dict[str, Any], seen: dict[str, Any], host: int = 0, **fields: Any) -> list[Finding]:
    cluster = spec(**fields)
    return check_new_host(
        cluster, cluster.hosts[host], FIT, V1_20, dataclasses.replace(LOOKED, **look),
        dataclasses.replace(SEEN, **seen),
    )  # fmt: skip


def test_a_bare_host_gives_no_finding() -> None:
    """Without programs, runtime, kubelet and kernel settings, all of which `apply` brings."""
    assert found({}, {}) == []
    assert found({"kernel_config": None, "cgroups": LOOKED.cgroups - {"hugetlb"}}, {}) == []
    assert found({}, {}, host=1) == []


@pytest.mark.parametrize(
    ("look", "seen", "check", "words", "error"),
    [
        ({"listening": {6443: "nginx"}}, {}, "Port-6443", "in use by nginx (P44)", True),
        ({"listening": {2380: "etcd"}}, {}, "Port-2380", "in use by etcd", True),
        ({"name_addresses": ()}, {}, "Hostname", "does not resolve on the host (P14)", False),
        ({"name_addresses": ("127.0.1.1",)}, {}, "Hostname", "127.0.1.1, where only this host", False),
        ({"cgroups": frozenset({"cpu"})}, {}, "SystemVerification", "memory", True),
        ({"selinux_enforcing": True}, {}, "SELinux", "enforcing (P50)", True),
        ({}, {"sockets": (*SEEN.sockets, "/run/crio/crio.sock")}, "CRI", "(P47): /run/crio", False),
        ({"modules": {}}, {}, f"FileContent-{BRIDGED.replace('/', '-')}", "no module br_netfilter (P46)", True),
    ],
)  # fmt: skip
def test_each_fault_is_one_finding(
    look: dict[str, Any], seen: dict[str, Any], check: str, words: str, error: bool
) -> None:
    (one,) = found(look, seen)
    assert one.check == check
    assert words in one.message
    assert one.error is error
    assert one.host == "cp1"
    assert one.hint


def test_a_worker_does_not_need_a_control_planes_ports() -> None:
    taken = {"listening": {6443: "nginx", 2379: "etcd"}}
    assert found(taken, {}, host=1) == []
    assert [one.check for one in found({"listening": {10250: "nc"}}, {}, host=1)] == ["Port-10250"]


def test_selinux_can_be_mended_and_says_what_will_be_after_a_restart() -> None:
    (one,) = found({"selinux_enforcing": True, "selinux_config": "enforcing"}, {})
    assert one.fix is Fix.SELINUX
    assert one.hint.endswith("in /etc/selinux/config; `kubewright preflight --fix` does both")
    assert one.evidence == ("/etc/selinux/config says SELINUX=enforcing",)


def test_a_module_that_is_built_in_or_a_setting_that_is_there_is_enough() -> None:
    assert found({"modules": {"br_netfilter": "builtin"}}, {}) == []
    assert found({"modules": {}}, {"settings": {BRIDGED: "0"}}) == []


def test_ipvs_where_the_kernel_lacks_it_is_refused_by_name() -> None:
    """P17."""
    proxy: dict[str, Any] = {"kubeProxyConfiguration": {"mode": "ipvs", "ipvs": {"scheduler": "wlc"}}}
    have = dict.fromkeys(IPVS, "module") | {"br_netfilter": "builtin"}
    (one,) = found({"modules": have}, {}, **proxy)
    assert one.check == IPVS_CHECK
    assert one.message == "kubeProxyConfiguration.mode is ipvs, and the kernel has no ip_vs_wlc (P17)"
    assert one.error
    assert found({"modules": have | {"ip_vs_wlc": "loaded"}}, {}, **proxy) == []
    assert found({"modules": {"br_netfilter": "builtin"}}, {}) == []
    assert wanted_modules(spec(kubeProxyConfiguration={"mode": "iptables"})) == {}


def test_the_address_by_which_a_host_is_reached_may_not_be_its_nodes() -> None:
    """P08."""
    vagrant = dataclasses.replace(FIT, default_address="10.0.2.15", addresses=("10.0.2.15", "192.0.2.1"))
    cluster = spec()
    (one,) = check_new_host(cluster, cluster.hosts[0], vagrant, V1_20, LOOKED, SEEN)
    assert "it is reached at 192.0.2.1, and its node will have 10.0.2.15" in one.message
    assert not one.error
    assert "nodeIP: 192.0.2.1" in one.hint


def test_two_nodes_with_one_address_are_refused() -> None:
    """Virtual machines behind one NAT each."""
    addresses = {"cp1": "10.0.2.15", "w1": "10.0.2.15", "w2": "10.0.2.16"}
    (one,) = check_between({}, addresses, {"cp1", "w1"})
    assert one.host == "w1"
    assert one.exit_code is ExitCode.CONFIG_DUPLICATE_HOST
    assert one.error


def test_one_hostname_of_several_new_hosts_is_warned_of() -> None:
    names = {"cp1": "debian", "w1": "debian", "w2": "w2", "w3": ""}
    (one,) = check_between(names, {}, {"w1"})
    assert one.host == "w1"
    assert not one.error
    assert "its hostname is debian, as that of cp1 is" in one.message
    assert check_between(names, {}, set()) == []


def test_kernel_settings_are_told_with_who_sets_them() -> None:
    cluster = spec()
    settings = {FORWARD: "0", BRIDGED: "1", "/proc/sys/net/bridge/bridge-nf-call-ip6tables": ""}
    forward, six = sorted(
        check_settings(cluster, cluster.hosts[1], LOOKED, FleetLook(settings=settings)),
        key=lambda one: one.check,
    )[::-1]
    assert forward.check == "FileContent--proc-sys-net-ipv4-ip_forward"
    assert not forward.error
    assert forward.fix is Fix.KERNEL
    assert "does not exist" in six.message


def test_modules_that_nobody_has_loaded_are_told_with_who_does() -> None:
    cluster = spec(kubeProxyConfiguration={"mode": "ipvs"})
    look = dataclasses.replace(LOOKED, modules=dict.fromkeys(IPVS, "loaded") | {"ip_vs_sh": "module"})
    found = check_settings(cluster, cluster.hosts[1], look, SEEN)
    (one,) = [one for one in found if one.check == IPVS_CHECK]
    assert "nobody has loaded ip_vs_sh (P17)" in one.message
    assert one.fix is Fix.KERNEL
    assert not one.error


def test_the_modules_that_are_looked_for_are_those_that_are_asked_about() -> None:
    cluster = spec(kubeProxyConfiguration={"mode": "ipvs"})
    assert {*node_checks(cluster, cluster.hosts[1], V1_20).modules} == {"br_netfilter", *IPVS}
    assert {*node_checks(spec(), spec().hosts[1], V1_20).modules} == {"br_netfilter"}


@pytest.mark.parametrize(
    ("belonging", "existing", "new"),
    [(NOTHING, (), True), (OURS, (), False), (NOTHING, (MARKS[0],), False), (NOTHING, (MARKS[1],), False)],
)
def test_which_host_is_new(belonging: Any, existing: tuple[str, ...], new: bool) -> None:
    assert is_new(belonging, dataclasses.replace(LOOKED, existing=frozenset(existing))) is new


def test_an_ignored_check_is_a_warning_and_what_has_no_name_is_not_ignored() -> None:
    named, nameless = Finding("w1", "a", "b", check="Swap"), Finding("w1", "c", "d")
    for ignored in ({"swap"}, {"all"}):
        assert [one.error for one in without_ignored([named, nameless], ignored)] == [False, True]
    assert [one.error for one in without_ignored([named], {"mem"})] == [True]


# -- the look itself ----------------------------------------------------------------------------------------------


def test_the_look_on_this_computer_is_read() -> None:
    done = subprocess.run(
        ["sh", "-c", FLEET_LOOK, "sh", "", f"{FORWARD} /proc/sys/nothing"], capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    seen = parse_fleet_look(done.stdout)
    assert seen.settings[FORWARD] in ("0", "1")
    assert seen.settings["/proc/sys/nothing"] == ""


def test_what_the_look_prints_is_understood() -> None:
    text = (
        "\n@@ firewalls\nfirewalld\n\n@@ sockets\n/run/crio/crio.sock\n"
        "/run/crio/crio.sock\n\n@@ settings\n/proc/sys/a 1\n/proc/sys/b \n"
    )
    assert parse_fleet_look(text) == FleetLook(
        "firewalld", ("/run/crio/crio.sock",), {"/proc/sys/a": "1", "/proc/sys/b": ""}
    )
