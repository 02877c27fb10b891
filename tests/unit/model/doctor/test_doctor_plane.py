"""etcd, the control plane's components and certificates: what is broken, and what only follows from it."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
import yaml
from tests.unit.model.doctor.doctor_world import (
    ADDRESSES,
    ENDPOINT,
    NOW,
    PLANES,
    api_pem,
    facts,
    kinds,
    lease,
    manifest,
    member,
    objects,
    only,
    runtime,
    seen,
    server,
    unit,
    with_files,
    without,
)

from kubewright.model.doctor.diagnose import diagnose
from kubewright.model.doctor.facts import Container, Ended, RuntimeFacts
from kubewright.model.doctor.finding import Severity
from kubewright.model.manifests import manifest_path
from kubewright.model.status_certs import SeenCert

PANIC = "2026-06-01 11:59:50 C | etcdserver: open wal error: wal: file not found"


def ended(code: int = 1, **more: Any) -> Ended:
    return Ended(code, at=NOW - timedelta(seconds=30), **more)


# -- etcd ---------------------------------------------------------------------------------------------------------


def test_one_member_that_is_away_is_named_with_its_log_and_what_is_left() -> None:
    broken = seen(
        "cp2",
        without("cp2", "etcd", ended={"etcd": ended()}),
        logs={("etcd-cp2", "etcd"): ("started", PANIC)},
    )
    found = only(
        facts([broken], etcd=[member("cp1"), member("cp2", error="nothing listens there"), member("cp3")])
    )
    assert (found.kind, found.pitfall, found.hosts) == ("etcd-member-down", "P01", ("cp2",))
    assert found.evidence == (
        "etcd member cp2: does not answer: nothing listens there",
        "container etcd, attempt 0, ended with 1 at 11:59:30 UTC",
        f"etcd: {PANIC}",
    )
    assert "no more may fail" in found.breaks


def test_one_dead_etcd_that_takes_everything_along_is_one_finding() -> None:
    """A single control plane: without etcd no API server, no controllers, no leader, and nobody who says so."""
    gone = ("etcd", "kube-apiserver", "kube-controller-manager")
    broken = seen("cp1", without("cp1", *gone, ended=dict.fromkeys(gone, ended())))
    found = facts(
        [broken],
        objects=None,
        servers=[server("cp1", error="nothing listens there")],
        endpoint=[],
        etcd=[member("cp1", error="nothing listens there")],
    )
    assert kinds(replace(found, nodes=found.nodes[:1])) == [("etcd-member-down", ("cp1",))]


def test_two_members_that_are_away_are_the_causes_of_a_lost_majority() -> None:
    dead = [seen(name, without(name, "etcd")) for name in ("cp2", "cp3")]
    answers = [
        member("cp1", leader=0),
        *(member(name, error="nothing listens there") for name in ("cp2", "cp3")),
    ]
    found = facts(
        dead,
        objects=None,
        etcd=answers,
        servers=[server(name, error="no answer within 4 s") for name in PLANES],
    )
    assert kinds(found) == [("etcd-member-down", ("cp2", "cp3"))]
    assert "nothing can be written" in only(found).breaks


def test_members_that_answer_and_elect_nobody_have_no_leader() -> None:
    found = only(facts(etcd=[member(name, leader=0) for name in PLANES]))
    assert (found.kind, found.hosts) == ("etcd-no-quorum", ())
    assert "no leader" in found.cause


def test_a_full_database_is_one_finding_although_nothing_can_be_written() -> None:
    alarm = {1: ("NOSPACE",)}
    stale = lease("kube-scheduler") | {"spec": lease("x")["spec"] | {"renewTime": "2026-06-01T11:50:00Z"}}
    found = only(facts(etcd=[member("cp1", alarms=alarm), member("cp2"), member("cp3")], leases=[stale]))
    assert (found.kind, found.pitfall, found.hosts) == ("etcd-alarm", "P20", ("cp1",))


def test_a_member_that_is_far_behind_is_named() -> None:
    behind = member("cp2")
    assert behind.words is not None
    leader = member("cp1")
    assert leader.words is not None
    words = replace(leader.words, index=90_000)
    far = replace(leader, words=words)
    assert kinds(facts(etcd=[far, behind, replace(member("cp3"), words=replace(words, id=3))])) == [
        ("etcd-member-ill", ("cp2",))
    ]


# -- components ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "kind"),
    [("kube-controller-manager", "controller-manager-down"), ("kube-scheduler", "scheduler-down")],
)
def test_a_component_that_has_ended_is_named_with_its_last_words(name: str, kind: str) -> None:
    broken = seen(
        "cp1",
        without("cp1", name, ended={name: ended(255)}),
        logs={(f"{name}-cp1", name): ("I0601 fine", "F0601 12:00:00 unknown flag: --colour", "usage:")},
    )
    found = only(facts([broken]))
    assert (found.kind, found.pitfall, found.hosts) == (kind, "P21", ("cp1",))
    assert found.evidence[0] == f"container {name}, attempt 0, ended with 255 at 11:59:30 UTC"
    assert f"{name}: F0601 12:00:00 unknown flag: --colour" in found.evidence


def test_a_component_whose_manifest_is_gone_is_named() -> None:
    broken = with_files("cp3", {manifest_path("kube-scheduler"): None}, runs=without("cp3", "kube-scheduler"))
    assert "its manifest is gone" in only(facts([broken])).cause


def test_the_leader_that_is_missed_follows_from_a_component_that_is_down() -> None:
    stale = lease("kube-scheduler") | {"spec": lease("x")["spec"] | {"renewTime": "2026-06-01T11:50:00Z"}}
    assert kinds(facts(leases=[stale])) == [("no-leader", ())]
    broken = [seen(name, without(name, "kube-scheduler")) for name in PLANES]
    assert kinds(facts(broken, leases=[stale])) == [("scheduler-down", PLANES)]


@pytest.mark.parametrize(
    ("lasted", "runs", "expected"),
    [(1, None, True), (1, 20, True), (1, 40, False), (50, 55, True), (50, 65, False)],
)
def test_a_component_that_ends_again_and_again_is_named_while_it_runs(
    lasted: int, runs: int | None, expected: bool
) -> None:
    """Until it has run for longer than it did before."""
    base = runtime("cp1")
    end = Ended(2, at=NOW - timedelta(seconds=90), lasted=timedelta(seconds=lasted))
    old = tuple(Container("kube-scheduler-cp1", "kube-scheduler", number, False, end) for number in (4, 5))
    created = NOW - timedelta(seconds=runs) if runs is not None else None
    now = Container("kube-scheduler-cp1", "kube-scheduler", 6, True, created=created)
    rest = tuple(one for one in base.containers if one.name != "kube-scheduler")
    found = facts([seen("cp1", replace(base, containers=(*rest, *old, now)))])
    assert [one.cause for one in diagnose(found)] == ["kube-scheduler ends again and again"] * expected


@pytest.mark.parametrize(
    "end",
    [
        ended(0, lasted=timedelta(seconds=1)),
        ended(1, lasted=timedelta(hours=2)),
        ended(1),
        Ended(1, at=NOW - timedelta(hours=3), lasted=timedelta(seconds=1)),
    ],
    ids=["asked for", "after a long run", "nobody knows", "long ago"],
)
def test_a_restart_that_does_not_repeat_itself_is_no_fault(end: Ended) -> None:
    base = runtime("cp1")
    old = Container("kube-scheduler-cp1", "kube-scheduler", 5, False, end)
    assert kinds(facts([seen("cp1", replace(base, containers=(*base.containers, old)))])) == []


def test_a_frozen_api_server_is_told_from_one_that_has_ended() -> None:
    silent = [server("cp1", error="no answer within 4 s"), server("cp2"), server("cp3")]
    found = only(facts(servers=silent))
    assert (found.kind, found.cause) == ("api-silent", "the API server runs, and does not answer")
    gone = [seen("cp1", without("cp1", "kube-apiserver", "kube-controller-manager", "kube-scheduler"))]
    assert kinds(facts(gone, servers=silent)) == [("apiserver-down", ("cp1",))]


def test_a_control_plane_of_which_nothing_was_started_is_one_finding() -> None:
    empty = replace(runtime("cp1"), containers=())
    answers = [member("cp1", error="nothing listens there"), member("cp2", leader=2), member("cp3", leader=2)]
    found = facts(
        [seen("cp1", empty)],
        etcd=answers,
        servers=[server("cp1", error="nothing"), server("cp2"), server("cp3")],
    )
    assert kinds(found) == [("nothing-runs", ("cp1",))]
    stopped = seen("cp1", empty, units={"kubelet": unit(active="inactive", sub="dead", up=None)})
    assert kinds(facts([stopped], etcd=answers)) == [("kubelet-stopped", ("cp1",))]


def test_a_kubelet_that_has_just_started_may_still_start_its_pods() -> None:
    young = seen(
        "cp1", replace(runtime("cp1"), containers=()), units={"kubelet": unit(up=timedelta(seconds=20))}
    )
    assert ("nothing-runs", ("cp1",)) not in kinds(facts([young]))


@pytest.mark.parametrize(("level", "found"), [("2", 0), ("3", 0), ("4", 1), ("10", 1)])
def test_a_component_that_logs_too_much_is_a_warning(level: str, found: int) -> None:
    loud = manifest("kube-scheduler", "", f"--v={level}")
    findings = kinds(facts([with_files("cp1", {manifest_path("kube-scheduler"): loud})]))
    assert len(findings) == found


def test_a_certificate_that_lacks_the_endpoint_is_named_with_what_it_has() -> None:
    pem = api_pem(ADDRESSES["cp2"])
    broken = seen("cp2", certs={"/etc/kubernetes/pki/apiserver.crt": pem})
    found = only(facts([broken]))
    assert (found.kind, found.pitfall) == ("api-certificate", "P26")
    assert found.evidence[0] == f"/etc/kubernetes/pki/apiserver.crt is not for {ENDPOINT.partition(':')[0]}"


def test_another_servers_certificate_lacks_this_ones_address() -> None:
    """As the seed's author had copied it."""
    pem = api_pem(ADDRESSES["cp1"], "10.0.0.9", "10.96.0.1")
    found = only(facts([seen("cp2", certs={"/etc/kubernetes/pki/apiserver.crt": pem})]))
    assert ADDRESSES["cp2"] in found.evidence[0]


