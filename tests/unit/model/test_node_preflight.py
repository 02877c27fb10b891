"""Preflight of the node commands: which checks apply, and what each of them finds."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import pytest

from kubewright.errors import ConfigError
from kubewright.model.config.kubeadm_nodes import (
    BootstrapTokenDiscovery,
    Discovery,
    InitConfiguration,
    JoinConfiguration,
    JoinControlPlane,
    LocalAPIEndpoint,
    NodeRegistrationOptions,
)
from kubewright.model.config.kubeadm_types import ClusterConfiguration, Etcd, ExternalEtcd
from kubewright.model.facts import HostFacts
from kubewright.model.kernel_modules import IPVS
from kubewright.model.node_checks import IPVS_CHECK, KERNEL_OPTIONS, PROGRAMS, check_node
from kubewright.model.node_look import NodeLook, Unit
from kubewright.model.node_preflight import (
    NodeChecks,
    for_facts,
    for_init,
    for_join,
    for_join_control_plane,
    for_upgrade,
    ignored_checks,
    judged,
)
from kubewright.model.proxies import proxy_for
from kubewright.model.versions import facts_for
from kubewright.secret import Secret

V1_20 = facts_for("v1.20.2")
NAME = NodeRegistrationOptions(name="cp1")
INIT = InitConfiguration(
    node_registration=NAME, local_api_endpoint=LocalAPIEndpoint(advertise_address="10.0.0.1")
)
TOKEN = BootstrapTokenDiscovery.model_validate(
    {"token": Secret("abcdef.0123456789abcdef"), "apiServerEndpoint": "10.0.0.1:6443"}
)
JOIN = JoinConfiguration(node_registration=NAME, discovery=Discovery(bootstrap_token=TOKEN))

FACTS = HostFacts(
    hostname="cp1", os_id="debian", os_version="12", os_name="Debian", arch="amd64", kernel="6.1.0-9", cpus=2,
    memory=4 << 30, swap=0, is_root=True, init="systemd", cgroup_version=1, capabilities=0,
    default_address="10.0.0.1", addresses=("10.0.0.1",), routes=("10.0.0.0/24",),
)  # fmt: skip
LOOKED = NodeLook(
    listening={22: "sshd"}, existing=frozenset(), filled=frozenset(), programs=frozenset(PROGRAMS),
    units={"kubelet": Unit("enabled", "inactive"), "firewalld": Unit("", "inactive")},
    contents={
        "/proc/sys/net/bridge/bridge-nf-call-iptables": "1", "/proc/sys/net/ipv4/ip_forward": "1",
    },
    name_addresses=("10.0.0.1",), kubelet_version="v1.20.2", proxies={},
    cgroups=frozenset({"cpu", "cpuacct", "cpuset", "devices", "freezer", "memory", "pids", "hugetlb"}),
    kernel_config=dict.fromkeys(KERNEL_OPTIONS, "y"),
)  # fmt: skip


def init_checks(cluster: ClusterConfiguration | None = None, **options: Any) -> NodeChecks:
    return for_init(INIT, cluster or ClusterConfiguration(), V1_20, **{"kube_proxy": {}} | options)


def found(checks: NodeChecks, facts: Mapping[str, Any] | None = None, **look: Any) -> dict[str, bool]:
    """The checks that found something, and whether it is an error."""
    findings = check_node(
        checks, dataclasses.replace(FACTS, **(facts or {})), dataclasses.replace(LOOKED, **look)
    )
    return {one.check: one.error for one in findings}


def test_a_fit_host_has_no_finding() -> None:
    assert found(init_checks()) == {}
    assert found(for_join(JOIN, facts=V1_20)) == {}


@pytest.mark.parametrize(
    ("facts", "look", "check", "error"),
    [
        ({"cpus": 1}, {}, "NumCPU", True),
        ({"memory": 1 << 30}, {}, "Mem", True),
        ({"swap": 1 << 30}, {}, "Swap", True),
        ({}, {"listening": {6443: "nginx"}}, "Port-6443", True),
        ({}, {"listening": {10250: ""}}, "Port-10250", True),
        ({}, {"listening": {2379: ""}}, "Port-2379", True),
        ({}, {"units": {**LOOKED.units, "firewalld": Unit("enabled", "active")}}, "Firewalld", False),
        (
            {}, {"existing": frozenset({"/etc/kubernetes/manifests/etcd.yaml"})},
            "FileAvailable--etc-kubernetes-manifests-etcd.yaml", True,
        ),
        ({}, {"filled": frozenset({"/var/lib/etcd"})}, "DirAvailable--var-lib-etcd", True),
        (
            {}, {"contents": {"/proc/sys/net/ipv4/ip_forward": "1"}},
            "FileContent--proc-sys-net-bridge-bridge-nf-call-iptables", True,
        ),
        ({}, {"programs": frozenset(PROGRAMS) - {"conntrack"}}, "FileExisting-conntrack", True),
        ({}, {"programs": frozenset(PROGRAMS) - {"socat"}}, "FileExisting-socat", False),
        ({}, {"kubelet_version": ""}, "KubeletVersion", True),
        ({}, {"kubelet_version": "v1.21.0"}, "KubeletVersion", True),
        ({}, {"kubelet_version": "v1.17.9"}, "KubeletVersion", True),
        ({}, {"units": {}}, "Service-Kubelet", False),
        ({}, {"units": {"kubelet": Unit("disabled", "inactive")}}, "Service-Kubelet", False),
        ({}, {"name_addresses": ()}, "Hostname", False),
        ({}, {"name_addresses": ("127.0.1.1", "::1")}, "Hostname", False),
        ({}, {"selinux_enforcing": True}, "SELinux", True),
        ({"kernel": "2.6.32"}, {}, "SystemVerification", True),
        ({}, {"kernel_config": None}, "SystemVerification", False),
        ({}, {"kernel_config": {**LOOKED.kernel_config, "MEMCG": "y"} if LOOKED.kernel_config else {},
              "cgroups": LOOKED.cgroups - {"memory"}}, "SystemVerification", True),
        ({}, {"cgroups": LOOKED.cgroups - {"hugetlb"}}, "SystemVerification", False),
        ({}, {"kernel_config": {"MEMCG": "y"}}, "SystemVerification", True),
        ({"cgroup_version": 0}, {}, "SystemVerification", True),
        ({}, {"proxies": {"HTTPS_PROXY": "http://me:secret@proxy:3128"}}, "HTTPProxy", False),
        ({"addresses": ("10.0.0.7",)}, {}, "AdvertiseAddress", True),
        ({"routes": ("10.96.0.0/16",)}, {}, "Subnets", True),
    ],
)  # fmt: skip
def test_what_is_wrong_has_kubeadms_name(
    facts: dict[str, Any], look: dict[str, Any], check: str, error: bool
) -> None:
    seen = found(init_checks(), facts, **look)
    assert seen.pop(check) is error
    assert set(seen) <= {"HTTPProxyCIDR"}


def test_selinux_is_refused_once_of_whoever_becomes_a_node() -> None:
    """P50."""
    enforcing: dict[str, Any] = {"selinux_enforcing": True, "selinux_config": "enforcing"}
    look = dataclasses.replace(LOOKED, selinux_enforcing=True, selinux_config="enforcing")
    (one,) = check_node(for_join(JOIN, facts=V1_20), FACTS, look)
    assert (one.check, one.error) == ("SELinux", True)
    assert one.details == ("/etc/selinux/config says SELINUX=enforcing",)
    assert one.hint == "setenforce 0, and SELINUX=permissive in /etc/selinux/config"
    (ignored,) = judged([one], ignored_checks(["selinux"]))
    assert not ignored.error
    control_plane = JOIN.model_copy(update={"control_plane": JoinControlPlane()})
    assert found(for_join_control_plane(control_plane, ClusterConfiguration(), V1_20), **enforcing) == {}
    assert found(for_upgrade(V1_20, None, NAME), **enforcing) == {}


def test_ipvs_in_inits_configuration_where_the_kernel_lacks_it_is_refused_by_name() -> None:
    """P17."""
    checks = init_checks(kube_proxy={"mode": "ipvs", "ipvs": {"scheduler": "wlc"}})
    have = dict.fromkeys(IPVS, "module")
    assert {*checks.modules} == {*IPVS, "ip_vs_wlc"}
    (one,) = check_node(checks, FACTS, dataclasses.replace(LOOKED, modules=have))
    assert one.check == IPVS_CHECK == "RequiredIPVSKernelModulesAvailable"
    assert one.message == "mode in KubeProxyConfiguration is ipvs, and the kernel has no ip_vs_wlc (P17)"
    assert one.error
    assert found(checks, modules=have | {"ip_vs_wlc": "builtin"}) == {}


@pytest.mark.parametrize(
    ("proxy", "disabled"), [({}, False), ({"mode": "iptables"}, False), ({"mode": "ipvs"}, True)]
)
def test_ipvs_is_not_asked_about_where_nobody_uses_it(proxy: dict[str, Any], disabled: bool) -> None:
    cluster = ClusterConfiguration.model_validate({"proxy": {"disabled": disabled}})
    checks = init_checks(cluster, kube_proxy=proxy)
    assert checks.modules == {}
    assert found(checks) == {}


def test_swap_is_a_warning_where_the_kubelet_takes_it() -> None:
    assert found(init_checks(fail_swap_on=False), {"swap": 1 << 30}) == {"Swap": False}


def test_several_addresses_are_warned_of_where_nobody_chose_one() -> None:
    several = {"addresses": ("10.0.0.1", "192.168.1.1")}
    assert found(init_checks(address_is_chosen=False), several) == {"AdvertiseAddress": False}
    assert found(init_checks(), several) == {}


def test_what_a_pod_network_left_is_no_network_of_the_host() -> None:
    routes = {"routes": ("10.0.0.0/24", "10.96.7.0/24"), "pod_routes": ("10.96.7.0/24",)}
    assert found(init_checks(), routes) == {}


def test_external_etcd_leaves_ports_and_directory_alone() -> None:
    """P02."""
    external = ExternalEtcd(
        endpoints=["https://10.0.0.9:2379"], ca_file="/e/ca", cert_file="/e/c", key_file="/e/k"
    )
    checks = init_checks(ClusterConfiguration(etcd=Etcd(external=external)))
    files = frozenset({"/e/ca", "/e/c", "/e/k"})
    busy: dict[str, Any] = {"listening": {2379: "etcd", 2380: "etcd"}, "filled": frozenset({"/var/lib/etcd"})}
    assert found(checks, existing=files, **busy) == {}
    assert found(checks, existing=files - {"/e/k"}) == {"ExternalEtcdClientCertificates": True}
    assert "etcd" not in "".join(checks.images)


def test_ipv6_asks_for_the_settings_of_ipv6() -> None:
    token = TOKEN.model_copy(update={"api_server_endpoint": "[fd00::1]:6443"})
    checks = for_join(JOIN.model_copy(update={"discovery": Discovery(bootstrap_token=token)}), facts=V1_20)
    assert checks.settings == (
        "/proc/sys/net/bridge/bridge-nf-call-ip6tables",
        "/proc/sys/net/ipv6/conf/default/forwarding",
    )
    assert checks.proxy_hosts == ("fd00::1",)


def test_newer_versions_ask_for_less_and_for_other_things() -> None:
    assert not any(
        "bridge" in path
        for path in for_init(INIT, ClusterConfiguration(), facts_for("v1.30.0"), kube_proxy={}).settings
    )
    checks = for_init(INIT, ClusterConfiguration(), facts_for("v1.33.0"), kube_proxy={})
    lacking = {"programs": frozenset({"mount", "cp"}), "kubelet_version": "v1.33.0"}
    assert found(checks, {"cgroup_version": 2}, **lacking) == {"FileExisting-losetup": True}


def test_a_join_follows_the_kubelet_once_that_is_known() -> None:
    unknown = for_join(JOIN)
    assert any("bridge" in path for path in unknown.settings)
    known = for_facts(unknown, facts_for("v1.30.0"))
    assert known.settings == ("/proc/sys/net/ipv4/ip_forward",)
    assert for_facts(unknown, V1_20).settings == unknown.settings


@pytest.mark.parametrize(("version", "error"), [("v1.31.0", False), ("v1.35.0", True)])
def test_cgroup_v1_is_on_its_way_out(version: str, error: bool) -> None:
    checks = for_init(INIT, ClusterConfiguration(), facts_for(version), kube_proxy={})
    assert found(checks, kubelet_version=version) == {"SystemVerification": error}


def test_a_join_finds_the_leftovers_of_another_cluster() -> None:
    """P35."""
    left = frozenset({"/etc/kubernetes/kubelet.conf", "/etc/kubernetes/pki/ca.crt"})
    seen = found(for_join(JOIN, facts=V1_20), existing=left, filled=frozenset({"/etc/kubernetes/manifests"}))
    assert seen == {
        "FileAvailable--etc-kubernetes-kubelet.conf": True,
        "FileAvailable--etc-kubernetes-pki-ca.crt": True,
        "DirAvailable--etc-kubernetes-manifests": True,
    }


def test_a_joining_control_plane_has_its_certificate_authority() -> None:
    control_plane = JOIN.model_copy(
        update={"control_plane": JoinControlPlane(local_api_endpoint=INIT.local_api_endpoint)}
    )
    ca = frozenset({"/etc/kubernetes/pki/ca.crt"})
    assert found(for_join(control_plane, facts=V1_20), existing=ca) == {}
    more = for_join_control_plane(control_plane, ClusterConfiguration(), V1_20)
    assert found(more, {"cpus": 1}, listening={10259: ""}) == {"NumCPU": True, "Port-10259": True}
    assert any("kube-apiserver" in image for image in more.images)


def test_a_joining_kubelet_is_not_compared_with_itself() -> None:
    assert found(for_join(JOIN, facts=facts_for("v1.24.0")), kubelet_version="v1.24.0") == {}


def test_errors_of_ignored_checks_are_warnings() -> None:
    findings = check_node(init_checks(), dataclasses.replace(FACTS, cpus=1, swap=1), LOOKED)
    assert [one.error for one in judged(findings, ignored_checks(["numcpu"], ["Swap"]))] == [False, False]
    assert [one.error for one in judged(findings, ignored_checks(["NumCPU"]))] == [False, True]
    assert [one.error for one in judged(findings, ignored_checks(["all"]))] == [False, False]


def test_all_and_single_names_exclude_each_other() -> None:
    with pytest.raises(ConfigError, match="--ignore-preflight-errors"):
        ignored_checks(["all", "Swap"])


def test_a_finding_names_check_process_and_mend() -> None:
    (one,) = check_node(init_checks(), FACTS, dataclasses.replace(LOOKED, listening={6443: "nginx"}))
    assert str(one).startswith("[ERROR Port-6443]: port 6443 is in use by nginx")
    assert "ss -ltnp" in str(one)


@pytest.mark.parametrize(
    ("holder", "hint"), [("kube-apiserver", "nothing to do"), ("nginx", "takes it away")]
)
def test_a_running_control_plane_is_not_called_a_leftover(holder: str, hint: str) -> None:
    path = "/etc/kubernetes/manifests/etcd.yaml"
    look = dataclasses.replace(LOOKED, listening={6443: holder}, existing=frozenset({path}))
    (one,) = (one for one in check_node(init_checks(), FACTS, look) if path in one.message)
    assert hint in one.hint


def test_a_control_plane_of_the_cluster_that_is_joined_is_told_so() -> None:
    path = "/etc/kubernetes/manifests"
    look = dataclasses.replace(LOOKED, listening={6443: "kube-apiserver"}, filled=frozenset({path}))
    checks = dataclasses.replace(init_checks(), empty_directories=(path,), member=True)
    found = [one for one in check_node(checks, FACTS, look) if one.error]
    assert {one.check for one in found} == {"Port-6443", "DirAvailable--etc-kubernetes-manifests"}
    for one in found:
        assert one.hint.startswith("this host is a control plane of that cluster already")


# -- proxies --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("host", "no_proxy", "proxied"),
    [
        ("10.0.0.1", "", True),
        ("10.0.0.1", "10.0.0.0/8", False),
        ("10.0.0.1", "10.0.0.1", False),
        ("10.0.0.1", "192.168.0.0/16, 10.0.0.2", True),
        ("api.example.com", "example.com", False),
        ("api.example.com", ".example.com", False),
        ("example.com", ".example.com", True),
        ("badexample.com", "example.com", True),
        ("api.example.com", "*", False),
        ("localhost", "", False),
        ("127.0.0.1", "", False),
        ("fd00::1", "fd00::/8", False),
    ],
)
def test_no_proxy(host: str, no_proxy: str, proxied: bool) -> None:
    environment = {"HTTPS_PROXY": "me:secret@proxy:3128", "no_proxy": no_proxy}
    assert proxy_for(host, environment) == ("http://proxy:3128" if proxied else "")
