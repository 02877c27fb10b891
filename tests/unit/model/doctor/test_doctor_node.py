"""The host, its kubelet, the pod network, services and DNS: what is broken, with evidence and mend."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
import yaml
from tests.unit.model.doctor.doctor_world import (
    ADDRESSES,
    ENDPOINT,
    NAMES,
    NOW,
    PLANES,
    config_maps,
    daemon_set,
    dns,
    embedded,
    facts,
    kinds,
    kubelet_conf,
    kubelet_pem,
    look,
    node,
    node_object,
    objects,
    only,
    pod,
    runtime,
    seen,
    server,
    unit,
    with_files,
)

from kubewright.model.doctor.cni import pod_network
from kubewright.model.doctor.diagnose import diagnose
from kubewright.model.doctor.facts import Container, DoctorFacts, Ended, NodeFacts
from kubewright.model.doctor.finding import Severity
from kubewright.model.doctor.host import amount
from kubewright.model.doctor.kubelet import restless
from kubewright.model.doctor.look import (
    BRIDGE_FILTER,
    CNI_DIR,
    FORWARD,
    KUBELET_CONF,
    SELINUX_ENFORCE,
    SWAPS,
    Disk,
)
from kubewright.model.doctor.reserved import Reservation
from kubewright.model.kubeconfig import KUBELET_CLIENT_CURRENT
from kubewright.model.kubelet import CONFIG_PATH, KUBELET_DIR
from kubewright.model.status_api import ApiAnswer
from kubewright.model.status_proxies import ProxyStatus

SWAP = "Filename Type Size Used Priority\n/dev/sda2 partition 1048572 0 -2"
DEAD = {"kubelet": unit(active="activating", sub="auto-restart", result="exit-code", up=None, restarts=7)}


def config(**fields: Any) -> dict[str, str | None]:
    return {CONFIG_PATH: yaml.safe_dump({"rotateCertificates": True, **fields})}


# -- host ---------------------------------------------------------------------------------------------------------


def test_swap_beside_a_dead_kubelet_is_the_one_cause() -> None:
    journal = (
        "F0601 12:00:00 server.go:273] failed to run Kubelet: running with swap on is not supported, please "
        "disable swap! or set --fail-swap-on flag to false.",
    )
    found = only(facts([with_files("w1", {SWAPS: SWAP}, units=DEAD, journal=journal)]))
    assert (found.kind, found.pitfall, found.severity) == ("swap-on", "P16", Severity.ERROR)
    assert found.evidence == (f"{SWAPS}: /dev/sda2 partition 1048572 0 -2",)


def test_swap_that_came_later_is_a_warning() -> None:
    assert only(facts([with_files("w1", {SWAPS: SWAP})])).severity is Severity.WARNING


def test_swap_that_the_kubelet_allows_is_none() -> None:
    assert kinds(facts([with_files("w1", {SWAPS: SWAP, **config(failSwapOn=False)})])) == []


@pytest.mark.parametrize(
    ("free", "hard", "tight"),
    [
        (9, None, True),
        (11, None, False),
        (11, {"nodefs.available": "12%"}, True),
        (9, {"nodefs.available": "5%"}, False),
        (9, {"nodefs.available": "1Gi"}, False),
        (1, {"nodefs.available": "2Gi"}, True),
        (3, {"memory.available": "100Mi"}, False),
    ],
)
def test_a_disk_is_full_where_the_kubelet_evicts(
    free: int, hard: Mapping[str, str] | None, tight: bool
) -> None:
    files = config(evictionHard=dict(hard)) if hard else config()
    disks = {KUBELET_DIR: Disk("/", 100_000_000, free * 1_000_000)}
    found = kinds(facts([with_files("w1", files, disks=disks)]))
    assert found == ([("disk-full", ("w1",))] if tight else [])


def test_a_disk_without_inodes_is_full() -> None:
    found = only(facts([seen("w1", inodes={KUBELET_DIR: Disk("/", 1000, 10)})]))
    assert (found.pitfall, found.evidence) == (
        "P20",
        ("/: 1.0% free (10 inodes); eviction at nodefs.inodesFree<5%",),
    )


def test_a_disk_that_is_full_explains_what_ends_of_it() -> None:
    disks = {KUBELET_DIR: Disk("/", 100_000_000, 0)}
    assert kinds(facts([seen("w1", disks=disks, units=DEAD)])) == [("disk-full", ("w1",))]


@pytest.mark.parametrize(
    ("text", "value"), [("10%", 100.0), ("1Gi", 1024**2), ("500M", 500e6 / 1024), ("much", 0.0), ("", 0.0)]
)
def test_thresholds_are_shares_or_quantities(text: str, value: float) -> None:
    assert amount(text, 1000, 1024) == value


@pytest.mark.parametrize(
    ("path", "kind"), [(FORWARD, "ip-forward-off"), (BRIDGE_FILTER, "bridge-filter-off")]
)
def test_a_kernel_setting_that_is_off_is_named_with_its_file(path: str, kind: str) -> None:
    found = only(facts([with_files("w1", {path: "0"})]))
    assert (found.kind, found.pitfall, found.evidence) == (kind, "P46", (f"{path} is 0",))


UNIT = "/system.slice/kubelet.service"


@pytest.mark.parametrize(
    ("cpu", "memory", "found"),
    [
        ("/", UNIT, True),
        (f"/{UNIT}", "/", True),
        (UNIT, UNIT, False),
        ("/", "/", False),
        # As in a container: neither is the unit's, and they differ for another reason.
        ("/lab/cp1", "/outer/lab/cp1", False),
    ],
)
def test_accounting_differs_where_one_controller_alone_knows_the_unit(
    cpu: str, memory: str, found: bool
) -> None:
    cgroups = {"cpu": cpu, "memory": memory, "name=systemd": UNIT}
    assert bool(kinds(facts([seen("w1", cgroups=cgroups)]))) == found


def test_accounting_offers_a_fix_that_says_what_it_interrupts() -> None:
    cgroups = {"cpu": "/", "memory": UNIT, "name=systemd": UNIT}
    [fix] = only(facts([seen("w1", cgroups=cgroups)])).fixes
    assert (fix.name, fix.host) == ("cgroup-accounting", "w1")
    assert "restarted" in fix.interrupts


@pytest.mark.parametrize(
    ("theirs", "ours", "found"),
    [(True, "systemd", 0), (False, None, 0), (True, None, 1), (False, "systemd", 1), (None, "systemd", 0)],
)
def test_two_cgroup_drivers_are_a_mismatch(theirs: bool | None, ours: str | None, found: int) -> None:
    files = config(cgroupDriver=ours) if ours else config()
    assert len(kinds(facts([with_files("w1", files, systemd_cgroup=theirs)]))) == found


def test_a_resolv_conf_that_names_the_host_itself_is_a_warning_with_its_path() -> None:
    found = only(facts([seen("w1", nameservers=("127.0.0.53",))]))
    assert (found.pitfall, found.evidence) == ("P18", ("/etc/resolv.conf: nameserver 127.0.0.53",))


def test_a_host_with_a_new_name_is_not_its_node_any_more() -> None:
    found = only(facts([seen("w1", hostname="blue")]))
    assert (found.kind, found.pitfall) == ("host-renamed", "P14")
    assert found.evidence[1].endswith("names system:node:w1")


def test_a_node_by_another_name_than_its_host_is_as_it_was_asked_for() -> None:
    flags = ("/usr/bin/kubelet", "--hostname-override=w1")
    assert kinds(facts([seen("w1", hostname="blue", command=flags)])) == []


# -- kubelet ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "pitfall", "words"),
    [
        (
            'failed to run Kubelet: misconfiguration: kubelet cgroup driver: "systemd" is different from docker '
            'cgroup driver: "cgroupfs"',
            "P48",
            "cgroup driver",
        ),
        (
            "E0118 bootstrap.go:265] part of the existing bootstrap client certificate is expired: 2020-12-06",
            "P22",
            "expired",
        ),
        (
            "F0118 server.go:271] failed to run Kubelet: unable to load bootstrap kubeconfig: stat "
            "/etc/kubernetes/bootstrap-kubelet.conf: no such file or directory",
            "P23",
            "kubeconfig",
        ),
        (
            "F0101 server.go:198] failed to load Kubelet config file /var/lib/kubelet/config.yaml",
            "",
            "configuration",
        ),
        ("Error: failed to parse kubelet flag: unknown flag: --colour", "", "flags"),
        (
            "Error: failed to run Kubelet: unable to determine runtime API version: rpc error: code = Unavailable",
            "P15",
            "runtime",
        ),
        (
            "failed to run Kubelet: cpu and memory cgroup hierarchy not unified."
            "cpu: /, memory: /system.slice/kubelet.service",
            "P49",
            "accounted",
        ),
    ],
)
def test_a_dead_kubelet_says_why(line: str, pitfall: str, words: str) -> None:
    found = only(facts([seen("w1", units=DEAD, journal=("I0101 fine", line, "kubelet.service: Failed"))]))
    assert (found.kind, found.pitfall) == ("kubelet-dead", pitfall)
    assert words in found.cause
    assert found.evidence == (
        "kubelet.service: activating (auto-restart), result exit-code, restarted 7 times",
        line,
    )


def test_a_kubelet_that_was_stopped_is_not_judged_by_its_old_journal() -> None:
    stopped = {"kubelet": unit(active="inactive", sub="dead", up=None)}
    found = only(facts([seen("w1", units=stopped, journal=("F0101 running with swap on is not supported",))]))
    assert (found.kind, found.cause, found.pitfall) == ("kubelet-stopped", "the kubelet is stopped", "P53")
    assert found.mend == ("systemctl enable --now kubelet",)


def test_a_kubelet_that_has_just_been_restarted_by_itself_again_ends_again_and_again() -> None:
    loops = {"kubelet": unit(up=timedelta(seconds=2), restarts=4)}
    assert "again and again" in only(facts([seen("w1", units=loops)])).cause
    assert kinds(facts([seen("w1", units={"kubelet": unit(up=timedelta(seconds=2))})])) == []


@pytest.mark.parametrize(
    ("state", "seconds"),
    [
        ({"up": timedelta(seconds=2), "restarts": 4}, 13),
        ({"up": timedelta(seconds=15), "restarts": 4}, 0),
        ({"up": timedelta(seconds=2), "restarts": 1}, 0),
        ({"up": None, "restarts": 4, "active": "activating"}, 0),
    ],
)
def test_a_kubelet_is_restless_until_it_has_got_through_its_start(state: Any, seconds: int) -> None:
    look = seen("w1", units={"kubelet": unit(**state)}).look
    assert look is not None
    assert restless(look) == timedelta(seconds=seconds)


def test_a_bare_host_needs_no_kubelet() -> None:
    assert kinds(facts([with_files("w1", {KUBELET_CONF: None}, units=DEAD)])) == []


def test_a_kubelets_certificate_that_has_ended_explains_its_end() -> None:
    pem = kubelet_pem("w1", issued=NOW - timedelta(days=400), days=365)
    found = only(facts([seen("w1", units=DEAD, certs={KUBELET_CLIENT_CURRENT: pem})]))
    assert (found.kind, found.pitfall) == ("kubelet-certificate", "P22")
    assert "ended 2026-04-27" in found.evidence[0]


@pytest.mark.parametrize(("age", "found"), [(200, 0), (340, 0), (360, 1)])
def test_a_certificate_that_should_have_been_renewed_does_not_rotate(age: int, found: int) -> None:
    pem = kubelet_pem("w1", issued=NOW - timedelta(days=age), days=365)
    assert len(kinds(facts([seen("w1", certs={KUBELET_CLIENT_CURRENT: pem})]))) == found


def test_a_certificate_in_the_kubeconfig_itself_never_rotates() -> None:
    pem = kubelet_pem("w1", issued=NOW - timedelta(days=340), days=365)
    found = only(facts([with_files("w1", {KUBELET_CONF: kubelet_conf(user=embedded(pem))})]))
    assert (found.kind, found.pitfall, found.severity) == ("kubelet-rotation", "P23", Severity.WARNING)
    assert found.evidence[0].startswith(KUBELET_CONF)


def test_a_kubelet_that_asks_one_server_is_a_warning_and_an_error_when_that_one_is_away() -> None:
    own = with_files("w1", {KUBELET_CONF: kubelet_conf(f"https://{ADDRESSES['cp1']}:6443")})
    found = only(facts([own]))
    assert (found.kind, found.pitfall, found.severity) == ("kubelet-server", "P30", Severity.WARNING)
    lost = [server("cp1", error="nothing listens there"), server("cp2"), server("cp3")]
    assert ("kubelet-server", ("w1",)) in kinds(facts([own], servers=lost))


def test_a_control_planes_kubelet_may_ask_its_own_server() -> None:
    own = with_files("cp1", {KUBELET_CONF: kubelet_conf(f"https://{ADDRESSES['cp1']}:6443")})
    assert kinds(facts([own])) == []


def test_without_an_endpoint_the_one_server_is_right() -> None:
    own = with_files("w1", {KUBELET_CONF: kubelet_conf(f"https://{ADDRESSES['cp1']}:6443")})
    found = facts([own], config_maps=config_maps(endpoint=""))
    assert kinds(replace(found, endpoint="")) == []


def test_a_node_that_is_not_ready_for_no_known_reason_is_named() -> None:
    nodes = [node_object(name, ready=name != "w1") for name in NAMES]
    found = only(facts(objects=replace(objects(), nodes=nodes)))
    assert (found.kind, found.hosts, found.pitfall) == ("node-not-ready", ("w1",), "P53")


@pytest.mark.parametrize(
    ("seconds", "runs", "expected"),
    [(12, True, []), (25, True, [("node-not-ready", ("w1",))]), (12, False, [("runtime-dead", ("w1",))])],
)
def test_what_a_kubelet_has_said_of_its_node_may_be_old_news(
    seconds: int, runs: bool, expected: list[object]
) -> None:
    said = node_object("w1", ready=False)
    since = NOW - timedelta(seconds=seconds)
    said["status"]["conditions"][0]["lastTransitionTime"] = f"{since:%Y-%m-%dT%H:%M:%SZ}"
    nodes = [*(node_object(name) for name in NAMES if name != "w1"), said]
    looked = seen("w1", replace(runtime("w1"), answers=runs))
    assert kinds(facts([looked], objects=replace(objects(), nodes=nodes))) == expected


def test_a_node_that_has_just_joined_may_be_not_ready_yet() -> None:
    young = node_object("w1", ready=False)
    young["metadata"]["creationTimestamp"] = "2026-06-01T11:59:30Z"
    nodes = [*(node_object(name) for name in PLANES), young]
    assert kinds(facts(objects=replace(objects(), nodes=nodes))) == []


# -- network ------------------------------------------------------------------------------------------------------

FLANNEL = json.dumps(
    {"name": "cbr0", "plugins": [{"type": "flannel", "delegate": {"isDefaultGateway": True}}]}
)
FLANNEL_FILES: dict[str, str | None] = {
    f"{CNI_DIR}/10-kubewright.conflist": None,
    f"{CNI_DIR}/10-flannel.conflist": FLANNEL,
}
ENV = "FLANNEL_NETWORK=10.244.0.0/16\nFLANNEL_SUBNET=10.244.3.1/24\nFLANNEL_MTU=1450"


def reserved(
    count: int, *, container: str = "gone", age: float = 3600, network: str = "kubewright"
) -> list[Reservation]:
    return [
        Reservation(network, f"10.244.1.{number}", container, timedelta(seconds=age))
        for number in range(2, 2 + count)
    ]


def test_flannels_missing_file_is_named() -> None:
    found = only(facts([with_files("w1", FLANNEL_FILES)]))
    assert (found.kind, found.pitfall) == ("subnet-env", "P36")
    assert "/run/flannel/subnet.env: no such file" in found.breaks


@pytest.mark.parametrize(
    ("runtime_up", "joined", "expected"),
    [(3600, "2026-05-01T12:00:00Z", 1), (40, "2026-05-01T12:00:00Z", 0), (3600, "2026-06-01T11:59:20Z", 0)],
    ids=["a kubelet that was started anew", "a host that was started", "a node that has just joined"],
)
def test_flannels_file_may_come_yet_after_a_start(runtime_up: int, joined: str, expected: int) -> None:
    young = {
        "kubelet": unit(up=timedelta(seconds=30)), "containerd": unit(up=timedelta(seconds=runtime_up))
    }  # fmt: skip
    node = node_object("w1")
    node["metadata"]["creationTimestamp"] = joined
    nodes = [*(node_object(name) for name in PLANES), node]
    looked = with_files("w1", FLANNEL_FILES, units=young)
    found = facts([looked], objects=replace(objects(), nodes=nodes))
    assert kinds(found) == [("subnet-env", ("w1",))] * expected


def test_flannels_file_is_right_when_it_is_there() -> None:
    assert kinds(facts([with_files("w1", {**FLANNEL_FILES, "/run/flannel/subnet.env": ENV})])) == []


def test_a_bridge_of_an_older_network_is_named_with_both_addresses() -> None:
    files = {**FLANNEL_FILES, "/run/flannel/subnet.env": ENV}
    found = only(facts([with_files("w1", files, addresses={"cni0": ("10.85.0.1/16", "fe80::1/64")})]))
    assert (found.kind, found.pitfall) == ("bridge-address", "P38")
    assert found.evidence == ("cni0: 10.85.0.1/16", "the node's Pods are in 10.244.3.0/24")
    assert kinds(facts([with_files("w1", files, addresses={"cni0": ("10.244.3.1/24",)})])) == []


def test_addresses_of_pods_that_are_gone_are_counted_and_can_be_freed() -> None:
    found = only(facts([seen("w1", reserved=reserved(251))]))
    assert (found.kind, found.pitfall, found.severity) == ("addresses-leaked", "P37", Severity.ERROR)
    assert found.evidence[0].startswith("251 of 253 addresses in /var/lib/cni/networks/kubewright")
    [fix] = found.fixes
    assert (fix.name, fix.host, fix.arguments, fix.interrupts) == (
        "free-addresses",
        "w1",
        ("kubewright",),
        "",
    )


@pytest.mark.parametrize(
    "rows",
    [
        reserved(3),
        reserved(60, age=20),
        reserved(60, container="kube-proxy"),
        reserved(60, network="nerdctl"),
    ],
    ids=["a few", "young ones", "of live sandboxes", "of a network of the user's"],
)
def test_reservations_that_harm_nobody_are_no_finding(rows: list[Reservation]) -> None:
    assert kinds(facts([seen("w1", reserved=rows)])) == []


def test_the_pod_network_is_the_first_configuration_as_for_the_runtime() -> None:
    assert pod_network(look("w1")) == "kubewright"
    flannel = with_files("w1", FLANNEL_FILES).look
    assert flannel is not None
    assert pod_network(flannel) == "cbr0"


def test_a_node_without_a_network_is_named_and_explains_that_it_is_not_ready() -> None:
    bare = with_files(
        "w1", {f"{CNI_DIR}/10-kubewright.conflist": None}, runs=replace(runtime("w1"), network_ready=False)
    )
    nodes = [node_object(name, ready=name != "w1") for name in NAMES]
    assert kinds(facts([bare], objects=replace(objects(), nodes=nodes))) == [("no-network", ("w1",))]


def without_pods(name: str, where: str) -> list[Mapping[str, Any]]:
    return [one for one in objects().pods if one["metadata"]["name"] != f"{name}-{where}"]


@pytest.mark.parametrize(
    ("spec", "kind", "why"),
    [
        ({"tolerations": []}, "daemon-pod-kept-off", "it does not tolerate node-role.kubernetes.io/master"),
        ({"nodeSelector": {"disk": "fast"}}, "daemon-pod-kept-off", "its nodeSelector wants disk=fast"),
        ({}, "daemon-pod-missing", "nothing keeps it off"),
    ],
)
def test_a_node_without_its_pod_of_kube_proxy_is_told_why(spec: dict[str, Any], kind: str, why: str) -> None:
    seen_objects = replace(
        objects(), pods=without_pods("kube-proxy", "cp1"), daemon_sets=[daemon_set("kube-proxy", **spec)]
    )
    found = only(facts(objects=seen_objects))
    assert (found.kind, found.pitfall, found.hosts) == (kind, "P12", ("cp1",))
    assert why in found.evidence[0]


def test_a_daemon_set_for_other_systems_misses_nobody() -> None:
    windows = daemon_set("kube-proxy", nodeSelector={"kubernetes.io/os": "windows"})
    pods = [one for one in objects().pods if not str(one["metadata"]["name"]).startswith("kube-proxy")]
    assert kinds(facts(objects=replace(objects(), pods=pods, daemon_sets=[windows]))) == []


def test_a_proxy_that_does_not_run_is_named_with_its_state_and_its_reason() -> None:
    broken = pod("kube-proxy-w1", "w1", owner="kube-proxy", state={"waiting": {"reason": "CrashLoopBackOff"}})
    broken["status"]["containerStatuses"][0]["restartCount"] = 3
    key, last = ("kube-proxy-w1", "kube-proxy"), "F0601 12:00:00 server.go:1] it ends"
    here = seen("w1", logs={key: ("I0601 a line", "another")}, told={key: ("E0601 error: late", last)})
    found = only(facts([here], objects=replace(objects(), pods=[*without_pods("kube-proxy", "w1"), broken])))
    assert found.evidence[1:] == (f"kube-proxy: {last}",)
    assert (found.kind, found.pitfall) == ("proxy-down", "P11")
    assert "CrashLoopBackOff" in found.evidence[0]


@pytest.mark.parametrize(("seconds", "expected"), [(9, []), (40, [("network-pod-down", ("w1",))])])
def test_a_pod_that_runs_and_was_not_ready_for_a_moment_is_no_fault(
    seconds: int, expected: list[object]
) -> None:
    late = pod("kubewright-network-w1", "w1", owner="kubewright-network", state={"running": {}})
    since = f"{NOW - timedelta(seconds=seconds):%Y-%m-%dT%H:%M:%SZ}"
    late["status"]["conditions"][0]["lastTransitionTime"] = since
    rest = without_pods("kubewright-network", "w1")
    assert kinds(facts(objects=replace(objects(), pods=[*rest, late]))) == expected


@pytest.mark.parametrize(("restarts", "expected"), [(1, []), (2, [("proxy-down", ("w1",))])])
def test_a_young_pod_is_named_once_it_has_failed_twice(restarts: int, expected: list[object]) -> None:
    young = pod("kube-proxy-w1", "w1", owner="kube-proxy", state={"waiting": {"reason": "CrashLoopBackOff"}})
    young["metadata"]["creationTimestamp"] = f"{NOW - timedelta(seconds=9):%Y-%m-%dT%H:%M:%SZ}"
    young["status"]["containerStatuses"][0]["restartCount"] = restarts
    assert (
        kinds(facts(objects=replace(objects(), pods=[*without_pods("kube-proxy", "w1"), young]))) == expected
    )


@pytest.mark.parametrize(("seconds", "restarts", "expected"), [(1, 3, 1), (9, 3, 0), (1, 1, 0)])
def test_who_has_ended_repeatedly_is_named_in_the_second_in_which_it_runs(
    seconds: int, restarts: int, expected: int
) -> None:
    """Though its kubelet calls it ready; the second look tells whether it goes on."""
    begun = f"{NOW - timedelta(seconds=seconds):%Y-%m-%dT%H:%M:%SZ}"
    again = pod("kube-proxy-w1", "w1", owner="kube-proxy")
    again["status"]["containerStatuses"] = [
        {
            "name": "kube-proxy", "state": {"running": {"startedAt": begun}}, "restartCount": restarts,
            "lastState": {"terminated": {"exitCode": 1}},
        }
    ]  # fmt: skip
    found = diagnose(facts(objects=replace(objects(), pods=[*without_pods("kube-proxy", "w1"), again])))
    assert [(one.kind, one.evidence[0]) for one in found] == [
        ("proxy-down", "kube-proxy-w1: container kube-proxy: has ended 3 times, with exit code 1")
    ] * expected


# -- services and DNS ---------------------------------------------------------------------------------------------


def test_a_proxy_that_asks_one_server_is_named() -> None:
    found = only(facts(config_maps=config_maps(proxy=f"https://{ADDRESSES['cp1']}:6443")))
    assert (found.kind, found.pitfall) == ("proxy-server", "P30")
    assert found.evidence[1] == f"the endpoint is {ENDPOINT}"


def test_a_proxy_without_the_pod_network_is_named_where_there_is_one() -> None:
    assert only(facts(config_maps=config_maps(cidr=""))).kind == "proxy-no-cidr"


def test_an_endpoint_that_is_silent_while_servers_are_ready_is_named_for_those_who_see_it() -> None:
    silent = ApiAnswer("w1", f"https://{ENDPOINT}", error="nothing listens there")
    found = only(facts(endpoint=[silent]))
    assert (found.kind, found.hosts, found.pitfall) == ("endpoint-silent", ("w1",), "P31")


def test_a_balancer_that_is_down_explains_the_endpoint() -> None:
    silent = ApiAnswer("w1", f"https://{ENDPOINT}", error="nothing listens there")
    down = ProxyStatus("cp1", "haproxy", runs=False, problem="its unit is failed")
    assert kinds(facts(endpoint=[silent], proxies=[down])) == [("balancer-down", ("cp1",))]


@pytest.mark.parametrize(
    "line",
    [
        '[FATAL] plugin/loop: Loop (127.0.0.1:34614 -> :53) detected for zone ".", see coredns.io/plugins/loop',
        '[FATAL] plugin/loop: Seen "HINFO IN 4849932600568443392.17305300295061." more than twice, loop detected',
    ],
)
def test_a_loop_of_coredns_is_read_from_its_log(line: str) -> None:
    found = only(
        facts(
            [seen("w1", logs={("coredns-1", "coredns"): (".:53", line)})],
            objects=replace(objects(), deployments=[dns(0)]),
        )
    )
    assert (found.kind, found.pitfall) == ("dns-loop", "P18")


def test_a_resolv_conf_that_names_cluster_dns_is_a_circle_too() -> None:
    found = only(
        facts([with_files("w1", config(clusterDNS=["10.96.0.10"]), nameservers=("10.96.0.10", "192.0.2.53"))])
    )
    assert (found.kind, found.evidence) == ("resolv-loop", ("/etc/resolv.conf: nameserver 10.96.0.10",))
    assert found.cause.endswith("names cluster DNS")


def test_a_loop_that_a_resolv_conf_explains_is_one_finding() -> None:
    logs = {("coredns-1", "coredns"): ("plugin/loop: Loop (127.0.0.1:1 -> :53) detected for zone",)}
    assert kinds(facts([seen("w1", logs=logs, nameservers=("127.0.0.1",))])) == [("resolv-loop", ("w1",))]


def test_dns_of_which_nothing_is_ready_is_named_with_its_pods() -> None:
    broken = pod(
        "coredns-1",
        "w1",
        state={"waiting": {"reason": "ErrImagePull", "message": "not found"}},
        **{"k8s-app": "kube-dns"},
    )
    found = only(facts(objects=replace(objects(), pods=[*objects().pods, broken], deployments=[dns(0)])))
    assert (found.kind, found.evidence[0]) == ("dns-down", "Deployment kube-system/coredns: 0 of 2 ready")
    assert "ErrImagePull" in found.evidence[1]


def test_dns_that_waits_for_a_network_follows_from_it() -> None:
    bare = with_files(
        "w1", {f"{CNI_DIR}/10-kubewright.conflist": None}, runs=replace(runtime("w1"), network_ready=False)
    )
    assert kinds(facts([bare], objects=replace(objects(), deployments=[dns(0)]))) == [("no-network", ("w1",))]


def test_the_api_may_be_away_without_hiding_what_a_node_shows() -> None:
    found = facts([seen("w1", hostname="blue")], objects=None, config_maps=())
    assert ("host-renamed", ("w1",)) in kinds(found)
    assert node("w1").answers


def test_a_disk_under_pressure_is_named_by_its_node_when_there_is_room_again() -> None:
    nodes = [node_object(name) for name in NAMES]
    nodes[3]["status"]["conditions"].append(
        {"type": "DiskPressure", "status": "True", "message": "kubelet has disk pressure"}
    )
    found = only(facts(objects=replace(objects(), nodes=nodes)))
    assert (found.kind, found.hosts) == ("disk-full", ("w1",))
    assert found.evidence == ("Node w1: DiskPressure: kubelet has disk pressure",)


def test_the_flag_of_the_kubelet_sets_its_thresholds() -> None:
    disks = {KUBELET_DIR: Disk("/", 100_000_000, 30_000_000)}
    assert kinds(facts([seen("w1", disks=disks)])) == []
    flags = ("kubelet", "--eviction-hard=nodefs.available<40%,memory.available<1Gi")
    assert kinds(facts([seen("w1", disks=disks, command=flags)])) == [("disk-full", ("w1",))]


def test_addresses_are_used_up_when_the_kubelet_says_so() -> None:
    line = "E0601 RunPodSandbox failed: no IP addresses available in range set: 10.244.1.1-10.244.1.254"
    found = only(facts([seen("w1", reserved=reserved(3), recent=(line,))]))
    assert (found.kind, found.severity, found.evidence[-1]) == (
        "addresses-leaked",
        Severity.ERROR,
        f"kubelet: {line}",
    )


def test_a_sandbox_of_another_architecture_is_read_from_the_kubelets_last_lines() -> None:
    line = "E0601 failed to create containerd task: OCI runtime create failed: exec /pause: exec format error"
    assert only(facts([seen("w1", recent=(line,))])).kind == "exec-format"
    assert kinds(facts([seen("w1", journal=(line,))])) == []


def test_a_worker_by_itself_says_that_the_api_is_out_of_its_reach() -> None:
    silent = ApiAnswer("w1", f"https://{ENDPOINT}", error="no answer within 4 s")
    found = facts(objects=None, servers=(), endpoint=[silent], etcd=(), config_maps=())
    alone = replace(found, nodes=found.nodes[3:], whole=False, endpoint="")
    assert kinds(alone) == [("endpoint-silent", ("w1",))]
    assert "from this node" in only(alone).cause


@pytest.mark.parametrize("ranges", ["10.0.0.0/8", [["10.0.0.0/8"]], [5], {"subnet": 1}, None])
def test_a_damaged_cni_configuration_breaks_no_diagnosis(ranges: Any) -> None:
    text = json.dumps(
        {"name": "x", "plugins": [{"type": "ptp", "ipam": {"type": "host-local", "ranges": ranges}}, 7]}
    )
    assert (
        kinds(facts([with_files("w1", {f"{CNI_DIR}/10-kubewright.conflist": text}, reserved=reserved(12))]))
        == []
    )


def test_of_several_reasons_the_last_one_counts() -> None:
    journal = ("F0101 running with swap on is not supported", "Error: unknown flag: --colour")
    assert "flags" in only(facts([seen("w1", units=DEAD, journal=journal)])).cause


@pytest.mark.parametrize(
    ("address", "found"), [("10.244.1.1/24", 1), ("10.244.0.1/16", 1), ("10.85.0.1/16", 0), ("fe80::1/64", 0)]
)
def test_a_bridge_that_is_left_behind_counts_where_its_range_covers_the_nodes(
    address: str, found: int
) -> None:
    broken = kinds(facts([seen("w1", addresses={"cni0": (address,), "docker0": ("10.244.1.1/24",)})]))
    assert broken == [("bridge-address", ("w1",))] * found


def test_removing_a_bridge_is_offered_with_what_it_interrupts() -> None:
    [fix] = only(facts([seen("w1", addresses={"cni0": ("10.244.1.1/24",)})])).fixes
    assert (fix.name, fix.arguments) == ("remove-bridge", ("cni0",))
    assert "Pods" in fix.interrupts


# -- what --fix is offered for ------------------------------------------------------------------------------------


def offered(one: NodeFacts) -> list[tuple[str, str, bool]]:
    return [(fix.name, fix.host, bool(fix.interrupts)) for fix in only(facts([one])).fixes]


def test_swap_is_turned_off_only_after_a_question() -> None:
    swaps = "Filename Type Size Used Priority\n/dev/sda2 partition 1024 0 -2"
    assert offered(with_files("w1", {SWAPS: swaps})) == [("swap-off", "w1", True)]


def test_p46_is_mended_without_a_question() -> None:
    assert offered(with_files("w1", {FORWARD: "0"})) == [("kernel-settings", "w1", False)]


def test_a_kubelet_that_was_stopped_is_started_unless_it_is_masked() -> None:
    stopped = unit(active="inactive", sub="dead", up=None)
    assert offered(seen("w1", units={"kubelet": stopped})) == [("start-kubelet", "w1", False)]
    assert offered(seen("w1", units={"kubelet": replace(stopped, file="masked")})) == []


def test_a_kubelet_that_has_failed_is_not_just_started() -> None:
    failed = unit(active="failed", sub="failed", result="exit-code", up=None)
    assert offered(seen("w1", units={"kubelet": failed})) == []


def test_a_kubelet_that_does_not_start_with_the_host_is_warned_of() -> None:
    found = only(facts([seen("w1", units={"kubelet": unit(file="disabled")})]))
    assert (found.kind, found.severity) == ("kubelet-disabled", Severity.WARNING)
    assert [fix.name for fix in found.fixes] == ["start-kubelet"]


def test_p22_an_expired_certificate_is_nothing_to_fix() -> None:
    ended = kubelet_pem("w1", issued=NOW - timedelta(days=400))
    found = only(facts([seen("w1", certs={KUBELET_CLIENT_CURRENT: ended})]))
    assert (found.kind, found.fixes) == ("kubelet-certificate", ())


# -- SELinux, and images ----------------------------------------------------------------------


def denied(name: str, line: str, *, enforce: str = "1", runs: bool = False) -> DoctorFacts:
    """A worker with a container that ends and says why, or that runs."""
    one = Container(f"{name}-x", name, 4, runs, None if runs else Ended(1))
    mine = runtime("w1")
    others = tuple(container for container in mine.containers if container.name != name)
    return facts(
        [
            with_files(
                "w1",
                {SELINUX_ENFORCE: enforce},
                runs=replace(mine, containers=(*others, one)),
                logs={(f"{name}-x", name): ("starts", line)},
            )
        ],
        objects=replace(objects(), deployments=[dns(0)]) if name == "coredns" else objects(),
    )


DENIALS = (
    'standard_init_linux.go:178: exec user process caused "operation not permitted"',
    "open /etc/coredns/Corefile: permission denied",
)


@pytest.mark.parametrize("line", DENIALS)
def test_p18_coredns_that_selinux_denies_something_is_the_cause_of_dead_dns(line: str) -> None:
    found = only(denied("coredns", line))
    assert (found.kind, found.pitfall, found.hosts) == ("selinux-denies", "P18", ("w1",))
    assert found.evidence == (f"coredns-x/coredns: {line}", "/sys/fs/selinux/enforce is 1")


def test_p50_another_container_that_selinux_denies_something() -> None:
    found = only(denied("kube-proxy", DENIALS[1]))
    assert (found.kind, found.pitfall) == ("selinux-denies", "P50")
    assert "kube-proxy ends" in found.cause


def test_p50_enforcing_alone_is_nothing() -> None:
    assert kinds(denied("kube-proxy", DENIALS[1], runs=True)) == []
    assert kinds(facts([with_files("w1", {SELINUX_ENFORCE: "1"})])) == []


def test_a_denial_without_selinux_or_of_a_port_is_not_laid_to_it() -> None:
    for line, enforce in ((DENIALS[0], "0"), ("listen tcp :53: bind: permission denied", "1")):
        assert "selinux-denies" not in [kind for kind, _ in kinds(denied("coredns", line, enforce=enforce))]


def test_p13_an_images_architecture_is_shown_beside_the_hosts() -> None:
    one = Container(
        "kube-proxy-x", "kube-proxy", 3, False, Ended(1), "k8s.gcr.io/kube-proxy:v1.20.2", "amd64"
    )
    mine = runtime("w1")
    rest = tuple(container for container in mine.containers if container.name != "kube-proxy")
    broken = seen(
        "w1", replace(mine, containers=(*rest, one)), machine="arm64",
        logs={("kube-proxy-x", "kube-proxy"): ("exec /usr/local/bin/kube-proxy: exec format error",)},
    )  # fmt: skip
    found = only(facts([broken]))
    assert found.kind == "exec-format"
    assert found.evidence[-1] == "k8s.gcr.io/kube-proxy:v1.20.2 is for amd64, the host is arm64"


def test_p13_what_a_pod_that_is_gone_has_left_is_no_fault() -> None:
    """Its log and its container stay for minutes."""
    mine = runtime("w1")
    one = Container("tool-x", "tool", 3, False, Ended(1, message="exec format error"), "tool:1", "arm64")
    left = seen(
        "w1", replace(mine, containers=(*mine.containers, one), pods=frozenset({"kube-proxy-x"})),
        logs={("tool-x", "tool"): ("exec /tool: exec format error",)},
    )  # fmt: skip
    assert kinds(facts([left])) == []
    assert left.runtime is not None
    there = replace(left, runtime=replace(left.runtime, pods=frozenset({"tool-x"})))
    assert kinds(facts([there])) == [("exec-format", ("w1",))]


def test_p13_the_hosts_architecture_is_shown_where_no_image_is_known() -> None:
    line = "E0601 failed to create containerd task: exec /pause: exec format error"
    assert only(facts([seen("w1", recent=(line,), machine="arm64")])).evidence[-1] == "the host is arm64"