# -- certificates -------------------------------------------------------------------------------------------------


def certs(days: float, name: str = "apiserver") -> list[SeenCert]:
    return [SeenCert("cp1", name, NOW + timedelta(days=days))]


def test_certificates_are_named_30_days_ahead_and_as_errors_when_they_have_ended() -> None:
    assert kinds(facts(certs=certs(31))) == []
    soon = only(facts(certs=certs(29)))
    assert (soon.kind, soon.severity) == ("certificates-ending", Severity.WARNING)
    gone = only(facts(certs=certs(-1)))
    assert (gone.kind, gone.severity, gone.pitfall) == ("certificates-ended", Severity.ERROR, "P22")


def test_the_kubelets_own_certificate_is_left_to_its_rotation() -> None:
    assert kinds(facts(certs=certs(5, "kubelet-client"))) == []


def test_what_expired_certificates_stop_is_not_named_beside_them() -> None:
    found = facts(
        objects=None,
        certs=certs(-1),
        servers=[server("cp1", error="its certificate is not accepted")],
        etcd=[member("cp1", error="its certificate is not accepted")],
    )
    assert kinds(replace(found, nodes=found.nodes[:1])) == [("certificates-ended", ("cp1",))]


def test_a_served_certificate_that_is_older_than_its_file_asks_for_a_restart() -> None:
    assert "restart" in only(facts(certs=certs(3, "apiserver, as it serves it"))).mend[0]


def test_an_authority_is_not_renewed_in_place() -> None:
    assert any("authority" in line for line in only(facts(certs=certs(3, "ca"))).mend)


# -- the runtime --------------------------------------------------------------------------------------------------


def test_a_dead_runtime_is_one_finding_with_its_units_state() -> None:
    dead = RuntimeFacts(False, "no container runtime listens at /run/containerd/containerd.sock on w1 (P15)")
    units = {
        "kubelet": unit(active="activating", sub="auto-restart", up=None, restarts=3),
        "containerd": unit(active="failed", sub="failed", result="exit-code", up=None),
    }
    found = only(facts([seen("w1", dead, units=units)]))
    assert (found.kind, found.pitfall, found.hosts) == ("runtime-dead", "P15", ("w1",))
    assert "containerd: failed, result exit-code" in found.evidence
    assert found.mend[0] == "systemctl restart containerd"


def test_a_host_that_is_no_node_needs_no_runtime() -> None:
    assert (
        kinds(
            facts(
                [with_files("w1", {"/etc/kubernetes/kubelet.conf": None}, runs=RuntimeFacts(False, "none"))]
            )
        )
        == []
    )


def test_a_program_of_another_architecture_explains_what_does_not_run() -> None:
    logs = {("kube-proxy-w1", "kube-proxy"): ("exec /usr/local/bin/kube-proxy: exec format error",)}
    found = only(facts([seen("w1", without("w1", "kube-proxy"), logs=logs)]))
    assert (found.kind, found.pitfall) == ("exec-format", "P13")


def test_an_old_line_of_a_container_that_runs_now_is_no_fault() -> None:
    logs = {("kube-proxy-w1", "kube-proxy"): ("exec format error",)}
    assert kinds(facts([seen("w1", logs=logs)])) == []


def test_a_runtimes_message_on_a_container_that_could_not_start_is_read() -> None:
    end = Ended(128, "StartError", 'exec: "/coredns": exec format error')
    base = runtime("w1")
    broken = replace(base, containers=(*base.containers, Container("coredns-1", "coredns", 3, False, end)))
    assert only(facts([seen("w1", broken)])).kind == "exec-format"


def test_the_world_of_these_tests_reads_as_it_is_written() -> None:
    assert yaml.safe_load(manifest("kube-apiserver", "10.0.0.1"))["spec"]["containers"][0]["command"] == [
        "kube-apiserver",
        "--advertise-address=10.0.0.1",
    ]


def test_hosts_that_do_not_let_us_in_are_no_lost_majority_while_somebody_leads() -> None:
    answers = [
        member("cp1", leader=2),
        *(member(name, error="nobody could ask it") for name in ("cp2", "cp3")),
    ]
    found = only(facts(etcd=answers))
    assert (found.kind, found.hosts) == ("etcd-member-down", ("cp2", "cp3"))
    assert "somebody leads" in found.breaks


def test_an_etcd_on_a_host_of_its_own_is_shown_by_its_unit() -> None:
    units = {"kubewright-etcd": unit(active="failed", sub="failed", result="exit-code", up=None)}
    alone = with_files("cp2", {"/etc/kubernetes/kubelet.conf": None}, units=units)
    found = only(
        facts([alone], etcd=[member("cp1"), member("cp2", error="nothing listens there"), member("cp3")])
    )
    assert "kubewright-etcd.service: failed, result exit-code" in found.evidence
    assert found.mend[0] == "systemctl restart kubewright-etcd.service"


@pytest.mark.parametrize("name", ["kubelet", "workload"])
def test_whatever_logs_too_much_is_named(name: str) -> None:
    if name == "kubelet":
        found = only(facts([seen("w1", command=("kubelet", "--v=6"))]))
        assert (found.hosts, found.evidence) == (("w1",), ("the kubelet's flags: --v=6",))
    else:
        daemons = [*objects().daemon_sets]
        daemons[0] = {**daemons[0], "spec": {"template": {"spec": {"containers": [{"command": ["x", "--v=5"]}],
            "tolerations": [{"operator": "Exists"}]}}}}  # fmt: skip
        found = only(facts(objects=replace(objects(), daemon_sets=daemons)))
        assert (found.hosts, found.evidence) == ((), ("kube-system/kube-proxy: --v=5",))


def test_a_controller_that_hangs_is_named_although_its_container_runs() -> None:
    why = "kube-scheduler does not answer on port 10259: no answer in time"
    found = only(facts([replace(seen("cp2"), mute={"kube-scheduler": why})]))
    assert (found.kind, found.hosts, found.cause) == (
        "scheduler-down", ("cp2",), "kube-scheduler runs, and does not answer",
    )  # fmt: skip
    assert found.evidence[0] == why


def test_a_manifest_of_etcd_that_is_gone_is_told_from_an_etcd_elsewhere() -> None:
    bare = with_files("cp1", {manifest_path("etcd"): None}, runs=without("cp1", "etcd"))
    answers = [member("cp1", error="nothing listens there"), member("cp2", leader=2), member("cp3", leader=2)]
    assert kinds(facts([bare], etcd=answers)) == [("etcd-removed", ("cp1",))]
    assert kinds(facts([bare], etcd=answers, external_etcd=True)) == [("etcd-member-down", ("cp1",))]
